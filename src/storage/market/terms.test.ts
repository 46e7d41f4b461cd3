import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, hashTypedData } from 'viem';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import {
  activationDigest,
  type DealTerms,
  dealTermsDigest,
  extensionDigest,
  requireTermsSignature,
  termsFromJson,
  termsToJson,
} from './terms.ts';

const word = (bits: number) => fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n });
const hex = (sizeBytes: number) =>
  fc.uint8Array({ minLength: sizeBytes, maxLength: sizeBytes }).map((bytes) => `0x${Buffer.from(bytes).toString('hex')}` as Hex);
const anyTerms: fc.Arbitrary<DealTerms> = fc.record(
  {
    client: hex(20),
    operatorId: word(64),
    pieceRoot: hex(32),
    pieceHeight: fc.integer({ min: 0, max: 255 }),
    rawSize: word(64),
    contentHash: hex(32),
    periods: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    pricePerPeriod: word(128),
    collateral: word(128),
    bond: word(128),
    clientNonce: word(256),
    providerNonce: word(256),
    expiry: word(64),
  },
  { noNullPrototype: true },
);
const anyDomain = fc.record({ chainId: fc.integer({ min: 1, max: 2 ** 31 }), market: hex(20) });
const uint = (name: string, bits: number) => ({ name, type: `uint${bits}` });
const types = {
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
};

test('the hand-packed digests equal the ones of a general EIP-712 encoder', () => {
  fc.assert(
    fc.property(anyDomain, anyTerms, word(64), (at, terms, number) => {
      const domain = { name: 'Millrace Storage', version: '1', chainId: at.chainId, verifyingContract: at.market };
      assert.equal(dealTermsDigest(at, terms), hashTypedData({ domain, types, primaryType: 'DealTerms', message: terms as never }));
      assert.equal(
        activationDigest(at, number),
        hashTypedData({ domain, types, primaryType: 'Activation', message: { dealId: number } as never }),
      );
      const extension = { dealId: number, periods: terms.periods, endPeriod: terms.operatorId, expiry: terms.expiry };
      assert.equal(extensionDigest(at, extension), hashTypedData({ domain, types, primaryType: 'Extension', message: extension as never }));
    }),
    { numRuns: 200 },
  );
});

test('terms survive the way through JSON unchanged', () => {
  fc.assert(
    fc.property(anyTerms, (terms) => {
      assert.deepEqual(termsFromJson(JSON.parse(JSON.stringify(termsToJson(terms)))), terms);
    }),
  );
});

test('terms of the wrong shape are refused by naming the field, what it got and what it expected', () => {
  const good = termsToJson(fc.sample(anyTerms, 1)[0] as DealTerms);
  const cases: [string, unknown][] = [
    ['operatorId', '18446744073709551616'],
    ['operatorId', 7],
    ['operatorId', '-1'],
    ['client', '0x12'],
    ['periods', '1e3'],
    ['pieceHeight', '256'],
    ['rawSize', undefined],
    ['expiry', '9'.repeat(5000)],
  ];
  for (const [field, value] of cases) {
    assert.throws(() => termsFromJson({ ...good, [field]: value }), { code: 'bad-field', actor: 'caller' });
    assert.throws(() => termsFromJson({ ...good, [field]: value }), new RegExp(`terms\\.${field}`));
  }
  for (const value of [null, [], 'x', 4]) assert.throws(() => termsFromJson(value), { code: 'bad-field' });
});

test('a signature holds for its signer, terms, chain and market, and for nothing else', async () => {
  const account = privateKeyToAccount(generatePrivateKey());
  const [terms] = fc.sample(anyTerms, 1) as [DealTerms];
  const domain = { chainId: 31337, market: `0x${'11'.repeat(20)}` as Hex };
  const signature = await account.sign({ hash: dealTermsDigest(domain, terms) });
  requireTermsSignature({ domain, terms, signer: account.address, signature });
  const refused = { code: 'bad-deal-signature' };
  assert.throws(() => requireTermsSignature({ domain: { ...domain, chainId: 1 }, terms, signer: account.address, signature }), refused);
  assert.throws(
    () => requireTermsSignature({ domain: { ...domain, market: `0x${'12'.repeat(20)}` }, terms, signer: account.address, signature }),
    refused,
  );
  assert.throws(
    () => requireTermsSignature({ domain, terms: { ...terms, bond: terms.bond ^ 1n }, signer: account.address, signature }),
    refused,
  );
  assert.throws(() => requireTermsSignature({ domain, terms, signer: `0x${'22'.repeat(20)}`, signature }), refused);
});
