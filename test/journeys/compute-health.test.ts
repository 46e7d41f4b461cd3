/**
 * Health figures beside faults that are put in: a link made slow by `tc`, a process that is stopped, a clock that is wrong; nodes are processes in
 * network namespaces of their own. And one machine registered as ten devices, beside
 * the same machine as one. With `--full` only; the short ones are in src/compute/health.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { benchmark, startChallengeEngine } from '../../src/compute/health/challenge-engine.ts';
import { HealthView, readDevices } from '../../src/compute/index.ts';
import { announceSeed } from '../campaign.ts';
import { type HealthNetwork, type HealthNode, missingForHealth, startHealthNetwork, until } from './compute-health-network.ts';

const FULL = process.env.MILLRACE_FULL === '1';
const skip = FULL ? (missingForHealth() ?? false) : 'minutes of real processes: `npm run journeys -- --full compute-health`';
/** So little that all nodes, which are one machine, do it in time. */
const HEALTH = { declared: { rate: 1, memoryMbs: 1 }, beatMs: 400 };
const SLOW_KBS = 200;
const SKEW_MS = 7_200_000;
/** Four to five times as fast as a clock: transfers, deadlines and heartbeats are in real time. */
const PACE = 1;
const TEN = 10;
/** A node gives the same answer for so long. */
const SNAPSHOT_KEPT_MS = 2100;

let network: HealthNetwork;
let view: HealthView;
const nodes: HealthNode[] = [];
const nodeAt = (index: number) => nodes[index] as HealthNode;

before(async () => {
  if (skip !== false) return;
  announceSeed();
  network = await startHealthNetwork();
  for (const skewMs of [0, 0, 0, SKEW_MS]) nodes.push(await network.addNode({ health: HEALTH, skewMs }));
  // The second node's link, both ways.
  for (const [command, device] of [
    [['-n', 'mrhealth-2'], 'up0'],
    [[], nodeAt(1).link],
  ] as const) {
    execFileSync('tc', [
      ...command,
      'qdisc',
      'add',
      'dev',
      device,
      'root',
      'tbf',
      'rate',
      `${SLOW_KBS * 8}kbit`,
      'burst',
      '16kb',
      'latency',
      '400ms',
    ]);
  }
  view = await HealthView.open(network.client);
  network.pace(PACE);
});

after(() => network?.stop());

/** Lets an hour end, and time stand nearly still until all but a straggler have reported it. */
async function report(hour: number): Promise<void> {
  await until(`hour ${hour} is over`, async () => view.hourAt(await network.client.now()) > hour);
  network.pace(0);
  const operators = new Set(view.occupantsAt(hour).map(({ operatorId }) => operatorId));
  await until(`hour ${hour} is reported`, async () => {
    await view.refresh();
    const missing = [...operators].filter((operatorId) => view.report(hour, operatorId, 0) === undefined);
    return missing.length === 0 || (await network.client.now()) >= view.startOf(hour + 1) + BigInt(view.rule.reportSeconds);
  });
  network.pace(PACE);
}

/** What partners said of a node's first device in an hour. */
async function saidOf(node: HealthNode, hour: number) {
  const seed = (await view.seedOf(hour)) ?? '0x';
  const device = view.occupantsAt(hour).find(({ operatorId }) => operatorId === node.operatorId);
  assert.ok(device !== undefined, `operator ${node.operatorId} has a seat in hour ${hour}`);
  const pairs = view
    .pairsOf(hour, device, seed)
    .flatMap(({ said, partner }) => (said === undefined ? [] : [{ ...said, by: partner.operatorId }]));
  return { pairs, figure: view.compute(hour, device.seat, seed) };
}

test('a link that tc slows down shows as its bandwidth, a stopped process as its downtime, a wrong clock as nothing but a wrong clock', {
  skip,
}, async () => {
  await until('all have seats', async () => {
    await view.refresh();
    return view.occupantsAt(view.hourAt(await network.client.now())).length === nodes.length;
  });
  // The third node is stopped for a part of an hour, from its beginning.
  const first = view.hourAt(await network.client.now());
  await until('the next hour begins', async () => view.hourAt(await network.client.now()) > first);
  const [stopped, beganAt] = [first + 1, performance.now()];
  nodeAt(2).process.kill('SIGSTOP');
  const third = BigInt(Math.floor(view.rule.hourSeconds / 3));
  await until('a third of the hour is over', async () => (await network.client.now()) >= view.startOf(stopped) + third);
  nodeAt(2).process.kill('SIGCONT');
  const stoppedMs = performance.now() - beganAt;
  await until('the hour is over', async () => view.hourAt(await network.client.now()) > stopped);
  const downShare = stoppedMs / (performance.now() - beganAt);
  await report(stopped);
  const hour = stopped;

  const slow = await saidOf(nodeAt(1), hour);
  assert.ok(slow.pairs.length > 0);
  // The link carries what the node says to the chain as well, so less than all of it is left for a transfer; never more.
  for (const { verdict, bandwidthKbs } of slow.pairs) {
    const isIn = verdict === 'unreachable' || (bandwidthKbs > SLOW_KBS * 0.25 && bandwidthKbs < SLOW_KBS * 1.25);
    assert.ok(isIn, `${bandwidthKbs} kB/s over a link of ${SLOW_KBS}`);
  }
  const halted = await saidOf(nodeAt(2), hour);
  assert.ok(halted.pairs.length > 0);
  for (const { upBps } of halted.pairs) {
    assert.ok(Math.abs(upBps / 10_000 - (1 - downShare)) < 0.25, `up ${upBps / 10_000} of an hour of which ${1 - downShare} was left`);
  }
  const skewed = await saidOf(nodeAt(3), hour);
  assert.ok(skewed.pairs.some(({ verdict, upBps }) => verdict === 'passed' && upBps > 5000));
  const { partnersClocks } = await nodeAt(0).status();
  const seen = partnersClocks[String(nodeAt(3).operatorId)];
  if (seen !== undefined) assert.ok(Math.abs(seen - SKEW_MS) < 2000, `the clock is seen ${seen} ms ahead`);
  const fast = await saidOf(nodeAt(0), hour);
  assert.ok(fast.pairs.every(({ by, bandwidthKbs }) => by === nodeAt(1).operatorId || bandwidthKbs > 2 * SLOW_KBS));
});

test('the command line and two nodes show the same figures', { skip }, async () => {
  network.pace(0);
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const args = [main, '--json', '--data', `${network.folder}/data`, '--network', 'test', '--rpc-url', network.chain.rpcUrl];
  const askNode = async ({ address }: HealthNode) => (await fetch(`http://${address}:9000/v1/compute/health?hours=4`)).text();
  // What became final or was reported between the first look and the last would be a difference of time, not of screens.
  await until('nothing happens between two looks', async () => {
    const before = await askNode(nodeAt(0));
    const { stdout } = await promisify(execFile)(process.execPath, [...args, 'devices', '--hours', '4']);
    const other = await askNode(nodeAt(3));
    await new Promise((resolve) => setTimeout(resolve, SNAPSHOT_KEPT_MS));
    if ((await askNode(nodeAt(0))) !== before) return false;
    const { next, ...printed } = JSON.parse(stdout);
    assert.equal(next, null);
    assert.deepEqual(printed, JSON.parse(before));
    assert.deepEqual(printed, JSON.parse(other));
    return true;
  });
  network.pace(PACE);
});

test('one machine registered as ten devices earns no more than as one', { skip }, async () => {
  const engine = startChallengeEngine();
  const able = await benchmark(engine);
  await engine.close();
  // Each of the ten is said to be the whole machine.
  const declared = { rate: able.rate * TEN, memoryMbs: able.memoryMbs * TEN };
  const ten = await network.addNode({ health: { ...HEALTH, declared }, devices: TEN });
  nodes.push(ten);
  await until('the ten have seats', async () => {
    await view.refresh();
    return view.occupantsAt(view.hourAt(await network.client.now()) + 1).length === nodes.length - 1 + TEN;
  });
  const asOne = BigInt(able.rate * view.rule.rateWeight + able.memoryMbs * view.rule.memoryWeight);
  const first = view.hourAt(await network.client.now()) + 1;
  for (const hour of [first, first + 1, first + 2]) {
    await report(hour);
    const snapshot = await readDevices(view, 4);
    const own = snapshot.devices.filter(({ operatorId }) => operatorId === ten.operatorId);
    const sum = own.reduce((total, { hours }) => total + (hours.find((one) => one.hour === hour)?.performance ?? 0n), 0n);
    assert.equal(own.length, TEN);
    assert.ok(sum <= asOne, `as ten ${sum}, as one ${asOne}`);
  }
});
