import { type Ask, askRefusal, quote, type Refusal } from '../market/ask.ts';
import type { DealTerms } from '../market/terms.ts';
import type { OrderPolicy } from '../orders/standing-ask.ts';
import type { RepairPolicy } from '../repair/repairer.ts';

/** What an operator sets: how much it stores, how many deals wait at once, and the ask without operator and expiry. */
export interface ProviderPolicy {
  /** Bytes of payload that all deals together may take. */
  quotaBytes: bigint;
  /** Deals that are recorded but not active yet. */
  openDealsMax: number;
  openDealsPerClientMax: number;
  /** How long a signed ask is good, in seconds of chain time. */
  askLifetimeSeconds: number;
  /** How long before its expiry an offer must arrive, and how far ahead the expiry may be. */
  offerSecondsMin: number;
  offerSecondsMax: number;
  ask: Omit<Ask, 'operatorId' | 'expiry'>;
  /** What it offers on the order book, at the same price; nothing when absent. */
  orders?: OrderPolicy;
  /** What it repairs of other people's files, for a bounty; nothing when absent. */
  repairs?: RepairPolicy;
}

/** What a provider has taken on at this moment. */
export interface ProviderLoad {
  /** Bytes of all deals that are not over, the ones being received included. */
  reservedBytes: bigint;
  /** Bytes that the disk can still take. */
  freeDiskBytes: bigint;
  openDeals: number;
  openDealsOfClient: number;
  /** Stake on chain that no deal has locked, less what deals on their way to the chain will lock. */
  availableStake: bigint;
  /** The provider takes no new deals: it is leaving, or its table has failed. */
  closed: boolean;
}

/** Why a provider refuses a deal: a stable code, the value and the limit. */
export interface DealRefusal {
  reason:
    | Refusal['reason']
    | 'not-accepting'
    | 'no-room'
    | 'disk-full'
    | 'queue-full'
    | 'client-queue-full'
    | 'price-too-low'
    | 'collateral-too-high'
    | 'bond-mismatch'
    | 'stake-too-small'
    | 'offer-too-short'
    | 'offer-too-long';
  got: bigint;
  limit: bigint;
}

/**
 * The first reason to refuse a proposed deal at chain time `now`, or undefined when it may be signed. Pure: nothing is
 * reserved here. Signature, nonce and piece geometry are checked elsewhere.
 */
export function dealRefusal(options: {
  terms: DealTerms;
  ask: Ask;
  policy: ProviderPolicy;
  load: ProviderLoad;
  now: bigint;
}): DealRefusal | undefined {
  const { terms, ask, policy, load, now } = options;
  const request = { sizeBytes: terms.rawSize, periods: terms.periods };
  const asked = quote(ask, request);
  const room = policy.quotaBytes - load.reservedBytes;
  const lasts = terms.expiry - now;
  const tests: [broken: boolean, reason: DealRefusal['reason'], got: bigint, limit: bigint][] = [
    [load.closed, 'not-accepting', 0n, 0n],
    [terms.pricePerPeriod < asked.pricePerPeriod, 'price-too-low', terms.pricePerPeriod, asked.pricePerPeriod],
    [terms.collateral > asked.collateral, 'collateral-too-high', terms.collateral, asked.collateral],
    [terms.bond !== ask.bond, 'bond-mismatch', terms.bond, ask.bond],
    [terms.rawSize > room, 'no-room', terms.rawSize, room < 0n ? 0n : room],
    [terms.rawSize > load.freeDiskBytes, 'disk-full', terms.rawSize, load.freeDiskBytes],
    [load.openDeals >= policy.openDealsMax, 'queue-full', BigInt(load.openDeals), BigInt(policy.openDealsMax)],
    [
      load.openDealsOfClient >= policy.openDealsPerClientMax,
      'client-queue-full',
      BigInt(load.openDealsOfClient),
      BigInt(policy.openDealsPerClientMax),
    ],
    [terms.collateral + terms.bond > load.availableStake, 'stake-too-small', terms.collateral + terms.bond, load.availableStake],
    [lasts < BigInt(policy.offerSecondsMin), 'offer-too-short', lasts, BigInt(policy.offerSecondsMin)],
    [lasts > BigInt(policy.offerSecondsMax), 'offer-too-long', lasts, BigInt(policy.offerSecondsMax)],
  ];
  const outside = askRefusal(ask, request, now);
  if (outside !== undefined && !load.closed) return outside;
  const found = tests.find(([broken]) => broken);
  return found === undefined ? undefined : { reason: found[1], got: found[2], limit: found[3] };
}

/** Bytes that new deals may still take: what the quota or the disk leaves, whichever is less. */
export function roomOf(policy: ProviderPolicy, load: ProviderLoad): bigint {
  const quotaLeft = policy.quotaBytes - load.reservedBytes;
  if (quotaLeft < 0n || load.freeDiskBytes < 0n) return 0n;
  if (quotaLeft < load.freeDiskBytes) return quotaLeft;
  return load.freeDiskBytes;
}
