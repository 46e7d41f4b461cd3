import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import { FOREIGN } from '../../test/suite.ts';
import { createNetNamespace, enterNamespace } from './net-namespace.ts';
import { inspectWireguard, makeWireguardKeys, openWireguard } from './wireguard.ts';

const { kind, missing } = await inspectWireguard();
const skip = kind === undefined ? `${FOREIGN}${missing.map(({ what }) => what).join(', ')}` : false;
const tag = process.pid % 10_000;

/** Whether packets go from a namespace to an address and back. */
function isReached(from: string, address: string, patienceMs: number): boolean {
  const script = `require('node:net').connect(9, '${address}').once('error', (e) => process.exit(e.code === 'ECONNREFUSED' ? 0 : 1)); setTimeout(() => process.exit(2), ${patienceMs})`;
  const [program, ...args] = enterNamespace(from, [process.execPath, '-e', script]);
  // A refusal comes from the other end: it was reached.
  return spawnSync(program, args).status === 0;
}

test('keys are X25519 keys in the form of wg', () => {
  const { privateKey, publicKey } = makeWireguardKeys();
  const jwk = {
    kty: 'OKP',
    crv: 'X25519',
    d: Buffer.from(privateKey, 'base64').toString('base64url'),
    x: Buffer.from(publicKey, 'base64').toString('base64url'),
  };
  const derived = createPublicKey(createPrivateKey({ key: jwk, format: 'jwk' })).export({ format: 'jwk' });
  assert.equal(Buffer.from(derived.x as string, 'base64url').toString('base64'), publicKey);
  assert.equal(publicKey.length, 44);
});

test('two namespaces reach each other through WireGuard and nothing else; a peer that is taken off the list does not any more', {
  skip,
}, async () => {
  const [one, two] = [await createNetNamespace(`mrt-${tag}-1`), await createNetNamespace(`mrt-${tag}-2`)];
  const [first, second] = [makeWireguardKeys(), makeWireguardKeys()];
  const links = [
    await openWireguard({ name: `mrt${tag}a`, namespace: one, address: '10.90.0.1/16', keys: first }),
    await openWireguard({ name: `mrt${tag}b`, namespace: two, address: '10.90.0.2/16', keys: second }),
  ] as const;
  try {
    assert.ok(!isReached(one.path, '10.90.0.2', 500), 'no peers yet');
    const peerOf = (index: 0 | 1) => ({
      publicKey: [first, second][index]?.publicKey as string,
      endpoint: `127.0.0.1:${links[index].listenPort}`,
      address: `10.90.0.${index + 1}`,
    });
    await links[0].setPeers([peerOf(1)]);
    await links[1].setPeers([{ ...peerOf(0), endpoint: undefined }]);
    assert.ok(isReached(one.path, '10.90.0.2', 30_000));
    const [state] = await links[0].peers();
    assert.equal(state?.publicKey, second.publicKey);
    assert.ok((state?.handshakeAt ?? 0) > 0 && (state?.receivedBytes ?? 0) > 0);
    const routes = execFileSync('ip', ['-n', one.name, 'route'], { encoding: 'utf8' }).trim().split('\n');
    assert.equal(routes.length, 1, 'the mesh is the only route');
    assert.match(routes[0] ?? '', /^10\.90\.0\.0\/16 dev/);
    await links[1].setPeers([]);
    assert.ok(!isReached(one.path, '10.90.0.2', 500));
  } finally {
    for (const link of links) await link.close();
    for (const each of [one, two]) await each.remove();
  }
});
