import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { zeroHash } from 'viem';
import { abis, createSender, developmentSigner } from '../../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import {
  changeRules,
  createInferenceReceipts,
  createMiner,
  DEFAULT_SUBNET_RULES,
  ensureReceiptBond,
  fetchOf,
  fetchRewards,
  type InferenceReceipt,
  inferenceReceiptDomain,
  leaveReceiptCourt,
  RULE_TEXTS,
  readNextRules,
  readReceiptBond,
  type SubnetRules,
  uidsOfOperator,
  unlockReceiptBond,
  verifyReceipt,
  withRules,
} from '../../inference/index.ts';
import { type ForeignBackend, startForeignBackend } from '../../inference/serving/foreign-backend.ts';
import { backendModels } from '../../inference/serving/miner-fixture.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../../inference/subnets/subnet-fixture.ts';
import { silentLogger } from '../../log.ts';
import { openReceiver, type Receiver } from '../../token/index.ts';
import { minersOfNetwork } from './network-miners.ts';
import { type StandingGateway, startStandingGateway } from './standing-gateway.ts';

const PURSE = 5;
let network: TestSubnet;
let backend: ForeignBackend;
let operator: TestOperator;
let receiver: Receiver;
let server: PeerServer;
/** What the miner signs besides the truth. */
let lie: ((receipt: InferenceReceipt) => void) | undefined;

before(async () => {
  network = await startTestSubnet();
  backend = await startForeignBackend();
  operator = await network.join({ stake: 100n * TOKEN });
  const { client, folder } = network;
  const identity = await openTransportIdentity(join(folder, 'miner'));
  receiver = await openReceiver({
    client,
    receiver: operator.nodeKey.address,
    folder: join(folder, 'earned'),
    tokens: ['network'],
    claimIntervalSeconds: 300,
    sender: operator.sender,
  });
  const miner = createMiner({
    operatorId: operator.operatorId,
    signer: operator.nodeKey,
    domain: inferenceReceiptDomain(client),
    profile: 'dev',
    models: backendModels(backend.url),
    receiver,
    token: client.address('networkToken'),
    now: () => client.now(),
    log: silentLogger,
  });
  const honest = fetchOf((request) => miner.answer(request));
  server = await startPeerServer({ port: 0, identity, fetch: async (request) => lied(await honest(request)) });
  const args = [operator.operatorId, identity.transportKey, `https://127.0.0.1:${server.port}`, zeroHash] as const;
  await operator.sender.send({ contract: 'operators', functionName: 'setEndpoint', args });
  const purse = developmentSigner(PURSE, 'dev').address;
  await network.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [purse, 50n * TOKEN] });
});
after(async () => {
  await server.stop(100);
  await receiver.close();
  await backend.stop();
  await network.stop();
});

test('gateways ask only miners whose receipts are bonded; the bond is locked once, comes free after leaving, and not by itself again', async () => {
  const { client } = network;
  const { operatorId, sender, nodeKey } = operator;
  assert.deepEqual(await minersOfNetwork(client), []);
  assert.equal(await ensureReceiptBond(client, { sender, operatorId }), 'done');
  assert.equal(await ensureReceiptBond(client, { sender, operatorId }), 'nothing');
  assert.equal((await minersOfNetwork(client))[0]?.operatorId, operatorId);
  const unlocksAt = (await leaveReceiptCourt(client, { sender, operatorId })) as bigint;
  assert.equal(await leaveReceiptCourt(client, { sender, operatorId }), unlocksAt, 'leaving again changes nothing');
  assert.deepEqual(await minersOfNetwork(client), []);
  assert.equal(await ensureReceiptBond(client, { sender, operatorId }), 'left');
  await assert.rejects(unlockReceiptBond({ sender, operatorId }), { code: 'still-locked' });
  await network.chain.warp(Number(unlocksAt - (await client.now())) + 1);
  await unlockReceiptBond({ sender, operatorId });
  assert.equal((await readReceiptBond(client, { operatorId, key: nodeKey.address })).locked, 0n);
  assert.equal(await ensureReceiptBond(client, { sender, operatorId, returns: true }), 'done');
  const [own] = await uidsOfOperator(client, operatorId);
  assert.deepEqual([own?.subnetId, own?.uid, own?.kind, own?.hasPermit], [1n, operator.uid, 'chat', true]);
});

test('a standing gateway pays from its purse, keeps keys and spending over a restart, and says when it lacks something', async () => {
  const bare = await openGateway(PURSE + 1);
  const health = (gateway: StandingGateway) => fetch(`http://127.0.0.1:${gateway.port}/health`);
  const lacking = await health(bare);
  assert.deepEqual([lacking.status, ((await lacking.json()) as { lacks: string[] }).lacks], [503, ['tokens']]);
  await bare.stop(100);
  let gateway = await openGateway(PURSE);
  assert.equal((await health(gateway)).status, 200);
  const { key, id } = await gateway.keys.create({ name: 'alice', budget: TOKEN });
  const ask = () =>
    fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model: 'mill-chat', messages: [{ role: 'user', content: 'why?' }] }),
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    });
  const answer = await ask();
  assert.equal(answer.status, 200);
  const cost = BigInt(answer.headers.get('millrace-cost') as string);
  assert.equal((await gateway.purse()).spent > 0n, true);
  const text = await (await fetch(`http://127.0.0.1:${gateway.port}/metrics`)).text();
  assert.match(text, /^millrace_gateway_keys_count 1$/m);
  await gateway.stop(100);
  gateway = await openGateway(PURSE);
  assert.equal(gateway.keys.list()[0]?.spent, cost);
  assert.equal((await ask()).status, 200);
  await gateway.keys.revoke(id);
  assert.equal((await ask()).status, 401);
  await gateway.stop(100);
});

test('the bounds of rules that people are told are those of the contract', async () => {
  const { client, subnetId, faucet } = network;
  const { rules } = await readNextRules(client, subnetId);
  assert.deepEqual(rules, DEFAULT_SUBNET_RULES);
  await network.chain.warp(130); // rules may change once in two minutes
  const refusedBy = async (changed: SubnetRules) => {
    try {
      // What would be refused is refused when it is simulated: nothing is sent, and nothing changes.
      await client.public.simulateContract({
        address: client.address('subnets'),
        abi: abis.subnets,
        functionName: 'setHyperparameters',
        args: [subnetId, { ...changed, mode: 2, consensusMode: 0 }],
        account: faucet.address,
      });
      return false;
    } catch {
      return true;
    }
  };
  for (const { name, kind, least, most } of RULE_TEXTS) {
    if (!['share', 'count', 'millionths'].includes(kind) || name === 'alphaLow') continue;
    const isFree = name === 'immunityEpochs' || name === 'revealDelayEpochs';
    const base = {
      ...rules,
      ...(name === 'revealDelayEpochs' ? { immunityEpochs: 9 } : {}),
      ...(name === 'alphaHigh' ? { alphaLow: 1 } : {}),
    };
    const bounds = isFree && name === 'immunityEpochs' ? [most] : [least, most];
    for (const value of bounds) assert.equal(await refusedBy({ ...base, [name]: value }), false, `${name}=${value}`);
    assert.equal(await refusedBy({ ...base, [name]: most + 1 }), true, `${name}=${most + 1}`);
    assert.throws(() => withRules(base, [`${name}=${most + 1}`]), { code: 'bad-rule' });
    if (least > 0) assert.equal(await refusedBy({ ...base, [name]: least - 1 }), true, `${name}=${least - 1}`);
  }
  await changeRules({ sender: faucet, subnetId, rules: withRules(rules, ['kappa=55%', 'immunityEpochs=8', 'stakeThreshold=10']) });
  const next = (await readNextRules(client, subnetId)).rules;
  assert.deepEqual([next.kappa, next.immunityEpochs, next.stakeThreshold], [36_044, 8, 10n * TOKEN]);
  for (const bad of ['kappa', 'kappa=x', 'kappa=101%', 'mode=yuma9', 'optimistic=yes', 'alphaLow=30000', 'immunityEpochs=3']) {
    assert.throws(() => withRules(rules, [bad]), { code: 'bad-rule' }, bad);
  }
  assert.deepEqual(await fetchRewards(client, { sender: operator.sender, operatorId: operator.operatorId }), {
    miner: 0n,
    validator: 0n,
    account: 0n,
  });
});

test('a gateway’s own agent brings a miner that signs above its limit to the court and is rewarded; an honest one never', async () => {
  const { client } = network;
  const { operatorId } = operator;
  const lockedOf = () => client.read('stakeVault', 'lockedOfModule', [operatorId, client.address('receiptCourt')]);
  const convictions = () => client.events({ name: 'receiptCourt', event: 'Convicted', args: { operatorId } });
  await ensureReceiptBond(client, { sender: operator.sender, operatorId, returns: true });
  const before = await lockedOf();
  const gateway = await openGateway(PURSE);
  const { key } = await gateway.keys.create({ name: 'bob', budget: TOKEN });
  const ask = () =>
    fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model: 'mill-chat', messages: [{ role: 'user', content: 'how many?' }] }),
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    });
  assert.equal((await ask()).status, 200);
  assert.deepEqual((await gateway.status()).reports, { waiting: 0, reported: 0, rewards: 0n });
  lie = ({ inputs, outputs }) => Object.assign(outputs, { units: inputs.outputUnitsMax + 5n });
  const answer = await ask();
  assert.deepEqual([answer.headers.get('millrace-receipt'), answer.headers.get('millrace-cost')], [null, '0'], 'its caller pays nothing');
  lie = undefined;
  for (let look = 0; look < 200 && (await convictions()).length === 0; look += 1) await new Promise((resolve) => setTimeout(resolve, 50));
  const [convicted] = await convictions();
  assert.equal(convicted?.args.reporter, developmentSigner(PURSE, 'dev').address);
  assert.equal(before - (await lockedOf()), convicted?.args.amount);
  await gateway.stop(100);
  assert.equal((await convictions()).length, 1);
});

/** An answer whose receipt says something else, signed by the miner all the same; as it is while the miner does not lie. */
async function lied(answer: Response): Promise<Response> {
  const encoded = answer.headers.get('millrace-receipt');
  if (lie === undefined || encoded === null) return answer;
  const codec = createInferenceReceipts(inferenceReceiptDomain(network.client));
  const { receipt } = verifyReceipt(codec, encoded);
  const changed = { ...receipt, inputs: { ...receipt.inputs }, outputs: { ...receipt.outputs } };
  lie(changed);
  const json = codec.toJson(changed, await codec.sign(operator.nodeKey, changed));
  const headers = new Headers(answer.headers);
  headers.set('millrace-receipt', Buffer.from(json).toString('base64url'));
  return new Response(await answer.arrayBuffer(), { status: answer.status, headers });
}

async function openGateway(index: number): Promise<StandingGateway> {
  const signer = developmentSigner(index, 'dev');
  const folder = join(network.folder, `gateway-${index}`);
  const sender = createSender({ client: network.client, signer, journalFolder: folder, log: silentLogger });
  const gateway = await startStandingGateway({
    client: network.client,
    signer,
    sender,
    folder,
    host: '127.0.0.1',
    port: 0,
    feeBps: 0,
    tabMax: TOKEN,
    takesPayments: true,
    log: silentLogger,
  });
  return {
    ...gateway,
    async stop(graceMs) {
      await gateway.stop(graceMs);
      sender.close();
    },
  };
}
