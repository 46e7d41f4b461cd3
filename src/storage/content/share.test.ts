import assert from 'node:assert/strict';
import { createDecipheriv, createHmac, createPrivateKey, createPublicKey, diffieHellman, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Aes128Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { createSigner } from '../../chain/index.ts';
import { silentLogger } from '../../log.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore, type PieceStore } from '../pieces/piece-store.ts';
import type { ContentSource } from './block-fetcher.ts';
import { type BuiltContent, buildContent } from './content.ts';
import { deriveShareKey, formatShareKey, parseShareKey, type ShareKeyPair, shareKeyOfWallet, wrapFileKey } from './key-wrap.ts';
import { retrieve } from './retrieve.ts';
import { contentOfGrant, createGrant, openGrant, share } from './share.ts';

const plain = randomBytes(400_000);
let folder = '';
let store: PieceStore;
let sources: ContentSource[];
let sealed: BuiltContent;
let open: BuiltContent;
let owner: ShareKeyPair;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-share-'));
  owner = await shareKeyOfWallet(createSigner(`0x${'11'.repeat(32)}`));
  await writeFile(join(folder, 'file'), plain);
  store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1 << 30, log: silentLogger });
  sealed = await put({ recipients: [owner.publicKey] });
  open = await put({ public: true });
  const gateway = createTrustlessGateway({ store });
  sources = [{ url: 'http://holder', fetch: (url, init) => gateway(new Request(url, init)) }];
});
after(async () => {
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

async function put(options: { recipients?: Uint8Array[]; public?: boolean }): Promise<BuiltContent> {
  const built = await buildContent({
    source: { path: join(folder, 'file') },
    workFolder: join(folder, `work-${options.public}`),
    ...options,
  });
  const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize });
  await receiver.append(createReadStream(built.carPath), { offset: 0 });
  await receiver.commit();
  return built;
}

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));

test('the HPKE suite gives the vectors of RFC 9180, appendix A.1.1', async () => {
  const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes128Gcm() });
  const ekm = await suite.kem.deriveKeyPair(hex('7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234').buffer);
  const recipient = await deriveShareKey(hex('6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037'));
  assert.deepEqual(recipient.secretKey, hex('4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8'));
  assert.deepEqual(recipient.publicKey, hex('3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d'));
  const recipientPublicKey = await suite.kem.importKey('raw', recipient.publicKey.buffer as ArrayBuffer, true);
  const info = hex('4f6465206f6e2061204772656369616e2055726e').buffer;
  const sender = await suite.createSenderContext({ recipientPublicKey, info, ekm });
  assert.deepEqual(new Uint8Array(sender.enc), hex('37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431'));
  const message = hex('4265617574792069732074727574682c20747275746820626561757479').buffer;
  const sealedText = await sender.seal(message, hex('436f756e742d30').buffer);
  assert.deepEqual(
    new Uint8Array(sealedText),
    hex('f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a'),
  );
});

test('the share key of a wallet comes from the keystore alone, and is another for each wallet', async () => {
  const again = await shareKeyOfWallet(createSigner(`0x${'11'.repeat(32)}`));
  assert.deepEqual(again, owner);
  assert.notDeepEqual(await shareKeyOfWallet(createSigner(`0x${'12'.repeat(32)}`)), owner);
});

test('a wallet that signs differently each time is refused, because its files could not be opened again', async () => {
  const signer = { address: `0x${'00'.repeat(20)}` as const, signTypedData: async () => `0x${randomBytes(65).toString('hex')}` as const };
  await assert.rejects(shareKeyOfWallet(signer), { code: 'wallet-not-deterministic', actor: 'caller' });
});

test('a share key is a text that survives copying, and anything else is refused', () => {
  const text = formatShareKey(owner.publicKey);
  assert.match(text, /^z6LS/);
  assert.deepEqual(parseShareKey(` did:key:${text}\n`), owner.publicKey);
  for (const wrong of ['', 'z6LS', text.slice(0, -1), 'did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK', `0x${'11'.repeat(20)}`]) {
    assert.throws(() => parseShareKey(wrong), { code: 'bad-share-key', actor: 'caller' });
  }
});

test('keystore and CID are enough to read sealed content on a new machine', async () => {
  const keys = { shareKeys: [await shareKeyOfWallet(createSigner(`0x${'11'.repeat(32)}`))] };
  const path = join(folder, 'on-a-new-machine');
  await retrieve({ cid: sealed.cid, sources, keys, output: { path } });
  assert.deepEqual(await readFile(path), plain);
});

test('a grant lets its recipient read, and nobody else', async () => {
  const [friend, stranger] = await Promise.all([deriveShareKey(randomBytes(32)), deriveShareKey(randomBytes(32))]);
  const { grant, warning } = await share({ cid: sealed.cid, to: formatShareKey(friend.publicKey), sources, keys: { shareKeys: [owner] } });
  assert.match(warning, /cannot be taken back/);
  assert.equal(contentOfGrant(grant), sealed.cid);
  const { cid, fileKey } = await openGrant(grant, [stranger, friend]);
  const path = join(folder, 'shared');
  await retrieve({ cid, sources, keys: { fileKey }, output: { path } });
  assert.deepEqual(await readFile(path), plain);
  await assert.rejects(openGrant(grant, [stranger, owner]), { code: 'grant-not-yours', actor: 'caller' });
  await assert.rejects(share({ cid: sealed.cid, to: formatShareKey(friend.publicKey), sources, keys: { shareKeys: [stranger] } }), {
    code: 'no-key',
  });
});

test('a grant is bound to its content, and a changed one opens nothing', async () => {
  const friend = await deriveShareKey(randomBytes(32));
  const grant = await createGrant({ cid: sealed.cid, fileKey: sealed.fileKey as Uint8Array, recipient: friend.publicKey });
  const elsewhere = await createGrant({ cid: open.cid, fileKey: sealed.fileKey as Uint8Array, recipient: friend.publicKey });
  assert.notEqual(grant, elsewhere);
  for (const at of [20, 60, 120]) {
    const changed = grant.slice(0, at) + (grant[at] === 'a' ? 'b' : 'a') + grant.slice(at + 1);
    await assert.rejects(openGrant(changed, [friend]), (error: { code: string }) => ['bad-grant', 'grant-not-yours'].includes(error.code));
  }
  for (const wrong of ['', 'millrace-grant-', `millrace-grant-${'z'.repeat(2000)}`, sealed.cid])
    assert.throws(() => contentOfGrant(wrong), { code: 'bad-grant' });
});

test('public content needs no grant, and says so', async () => {
  await assert.rejects(share({ cid: open.cid, to: formatShareKey(owner.publicKey), sources, keys: {} }), {
    code: 'not-sealed',
    actor: 'caller',
  });
});

/** RFC 9180 base mode written out with node:crypto: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
function openByHand(wrapped: Uint8Array, key: ShareKeyPair, info: Uint8Array, aad: Uint8Array): Buffer {
  const bytes = (text: string) => Buffer.from(text);
  const suiteId = Buffer.concat([bytes('HPKE'), Buffer.from([0, 0x20, 0, 1, 0, 2])]);
  const kemId = Buffer.concat([bytes('KEM'), Buffer.from([0, 0x20])]);
  const hmac = (secret: Uint8Array, data: Uint8Array) => createHmac('sha256', secret).update(data).digest();
  const extract = (id: Buffer, salt: Uint8Array, label: string, ikm: Uint8Array) =>
    hmac(salt.length === 0 ? Buffer.alloc(32) : salt, Buffer.concat([bytes('HPKE-v1'), id, bytes(label), ikm]));
  const expand = (id: Buffer, secret: Uint8Array, label: string, data: Uint8Array, length: number) =>
    hmac(secret, Buffer.concat([Buffer.from([0, length]), bytes('HPKE-v1'), id, bytes(label), data, Buffer.from([1])])).subarray(0, length);
  const enc = wrapped.subarray(0, 32);
  const privateKey = createPrivateKey({
    key: Buffer.concat([hex('302e020100300506032b656e04220420'), key.secretKey]),
    format: 'der',
    type: 'pkcs8',
  });
  const publicKey = createPublicKey({ key: Buffer.concat([hex('302a300506032b656e032100'), enc]), format: 'der', type: 'spki' });
  const shared = extract(kemId, hex(''), 'eae_prk', diffieHellman({ privateKey, publicKey }));
  const sharedSecret = expand(kemId, shared, 'shared_secret', Buffer.concat([enc, key.publicKey]), 32);
  const context = Buffer.concat([
    Buffer.from([0]),
    extract(suiteId, hex(''), 'psk_id_hash', hex('')),
    extract(suiteId, hex(''), 'info_hash', info),
  ]);
  const secret = extract(suiteId, sharedSecret, 'secret', hex(''));
  const decipher = createDecipheriv(
    'aes-256-gcm',
    expand(suiteId, secret, 'key', context, 32),
    expand(suiteId, secret, 'base_nonce', context, 12),
  );
  decipher.setAAD(aad).setAuthTag(wrapped.subarray(-16));
  return Buffer.concat([decipher.update(wrapped.subarray(32, -16)), decipher.final()]);
}

test('a wrapped key opens with RFC 9180 written out by hand', async () => {
  const [key, fileKey, context] = [await deriveShareKey(randomBytes(32)), randomBytes(32), randomBytes(40)];
  const wrapped = await wrapFileKey({ fileKey, recipient: key.publicKey, context });
  assert.deepEqual(openByHand(wrapped, key, Buffer.from('Millrace file key 1'), context), fileKey);
});
