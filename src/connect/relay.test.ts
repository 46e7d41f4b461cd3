import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { after, before, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { developmentSigner, recoverAddress } from '../chain/index.ts';
import type { MillraceError } from '../errors.ts';
import { openTransportIdentity, peerFetch, signRequest, startPeerServer } from './index.ts';
import { type RelayWorld, relayWorld, TEST_NETWORK, type TestHome } from './relay-fixture.ts';
import { relayHeader, toRelayJson } from './relay-messages.ts';
import { TUNNEL_NAME } from './relay-name.ts';

const MARKER = 'no relay shall read this sentence';
let world: RelayWorld;
let home: TestHome;
let served = 0;
const signer = (operatorId: bigint) => developmentSigner(Number(operatorId), 'dev');
const home2 = () => home.identity.transportKey;

before(async () => {
  world = relayWorld({ signer, recover: recoverAddress });
  home = await world.startNode(2n, async (request) => {
    served += 1;
    const path = new URL(request.url).pathname;
    if (path === '/echo') return new Response(request.body);
    return new Response(`hello from behind at ${new URL(request.url).host}: ${MARKER}`);
  });
});
after(() => world.stop());

/** A wire in front of a server that keeps what passes, each way. */
async function tap(port: number): Promise<{ port: number; toServer: Buffer[]; toClient: Buffer[]; close(): void }> {
  const toServer: Buffer[] = [];
  const toClient: Buffer[] = [];
  const wire = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1');
    client.on('data', (bytes: Buffer) => toServer.push(bytes) > 0 && server.write(bytes));
    server.on('data', (bytes: Buffer) => toClient.push(bytes) > 0 && client.write(bytes));
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.on('close', () => to.destroy());
      from.on('error', () => to.destroy());
    }
  });
  wire.listen(0, '127.0.0.1');
  await once(wire, 'listening');
  return { port: (wire.address() as net.AddressInfo).port, toServer, toClient, close: () => void wire.close() };
}

test('a node without a port is reached through a relay, at a host name of its own, with its own key', async () => {
  const { relay, peer } = await world.startRelay(1n);
  const tunnel = await home.open(peer);
  const { endpoint } = tunnel;
  assert.match(endpoint, /^https:\/\/mr-[0-9a-f]{40}\.127-0-0-1\.ip4\.alt:\d+$/);
  const at = { endpoint, transportKey: home2() };
  assert.match(await (await peerFetch(at, '/')).text(), new RegExp(`^hello from behind at ${new URL(endpoint).host}`));
  const bytes = randomBytes(9 << 20);
  const answer = await peerFetch(at, '/echo', { method: 'POST', body: bytes });
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes);
  assert.equal(await (await peerFetch(peer, '/')).text(), 'the relay itself');
  await assert.rejects(peerFetch({ ...at, transportKey: peer.transportKey }, '/'), { code: 'peer-key-mismatch' });
  assert.ok(relay.bytesCarried() > 18n << 20n);
  tunnel.close('test');
  await tunnel.closed;
  await assert.rejects(peerFetch(at, '/', { headers: { connection: 'close' } }), { code: 'peer-unreachable' });
});

test('curl, which knows nothing of relays, gets through with the node’s key pinned, and not with another', async () => {
  const { peer, server } = await world.startRelay(3n);
  const { endpoint } = await home.open(peer);
  const pin = (key: string) => `sha256//${Buffer.from(key.slice(2), 'hex').toString('base64')}`;
  const { hostname } = new URL(endpoint);
  const curl = (key: string) =>
    promisify(execFile)('curl', ['-sSk', '--pinnedpubkey', pin(key), '--resolve', `${hostname}:${server.port}:127.0.0.1`, `${endpoint}/`]);
  assert.match((await curl(home2())).stdout, /hello from behind/);
  await assert.rejects(curl(peer.transportKey), /pinned/i);
});

test('a relay that reads sees TLS only: what the client says and what the node answers is not on its wire, as it is in plain HTTP', async () => {
  const { peer, server } = await world.startRelay(4n);
  const tunnel = await home.open(peer);
  const wire = await tap(server.port);
  const at = { endpoint: tunnel.endpoint.replace(/:\d+$/, `:${wire.port}`), transportKey: home2() };
  const sent = await peerFetch(at, '/echo', { method: 'POST', body: MARKER, headers: { connection: 'close' } });
  assert.equal(await sent.text(), MARKER);
  const seen = Buffer.concat([...wire.toServer, ...wire.toClient]);
  assert.ok(seen.length > 1000);
  assert.equal(seen.includes(MARKER), false);
  assert.equal(seen.includes('/echo'), false);
  wire.close();

  const control = await tap(home.server.port);
  await (await fetch(`http://127.0.0.1:${control.port}/`)).text();
  assert.equal(Buffer.concat(control.toClient).includes(MARKER), true);
  control.close();

  const servedBefore = served;
  const replay = net.connect(server.port, '127.0.0.1');
  replay.on('error', () => {}).resume();
  for (const bytes of wire.toServer) replay.write(bytes);
  await once(replay, 'close');
  assert.equal(served, servedBefore, 'captured bytes, sent again, are no request');
  await peerFetch({ endpoint: tunnel.endpoint, transportKey: home2() }, '/');
  assert.equal(served, servedBefore + 1);
});

test('a relay that ends TLS itself is found out before anything is said to it', async () => {
  const identity = await openTransportIdentity(world.folder('impostor'));
  const server = await startPeerServer({ port: 0, identity, fetch: () => new Response('trust me') });
  const { endpoint } = await home.open((await world.startRelay(5n)).peer);
  const servedBefore = served;
  const at = endpoint.replace(/:\d+$/, `:${server.port}`);
  await assert.rejects(peerFetch({ endpoint: at, transportKey: home2() }, '/'), { code: 'peer-key-mismatch' });
  assert.equal(served, servedBefore);
  await server.stop(0);
});

test('a request for a tunnel is good once, at one relay, for operators only', async () => {
  const { peer } = await world.startRelay(6n);
  const { peer: other } = await world.startRelay(7n);
  const post = async (at: typeof peer, headers: Record<string, string>) => {
    const response = await peerFetch(at, '/v1/relay/tunnels', { method: 'POST', headers });
    return ((await response.json()) as { code?: string }).code;
  };
  const sign = async (from: bigint, header = relayHeader(TEST_NETWORK, 6n, 'tunnel')) => {
    const headers = { 'millrace-relay': header, 'content-length': '0' };
    const url = `${peer.endpoint}/v1/relay/tunnels`;
    return { ...headers, ...(await signRequest({ method: 'POST', url, headers }, signer(from), { covered: ['millrace-relay'] })) };
  };
  const signed = await sign(2n);
  assert.equal(await post(peer, signed), undefined);
  assert.equal(await post(peer, signed), 'signature-replayed');
  assert.equal(await post(other, { ...(await sign(2n)), host: new URL(peer.endpoint).host }), 'relay-request-foreign');
  assert.equal(await post(peer, await sign(2n, relayHeader({ ...TEST_NETWORK, chainId: 1 }, 6n, 'tunnel'))), 'relay-request-foreign');
  assert.equal(await post(peer, await sign(2n, relayHeader(TEST_NETWORK, 6n, 'probe'))), 'relay-request-foreign');
  assert.equal(await post(peer, await sign(19n)), 'relay-unknown-operator');
  assert.equal(await post(peer, {}), 'signature-missing');
});

test('a relay has room for so many nodes; a node that comes again takes its own place', async () => {
  const { peer, relay } = await world.startRelay(8n, { tunnelsMax: 1 });
  const first = await home.open(peer);
  const again = await home.open(peer);
  assert.match(await first.closed, /closed/);
  assert.equal(relay.tunnels().length, 1);
  const stranger = await world.startNode(9n, () => new Response('x'));
  await assert.rejects(
    stranger.open(peer),
    (error: MillraceError) => error.code === 'relay-refused' && error.values.reason === 'relay-full',
  );
  again.close('test');
});

/** A relay that grants a tunnel and then says what the test wants. */
async function lyingRelay(claims: bigint[]): Promise<{ peer: Parameters<TestHome['open']>[0]; answers: unknown[]; close(): void }> {
  const identity = await openTransportIdentity(world.folder('liar'));
  const answers: unknown[] = [];
  const word = `0x${'11'.repeat(32)}`;
  const door = tls.createServer({ key: identity.keyPem, cert: identity.certificatePem }, async (socket) => {
    const session = http2.connect('https://node', { createConnection: () => socket });
    session.on('error', () => {});
    for (const bytesCarried of claims) {
      const stream = session.request({ ':method': 'POST', ':path': '/account' });
      stream.on('error', () => {});
      stream.end(toRelayJson({ bytesCarried }));
      let text = '';
      stream.on('data', (chunk) => {
        text += chunk;
      });
      await once(stream, 'close').catch(() => {});
      if (text !== '') answers.push(JSON.parse(text));
    }
  });
  const server = await startPeerServer({
    port: 0,
    identity,
    door: { take: (name, connection) => name === TUNNEL_NAME && door.emit('connection', connection) },
    fetch: () => Response.json({ ticket: word, session: word }),
  });
  const terms = { operatorId: 90n, pricePerGib: 0n, chunkBytes: 1 << 20, streamsMax: 8, bytesPerSecond: 1, tunnelsMax: 1 };
  const announcement = { ...terms, tunnelsFree: 1, expiry: 0, signature: '0x' as const };
  const peer = { operatorId: 90n, endpoint: `https://localhost:${server.port}`, transportKey: identity.transportKey, announcement };
  return { peer, answers, close: () => void server.stop(0) };
}

test('a relay that lies about bytes gets a receipt for what the node counted, and loses the node when the lie is greater than a chunk', async () => {
  const small = await lyingRelay([0n, 100_000n]);
  const tunnel = await home.open(small.peer);
  while (small.answers.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(
    small.answers.map((answer) => (answer as { bytesCarried: string }).bytesCarried),
    ['0', '0'],
  );
  tunnel.close('test');
  small.close();
  const great = await lyingRelay([0n, (1n << 20n) + 1n]);
  assert.equal(await (await home.open(great.peer)).closed, 'relay-overcharges');
  great.close();
});

test('a node that acknowledges nothing gets one chunk, and no byte more', async () => {
  const { peer, relay } = await world.startRelay(10n);
  let isMute = false;
  const mute = {
    ...signer(2n),
    signDigest: (digest: `0x${string}`) => (isMute ? new Promise<never>(() => {}) : signer(2n).signDigest(digest)),
  };
  const tunnel = await home.open(peer, { signer: mute });
  isMute = true;
  const at = { endpoint: tunnel.endpoint, transportKey: home2() };
  await assert.rejects(async () => (await peerFetch(at, '/echo', { method: 'POST', body: randomBytes(4 << 20) })).arrayBuffer());
  await tunnel.closed;
  assert.ok(relay.bytesCarried() <= 1n << 20n, `${relay.bytesCarried()} bytes were carried`);
  assert.ok(relay.bytesCarried() > 512n << 10n);
});

test('connections beyond the limit of a tunnel, for nobody, and garbage are closed; the others go on', async () => {
  const { peer, server } = await world.startRelay(11n, { streamsMax: 2 });
  const tunnel = await home.open(peer);
  const at = { endpoint: tunnel.endpoint, transportKey: home2() };
  const ask = (servername: string) =>
    new Promise<string>((resolve) => {
      const socket = tls.connect({ host: '127.0.0.1', port: server.port, servername, rejectUnauthorized: false }, () => {
        socket.destroy();
        resolve('accepted');
      });
      socket.on('error', (error) => resolve(error.message));
    });
  assert.match(await ask(`mr-${'0'.repeat(40)}.127-0-0-1.ip4.alt`), /unrecognized.name/i);
  const idle = net.connect(server.port, '127.0.0.1');
  const hello = tls.connect({ socket: idle, servername: new URL(at.endpoint).hostname, rejectUnauthorized: false });
  await once(hello, 'secureConnect');
  // Half of the connections is the most for one address.
  assert.notEqual(await ask(new URL(at.endpoint).hostname), 'accepted');
  hello.destroy();
  for (const bytes of [
    Buffer.from('\x16\x03\x01\x02\x00\x01garbage'),
    randomBytes(30_000),
    Buffer.concat([Buffer.from([0x16]), randomBytes(20_000)]),
  ]) {
    const socket = net
      .connect(server.port, '127.0.0.1')
      .on('error', () => {})
      .resume();
    socket.end(bytes);
    await once(socket, 'close');
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal((await peerFetch(at, '/', { headers: { connection: 'close' } })).status, 200);
});

test('what a node told a relay to look at is told truly, at its own key only', async () => {
  const { peer } = await world.startRelay(12n);
  const { askRelay } = await import('./tunnel.ts');
  const probe = (endpoint: string, from: bigint) =>
    askRelay({ relay: peer, network: TEST_NETWORK, signer: signer(from) }, 'probe', { 'millrace-endpoint': endpoint });
  assert.deepEqual(await probe(`https://127.0.0.1:${home.server.port}`, 2n), { isReached: true });
  await assert.rejects(probe('https://127.0.0.1:1', 2n), (error: MillraceError) => error.values.reason === 'relay-too-often');
  const stranger = await world.startNode(13n, () => new Response('x'));
  assert.deepEqual(await probe(`https://127.0.0.1:${home.server.port}`, 13n), { isReached: false });
  await stranger.server.stop(0);
});
