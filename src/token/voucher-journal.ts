import { closeSync, constants, existsSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, write } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** A durable map: the newest record of every key counts. What is appended at the same time shares one fsync. */
export interface VoucherJournal {
  /** Resolves when the record is on the disk. @throws voucher-journal-unwritable */
  append(record: JournalRecord): Promise<void>;
  /** Takes a record that may be lost in a crash: it is written when the journal is closed, unless a newer one of its key was by then. */
  note(record: JournalRecord): void;
  close(): Promise<void>;
}

/** A JSON object with the key that it replaces. */
export interface JournalRecord {
  key: string;
}

const COMPACT_BYTES = 16 << 20;
const writeFile = promisify<number, Buffer, number>((file, bytes, done) => write(file, bytes, (error, written) => done(error, written)));

/**
 * Opens the journal of a file or begins it, and gives `apply` every record in order. A last line that a crash has torn is cut off: nobody
 * was told that it was there. Past 16 MiB it is written anew with `current()` only.
 * @throws voucher-journal-broken
 */
export function openVoucherJournal<R extends JournalRecord>(options: {
  path: string;
  apply(record: R): void;
  current(): Iterable<R>;
}): VoucherJournal {
  const { path } = options;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  let sizeBytes = existsSync(path) ? replay(path, options.apply) : 0;
  if (sizeBytes > COMPACT_BYTES || !existsSync(path)) sizeBytes = compact();
  let file = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_DSYNC, 0o600);
  let waiting: { line: string; resolve: () => void; reject: (error: unknown) => void }[] = [];
  let flushing: Promise<void> | undefined;
  let failure: MillraceError | undefined;
  const noted = new Map<string, JournalRecord>();
  return {
    append(record) {
      if (failure !== undefined) return Promise.reject(failure);
      noted.delete(record.key);
      return new Promise((resolve, reject) => {
        waiting.push({ line: encode(record), resolve, reject });
        flushing ??= flush();
      });
    },
    note: (record) => void noted.set(record.key, record),
    async close() {
      const last = [...noted.values()].map((record) => this.append(record));
      // A failure is known already, or nothing depends on these records.
      await Promise.allSettled(last);
      while (flushing !== undefined) await flushing;
      failure ??= unwritable(path, new Error('closed'));
      closeSync(file);
    },
  };

  async function flush(): Promise<void> {
    // One turn later, so that whoever asks in the same turn shares the fsync.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      try {
        const bytes = Buffer.from(batch.map(({ line }) => line).join(''));
        for (let done = 0; done < bytes.length; ) done += await writeFile(file, bytes.subarray(done));
        sizeBytes += bytes.length;
        if (sizeBytes > COMPACT_BYTES) renew();
      } catch (cause) {
        // What of it is on the disk only a new start can tell.
        failure = unwritable(path, cause);
      }
      for (const { resolve, reject } of batch) failure === undefined ? resolve() : reject(failure);
      if (failure !== undefined) for (const { reject } of waiting.splice(0)) reject(failure);
    }
    // In the same breath as the look at what waits: whoever comes now starts another round.
    flushing = undefined;
  }

  function renew(): void {
    sizeBytes = compact();
    closeSync(file);
    file = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_DSYNC, 0o600);
  }

  function compact(): number {
    const content = [...options.current()].map(encode).join('');
    writeFileDurably(path, content);
    return Buffer.byteLength(content);
  }
}

function encode(record: JournalRecord): string {
  const json = JSON.stringify(record, (_, value) => (typeof value === 'bigint' ? { $bigint: value.toString() } : value));
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`;
}

function decode(line: string): unknown {
  const json = line.slice(9);
  if (crc32(json) !== Number.parseInt(line.slice(0, 8), 16)) return undefined;
  return JSON.parse(json, (_, value) => (typeof value?.$bigint === 'string' ? BigInt(value.$bigint) : value));
}

/** Gives the sound size; what follows it was cut off. */
function replay<R extends JournalRecord>(path: string, apply: (record: R) => void): number {
  const content = readFileSync(path);
  let at = 0;
  for (let end = content.indexOf(10); end !== -1; end = content.indexOf(10, at)) {
    const record = decode(content.subarray(at, end).toString('utf8'));
    if (record === undefined) break;
    apply(record as R);
    at = end + 1;
  }
  if (at === content.length) return at;
  // Several lines may belong to one torn write; a sound line behind the damage means that the damage is not a crash's.
  const rest = content.subarray(at).toString('utf8').split('\n').slice(1);
  if (rest.some((line) => line.length > 9 && decode(line) !== undefined)) throw broken(path, at);
  const file = openSync(path, 'r+');
  try {
    ftruncateSync(file, at);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return at;
}

function broken(path: string, byte: number): MillraceError {
  return new MillraceError('voucher-journal-broken', {
    actor: 'host',
    message: `The journal of vouchers ${path} is damaged at byte ${byte}`,
    values: { path, byte },
    hint: 'Restore it from a copy. Without it, a payer takes up its channels from what receivers show; a receiver loses what it has not claimed.',
  });
}

function unwritable(path: string, cause: unknown): MillraceError {
  return new MillraceError('voucher-journal-unwritable', {
    actor: 'host',
    message: `Cannot write the journal of vouchers ${path}: ${(cause as Error).message}`,
    values: { path },
    hint: 'Free some space or check the disk, then start again; nothing that was acknowledged is lost.',
    cause,
  });
}
