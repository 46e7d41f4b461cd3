import { randomBytes } from 'node:crypto';
import { type Address, bytesToHex, encodeAbiParameters, type Hex, keccak256 } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { readEvidence } from './evidence.ts';
import type { Judge } from './judge.ts';
import type { JurorNotes } from './juror-notes.ts';
import type { JurorVote, JuryCase } from './jury-round.ts';
import type { DecidedVote, VoteJournal } from './vote-journal.ts';

/** Whose votes they are, and what decides them. */
export interface JurorVotesOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  judges: readonly Judge[];
  journal: VoteJournal;
  notes: JurorNotes;
  /** Fires when the juror ends. */
  signal: AbortSignal;
}

/** A juror's own votes: decided by a judge, kept on the disk, committed, revealed. */
export interface JurorVotes {
  /** Begins to decide and commit the vote of a round, in the background, when it is not under way and its judge may be asked again. */
  begin(seen: JuryCase, now: bigint): void;
  /** Reveals a committed vote. */
  reveal(seen: JuryCase, vote: JurorVote): Promise<void>;
  /** Forgets a dispute that is over. */
  forget(seen: JuryCase): void;
  /** Resolves when no judge is at work. */
  settled(): Promise<void>;
  counts(): { committed: number; revealed: number; unanswered: number };
}

const JUDGING_AT_ONCE = 4;
/** A judge that had no answer is asked again after this part of the time to commit. */
const ASKS = 8n;
const ASK_SECONDS_MIN = 5n;
/** The longest time that a timer of this runtime can wait. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The votes of one juror. */
export function createJurorVotes(options: JurorVotesOptions): JurorVotes {
  const { sender, operatorId, journal, notes } = options;
  const judging = new Map<string, Promise<void>>();
  /** By dispute and round: when the judge is asked again, chain seconds. */
  const askAgainAt = new Map<string, bigint>();
  const counts = { committed: 0, revealed: 0 };
  const keyOf = ({ disputeId, round }: JuryCase) => `${disputeId}/${round}`;

  const askLater = (seen: JuryCase, now: bigint) => {
    const part = (seen.commitUntil - now) / ASKS;
    askAgainAt.set(keyOf(seen), now + (part > ASK_SECONDS_MIN ? part : ASK_SECONDS_MIN));
  };
  const vote = async (seen: JuryCase, now: bigint): Promise<void> => {
    const { disputeId, round } = seen;
    let decided = journal.find(disputeId, round);
    if (decided === undefined) {
      const ruling = await askJudge(options, seen, now);
      if (options.signal.aborted) return;
      if (ruling === undefined) return askLater(seen, now);
      decided = decide(options, seen, ruling);
      // Without the salt the vote could not be revealed: it is on the disk before anybody knows of it.
      journal.keep(disputeId, round, decided);
    }
    const { commitment } = decided;
    await sender.send({ contract: 'jury', functionName: 'commit', args: [disputeId, commitment], key: `juror/commit/${commitment}` });
    askAgainAt.delete(keyOf(seen));
    counts.committed += 1;
    notes.done('vote-committed', { disputeId, round });
  };

  return {
    begin(seen, now) {
      const key = keyOf(seen);
      if (judging.has(key) || judging.size >= JUDGING_AT_ONCE || now < (askAgainAt.get(key) ?? 0n)) return;
      const work = vote(seen, now)
        .catch((error) => {
          notes.failed('vote-not-cast', error, { disputeId: seen.disputeId, round: seen.round });
          askLater(seen, now);
        })
        .finally(() => judging.delete(key));
      judging.set(key, work);
    },
    async reveal({ disputeId, round }, { commitment }) {
      const decided = journal.find(disputeId, round);
      if (decided === undefined || decided.commitment !== commitment) {
        return notes.once('opening-lost', { disputeId, round, effect: 'the vote cannot be revealed, which costs the penalty' });
      }
      const args = [disputeId, operatorId, decided.ruling, decided.salt] as const;
      await sender.send({ contract: 'jury', functionName: 'reveal', args, key: `juror/reveal/${commitment}` });
      counts.revealed += 1;
      notes.done('vote-revealed', { disputeId, round, ruling: decided.ruling });
    },
    forget(seen) {
      for (let round = 0; round <= seen.round; round += 1) askAgainAt.delete(keyOf({ ...seen, round }));
      journal.forget(seen.disputeId, seen.round + 1);
    },
    async settled() {
      while (judging.size > 0) await Promise.all(judging.values());
    },
    counts: () => ({ ...counts, unanswered: askAgainAt.size }),
  };
}

/** What the judge of the arbitrable answers; never a guess. */
async function askJudge(options: JurorVotesOptions, seen: JuryCase, now: bigint): Promise<bigint | undefined> {
  const { client, judges, notes } = options;
  const { disputeId, round, arbitrable, choices } = seen;
  const about = { disputeId, round, arbitrable };
  const judge = judges.find((one) => one.arbitrable.toLowerCase() === arbitrable.toLowerCase());
  if (judge === undefined) {
    notes.once('no-judge', { ...about, effect: 'no vote is cast, which costs the penalty' });
    return undefined;
  }
  const patienceMs = Math.min(TIMER_MS_MAX, Number(seen.commitUntil - now) * 1000);
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(patienceMs)]);
  const ruling = await judge.judge(seen, await readEvidence(client, seen), signal);
  if (ruling === undefined) notes.once('no-answer', { ...about, effect: 'no vote is cast unless the judge answers in time' });
  if (ruling === undefined || (ruling >= 0n && ruling <= choices)) return ruling;
  notes.once('unknown-answer', { ...about, ruling, choices, effect: 'no vote is cast' });
  return undefined;
}

function decide({ client, operatorId }: JurorVotesOptions, { disputeId, round }: JuryCase, ruling: bigint): DecidedVote {
  const salt = bytesToHex(randomBytes(32));
  const place = { chainId: BigInt(client.chainId), jury: client.address('jury'), disputeId, round, operatorId };
  return { ruling, salt, commitment: voteCommitment(place, { ruling, salt }) };
}

/** What a juror commits to, as `IJury.commitmentOf` works it out. */
export function voteCommitment(
  place: { chainId: bigint; jury: Address; disputeId: bigint; round: number; operatorId: bigint },
  { ruling, salt }: { ruling: bigint; salt: Hex },
): Hex {
  const types = ['uint256', 'address', 'uint256', 'uint8', 'uint64', 'uint256', 'bytes32'].map((type) => ({ type }));
  const { chainId, jury, disputeId, round, operatorId } = place;
  return keccak256(encodeAbiParameters(types, [chainId, jury, disputeId, round, operatorId, ruling, salt]));
}
