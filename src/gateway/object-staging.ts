import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, mkdirSync, readdirSync } from 'node:fs';
import { type FileHandle, link, mkdir, open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from '../durable-file.ts';
import { MillraceError, toMillraceError } from '../errors.ts';

/** Bytes that have arrived and are durable on this machine. */
export interface StagedData {
  dataId: string;
  sizeBytes: number;
  md5: Buffer;
}

/** Local copies of objects: from their arrival until the network has proven that it holds them. */
export interface ObjectStaging {
  /**
   * Takes a body to the disk; durable when it resolves. Nothing is left of a body that fails or is refused by `check`.
   * @throws staging-full, object-too-big, disk-full
   */
  receive(body: AsyncIterable<Uint8Array>, limits: { bytesMax: number; check?: () => void }): Promise<StagedData>;
  has(dataId: string): boolean;
  read(dataId: string, from: number, to: number): AsyncIterable<Uint8Array>;
  /** Puts hard links of data into a new folder, under these names. */
  linkInto(folder: string, names: Record<string, string>): Promise<void>;
  remove(dataId: string): Promise<void>;
  /** Removes what nobody names; for the start, when nothing is on its way. */
  sweep(isUsed: (dataId: string) => boolean): Promise<number>;
  usedBytes(): number;
}

const DATA_ID = /^[0-9a-f]{32}$/;
const WRITE_BYTES = 1 << 20;

/** Opens the staging folder; `quotaBytes` bounds what it may hold. */
export async function openObjectStaging(folder: string, quotaBytes: number): Promise<ObjectStaging> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const sizes = new Map<string, number>();
  for (const name of readdirSync(folder)) if (DATA_ID.test(name)) sizes.set(name, (await stat(join(folder, name))).size);
  let used = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const pathOf = (dataId: string): string => {
    if (DATA_ID.test(dataId)) return join(folder, dataId);
    throw new MillraceError('bad-index', { actor: 'bug', message: `Got data ID ${dataId.slice(0, 50)}` });
  };
  const claim = (bytes: number) => {
    if (used + bytes > quotaBytes) throw stagingFull(used, quotaBytes);
    used += bytes;
  };
  const remove = async (dataId: string) => {
    await rm(pathOf(dataId), { force: true });
    used -= sizes.get(dataId) ?? 0;
    sizes.delete(dataId);
  };
  return {
    async receive(body, { bytesMax, check }) {
      const dataId = randomBytes(16).toString('hex');
      const path = pathOf(dataId);
      let claimed = 0;
      try {
        const file = await open(path, 'wx', 0o600);
        try {
          const written = await writeBody(file, body, bytesMax, (bytes) => {
            claim(bytes);
            claimed += bytes;
          });
          check?.();
          await file.datasync();
          syncFolder(folder);
          sizes.set(dataId, written.sizeBytes);
          return { dataId, ...written };
        } finally {
          await file.close();
        }
      } catch (error) {
        used -= claimed;
        await rm(path, { force: true });
        throw toMillraceError(error);
      }
    },
    has: (dataId) => sizes.has(dataId),
    read: (dataId, from, to) =>
      to <= from ? none() : createReadStream(pathOf(dataId), { start: from, end: to - 1, highWaterMark: 1 << 18 }),
    async linkInto(target, names) {
      await rm(target, { recursive: true, force: true });
      await mkdir(target, { recursive: true, mode: 0o700 });
      for (const [dataId, name] of Object.entries(names)) await link(pathOf(dataId), join(target, name));
      syncFolder(target);
    },
    remove,
    async sweep(isUsed) {
      const unused = [...sizes.keys()].filter((dataId) => !isUsed(dataId));
      for (const dataId of unused) await remove(dataId);
      return unused.length;
    },
    usedBytes: () => used,
  };
}

async function writeBody(
  file: FileHandle,
  body: AsyncIterable<Uint8Array>,
  bytesMax: number,
  claim: (bytes: number) => void,
): Promise<{ sizeBytes: number; md5: Buffer }> {
  const digest = createHash('md5');
  let [sizeBytes, heldBytes] = [0, 0];
  let held: Uint8Array[] = [];
  const flush = async () => {
    if (heldBytes > 0) await file.appendFile(Buffer.concat(held, heldBytes));
    [held, heldBytes] = [[], 0];
  };
  for await (const chunk of body) {
    sizeBytes += chunk.length;
    if (sizeBytes > bytesMax) {
      throw new MillraceError('object-too-big', {
        actor: 'caller',
        message: `The body is longer than ${bytesMax} bytes`,
        values: { limit: bytesMax },
        hint: 'Upload larger objects in parts.',
      });
    }
    claim(chunk.length);
    digest.update(chunk);
    held.push(chunk);
    heldBytes += chunk.length;
    if (heldBytes >= WRITE_BYTES) await flush();
  }
  await flush();
  return { sizeBytes, md5: digest.digest() };
}

async function* none(): AsyncGenerator<Uint8Array> {}

function stagingFull(usedBytes: number, limit: number): MillraceError {
  return new MillraceError('staging-full', {
    actor: 'host',
    message: `${usedBytes} bytes wait for the network, the limit is ${limit}`,
    values: { usedBytes, limit },
    hint: 'Wait until more is stored on the network (`millrace s3 status`), or start with a larger --staging.',
  });
}
