import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { stringToHex } from 'viem';
import { startTestLeases, type TestLeaseNode, type TestLeases, until } from '../leases/lease-fixture.ts';
import { readDevices } from './device-health.ts';
import { decodeFigure } from './figures.ts';
import { startHealth } from './health-part.ts';
import { HealthView } from './health-view.ts';

/** So little that three nodes on a busy machine do it in time. */
const DECLARED = { rate: 1, memoryMbs: 1 };
const SETTINGS = { declared: DECLARED, beatMs: 400 };
const WARP_SECONDS = 4;
const WARP_EVERY_MS = 250;

let network: TestLeases;
let view: HealthView;
let pace: NodeJS.Timeout;
/** A final hour in which all had performance. */
let good = 0;
const nodes: TestLeaseNode[] = [];

before(async () => {
  network = await startTestLeases();
  for (const index of [1, 2, 3]) nodes.push(await network.startNode(index));
  for (const node of nodes) {
    await offerDevice(node);
    await node.start((context) => startHealth(context, SETTINGS));
  }
  view = await HealthView.open(network.client);
  pace = setInterval(() => network.chain.warp(WARP_SECONDS).catch(() => {}), WARP_EVERY_MS);
});

after(async () => {
  clearInterval(pace);
  await network.stop();
});

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

/** Waits until an hour is final and gives it. */
async function finalAfter(hour: number) {
  await until(`an hour after ${hour} is final`, async () => {
    await view.refresh();
    return (view.finalHours().at(-1)?.hour ?? 0) > hour;
  });
  return view.finalHours().find((one) => one.hour > hour) as ReturnType<HealthView['finalHours']>[number];
}

test('three nodes measure one another, and an hour becomes final with what each has earned', async () => {
  await until('all have seats', async () => {
    await view.refresh();
    return view.occupantsAt(view.hourAt(await network.client.now()) + 1).length === 3;
  });
  // A machine that has much else to do may miss a deadline of two seconds; one that has not is done with the first hour.
  await until('an hour is final in which every device has performance', async () => {
    const hour = await finalAfter(good);
    good = hour.hour;
    const seed = (await view.seedOf(good)) ?? '0x';
    const devices = view.occupantsAt(good);
    for (const { seat } of devices) assert.deepEqual(decodeFigure(hour.figures, seat), view.compute(good, seat, seed));
    return devices.length === 3 && devices.every(({ seat }) => decodeFigure(hour.figures, seat).performance > 0n);
  });
  const seed = (await view.seedOf(good)) ?? '0x';
  for (const device of view.occupantsAt(good)) {
    const passed = view.pairsOf(good, device, seed).flatMap(({ said }) => (said?.verdict === 'passed' ? [said] : []));
    assert.ok(passed.length > 0);
    assert.ok(passed.every(({ latencyUs, upBps }) => latencyUs > 0 && upBps > 0 && upBps <= 10_000));
  }
});

test('what two nodes answer and what the chain says to anybody is the same', async () => {
  clearInterval(pace);
  const shown = await Promise.all(
    nodes.slice(0, 2).map(async ({ endpoint }) => {
      const address = endpoint.replace('https:', 'http:');
      return (await fetch(`${address}/v1/compute/health?hours=3`)).json() as Promise<{ hour: number; devices: unknown[] }>;
    }),
  );
  const own = JSON.parse(JSON.stringify(await readDevices(view, 3), (_, value) => (typeof value === 'bigint' ? String(value) : value)));
  assert.deepEqual(shown[0], own);
  assert.deepEqual(shown[1], own);
  assert.equal(own.devices.length, 3);
  pace = setInterval(() => network.chain.warp(WARP_SECONDS).catch(() => {}), WARP_EVERY_MS);
});

test('a node that is gone is found unreachable by its partners, and its device has no performance', async () => {
  const gone = nodes[2] as TestLeaseNode;
  await gone.stopParts();
  const hour = await finalAfter(view.hourAt(await network.client.now()));
  const device = view.occupantsAt(hour.hour).find(({ operatorId }) => operatorId === gone.operatorId);
  const seed = (await view.seedOf(hour.hour)) ?? '0x';
  const pairs = view.pairsOf(hour.hour, device as NonNullable<typeof device>, seed);
  for (const { said } of pairs) if (said !== undefined) assert.equal(said.verdict, 'unreachable');
  assert.equal(view.compute(hour.hour, device?.seat ?? 0, seed).performance, 0n);
});

test('a proposal that says what nobody reported costs its proposer the bond', async () => {
  const { context, operatorId } = nodes[2] as TestLeaseNode;
  const rule = view.rule;
  const before = await network.client.read('stakeVault', 'ownStake', [operatorId]);
  clearInterval(pace);
  // The liar comes first: the others' agents look a little later.
  await until('a lie is proposed', async () => {
    const hour = view.hourAt(await network.client.now());
    const due = view.startOf(hour + 1) + BigInt(rule.reportSeconds);
    await network.chain.warp(Number(due - (await network.client.now())) + 1);
    const figures = stringToHex('', { size: 8 * view.seatsAt(hour) });
    return context.sender.send({ contract: 'computeHealth', functionName: 'propose', args: [hour, operatorId, figures] }).then(
      () => true,
      () => false,
    );
  });
  await until('it is disputed', async () => {
    const [own] = await network.client.read('stakeVault', 'ownStake', [operatorId]);
    return own === before[0] - BigInt(rule.bond);
  });
});

test('what was final is claimed once the hour of its emission is over', async () => {
  const due = view.startOf(1) + 3600n * ((view.startOf(good) - view.startOf(1)) / 3600n + 1n);
  await network.chain.warp(Math.max(1, Number(due - (await network.client.now())) + 1));
  const operatorId = (nodes[0] as TestLeaseNode).operatorId;
  await until('an hour is claimed', async () => {
    const claimed = await network.client.events({ name: 'computeRewards', event: 'HourClaimed', args: { operatorId } });
    return claimed.some(({ args }) => args.hour === good && args.amount > 0n);
  });
  const { entitled, granted } = await network.client.read('computeRewards', 'accountOf', [operatorId]);
  assert.ok(entitled > 0n);
  assert.equal(granted, 0n, 'nobody paid fees, so nothing is granted');
});
