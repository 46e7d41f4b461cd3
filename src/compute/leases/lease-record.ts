import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { IntervalRecord } from './intervals.ts';
import type { RentalMain } from './rental.ts';

/** What the other side signed of one word of a lease. */
export interface SignedStatement {
  spoken: bigint;
  up: bigint;
  signature: Hex;
}

/** What one side of a lease keeps on its disk: its own findings, and the other side's signed words. */
export interface LeaseRecord {
  leaseId: bigint;
  own: IntervalRecord;
  /** The other side's latest word of each 256 intervals. */
  theirs: Map<number, SignedStatement>;
  /** What runs in the rental by itself. */
  main: RentalMain | undefined;
}

/** The records of one folder, a file each. */
export interface LeaseRecords {
  /** Numbers of the leases with a record. */
  list(): bigint[];
  /** A record as it was saved last; an empty one when there is none. @throws lease-record-broken */
  open(leaseId: bigint): LeaseRecord;
  /** On the disk when it returns. */
  save(record: LeaseRecord): void;
  remove(leaseId: bigint): void;
}

/** The records in a folder; whoever is killed at any moment finds the last one that was saved whole. */
export function openLeaseRecords(folder: string): LeaseRecords {
  const pathOf = (leaseId: bigint) => join(folder, `${leaseId}.json`);
  return {
    list: () =>
      existsSync(folder)
        ? readdirSync(folder)
            .flatMap((name) => /^(\d{1,20})\.json$/.exec(name)?.[1] ?? [])
            .map(BigInt)
        : [],
    open(leaseId) {
      if (!existsSync(pathOf(leaseId))) return { leaseId, own: new IntervalRecord(), theirs: new Map(), main: undefined };
      try {
        const saved = JSON.parse(readFileSync(pathOf(leaseId), 'utf8'));
        const theirs = Object.entries(saved.theirs as Record<string, Record<string, string>>).map(
          ([word, { spoken, up, signature }]) =>
            [Number(word), { spoken: BigInt(spoken as string), up: BigInt(up as string), signature: signature as Hex }] as const,
        );
        return { leaseId, own: IntervalRecord.fromJSON(saved.own), theirs: new Map(theirs), main: saved.main ?? undefined };
      } catch (cause) {
        throw new MillraceError('lease-record-broken', {
          actor: 'host',
          message: `The record of lease ${leaseId} cannot be read`,
          values: { leaseId, path: pathOf(leaseId) },
          hint: 'Remove the file: what it says of the lease so far is lost, and the rest goes on.',
          cause,
        });
      }
    },
    save({ leaseId, own, theirs, main }) {
      const words = Object.fromEntries(
        [...theirs].map(([word, { spoken, up, signature }]) => [word, { spoken: `${spoken}`, up: `${up}`, signature }]),
      );
      writeFileDurably(pathOf(leaseId), JSON.stringify({ own, theirs: words, main }));
    },
    remove: (leaseId) => rmSync(pathOf(leaseId), { force: true }),
  };
}
