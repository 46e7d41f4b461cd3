import type { Hex } from 'viem';
import { isSignedBy } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { readFields } from './fields.ts';
import { type StorageDomain, storageDigest } from './signed-messages.ts';

/**
 * What a provider offers to everybody, signed by its node key. Money in base units of the network's token, sizes are
 * payload bytes (the CAR), periods are proof periods, expiry is chain time in seconds.
 */
export interface Ask {
  operatorId: bigint;
  /** Price of 2^30 payload bytes for one period. */
  pricePerGibPeriod: bigint;
  /** Floor of the price per period of one deal, for small pieces. */
  minPricePerPeriod: bigint;
  minSizeBytes: bigint;
  maxSizeBytes: bigint;
  minPeriods: number;
  maxPeriods: number;
  /** Collateral as a part of the whole price of the deal, in ten-thousandths. */
  collateralBps: number;
  minCollateral: bigint;
  /** What each side loses when the deal is not active at its deadline. */
  bond: bigint;
  expiry: bigint;
}

/** An ask with the node key's signature over `askDigest`. */
export interface SignedAsk {
  ask: Ask;
  signature: Hex;
}

/** The money of one deal under an ask; `total` is what the client escrows: price of all periods and bond. */
export interface Quote {
  pricePerPeriod: bigint;
  collateral: bigint;
  bond: bigint;
  total: bigint;
}

/** What a client wants stored. */
export interface StorageRequest {
  sizeBytes: bigint;
  periods: number;
}

/** Why an ask does not fit a request: a stable code with the values. */
export interface Refusal {
  reason: 'ask-expired' | 'piece-too-small' | 'piece-too-big' | 'duration-too-short' | 'duration-too-long';
  got: bigint;
  limit: bigint;
}

const GIB = 1n << 30n;
/** The digest that a provider's node key signs. */
export function askDigest(domain: StorageDomain, ask: Ask): Hex {
  return storageDigest(domain, 'Ask', ask);
}

/** The money of a deal: price and collateral rounded up (for the provider), never below the ask's floors. */
export function quote(ask: Ask, request: StorageRequest): Quote {
  const byBytes = divideUp(ask.pricePerGibPeriod * request.sizeBytes, GIB);
  const pricePerPeriod = atLeast(ask.minPricePerPeriod, byBytes);
  const price = pricePerPeriod * BigInt(request.periods);
  const byPrice = divideUp(price * BigInt(ask.collateralBps), 10_000n);
  const collateral = atLeast(ask.minCollateral, byPrice);
  return { pricePerPeriod, collateral, bond: ask.bond, total: price + ask.bond };
}

/** The first limit of the ask that a request breaks at chain time `now`, or undefined when it fits. */
export function askRefusal(ask: Ask, request: StorageRequest, now: bigint): Refusal | undefined {
  const periods = BigInt(request.periods);
  if (ask.expiry <= now) return { reason: 'ask-expired', got: now, limit: ask.expiry };
  if (request.sizeBytes < ask.minSizeBytes) return { reason: 'piece-too-small', got: request.sizeBytes, limit: ask.minSizeBytes };
  if (request.sizeBytes > ask.maxSizeBytes) return { reason: 'piece-too-big', got: request.sizeBytes, limit: ask.maxSizeBytes };
  if (request.periods < ask.minPeriods) return { reason: 'duration-too-short', got: periods, limit: BigInt(ask.minPeriods) };
  if (request.periods > ask.maxPeriods) return { reason: 'duration-too-long', got: periods, limit: BigInt(ask.maxPeriods) };
  return undefined;
}

/**
 * Refuses an ask that its operator's node key did not sign, or that contradicts itself.
 * @throws bad-ask
 */
export function requireAsk(options: { domain: StorageDomain; signed: SignedAsk; operatorId: bigint; nodeKey: Hex }): Ask {
  const { ask, signature } = options.signed;
  const fault =
    ask.operatorId !== options.operatorId
      ? `it names operator ${ask.operatorId}`
      : ask.minSizeBytes > ask.maxSizeBytes || ask.minPeriods > ask.maxPeriods
        ? 'a minimum is above its maximum'
        : isSignedBy(options.nodeKey, askDigest(options.domain, ask), signature)
          ? undefined
          : `it is not signed by the node key ${options.nodeKey}`;
  if (fault === undefined) return ask;
  throw new MillraceError('bad-ask', {
    actor: 'peer',
    message: `The ask of operator ${options.operatorId} is not usable: ${fault}`,
    values: { operatorId: options.operatorId, nodeKey: options.nodeKey },
    hint: 'Take another provider.',
  });
}

/** A signed ask as JSON: integers as decimal strings. */
export function askToJson(signed: SignedAsk): { ask: Record<string, string>; signature: Hex } {
  const ask = Object.fromEntries(Object.entries(signed.ask).map(([name, value]) => [name, value.toString()]));
  return { ask, signature: signed.signature };
}

/**
 * A signed ask from untrusted JSON; the signature itself is checked by `requireAsk`.
 * @throws bad-field
 */
export function askFromJson(value: unknown): SignedAsk {
  const outer = readFields(value, 'answer');
  const fields = outer.object('ask');
  return {
    ask: {
      operatorId: fields.uint('operatorId', 64),
      pricePerGibPeriod: fields.uint('pricePerGibPeriod', 128),
      minPricePerPeriod: fields.uint('minPricePerPeriod', 128),
      minSizeBytes: fields.uint('minSizeBytes', 64),
      maxSizeBytes: fields.uint('maxSizeBytes', 64),
      minPeriods: fields.small('minPeriods', 32),
      maxPeriods: fields.small('maxPeriods', 32),
      collateralBps: fields.small('collateralBps', 32),
      minCollateral: fields.uint('minCollateral', 128),
      bond: fields.uint('bond', 128),
      expiry: fields.uint('expiry', 64),
    },
    signature: outer.hex('signature', 65),
  };
}

function atLeast(floor: bigint, value: bigint): bigint {
  return value < floor ? floor : value;
}

function divideUp(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}
