import type { Hex } from 'viem';
import { type TypedDataShape, typedDataDigest } from '../../chain/index.ts';

/** What ties a storage signature to one market on one chain: EIP-712 domain "Millrace Storage", version "1". */
export interface StorageDomain {
  chainId: number;
  market: Hex;
}

const uint = (name: string, bits: number) => ({ name, type: `uint${bits}` });

/** The messages of the storage market; the first three are also hashed by `StorageMarket`. */
const TYPES = {
  DealTerms: [
    { name: 'client', type: 'address' },
    uint('operatorId', 64),
    { name: 'pieceRoot', type: 'bytes32' },
    uint('pieceHeight', 8),
    uint('rawSize', 64),
    { name: 'contentHash', type: 'bytes32' },
    uint('periods', 32),
    uint('pricePerPeriod', 128),
    uint('collateral', 128),
    uint('bond', 128),
    uint('clientNonce', 256),
    uint('providerNonce', 256),
    uint('expiry', 64),
  ],
  Activation: [uint('dealId', 64)],
  Extension: [uint('dealId', 64), uint('periods', 32), uint('endPeriod', 64), uint('expiry', 64)],
  Ask: [
    uint('operatorId', 64),
    uint('pricePerGibPeriod', 128),
    uint('minPricePerPeriod', 128),
    uint('minSizeBytes', 64),
    uint('maxSizeBytes', 64),
    uint('minPeriods', 32),
    uint('maxPeriods', 32),
    uint('collateralBps', 32),
    uint('minCollateral', 128),
    uint('bond', 128),
    uint('expiry', 64),
  ],
};

const shapes = new Map<string, TypedDataShape>();

/** The EIP-712 digest of one message of the storage market. */
export function storageDigest(domain: StorageDomain, primaryType: keyof typeof TYPES, message: object): Hex {
  const key = `${domain.chainId}:${domain.market.toLowerCase()}:${primaryType}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Storage', version: '1', chainId: domain.chainId, verifyingContract: domain.market },
      types: { [primaryType]: TYPES[primaryType] },
      primaryType,
    };
    shapes.set(key, shape);
  }
  return typedDataDigest(shape, message as Record<string, unknown>);
}
