import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { zeroHash } from 'viem';
import { developmentSigner, nodeKeyConsent, type Signer } from '../../chain/index.ts';
import { contentDigest, openTransportIdentity, type PeerServer, peerFetch, signRequest, startPeerServer } from '../../connect/index.ts';
import { silentLogger } from '../../log.ts';
import { type ChannelConfig, createPayer, depositStake, openReceiver, startClaimer } from '../../token/index.ts';
import { openReceiptReporter } from '../court/receipt-reporter.ts';
import { createTextGenerator, TEXT_CARD } from '../language/text-generator.ts';
import { fetchOf } from '../serving/carriers.ts';
import { createMiner, REPLAY_HEADER } from '../serving/miner.ts';
import { TEST_PRICE } from '../serving/miner-fixture.ts';
import { createInferenceReceipts, encodeReceipt, RECEIPT_HEADER, verifyReceipt } from '../serving/receipt.ts';
import { ensureReceiptBond } from '../serving/receipt-bond.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { registerUid } from '../subnets/subnet-actions.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../subnets/subnet-fixture.ts';
import { decodeRow } from '../subnets/weights-row.ts';
import { readEvidence } from './evidence.ts';
import { ownAccount } from './probe-accounts.ts';
import { createProbeStock } from './probe-stock.ts';
import { NOBODY } from './seat-survey.ts';
import { createShownDesk, type ShownDesk } from './shown-desk.ts';
import { CHANNEL_HEADER, channelHeader, SHOWN_PATH, SHOWN_SIGNED_HEADERS, type ShownMessage, writeShown } from './shown-requests.ts';
import { type SubnetJudge, startSubnetJudge } from './subnet-judge.ts';

const PATIENCE_MS = 120_000;
const engine = createTextGenerator({ limits: { idleMs: 0 } });
const stops: (() => Promise<void> | void)[] = [];
let subnet: TestSubnet;
let judging: SubnetJudge;
let evidence: string;
let miner: TestOperator;
let judge: TestOperator;
/** Users' requests that a re-run refuted. */
const refuted: string[] = [];
let seat: { endpoint: string; transportKey: string };

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
  [judge, miner] = [await subnet.join({ stake: 1000n * TOKEN }), await subnet.join()];
  const sink = await joinSink();
  await subnet.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [judge.nodeKey.address, 100n * TOKEN] });
  await serve(miner);
  seat = await client.read('operators', 'operator', [miner.operatorId]);
  const { sender, nodeKey, uid } = judge;
  const payer = await createPayer({ client, signer: nodeKey, sender, folder: join(folder, 'channels'), depositRequests: 2n });
  const account = ownAccount(payer, { amountMax: TOKEN });
  const own = join(folder, 'judge');
  evidence = join(own, 'evidence');
  judging = await startSubnetJudge({
    client,
    sender,
    subnetId,
    uid,
    folder: own,
    modelOf: (root) => (root === TEXT_CARD.root ? { engine } : undefined),
    stock: createProbeStock({ writer: engine, speaker: undefined, commands: [], imagesFolder: undefined }),
    accounts: [account],
    onRefuted: ({ receipt }, { reason }) => refuted.push(`${reason} ${receipt}`),
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
  // What its weight is worth of the emission, and what storage's rewards give for the same fees: nine tenths of what was burnt, at most.
  const burnt = await client.read('channels', 'feesBurntOf', [miner.nodeKey.address]);
  assert.ok(burnt > 0n);
  const [said] = readEvidence(evidence, { epoch, kind: 'weights' });
  const total = BigInt(row?.reduce((sum, [, weight]) => sum + weight, 0) ?? 0);
  const share = BigInt(row?.find(([at]) => at === miner.uid)?.[1] ?? 0);
  const { retrievalShareBps } = await client.read('rewards', 'config');
  const worth = (BigInt(said?.emissionValue as string) * share) / total + (burnt * BigInt(retrievalShareBps)) / 10_000n;
  assert.ok(worth * 10n <= burnt * 9n, `${worth} of ${burnt}`);
  const probes = readEvidence(evidence, { epoch, uid: miner.uid, kind: 'probe' });
  assert.ok(probes.length > 0);
  for (const { outcome, verdict, evidence, code } of probes)
    assert.deepEqual([outcome, verdict, evidence], ['ok', 'confirmed', 'replayed'], String(code));
});

/** A user who asks the miner itself, pays each request from a channel of its own, and lets validators repeat it, or not. */
async function startUser(signer: Signer) {
  const { client, faucet, folder } = subnet;
  const sender = subnet.senderOf(signer);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [signer.address, 10n * TOKEN] });
  const payer = await createPayer({ client, signer, sender, folder: join(folder, `user-${signer.address}`), depositRequests: 8n });
  stops.push(() => payer.close());
  const fetchSeat = (async (path: string, init: RequestInit = {}) =>
    peerFetch(seat, path, {
      method: init.method,
      headers: Object.fromEntries(new Headers(init.headers)),
      body: init.body as string,
    })) as typeof fetch;
  return {
    channel: () => payer.channels()[0]?.config as ChannelConfig,
    async ask(question: string, leave: Record<string, string>): Promise<ShownMessage['requests'][number]> {
      const body = JSON.stringify({ model: TEXT_CARD.id, messages: [{ role: 'user', content: question }], max_tokens: 4 });
      const path = '/v1/chat/completions';
      const init = { method: 'POST', headers: { 'content-type': 'application/json', ...leave }, body };
      const response = await payer.fetch(path, { amountMax: TOKEN, init, fetch: fetchSeat });
      const answer = Buffer.from(await response.arrayBuffer());
      const receipt = response.headers.get(RECEIPT_HEADER) as string;
      return { query: '', contentType: 'application/json', requestBody: Buffer.from(body), answer, receipt };
    },
  };
}

/** Shows a message to a validator's desk, as a gateway does. */
async function show(desk: ShownDesk, by: { signer: Signer; channel: ChannelConfig }, message: ShownMessage, sent = writeShown(message)) {
  const url = `https://127.0.0.1${SHOWN_PATH}`;
  const headers = { 'content-digest': contentDigest(writeShown(message)), [CHANNEL_HEADER]: channelHeader(by.channel) };
  const signature = await signRequest({ method: 'POST', url, headers }, by.signer, { covered: SHOWN_SIGNED_HEADERS });
  const response = await desk.take(new Request(url, { method: 'POST', headers: { ...headers, ...signature }, body: new Uint8Array(sent) }));
  const body = (await response.json()) as { accepted?: number; refused?: Record<string, number>; error?: { code: string } };
  return { status: response.status, code: body.error?.code, ...body };
}

test('users’ paid requests that they let validators repeat are run again; nobody else’s word, and no other request, is taken', async () => {
  const { client } = subnet;
  const [user, stranger] = [developmentSigner(32, 'dev'), developmentSigner(33, 'dev')];
  const { ask, channel } = await startUser(user);
  const allowed = [await ask('Call me', { [REPLAY_HEADER]: 'allow' }), await ask('The whale', { [REPLAY_HEADER]: 'allow' })];
  const kept = await ask('A secret', {});
  const [first] = allowed as [ShownMessage['requests'][number]];
  const desk = createShownDesk({ client, judges: () => [judging], log: silentLogger });
  const by = { signer: user, channel: channel() };
  const path = '/v1/chat/completions';
  const message = { path, paid: 3, requests: [...allowed, kept, { ...first, answer: Buffer.from('{"choices":[]}') }] };
  const taken = await show(desk, by, message);
  assert.deepEqual([taken.status, taken.accepted], [200, 2]);
  assert.deepEqual(taken.refused, { 'not-allowed': 1, 'bad-sample: receipt-mismatch': 1 });
  assert.deepEqual((await show(desk, by, { path, paid: 0, requests: [first] })).refused, { 'shown-before': 1 });
  assert.equal((await show(desk, { ...by, signer: stranger }, message)).code, 'not-the-payer');
  const empty = { ...channel(), payer: stranger.address, payerAuthorizer: stranger.address };
  assert.equal((await show(desk, { signer: stranger, channel: empty }, message)).code, 'channel-empty');
  assert.equal(
    (await show(desk, { signer: stranger, channel: { ...empty, receiver: stranger.address } }, message)).code,
    'not-judged-here',
  );
  assert.equal((await show(desk, by, { ...message, path: '/v1/tasks/ocr' })).code, 'not-judged-here');
  assert.equal((await show(desk, by, message, Buffer.from('{}'))).code, 'wrong-digest');
  await until(async () => (judging.status().shown as { confirmed: number }).confirmed === 2);
  assert.deepEqual(judging.status().shown, { paid: 3, replayable: 2, confirmed: 2, refuted: 0, unproven: 0 });
  const busy: (string | undefined)[] = [];
  while (busy.length < 40 && !busy.includes('payer-busy')) busy.push((await show(desk, by, { path, paid: 0, requests: [] })).code);
  assert.equal(busy.at(-1), 'payer-busy');
  const epoch = BigInt(judging.status().epoch as string);
  const replays = [epoch - 1n, epoch].flatMap((at) => readEvidence(evidence, { epoch: at, kind: 'replay' }));
  assert.deepEqual(
    replays.map(({ verdict, reason }) => [verdict, reason]),
    Array.from({ length: 2 }, () => ['confirmed', 'same-output']),
  );
});

test('a shown receipt above its limit is believed by nobody, and brought to the court by the validator’s own agent', async () => {
  const { client, faucet, folder } = subnet;
  const { owner, operatorId, sender, nodeKey } = miner;
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, 100n * TOKEN] });
  await depositStake(client, { sender: owner, operatorId, amount: 100n * TOKEN });
  await ensureReceiptBond(client, { sender, operatorId });
  const user = developmentSigner(34, 'dev');
  const { ask, channel } = await startUser(user);
  const honest = await ask('Some years ago', { [REPLAY_HEADER]: 'allow' });
  const codec = createInferenceReceipts(inferenceReceiptDomain(client));
  const { receipt } = verifyReceipt(codec, honest.receipt);
  const above = { ...receipt, outputs: { ...receipt.outputs, units: receipt.inputs.outputUnitsMax + 1n } };
  const lying = { ...honest, receipt: encodeReceipt(codec, { receipt: above, signature: await codec.sign(nodeKey, above) }) };
  const reporter = openReceiptReporter({ client, sender: judge.sender, folder: join(folder, 'reports'), isDuty: true, everyMs: 0 });
  const desk = createShownDesk({
    client,
    judges: () => [judging],
    onReceipt: (encoded) => reporter.see({ encoded }),
    log: silentLogger,
  });
  const message = { path: '/v1/chat/completions', paid: 1, requests: [lying] };
  const taken = await show(desk, { signer: user, channel: channel() }, message);
  assert.deepEqual(taken.refused, { 'bad-sample: receipt-mismatch': 1 });
  await reporter.tend();
  const convicted = await client.events({ name: 'receiptCourt', event: 'Convicted', args: { operatorId } });
  assert.deepEqual(
    convicted.map(({ args }) => [args.reporter, args.receiptId]),
    [[judge.sender.address, receipt.inputs.receiptId]],
  );
  await reporter.close();
  // What the miner signed for another answer is believed, run again, and handed to whoever brings cases before the jury.
  const asked = await ask('It is not down on any map', { [REPLAY_HEADER]: 'allow' });
  const { receipt: own } = verifyReceipt(codec, asked.receipt);
  const responseHash = `0x${createHash('sha256').update(honest.answer).digest('hex')}` as const;
  const other = { ...own, outputs: { ...own.outputs, responseHash } };
  const swapped = encodeReceipt(codec, { receipt: other, signature: await codec.sign(nodeKey, other) });
  const shown = { ...message, requests: [{ ...asked, answer: honest.answer, receipt: swapped }] };
  assert.equal((await show(desk, { signer: user, channel: channel() }, shown)).accepted, 1);
  await until(async () => refuted.length > 0);
  assert.deepEqual(refuted, [`other-answer ${swapped}`]);
});
