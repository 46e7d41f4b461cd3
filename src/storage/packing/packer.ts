import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Clock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { buildContent, type ContentInput } from '../content/content.ts';
import { readJsonFile, syncFolder, writeDurably } from '../content/durable-file.ts';
import { PACK_OBJECTS_MAX, type Pack, packObjects } from './pack.ts';

/** When what waits is packed: so many bytes of CARs, so many objects, or the oldest has waited so long. */
export interface PackRules {
  bytes: number;
  objects: number;
  afterMs: number;
}

/** 256 MiB, 1,000 objects, or five seconds. */
export const PACK_RULES: PackRules = { bytes: 256 << 20, objects: 1000, afterMs: 5000 };

/** Where an object is: still waiting as a CAR of its own, or at a range of a pack's piece. */
export type ObjectPlace =
  | { state: 'waiting'; carPath: string; carSize: number }
  | { state: 'packed' | 'stored'; packCid: string; offset: number; length: number };

/** Collects small objects and packs them; what was acknowledged survives a crash at any moment. */
export interface Packer {
  /** Builds an object, sealed or public, and keeps it; durable when it resolves. The same object twice is kept once. @throws object-too-large and what `buildContent` throws */
  add(input: Omit<ContentInput, 'workFolder'>): Promise<{ cid: string; carSize: number; fileKey: Uint8Array | undefined }>;
  /** Makes a pack if one is due, or if `now` is set and anything waits. One at a time. */
  pack(options?: { now?: boolean; signal?: AbortSignal }): Promise<Pack | undefined>;
  /** Packs that are not stored yet, oldest first: those of an earlier run too. */
  unstored(): Pack[];
  /** The pack is safe with its holders: its CAR is deleted here, its index is kept. @throws not-found */
  markStored(packCid: string): Promise<void>;
  find(cid: string): ObjectPlace | undefined;
}

interface Waiting {
  cid: string;
  carPath: string;
  carSize: number;
  sinceMs: number;
}

type PackRecord = Pack & { version: 1; isStored: boolean; sequence: number };

/** Opens the packer of a folder that is its own; `clock` says when objects have waited long enough. */
export async function openPacker(options: { folder: string; clock: Clock; rules?: PackRules }): Promise<Packer> {
  const { folder, clock, rules = PACK_RULES } = options;
  const [waitingFolder, packsFolder] = [join(folder, 'objects'), join(folder, 'packs')];
  await rm(join(folder, 'incoming'), { recursive: true, force: true });
  for (const path of [waitingFolder, packsFolder]) await mkdir(path, { recursive: true, mode: 0o700 });
  const records = await readRecords(packsFolder);
  const places = new Map<string, { record: PackRecord; offset: number; length: number }>();
  const remember = (record: PackRecord) => {
    for (const { cid, offset, length } of record.objects) places.set(cid, { record, offset, length });
  };
  records.forEach(remember);
  const waiting = await readWaiting(waitingFolder, clock.nowMs(), (cid) => places.has(cid));
  let turn: Promise<unknown> = Promise.resolve();

  const next = (now: boolean): Waiting[] => {
    const chosen: Waiting[] = [];
    let bytes = 0;
    const all = [...waiting.values()];
    for (const object of all) {
      if (chosen.length >= Math.min(rules.objects, PACK_OBJECTS_MAX) || (bytes > 0 && bytes + object.carSize > rules.bytes)) break;
      chosen.push(object);
      bytes += object.carSize;
    }
    const isFull = chosen.length < all.length || chosen.length >= rules.objects || bytes >= rules.bytes;
    const isOld = all.some(({ sinceMs }) => clock.nowMs() - sinceMs >= rules.afterMs);
    return now || isFull || isOld ? chosen : [];
  };
  const packNext = async (now: boolean, signal: AbortSignal | undefined): Promise<Pack | undefined> => {
    const objects = next(now);
    if (objects.length === 0) return undefined;
    const pack = await packObjects({ objects, folder: packsFolder, signal });
    const record: PackRecord = { ...pack, version: 1, isStored: false, sequence: (records.at(-1)?.sequence ?? 0) + 1 };
    await writeDurably(join(packsFolder, `${pack.cid}.json`), JSON.stringify(record));
    records.push(record);
    remember(record);
    for (const { cid, carPath } of objects) {
      waiting.delete(cid);
      await rm(carPath, { force: true });
    }
    return pack;
  };

  return {
    async add(input) {
      const workFolder = join(folder, 'incoming', randomBytes(8).toString('hex'));
      try {
        const { cid, carPath, carSize, fileKey } = await buildContent({ ...input, workFolder });
        if (carSize > rules.bytes) throw tooLarge(cid, carSize, rules.bytes);
        if (!places.has(cid) && !waiting.has(cid)) {
          const kept = join(waitingFolder, basename(carPath));
          await link(carPath, kept).catch((error) => {
            if (error.code !== 'EEXIST') throw error;
          });
          await syncFolder(waitingFolder);
          waiting.set(cid, { cid, carPath: kept, carSize, sinceMs: clock.nowMs() });
        }
        return { cid, carSize, fileKey };
      } finally {
        await rm(workFolder, { recursive: true, force: true });
      }
    },
    pack({ now = false, signal } = {}) {
      const result = turn.catch(() => {}).then(() => packNext(now, signal));
      turn = result;
      return result;
    },
    unstored: () => records.filter(({ isStored }) => !isStored),
    async markStored(packCid) {
      const record = records.find(({ cid }) => cid === packCid);
      if (record === undefined) throw unknownPack(packCid);
      await writeDurably(join(packsFolder, `${packCid}.json`), JSON.stringify({ ...record, isStored: true }));
      record.isStored = true;
      await rm(record.carPath, { force: true });
    },
    find(cid) {
      const object = waiting.get(cid);
      if (object !== undefined) return { state: 'waiting', carPath: object.carPath, carSize: object.carSize };
      const place = places.get(cid);
      if (place === undefined) return undefined;
      const { record, offset, length } = place;
      return { state: record.isStored ? 'stored' : 'packed', packCid: record.cid, offset, length };
    },
  };
}

/** Records of complete packs, oldest first; a CAR without a record is what a crash left, and its objects still wait. */
async function readRecords(packsFolder: string): Promise<PackRecord[]> {
  const names = await readdir(packsFolder);
  const records: PackRecord[] = [];
  for (const name of names.filter((each) => each.endsWith('.json'))) {
    const record = (await readJsonFile(join(packsFolder, name))) as PackRecord;
    records.push({ ...record, carPath: join(packsFolder, `${record.cid}.car`) });
  }
  const known = new Set(records.filter(({ isStored }) => !isStored).map(({ cid }) => `${cid}.car`));
  for (const name of names) if (!name.endsWith('.json') && !known.has(name)) await rm(join(packsFolder, name), { force: true });
  return records.sort((a, b) => a.sequence - b.sequence);
}

async function readWaiting(folder: string, nowMs: number, isPacked: (cid: string) => boolean): Promise<Map<string, Waiting>> {
  const waiting = new Map<string, Waiting>();
  for (const name of (await readdir(folder)).sort()) {
    const [cid, carPath] = [basename(name, '.car'), join(folder, name)];
    if (isPacked(cid)) await rm(carPath, { force: true });
    else waiting.set(cid, { cid, carPath, carSize: (await stat(carPath)).size, sinceMs: nowMs });
  }
  return waiting;
}

function tooLarge(cid: string, carSize: number, limit: number): MillraceError {
  return new MillraceError('object-too-large', {
    actor: 'caller',
    message: `Object ${cid} has ${carSize} bytes, a pack takes ${limit}`,
    values: { cid, sizeBytes: carSize, limit },
    hint: 'Store it as a content of its own.',
  });
}

function unknownPack(cid: string): MillraceError {
  return new MillraceError('not-found', { actor: 'caller', message: `There is no pack ${cid}`, values: { cid } });
}
