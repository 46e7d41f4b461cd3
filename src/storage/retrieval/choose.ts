import type { Hex } from 'viem';
import { prefixOf } from './announcement-book.ts';
import { CHEAT_REST_MS, type PeerRecord } from './peer-records.ts';

/** Somebody from whom a content may be had. */
export interface Candidate {
  holder: Hex;
  endpoint: string;
  transportKey: Hex;
  /** Base units for 2^30 bytes; 0 for whoever gives it free. */
  pricePerGib: bigint;
  /** Bytes of one payment. */
  chunkBytes: bigint;
  /** It has a running deal for the content: the chain says so, and its stake answers for it. */
  hasDeal: boolean;
  /** Public record: retrievals that paying clients reported; both 0 when there are none. */
  reported: { served: number; failed: number };
}

/** How many are asked, and of whom. */
export interface ChoiceLimits {
  /** Greatest price of 2^30 bytes; dearer ones are not asked. */
  pricePerGibMax: bigint;
  /** Asked at once. */
  atOnce: number;
  /** Asked when those fail. */
  reserve: number;
  /** Of those with neither a deal nor a record of ours, at once and in reserve together. */
  strangers: number;
}

/** Limits that suit a home connection. */
export const CHOICE_LIMITS: Omit<ChoiceLimits, 'pricePerGibMax'> = { atOnce: 4, reserve: 8, strangers: 3 };

/** Whom to ask first, and whom when those fail. */
export interface Choice {
  first: Candidate[];
  reserve: Candidate[];
}

/**
 * Picks sellers by price, speed and record. Holders with a deal and those who served well before are never crowded out: of strangers
 * only a few are taken, each from another network, whatever their number and whatever they promise. Whoever cheated is last, for a
 * month. Pure: the same input gives the same choice, up to `random` between equals.
 */
export function chooseSellers(input: {
  candidates: Candidate[];
  recordOf: (holder: Hex) => PeerRecord | undefined;
  limits: ChoiceLimits;
  nowMs: number;
  random?: () => number;
}): Choice {
  const { recordOf, limits, nowMs, random = Math.random } = input;
  const affordable = input.candidates.filter(({ pricePerGib }) => pricePerGib <= limits.pricePerGibMax);
  const isCheat = ({ holder }: Candidate) => {
    const at = recordOf(holder)?.cheatedAtMs;
    return at !== undefined && nowMs - at < CHEAT_REST_MS;
  };
  const isKnown = (candidate: Candidate) => candidate.hasDeal || (recordOf(candidate.holder)?.served ?? 0) > 0;
  const ranked = affordable
    .filter((candidate) => !isCheat(candidate))
    .map((candidate) => ({ candidate, cost: expectedCost(candidate, recordOf(candidate.holder), limits), draw: random() }))
    .sort((left, right) => left.cost - right.cost || left.draw - right.draw)
    .map(({ candidate }) => candidate);
  const known = ranked.filter(isKnown);
  const prefixes = new Set<string>();
  const strangers = ranked
    .filter((candidate) => !isKnown(candidate))
    .filter(({ endpoint }) => !prefixes.has(prefixOf(endpoint)) && prefixes.add(prefixOf(endpoint)) !== undefined)
    .slice(0, limits.strangers);
  // One place at once is for a stranger, so that newcomers can earn a record; the others are for whoever has one.
  const newcomers = known.length === 0 ? limits.atOnce : 1;
  const first = [...known.slice(0, limits.atOnce - Math.min(newcomers, strangers.length)), ...strangers.slice(0, newcomers)];
  const left = [...known, ...strangers].filter((candidate) => !first.includes(candidate));
  return { first, reserve: [...left, ...affordable.filter(isCheat)].slice(0, limits.reserve) };
}

/**
 * What a byte costs in the end, relative: the price, raised by what fails, and by slowness. Unknown ones are taken for half good, so
 * that a record of ours, even a short one, says more than a promise; public reports count as a few observations, no more.
 */
function expectedCost(candidate: Candidate, record: PeerRecord | undefined, limits: ChoiceLimits): number {
  const { served: publicServed, failed: publicFailed } = candidate.reported;
  const publicCount = publicServed + publicFailed;
  const publicWeight = publicCount === 0 ? 0 : Math.min(REPORTS_WEIGH, publicCount) / publicCount;
  const served = (record?.served ?? 0) + publicServed * publicWeight + 1;
  const tried = served + (record?.failed ?? 0) + publicFailed * publicWeight + 1;
  const success = served / tried;
  const bytesPerMs = record === undefined || record.milliseconds === 0 ? SPEED_UNKNOWN : record.bytes / record.milliseconds;
  const price = Number(candidate.pricePerGib) / Math.max(1, Number(limits.pricePerGibMax));
  return (price + PRICE_FLOOR + Math.min(1, SPEED_UNKNOWN / Math.max(1, bytesPerMs)) * SPEED_PART) / success ** 2;
}

const REPORTS_WEIGH = 4;
/** Bytes in a millisecond. */
const SPEED_UNKNOWN = 1000;
/** A free holder that fails costs time: the floor keeps failing free ones behind sound paid ones. */
const PRICE_FLOOR = 0.2;
const SPEED_PART = 0.3;
