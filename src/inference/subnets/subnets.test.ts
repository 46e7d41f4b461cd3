import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { hexToBytes, keccak256, toHex } from 'viem';
import { claimBackerIncome, depositStake, distributeIncome, readIncome } from '../../token/index.ts';
import { fetchPulses, openLocalBeacon } from './beacon.ts';
import { decodeMetagraph, listSubnets, readMetagraph, readSubnet, readUids } from './metagraph.ts';
import {
  burnForSubnet,
  changeRules,
  claimPermit,
  closeEpochs,
  createSubnet,
  declareBeacon,
  ensurePermit,
  registerUid,
} from './subnet-actions.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from './subnet-fixture.ts';
import { DEFAULT_SUBNET_RULES } from './subnet-rules.ts';
import { decodeRow } from './weights-row.ts';

const WRAP_KEY = Buffer.alloc(32, 7);
let subnet: TestSubnet;
let first: TestOperator;
let second: TestOperator;
let miner: TestOperator;

before(async () => {
  subnet = await startTestSubnet();
  first = await subnet.join({ stake: 100n * TOKEN, backing: 50n * TOKEN });
  second = await subnet.join({ stake: 200n * TOKEN });
  miner = await subnet.join();
});

after(() => subnet.stop());

test('a subnet shows its rules, its uids and who may judge', async () => {
  const { client, subnetId } = subnet;
  const shown = await readSubnet(client, subnetId);
  assert.equal(shown.kind, 'chat');
  assert.equal(shown.tempoSeconds, 600);
  assert.deepEqual(shown.rules, DEFAULT_SUBNET_RULES);
  assert.equal(shown.uidCount, 3);
  assert.equal(shown.emissionShareMillionths, 1_000_000);
  const uids = await readUids(client, subnetId);
  assert.deepEqual(
    uids.map(({ operatorId, stake, hasPermit }) => [operatorId, stake, hasPermit]),
    [
      [first.operatorId, 150n * TOKEN, true],
      [second.operatorId, 200n * TOKEN, true],
      [miner.operatorId, 0n, false],
    ],
  );
});

test('what is refused says why, and costs nothing', async () => {
  const { client, subnetId, faucet } = subnet;
  const held = await client.read('networkToken', 'balanceOf', [faucet.address]);
  await assert.rejects(
    createSubnet(client, { sender: faucet, kind: 'chat', tempoSeconds: 600, rules: DEFAULT_SUBNET_RULES, lockMax: 1n }),
    {
      code: 'lock-above-limit',
    },
  );
  const rules = { ...DEFAULT_SUBNET_RULES, revealDelayEpochs: 4 };
  await assert.rejects(createSubnet(client, { sender: faucet, kind: 'chat', tempoSeconds: 600, rules }), { code: 'immunity-too-short' });
  await assert.rejects(createSubnet(client, { sender: faucet, kind: 'x'.repeat(33), tempoSeconds: 600, rules }), { code: 'bad-label' });
  await assert.rejects(registerUid(client, { sender: first.owner, subnetId, operatorId: first.operatorId, priceMax: 0n }), {
    code: 'already-registered',
  });
  await assert.rejects(claimPermit({ sender: miner.sender, subnetId, uid: miner.uid }), { code: 'stake-too-small' });
  await assert.rejects(changeRules({ sender: first.owner, subnetId, rules: DEFAULT_SUBNET_RULES }), { code: 'not-subnet-owner' });
  await assert.rejects(readSubnet(client, 99n), { code: 'unknown-subnet' });
  assert.equal(await client.read('networkToken', 'balanceOf', [faucet.address]), held);
});

test('an epoch: commits are sealed, opened by whoever comes first, and the row is what was said', async () => {
  const { client, subnetId, faucet, folder } = subnet;
  const beacon = openLocalBeacon({ folder, wrapKey: WRAP_KEY, genesis: 0n, periodSeconds: 3, now: () => client.now() });
  await declareBeacon({ sender: faucet, subnetId, beacon: beacon.declaration });
  assert.equal((await readSubnet(client, subnetId)).beacon.label, 'local: operator can read weights early');
  await subnet.warpToEpoch((await subnet.epoch()) + 1n);
  const epoch = await subnet.epoch();
  const [one, two] = [subnet.agentOf(first, beacon), subnet.agentOf(second)];
  await one.commit(new Map([[miner.uid, 0.1]])); // an afterthought follows
  const said = await one.commit(
    new Map([
      [miner.uid, 0.8],
      [second.uid, 0.2],
    ]),
  );
  await two.commit(new Map([[miner.uid, 1]]));
  assert.equal(said.epoch, epoch);
  assert.deepEqual((await one.tend()).opened, []); // the epoch is not over

  // The second validator is gone for ever. The first opens its own at once, and the other's with the pulse.
  await subnet.warpToEpoch(epoch + 1n);
  assert.deepEqual((await one.tend()).opened, [{ epoch, uids: [first.uid] }]);
  await subnet.warpToEpoch(epoch + 1n, 300);
  assert.deepEqual((await one.tend()).opened, [{ epoch, uids: [second.uid] }]);
  assert.deepEqual(await one.tend(), { opened: [], expired: [] });
  const revealed = await client.events({ name: 'weightsBoard', event: 'Revealed', args: { subnetId, epoch } });
  assert.deepEqual(
    revealed.map(({ args }) => decodeRow(hexToBytes(args.row))),
    [
      [
        [second.uid, 16_384],
        [miner.uid, 65_535],
      ],
      [[miner.uid, 65_535]],
    ],
  );
  const [hashes] = await client.read('weightsBoard', 'rowsOf', [subnetId, epoch, [first.uid, second.uid], [0, 0]]);
  assert.equal(hashes[0], keccak256(said.row));
});

test('a validator that was killed after its commit opens it from its disk; one that lost its disk expires', async () => {
  const { client, subnetId } = subnet;
  await subnet.warpToEpoch((await subnet.epoch()) + 1n);
  const epoch = await subnet.epoch();
  await subnet.agentOf(first).commit(new Map([[miner.uid, 1]]));
  const lost = '0x'.padEnd(66, '5') as `0x${string}`; // nobody knows what this hashes
  await second.sender.send({ contract: 'weightsBoard', functionName: 'commit', args: [subnetId, second.uid, lost, '0x00'] });
  await subnet.warpToEpoch(epoch + 1n);
  assert.deepEqual((await subnet.agentOf(first).tend()).opened, [{ epoch, uids: [first.uid] }]);
  const pulses = openLocalBeacon({ folder: subnet.folder, wrapKey: WRAP_KEY, genesis: 0n, periodSeconds: 3, now: () => client.now() });
  await subnet.warpToEpoch(epoch + 1n, 500);
  assert.deepEqual((await subnet.agentOf(first, pulses).tend()).opened, []); // garbage opens nothing and stops nobody
  await subnet.warpToEpoch(epoch + 2n);
  const { expired } = await subnet.agentOf(first, pulses).tend();
  assert.deepEqual(expired, [{ epoch, uids: [second.uid] }]);
  const events = await client.events({ name: 'weightsBoard', event: 'CommitExpired', args: { subnetId, epoch } });
  assert.equal(events.length, 1);
});

test('a permit is taken where one is free and earned, and not elsewhere', async () => {
  const { client, subnetId } = subnet;
  assert.equal(await ensurePermit(client, { sender: first.sender, subnetId, uid: first.uid }), true);
  assert.equal(await ensurePermit(client, { sender: miner.sender, subnetId, uid: miner.uid }), false);
  const late = await subnet.join();
  await depositStake(client, { sender: subnet.faucet, operatorId: late.operatorId, amount: TOKEN });
  await subnet.chain.warp(2);
  assert.equal(await ensurePermit(client, { sender: late.sender, subnetId, uid: late.uid }), true);
  await assert.rejects(ensurePermit(client, { sender: late.sender, subnetId: 99n, uid: 0 }), { code: 'unknown-subnet' });
});

test('nobody commits to nothing, nor for somebody else', async () => {
  await assert.rejects(subnet.agentOf(first).commit(new Map([[1, 0]])), { code: 'nothing-to-say' });
  await assert.rejects(subnet.agentOf(miner).commit(new Map([[1, 1]])), { code: 'no-permit' });
  await assert.rejects(subnet.agentOf({ ...first, sender: second.sender }).commit(new Map([[1, 1]])), { code: 'not-holder' });
});

test('closed epochs hold who stood where with how much, and what is due', async () => {
  const { client, subnetId, faucet } = subnet;
  const before = await subnet.epoch();
  await burnForSubnet(client, { sender: faucet, subnetId, amount: TOKEN });
  let closed = 0;
  for (let more = 1; more > 0; closed += more) more = await closeEpochs(client, { sender: faucet, subnetId });
  assert.equal(BigInt(closed), before);
  const events = await client.events({ name: 'subnets', event: 'EpochClosed', args: { subnetId } });
  const last = events.at(-1);
  assert.ok(last);
  const graph = decodeMetagraph(hexToBytes(last.args.metagraph));
  assert.deepEqual(graph, await readMetagraph(client, { subnetId, epoch: before - 1n }));
  assert.deepEqual(graph.permits, [true, true, false]);
  assert.deepEqual(
    graph.holders.map(({ operatorId, stake }) => [operatorId, stake]),
    [
      [first.operatorId, 150n * TOKEN],
      [second.operatorId, 200n * TOKEN],
      [miner.operatorId, 0n],
    ],
  );
  const due = events.reduce((sum, { args }) => sum + args.emission, 0n);
  const unassigned = await client.read('subnetEmission', 'unassignedOf', [subnetId]);
  const issued = await client.read('subnetEmission', 'issued');
  assert.ok(issued - due - unassigned <= 2n && issued >= due + unassigned);
});

test('an income is shared between an operator and its backers', async () => {
  const { client, faucet } = subnet;
  const choice = { operatorId: first.operatorId, token: 'network' as const };
  await distributeIncome(client, { sender: faucet, ...choice, amount: 100n * TOKEN });
  const income = await readIncome(client, { ...choice, backer: faucet.address });
  assert.equal(income.takeBps, 1800);
  const part = (82n * TOKEN * 50n) / 150n;
  assert.ok(part - income.backer <= 1n);
  assert.equal(income.operator + part, 100n * TOKEN);
  assert.equal(await claimBackerIncome(client, { sender: faucet, ...choice }), income.backer);
});

test('subnets are listed until they end', async () => {
  const { client, faucet } = subnet;
  const other = await createSubnet(client, { sender: faucet, kind: 'ocr', tempoSeconds: 60, rules: DEFAULT_SUBNET_RULES });
  assert.deepEqual(
    (await listSubnets(client)).map(({ kind }) => kind),
    ['chat', 'ocr'],
  );
  await faucet.send({ contract: 'subnets', functionName: 'dissolve', args: [other] });
  assert.equal((await listSubnets(client)).length, 1);
});

test('pulses come over HTTP as from drand, and a wrong one is as good as none', async () => {
  const { client, folder } = subnet;
  const beacon = openLocalBeacon({ folder, wrapKey: WRAP_KEY, genesis: 0n, periodSeconds: 3, now: () => client.now() });
  let isSpoilt = false;
  const server = createServer(async (request, response) => {
    const answer = await beacon.answer(new Request(`http://local${request.url}`, { method: request.method ?? 'GET' }));
    const body = (await answer.json()) as { signature?: string };
    if (isSpoilt && body.signature !== undefined) body.signature = toHex((await beacon.pulse(1n)) ?? '').slice(2);
    response.writeHead(answer.status).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as { port: number };
    const pulses = fetchPulses(beacon.declaration, [`http://127.0.0.1:${port}`]);
    const round = (await client.now()) / 3n;
    assert.deepEqual(Buffer.from((await pulses.pulse(round)) ?? []), Buffer.from((await beacon.pulse(round)) ?? []));
    assert.equal(await pulses.pulse(round + 1000n), undefined);
    isSpoilt = true;
    assert.equal(await pulses.pulse(round), undefined);
    assert.equal(await fetchPulses(beacon.declaration, ['http://127.0.0.1:1']).pulse(round), undefined);
  } finally {
    server.close();
  }
});
