import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { MillraceError } from '../../errors.ts';
import { lockFolder } from '../../lock.ts';
import { lesser } from '../../units.ts';
import { openRecordJournal } from '../record-journal.ts';

/** What a key may do. Money in base units of the gateway's token. */
export interface CallerKeyRules {
  name: string;
  /** The most that may be spent, in all or in each period. */
  budget?: bigint;
  /** The budget begins anew so often; never when absent. */
  periodSeconds?: number;
  requestsPerMinute?: number;
  /** Only these models. */
  models?: readonly string[];
  /** Unix time, seconds. */
  expiresAt?: number;
  /** Every request of this key is kept by nobody. */
  zeroRetention?: boolean;
}

/** A key as its gateway shows it: never the key itself. */
export interface CallerKey extends CallerKeyRules {
  id: string;
  spent: bigint;
  /** Unix time when the period began, seconds. */
  periodStart: number;
  isRevoked: boolean;
}

/** Money that a key holds for one request. */
export interface KeyHold {
  /** Spends so much of it, at most all. Counts once. */
  settle(actual: bigint): void;
}

/** Virtual keys, durable. */
export interface CallerKeys {
  /** Makes a key; the text is shown once and kept nowhere. */
  create(rules: CallerKeyRules): Promise<{ key: string; id: string }>;
  revoke(id: string): Promise<void>;
  list(): CallerKey[];
  /** Whose key this is. @throws key-unknown, key-expired */
  authenticate(key: string): CallerKey;
  /** Counts a request, and holds the most that it may cost. @throws key-rate-exceeded, key-budget-spent, model-not-allowed */
  hold(id: string, request: { amount: bigint; model: string }): Promise<KeyHold>;
  close(): Promise<void>;
}

interface KeptKey extends CallerKey {
  hash: string;
  held: bigint;
  /** What the disk counts as spent: never less than is. */
  ceiling: bigint;
  raising: Promise<void> | undefined;
  minute: number;
  inMinute: number;
}

type KeyRecord = Record<string, unknown> & { id: string };

const PREFIX = 'sk-millrace-';
/** A ceiling on disk is raised by so many requests' worth at once, so that most requests write nothing. */
const AHEAD_REQUESTS = 256n;
const KEYS_MAX = 10_000;

/** Opens the keys of a gateway; their hashes (SHA-256 of 32 random bytes) are on disk, the keys are not. @throws journal-damaged */
export function openCallerKeys(path: string, nowSeconds: () => number = () => Math.floor(Date.now() / 1000)): CallerKeys {
  const byHash = new Map<string, KeptKey>();
  const byId = new Map<string, KeptKey>();
  const journal = openRecordJournal(path, (record) => {
    const kept = fromRecord(record as KeyRecord);
    byHash.set(kept.hash, kept);
    byId.set(kept.id, kept);
  });
  const write = (kept: KeptKey) => journal.append(toRecord(kept));

  const holdOf = async (kept: KeptKey, amount: bigint): Promise<KeyHold> => {
    if (kept.budget !== undefined && kept.spent + kept.held + amount > kept.budget) throw budgetSpent(kept, amount);
    kept.held += amount;
    // What is on disk is spent already as far as a crash is concerned: a budget is never exceeded, and at most some hundred requests short.
    while (kept.spent + kept.held > kept.ceiling) {
      kept.raising ??= raise(kept, amount).finally(() => {
        kept.raising = undefined;
      });
      await kept.raising;
    }
    let isOver = false;
    return {
      settle(actual) {
        if (isOver) return;
        isOver = true;
        kept.held -= amount;
        kept.spent += lesser(actual, amount);
      },
    };
  };
  const raise = async (kept: KeptKey, amount: bigint): Promise<void> => {
    const ceiling = kept.spent + kept.held + amount * AHEAD_REQUESTS;
    await journal.append(toRecord({ ...kept, ceiling }));
    kept.ceiling = ceiling;
  };

  return {
    async create(rules) {
      if (byId.size >= KEYS_MAX) throw tooMany();
      const key = `${PREFIX}${randomBytes(32).toString('base64url')}`;
      const hash = hashOf(key);
      const id = `key_${hash.slice(0, 16)}`;
      const fresh = { spent: 0n, held: 0n, ceiling: 0n, raising: undefined, minute: 0, inMinute: 0, isRevoked: false };
      const kept: KeptKey = { ...rules, ...fresh, id, hash, periodStart: nowSeconds() };
      await write(kept);
      byHash.set(hash, kept);
      byId.set(id, kept);
      return { key, id };
    },
    async revoke(id) {
      const kept = byId.get(id);
      if (kept === undefined) throw unknownKey();
      kept.isRevoked = true;
      await write(kept);
    },
    list: () => [...byId.values()].map(shownOf),
    authenticate(key) {
      const kept = key.startsWith(PREFIX) && key.length < 128 ? byHash.get(hashOf(key)) : undefined;
      if (kept === undefined || kept.isRevoked) throw unknownKey();
      if (kept.expiresAt !== undefined && kept.expiresAt <= nowSeconds()) throw expired(kept);
      return kept;
    },
    async hold(id, { amount, model }) {
      const kept = byId.get(id) as KeptKey;
      const now = nowSeconds();
      if (kept.models !== undefined && !kept.models.includes(model)) throw notAllowed(kept, model);
      countRequest(kept, now);
      if (kept.periodSeconds !== undefined && now >= kept.periodStart + kept.periodSeconds) {
        kept.periodStart = now - ((now - kept.periodStart) % kept.periodSeconds);
        kept.spent = 0n;
        kept.ceiling = 0n;
      }
      return holdOf(kept, amount);
    },
    async close() {
      // What is known exactly replaces what was written ahead.
      await journal.replace([...byId.values()].map((kept) => toRecord({ ...kept, ceiling: kept.spent + kept.held })));
      await journal.close();
    },
  };
}

/** The keys of a gateway that does not run, for `work`. @throws folder-busy when it runs, journal-damaged */
export async function withCallerKeys<T>(folder: string, work: (keys: CallerKeys) => Promise<T>): Promise<T> {
  const lock = lockFolder(folder);
  try {
    const keys = openCallerKeys(keysPath(folder));
    try {
      return await work(keys);
    } finally {
      await keys.close();
    }
  } finally {
    lock.release();
  }
}

/** Where a gateway that keeps its things in `folder` has its keys. */
export function keysPath(folder: string): string {
  return join(folder, 'keys.journal');
}

function countRequest(kept: KeptKey, now: number): void {
  const minute = Math.floor(now / 60);
  if (kept.minute !== minute) {
    kept.minute = minute;
    kept.inMinute = 0;
  }
  if (kept.requestsPerMinute !== undefined && kept.inMinute >= kept.requestsPerMinute) throw rateExceeded(kept, 60 - (now % 60));
  kept.inMinute += 1;
}

function hashOf(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

function shownOf({
  hash: _hash,
  held: _held,
  ceiling: _ceiling,
  raising: _raising,
  minute: _minute,
  inMinute: _inMinute,
  ...shown
}: KeptKey): CallerKey {
  return shown;
}

function toRecord({ ceiling, hash, ...kept }: KeptKey): KeyRecord {
  const { budget, ...shown } = shownOf({ ...kept, ceiling, hash });
  return { ...shown, hash, spent: ceiling.toString(), ...(budget === undefined ? {} : { budget: budget.toString() }) };
}

function fromRecord(record: KeyRecord): KeptKey {
  const spent = BigInt(record.spent as string);
  const budget = record.budget === undefined ? {} : { budget: BigInt(record.budget as string) };
  return { ...(record as unknown as KeptKey), ...budget, spent, ceiling: spent, held: 0n, raising: undefined, minute: 0, inMinute: 0 };
}

function unknownKey(): MillraceError {
  return new MillraceError('key-unknown', {
    actor: 'caller',
    message: 'This gateway does not know the key',
    hint: 'Send "Authorization: Bearer sk-millrace-…", or pay by x402.',
  });
}

function expired({ id, expiresAt }: CallerKey): MillraceError {
  return new MillraceError('key-expired', { actor: 'caller', message: `The key ${id} is no longer good`, values: { id, expiresAt } });
}

function notAllowed({ id, models }: CallerKey, model: string): MillraceError {
  return new MillraceError('model-not-allowed', {
    actor: 'caller',
    message: `The key ${id} is not for the model ${model.slice(0, 80)}`,
    values: { parameter: 'model', got: model.slice(0, 80), expected: models?.slice(0, 16) },
  });
}

function rateExceeded({ id, requestsPerMinute }: CallerKey, retryAfterSeconds: number): MillraceError {
  return new MillraceError('key-rate-exceeded', {
    actor: 'caller',
    message: `The key ${id} made ${requestsPerMinute} requests in this minute already`,
    values: { id, requestsPerMinute, retryAfterSeconds },
  });
}

function budgetSpent({ id, budget, spent }: CallerKey, amount: bigint): MillraceError {
  return new MillraceError('key-budget-spent', {
    actor: 'caller',
    message: `The request may cost ${amount} base units; the key ${id} has spent ${spent} of ${budget}, and more may be held for requests under way`,
    values: { id, amount, spent, budget },
    hint: 'Ask for less output, wait for the next period, or have the budget raised.',
  });
}

function tooMany(): MillraceError {
  return new MillraceError('too-many-keys', { actor: 'caller', message: `There are ${KEYS_MAX} keys already`, values: { max: KEYS_MAX } });
}
