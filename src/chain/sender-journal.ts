import { closeSync, existsSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Address, Hex } from 'viem';
import { syncFolder, writeAll, writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** What a transaction does, without fees and nonce. */
export interface PlainCall {
  /** `null` creates a contract. */
  to: Address | null;
  data: Hex;
  value: bigint;
}

/** One line of the journal. Written and synced before what it says happens. */
export type JournalEntry =
  /** A transaction with this nonce is about to be broadcast; with several per nonce, the later ones replace the first. */
  | { kind: 'sent'; nonce: number; key?: string; callHash: Hex; hash: Hex; raw: Hex; block: number }
  /** The nonce is used by `hash`, successfully. */
  | { kind: 'done'; nonce: number; key?: string; callHash: Hex; hash: Hex }
  /** The nonce had no effect of ours: refused (`used` false), reverted, or taken by somebody else. Its key is free again. */
  | { kind: 'void'; nonce: number; used: boolean };

/** A nonce whose transaction is not settled, with every version that was sent. */
export interface PendingTransaction {
  nonce: number;
  key: string | undefined;
  callHash: Hex;
  block: number;
  versions: { hash: Hex; raw: Hex }[];
}

/** A keyed effect that is done. */
export interface DoneTransaction {
  nonce: number;
  callHash: Hex;
  hash: Hex;
}

/** The durable memory of a sender: what it sent, and which idempotency keys are done. */
export interface SenderJournal {
  readonly pending: Map<number, PendingTransaction>;
  readonly done: Map<string, DoneTransaction>;
  /** Raw transactions of the latest nonces that are done: a reorganisation may lose them. */
  readonly recentRaw: Map<number, Hex>;
  /** First nonce after all that the journal knows to be used or on the way. */
  readonly nextNonce: number;
  /** Appends a line and waits until it is on the disk. @throws sender-journal-unwritable */
  append(entry: JournalEntry): void;
  close(): void;
}

const COMPACT_BYTES = 8 << 20;
/** Keys that are remembered; the oldest beyond this are forgotten. */
const KEYS_MAX = 50_000;
const RECENT_MAX = 32;

/**
 * Opens the journal of one key on one chain, or begins it. A torn last line (a crash while writing: nothing was broadcast) is cut off.
 * @throws sender-journal-broken
 */
export function openSenderJournal(path: string): SenderJournal {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const pending = new Map<number, PendingTransaction>();
  const done = new Map<string, DoneTransaction>();
  const recentRaw = new Map<number, Hex>();
  let usedTo = 0;
  const apply = (entry: JournalEntry) => {
    if (entry.kind === 'sent') {
      const { nonce, key, callHash, block, hash, raw } = entry;
      const known = pending.get(nonce);
      if (known === undefined) pending.set(nonce, { nonce, key, callHash, block, versions: [{ hash, raw }] });
      else known.versions.push({ hash, raw });
      return;
    }
    const raw = pending.get(entry.nonce)?.versions.find((version) => entry.kind === 'done' && version.hash === entry.hash)?.raw;
    pending.delete(entry.nonce);
    if (entry.kind === 'done' || entry.used) usedTo = Math.max(usedTo, entry.nonce + 1);
    if (raw !== undefined) recentRaw.set(entry.nonce, raw);
    if (recentRaw.size > RECENT_MAX) recentRaw.delete(recentRaw.keys().next().value as number);
    if (entry.kind === 'done' && entry.key !== undefined) {
      done.delete(entry.key);
      done.set(entry.key, { nonce: entry.nonce, callHash: entry.callHash, hash: entry.hash });
      if (done.size > KEYS_MAX) done.delete(done.keys().next().value as string);
    }
  };

  let sizeBytes = existsSync(path) ? replay(path, apply) : 0;
  let file = openSync(path, 'a', 0o600);
  let torn = false;
  ftruncateSync(file, sizeBytes);
  syncFolder(dirname(path));
  const compact = () => {
    closeSync(file);
    const lines: JournalEntry[] = [];
    for (const [key, { nonce, callHash, hash }] of done) lines.push({ kind: 'done', nonce, key, callHash, hash });
    for (const { nonce, key, callHash, block, versions } of pending.values()) {
      for (const { hash, raw } of versions) lines.push({ kind: 'sent', nonce, key, callHash, hash, raw, block });
    }
    if (usedTo > 0) lines.push({ kind: 'void', nonce: usedTo - 1, used: true });
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
    writeFileDurably(path, text, { mode: 0o600 });
    sizeBytes = Buffer.byteLength(text);
    file = openSync(path, 'a', 0o600);
  };
  if (sizeBytes > COMPACT_BYTES) compact();
  return {
    pending,
    done,
    recentRaw,
    get nextNonce() {
      return Math.max(usedTo, ...[...pending.keys()].map((nonce) => nonce + 1));
    },
    append(entry) {
      const line = `${JSON.stringify(entry)}\n`;
      try {
        // Cut off what an earlier failure left half written: this line must not grow onto it.
        if (torn) ftruncateSync(file, sizeBytes);
        torn = true;
        writeAll(file, line);
        fsyncSync(file);
        torn = false;
      } catch (error) {
        throw unwritable(path, error);
      }
      sizeBytes += Buffer.byteLength(line);
      apply(entry);
      if (sizeBytes > 4 * COMPACT_BYTES) compact();
    },
    close: () => closeSync(file),
  };
}

/** Applies all whole lines and gives their length in bytes. */
function replay(path: string, apply: (entry: JournalEntry) => void): number {
  const text = readFileSync(path, 'utf8');
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  for (const [index, line] of whole.split('\n').entries()) {
    if (line === '') continue;
    try {
      apply(JSON.parse(line) as JournalEntry);
    } catch (error) {
      throw new MillraceError('sender-journal-broken', {
        actor: 'host',
        message: `Line ${index + 1} of ${path} is not JSON: the file was damaged`,
        values: { path, line: index + 1 },
        hint: 'Look at the account in a block explorer, then move the file away: transactions without receipt may be sent again.',
        cause: error,
      });
    }
  }
  return Buffer.byteLength(whole);
}

function unwritable(path: string, cause: unknown): MillraceError {
  return new MillraceError('sender-journal-unwritable', {
    actor: 'host',
    message: `Cannot write ${path}: ${(cause as Error).message}; nothing was broadcast`,
    values: { path },
    hint: 'Free some space on the disk, then try again.',
    cause,
  });
}
