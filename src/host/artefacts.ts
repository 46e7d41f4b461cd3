import { createHash, randomUUID } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import { lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CID } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import type { Artefact } from './executor.ts';

/** What was taken, and the first thing that was refused; then nothing was taken. */
export interface Collected {
  artefacts: Artefact[];
  refused: string | undefined;
}

const RAW = 0x55;
const SHA2_256 = 0x12;
const ENTRIES_MAX = 10_000;
const DEPTH_MAX = 32;
const PATH_BYTES_MAX = 1024;
const CHUNK_BYTES = 1 << 20;
const SHOWN = 120;
/** Files that are copied side by side, so that the disk commits them together. */
const AT_ONCE = 16;

/** The name of some bytes by their SHA-256: CIDv1, raw. */
export function cidOfDigest(sha256: Uint8Array): string {
  return CID.createV1(RAW, createDigest(SHA2_256, sha256)).toString();
}

/**
 * Takes the files that a job left, each under its CID in `target`, so that no name of the job's choosing is ever a path of this machine.
 * Nothing runs any more that could change the folder. Only plain files and folders are taken, with names of plain UTF-8; sizes are counted as
 * they are read out, so a sparse file counts whole. One forbidden thing, and nothing is taken: half a result is none.
 */
export async function collectArtefacts(source: string, target: string | undefined, bytesMax: number): Promise<Collected> {
  const found: { path: string; file: string; sizeBytes: number }[] = [];
  let left = bytesMax;
  const walk = async (folder: string, prefix: string, depth: number): Promise<string | undefined> => {
    for (const name of (await readdir(folder, { encoding: 'buffer' })).sort(Buffer.compare)) {
      const path = prefix + name.toString('utf8');
      const file = join(folder, name.toString('utf8'));
      const stats = faultOfName(name, path) ?? (await lstat(file, { bigint: true }));
      const fault = typeof stats === 'string' ? stats : faultOfEntry(stats, path);
      if (fault !== undefined) return fault;
      const { size, isFolder } = { size: Number((stats as BigIntStats).size), isFolder: (stats as BigIntStats).isDirectory() };
      if (isFolder && depth >= DEPTH_MAX) return `${show(path)} lies deeper than ${DEPTH_MAX} folders`;
      if (!isFolder) found.push({ path, file, sizeBytes: size });
      if (!isFolder) left -= size;
      if (left < 0) return `the files have more than ${bytesMax} bytes`;
      if (found.length > ENTRIES_MAX) return `there are more than ${ENTRIES_MAX} files`;
      const deeper = isFolder ? await walk(file, `${path}/`, depth + 1) : undefined;
      if (deeper !== undefined) return deeper;
    }
    return undefined;
  };
  const refused = await walk(source, '', 1);
  if (refused !== undefined || target === undefined) return { artefacts: [], refused };
  await mkdir(target, { recursive: true });
  const artefacts: Artefact[] = [];
  try {
    for (let at = 0; at < found.length; at += AT_ONCE) {
      const some = found
        .slice(at, at + AT_ONCE)
        .map(async ({ path, file, sizeBytes }) => ({ path, sizeBytes, cid: await keep(file, target, sizeBytes) }));
      artefacts.push(...(await Promise.all(some)));
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
    return { artefacts: [], refused: 'a file cannot be read' };
  }
  return { artefacts, refused: undefined };
}

function faultOfName(name: Buffer, path: string): string | undefined {
  const text = name.toString('utf8');
  const isPlain = Buffer.from(text, 'utf8').equals(name) && !/[\p{Cc}\\]/u.test(text);
  if (!isPlain) return `the name ${show(path)} is not plain UTF-8`;
  return Buffer.byteLength(path) > PATH_BYTES_MAX ? `the path ${show(path)} has more than ${PATH_BYTES_MAX} bytes` : undefined;
}

function faultOfEntry(stats: BigIntStats, path: string): string | undefined {
  if (stats.isDirectory()) return undefined;
  if (!stats.isFile()) return `${show(path)} is a link, a device, a socket or a pipe`;
  return undefined;
}

const show = (path: string) => JSON.stringify(path.length > SHOWN ? `${path.slice(0, SHOWN)}…` : path);

/** Copies while hashing, never following a link, never reading more than the size that was counted. */
async function keep(file: string, target: string, sizeBytes: number): Promise<string> {
  const input = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const temporary = join(target, `.${randomUUID()}`);
  try {
    const output = await open(temporary, 'wx', 0o600);
    const digest = createHash('sha256');
    try {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(1, sizeBytes)));
      for (let at = 0; at < sizeBytes; ) {
        const { bytesRead } = await input.read(chunk, 0, Math.min(chunk.length, sizeBytes - at), at);
        if (bytesRead === 0) break;
        digest.update(chunk.subarray(0, bytesRead));
        await output.write(chunk, 0, bytesRead);
        at += bytesRead;
      }
      await output.sync();
    } finally {
      await output.close();
    }
    const cid = cidOfDigest(digest.digest());
    await rename(temporary, join(target, cid));
    return cid;
  } finally {
    await input.close();
    await rm(temporary, { force: true });
  }
}
