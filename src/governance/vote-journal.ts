import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** A vote that was decided: what it is, and what opens its commitment. */
export interface DecidedVote {
  ruling: bigint;
  salt: Hex;
  commitment: Hex;
}

/** What a juror has decided, on its disk before anything is sent: without the salt a committed vote cannot be revealed, which costs the penalty. */
export interface VoteJournal {
  /** Keeps a vote; when this returns it survives a crash. */
  keep(disputeId: bigint, round: number, vote: DecidedVote): void;
  /** @throws vote-journal-broken */
  find(disputeId: bigint, round: number): DecidedVote | undefined;
  /** All rounds of a dispute that is over. */
  forget(disputeId: bigint, rounds: number): void;
  /** The first dispute that was not over when this was last written; 1 at first. */
  firstOpen(): bigint;
  setFirstOpen(disputeId: bigint): void;
}

/** The journal of one juror in a folder. */
export function openVoteJournal(folder: string): VoteJournal {
  const pathOf = (disputeId: bigint, round: number) => join(folder, 'votes', `${disputeId}-${round}.json`);
  const cursor = join(folder, 'first-open.json');
  return {
    keep(disputeId, round, { ruling, salt, commitment }) {
      writeFileDurably(pathOf(disputeId, round), `${JSON.stringify({ ruling: ruling.toString(), salt, commitment })}\n`);
    },
    find(disputeId, round) {
      const path = pathOf(disputeId, round);
      if (!existsSync(path)) return undefined;
      const { ruling, salt, commitment } = readRecord(path);
      if (!/^\d{1,78}$/.test(String(ruling)) || !isWord(salt) || !isWord(commitment)) throw broken(path);
      return { ruling: BigInt(String(ruling)), salt, commitment };
    },
    forget(disputeId, rounds) {
      for (let round = 0; round < rounds; round += 1) rmSync(pathOf(disputeId, round), { force: true });
    },
    firstOpen() {
      if (!existsSync(cursor)) return 1n;
      const { disputeId } = readRecord(cursor);
      if (!/^[1-9]\d{0,77}$/.test(String(disputeId))) throw broken(cursor);
      return BigInt(String(disputeId));
    },
    setFirstOpen(disputeId) {
      writeFileDurably(cursor, `${JSON.stringify({ disputeId: disputeId.toString() })}\n`);
    },
  };
}

function readRecord(path: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  } catch {
    throw broken(path);
  }
}

function isWord(value: unknown): value is Hex {
  return typeof value === 'string' && /^0x[0-9a-f]{64}$/.test(value);
}

function broken(path: string): MillraceError {
  return new MillraceError('vote-journal-broken', {
    actor: 'host',
    message: `${path} does not hold what a juror has decided`,
    values: { path },
    hint: 'Restore it: a vote that was committed and cannot be revealed costs the penalty.',
  });
}
