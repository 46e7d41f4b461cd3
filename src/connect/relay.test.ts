import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { developmentSigner, recoverAddress } from '../chain/index.ts';
import { peerFetch } from './index.ts';
import { type RelayWorld, relayWorld, type TestHome } from './relay-fixture.ts';

let world: RelayWorld;
let home: TestHome;
let served = 0;
const signer = (operatorId: bigint) => developmentSigner(Number(operatorId), 'dev');

before(async () => {
  world = relayWorld({ signer, recover: recoverAddress });
  home = await world.startNode(2n, async (request) => {
    served += 1;
    const path = new URL(request.url).pathname;
    if (path === '/echo') return new Response(request.body);
    if (path === '/digest')
      return new Response(
        createHash('sha256')
          .update(new Uint8Array(await request.arrayBuffer()))
          .digest('hex'),
      );
    return new Response(`hello from behind at ${new URL(request.url).host}`);
  });
});
after(() => world.stop());

test('a node without a port is reached through a relay, at a host name of its own, with its own key', async () => {
  const { relay, peer } = await world.startRelay(1n);
  const tunnel = await home.open(peer);
  const { endpoint } = tunnel;
  assert.match(endpoint, /^https:\/\/mr-[0-9a-f]{40}\.127-0-0-1\.ip4\.alt:\d+$/);
  const at = { endpoint, transportKey: home.identity.transportKey };
  assert.equal(await (await peerFetch(at, '/')).text(), `hello from behind at ${new URL(endpoint).host}`);
  const bytes = randomBytes(9 << 20);
  const answer = await peerFetch(at, '/echo', { method: 'POST', body: bytes });
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes);
  assert.equal(await (await peerFetch(peer, '/')).text(), 'the relay itself');
  await assert.rejects(peerFetch({ ...at, transportKey: peer.transportKey }, '/'), { code: 'peer-key-mismatch' });
  assert.ok(relay.bytesCarried() > 18n << 20n);
  assert.ok(served >= 2);
  tunnel.close('test');
  await tunnel.closed;
});
