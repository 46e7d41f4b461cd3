import { closeSync, fdatasync, fsyncSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { syncFolder } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** All that decides a block, made durable before it is mined. Replaying it gives the same block hash. */
export interface BlockRecord {
  height: number;
  /** Seconds. */
  timestamp: number;
  /** 20 random bytes drawn for this block: the entropy of the embedded chain. */
  coinbase: `0x${string}`;
  /** Wall clock + this = protocol time from this block on, seconds. */
  warpOffsetSeconds: number;
  /** Raw signed transactions in their order. */
  transactions: `0x${string}`[];
}

/** A block of the log; `hash` is absent when the process ended between making it durable and mining it. */
export interface LoggedBlock extends BlockRecord {
  hash?: `0x${string}`;
}

/** The write-ahead log of one chain: segments of framed records, the newest open for appending. */
export interface Wal {
  /** Blocks in the log when it was opened, in ascending height. */
  readonly recovered: readonly LoggedBlock[];
  /** Bytes in the newest segment. */
  sizeBytes(): number;
  /**
   * Resolves when the record is on disk.
   * @throws disk-full (then nothing of it is in the log), wal-write-failed (then it may be, and the log must be opened again)
   */
  appendBlock(record: BlockRecord): Promise<void>;
  /** Notes the hash of a mined block; it needs no fsync, since a replay gives it again. */
  appendHash(height: number, hash: `0x${string}`): void;
  /** Starts a new segment whose first block is `firstHeight`. */
  rotate(firstHeight: number): void;
  /** Deletes segments that hold no block above `height`. */
  deleteThrough(height: number): void;
  close(): void;
}

type Entry = { kind: 'block'; block: BlockRecord } | { kind: 'mined'; height: number; hash: `0x${string}` };

const MAGIC = Buffer.from('MRW1');
const HEADER_BYTES = 12;
/** A block record holds at most a block's worth of raw transactions, as hex. */
const RECORD_BYTES_MAX = 256 << 20;
const SEGMENT_NAME = /^wal-(\d{12})\.log$/;

const syncData = promisify(fdatasync);

/**
 * Opens the log in `folder`, and cuts off a last record that was not written whole.
 * @throws wal-corrupt when a record that had been durable is damaged or missing
 */
export function openWal(folder: string): Wal {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const segments = listSegments(folder);
  const recovered: LoggedBlock[] = [];
  segments.forEach((segment, index) => {
    const isLast = index === segments.length - 1;
    collectBlocks(readSegment(segment.path, isLast), recovered, segment.path);
  });
  let path = segments.at(-1)?.path ?? segmentPath(folder, 1);
  let file = openSync(path, 'a', 0o600);
  if (segments.length === 0) syncFolder(folder);
  let sizeBytes = segments.length === 0 ? 0 : readFileSync(path).length;
  const write = (entry: Entry) => {
    try {
      sizeBytes += writeFully(file, frame(entry));
    } catch (cause) {
      // Half a record must not stand before the next one.
      ftruncateSync(file, sizeBytes);
      throw cannotWrite(path, cause, isFullDisk(cause));
    }
  };
  return {
    recovered,
    sizeBytes: () => sizeBytes,
    async appendBlock(block) {
      write({ kind: 'block', block });
      // After a failed fsync nobody knows what is on disk: the process must end and read the log again.
      await syncData(file).catch((cause) => Promise.reject(cannotWrite(path, cause, false)));
    },
    appendHash: (height, hash) => write({ kind: 'mined', height, hash }),
    rotate(firstHeight) {
      const next = segmentPath(folder, firstHeight);
      if (next === path) return;
      fsyncSync(file);
      closeSync(file);
      path = next;
      file = openSync(path, 'a', 0o600);
      sizeBytes = 0;
      syncFolder(folder);
    },
    deleteThrough(height) {
      const current = listSegments(folder);
      current.forEach((segment, index) => {
        const next = current[index + 1];
        if (next !== undefined && next.firstHeight <= height + 1) rmSync(segment.path, { force: true });
      });
      syncFolder(folder);
    },
    close: () => closeSync(file),
  };
}

function listSegments(folder: string): { path: string; firstHeight: number }[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const match = SEGMENT_NAME.exec(name);
      return match === null ? [] : [{ path: join(folder, name), firstHeight: Number(match[1]) }];
    })
    .sort((left, right) => left.firstHeight - right.firstHeight);
}

function segmentPath(folder: string, firstHeight: number): string {
  return join(folder, `wal-${String(firstHeight).padStart(12, '0')}.log`);
}

function frame(entry: Entry): Buffer {
  const payload = Buffer.from(JSON.stringify(entry));
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header, 0);
  header.writeUInt32BE(payload.length, 4);
  header.writeUInt32BE(crc32(payload), 8);
  return Buffer.concat([header, payload]);
}

/** The entry at `offset` and where the next one begins, or undefined when there is no whole valid frame. */
function unframe(bytes: Buffer, offset: number): { entry: Entry; end: number } | undefined {
  if (offset + HEADER_BYTES > bytes.length || !bytes.subarray(offset, offset + 4).equals(MAGIC)) return undefined;
  const length = bytes.readUInt32BE(offset + 4);
  const end = offset + HEADER_BYTES + length;
  if (length > RECORD_BYTES_MAX || end > bytes.length) return undefined;
  const payload = bytes.subarray(offset + HEADER_BYTES, end);
  if (crc32(payload) !== bytes.readUInt32BE(offset + 8)) return undefined;
  return { entry: JSON.parse(payload.toString('utf8')) as Entry, end };
}

function readSegment(path: string, isLast: boolean): Entry[] {
  const bytes = readFileSync(path);
  const entries: Entry[] = [];
  let offset = 0;
  for (let next = unframe(bytes, offset); next !== undefined; next = unframe(bytes, offset)) {
    entries.push(next.entry);
    offset = next.end;
  }
  if (offset === bytes.length) return entries;
  if (!isLast || holdsMinedBlock(bytes, offset + 1)) throw walCorrupt(path, `damaged record at byte ${offset}`);
  const file = openSync(path, 'r+');
  try {
    ftruncateSync(file, offset);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return entries;
}

/**
 * Whether a note that a block was mined lies behind a damaged record. It is written only when everything up to its block
 * is on disk: then the damage is no torn tail, and cutting it off would lose transactions whose receipts were seen.
 */
function holdsMinedBlock(bytes: Buffer, from: number): boolean {
  for (let offset = bytes.indexOf(MAGIC, from); offset !== -1; offset = bytes.indexOf(MAGIC, offset + 1)) {
    if (unframe(bytes, offset)?.entry.kind === 'mined') return true;
  }
  return false;
}

function collectBlocks(entries: Entry[], blocks: LoggedBlock[], path: string): void {
  for (const entry of entries) {
    const last = blocks.at(-1);
    if (entry.kind === 'mined') {
      if (last !== undefined && last.height === entry.height) last.hash = entry.hash;
      continue;
    }
    if (last !== undefined && entry.block.height !== last.height + 1) {
      throw walCorrupt(path, `block ${entry.block.height} follows block ${last.height}`);
    }
    blocks.push({ ...entry.block });
  }
}

function walCorrupt(path: string, reason: string): MillraceError {
  return new MillraceError('wal-corrupt', {
    actor: 'host',
    message: `The chain's log ${path} is damaged: ${reason}`,
    values: { path, reason },
    hint: 'Check the disk, then restore the data folder from a copy, or start a new chain with "millrace reset --yes".',
  });
}

function isFullDisk(cause: unknown): boolean {
  return ['ENOSPC', 'EDQUOT'].includes((cause as NodeJS.ErrnoException).code ?? '');
}

function cannotWrite(path: string, cause: unknown, isFull: boolean): MillraceError {
  const systemCode = (cause as NodeJS.ErrnoException).code;
  return new MillraceError(isFull ? 'disk-full' : 'wal-write-failed', {
    actor: 'host',
    message: isFull ? `The disk of ${path} is full` : `Cannot write ${path}: ${systemCode}`,
    values: { path, systemCode },
    hint: isFull ? 'Free some space; the chain goes on by itself.' : 'Check the disk and the rights on the data folder.',
    cause,
  });
}

function writeFully(file: number, bytes: Buffer): number {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
  return bytes.length;
}
