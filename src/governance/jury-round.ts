import type { Address, Hex } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import type { JuryDispute } from './judge.ts';

/** Where a dispute stands. */
export type JuryPhase = 'none' | 'drawing' | 'voting' | 'ruled' | 'executed';

/** What became of one operator's vote in the present round. */
export interface JurorVote {
  /** How many votes it was drawn for; 0: not on the jury. */
  votes: number;
  state: 'none' | 'committed' | 'revealed' | 'struck';
  /** The commitment, once there is one. */
  commitment: Hex;
}

/** A dispute with the phase of its present round. Times are chain time, seconds. */
export interface JuryCase extends JuryDispute {
  phase: JuryPhase;
  seedTime: bigint;
  revealUntil: bigint;
  appealUntil: bigint;
  ruling: bigint;
  /** Jurors of the present round, in the order in which they were drawn. */
  jurors: readonly bigint[];
  /** Rounds that are not settled yet. */
  unsettled: readonly number[];
}

const PHASES: readonly JuryPhase[] = ['none', 'drawing', 'voting', 'ruled', 'executed'];
const VOTE_STATES = ['none', 'committed', 'revealed', 'struck'] as const;

/** A dispute as it is now. @throws wrong-phase when there is none of this number */
export async function readJuryCase(client: ChainClient, disputeId: bigint): Promise<JuryCase> {
  const seen = await client.read('jury', 'dispute', [disputeId]);
  const rounds = await Promise.all(
    Array.from({ length: seen.round + 1 }, (_, round) => client.read('jury', 'roundOf', [disputeId, round])),
  );
  return {
    disputeId,
    round: seen.round,
    arbitrable: seen.arbitrable as Address,
    choices: seen.choices,
    openedAt: BigInt(seen.openedAt),
    seedTime: BigInt(seen.seedTime),
    commitUntil: BigInt(seen.commitUntil),
    revealUntil: BigInt(seen.revealUntil),
    appealUntil: BigInt(seen.appealUntil),
    ruling: seen.ruling,
    parties: seen.parties,
    accounts: seen.accounts as readonly Address[],
    phase: PHASES[seen.phase] ?? 'none',
    jurors: rounds[seen.round]?.jurors ?? [],
    unsettled: rounds.flatMap(({ settled }, round) => (settled ? [] : [round])),
  };
}

/** An operator's vote in the present round of a dispute. */
export async function readJurorVote(client: ChainClient, { disputeId, round }: JuryCase, operatorId: bigint): Promise<JurorVote> {
  const { word, votes, state } = await client.read('jury', 'voteOf', [disputeId, round, operatorId]);
  return { votes, state: VOTE_STATES[state] ?? 'none', commitment: `0x${word.toString(16).padStart(64, '0')}` };
}
