import assert from 'node:assert/strict';
import { test } from 'node:test';
import { computeChannelId } from '@x402/evm/batch-settlement/client';
import fc from 'fast-check';
import { type Address, type Hex, hashTypedData } from 'viem';
import { createSigner, nobleEngine, secp256k1Engine, X402_CHANNELS } from '../chain/index.ts';
import { type ChannelConfig, createVoucherCodec } from './voucher.ts';

const hexOf = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => `0x${Buffer.from(bytes).toString('hex')}` as Hex);
const amounts = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });
const configs: fc.Arbitrary<ChannelConfig> = fc.record({
  payer: hexOf(20),
  payerAuthorizer: hexOf(20),
  receiver: hexOf(20),
  receiverAuthorizer: hexOf(20),
  token: hexOf(20),
  withdrawDelay: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
  salt: hexOf(32),
});
const domainOf = (chainId: number, verifyingContract: Address) => ({
  name: 'x402 Batch Settlement',
  version: '1',
  chainId,
  verifyingContract,
});

test('a voucher’s digest is that of viem, a channel’s id that of the stock x402 package', () => {
  fc.assert(
    fc.property(configs, amounts, fc.integer({ min: 1, max: 2 ** 31 }), hexOf(20), (config, maxClaimableAmount, chainId, contract) => {
      assert.equal(createVoucherCodec(chainId, X402_CHANNELS).channelId(config), computeChannelId(config, chainId));
      const codec = createVoucherCodec(chainId, contract);
      const channelId = codec.channelId(config);
      const types = {
        Voucher: [
          { name: 'channelId', type: 'bytes32' },
          { name: 'maxClaimableAmount', type: 'uint128' },
        ],
      };
      const message = { channelId, maxClaimableAmount };
      assert.equal(codec.digest(message), hashTypedData({ domain: domainOf(chainId, contract), types, primaryType: 'Voucher', message }));
    }),
  );
});

for (const engine of [secp256k1Engine, nobleEngine]) {
  test(`a signed voucher is its signer’s, and one flipped bit makes it nobody’s (${engine.name})`, async () => {
    const codec = createVoucherCodec(31_337, X402_CHANNELS, engine);
    const foreign = [createVoucherCodec(31_338, X402_CHANNELS, engine), createVoucherCodec(31_337, `0x${'11'.repeat(20)}`, engine)];
    const keys = fc.uint8Array({ minLength: 32, maxLength: 32 }).filter((key) => engine.isPrivateKey(key));
    await fc.assert(
      fc.asyncProperty(keys, hexOf(32), amounts, fc.nat(519), async (key, channelId, maxClaimableAmount, bit) => {
        const signer = createSigner(key, engine);
        const signed = await codec.sign(signer, { channelId, maxClaimableAmount });
        assert.ok(codec.isSignedBy(signer.address, signed));
        assert.deepEqual(await codec.sign(signer, { channelId, maxClaimableAmount }), signed);
        for (const other of foreign) assert.ok(!other.isSignedBy(signer.address, signed));
        const bytes = Buffer.from(signed.signature.slice(2), 'hex');
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
        assert.ok(!codec.isSignedBy(signer.address, { ...signed, signature: `0x${bytes.toString('hex')}` }));
        assert.ok(!codec.isSignedBy(signer.address, { ...signed, maxClaimableAmount: maxClaimableAmount ^ 1n }));
        assert.ok(!codec.isSignedBy(`0x${'22'.repeat(20)}`, signed));
      }),
      { numRuns: engine.name === 'noble' ? 15 : 100 },
    );
  });
}

test('hostile vouchers are refused without throwing', () => {
  const codec = createVoucherCodec(31_337, X402_CHANNELS);
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.bigInt(), (channelId, signature, maxClaimableAmount) => {
      const voucher = { channelId: channelId as Hex, signature: signature as Hex, maxClaimableAmount };
      assert.equal(codec.isSignedBy(X402_CHANNELS, voucher), false);
    }),
  );
  const config = { payer: '0x12', withdrawDelay: 1 } as unknown as ChannelConfig;
  assert.throws(() => codec.channelId(config), { code: 'bad-channel' });
});
