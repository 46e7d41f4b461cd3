import { closeSync, existsSync, fdatasync, mkdirSync, openSync, readFileSync, truncateSync, write } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { syncFolder, writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

const writeBytes = promisify<number, Buffer, number>((file, bytes, done) => writeAllBytes(file, bytes, 0, done));
const sync = promisify(fdatasync);

/** An append-only file of JSON records; what was appended at the same time is one line with one checksum, there wholly or not at all. */
export interface RecordJournal {
  /** Resolves when the record is on the disk; records that come at the same time share one fsync. @throws disk-full */
  append(record: unknown): Promise<void>;
  /** Replaces all records by these, at once: after a crash the old or the new ones are there. */
  replace(records: readonly unknown[]): Promise<void>;
  /** Records in the file. */
  readonly length: number;
  close(): Promise<void>;
}

/**
 * Opens a journal and gives its records to `apply` in order. A last line that a crash has cut is removed, because nobody was
 * told that it was there; a damaged line before the last is an error, never skipped.
 * @throws journal-damaged
 */
export function openRecordJournal(path: string, apply: (record: unknown) => void): RecordJournal {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  let length = 0;
  if (existsSync(path)) {
    const { records, soundBytes, totalBytes } = parseRecords(path);
    if (soundBytes < totalBytes) truncateSync(path, soundBytes);
    for (const record of records) apply(record);
    length = records.length;
  } else {
    writeFileDurably(path, '');
  }
  let file = openSync(path, 'a', 0o600);
  let waiting: { record: unknown; done: () => void; fail: (error: unknown) => void }[] = [];
  let turn: Promise<void> = Promise.resolve();
  let failure: unknown;

  const flush = async () => {
    const bundle = waiting;
    waiting = [];
    if (bundle.length === 0) return;
    try {
      // After a failed write nobody knows what is on the disk; only a restart reads it again.
      if (failure !== undefined) throw failure;
      await writeBytes(file, Buffer.from(encodeRecords(bundle.map(({ record }) => record))));
      await sync(file);
      length += bundle.length;
      for (const { done } of bundle) done();
    } catch (error) {
      failure = error;
      for (const { fail } of bundle) fail(error);
    }
  };

  return {
    append(record) {
      return new Promise((done, fail) => {
        waiting.push({ record, done, fail });
        turn = turn.then(flush);
      });
    },
    replace(records) {
      const work = turn.then(async () => {
        await flush();
        writeFileDurably(path, encodeRecords(records));
        closeSync(file);
        file = openSync(path, 'a', 0o600);
        length = records.length;
      });
      turn = work.catch(() => {});
      return work;
    },
    get length() {
      return length;
    },
    async close() {
      await turn;
      closeSync(file);
      syncFolder(dirname(path));
    },
  };
}

/** Records as one line: checksum (CRC-32 of the JSON, 8 hexadecimal digits), a space, a JSON array. */
export function encodeRecords(records: readonly unknown[]): string {
  const json = JSON.stringify(records);
  return `${checksumOf(json)} ${json}\n`;
}

/** The records of a text of whole lines. @throws journal-damaged */
export function decodeRecords(text: string, name: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .flatMap((line, index) => {
      const records = decodeLine(line);
      if (records === undefined) throw damaged(name, index + 1);
      return records;
    });
}

/** The records of a journal, which may be in use: nothing is changed. @throws journal-damaged */
export function readRecords(path: string): unknown[] {
  return existsSync(path) ? parseRecords(path).records : [];
}

function parseRecords(path: string): { records: unknown[]; soundBytes: number; totalBytes: number } {
  const bytes = readFileSync(path);
  const records: unknown[] = [];
  let at = 0;
  let lines = 0;
  while (at < bytes.length) {
    const end = bytes.indexOf(0x0a, at);
    const line = end === -1 ? undefined : decodeLine(bytes.toString('utf8', at, end));
    if (line === undefined) {
      // What a crash leaves is a torn end; anything sound after a damaged line means that the disk lost something.
      if (end !== -1 && bytes.indexOf(0x0a, end + 1) !== -1) throw damaged(path, lines + 1);
      break;
    }
    for (const record of line) records.push(record);
    lines += 1;
    at = end + 1;
  }
  return { records, soundBytes: at, totalBytes: bytes.length };
}

function decodeLine(line: string): unknown[] | undefined {
  const json = line.slice(9);
  if (line[8] !== ' ' || checksumOf(json) !== line.slice(0, 8)) return undefined;
  try {
    const records: unknown = JSON.parse(json);
    return Array.isArray(records) ? records : undefined;
  } catch {
    return undefined;
  }
}

function checksumOf(json: string): string {
  return crc32(json).toString(16).padStart(8, '0');
}

function writeAllBytes(file: number, bytes: Buffer, at: number, done: (error: Error | null, written: number) => void): void {
  write(file, bytes, at, bytes.length - at, null, (error, written) => {
    if (error !== null || at + written >= bytes.length) done(error, bytes.length);
    else writeAllBytes(file, bytes, at + written, done);
  });
}

function damaged(path: string, line: number): MillraceError {
  return new MillraceError('journal-damaged', {
    actor: 'host',
    message: `Line ${line} of ${path} is damaged`,
    values: { path, line },
    hint: 'The disk lost something. Put a backup of the file back, or rebuild the index: `millrace s3 restore CID`.',
  });
}
