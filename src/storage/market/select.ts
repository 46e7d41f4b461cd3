import type { Hex } from 'viem';
import { type Ask, askRefusal, type Quote, quote, type Refusal, type StorageRequest } from './ask.ts';

/** One provider as a client sees it before choosing: its ask (already verified) and what chain and node say of it now. */
export interface Offer {
  operatorId: bigint;
  owner: Hex;
  endpoint: string;
  region: string;
  ask: Ask;
  /** Stake that can still be locked for new deals, from the chain. */
  availableStake: bigint;
  /** What the node itself says it has left; it refuses later if this is wrong. */
  freeBytes: bigint;
  acceptsDeals: boolean;
  /** Charged misses in a row, from the chain. */
  missesInRow: number;
}

/** Why an offer was not taken. */
export type Rejection =
  | Refusal['reason']
  | 'not-accepting'
  | 'no-room'
  | 'stake-too-small'
  | 'price-too-high'
  | 'missing-proofs'
  | 'excluded'
  | 'same-owner';

/** What a client asks of the market. */
export interface Selection extends StorageRequest {
  now: bigint;
  /** The highest price per GiB and period that the client pays. */
  maxPricePerGibPeriod?: bigint;
  /** Operators that hold the piece already or failed in this put: never taken again. */
  excluded: ReadonlySet<bigint>;
  /** Owners of the copies that are already placed: one owner keeps one copy only. */
  owners: ReadonlySet<Hex>;
  /** Regions of the copies already placed: another region is preferred. */
  regions: ReadonlySet<string>;
  /** Spreads clients over equal providers; same seed, same order. */
  seed: string;
}

/** An offer with its price for this piece. */
export interface Candidate {
  offer: Offer;
  quote: Quote;
}

/** Candidates in the order to try them, and why the others are out. */
export interface Ranking {
  candidates: Candidate[];
  rejected: { operatorId: bigint; reason: Rejection }[];
}

/**
 * Ranks offers for one copy: those that fit, other regions than those already used first, then cheapest; equal prices
 * are shuffled by the seed. Pure: the same input gives the same ranking.
 */
export function rankOffers(offers: readonly Offer[], selection: Selection): Ranking {
  const candidates: Candidate[] = [];
  const rejected: Ranking['rejected'] = [];
  for (const offer of offers) {
    const price = quote(offer.ask, selection);
    const reason = rejectionOf(offer, price, selection);
    if (reason === undefined) candidates.push({ offer, quote: price });
    else rejected.push({ operatorId: offer.operatorId, reason });
  }
  const rank = new Map(candidates.map(({ offer }) => [offer.operatorId, shuffleKey(selection.seed, offer.operatorId)]));
  candidates.sort((left, right) => {
    const byRegion = Number(selection.regions.has(left.offer.region)) - Number(selection.regions.has(right.offer.region));
    if (byRegion !== 0) return byRegion;
    if (left.quote.total !== right.quote.total) return left.quote.total < right.quote.total ? -1 : 1;
    return (rank.get(left.offer.operatorId) as number) - (rank.get(right.offer.operatorId) as number);
  });
  return { candidates, rejected };
}

/** Takes up to `copies` candidates, each of another owner, preferring regions not yet used. */
export function takeCopies(offers: readonly Offer[], selection: Selection, copies: number): Ranking {
  const owners = new Set(selection.owners);
  const regions = new Set(selection.regions);
  const excluded = new Set(selection.excluded);
  const taken: Candidate[] = [];
  while (taken.length < copies) {
    const next = rankOffers(offers, { ...selection, owners, regions, excluded }).candidates[0];
    if (next === undefined) break;
    taken.push(next);
    owners.add(next.offer.owner);
    regions.add(next.offer.region);
    excluded.add(next.offer.operatorId);
  }
  const chosen = new Set(taken.map(({ offer }) => offer.operatorId));
  const { rejected } = rankOffers(offers, { ...selection, owners, regions });
  return { candidates: taken, rejected: rejected.filter(({ operatorId }) => !chosen.has(operatorId)) };
}

function rejectionOf(offer: Offer, price: Quote, selection: Selection): Rejection | undefined {
  if (selection.excluded.has(offer.operatorId)) return 'excluded';
  if (selection.owners.has(offer.owner)) return 'same-owner';
  const refusal = askRefusal(offer.ask, selection, selection.now);
  if (refusal !== undefined) return refusal.reason;
  if (!offer.acceptsDeals) return 'not-accepting';
  if (offer.freeBytes < selection.sizeBytes) return 'no-room';
  if (offer.availableStake < price.collateral + price.bond) return 'stake-too-small';
  if (offer.missesInRow > 0) return 'missing-proofs';
  if (selection.maxPricePerGibPeriod !== undefined && offer.ask.pricePerGibPeriod > selection.maxPricePerGibPeriod) return 'price-too-high';
  return undefined;
}

/** FNV-1a of seed and operator: an order that a client can repeat and no provider can choose. */
function shuffleKey(seed: string, operatorId: bigint): number {
  let hash = 0x811c9dc5;
  for (const character of `${seed}:${operatorId}`) hash = Math.imul(hash ^ (character.codePointAt(0) as number), 0x01000193) >>> 0;
  return hash;
}
