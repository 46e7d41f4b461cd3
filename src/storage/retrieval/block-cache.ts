import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CID } from 'multiformats/cid';
import type { Logger } from '../../log.ts';
import { isBlockOf, isIdentity } from '../content/block.ts';

/** A disk cache of verified blocks: bounded, the least useful leave first, and there again after a restart. */
export interface BlockCache {
  /** The bytes of a block, checked against its CID again; undefined when it is not here or was damaged on disk. */
  get(cid: CID): Promise<Uint8Array | undefined>;
  /** Keeps a block whose bytes were verified; false when the bytes are not those of the CID or it is greater than the cache. */
  put(cid: CID, bytes: Uint8Array): Promise<boolean>;
  has(cid: CID): boolean;
  usage(): { bytes: number; bytesMax: number; blocks: number; hits: number; misses: number };
}

interface Entry {
  bytes: number;
  touchedMs: number;
}

/** Blocks asked for twice may fill this part of the cache: one pass over a great file cannot drive them out. */
const KEPT_PART = 0.8;
const TOUCH_EVERY_MS = 60_000;

/**
 * Opens a cache. Two queues (segmented LRU): a block enters the first, and moves to the second when it is asked for again;
 * the first is emptied first. A write is a rename, so a block is whole or absent; a damaged one is a miss.
 */
export async function openBlockCache(options: { folder: string; bytesMax: number; log: Logger }): Promise<BlockCache> {
  const { folder, bytesMax, log } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const fresh = new Map<string, Entry>();
  const kept = new Map<string, Entry>();
  const counts = { bytes: 0, keptBytes: 0, hits: 0, misses: 0 };
  const pathOf = (key: string) => join(folder, key.slice(-2), key);

  const evict = async (): Promise<void> => {
    const gone: string[] = [];
    while (counts.bytes > bytesMax) {
      const queue = fresh.size > 0 ? fresh : kept;
      const [key, entry] = queue.entries().next().value as [string, Entry];
      queue.delete(key);
      counts.bytes -= entry.bytes;
      if (queue === kept) counts.keptBytes -= entry.bytes;
      gone.push(key);
    }
    for (const key of gone) await rm(pathOf(key), { force: true });
  };
  const forget = (key: string): void => {
    const entry = fresh.get(key) ?? kept.get(key);
    if (entry === undefined) return;
    counts.bytes -= entry.bytes;
    if (kept.delete(key)) counts.keptBytes -= entry.bytes;
    fresh.delete(key);
  };
  const promote = (key: string): void => {
    const entry = fresh.get(key) ?? (kept.get(key) as Entry);
    if (fresh.delete(key)) counts.keptBytes += entry.bytes;
    kept.delete(key);
    kept.set(key, entry);
    while (counts.keptBytes > bytesMax * KEPT_PART && kept.size > 1) {
      const [oldest, demoted] = kept.entries().next().value as [string, Entry];
      kept.delete(oldest);
      counts.keptBytes -= demoted.bytes;
      fresh.set(oldest, demoted);
    }
    if (Date.now() - entry.touchedMs < TOUCH_EVERY_MS) return;
    entry.touchedMs = Date.now();
    utimes(pathOf(key), new Date(), new Date()).catch(() => {}); // the order of use, for the next start
  };

  for (const found of await readFolder(folder)) {
    fresh.set(found.key, { bytes: found.bytes, touchedMs: found.touchedMs });
    counts.bytes += found.bytes;
  }
  await evict();
  log.info('cache-opened', { blocks: fresh.size, bytes: counts.bytes });

  return {
    async get(cid) {
      if (isIdentity(cid)) return cid.multihash.digest;
      const key = keyOf(cid);
      if (fresh.has(key) || kept.has(key)) {
        const bytes = await readFile(pathOf(key)).catch(() => undefined);
        if (bytes !== undefined && isBlockOf(cid, bytes)) {
          counts.hits += 1;
          if (fresh.has(key) || kept.has(key)) promote(key);
          return bytes;
        }
        log.warn('cached-block-damaged', { cid: cid.toString() });
        forget(key);
        await rm(pathOf(key), { force: true });
      }
      counts.misses += 1;
      return undefined;
    },
    async put(cid, bytes) {
      if (bytes.length > bytesMax || !isBlockOf(cid, bytes)) return false;
      const key = keyOf(cid);
      if (isIdentity(cid) || fresh.has(key) || kept.has(key)) return true;
      fresh.set(key, { bytes: bytes.length, touchedMs: Date.now() });
      counts.bytes += bytes.length;
      try {
        const temporary = join(folder, `.${randomBytes(8).toString('hex')}`);
        await writeFile(temporary, bytes, { mode: 0o600 });
        await mkdir(join(folder, key.slice(-2)), { recursive: true, mode: 0o700 });
        await rename(temporary, pathOf(key));
      } catch (error) {
        forget(key);
        throw error;
      }
      await evict();
      return true;
    },
    has: (cid) => isIdentity(cid) || fresh.has(keyOf(cid)) || kept.has(keyOf(cid)),
    usage: () => ({ bytes: counts.bytes, bytesMax, blocks: fresh.size + kept.size, hits: counts.hits, misses: counts.misses }),
  };
}

/** Blocks of one hash are one block, whatever codec names them. */
function keyOf(cid: CID): string {
  return CID.createV1(0x55, cid.multihash).toString();
}

async function readFolder(folder: string): Promise<{ key: string; bytes: number; touchedMs: number }[]> {
  const found: { key: string; bytes: number; touchedMs: number }[] = [];
  for (const name of await readdir(folder)) {
    if (name.startsWith('.')) {
      await rm(join(folder, name), { force: true }); // a write that never ended
      continue;
    }
    for (const key of await readdir(join(folder, name))) {
      const { size, mtimeMs } = await stat(join(folder, name, key));
      found.push({ key, bytes: size, touchedMs: mtimeMs });
    }
  }
  return found.sort((left, right) => left.touchedMs - right.touchedMs);
}
