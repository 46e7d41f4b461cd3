import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type ChainClient, createSender, developmentSigner, type Signer } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import type { MillraceError } from '../../errors.ts';
import { type LeaseView, meterDigest, readLease, readPeer, readStatement, SIDES } from './lease-chain.ts';
import { STABLE, startTestLeases, TEST_DEVICE, type TestLeaseNode, type TestLeases, until } from './lease-fixture.ts';
import { startLeaseHost } from './lease-host.ts';
import { startLeaseProber } from './lease-prober.ts';
import { listDeviceOffers } from './market-offers.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';
import { groupRentals } from './rentals.ts';
import { type RenterAgent, startRenterAgent } from './renter-agent.ts';
import { endLease, extendLease, provideMoney, type RentalWish, reserveDevices } from './reserve.ts';

const SILENT_INDEX = 2;
const HOSTILE_INDEX = 15;
const SHORTEST_SECONDS = 20;
const WISH: RentalWish = { count: 1, seconds: 50, token: 'stable', priceMax: 10n * STABLE, isInterruptible: false, collateralMin: 0n };

const SMALL = { ...TEST_DEVICE.resources, cpus: 0.3 };
const FIRST_DEVICES = ['cpu-1', 'cpu-2', 'cpu-4', 'cpu-5'].map((deviceClass) => ({
  ...TEST_DEVICE,
  name: deviceClass,
  deviceClass,
  resources: SMALL,
}));

let leases: TestLeases;
let hosts: [TestLeaseNode, TestLeaseNode];
let agent: RenterAgent;
let reason: string | undefined;
const silent = developmentSigner(SILENT_INDEX, 'dev');
const hostile = developmentSigner(HOSTILE_INDEX, 'dev');

before(async () => {
  leases = await startTestLeases();
  hosts = [await leases.startNode(0), await leases.startNode(1)];
  const report = await hosts[0].context.executors[0]?.inspect();
  if (report?.takesForeign !== true) {
    reason = `no sandbox for strangers here: ${report?.missing.map(({ what }) => what).join('; ')}`;
    return;
  }
  await hosts[0].start((context) => startLeaseHost(context, { devices: FIRST_DEVICES }));
  await startSecondHost();
  for (const index of [2, 3, 4]) await (await leases.startNode(index)).start(startLeaseProber);
  await until('offers and seats', async () => {
    const offers = await listDeviceOffers(leases.client);
    return (
      offers.filter(({ document }) => document !== undefined).length === 5 && (await leases.client.read('leaseProbers', 'seatCount')) === 3n
    );
  });
  const { client, renter, log } = leases;
  const withSender: Parameters<typeof startRenterAgent>[0]['withSender'] = (work) => work(renter.sender);
  // At once for all that is rented here: rentals beside one another would each see the other's money.
  const money = { token: client.address('stableToken'), amount: 100n * STABLE, spender: client.address('computeMarket') };
  await provideMoney({ client, sender: renter.sender, ...money });
  agent = await startRenterAgent({ client, signer: renter.signer, withSender, folder: renter.folder, log, asksProbers: false });
  await tellStories();
});

after(async () => {
  await agent?.stop();
  await leases?.stop();
});

const startSecondHost = () =>
  hosts[1].start((context) => startLeaseHost(context, { devices: [{ ...TEST_DEVICE, name: 'third', deviceClass: 'cpu-3' }] }));

async function rent(deviceClass: string, change: Partial<RentalWish> = {}, sender = leases.renter.sender): Promise<LeaseView> {
  const [lease] = await reserveDevices({ client: leases.client, sender, wish: { ...WISH, deviceClass, ...change } });
  return lease as LeaseView;
}

async function reach({ leaseId }: LeaseView, signer: Signer = leases.renter.signer): Promise<RentalClient> {
  const rental = await openRentalClient(leases.client, { leaseId, signer });
  await until(`rental ${leaseId} answers`, () => rental.probe());
  return rental;
}

async function sh(rental: RentalClient, text: string, input?: string): Promise<{ code: number | undefined; said: string }> {
  let said = '';
  const hear = (bytes: Uint8Array) => {
    said += Buffer.from(bytes).toString();
  };
  const stdin = async function* () {
    if (input !== undefined) yield Buffer.from(input);
  };
  const code = await rental.exec({ argv: ['/bin/sh', '-c', text] }, { stdin: stdin(), stdout: hear, stderr: hear });
  return { code, said };
}

/** Waits until a lease is over and words of these sides are on chain. */
async function untilSpoken({ leaseId }: LeaseView, sides: readonly ('node' | 'renter' | 'probers')[]): Promise<void> {
  const { client } = leases;
  await client.waitForTime((await readLease(client, leaseId)).until);
  for (const side of sides) {
    await until(`${side} of ${leaseId}`, async () => (await readStatement(client, leaseId, side, 0)).spoken !== 0n);
  }
}

const countBits = (bits: bigint) => bits.toString(2).replaceAll('0', '').length;

async function words(client: ChainClient, leaseId: bigint) {
  const [node, renter, probers] = await Promise.all(
    (['node', 'renter', 'probers'] as const).map((side) => readStatement(client, leaseId, side, 0)),
  );
  return { node, renter, probers } as Record<'node' | 'renter' | 'probers', { spoken: bigint; up: bigint }>;
}

/** Each story is of another device and goes on beside the others, up to the time when nothing but its settlement is left. */
const stories = {
  async rental(): Promise<LeaseView> {
    const { client, renter } = leases;
    await assert.rejects(rent('cpu-1', { seconds: SHORTEST_SECONDS - 1 }), { code: 'lease-time-out-of-bounds' });
    const lease = await rent('cpu-1', { seconds: 30 });
    await assert.rejects(extendLease({ client, sender: renter.sender, lease, seconds: 1 }), { code: 'lease-time-out-of-bounds' });
    const rental = await reach(lease);
    assert.deepEqual(await sh(rental, 'echo out; cat; echo err >&2; exit 5', 'in\n'), { code: 5, said: 'out\nin\nerr\n' });
    await sh(rental, 'echo kept > /tmp/file');
    await rental.setMain({ argv: ['/bin/sh', '-c', 'echo from the command; sleep 1000'] });
    const next = await extendLease({ client, sender: renter.sender, lease: await readLease(client, lease.leaseId), seconds: 200 });
    assert.equal(groupRentals([next, lease], lease.from).length, 1);
    await refuseStrangers(lease);

    await client.waitForTime(next.from + 1n);
    const later = await reach(next);
    assert.deepEqual(await sh(later, 'cat /tmp/file'), { code: 0, said: 'kept\n' });
    let printed = '';
    for await (const bytes of later.logs({ follow: false, signal: AbortSignal.timeout(10_000) })) printed += Buffer.from(bytes).toString();
    assert.match(printed, /^from the command\n/);
    const ends = await endLease({ sender: renter.sender, leaseId: next.leaseId });
    assert.ok(ends < next.until);
    await client.waitForTime(ends);
    await until('its commands are refused', () =>
      sh(later, 'true').then(
        () => false,
        ({ code }: MillraceError) => ['lease-not-running', 'rental-cut-off', 'lease-unknown'].includes(code),
      ),
    );
    await untilSpoken(lease, ['node', 'renter']);
    return lease;
  },
  async silentRenter(): Promise<LeaseView> {
    const { client, faucet, folder, log } = leases;
    const sender = createSender({ client, signer: silent, journalFolder: `${folder}/silent`, log });
    try {
      await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [silent.address, 10n * STABLE] });
      const lease = await rent('cpu-2', { seconds: 70 }, sender);
      await untilSpoken(lease, ['node', 'probers']);
      return lease;
    } finally {
      sender.close();
    }
  },
  async deadMachine(): Promise<LeaseView> {
    const { client } = leases;
    const lease = await rent('cpu-3', { seconds: 60 });
    await reach(lease);
    await client.waitForTime(lease.from + 12n);
    await hosts[1].stopParts();
    await client.waitForTime(lease.from + 41n);
    await startSecondHost();
    assert.equal((await sh(await reach(lease), 'echo back')).said, 'back\n');
    await untilSpoken(lease, ['node', 'renter']);
    return lease;
  },
  async shortLeases(): Promise<LeaseView> {
    const { client, faucet, folder, log } = leases;
    const sender = createSender({ client, signer: hostile, journalFolder: `${folder}/hostile`, log });
    const deny = async ({ leaseId }: LeaseView) => {
      const said = { spoken: 0b11n, up: 0n };
      const signature = await hostile.signDigest(meterDigest(client, { leaseId, side: 'renter', word: 0, ...said }));
      const args = [leaseId, SIDES.renter, 0, said.spoken, said.up, signature] as const;
      await sender.send({ contract: 'computeMarket', functionName: 'state', args });
    };
    try {
      await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [hostile.address, 10n * STABLE] });
      const first = await rent('cpu-5', { seconds: SHORTEST_SECONDS }, sender);
      await untilSpoken(first, ['node']);
      await deny(first);
      const last = await rent('cpu-5', { seconds: SHORTEST_SECONDS }, sender);
      await client.waitForTime(last.until);
      await deny(last);
      await until('the node has spoken of all', async () => (await readStatement(client, last.leaseId, 'node', 0)).spoken === 0b11n);
      return last;
    } finally {
      sender.close();
    }
  },
  async interruptible(): Promise<LeaseView> {
    const lease = await rent('cpu-4', { seconds: 3600, isInterruptible: true });
    await endLease({ sender: hosts[0].context.sender, leaseId: lease.leaseId });
    await untilSpoken(lease, []);
    return lease;
  },
};

async function refuseStrangers(lease: LeaseView): Promise<void> {
  const stranger = await openRentalClient(leases.client, { leaseId: lease.leaseId, signer: silent });
  await assert.rejects(sh(stranger, 'id'), { code: 'not-the-renter' });
  assert.equal(await stranger.probe(), false);
  const unsigned = await peerFetch(await readPeer(leases.client, lease.operatorId), `/v1/compute/leases/${lease.leaseId}`);
  assert.equal(unsigned.status, 401);
}

type Told = { [Name in keyof typeof stories]?: PromiseSettledResult<LeaseView> };
let told: Told = {};

/** Tells all stories side by side, moves past the time to speak, and waits until their leases are closed. */
async function tellStories(): Promise<void> {
  const { client, chain } = leases;
  const names = Object.keys(stories) as (keyof typeof stories)[];
  const settled = await Promise.allSettled(names.map((name) => stories[name]()));
  told = Object.fromEntries(names.map((name, index) => [name, settled[index]]));
  await chain.warp((await client.read('computeMarket', 'speakSeconds')) + 1);
  for (const end of settled) {
    if (end.status === 'fulfilled') {
      await until(`lease ${end.value.leaseId} is closed`, async () => (await readLease(client, end.value.leaseId)).closed);
    }
  }
}

async function endOf(name: keyof typeof stories): Promise<LeaseView> {
  const end = told[name];
  if (end?.status !== 'fulfilled') throw end?.reason;
  return readLease(leases.client, end.value.leaseId);
}

test('a rental runs commands for its renter alone, is paid by both meters, and an extension keeps what is in it', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const closed = await endOf('rental');
  const { node, renter } = await words(leases.client, closed.leaseId);
  const rail = await leases.client.read('rails', 'rail', [closed.railId]);
  assert.ok(rail.paid > 0n);
  assert.equal(Number(rail.provenSeconds), 10 * countBits(node.up & renter.up));
});

test('where the renter is silent, drawn probers speak, and the supplier is paid for what they reached', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const closed = await endOf('silentRenter');
  const { node, renter, probers } = await words(leases.client, closed.leaseId);
  const rail = await leases.client.read('rails', 'rail', [closed.railId]);
  assert.equal(renter.spoken, 0n);
  assert.ok(rail.paid > 0n);
  assert.equal(Number(rail.provenSeconds), 10 * countBits(node.up & probers.up));
});

test('a machine that dies comes back by itself, admits the time between, and pays for it with stake', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { client, renter } = leases;
  const closed = await endOf('deadMachine');
  const said = await words(client, closed.leaseId);
  const down = said.renter.spoken & ~said.renter.up & ~said.node.up;
  assert.notEqual(down & 0b100n, 0n); // the third interval at least: it was away for all of it
  const rail = await client.read('rails', 'rail', [closed.railId]);
  assert.equal(Number(rail.provenSeconds), 10 * countBits(said.node.up & said.renter.up));
  assert.ok(rail.refunded > 0n);
  const [freed] = await client.events({ name: 'computeMarket', event: 'CollateralFreed', args: { leaseId: closed.leaseId } });
  const slashed = (closed.collateral * BigInt(10 * countBits(down)) + 59n) / 60n;
  assert.equal(freed?.args.slashed, slashed);
  assert.equal(await client.read('stakeVault', 'claimableOf', [renter.signer.address]), slashed / 2n);
});

test('a renter that takes the shortest leases and denies them finds a node that speaks in time, and risks for it a thirtieth of the stake', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { client } = leases;
  const closed = await endOf('shortLeases');
  const { node, renter } = await words(client, closed.leaseId);
  assert.deepEqual([node.spoken, renter], [0b11n, { spoken: 0b11n, up: 0n }]);
  const share = BigInt(SHORTEST_SECONDS);
  assert.equal(closed.collateral, (TEST_DEVICE.collateral * share + 599n) / 600n);
  const [freed] = await client.events({ name: 'computeMarket', event: 'CollateralFreed', args: { leaseId: closed.leaseId } });
  // None, unless this machine was too busy for its own probes.
  const admitted = BigInt(10 * countBits(node.spoken & ~node.up));
  assert.equal(freed?.args.slashed, (closed.collateral * admitted + share - 1n) / share);
});

test('a supplier ends an interruptible lease with a notice and without loss, and it was cheaper', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { client } = leases;
  const closed = await endOf('interruptible');
  const offer = await client.read('computeMarket', 'offerOf', [closed.deviceId]);
  const half = offer.stablePrice / 2n;
  assert.equal((await client.read('rails', 'rail', [closed.railId])).amount, half - (half * 25n + 9_999n) / 10_000n);
  assert.equal(closed.takenSeconds, 0);
  assert.ok(closed.until - closed.from < 3600n);
  const [freed] = await client.events({ name: 'computeMarket', event: 'CollateralFreed', args: { leaseId: closed.leaseId } });
  assert.equal(freed?.args.slashed, 0n);
});
