import { createHash } from 'node:crypto';
import { constants, createReadStream, createWriteStream } from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { CID } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import { MillraceError } from '../../errors.ts';

/** A checkpoint by its content. */
export interface Checkpoint {
  /** Name of the file in `/checkpoints`; the last number in it tells its age: a greater one is newer. */
  name: string;
  /** CIDv1, raw, SHA-256 of the whole file. */
  cid: string;
  sizeBytes: number;
}

const RAW = 0x55;
const SHA2_256 = 0x12;
/** A file counts once it has a plain name with a number in it; programs write under another name (`….tmp`, a dot in front) and rename. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$/;
const ENTRIES_MAX = 1000;
/** How many a machine keeps: the newest, and the one before, should the newest prove useless. */
const KEPT = 2;

/** Whether a text can name a checkpoint. */
export function isCheckpointName(name: string): boolean {
  return NAME.test(name) && /\d/.test(name) && !/\.(tmp|part)$/.test(name);
}

/** Greater for a newer checkpoint; by the last number in the name, then by the name. Negative, zero or positive, as sorting wants it. */
export function compareAge(one: string, other: string): number {
  const number = (name: string) => BigInt(/(\d{1,30})\D*$/.exec(name)?.[1] ?? 0);
  const [first, second] = [number(one), number(other)];
  if (first !== second) return first < second ? -1 : 1;
  return one < other ? -1 : one > other ? 1 : 0;
}

/** Names of the checkpoints in a folder that jobs write to, oldest first. Links, folders and odd names are passed over. */
export async function listCheckpoints(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && isCheckpointName(entry.name)).slice(0, ENTRIES_MAX);
  return files.map(({ name }) => name).sort(compareAge);
}

/**
 * Reads a checkpoint’s content address. Undefined when it is no plain file, or has gone: jobs remove what they wrote.
 */
export async function readCheckpoint(folder: string, name: string): Promise<Checkpoint | undefined> {
  const file = await open(join(folder, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const stats = await file.stat();
    if (!stats.isFile()) return undefined;
    const hash = createHash('sha256');
    for await (const bytes of file.createReadStream({ autoClose: false, end: Math.max(stats.size - 1, 0) })) hash.update(bytes as Buffer);
    return { name, cid: cidOf(hash.digest()), sizeBytes: stats.size };
  } finally {
    await file.close();
  }
}

/** The bytes of a checkpoint, for a peer; never through a link. */
export function openCheckpoint(folder: string, name: string): NodeJS.ReadableStream {
  return createReadStream(join(folder, name), { flags: constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK } as never);
}

/**
 * Takes a checkpoint from a peer into a folder: complete and with the content that its name promises, or not at all.
 * @throws checkpoint-broken when the bytes are others
 */
export async function takeCheckpoint(
  folder: string,
  { name, cid, sizeBytes }: Checkpoint,
  source: AsyncIterable<Uint8Array>,
): Promise<void> {
  const temporary = join(folder, `.${name}.${process.pid}.part`);
  const hash = createHash('sha256');
  let left = sizeBytes;
  const measure = async function* () {
    for await (const bytes of source) {
      left -= bytes.length;
      if (left < 0) throw broken(name, 'more bytes than announced');
      hash.update(bytes);
      yield bytes;
    }
  };
  try {
    await pipeline(measure, createWriteStream(temporary, { flags: 'wx', mode: 0o644 }));
    if (left !== 0 || cidOf(hash.digest()) !== cid) throw broken(name, 'other content than its address says');
    await rename(temporary, join(folder, name));
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Removes all but the newest two. */
export async function pruneCheckpoints(folder: string): Promise<void> {
  const names = await listCheckpoints(folder);
  for (const name of names.slice(0, -KEPT)) await rm(join(folder, name), { force: true }).catch(() => {});
}

function cidOf(sha256: Uint8Array): string {
  return CID.createV1(RAW, createDigest(SHA2_256, sha256)).toString();
}

function broken(name: string, reason: string): MillraceError {
  return new MillraceError('checkpoint-broken', {
    actor: 'peer',
    message: `The checkpoint ${name} of a peer has ${reason}`,
    values: { name },
    hint: 'It is taken from another peer, or again.',
  });
}
