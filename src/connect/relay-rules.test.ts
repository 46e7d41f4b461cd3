import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import tls from 'node:tls';
import fc from 'fast-check';
import { readClientHello } from './client-hello.ts';
import { afterFault, choosePublished, NEW_RELAY, rankRelays } from './relay-choice.ts';
import { createRelayGate } from './relay-gate.ts';
import { lookupPeer, relayBehind, relayedEndpoint, relayLabel } from './relay-name.ts';
import type { RelayPeer } from './tunnel.ts';

const KEY = `0x${'ab'.repeat(32)}`;

/** The first bytes that Node's own TLS sends when it asks for a name. */
async function helloFor(servername: string | undefined): Promise<Buffer> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = tls.connect({
    port: (server.address() as net.AddressInfo).port,
    host: '127.0.0.1',
    servername,
    rejectUnauthorized: false,
  });
  client.on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  client.destroy();
  server.close();
  return bytes;
}

/** The same handshake message in records of so many bytes. */
function inRecords(hello: Buffer, sizeBytes: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += sizeBytes) {
    const part = message.subarray(at, at + sizeBytes);
    records.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 0xff]), part);
  }
  return Buffer.concat(records);
}

test('the name in a ClientHello is read however it is cut into reads and records; every part before the end is incomplete', async () => {
  const hello = await helloFor('mr-1.example.org');
  for (const sizeBytes of [1, 7, 100, 10_000]) {
    const bytes = inRecords(hello, sizeBytes);
    assert.deepEqual(readClientHello(bytes), { serverName: 'mr-1.example.org' });
    for (let length = 1; length < bytes.length; length += 13) assert.equal(readClientHello(bytes.subarray(0, length)), 'incomplete');
  }
  assert.deepEqual(readClientHello(await helloFor(undefined)), { serverName: undefined });
});

test('no bytes make the reader of ClientHellos fail', async () => {
  const hello = await helloFor('mr-1.example.org');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      readClientHello(Buffer.from(bytes));
      readClientHello(Buffer.concat([hello.subarray(0, 5), Buffer.from(bytes)]));
    }),
  );
  fc.assert(
    fc.property(fc.nat(hello.length - 1), fc.nat(255), (at, value) => {
      const changed = Buffer.from(hello);
      changed[at] = value;
      const read = readClientHello(changed);
      assert.ok(read === 'garbage' || read === 'incomplete' || typeof read === 'object');
    }),
  );
});

test('an endpoint at a relay leads back to the relay, by name and by address, and finds the address without the DNS', async () => {
  const at = (endpoint: string) => relayedEndpoint(endpoint, KEY);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.ipV4(),
        fc.ipV6().map((address) => `[${address}]`),
      ),
      fc.integer({ min: 1, max: 65_535 }),
      (host, port) => {
        const endpoint = new URL(`https://${host}:${port}`).origin;
        assert.equal(relayBehind(at(endpoint)), endpoint);
        assert.equal(new URL(at(endpoint)).hostname.split('.')[0], relayLabel(KEY));
      },
    ),
  );
  assert.equal(at('https://relay.example.org'), `https://${relayLabel(KEY)}.relay.example.org`);
  assert.equal(relayBehind('https://relay.example.org:9000'), undefined);
  assert.throws(() => at(at('https://192.0.2.1:9000')), { code: 'bad-endpoint' });
  assert.throws(() => at('http://192.0.2.1:9000'), { code: 'bad-endpoint' });
  const found = await new Promise((resolve) =>
    lookupPeer(new URL(at('https://192.0.2.1:9000')).hostname, {}, (_error, address, family) => resolve([address, family])),
  );
  assert.deepEqual(found, ['192.0.2.1', 4]);
});

test('whatever is asked of a gate and acknowledged, never more than a chunk is unacknowledged, and all passes in the end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 60 }), async (sizes) => {
      const gate = createRelayGate({ chunkBytes: 1000, bytesPerSecond: 1e12 });
      let passed = 0;
      const waits = sizes.map(async (size) => {
        if (!gate.admit(size)) await gate.wait(size);
        passed += size;
        assert.ok(gate.unacknowledged() <= 1000);
      });
      const total = sizes.reduce((sum, size) => sum + size, 0);
      while (passed < total) {
        assert.ok(gate.unacknowledged() <= 1000);
        gate.acknowledge(gate.carried());
        await Promise.resolve();
      }
      await Promise.all(waits);
      assert.equal(gate.carried(), BigInt(total));
    }),
  );
});

test('a gate lets no more than its bandwidth pass, and none when it is closed', async () => {
  const gate = createRelayGate({ chunkBytes: 1 << 30, bytesPerSecond: 1_000_000 });
  const startedAt = performance.now();
  let passed = 0;
  while (performance.now() - startedAt < 400) {
    if (!gate.admit(10_000)) await gate.wait(10_000);
    passed += 10_000;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  assert.ok(passed <= 1_000_000 * (seconds + 0.25) + 10_000, `${passed} bytes in ${seconds} s`);
  gate.acknowledge(0n);
  gate.close();
  assert.equal(gate.admit(1), false);
  assert.equal(await gate.wait(1), false);
});

const relay = (operatorId: bigint, changes: Partial<RelayPeer['announcement']> = {}): RelayPeer => ({
  operatorId,
  endpoint: `https://192.0.2.${operatorId}:9000`,
  transportKey: KEY,
  announcement: {
    operatorId,
    pricePerGib: 0n,
    chunkBytes: 1,
    streamsMax: 1,
    bytesPerSecond: 1,
    tunnelsMax: 1,
    tunnelsFree: 1,
    expiry: 0,
    signature: '0x',
    ...changes,
  },
});

test('relays are taken by price, then by speed and faults; full, dear and avoided ones are not', () => {
  const now = 1e12;
  const records = new Map([
    [1n, { ...NEW_RELAY, latencyMs: 50 }],
    [2n, { ...NEW_RELAY, latencyMs: 30, faults: 3, faultAt: now }],
    [3n, afterFault(NEW_RELAY, { reason: 'peer-timeout', now, random: 0 })],
  ]);
  const relays = [
    relay(2n),
    relay(1n),
    relay(3n),
    relay(4n, { tunnelsFree: 0 }),
    relay(5n, { pricePerGib: 5n }),
    relay(6n, { pricePerGib: 50n }),
  ];
  const ranked = (at: number) => rankRelays(relays, { records, now: at, pricePerGibMax: 10n }).map(({ operatorId }) => operatorId);
  assert.deepEqual(ranked(now), [1n, 2n, 5n]);
  assert.deepEqual(ranked(now + 5000), [1n, 2n, 3n, 5n]);
  assert.deepEqual(ranked(now + 10 * 86_400_000), [2n, 1n, 3n, 5n]);
});

test('each further fault keeps a relay away longer, up to an hour and a quarter; dishonesty for thirty days', () => {
  let record = NEW_RELAY;
  let before = 0;
  for (let index = 0; index < 30; index += 1) {
    record = afterFault(record, { reason: 'peer-timeout', now: 1, random: 0.5 });
    assert.ok(record.avoidUntil - 1 >= before);
    before = record.avoidUntil - 1;
  }
  assert.equal(before, 3_600_000);
  assert.equal(afterFault(NEW_RELAY, { reason: 'relay-overcharges', now: 0, random: 0.9 }).avoidUntil, 30 * 86_400_000);
});

test('a node stays where it is unless another is much faster', () => {
  const tunnels = (first: number | undefined, second: number | undefined) => [
    { endpoint: 'a', latencyMs: first },
    { endpoint: 'b', latencyMs: second },
  ];
  assert.equal(choosePublished(tunnels(200, 50), 'a')?.endpoint, 'a');
  assert.equal(choosePublished(tunnels(300, 50), 'a')?.endpoint, 'b');
  assert.equal(choosePublished(tunnels(300, 50), 'gone')?.endpoint, 'b');
  assert.equal(choosePublished(tunnels(undefined, 50), 'a')?.endpoint, 'a');
  assert.equal(choosePublished([], 'a'), undefined);
});
