import type { JurorVote, JuryCase } from './jury-round.ts';

/** Times of the jury that decide what is due, seconds. */
export interface JuryTimes {
  drawSeconds: number;
}

/** One thing that is due in a dispute. `vote` and `reveal` are the juror's own; all else anybody may do. */
export type JuryWork =
  | { kind: 'draw' | 'expire' | 'vote' | 'reveal' | 'close' | 'execute'; since: bigint }
  | { kind: 'settle'; round: number; since: bigint };

/** What is due in a dispute at a time, by the rules of the contract (see IJury): pure, so that it can be read and tested alone. */
export function dueWork(seen: JuryCase, vote: JurorVote, times: JuryTimes, now: bigint): JuryWork[] {
  switch (seen.phase) {
    case 'drawing':
      return drawWork(seen, times, now);
    case 'voting':
      return votingWork(seen, vote, now);
    case 'ruled':
      return now < seen.appealUntil ? [] : [{ kind: 'execute', since: seen.appealUntil }, ...settleWork(seen)];
    case 'executed':
      return settleWork(seen);
    default:
      return [];
  }
}

/** Whether nothing can come of a dispute any more. */
export function isOver({ phase, unsettled }: JuryCase): boolean {
  return phase === 'executed' && unsettled.length === 0;
}

function drawWork({ seedTime }: JuryCase, { drawSeconds }: JuryTimes, now: bigint): JuryWork[] {
  const until = seedTime + BigInt(drawSeconds);
  if (now >= until) return [{ kind: 'expire', since: until }];
  return now < seedTime ? [] : [{ kind: 'draw', since: seedTime }];
}

function votingWork({ commitUntil, revealUntil }: JuryCase, vote: JurorVote, now: bigint): JuryWork[] {
  if (now >= revealUntil) return [{ kind: 'close', since: revealUntil }];
  if (vote.votes === 0) return [];
  if (now < commitUntil) return vote.state === 'none' ? [{ kind: 'vote', since: 0n }] : [];
  return vote.state === 'committed' ? [{ kind: 'reveal', since: commitUntil }] : [];
}

function settleWork({ unsettled, appealUntil }: JuryCase): JuryWork[] {
  return unsettled.map((round) => ({ kind: 'settle', round, since: appealUntil }));
}

const TURNS = 8n;

/**
 * How long an agent lets others go first with what anybody may do, seconds: those on the jury one after another, then everybody else, so that not
 * all pay for the same.
 */
export function turnOf({ jurors, disputeId }: Pick<JuryCase, 'jurors' | 'disputeId'>, operatorId: bigint, turnSeconds: bigint): bigint {
  const place = jurors.indexOf(operatorId);
  const other = (jurors.length === 0 ? 0n : TURNS) + ((operatorId + disputeId) % TURNS);
  return turnSeconds * (place === -1 ? other : BigInt(place) % TURNS);
}
