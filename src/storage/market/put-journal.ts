import { createHash } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { readJsonFile, writeDurably } from '../content/durable-file.ts';
import { type DealTerms, termsFromJson, termsToJson } from './terms.ts';

/** One try to place a copy at one provider, as far as it has come. */
export interface Attempt {
  operatorId: bigint;
  terms: DealTerms;
  signature: Hex;
  dealId?: bigint;
  /** The provider has all bytes, verified and durable. */
  isStored?: boolean;
  /** Random blocks came back right, and the provider has our acknowledgement. */
  isAcknowledged?: boolean;
  isActive?: boolean;
}

/** A provider that failed a copy. It is not taken again for this piece in this put. */
export interface FailedAttempt {
  operatorId: bigint;
  dealId?: bigint;
  code: string;
  message: string;
}

/** One copy of a put. */
export interface CopyJournal {
  /** Which built content it is of: all copies share one, or with `distinct` each has its own. */
  content: number;
  attempt?: Attempt;
  failed: FailedAttempt[];
}

/** What a put has done so far. It is written before each step that the outside world can see. */
export interface PutJournal {
  version: 1;
  putId: string;
  /** What was asked for, to show and to go on with: a path, or a stream that was kept. */
  name: string;
  account: Hex;
  periods: number;
  copies: CopyJournal[];
  startedAt: string;
}

/** The number that names a put: same account, source and options, same put. */
export function putIdOf(parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 20);
}

/** Where the working files of a put are. */
export function putFolder(folder: string, putId: string): string {
  return join(folder, 'puts', putId);
}

/** Reads the journal of a put, or undefined when it has none. */
export async function readPutJournal(folder: string, putId: string): Promise<PutJournal | undefined> {
  const raw = (await readJsonFile(join(putFolder(folder, putId), 'journal.json'))) as PutJournal | undefined;
  if (raw === undefined) return undefined;
  return {
    ...raw,
    copies: raw.copies.map((copy) => ({
      ...copy,
      attempt: copy.attempt === undefined ? undefined : revive(copy.attempt),
      failed: copy.failed.map((failed) => ({ ...failed, operatorId: BigInt(failed.operatorId), dealId: optionalBigint(failed.dealId) })),
    })),
  };
}

/** A writer of one journal: changes are written one after another, each durable when its promise resolves. */
export function createJournalWriter(folder: string, journal: PutJournal): () => Promise<void> {
  const path = join(putFolder(folder, journal.putId), 'journal.json');
  let last: Promise<void> = Promise.resolve();
  return () => {
    last = last.catch(() => {}).then(() => writeDurably(path, `${JSON.stringify(journal, jsonValue)}\n`));
    return last;
  };
}

/** Puts that were begun and not finished, oldest first. */
export async function listPuts(folder: string): Promise<PutJournal[]> {
  await mkdir(join(folder, 'puts'), { recursive: true, mode: 0o700 });
  const journals = await Promise.all((await readdir(join(folder, 'puts'))).map((putId) => readPutJournal(folder, putId)));
  return journals.filter((journal) => journal !== undefined).sort((left, right) => left.startedAt.localeCompare(right.startedAt));
}

/** Deletes a put's working files: the CAR, its key and the journal. */
export async function removePut(folder: string, putId: string): Promise<void> {
  await rm(putFolder(folder, putId), { recursive: true, force: true });
}

function revive(attempt: Attempt): Attempt {
  return {
    ...attempt,
    operatorId: BigInt(attempt.operatorId),
    dealId: optionalBigint(attempt.dealId),
    terms: termsFromJson(attempt.terms),
  };
}

function optionalBigint(value: unknown): bigint | undefined {
  return value === undefined ? undefined : BigInt(value as string);
}

function jsonValue(name: string, value: unknown): unknown {
  if (name === 'terms') return termsToJson(value as DealTerms);
  return typeof value === 'bigint' ? value.toString() : value;
}
