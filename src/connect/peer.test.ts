import assert from 'node:assert/strict';
import { mkdtempSync, statSync } from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTransportIdentity, type PeerServer, peerFetch, permitSlowBody, startPeerServer, type TransportIdentity } from './index.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-connect-'));
let identity: TransportIdentity;
let server: PeerServer;
let requestsSeen = 0;
/** Breaks the body of `/break` off. */
let breakOff = () => {};

before(async () => {
  identity = await openTransportIdentity(folder);
  server = await startPeerServer({
    port: 0,
    identity,
    async fetch(request) {
      requestsSeen += 1;
      const path = new URL(request.url).pathname;
      if (path === '/echo') return new Response(request.body, { headers: { 'x-method': request.method } });
      if (path === '/hang') return new Promise<Response>(() => {});
      if (path === '/break') {
        return new Response(
          new ReadableStream({
            start(controller) {
              controller.enqueue(new Uint8Array(10));
              breakOff = () => controller.error(new TypeError('disk'));
            },
          }),
          { headers: { 'content-length': '100' } },
        );
      }
      return new Response('hello');
    },
  });
});
after(() => server.stop(0));

const peer = () => ({ endpoint: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey });

test('the identity is made once, its key is private to the owner, and it reopens with the same fingerprint', async () => {
  assert.equal((await openTransportIdentity(folder)).transportKey, identity.transportKey);
  assert.equal(statSync(join(folder, 'transport.key')).mode & 0o777, 0o600);
});

test('one port answers TLS to a peer that pins the key, and plain HTTP to a foreign tool', async () => {
  assert.equal(await (await peerFetch(peer(), '/')).text(), 'hello');
  assert.equal(await (await fetch(`http://127.0.0.1:${server.port}/`)).text(), 'hello');
});

test('a body streams both ways and arrives whole', async () => {
  const chunk = new Uint8Array(65_536).fill(7);
  async function* body() {
    for (let index = 0; index < 64; index += 1) yield chunk;
  }
  const answer = await peerFetch(peer(), '/echo', { method: 'PUT', body: body() });
  assert.equal(answer.headers.get('x-method'), 'PUT');
  const bytes = new Uint8Array(await answer.arrayBuffer());
  assert.equal(bytes.length, 64 * 65_536);
  assert.ok(bytes.every((byte) => byte === 7));
});

test('a peer that shows another key is refused before anything is sent to it', async () => {
  const other = await openTransportIdentity(mkdtempSync(join(tmpdir(), 'millrace-connect-')));
  const seenBefore = requestsSeen;
  await assert.rejects(peerFetch({ ...peer(), transportKey: other.transportKey }, '/'), { code: 'peer-key-mismatch' });
  assert.equal(requestsSeen, seenBefore);
});

test('a pinned peer is never reached without TLS, and a path cannot move to another host', async () => {
  await assert.rejects(peerFetch({ ...peer(), endpoint: `http://127.0.0.1:${server.port}` }, '/'), { code: 'bad-endpoint' });
  await assert.rejects(peerFetch(peer(), 'https://127.0.0.1:1/'), { code: 'bad-endpoint' });
});

test('a kept connection that the peer has closed costs no request that may be sent twice', async () => {
  const answered = new WeakSet<object>();
  const forgetful = https.createServer({ key: identity.keyPem, cert: identity.certificatePem }, (request, response) => {
    if (answered.has(request.socket)) return request.socket.destroy(); // closed, as it seems to the second request on a connection
    answered.add(request.socket);
    response.end(request.method);
  });
  await new Promise<void>((resolve) => forgetful.listen(0, '127.0.0.1', resolve));
  const { port } = forgetful.address() as net.AddressInfo;
  const ask = async (method: string) => {
    const request = peerFetch({ endpoint: `https://127.0.0.1:${port}`, transportKey: identity.transportKey }, '/', { method });
    return (await request).text();
  };
  assert.deepEqual([await ask('GET'), await ask('PUT'), await ask('GET')], ['GET', 'PUT', 'GET']);
  await assert.rejects(ask('POST'), { code: 'peer-unreachable' });
  assert.equal(await ask('POST'), 'POST', 'on a connection of its own');
  forgetful.close();
});

test('silence, refusal and a body that breaks off are typed errors', async () => {
  await assert.rejects(peerFetch(peer(), '/hang', { headersTimeoutMs: 200 }), { code: 'peer-timeout' });
  await assert.rejects(peerFetch({ ...peer(), endpoint: 'https://127.0.0.1:1' }, '/'), { code: 'peer-unreachable' });
  const broken = await peerFetch(peer(), '/break');
  breakOff();
  await assert.rejects(broken.arrayBuffer(), { code: 'peer-unreachable' });
});

test('a taken port is refused with its number', async () => {
  await assert.rejects(startPeerServer({ port: server.port, identity, fetch: () => new Response() }), { code: 'port-in-use' });
});

test('garbage on the wire closes that connection and the server goes on', async () => {
  for (const bytes of [Buffer.from('\x16\x03\x01garbage'), Buffer.from('GET / HTTP/9.9\r\n\r\n'), Buffer.alloc(40_000, 65)]) {
    await new Promise<void>((resolve) => {
      const socket = net.connect(server.port, '127.0.0.1', () => socket.write(bytes));
      socket.on('close', () => resolve());
      socket.on('error', () => resolve());
      socket.resume();
    });
  }
  assert.equal(await (await peerFetch(peer(), '/')).text(), 'hello');
});

test('a body that drips is cut, one that comes steadily or waits for the server is not, and no address takes every connection', async () => {
  const rate = { bytes: 1000, everyMs: 400 };
  const slow = await startPeerServer({
    port: 0,
    host: '127.0.0.1',
    identity,
    connectionsMax: 8,
    bodyRate: rate,
    async fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/later') await new Promise((resolve) => setTimeout(resolve, 4 * rate.everyMs));
      if (pathname === '/slow') permitSlowBody(request);
      return new Response(`${(await request.arrayBuffer()).byteLength}`);
    },
  });
  const at = { endpoint: `https://127.0.0.1:${slow.port}`, transportKey: identity.transportKey };
  async function* steady(times: number, bytes: number) {
    for (let index = 0; index < times; index += 1) {
      yield new Uint8Array(bytes);
      await new Promise((resolve) => setTimeout(resolve, rate.everyMs / 10));
    }
  }
  await assert.rejects(peerFetch(at, '/', { method: 'PUT', body: steady(100_000, 1) }), { code: 'peer-unreachable' });
  assert.equal(await (await peerFetch(at, '/', { method: 'PUT', body: steady(40, 1000) })).text(), '40000');
  assert.equal(await (await peerFetch(at, '/slow', { method: 'PUT', body: steady(40, 1) })).text(), '40', 'its sender is known');
  assert.equal(await (await peerFetch(at, '/later', { method: 'PUT', body: new Uint8Array(1 << 20) })).text(), `${1 << 20}`);

  const held = Array.from({ length: 8 }, () => net.connect({ port: slow.port, host: '127.0.0.1', localAddress: '127.0.0.9' }));
  await Promise.race(held.map((socket) => new Promise((resolve) => socket.on('error', () => {}).once('close', resolve))));
  assert.equal(await (await fetch(`http://127.0.0.1:${slow.port}/`)).text(), '0', 'room for another address');
  for (const socket of held) socket.destroy();
  await slow.stop(0);
});
