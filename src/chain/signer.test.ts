import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { type Hex, hashTypedData, keccak256, parseTransaction, recoverTransactionAddress, verifyTypedData } from 'viem';
import { mnemonicToAccount, privateKeyToAccount } from 'viem/accounts';
import { nativeEngine, nobleEngine, type Secp256k1Engine } from './secp256k1.ts';
import { createSigner, developmentSigner, isSignedBy, recoverAddress } from './signer.ts';
import { type TypedDataShape, typedDataDigest } from './typed-data.ts';

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const privateKeys = fc.bigInt({ min: 1n, max: ORDER - 1n }).map((value): Hex => `0x${value.toString(16).padStart(64, '0')}`);
const words = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes): Hex => `0x${Buffer.from(bytes).toString('hex')}`);

function testEngine(engine: Secp256k1Engine): void {
  test(`the ${engine.name} engine signs as viem does and recovers the signer`, async () => {
    await fc.assert(
      fc.asyncProperty(privateKeys, words, async (privateKey, digest) => {
        const signer = createSigner(privateKey, engine);
        const reference = privateKeyToAccount(privateKey);
        assert.equal(signer.address, reference.address);
        const signature = await signer.signDigest(digest);
        assert.equal(signature, await reference.sign({ hash: digest }));
        assert.equal(recoverAddress(digest, signature, engine), reference.address);
      }),
      { numRuns: 40 },
    );
  });

  test(`the ${engine.name} engine refuses every malformed signature with one typed error`, () => {
    const digest = keccak256('0x01');
    const s = (ORDER - 1n).toString(16);
    for (const signature of [
      '0x',
      `0x${'00'.repeat(65)}`,
      `0x${'11'.repeat(64)}1d`,
      `0x${'11'.repeat(32)}${s}1b`,
      `0x${'ff'.repeat(64)}1b`,
    ]) {
      assert.throws(() => recoverAddress(digest, signature as Hex, engine), { code: 'bad-signature' });
    }
  });
}

testEngine(nobleEngine);
if (nativeEngine) testEngine(nativeEngine);
else test('the native engine signs as viem does', { skip: 'no prebuilt secp256k1 addon for this platform' }, () => {});

test('development accounts are those that every Ethereum tool derives from the public mnemonic', () => {
  const mnemonic = 'test test test test test test test test test test test junk';
  for (const addressIndex of [0, 1, 7, 39, 2 ** 31 - 1]) {
    assert.equal(developmentSigner(addressIndex, 'dev').address, mnemonicToAccount(mnemonic, { addressIndex }).address);
  }
});

test('a signer signs messages, typed data and transactions that viem verifies', async () => {
  const signer = developmentSigner(0, 'dev');
  assert.equal(signer.address, '0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266');
  const typedData = { domain: { name: 'x' }, types: { A: [{ name: 'b', type: 'uint8' }] }, primaryType: 'A', message: { b: 7 } } as const;
  const signature = await signer.signTypedData(typedData);
  assert.ok(await verifyTypedData({ ...typedData, address: signer.address, signature }));
  const raw = await signer.account.signTransaction({
    chainId: 1,
    type: 'eip1559',
    to: signer.address,
    nonce: 3,
    gas: 21_000n,
    maxFeePerGas: 1n,
  });
  assert.equal(await recoverTransactionAddress({ serializedTransaction: raw as `0x02${string}` }), signer.address);
  assert.equal(parseTransaction(raw as Hex).nonce, 3);
});

test('printing a signer in any way does not show its private key', () => {
  const privateKey = `0x${'5a'.repeat(32)}` as const;
  const signer = createSigner(privateKey);
  const printed = inspect(signer, { depth: 9, showHidden: true }) + JSON.stringify(signer) + String(signer);
  assert.ok(!printed.toLowerCase().includes('5a5a5a5a') && !printed.includes('90, 90, 90'));
});

test('development keys are refused outside the dev profile, and a bad key is not shown', () => {
  assert.throws(() => developmentSigner(0, 'production'), { code: 'development-key-refused' });
  for (const key of ['0x1234', `0x${'00'.repeat(32)}`, `0x${'ff'.repeat(32)}`]) {
    assert.throws(
      () => createSigner(key as Hex),
      (error: Error & { code?: string }) => error.code === 'bad-private-key' && !error.message.includes(key.slice(2)),
    );
  }
});

const shape: TypedDataShape = {
  domain: { name: 'Millrace Test', version: '1', chainId: 31337, verifyingContract: '0x5FbDB2315678afecb367f032d93F642f64180aa3' },
  primaryType: 'Order',
  types: {
    Order: [
      { name: 'from', type: 'Person' },
      { name: 'items', type: 'Item[]' },
      { name: 'pair', type: 'uint64[2]' },
      { name: 'note', type: 'string' },
      { name: 'blob', type: 'bytes' },
      { name: 'delta', type: 'int128' },
      { name: 'amount', type: 'uint256' },
      { name: 'open', type: 'bool' },
      { name: 'tag', type: 'bytes5' },
    ],
    Person: [
      { name: 'wallet', type: 'address' },
      { name: 'root', type: 'bytes32' },
    ],
    Item: [{ name: 'id', type: 'uint8' }],
  },
};
const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((value): Hex => `0x${Buffer.from(value).toString('hex')}`);
const orders = fc.record({
  from: fc.record({ wallet: bytes(20), root: bytes(32) }),
  items: fc.array(fc.record({ id: fc.integer({ min: 0, max: 255 }) }), { maxLength: 5 }),
  pair: fc.tuple(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  note: fc.string({ unit: 'grapheme' }),
  blob: fc.uint8Array({ maxLength: 99 }).map((value): Hex => `0x${Buffer.from(value).toString('hex')}`),
  delta: fc.bigInt({ min: -(2n ** 127n), max: 2n ** 127n - 1n }),
  amount: fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }),
  open: fc.boolean(),
  tag: bytes(5),
});

test('the hand-packed EIP-712 digest equals viem for every message', () => {
  fc.assert(
    fc.property(orders, (message) => {
      const reference = hashTypedData({ ...shape, message } as unknown as Parameters<typeof hashTypedData>[0]);
      assert.equal(typedDataDigest(shape, message), reference);
    }),
  );
});

test('typed data out of range or of another type is refused', () => {
  const small: TypedDataShape = { domain: {}, primaryType: 'A', types: { A: [{ name: 'b', type: 'uint8' }] } };
  for (const b of [256, -1, 1.5, '1', undefined]) assert.throws(() => typedDataDigest(small, { b }), { code: 'bad-typed-data' });
});

test('a signature counts for its own digest and address only', async () => {
  const [ann, bob] = [developmentSigner(0, 'dev'), developmentSigner(1, 'dev')];
  const digest = keccak256('0x02');
  const signature = await ann.signDigest(digest);
  assert.ok(isSignedBy(ann.address, digest, signature));
  assert.ok(!isSignedBy(bob.address, digest, signature));
  assert.ok(!isSignedBy(ann.address, keccak256('0x03'), signature));
  assert.ok(!isSignedBy(ann.address, digest, '0x1234'));
});
