import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { zeroHash } from 'viem';
import { developmentSigner, nodeKeyConsent } from '../../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { silentLogger } from '../../log.ts';
import { createPayer, openReceiver, startClaimer } from '../../token/index.ts';
import { createTextGenerator, TEXT_CARD } from '../language/text-generator.ts';
import { fetchOf } from '../serving/carriers.ts';
import { createMiner } from '../serving/miner.ts';
import { TEST_PRICE } from '../serving/miner-fixture.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { registerUid } from '../subnets/subnet-actions.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../subnets/subnet-fixture.ts';
import { decodeRow } from '../subnets/weights-row.ts';
import { readEvidence } from './evidence.ts';
import { ownAccount } from './probe-accounts.ts';
import { createProbeStock } from './probe-stock.ts';
import { NOBODY } from './seat-survey.ts';
import { startSubnetJudge } from './subnet-judge.ts';

const PATIENCE_MS = 120_000;
const engine = createTextGenerator({ limits: { idleMs: 0 } });
const stops: (() => Promise<void> | void)[] = [];
let subnet: TestSubnet;

before(async () => {
  subnet = await startTestSubnet({ tempoSeconds: 300 });
  stops.push(() => subnet.stop());
});
after(async () => {
  for (const stop of stops.reverse()) await stop();
  await engine.close();
});

/** A miner on a TLS port of its own that takes payments and claims them at once. */
async function serve({ operatorId, nodeKey, owner, sender }: TestOperator): Promise<PeerServer> {
  const { client, folder } = subnet;
  const own = join(folder, `miner-${operatorId}`);
  const identity = await openTransportIdentity(own);
  const receiver = await openReceiver({
    client,
    receiver: nodeKey.address,
    folder: join(own, 'earned'),
    tokens: ['network'],
    claimIntervalSeconds: 60,
    sender,
  });
  const claimer = startClaimer({ client, receiver, sender, intervalSeconds: 60, log: silentLogger });
  const miner = createMiner({
    operatorId,
    signer: nodeKey,
    domain: inferenceReceiptDomain(client),
    profile: 'dev',
    models: [{ engine, price: TEST_PRICE, outputUnitsMax: 64, concurrency: 8 }],
    receiver,
    token: client.address('networkToken'),
    now: () => client.now(),
    log: silentLogger,
  });
  const server = await startPeerServer({ port: 0, identity, fetch: fetchOf((request) => miner.answer(request)) });
  const args = [operatorId, identity.transportKey, `https://127.0.0.1:${server.port}`, zeroHash] as const;
  await owner.send({ contract: 'operators', functionName: 'setEndpoint', args });
  stops.push(async () => {
    await server.stop(0);
    await miner.stop();
    await claimer.stop();
    await receiver.close();
  });
  return server;
}

/** A uid whose operator's rewards nobody can fetch. */
async function joinSink(): Promise<number> {
  const { client, subnetId, faucet } = subnet;
  const [owner, nodeKey] = [subnet.senderOf(developmentSigner(30, 'dev')), developmentSigner(31, 'dev')];
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  await owner.send({ contract: 'operators', functionName: 'register', args: [nodeKey.address, NOBODY, zeroHash, '', zeroHash, consent] });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  const price = await client.read('subnets', 'registrationPrice', [subnetId]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, price] });
  return registerUid(client, { sender: owner, subnetId, operatorId });
}

/** Lets chain time run about as fast as the judge looks at it, until it is so. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, 'it does not happen');
    await subnet.chain.warp(4);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

test('a validator finds a miner on chain, probes it as a paying client, commits weights and opens them; what was paid and burnt earns, the rest is the sink’s', async () => {
  const { client, subnetId, folder } = subnet;
  const [judge, miner, sink] = [await subnet.join({ stake: 1000n * TOKEN }), await subnet.join(), await joinSink()];
  await subnet.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [judge.nodeKey.address, 100n * TOKEN] });
  await serve(miner);
  const { sender, nodeKey, uid } = judge;
  const payer = await createPayer({ client, signer: nodeKey, sender, folder: join(folder, 'channels'), depositRequests: 2n });
  const account = ownAccount(payer, { amountMax: TOKEN });
  const own = join(folder, 'judge');
  const judging = await startSubnetJudge({
    client,
    sender,
    subnetId,
    uid,
    folder: own,
    modelOf: (root) => (root === TEXT_CARD.root ? { engine } : undefined),
    stock: createProbeStock({ writer: engine, speaker: undefined, commands: [], imagesFolder: undefined }),
    accounts: [account],
    emissionPrice: 10n ** 4n,
    rules: { probesPerMiner: 4 },
    roundMs: 100,
    log: silentLogger,
  });
  stops.push(() => account.close());
  stops.push(() => judging.stop());
  const revealed = async () =>
    (await client.events({ name: 'weightsBoard', event: 'Revealed', args: { subnetId } })).map(({ args }) => args);
  await until(async () =>
    (await revealed()).some(({ row }) => decodeRow(Buffer.from(row.slice(2), 'hex'))?.some(([at]) => at === miner.uid) === true),
  );
  const rows = (await revealed()).map(({ row, epoch }) => ({ epoch, row: decodeRow(Buffer.from(row.slice(2), 'hex')) }));
  const { row, epoch } = rows.find((one) => one.row?.some(([at]) => at === miner.uid)) as (typeof rows)[0];
  assert.deepEqual(
    row?.map(([at]) => at),
    [miner.uid, sink],
  );
  assert.ok((await client.read('channels', 'feesBurntOf', [miner.nodeKey.address])) > 0n);
  const probes = readEvidence(join(own, 'evidence'), { epoch, uid: miner.uid, kind: 'probe' });
  assert.ok(probes.length > 0);
  for (const { outcome, verdict, evidence } of probes) assert.deepEqual([outcome, verdict, evidence], ['ok', 'confirmed', 'replayed']);
});
