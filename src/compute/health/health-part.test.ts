import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { type Hex, stringToHex, toHex, zeroAddress } from 'viem';
import { approveMeter, depositToRails, eventArgs, railsBalance } from '../../token/index.ts';
import { startJobProvider } from '../jobs/job-provider.ts';
import { runJob } from '../jobs/run-job.ts';
import { startTestLeases, type TestLeaseNode, type TestLeases, TOKEN } from '../leases/lease-fixture.ts';
import { listDeviceOffers } from '../leases/market-offers.ts';
import type { ComputePart } from '../part.ts';
import { runtimeOf } from '../spec/job-spec.ts';
import { parseJob } from '../spec/parse-job.ts';
import type { UnmeasuredStatement } from './copy-watch.ts';
import { healthToJson, readDevices } from './device-health.ts';
import { stabilityBps } from './device-rank.ts';
import { FeeAgent } from './fee-agent.ts';
import { decodeFigure, type Statement } from './figures.ts';
import { startHealth } from './health-part.ts';
import { HealthView, type Occupant } from './health-view.ts';
import { beginHour, type DrivenHours, finishHour, jumpTo, measureHour, proposeHour, reportHour, waitUntil } from './hour-fixture.ts';
import { encodeReport } from './report-data.ts';

const POLICY = {
  prices: { native: { cpuSecond: 1n, gibSecond: 1n, job: TOKEN / 10n } },
  collateral: 0n,
  wallSecondsMax: 60,
  spareSeconds: 60,
  takesCommands: true,
  takesCanaries: false,
  jobsMax: 4,
  keepSeconds: 600,
};
/** So little that three nodes on a busy machine do it in time. */
const SETTINGS = { declared: { rate: 1, memoryMbs: 1 }, beatMs: 400, lookEveryMs: 500 };

let network: TestLeases;
let view: HealthView;
let hours: DrivenHours;
/** A final hour in which all had performance. */
let good = 0;
/** The hour of which the third node, which is gone, tells what it has copied, and whom that is about: the draw says who can be. */
let disputed = 0;
let copiedOf: ReadonlySet<bigint> = new Set();
const nodes: TestLeaseNode[] = [];
const parts: ComputePart[] = [];
const gone = new Set<bigint>();

before(async () => {
  network = await startTestLeases();
  nodes.push(...(await Promise.all([1, 2, 3].map((index) => network.startNode(index)))));
  view = await HealthView.open(network.client);
  const folderOf = (operatorId: bigint) => {
    const node = nodes.find((one) => one.operatorId === operatorId && !gone.has(operatorId));
    return node?.context.folder;
  };
  hours = { chain: network.chain, client: network.client, view, folderOf };
  for (const node of nodes) {
    await offerDevice(node);
    parts.push(await node.start((context) => startHealth(context, SETTINGS)));
  }
  await waitUntil('all have seats', async () => {
    await view.refresh();
    return view.occupantsAt(view.hourAt(await network.client.now()) + 1).length === 3;
  });
});

after(() => network.stop());

async function offerDevice({ context }: TestLeaseNode): Promise<void> {
  const now = await network.client.now();
  const offer = {
    operatorId: context.operatorId,
    from: now,
    until: now + 1_000_000n,
    interruptibleBps: 5000,
    deviceClass: stringToHex('cpu-1', { size: 32 }),
    attributes: stringToHex('attributes', { size: 32 }),
    stablePrice: 3600n,
    nativePrice: 3600n,
    collateral: 0n,
  };
  await context.sender.send({ contract: 'computeMarket', functionName: 'setOffer', args: [0n, offer] });
}

/** Reports for a node that measured nothing what another says of its partners, or said before, and that all of them passed; gives whose they are. */
async function copyReports({ operatorId, context }: TestLeaseNode, hour: number): Promise<Set<bigint>> {
  const copied = new Set<bigint>();
  await view.refresh();
  const [seed = '0x', goodSeed = '0x'] = await Promise.all([view.seedOf(hour), view.seedOf(good)]);
  const { seat } = view.occupantsAt(hour).find((one) => one.operatorId === operatorId) as Occupant;
  const statements = Array.from({ length: view.rule.rounds }, (_, round): Statement | undefined => {
    const about = view.drawnPartners(hour, seat, seed).find((one) => one.round === round)?.partner;
    const all = about === undefined ? [] : [...view.pairsOf(hour, about, seed), ...view.pairsOf(good, about, goodSeed)];
    const said = all.find((one) => one.said !== undefined && one.partner.operatorId !== operatorId)?.said;
    if (said === undefined) return undefined;
    copied.add((about as Occupant).operatorId);
    return { ...said, verdict: 'passed' };
  });
  const data = toHex(encodeReport([{ seat, statements }]));
  const report = { operatorId, hour, page: 0, data, signature: '0x' } as const;
  await context.sender.send({ contract: 'computeHealth', functionName: 'report', args: [[report]] });
  return copied;
}

/** Has a job run that does nothing, paid in the native token. @returns its id, once it is settled */
async function runSmallJob(name: string): Promise<Hex> {
  const { client, renter } = network;
  const { spec, needs } = parseJob(readFileSync(new URL('../../../examples/word-count.yaml', import.meta.url), 'utf8'));
  const program = { kind: 'command' as const, source: '' };
  const work = { program, argv: ['true'], determinism: 'none' as const, inputs: [], segments: 1, runtime: runtimeOf('command', 'none') };
  const how = { token: 'native', lowerable: true, auditors: 1, samples: 1, files: {} } as const;
  const who = { client, signer: renter.signer, sending: <T>(use: (sender: typeof renter.sender) => Promise<T>) => use(renter.sender) };
  const { jobId } = await runJob({ ...who, ...how, folder: renter.folder, name, spec: { ...spec, ...work }, needs });
  return jobId;
}

/** Has the renter reserve a device, and end and close the lease before anything of it was used. */
async function rentInVain(deviceId: bigint): Promise<bigint> {
  const { client, renter } = network;
  const amount = 100n;
  await depositToRails(client, { sender: renter.sender, token: 'compute', amount });
  await approveMeter(client, { sender: renter.sender, meter: 'computeMarket', token: 'compute', allowance: amount });
  const from = (await client.now()) + 300n;
  const terms = { deviceClass: stringToHex('cpu-1', { size: 32 }), token: client.address('computeToken'), priceMax: 3600n };
  const request = { ...terms, from, until: from + 20n, agent: zeroAddress, interruptible: false, collateralMin: 0n };
  const args = [request, [{ deviceId, hint: 0n }], 1n] as const;
  const reserved = await renter.sender.send({ contract: 'computeMarket', functionName: 'reserve', args });
  const { leaseId } = eventArgs(reserved, 'computeMarket', 'LeaseOpened');
  await renter.sender.send({ contract: 'computeMarket', functionName: 'end', args: [leaseId] });
  await renter.sender.send({ contract: 'computeMarket', functionName: 'close', args: [leaseId] });
  return leaseId;
}

/** Numbers that were counted for an operator, of leases or of sums of jobs. */
async function countedOf(operatorId: bigint, source: 'leaseFees' | 'jobFees'): Promise<bigint[]> {
  const { client } = network;
  const args = { operatorId, source: client.address(source) };
  return (await client.events({ name: 'computeRewards', event: 'FeesCounted', args })).map((counted) => counted.args.id);
}

/** Whose statements two nodes have found to be copies, by hour. */
async function copiesFound(): Promise<string[]> {
  const found = await Promise.all(
    parts.slice(0, 2).map(async (part) => ((await part.status()) as { unmeasured: UnmeasuredStatement[] }).unmeasured),
  );
  return found.map((all) => [...new Set(all.map(({ hour, operatorId }) => `${hour} ${operatorId}`))].join(', '));
}

test('three nodes measure one another, and an hour becomes final with what each has earned', async () => {
  // A machine that has much else to do may miss a deadline of two seconds; one that has not is done with the first hour.
  await waitUntil('an hour is measured in which every device has performance', async () => {
    good = await beginHour(hours);
    if (!(await measureHour(hours, good))) return false;
    await reportHour(hours, good);
    const seed = (await view.seedOf(good)) ?? '0x';
    return view.occupantsAt(good).every(({ seat }) => view.compute(good, seat, seed).performance > 0n);
  });
  await proposeHour(hours, good);
  const final = await finishHour(hours, good);
  const seed = (await view.seedOf(good)) ?? '0x';
  assert.equal(view.occupantsAt(good).length, 3);
  for (const device of view.occupantsAt(good)) {
    assert.deepEqual(decodeFigure(final.figures, device.seat), view.compute(good, device.seat, seed));
    const passed = view.pairsOf(good, device, seed).flatMap(({ said }) => (said?.verdict === 'passed' ? [said] : []));
    assert.ok(passed.length > 0);
    assert.ok(passed.every(({ latencyUs, upBps }) => latencyUs > 0 && upBps > 0 && upBps <= 10_000));
  }
});

test('what two nodes answer and what the chain says to anybody is the same', async () => {
  const ask = async ({ endpoint }: TestLeaseNode) =>
    (await fetch(`${endpoint.replace('https:', 'http:')}/v1/compute/health?hours=3`)).text();
  await waitUntil('nothing happens between the looks', async () => {
    const own = healthToJson(await readDevices(view, 3));
    const [one, other] = [await ask(nodes[0] as TestLeaseNode), await ask(nodes[1] as TestLeaseNode)];
    if (own !== healthToJson(await readDevices(view, 3))) return false;
    return own === one && own === other;
  });
});

test('who chooses a device sees the rank that everybody sees, from figures that were posted', async () => {
  const { devices } = await readDevices(view, 3);
  assert.equal(devices.length, 3);
  const offers = await listDeviceOffers(network.client);
  for (const { deviceId, rank, score, performance, recordBps } of devices) {
    const offered = offers.find((one) => one.deviceId === deviceId)?.health;
    assert.deepEqual([offered?.rank, offered?.score, offered?.performance, offered?.recordBps], [rank, score, performance, recordBps]);
    // The last posted hour was a good one; more than one that was missed before it, on a machine that had much else to do, leave no middle.
    assert.ok(recordBps > 0 && rank > 0 === performance > 0n);
    assert.equal((offered?.weight ?? 0) > 0, rank > 0);
  }
  const rule = await network.client.read('computeRewards', 'config');
  for (const streak of [0, 2, 11, 12, 13, 40]) {
    assert.equal(await network.client.read('computeRewards', 'stabilityBps', [BigInt(streak)]), stabilityBps(rule, streak));
  }
});

test('a node that is gone is found unreachable by its partners, and a proposal that says something else costs its proposer the bond', async () => {
  const { operatorId, context, stopParts } = nodes[2] as TestLeaseNode;
  await stopParts();
  gone.add(operatorId);
  const hour = await beginHour(hours);
  disputed = hour;
  const lost = view.occupantsAt(hour).find((one) => one.operatorId === operatorId) as ReturnType<HealthView['occupantsAt']>[number];
  assert.ok(await measureHour(hours, hour));
  await reportHour(hours, hour);
  // Gone, and says that it has measured: it copies what the other one reports.
  copiedOf = await copyReports(nodes[2] as TestLeaseNode, hour);
  const seed = (await view.seedOf(hour)) ?? '0x';
  const said = view.pairsOf(hour, lost, seed).flatMap((pair) => pair.said?.verdict ?? []);
  assert.ok(said.length > 0 && said.every((verdict) => verdict === 'unreachable'), `${said}`);
  assert.deepEqual(view.compute(hour, lost.seat, seed), { performance: 0n, reason: 'unreachable' });

  const [before] = await network.client.read('stakeVault', 'ownStake', [operatorId]);
  // The others' agents may be quicker: then the lie is about the next hour.
  let about = hour;
  await waitUntil('a lie is proposed', async () => {
    await jumpTo(hours, view.startOf(about + 1) + BigInt(view.rule.reportSeconds));
    const figures = stringToHex('', { size: 8 * view.seatsAt(about) });
    const lied = await context.sender.send({ contract: 'computeHealth', functionName: 'propose', args: [about, operatorId, figures] }).then(
      () => true,
      () => false,
    );
    about += 1;
    return lied;
  });
  await waitUntil('it is disputed', async () => {
    const [own] = await network.client.read('stakeVault', 'ownStake', [operatorId]);
    return own === before - BigInt(view.rule.bond);
  });
});

test('who copied what others report is found by those whom it speaks of, and nobody else is', async () => {
  const copy = `${disputed} ${(nodes[2] as TestLeaseNode).operatorId}`;
  const expected = nodes.slice(0, 2).map(({ operatorId }) => (copiedOf.has(operatorId) ? copy : ''));
  const count = (found: readonly string[]) => found.filter((each) => each !== '').length;
  await waitUntil('those of whom it speaks have looked', async () => count(await copiesFound()) >= count(expected));
  assert.deepEqual(await copiesFound(), expected);
});

test('fees of jobs and leases wait until they are worth something, whoever brings them, and while the node is away', async () => {
  const { client, renter } = network;
  const node = nodes[0] as TestLeaseNode;
  const { operatorId } = node;
  const provider = await node.start((context) => startJobProvider({ ...context, policy: POLICY, pollMs: 100 }));
  assert.ok(provider !== undefined);
  const [first, second] = [await runSmallJob('first'), await runSmallJob('second')];
  assert.equal(await client.read('jobFees', 'sumCount'), 0n, 'it is entitled to nothing yet');
  await node.stopParts();
  const device = view.occupantsAt(good).find((one) => one.operatorId === operatorId) as Occupant;
  const leaseId = await rentInVain(device.deviceId);
  // Somebody else brings one of the two, and counts it: a sum of the lease's number.
  const [opened] = await client.events({ name: 'computeJobs', event: 'JobOpened', args: { jobId: first } });
  assert.ok(opened !== undefined);
  await renter.sender.send({ contract: 'jobFees', functionName: 'sumUp', args: [[opened.args.terms]] });
  assert.equal(await client.read('jobFees', 'sumOf', [first]), leaseId);
  await renter.sender.send({ contract: 'computeRewards', functionName: 'countFees', args: [1n, [leaseId]] });
  assert.deepEqual(await countedOf(operatorId, 'leaseFees'), []);
  parts[0] = await node.start((context) => startHealth(context, SETTINGS));
  await waitUntil('the lease is counted', async () => (await countedOf(operatorId, 'leaseFees')).length === 1);
  assert.deepEqual(await countedOf(operatorId, 'leaseFees'), [leaseId]);
  assert.equal(await client.read('jobFees', 'sumOf', [second]), 0n);
});

test('what was final is claimed once the hour of its emission is over, and granted within the fees of jobs and leases', async () => {
  const { client } = network;
  const due = view.startOf(1) + 3600n * ((view.startOf(good) - view.startOf(1)) / 3600n + 1n);
  await network.chain.warp(Math.max(1, Number(due - (await client.now())) + 1));
  const operatorId = (nodes[0] as TestLeaseNode).operatorId;
  await waitUntil('an hour is claimed', async () => {
    const claimed = await client.events({ name: 'computeRewards', event: 'HourClaimed', args: { operatorId } });
    return claimed.some(({ args }) => args.hour === good && args.amount > 0n);
  });
  await waitUntil('the other job is counted', async () => (await countedOf(operatorId, 'jobFees')).length === 2);
  assert.deepEqual(await countedOf(operatorId, 'jobFees'), [1n, 2n]);
  const received = await railsBalance(client, { token: 'compute', account: client.address('buybackAuction') });
  const { shareBps } = await client.read('computeRewards', 'config');
  const account = () => client.read('computeRewards', 'accountOf', [operatorId]);
  const { burntFees, entitled } = await account();
  // Of a lease a base unit or two less may be counted than was paid.
  assert.ok(received > TOKEN / 1000n && burntFees <= received && received - burntFees <= 2n, `${burntFees} of ${received}`);
  const expected = (burntFees * BigInt(shareBps)) / 10_000n;
  assert.ok(expected < entitled);
  await waitUntil('what they allow is granted', async () => (await account()).granted === expected);
  const [twin] = nodes.slice(1) as [TestLeaseNode];
  assert.equal((await client.read('computeRewards', 'accountOf', [twin.operatorId])).granted, 0n, 'nobody paid fees for what it supplied');
});

test('who is quicker with one of two leases makes a node forget neither', async () => {
  const { renter } = network;
  const node = nodes[0] as TestLeaseNode;
  await node.stopParts();
  const device = view.occupantsAt(good).find(({ operatorId }) => operatorId === node.operatorId) as Occupant;
  const before = await countedOf(node.operatorId, 'leaseFees');
  const [first, second] = [await rentInVain(device.deviceId), await rentInVain(device.deviceId)];
  const { sender } = node.context;
  let isFirst = true;
  // Between the agent's look and its transaction.
  const overtaken = async (call: Parameters<typeof sender.send>[0]) => {
    if (isFirst) await renter.sender.send({ contract: 'computeRewards', functionName: 'countFees', args: [0n, [first]] });
    isFirst = false;
    return sender.send(call);
  };
  const agent = new FeeAgent({ ...node.context, view, sender: { ...sender, send: overtaken } as typeof sender });
  await agent.countLeases();
  assert.deepEqual(await countedOf(node.operatorId, 'leaseFees'), [...before, first]);
  await agent.countLeases();
  assert.deepEqual(await countedOf(node.operatorId, 'leaseFees'), [...before, first, second]);
});
