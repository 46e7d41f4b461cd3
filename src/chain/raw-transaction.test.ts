import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, keccak256, parseTransaction, recoverTransactionAddress, serializeTransaction, toHex } from 'viem';
import { decodeSignedTransaction } from './raw-transaction.ts';
import { signTransfer, testAccount } from './supervisor-fixture.ts';

const CHAIN = 31_337;
const BLOCK_GAS = 60_000_000n;
const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const account = testAccount(0);

test('every kind of transaction is decoded to the sender, hash and cost that viem gives', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('legacy', 'eip2930', 'eip1559'),
      fc.nat(1_000),
      fc.bigInt({ min: 0n, max: 10n ** 24n }),
      fc.uint8Array({ maxLength: 200 }),
      async (type, nonce, value, data) => {
        const fees = type === 'eip1559' ? {} : { maxFeePerGas: undefined, maxPriorityFeePerGas: undefined, gasPrice: 10n ** 10n };
        const raw = await signTransfer(account, nonce, { type, value, data: toHex(data), gas: 100_000n, ...fees });
        const decoded = decodeSignedTransaction(raw, CHAIN, BLOCK_GAS);
        assert.equal(decoded.sender, account.address.toLowerCase());
        assert.equal(decoded.sender, (await recoverTransactionAddress({ serializedTransaction: raw as `0x02${string}` })).toLowerCase());
        assert.equal(decoded.hash, keccak256(raw));
        assert.equal(decoded.nonce, nonce);
        assert.equal(decoded.costMax, value + 100_000n * (type === 'eip1559' ? 10n ** 11n : 10n ** 10n));
      },
    ),
    { numRuns: 40 },
  );
});

test('leading zeros of a signature, which RLP drops, are put back: one legacy transaction in 128 has them', async () => {
  const gasPrice = 10n ** 10n;
  const fees = { maxFeePerGas: undefined, maxPriorityFeePerGas: undefined, gasPrice };
  let short = 0;
  for (let nonce = 0; short < 3; nonce += 1) {
    const raw = await signTransfer(account, nonce, { type: 'legacy', value: 1n, gas: 100_000n, ...fees });
    const { r, s } = parseTransaction(raw) as { r: Hex; s: Hex };
    if (r.length === 66 && s.length === 66) continue;
    short += 1;
    assert.equal(decodeSignedTransaction(raw, CHAIN, BLOCK_GAS).sender, account.address.toLowerCase());
  }
});

test('what is not a transaction for this chain is refused with the reason', async () => {
  const refuses = (raw: unknown, reason: RegExp) =>
    assert.throws(() => decodeSignedTransaction(raw, CHAIN, BLOCK_GAS), { code: 'bad-transaction', message: reason });
  refuses(undefined, /hex string/);
  refuses('0x', /hex string/);
  refuses('0x123', /hex string/);
  refuses('0x02deadbeef', /cannot be decoded/);
  refuses(`0x02${'ff'.repeat(131_072)}`, /oversized/);
  refuses(await signTransfer(account, 0, { chainId: 1 }), /invalid chain id: got 1, this chain is 31337/);
  refuses(await signTransfer(account, 0, { gas: 16_777_217n }), /EIP-7825/);
  refuses(await signTransfer(account, 0, { gas: 20_999n }), /intrinsic gas too low: got 20999, needs 21000/);
  refuses(await signTransfer(account, 0, { to: undefined, data: toHex(new Uint8Array(64)), gas: 53_000n }), /intrinsic gas/);
  refuses(serializeTransaction({ chainId: CHAIN, type: 'eip1559', gas: 60_000n }), /not signed/);
  const authorization = await account.signAuthorization({ chainId: CHAIN, contractAddress: account.address, nonce: 0 });
  refuses(
    await signTransfer(account, 0, { type: 'eip7702', authorizationList: [authorization], gas: 100_000n }),
    /type not supported: eip7702/,
  );
  const unprotected = {
    type: 'legacy',
    chainId: undefined,
    maxFeePerGas: undefined,
    maxPriorityFeePerGas: undefined,
    gasPrice: 10n ** 10n,
  };
  refuses(await signTransfer(account, 0, unprotected), /invalid chain id: got none/);
});

test('a signature with the other s is refused, so that a transaction has one hash', async () => {
  const raw = await signTransfer(account, 0);
  const { r, s, yParity, ...rest } = parseTransaction(raw as `0x02${string}`) as unknown as { r: Hex; s: Hex; yParity: number };
  const twin = serializeTransaction({ ...rest, type: 'eip1559', chainId: CHAIN } as Parameters<typeof serializeTransaction>[0], {
    r,
    s: toHex(CURVE_ORDER - BigInt(s), { size: 32 }),
    yParity: yParity === 0 ? 1 : 0,
  });
  assert.throws(() => decodeSignedTransaction(twin, CHAIN, BLOCK_GAS), { code: 'bad-transaction', message: /upper half/ });
});
