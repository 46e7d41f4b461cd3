import { type CopyVerdict, findCopies } from './copied-answers.ts';
import { earnedDown, placeRest, SHARE_WHOLE, shareEmissionDown } from './earnings.ts';
import { groupByOwner, shareWithinGroups } from './identities.ts';
import type { JudgedMiner, SubnetMoment } from './judging-ports.ts';
import type { JudgingState } from './judging-state.ts';
import { emptyRecord, type MinerScore, type ScoreLimits, scoreMiner } from './miner-score.ts';
import { smoothScores, weightsDown } from './weights.ts';

/** What an epoch's records come to. */
export interface Weighed {
  /** Parts of 65,535 of the greatest; empty where nobody has any. */
  weights: Map<number, number>;
  /** What the next epoch starts from. */
  smoothed: JudgingState['smoothed'];
  counted: JudgingState['counted'];
  scores: Map<number, MinerScore>;
  copies: CopyVerdict[];
}

/**
 * Turns what was seen into weights: each miner's burnt fees that have not earned yet, times its quality; shared among uids of one owner and among
 * those who give one another's answers; smoothed; what nobody earned to the sink, or to all owners by the quality of their best miner.
 * Pure: the same records give the same weights.
 */
export function weighMiners(from: {
  moment: Pick<SubnetMoment, 'miners' | 'sink' | 'emissionValue' | 'returnedBps'>;
  state: Pick<JudgingState, 'records' | 'answers' | 'counted' | 'smoothed'>;
  rules: ScoreLimits & { speed: number; feeBps: bigint };
}): Weighed {
  const { moment, state, rules } = from;
  const { miners, emissionValue, returnedBps, sink } = moment;
  const scores = new Map(miners.map(({ uid }) => [uid, scoreMiner(state.records.get(uid) ?? emptyRecord(), rules)]));
  const copies = findCopies(state.answers);
  const caught = new Set(copies.flatMap(({ copiers }) => copiers));
  for (const [uid, { isCaught }] of scores) if (isCaught) caught.add(uid);
  const counted = new Map(state.counted);
  const earners = miners.map((miner) => {
    const { uid, burnt, subnets, hasOwnPurse } = miner;
    const work = { burnt, counted: counted.get(purseOf(miner)) ?? burnt };
    const { earned, counted: after } = earnedDown(work, { feeBps: rules.feeBps, returnedBps, subnets });
    counted.set(purseOf(miner), after);
    return { uid, earned: hasOwnPurse ? earned : 0n, quality: caught.has(uid) ? 0 : (scores.get(uid)?.quality ?? 0) };
  });
  const groups = ownersOf(miners, copies);
  const fresh = shareWithinGroups(shareEmissionDown(earners, emissionValue).shares, groups);
  const before = new Map(miners.map((miner) => [miner.uid, state.smoothed.get(seatOf(miner)) ?? 0n]));
  const shares = smoothScores(before, fresh, { speed: rules.speed, reset: caught });
  const rest = [...shares.values()].reduce((left, share) => left - share, SHARE_WHOLE);
  const qualities = new Map(earners.map(({ uid, quality }) => [uid, quality]));
  const idlers = new Map(groups.map((uids) => bestOf(uids, qualities)));
  const placed = placeRest({ shares, rest }, sink === undefined ? { idlers } : { sink });
  const smoothed = new Map(miners.map((miner) => [seatOf(miner), shares.get(miner.uid) ?? 0n]));
  return { weights: weightsDown(placed), smoothed, counted, scores, copies };
}

/** Uids by owner; two that give the same answers count as one's, where nobody can say which of them copies. */
function ownersOf(miners: readonly JudgedMiner[], copies: readonly CopyVerdict[]): number[][] {
  const marks = new Map(miners.map(({ uid, marks: own }) => [uid, [...own]]));
  copies.forEach(({ uids, copiers }, at) => {
    if (copiers.length === 0) for (const uid of uids) marks.get(uid)?.push(`same answers ${at}`);
  });
  return groupByOwner([...marks].map(([uid, own]) => ({ uid, marks: own })));
}

/** The uid of an owner that is best, and how good it is. */
function bestOf(uids: readonly number[], qualities: ReadonlyMap<number, number>): [number, number] {
  return uids.map((uid): [number, number] => [uid, qualities.get(uid) ?? 0]).reduce((best, one) => (one[1] > best[1] ? one : best));
}

/** Whose burnt fees are counted: an operator under one key. */
export function purseOf({ operatorId, nodeKey }: Pick<JudgedMiner, 'operatorId' | 'nodeKey'>): string {
  return `${operatorId}|${nodeKey.toLowerCase()}`;
}

/** A uid and who holds it: what was known of a former holder is not the next one's. */
function seatOf({ uid, operatorId, registeredAt }: JudgedMiner): string {
  return `${uid}|${operatorId}|${registeredAt}`;
}
