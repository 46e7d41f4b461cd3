/**
 * Health figures beside faults that are put in: a link made slow by `tc`, a process that is stopped, a clock that is wrong; nodes are processes in
 * network namespaces of their own. And one machine registered as ten devices, beside the same machine as one. With `--full` only; the short ones
 * are in src/compute/health.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { decodeFigure } from '../../src/compute/health/figures.ts';
import {
  beginHour,
  type DrivenHours,
  finishHour,
  measureHour,
  proposeHour,
  reportHour,
  waitUntil,
} from '../../src/compute/health/hour-fixture.ts';
import { Observations } from '../../src/compute/health/observations.ts';
import { HealthView } from '../../src/compute/index.ts';
import { announceSeed } from '../campaign.ts';
import { benchmarkOf, type HealthNetwork, type HealthNode, missingForHealth, startHealthNetwork } from './compute-health-network.ts';

const FULL = process.env.MILLRACE_FULL === '1';
const skip = FULL ? (missingForHealth() ?? false) : 'minutes of real processes: `npm run journeys -- --full compute-health`';
/** So little that all nodes, which are one machine, do it in time. Hours are jumped through, which nodes cannot foresee: they look at the chain often. */
const SMALL = { declared: { rate: 10, memoryMbs: 10 }, beatMs: 500, lookEveryMs: 1000, chainLookMs: 250 };
const SLOW_KBS = 300;
const SKEW_MS = 7_200_000;
/** Heartbeats of a partner while the process is stopped, and afterwards. */
const BEATS_STOPPED = 24;
const BEATS_AFTER = 24;
/** A heartbeat that waits for so long when the process goes on is still answered. */
const PING_TIMEOUT_MS = 4000;
const HOURS_TRIED = 6;
const TEN = 10;
const PARTNERS_DEVICES = 5;
/** Of a core, whatever else the machine has to do. */
const CORES = 0.5;
const HOURS_COMPARED = 3;
const HOURS_COMPARED_TRIED = 12;
/** What a limit of processor time lets through in a deadline beyond its share: parts of a period at both ends, and what the benchmark's best of three missed. */
const BURST = 0.1;
/** A node gives the same answer for so long. */
const SNAPSHOT_KEPT_MS = 2100;

let network: HealthNetwork;
let view: HealthView;
let hours: DrivenHours;
let nodes: HealthNode[] = [];
const nodeAt = (index: number) => nodes[index] as HealthNode;

before(() => {
  if (skip === false) announceSeed();
});

after(() => network?.stop());

async function begin(): Promise<void> {
  await network?.stop();
  nodes = [];
  network = await startHealthNetwork();
  view = await HealthView.open(network.client);
  const folderOf = (operatorId: bigint) => nodes.find((node) => node.operatorId === operatorId)?.folder;
  hours = { chain: network.chain, client: network.client, view, folderOf };
}

async function untilSeated(count: number): Promise<void> {
  await waitUntil(`${count} devices have seats`, async () => {
    await view.refresh();
    return view.occupantsAt(view.hourAt(await network.client.now()) + 1).length === count;
  });
}

/** Until a node's seats are all with what it declares of its devices together. */
async function untilDeclared({ operatorId }: HealthNode, { rate }: { rate: number }, devices: number): Promise<void> {
  await waitUntil(`${devices} devices are declared with ${rate}`, async () => {
    await view.refresh();
    const next = view.hourAt(await network.client.now()) + 1;
    const own = view.occupantsAt(next).filter((one) => one.operatorId === operatorId);
    return own.length === devices && own.every((one) => one.rate === Math.floor(rate / devices));
  });
}

/** Both ways. */
function slowDown(index: number): void {
  for (const [command, device] of [
    [['-n', `mrhealth-${index + 1}`], 'up0'],
    [[], nodeAt(index).link],
  ] as const) {
    const shape = ['rate', `${SLOW_KBS * 8}kbit`, 'burst', '16kb', 'latency', '400ms'];
    execFileSync('tc', [...command, 'qdisc', 'add', 'dev', device, 'root', 'tbf', ...shape]);
  }
}

/** Heartbeats that one node has seen the end of in an hour, of another. */
function beatsOf(observer: HealthNode, of: HealthNode, hour: number): number {
  const all = new Observations(join(observer.folder, 'observations')).of(hour);
  return new Set(all.filter(({ ping, operatorId }) => ping !== undefined && operatorId === String(of.operatorId)).map(({ at }) => at)).size;
}

/** What partners said of a node's first device in an hour, and its figure. */
async function saidOf(node: HealthNode, hour: number) {
  const seed = (await view.seedOf(hour)) ?? '0x';
  const device = view.occupantsAt(hour).find(({ operatorId }) => operatorId === node.operatorId);
  assert.ok(device !== undefined, `operator ${node.operatorId} has a seat in hour ${hour}`);
  const pairs = view
    .pairsOf(hour, device, seed)
    .flatMap(({ said, partner }) => (said === undefined ? [] : [{ ...said, by: partner.operatorId }]));
  return { pairs, seat: device.seat, figure: view.compute(hour, device.seat, seed) };
}

/** An hour that begins with a stopped process: gives the share of its time in which the process ran. */
async function hourWithStop(stopped: HealthNode, observer: HealthNode, other: HealthNode) {
  const hour = await beginHour(hours);
  const beganAt = performance.now();
  const beats = () => beatsOf(observer, other, hour);
  stopped.process.kill('SIGSTOP');
  await waitUntil('heartbeats find nobody', () => beats() >= BEATS_STOPPED);
  stopped.process.kill('SIGCONT');
  const stoppedMs = performance.now() - beganAt;
  await waitUntil('heartbeats find the process again', () => beats() >= BEATS_STOPPED + BEATS_AFTER);
  const isMeasured = await measureHour(hours, hour);
  const hourMs = performance.now() - beganAt;
  await reportHour(hours, hour);
  return { hour, isMeasured, ranShare: 1 - stoppedMs / hourMs, unsureShare: PING_TIMEOUT_MS / hourMs };
}

/** What an hour tells of each fault; one that is not told there is false. What no load of the machine can do is asserted. */
async function tellHour({ hour, ranShare, unsureShare }: Awaited<ReturnType<typeof hourWithStop>>) {
  const [fast, slow, halted, skewed] = (await Promise.all(nodes.map((node) => saidOf(node, hour)))) as [Said, Said, Said, Said];
  for (const { bandwidthKbs } of slow.pairs) assert.ok(bandwidthKbs < SLOW_KBS * 1.25, `${bandwidthKbs} kB/s over a link of ${SLOW_KBS}`);
  for (const { upBps } of halted.pairs) assert.ok(upBps / 10_000 < ranShare + unsureShare + 0.1, `up ${upBps} bps, ran ${ranShare}`);
  const up = (pairs: Said['pairs']) => pairs.map(({ upBps }) => upBps / 10_000);
  const tells = {
    // The link carries what the node says to the chain as well, so less than all of it is left for a transfer.
    slowLink: slow.pairs.length > 0 && slow.pairs.every(({ bandwidthKbs }) => bandwidthKbs > SLOW_KBS * 0.2),
    fastLink: fast.pairs.some(({ by, bandwidthKbs }) => by !== nodeAt(1).operatorId && bandwidthKbs > 2 * SLOW_KBS),
    downtime: halted.pairs.length > 0 && up(halted.pairs).every((share) => share > ranShare - 0.15),
    noDowntime: [fast, skewed].every(({ pairs }) => up(pairs).some((share) => share > ranShare + unsureShare)),
    challenges: [fast, halted, skewed].every(({ pairs }) => pairs.some(({ verdict }) => verdict === 'passed')),
    // Of two statements the worse counts: who was drawn with the slow link and one other has its bandwidth.
    figures: [slow, halted].every(({ figure }) => figure.performance < max(fast.figure.performance, skewed.figure.performance)),
  };
  const missing = Object.entries(tells).flatMap(([what, isTold]) => (isTold ? [] : [what]));
  return { missing, said: { ranShare, fast, slow, halted, skewed } };
}

const max = (one: bigint, other: bigint) => (one > other ? one : other);

type Said = Awaited<ReturnType<typeof saidOf>>;

test('a link that tc slows down shows as its bandwidth, a stopped process as its downtime, a wrong clock as nothing but a wrong clock', {
  skip,
}, async (context) => {
  await begin();
  for (const skewMs of [0, 0, 0, SKEW_MS]) nodes.push(await network.addNode({ health: SMALL, skewMs }));
  slowDown(1);
  await untilSeated(nodes.length);
  // A machine that has much else to do measures less than there is, or answers late: then the next hour tells.
  let told: Awaited<ReturnType<typeof tellHour>> | undefined;
  let hour = 0;
  for (let tried = 1; told?.missing.length !== 0; tried += 1) {
    assert.ok(tried <= HOURS_TRIED, `${HOURS_TRIED} hours do not tell it`);
    const measured = await hourWithStop(nodeAt(2), nodeAt(0), nodeAt(3));
    hour = measured.hour;
    told = await tellHour(measured);
    const shown = JSON.stringify(told.said, (_, value) => (typeof value === 'bigint' ? Number(value) : value));
    context.diagnostic(`hour ${hour}${told.missing.length === 0 ? '' : ` does not tell ${told.missing.join(', ')}`}: ${shown}`);
  }
  await proposeHour(hours, hour);
  const { figures } = await finishHour(hours, hour);
  for (const node of nodes) {
    const { seat, figure } = await saidOf(node, hour);
    assert.deepEqual(decodeFigure(figures, seat), figure);
  }
  await waitUntil('the wrong clock is seen', async () => {
    const skewMs = (await nodeAt(0).status()).partnersClocks[String(nodeAt(3).operatorId)];
    return skewMs !== undefined && Math.abs(skewMs - SKEW_MS) < 2000;
  });
});

test('the command line, its offers and two nodes show the same figures and ranks', { skip }, async () => {
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const args = [main, '--json', '--data', `${network.folder}/data`, '--network', 'test', '--rpc-url', network.chain.rpcUrl];
  const run = async (...command: string[]) => JSON.parse((await promisify(execFile)(process.execPath, [...args, ...command])).stdout);
  const askNode = async ({ address }: HealthNode) => (await fetch(`http://${address}:9000/v1/compute/health?hours=4`)).text();
  // What became final or was reported between the first look and the last would be a difference of time, not of screens.
  await waitUntil('nothing happens between two looks', async () => {
    const first = await askNode(nodeAt(0));
    const { next, ...printed } = await run('devices', '--hours', '4');
    const offers = await run('offers');
    const status = await run('node', 'status', String(nodeAt(0).operatorId));
    const other = await askNode(nodeAt(3));
    await new Promise((resolve) => setTimeout(resolve, SNAPSHOT_KEPT_MS));
    if ((await askNode(nodeAt(0))) !== first) return false;
    assert.equal(next, null);
    assert.deepEqual(printed, JSON.parse(first));
    assert.deepEqual(printed, JSON.parse(other));
    assert.equal(status.agrees, true);
    const ranksOf = (all: { deviceId: string; rank: number; score: string }[]) =>
      Object.fromEntries(all.map(({ deviceId, rank, score }) => [deviceId, `${rank} ${score}`]));
    assert.deepEqual(ranksOf(offers.items.map(({ health }: { health: never }) => health)), ranksOf(printed.devices));
    assert.equal(printed.devices.length, nodes.length);
    return true;
  });
});

test('one machine registered as ten devices earns no more than as one', { skip }, async (context) => {
  await begin();
  for (let partner = 0; partner < 2; partner += 1) nodes.push(await network.addNode({ health: SMALL, devices: PARTNERS_DEVICES }));
  const able = await benchmarkOf(CORES);
  const whole = BigInt(able.rate * view.rule.rateWeight + able.memoryMbs * view.rule.memoryWeight);
  const machine = await network.addNode({ health: { ...SMALL, declared: able }, cores: CORES });
  nodes.push(machine);
  const earnedIn = async (as: string) => {
    const hour = await beginHour(hours);
    await measureHour(hours, hour);
    await reportHour(hours, hour);
    const seed = (await view.seedOf(hour)) ?? '0x';
    const own = view.occupantsAt(hour).filter(({ operatorId }) => operatorId === machine.operatorId);
    const figures = own.map(({ seat }) => view.compute(hour, seat, seed));
    const said = own.map((device) => view.pairsOf(hour, device, seed).flatMap((pair) => pair.said?.doneBps ?? []));
    const shown = figures.map(({ performance, reason }, at) => `${performance > 0n ? performance : reason} (${said[at]})`).join(', ');
    const sum = figures.reduce((total, { performance }) => total + performance, 0n);
    context.diagnostic(`${as}: ${sum} of ${whole}, from ${own.length} with ${shown}`);
    return { devices: own.length, sum, isMeasured: said.every((all) => all.length > 0) };
  };
  /** Hours in which partners had something to say of every device. */
  const earnedAs = async (as: string, devices: number, declared: typeof able): Promise<bigint[]> => {
    await machine.restart({ health: { ...SMALL, declared }, devices, cores: CORES });
    await untilSeated(2 * PARTNERS_DEVICES + devices);
    await untilDeclared(machine, declared, devices);
    const sums: bigint[] = [];
    for (let tried = 0; tried < HOURS_COMPARED_TRIED && sums.length < HOURS_COMPARED; tried += 1) {
      const hour = await earnedIn(as);
      assert.equal(hour.devices, devices);
      if (hour.isMeasured) sums.push(hour.sum);
    }
    assert.equal(sums.length, HOURS_COMPARED, `${as}: ${HOURS_COMPARED} hours in which every device was measured`);
    return sums;
  };
  const one = await earnedAs('as one', 1, able);
  const tenfold = { rate: able.rate * TEN, memoryMbs: able.memoryMbs * TEN };
  // Each of the ten is said to be the whole machine.
  const ten = await earnedAs('as ten', TEN, tenfold);
  context.diagnostic(`as one ${one}, as ten ${ten}, of ${whole}`);
  assert.ok(one.every((sum) => sum > 0n && sum <= whole));
  for (const sum of ten) assert.ok(Number(sum) <= Number(whole) * (1 + BURST), `as ten ${sum}, of ${whole}`);
});
