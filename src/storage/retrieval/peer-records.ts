import { existsSync, readFileSync } from 'node:fs';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';

/** What this client saw of one seller or holder of content: counts of whole retrievals, money in base units. */
export interface PeerRecord {
  holder: Hex;
  endpoint: string;
  /** Retrievals to which it brought bytes, and nothing wrong. */
  served: number;
  /** Retrievals in which it was asked and failed. */
  failed: number;
  /** Times that it sent wrong bytes, or kept money without sending any. */
  cheated: number;
  bytes: number;
  milliseconds: number;
  paid: bigint;
  lost: bigint;
  /** Wall clock, milliseconds. */
  seenAtMs: number;
  cheatedAtMs: number | undefined;
}

/** What happened with one of them in one retrieval. */
export interface PeerOutcome {
  holder: Hex;
  endpoint: string;
  bytes: number;
  milliseconds: number;
  paid: bigint;
  lost: bigint;
  failures: number;
  lied: boolean;
}

/** This client's memory of whom it dealt with: only what it saw itself. */
export interface PeerRecords {
  of(holder: Hex): PeerRecord | undefined;
  all(): PeerRecord[];
  /** Adds outcomes; durable when it returns. */
  note(outcomes: PeerOutcome[]): void;
}

/** A cheat is remembered this long before it may be tried again, after all others. */
export const CHEAT_REST_MS: number = 30 * 86_400_000;
const RECORDS_MAX = 2000;

/** Opens the records in a JSON file. @throws file-damaged */
export function openPeerRecords(path: string, nowMs: () => number = Date.now): PeerRecords {
  const records = new Map<Hex, PeerRecord>();
  if (existsSync(path)) for (const record of parse(path)) records.set(record.holder, record);
  return {
    of: (holder) => records.get(holder.toLowerCase() as Hex),
    all: () => [...records.values()],
    note(outcomes) {
      for (const outcome of outcomes) {
        const holder = outcome.holder.toLowerCase() as Hex;
        const isCheat = outcome.lied || outcome.lost > 0n;
        const isServed = !isCheat && outcome.bytes > 0;
        if (!isServed && !isCheat && outcome.failures === 0) continue; // it was not asked
        const known = records.get(holder);
        records.set(holder, {
          holder,
          endpoint: outcome.endpoint,
          served: (known?.served ?? 0) + (isServed ? 1 : 0),
          failed: (known?.failed ?? 0) + (isServed ? 0 : 1),
          cheated: (known?.cheated ?? 0) + (isCheat ? 1 : 0),
          bytes: (known?.bytes ?? 0) + outcome.bytes,
          milliseconds: (known?.milliseconds ?? 0) + outcome.milliseconds,
          paid: (known?.paid ?? 0n) + outcome.paid,
          lost: (known?.lost ?? 0n) + outcome.lost,
          seenAtMs: nowMs(),
          cheatedAtMs: isCheat ? nowMs() : known?.cheatedAtMs,
        });
      }
      const kept = [...records.values()].sort((left, right) => right.seenAtMs - left.seenAtMs).slice(0, RECORDS_MAX);
      const json = JSON.stringify(kept, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
      writeFileDurably(path, `${json}\n`);
    },
  };
}

function parse(path: string): PeerRecord[] {
  try {
    return JSON.parse(readFileSync(path, 'utf8'), (_, value) =>
      typeof value === 'string' && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value,
    ) as PeerRecord[];
  } catch (cause) {
    throw new MillraceError('file-damaged', {
      actor: 'host',
      message: `The records of retrievers ${path} cannot be read`,
      values: { path },
      hint: 'Delete the file: the records begin anew.',
      cause,
    });
  }
}
