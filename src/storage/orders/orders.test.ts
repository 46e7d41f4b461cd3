import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, hashTypedData } from 'viem';
import {
  type AskOrder,
  askOrderDigest,
  askOrderFromJson,
  type BidOrder,
  bidCostParts,
  bidOrderDigest,
  bidOrderFromJson,
  orderToJson,
  shardCollateralUp,
  shardPriceUp,
} from './orders.ts';

const word = (bits: number) => fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n });
const small = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
const hex = (sizeBytes: number) =>
  fc.uint8Array({ minLength: sizeBytes, maxLength: sizeBytes }).map((bytes) => `0x${Buffer.from(bytes).toString('hex')}` as Hex);
const anyAsk: fc.Arbitrary<AskOrder> = fc.record(
  {
    operatorId: word(64),
    minPrice: word(128),
    collateralPerGiB: word(128),
    capacityBytes: word(64),
    minBytes: word(64),
    maxBytes: word(64),
    minPeriods: small(32),
    maxPeriods: small(32),
    maxDeals: small(32),
    networkPrefix: hex(32),
    nonce: word(256),
    expiry: word(64),
  },
  { noNullPrototype: true },
);
const anyBid: fc.Arbitrary<BidOrder> = fc.record(
  {
    client: hex(20),
    agent: hex(20),
    contentHash: hex(32),
    shardsHash: hex(32),
    shardSize: word(64),
    pieceHeight: small(8),
    count: small(8),
    needed: small(8),
    repairBelow: small(8),
    periods: small(32),
    maxPrice: word(128),
    collateralPerGiB: word(128),
    distinctNetworks: fc.boolean(),
    regionMax: small(8),
    excludedHash: hex(32),
    reserve: word(128),
    bountyMax: word(128),
    challengeBudget: word(128),
    nonce: word(256),
    expiry: word(64),
  },
  { noNullPrototype: true },
);
const anyDomain = fc.record({ chainId: fc.integer({ min: 1, max: 2 ** 31 }), book: hex(20) });
/** The types as the contract's interface has them, written down a second time. */
const types = {
  Ask: fieldsOf(
    'uint64 operatorId,uint128 minPrice,uint128 collateralPerGiB,uint64 capacityBytes,uint64 minBytes,uint64 maxBytes,uint32 minPeriods,uint32 maxPeriods,uint32 maxDeals,bytes32 networkPrefix,uint256 nonce,uint64 expiry',
  ),
  Bid: fieldsOf(
    'address client,address agent,bytes32 contentHash,bytes32 shardsHash,uint64 shardSize,uint8 pieceHeight,uint8 count,uint8 needed,uint8 repairBelow,uint32 periods,uint128 maxPrice,uint128 collateralPerGiB,bool distinctNetworks,uint8 regionMax,bytes32 excludedHash,uint128 reserve,uint128 bountyMax,uint128 challengeBudget,uint256 nonce,uint64 expiry',
  ),
};

function fieldsOf(text: string): { type: string; name: string }[] {
  return text.split(',').map((field) => {
    const [type, name] = field.split(' ') as [string, string];
    return { type, name };
  });
}

test('the digests of orders equal the ones of a general EIP-712 encoder', () => {
  fc.assert(
    fc.property(anyDomain, anyAsk, anyBid, ({ chainId, book }, ask, bid) => {
      const domain = { name: 'Millrace Orders', version: '1', chainId, verifyingContract: book };
      const general = (primaryType: 'Ask' | 'Bid', message: object) =>
        hashTypedData({ domain, types, primaryType, message: { ...message } as never });
      assert.equal(askOrderDigest({ chainId, book }, ask), general('Ask', ask));
      assert.equal(bidOrderDigest({ chainId, book }, bid), general('Bid', bid));
    }),
    { numRuns: 50 },
  );
});

test('an order survives JSON, and a field that is missing, too wide or of another kind is named', () => {
  fc.assert(
    fc.property(anyAsk, anyBid, (ask, bid) => {
      assert.deepEqual(askOrderFromJson(JSON.parse(JSON.stringify(orderToJson(ask)))), ask);
      assert.deepEqual(bidOrderFromJson(JSON.parse(JSON.stringify(orderToJson(bid)))), bid);
    }),
    { numRuns: 50 },
  );
  const [ask] = fc.sample(anyAsk, 1) as [AskOrder];
  const broken: unknown[] = [12, -1n, 1n << 64n, '0x10', '', null, {}];
  for (const capacityBytes of broken) {
    const value = { ...orderToJson(ask), capacityBytes: typeof capacityBytes === 'bigint' ? String(capacityBytes) : capacityBytes };
    assert.throws(
      () => askOrderFromJson(value),
      (error: { code?: string; values?: { field?: string } }) => error.code === 'bad-field' && error.values?.field === 'ask.capacityBytes',
    );
  }
});

test('prices and collaterals of shards are rounded up and never nothing', () => {
  assert.equal(shardPriceUp(1n << 30n, 7n), 7n);
  assert.equal(shardPriceUp((1n << 30n) + 1n, 7n), 8n);
  assert.equal(shardPriceUp(1n, 1n), 1n);
  assert.equal(shardPriceUp(5n, 0n), 1n);
  assert.equal(shardCollateralUp(1n << 29n, 3n), 2n);
});

test('what a bid costs is the sum of its parts', () => {
  fc.assert(
    fc.property(anyBid, small(14), word(100), word(100), (bid, feeBps, dealBond, matcherTip) => {
      const { total, ...parts } = bidCostParts(bid, { feeBps, dealBond, matcherTip });
      assert.equal(
        Object.values(parts).reduce((sum, part) => sum + part, 0n),
        total,
      );
    }),
  );
});
