import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import secp256k1 from 'secp256k1';
import { publicKeyToAddress } from 'viem/accounts';
import { contentDigest, createReplayGuard, signRequest, verifyRequest } from './index.ts';

const key = Buffer.from('ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80', 'hex');
const hex = (bytes: Uint8Array) => `0x${Buffer.from(bytes).toString('hex')}` as const;
const bytesOf = (text: string) => Buffer.from(text.slice(2), 'hex');
const signer = {
  address: publicKeyToAddress(hex(secp256k1.publicKeyCreate(key, false))),
  async signDigest(digest: `0x${string}`) {
    const { signature, recid } = secp256k1.ecdsaSign(bytesOf(digest), key);
    return hex(Buffer.concat([signature, Buffer.from([27 + recid])]));
  },
};
const recover = (digest: `0x${string}`, signature: `0x${string}`) => {
  const bytes = bytesOf(signature);
  return publicKeyToAddress(hex(secp256k1.ecdsaRecover(bytes.subarray(0, 64), (bytes[64] as number) - 27, bytesOf(digest), false)));
};
const request = {
  method: 'PUT',
  url: 'https://127.0.0.1:9000/v1/storage/pieces/7?offset=3',
  headers: { 'content-digest': contentDigest('body') },
};
const signed = async () => ({
  ...request,
  headers: { ...request.headers, ...(await signRequest(request, signer, { covered: ['content-digest'], nowSeconds: 1000 })) },
});
const verify = (message: typeof request, guard = createReplayGuard(() => 1000), nowSeconds = 1000) =>
  verifyRequest(message, { recover, guard }, { required: ['content-digest'], nowSeconds });

test('a signed request names its signer', async () => {
  assert.equal(verify(await signed()).address, signer.address.toLowerCase());
});

test('a signature is good once, for two minutes, and for nothing but what it covers', async () => {
  const message = await signed();
  const guard = createReplayGuard(() => 1000);
  verify(message, guard);
  assert.throws(() => verify(message, guard), { code: 'signature-replayed' });
  assert.throws(() => verify(message, undefined, 2000), { code: 'signature-expired' });
  assert.throws(() => verify(message, undefined, 100), { code: 'signature-expired' });
  assert.throws(() => verify({ ...message, method: 'DELETE' }), { code: 'signature-wrong' });
  assert.throws(() => verify({ ...message, url: message.url.replace('9000', '9001') }), { code: 'signature-wrong' });
  assert.throws(() => verify({ ...message, url: message.url.replace('offset=3', 'offset=4') }), { code: 'signature-wrong' });
  assert.throws(() => verify({ ...message, headers: { ...message.headers, 'content-digest': contentDigest('other') } }), {
    code: 'signature-wrong',
  });
  assert.throws(() => verify(request), { code: 'signature-missing' });
});

test('a signature that does not cover what the route requires is refused', async () => {
  const headers = { ...request.headers, ...(await signRequest(request, signer, { nowSeconds: 1000 })) };
  assert.throws(() => verify({ ...request, headers }), { code: 'signature-malformed' });
});

test('no mangled header is ever accepted, and every refusal is typed', async () => {
  const message = await signed();
  fc.assert(
    fc.property(
      fc.constantFrom('signature', 'signature-input'),
      fc.nat(400),
      fc.string({ minLength: 1, maxLength: 4 }),
      (name, position, text) => {
        const value = (message.headers as Record<string, string>)[name] as string;
        const at = position % value.length;
        const mangled = value.slice(0, at) + text + value.slice(at + 1);
        if (mangled === value) return;
        assert.throws(
          () => verify({ ...message, headers: { ...message.headers, [name]: mangled } }),
          (error: { code?: string }) => error.code?.startsWith('signature-') === true,
        );
      },
    ),
    { numRuns: 300, examples: [['signature', 93, '/']] },
  );
});

test('the replay guard refuses new nonces when it is full rather than forget live ones', () => {
  let now = 0;
  const guard = createReplayGuard(() => now);
  for (let index = 0; index < 100_000; index += 1) assert.ok(guard.takeOnce('0xa', `n${index}`, 10));
  assert.equal(guard.takeOnce('0xa', 'one-more', 10), false);
  now = 11;
  assert.ok(guard.takeOnce('0xa', 'one-more', 20));
});
