import { lesser } from '../../units.ts';
import { WHOLE } from './text-distance.ts';

/** What is known of a miner's paid work since the beginning, base units of the network's token. Both only grow. */
export interface PaidWork {
  /** Prices of all paid receipts that the miner signed, where they are known: what was paid for something else does not count. */
  receipted?: bigint;
  /** Fees burnt on what the miner was paid in channels, as the chain says. */
  burnt: bigint;
  /** Of these, what earlier epochs have counted already. */
  counted: bigint;
}

/** How much of a burnt fee may earn. */
export interface EarningTerms {
  /** Share of a payment that is burnt, basis points. */
  feeBps: bigint;
  /** Share of the same burnt fee that other rewards of the network give back, basis points. Default none. */
  returnedBps?: bigint;
  /** In how many subnets the miner holds a uid: each counts one part of so many. Default 1. */
  subnets?: number;
}

/** Of what was burnt, the share that may come back at all, in millionths: the rest is a payer's loss whoever he is. */
export const EARN_SHARE = 900_000n;
const BPS = 10_000n;
const MILLIONTHS = BigInt(WHOLE);

/**
 * What a miner may earn in this epoch: nine tenths of the fees that were burnt on paid requests and not counted before, less what other rewards
 * give back of the same fees, in equal parts in all subnets where it could be counted: together never more than nine tenths come back. It is
 * bounded by what the chain shows and, where receipts are known, by these, so that neither receipts without money nor money without requests
 * earn. Never negative.
 */
export function earnedDown(
  { receipted, burnt, counted }: PaidWork,
  { feeBps, returnedBps = 0n, subnets = 1 }: EarningTerms,
): { earned: bigint; counted: bigint } {
  const share = EARN_SHARE - (returnedBps * MILLIONTHS) / BPS;
  const proven = receipted === undefined ? burnt : lesser((receipted * feeBps) / BPS, burnt);
  const fresh = proven > counted ? proven - counted : 0n;
  return { earned: share <= 0n ? 0n : (fresh * share) / (MILLIONTHS * BigInt(Math.max(1, subnets))), counted: counted + fresh };
}

/** A miner as its share is reckoned. */
export interface Earner {
  uid: number;
  earned: bigint;
  /** Millionths; 0 where a gate failed. */
  quality: number;
}

/** How the emission of miners is shared out: to uids, and what is left. Together {@link SHARE_WHOLE}. */
export interface EmissionShares {
  shares: Map<number, bigint>;
  rest: bigint;
}

/** All of the miners' emission, as shares are counted. */
export const SHARE_WHOLE = 10n ** 18n;

/**
 * The share of the miners' emission that each miner gets: what it earned, times its quality, of what the emission is worth in the same token;
 * all are cut alike where more was earned than there is. Rounded down. What nobody earned is the rest.
 */
export function shareEmissionDown(earners: readonly Earner[], emissionValue: bigint): EmissionShares {
  const worth = earners.map(({ earned, quality }) => (earned * BigInt(Math.max(0, Math.min(WHOLE, quality)))) / MILLIONTHS);
  const total = worth.reduce((sum, value) => sum + value, 0n);
  const whole = total > emissionValue ? total : emissionValue;
  const shares = new Map<number, bigint>();
  let rest = SHARE_WHOLE;
  earners.forEach(({ uid }, index) => {
    const share = whole === 0n ? 0n : ((worth[index] as bigint) * SHARE_WHOLE) / whole;
    shares.set(uid, (shares.get(uid) ?? 0n) + share);
    rest -= share;
  });
  return { shares, rest };
}

/**
 * Where the rest goes: to the subnet's sink, a uid that nobody can claim for; in a subnet without one to the owners whose miners pass their gates,
 * in proportion to quality alone, so that a payment of one's own moves none of it. Rounded down.
 */
export function placeRest(
  { shares, rest }: EmissionShares,
  to: { sink: number } | { idlers: ReadonlyMap<number, number> },
): Map<number, bigint> {
  const placed = new Map(shares);
  const parts = 'sink' in to ? new Map([[to.sink, WHOLE]]) : to.idlers;
  const whole = [...parts.values()].reduce((sum, part) => sum + BigInt(part), 0n);
  for (const [uid, part] of parts) if (part > 0) placed.set(uid, (placed.get(uid) ?? 0n) + (rest * BigInt(part)) / whole);
  return placed;
}
