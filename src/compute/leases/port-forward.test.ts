import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { FOREIGN } from '../../../test/suite.ts';
import { developmentSigner } from '../../chain/index.ts';
import { contentDigest, peerFetch } from '../../connect/index.ts';
import type { MillraceError } from '../../errors.ts';
import { ECHO, GREETER, MUTE } from '../../host/loopback.cases.ts';
import { type LeaseView, readPeer } from './lease-chain.ts';
import { STABLE, startTestLeases, TEST_DEVICE, type TestLeases, until } from './lease-fixture.ts';
import { startLeaseHost } from './lease-host.ts';
import { listDeviceOffers } from './market-offers.ts';
import { followRental, forwardPort, type PortForward } from './port-forward.ts';
import { CONNECTIONS_MAX } from './rental.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';
import { type RenterAgent, startRenterAgent } from './renter-agent.ts';
import { endLease, provideMoney, reserveDevices } from './reserve.ts';

const PORTS = { echo: 7001, mute: 7002, greeter: 7003, files: 7004, nothing: 7005 };
const SECONDS = 1_200;
const CURL = '/usr/bin/curl';
const PYTHON = '/usr/bin/python3';
const run = promisify(execFile);

let leases: TestLeases;
let agent: RenterAgent | undefined;
let reason: string | undefined;
/** Two rentals of one renter on one machine; servers run in the first, an echo at another port in the second. */
let rented: { view: LeaseView; client: RentalClient }[];
const forwards: PortForward[] = [];

before(async () => {
  leases = await startTestLeases();
  const node = await leases.startNode(0);
  const report = await node.context.executors[0]?.inspect();
  if (report?.takesForeign !== true) {
    reason = `no sandbox for strangers here: ${report?.missing.map(({ what }) => what).join('; ')}`;
    return;
  }
  const resources = { ...TEST_DEVICE.resources, memoryBytes: 128 << 20, processes: 96 };
  const devices = ['cpu-1', 'cpu-2'].map((deviceClass) => ({ ...TEST_DEVICE, name: deviceClass, deviceClass, resources }));
  await node.start((context) => startLeaseHost(context, { devices }));
  const { client, renter, log } = leases;
  await until('offers', async () => (await listDeviceOffers(client)).filter(({ document }) => document !== undefined).length === 2);
  const money = { token: client.address('stableToken'), amount: 100n * STABLE, spender: client.address('computeMarket') };
  await provideMoney({ client, sender: renter.sender, ...money });
  const withSender: Parameters<typeof startRenterAgent>[0]['withSender'] = (work) => work(renter.sender);
  agent = await startRenterAgent({ client, signer: renter.signer, withSender, folder: renter.folder, log, asksProbers: false });
  rented = [await rent('cpu-1', serverScript()), await rent('cpu-2', `exec perl -e '${ECHO}' ${PORTS.nothing}`)];
});

after(async () => {
  for (const each of forwards) await each.close();
  await agent?.stop();
  await leases?.stop();
});

const serverScript = () =>
  [
    `perl -e '${ECHO}' ${PORTS.echo} &`,
    `perl -e '${MUTE}' ${PORTS.mute} &`,
    `perl -e '${GREETER}' ${PORTS.greeter} /tmp/heard &`,
    `mkdir -p /tmp/site; echo the page > /tmp/site/page; cd /tmp/site`,
    existsSync(PYTHON) ? `${PYTHON} -u -m http.server --bind 127.0.0.1 ${PORTS.files} &` : '',
    'wait',
  ].join('\n');

async function rent(deviceClass: string, script: string): Promise<{ view: LeaseView; client: RentalClient }> {
  const { client, renter } = leases;
  const wish = { deviceClass, count: 1, seconds: SECONDS, token: 'stable', priceMax: 10n * STABLE, collateralMin: 0n } as const;
  const [view] = (await reserveDevices({ client, sender: renter.sender, wish: { ...wish, isInterruptible: false } })) as [LeaseView];
  const rental = await openRentalClient(client, { leaseId: view.leaseId, signer: renter.signer });
  await until(`rental ${view.leaseId} answers`, () => rental.probe());
  await rental.setMain({ argv: ['/bin/sh', '-c', script] });
  return { view, client: rental };
}

async function sh(text: string, { client } = rented[0] as { client: RentalClient }): Promise<string> {
  let said = '';
  const hear = (bytes: Uint8Array) => {
    said += Buffer.from(bytes).toString();
  };
  await client.exec({ argv: ['/bin/sh', '-c', text] }, { stdout: hear, stderr: hear });
  return said;
}

interface Forwarded {
  forward: PortForward;
  faults: MillraceError[];
  connect(): Promise<Socket>;
}

async function forwarded(port: number, which = 0): Promise<Forwarded> {
  const { client, renter } = leases;
  const faults: MillraceError[] = [];
  const reach = followRental(client, { leaseId: (rented[which] as (typeof rented)[0]).view.leaseId, signer: renter.signer });
  const onFault = (fault: MillraceError) => void faults.push(fault);
  const forward = await forwardPort({ port, localPort: 0, address: '127.0.0.1', reach, onFault });
  forwards.push(forward);
  return {
    forward,
    faults,
    async connect() {
      const socket = connect({ port: forward.localPort, host: '127.0.0.1', allowHalfOpen: true });
      socket.on('error', () => {});
      await once(socket, 'connect');
      return socket;
    },
  };
}

async function untilEnd(socket: Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const bytes of socket.iterator({ destroyOnReturn: false })) pieces.push(bytes as Buffer);
  return Buffer.concat(pieces);
}

/** When a client is done that ends when the other side does, or is cut. */
const closeOf = (socket: Socket) =>
  new Promise<void>((resolve) => {
    socket.once('end', () => socket.end());
    socket.once('close', () => resolve());
  });

/** Whether something behind a forward echoes: a server there may not have begun yet. */
async function echoes({ connect: open }: Forwarded): Promise<boolean> {
  const socket = await open();
  socket.end('here');
  const heard = await untilEnd(socket).catch(() => Buffer.alloc(0));
  socket.destroy();
  return heard.toString() === 'here';
}

test('what listens in a rental answers through a forward, a mebibyte both ways, and either side may end first', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const echo = await forwarded(PORTS.echo);
  await until('the echo answers', () => echoes(echo));
  const sent = randomBytes(1 << 20);
  const socket = await echo.connect();
  socket.end(sent);
  assert.deepEqual(await untilEnd(socket), sent);

  const greeter = await forwarded(PORTS.greeter);
  const open = async () => {
    const one = await greeter.connect();
    const heard = await untilEnd(one).catch(() => Buffer.alloc(0));
    return { one, heard: heard.toString() };
  };
  let greeted = await open();
  await until('the greeter greets and is done', async () => {
    if (greeted.heard === 'hello') return true;
    greeted.one.destroy();
    greeted = await open();
    return false;
  });
  greeted.one.end(sent);
  await until('it heard all of it afterwards', async () => (await sh('cat /tmp/heard')) === String(sent.length));
});

test('curl reads from python’s web server in a rental', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  if (!existsSync(CURL) || !existsSync(PYTHON)) return context.skip(`${FOREIGN}${CURL} and ${PYTHON}`);
  const { forward } = await forwarded(PORTS.files);
  const url = `http://127.0.0.1:${forward.localPort}/page`;
  const get = () =>
    run(CURL, ['-sS', '--max-time', '60', url, url]).then(
      ({ stdout }) => stdout,
      () => '',
    );
  await until('it serves the page, twice', async () => (await get()) === 'the page\nthe page\n');
});

test('where nothing listens callers get a typed error and clients a reset', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { connect: open, faults } = await forwarded(PORTS.nothing);
  const socket = await open();
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  await until('the fault is told', () => faults.length === 1);
  assert.deepEqual([faults[0]?.code, faults[0]?.actor], ['port-refused', 'caller']);
  assert.match(faults[0]?.message ?? '', /port 7005 within the sandbox: nothing listens there/);
  assert.equal(await echoes(await forwarded(PORTS.nothing, 1)), true, 'the other rental has its own port of that number');
});

test('a stranger’s key opens no port, and neither does a request without a signature or with a number that is none', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { view, client: own } = rented[0] as (typeof rented)[0];
  const { client } = leases;
  const socket = await (await forwarded(PORTS.mute)).connect();
  const stranger = await openRentalClient(client, { leaseId: view.leaseId, signer: developmentSigner(15, 'dev') });
  await assert.rejects(stranger.joinPort(PORTS.mute, socket), { code: 'not-the-renter' });
  const path = `/v1/compute/leases/${view.leaseId}/ports/${PORTS.mute}`;
  const headers = { 'content-digest': contentDigest('') };
  const unsigned = await peerFetch(await readPeer(client, view.operatorId), path, { method: 'POST', headers, body: '\n' });
  assert.equal(unsigned.status, 401);
  for (const port of [0, 65_536]) await assert.rejects(own.joinPort(port, socket), { code: 'bad-lease-call' });
  socket.resetAndDestroy();
});

test('a rental reaches neither this machine’s loopback nor another rental’s ports, also while its own are forwarded', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const service = createServer((socket) => socket.end('ESCAPED')).listen(0, '127.0.0.1');
  await once(service, 'listening');
  const { port } = service.address() as AddressInfo;
  const knock = (at: number) =>
    `perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => ${at}) ? "open" : "shut"'`;
  try {
    const mute = await forwarded(PORTS.mute);
    const held = await mute.connect();
    await until('its own server is there', async () => (await sh(knock(PORTS.mute))) === 'open');
    assert.equal(await sh(knock(port)), 'shut');
    assert.equal(await sh(knock(mute.forward.localPort)), 'shut');
    assert.equal(await sh(knock(PORTS.nothing)), 'shut');
    assert.equal(await sh(knock(PORTS.nothing), rented[1] as (typeof rented)[0]), 'open');
    const listeners = `awk '$4 == "0A" {print $2}' /proc/net/tcp /proc/net/tcp6 | wc -l`;
    assert.equal((await sh(listeners, rented[1] as (typeof rented)[0])).trim(), '1', 'nothing of the machine’s listens in there');
    held.resetAndDestroy();
  } finally {
    service.close();
  }
});

test('a rental has so many connections at one time; one that is closed makes room', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const echo = await forwarded(PORTS.echo);
  const held = new Set<Socket>();
  /** Whether one more was joined; else it was refused. */
  const hold = async () => {
    const one = await echo.connect();
    const answered = once(one, 'data').then(() => true);
    answered.catch(() => {});
    one.write('here');
    const isHeld = await Promise.race([answered, closeOf(one).then(() => false)]).catch(() => false);
    if (isHeld) held.add(one);
    return isHeld;
  };
  // Of tests before this one the machine may hold some for a while.
  await until('all places are taken, and one more is refused', async () => {
    while (await hold()) assert.ok(held.size <= CONNECTIONS_MAX);
    return held.size === CONNECTIONS_MAX;
  });
  await until('the refusal is told', () => echo.faults.length > 0);
  assert.ok(echo.faults.every(({ code }) => code === 'connections-too-many'));
  for (const socket of held) socket.destroy();
  await until('there is room again', () => echoes(echo));
});

test('a sandbox that ends cuts its connections; the forward goes on with the next one, and ends with the rental', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const echo = await forwarded(PORTS.nothing, 1);
  await until('the echo answers', () => echoes(echo));
  const socket = await echo.connect();
  const heard = once(socket, 'data');
  socket.write('before');
  assert.equal(String((await heard)[0]), 'before');
  const cut = closeOf(socket);
  await sh('kill -9 -1', rented[1] as (typeof rented)[0]);
  await cut;
  await until('the echo of the new sandbox answers', () => echoes(echo));

  const held = await echo.connect();
  const again = once(held, 'data');
  held.write('again');
  await again;
  const over = closeOf(held);
  await endLease({ sender: leases.renter.sender, leaseId: (rented[1] as (typeof rented)[0]).view.leaseId });
  await over;
  await until('it is told that the rental is over', async () => {
    (await echo.connect()).destroy();
    return echo.faults.some(({ code }) => code === 'lease-is-over');
  });
});

test('a local port that is taken is a typed error', async () => {
  const { port } = await listeningPort();
  const options = { port: 80, localPort: port, address: '127.0.0.1', reach: () => Promise.reject(new TypeError()), onFault: () => {} };
  await assert.rejects(forwardPort(options), { code: 'port-in-use', actor: 'caller' });
});

async function listeningPort(): Promise<{ port: number }> {
  const server = createServer().listen(0, '127.0.0.1').unref();
  await once(server, 'listening');
  return server.address() as AddressInfo;
}
