import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, hashTypedData } from 'viem';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { type Ask, askDigest, askFromJson, askRefusal, askToJson, quote, requireAsk } from './ask.ts';

const ask: Ask = {
  operatorId: 3n,
  pricePerGibPeriod: 1_000_000n,
  minPricePerPeriod: 10n,
  minSizeBytes: 127n,
  maxSizeBytes: 1n << 30n,
  minPeriods: 2,
  maxPeriods: 1000,
  collateralBps: 30_000,
  minCollateral: 500n,
  bond: 77n,
  expiry: 5000n,
};
const domain = { chainId: 31337, market: `0x${'11'.repeat(20)}` as Hex };

test('the digest of an ask equals the one of a general EIP-712 encoder', () => {
  const uint = (name: string, bits: number) => ({ name, type: `uint${bits}` });
  const types = {
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
  const expected = hashTypedData({
    domain: { name: 'Millrace Storage', version: '1', chainId: domain.chainId, verifyingContract: domain.market },
    types,
    primaryType: 'Ask',
    message: ask as never,
  });
  assert.equal(askDigest(domain, ask), expected);
});

test('price and collateral are rounded up, never under the floors, and grow with size and time', () => {
  assert.deepEqual(quote(ask, { sizeBytes: 1n << 30n, periods: 2 }), {
    pricePerPeriod: 1_000_000n,
    collateral: 6_000_000n,
    bond: 77n,
    total: 2_000_077n,
  });
  assert.deepEqual(quote(ask, { sizeBytes: 1n, periods: 2 }), { pricePerPeriod: 10n, collateral: 500n, bond: 77n, total: 97n });
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 1n << 40n }), fc.integer({ min: 1, max: 100_000 }), (sizeBytes, periods) => {
      const smaller = quote(ask, { sizeBytes, periods });
      const bigger = quote(ask, { sizeBytes: sizeBytes + 1n, periods: periods + 1 });
      assert.ok(smaller.pricePerPeriod * (1n << 30n) >= ask.pricePerGibPeriod * sizeBytes);
      assert.ok(smaller.collateral * 10_000n >= smaller.pricePerPeriod * BigInt(periods) * 30_000n);
      assert.ok(bigger.pricePerPeriod >= smaller.pricePerPeriod && bigger.total > smaller.total && bigger.collateral >= smaller.collateral);
    }),
  );
});

test('each limit of an ask refuses with its reason, the value and the limit', () => {
  const fits = { sizeBytes: 1000n, periods: 5 };
  assert.equal(askRefusal(ask, fits, 4999n), undefined);
  assert.deepEqual(askRefusal(ask, fits, 5000n), { reason: 'ask-expired', got: 5000n, limit: 5000n });
  assert.deepEqual(askRefusal(ask, { ...fits, sizeBytes: 126n }, 0n), { reason: 'piece-too-small', got: 126n, limit: 127n });
  assert.deepEqual(askRefusal(ask, { ...fits, sizeBytes: (1n << 30n) + 1n }, 0n)?.reason, 'piece-too-big');
  assert.deepEqual(askRefusal(ask, { ...fits, periods: 1 }, 0n)?.reason, 'duration-too-short');
  assert.deepEqual(askRefusal(ask, { ...fits, periods: 1001 }, 0n)?.reason, 'duration-too-long');
});

test('an ask is usable only with the node key of the operator that it names', async () => {
  const key = privateKeyToAccount(generatePrivateKey());
  const signed = { ask, signature: await key.sign({ hash: askDigest(domain, ask) }) };
  const travelled = askFromJson(JSON.parse(JSON.stringify(askToJson(signed))));
  assert.deepEqual(requireAsk({ domain, signed: travelled, operatorId: 3n, nodeKey: key.address }), ask);
  const bad = { code: 'bad-ask', actor: 'peer' };
  assert.throws(() => requireAsk({ domain, signed, operatorId: 4n, nodeKey: key.address }), bad);
  assert.throws(() => requireAsk({ domain, signed, operatorId: 3n, nodeKey: `0x${'44'.repeat(20)}` }), bad);
  assert.throws(() => requireAsk({ domain, signed: { ...signed, ask: { ...ask, bond: 0n } }, operatorId: 3n, nodeKey: key.address }), bad);
  const inverted = { ...ask, minPeriods: 2000 };
  const signature = await key.sign({ hash: askDigest(domain, inverted) });
  assert.throws(() => requireAsk({ domain, signed: { ask: inverted, signature }, operatorId: 3n, nodeKey: key.address }), bad);
});
