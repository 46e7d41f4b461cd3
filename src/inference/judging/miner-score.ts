import type { ReplayVerdict } from './replay.ts';
import { type GateVerdict, judgeServing, type ServingLimits, type ServingSample } from './serving-gates.ts';
import { WHOLE } from './text-distance.ts';

/** What a validator has seen of one miner since its last commit. */
export interface MinerRecord {
  serving: ServingSample[];
  /** Own probes, and users' requests that were run again: these can lower a score and never lift it, since whoever pays chooses them. */
  verdicts: { outcome: ReplayVerdict['outcome']; reason: string; isUsers?: boolean }[];
  /** Answers measured by a known truth, millionths. */
  qualities: number[];
}

/** What a miner must keep to earn. */
export interface ScoreLimits extends ServingLimits {
  /** Refuted answers of all that were proven one way or the other, millionths. */
  refutedMax: number;
  /** One refuted answer is an accident; so many are none. */
  refutedMin: number;
  /** Mean quality, millionths. */
  qualityMin: number;
  /** Below so many judged answers quality says nothing. */
  judgedMin: number;
  /** What a miner earns of its share, millionths, whose answers are right and whose bits never are those of the exact model: it may be a proxy. */
  unlikeRate: number;
}

/** A miner's quality, and what each gate says. */
export interface MinerScore {
  /** Millionths; 0 where a gate failed, whole where nothing is known: what is unproven never punishes. */
  quality: number;
  serving: GateVerdict;
  honesty: GateVerdict;
  goodness: GateVerdict;
  /** It cheated, as far as this validator can prove: it is not forgiven gradually. */
  isCaught: boolean;
  /** Counts behind the verdicts, for people. */
  counts: { requests: number; confirmed: number; refuted: number; unproven: number; judged: number; users: number };
}

/** Nothing seen yet. */
export function emptyRecord(): MinerRecord {
  return { serving: [], verdicts: [], qualities: [] };
}

/**
 * Judges a miner by what was seen. A confirmed answer is whole, a refuted one nothing, a measured one what it measures; their mean, squared, is
 * the quality, so that a model half as good earns a quarter. Users' requests are a pool of their own and count only where they are worse than the
 * probes: a miner that pays itself for good answers hides no bad one with them. All integers.
 */
export function scoreMiner(record: MinerRecord, limits: ScoreLimits): MinerScore {
  const { verdict: serving } = judgeServing(record.serving, limits);
  const probes = record.verdicts.filter(({ isUsers }) => isUsers !== true);
  const users = record.verdicts.filter(({ isUsers }) => isUsers === true);
  const [own, shown] = [judgePool(probes, record.qualities, limits), judgePool(users, [], limits)];
  const isCaught = own.isCaught || shown.isCaught;
  const honesty: GateVerdict = isCaught ? 'failed' : own.proven < limits.judgedMin ? 'unproven' : 'passed';
  const { judged } = own;
  const mean = Math.min(own.mean, shown.judged < limits.judgedMin ? WHOLE : shown.mean);
  const isKnown = judged >= limits.judgedMin || shown.judged >= limits.judgedMin;
  const goodness: GateVerdict = !isKnown ? 'unproven' : mean >= limits.qualityMin ? 'passed' : 'failed';
  const isFailed = [serving, honesty, goodness].includes('failed');
  const reasons = probes.map(({ reason }) => reason);
  const unlike = reasons.filter((reason) => reason === 'unlike-bits').length;
  const rate = unlike >= limits.judgedMin && !reasons.includes('same-output') ? limits.unlikeRate : WHOLE;
  const squared = isKnown ? Math.floor((mean * mean) / WHOLE) : WHOLE;
  const quality = isFailed ? 0 : Math.floor((squared * rate) / WHOLE);
  const of = (outcome: ReplayVerdict['outcome']) => record.verdicts.filter((verdict) => verdict.outcome === outcome).length;
  const counts = { confirmed: of('confirmed'), refuted: of('refuted'), unproven: of('unproven') };
  return {
    quality,
    serving,
    honesty,
    goodness,
    isCaught,
    counts: { requests: record.serving.length, ...counts, judged: judged + shown.judged, users: users.length },
  };
}

/** What a pool of verdicts and measured answers comes to; the mean is whole where too few say anything. */
function judgePool(
  verdicts: MinerRecord['verdicts'],
  qualities: readonly number[],
  limits: ScoreLimits,
): { proven: number; judged: number; mean: number; isCaught: boolean } {
  const of = (outcome: ReplayVerdict['outcome']) => verdicts.filter((verdict) => verdict.outcome === outcome).length;
  const [confirmed, refuted] = [of('confirmed'), of('refuted')];
  const proven = confirmed + refuted;
  const judged = proven + qualities.length;
  const sum = confirmed * WHOLE + qualities.reduce((total, quality) => total + quality, 0);
  return {
    proven,
    judged,
    mean: judged < limits.judgedMin ? WHOLE : Math.floor(sum / judged),
    isCaught: refuted >= limits.refutedMin && refuted * WHOLE > limits.refutedMax * proven,
  };
}
