import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { concat, encodeFunctionData, type Hex, pad, toHex, zeroHash } from 'viem';
import { abis, createSender, developmentSigner, nodeKeyConsent, type Sender, type Signer } from '../../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { evidencePlaceText, inlineEvidence, openEvidence, readEvidence } from '../../governance/index.ts';
import { startTestJury, type TestJuror, type TestJury, TOKEN } from '../../governance/jury-fixture.ts';
import { readJuryCase } from '../../governance/jury-round.ts';
import { silentLogger } from '../../log.ts';
import { depositStake } from '../../token/index.ts';
import { signedBytes } from '../judging/answer-content.ts';
import type { AnsweredRequest } from '../judging/replay.ts';
import { createTextGenerator, TEXT_CARD } from '../language/text-generator.ts';
import { REPLAY_HEADER } from '../serving/miner.ts';
import { startTestMiner, TEST_PRICE, type TestMiner } from '../serving/miner-fixture.ts';
import { createInferenceReceipts, encodeReceipt, type InferenceReceipt, RECEIPT_HEADER, verifyReceipt } from '../serving/receipt.ts';
import { ensureReceiptBond } from '../serving/receipt-bond.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { caseAnswer, caseDocument, openReceiptCase } from './receipt-case.ts';
import { receiptJudge } from './receipt-judge.ts';
import { claimOf } from './receipt-offence.ts';
import { openReceiptReporter, type ReceiptReporter } from './receipt-reporter.ts';

const CHAT = '/v1/chat/completions';
const MINER = 30;
const CHALLENGER = 32;
const engine = createTextGenerator({ limits: { idleMs: 0 } });
const opened: Sender[] = [];
/**
 * Creation code of a contract that calls `target` as often as it is told with what follows: word 0 the count, word 1 the target.
 * size = CALLDATASIZE - 64; copy it; do { CALL(target, copy) } while (--count).
 */
const FLOODER_CODE: Hex = '0x61002080600b5f395ff3fe604036038060405f375f355b5f5f835f5f6020355af1506001900380600b5700';
let jury: TestJury;
let jurors: TestJuror[];
let miner: TestMiner & { operatorId: bigint };
let challenger: { operatorId: bigint; sender: Sender; cases: string };
let server: PeerServer;

before(async () => {
  jury = await startTestJury();
  const { client } = jury;
  const operatorId = await register(MINER, { endpoint: '', transportKey: zeroHash });
  await ensureReceiptBond(client, { sender: senderOf(MINER + 1), operatorId });
  const models = [{ engine, price: TEST_PRICE, outputUnitsMax: 64, concurrency: 8 }];
  const domain = inferenceReceiptDomain(client);
  miner = { ...(await startTestMiner({ models, keyIndex: MINER + 1, operatorId, domain })), operatorId };
  const identity = await openTransportIdentity(join(jury.folder, 'challenger'));
  const cases = join(jury.folder, 'cases');
  server = await startPeerServer({
    port: 0,
    identity,
    fetch: (request) => caseAnswer(cases, request) ?? new Response(null, { status: 404 }),
  });
  const place = { endpoint: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey };
  challenger = { operatorId: await register(CHALLENGER, place), sender: senderOf(CHALLENGER + 1), cases };
  await jury.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [challenger.sender.address, 500n * TOKEN] });
  jurors = [await jury.addJuror(), await jury.addJuror(), await jury.addJuror()];
  await jury.chain.warp(1);
});
after(async () => {
  for (const sender of opened) sender.close();
  await miner?.stop();
  await server?.stop(100);
  await jury?.stop();
});

function senderOf(index: number): Sender {
  const signer = developmentSigner(index, 'dev');
  const known = opened.find(({ address }) => address === signer.address);
  if (known !== undefined) return known;
  const sender = createSender({ client: jury.client, signer, journalFolder: jury.journalFolder, log: silentLogger });
  opened.push(sender);
  return sender;
}

/** An operator with a stake whose owner and node key are two development keys, one after the other. */
async function register(index: number, place: { endpoint: string; transportKey: Hex }): Promise<bigint> {
  const { client, faucet } = jury;
  const [owner, nodeKey] = [senderOf(index), developmentSigner(index + 1, 'dev')];
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  const args = [nodeKey.address, owner.address, place.transportKey, place.endpoint, zeroHash, consent] as const;
  await owner.send({ contract: 'operators', functionName: 'register', args });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, 200n * TOKEN] });
  await depositStake(client, { sender: owner, operatorId, amount: 200n * TOKEN });
  return operatorId;
}

const codecOf = () => createInferenceReceipts(inferenceReceiptDomain(jury.client));

async function ask(content: string): Promise<AnsweredRequest> {
  const body = { model: TEXT_CARD.id, messages: [{ role: 'user', content }], max_tokens: 12 };
  const requestBody = Buffer.from(JSON.stringify(body));
  const headers = { 'content-type': 'application/json', [REPLAY_HEADER]: 'allow' };
  const response = await fetch(`${miner.url}${CHAT}`, { method: 'POST', headers, body: requestBody });
  const answer = Buffer.from(await response.arrayBuffer());
  assert.equal(response.status, 200, answer.toString('utf8'));
  return { path: CHAT, contentType: 'application/json', requestBody, answer, receipt: response.headers.get(RECEIPT_HEADER) as string };
}

/** The receipt of a sample with other claims, signed again by whoever: what a miner that lies, or somebody in its name, would give. */
async function signedAgain(
  sample: AnsweredRequest,
  change: (receipt: InferenceReceipt) => unknown,
  { signer = miner.signer, answer = sample.answer }: { signer?: Signer; answer?: Buffer } = {},
): Promise<AnsweredRequest> {
  const codec = codecOf();
  const { receipt } = codec.fromJson(Buffer.from(sample.receipt, 'base64url').toString('utf8'));
  const changed = { ...receipt, subject: { ...receipt.subject }, inputs: { ...receipt.inputs }, outputs: { ...receipt.outputs } };
  changed.outputs.responseHash = `0x${createHash('sha256').update(signedBytes('application/json', answer)).digest('hex')}`;
  change(changed);
  return { ...sample, answer, receipt: encodeReceipt(codec, { receipt: changed, signature: await codec.sign(signer, changed) }) };
}

/** As if a channel had paid for it: what was paid may be brought before the jury. */
function paid({ inputs, outputs }: InferenceReceipt): void {
  inputs.channelId = `0x${'01'.repeat(32)}`;
  outputs.price = 5n;
  inputs.voucher = 5n;
}

function reporterOf(name: string, more: { feeMax?: bigint } = {}): ReceiptReporter {
  const folder = join(jury.folder, name);
  return openReceiptReporter({ client: jury.client, sender: challenger.sender, folder, everyMs: 0, log: silentLogger, ...more });
}

/** A call that makes such a contract say so many pieces of evidence in its own name. */
function floodCall(disputeId: bigint, pieces: number): Hex {
  const args = [disputeId, evidencePlaceText({ operatorId: 1n, path: '/none', sha256: '00'.repeat(32) })] as const;
  const said = encodeFunctionData({ abi: abis.receiptCourt, functionName: 'submitEvidence', args });
  return concat([pad(toHex(pieces)), pad(jury.client.address('receiptCourt')), said]);
}

const lockedOf = async () => {
  const { client } = jury;
  return client.read('stakeVault', 'lockedOfModule', [miner.operatorId, client.address('receiptCourt')]);
};

test('a receipt above its limit is reported once and its reward fetched, also by an agent that was stopped before it could', async () => {
  const { client } = jury;
  const honest = await ask('The whale');
  const above = await signedAgain(honest, ({ inputs, outputs }) => {
    outputs.units = inputs.outputUnitsMax + 1n;
  });
  const before = await lockedOf();
  const stopped = reporterOf('reports');
  stopped.see({ encoded: honest.receipt });
  stopped.see({ encoded: above.receipt });
  assert.equal(stopped.status().waiting, 1, 'the honest one does not wait');
  await stopped.close();
  const agent = reporterOf('reports');
  const had = await client.read('networkToken', 'balanceOf', [challenger.sender.address]);
  await agent.tend();
  const { slash } = await client.read('receiptCourt', 'config');
  assert.equal(before - (await lockedOf()), slash);
  const { reported, rewards, waiting } = agent.status();
  assert.deepEqual([reported, waiting], [1, 0]);
  assert.ok(rewards > 0n);
  assert.equal((await client.read('networkToken', 'balanceOf', [challenger.sender.address])) - had, rewards);
  agent.see({ encoded: above.receipt });
  await agent.tend();
  assert.equal(before - (await lockedOf()), slash, 'a second report changes nothing');
  assert.equal(agent.status().waiting, 0);
});

test('a price above the voucher and two receipts of one id that exclude one another are reported; wording alone convicts nobody', async () => {
  const agent = reporterOf('reports-of-two');
  const before = await lockedOf();
  const sample = await ask('Call me');
  agent.see({ encoded: sample.receipt });
  agent.see({ encoded: (await signedAgain(sample, ({ outputs }) => Object.assign(outputs, { ttftUs: outputs.ttftUs + 1n }))).receipt });
  assert.equal(agent.status().waiting, 0);
  agent.see({
    encoded: (await signedAgain(sample, ({ outputs }) => Object.assign(outputs, { outputDigest: `0x${'77'.repeat(32)}` }))).receipt,
  });
  const other = await ask('Call me too');
  agent.see({
    encoded: (await signedAgain(other, ({ inputs, outputs }) => Object.assign(outputs, { price: inputs.voucher + 1n }))).receipt,
  });
  assert.equal(agent.status().waiting, 2);
  await agent.tend();
  const { slash } = await jury.client.read('receiptCourt', 'config');
  assert.deepEqual([agent.status().reported, before - (await lockedOf())], [2, 2n * slash]);
});

test('a report that would cost more than its agent pays waits, and is not lost', async () => {
  const sent = () => jury.client.public.getTransactionCount({ address: challenger.sender.address });
  const before = await sent();
  const agent = reporterOf('reports-too-dear', { feeMax: 1n });
  const above = await signedAgain(await ask('The gale'), ({ outputs }) => Object.assign(outputs, { units: 1000n }));
  agent.see({ encoded: above.receipt });
  await agent.tend();
  await agent.tend();
  assert.deepEqual([agent.status().waiting, agent.status().reported, await sent()], [1, 0, before]);
});

test('what somebody else signed in a miner’s name costs it nothing, and the reporter no transaction', async () => {
  const agent = reporterOf('reports-of-strangers');
  const before = await lockedOf();
  const sent = await jury.client.public.getTransactionCount({ address: challenger.sender.address });
  const sample = await ask('The ship');
  const stranger = developmentSigner(38, 'dev');
  const forged = await signedAgain(sample, ({ outputs }) => Object.assign(outputs, { units: 1000n }), { signer: stranger });
  const named = await signedAgain(
    sample,
    ({ outputs, subject }) => {
      outputs.units = 1000n;
      subject.miner = stranger.address;
    },
    { signer: stranger },
  );
  for (const { receipt } of [forged, named]) agent.see({ encoded: receipt });
  assert.equal(agent.status().waiting, 1, 'a signature that is not the named key’s is not even kept');
  await agent.tend();
  assert.deepEqual([agent.status().waiting, agent.status().reported], [0, 0]);
  assert.equal(await lockedOf(), before);
  assert.equal(await jury.client.public.getTransactionCount({ address: challenger.sender.address }), sent);
});

test('jurors that run the request again convict a miner of another answer, and acquit the honest twin', async () => {
  const { client } = jury;
  const judge = receiptJudge({ client, modelOf: (root) => (root === TEXT_CARD.root ? { engine } : undefined) });
  const agents = jurors.map((juror) => juror.open([judge]));
  const honest = await signedAgain(await ask('The sea'), paid);
  const other = await ask('The harpoon');
  const lying = await signedAgain(await ask('The captain'), paid, { answer: other.answer });
  const before = await lockedOf();
  const had = await client.read('rails', 'balanceOf', [client.address('networkToken'), senderOf(MINER).address]);
  const { operatorId, sender, cases } = challenger;
  const opened = [
    await openReceiptCase(client, { sender, operatorId, folder: cases, sample: honest }),
    await openReceiptCase(client, { sender, operatorId, folder: cases, sample: lying }),
  ];
  for (let round = 0; round < 60; round += 1) {
    for (const { juror } of agents) {
      await juror.tend();
      await juror.settled();
    }
    if (round > 0 && agents.every(({ juror }) => juror.record().open === 0)) break;
    await jury.chain.warp(20);
  }
  const rulings = await Promise.all(opened.map(async ({ disputeId }) => (await readJuryCase(client, disputeId)).ruling));
  assert.deepEqual(rulings, [2n, 1n]);
  const { slash, caseBond } = await client.read('receiptCourt', 'config');
  assert.equal(before - (await lockedOf()), slash);
  const has = await client.read('rails', 'balanceOf', [client.address('networkToken'), senderOf(MINER).address]);
  assert.equal(has - had, caseBond, 'the bond of the lost case is the honest miner’s');
  for (const { close } of agents) close();
});

test('a judge does not take a receipt for the miner’s that another key signed, and says nothing while evidence may still come', async () => {
  const { client } = jury;
  const honest = await signedAgain(await ask('The mast'), paid);
  const { operatorId, sender } = challenger;
  const nowhere = join(jury.folder, `cases-${randomBytes(4).toString('hex')}`);
  const { disputeId } = await openReceiptCase(client, { sender, operatorId, folder: nowhere, sample: honest });
  const judge = receiptJudge({ client, modelOf: () => ({ engine }) });
  const seen = await readJuryCase(client, disputeId);
  const evidence = await readEvidence(client, seen);
  assert.deepEqual([evidence.pieces.length, evidence.groupId], [1, disputeId]);
  const { commitSeconds } = await client.read('jury', 'config');
  const signal = AbortSignal.timeout(60_000);
  const now = await client.now();
  const early = { ...seen, commitUntil: now + BigInt(commitSeconds) };
  assert.equal(await judge.judge(early, evidence, signal), undefined);
  assert.equal(await judge.judge({ ...seen, commitUntil: now + 5n }, evidence, signal), 2n, 'what nobody shows convicts nobody');
});

test('who floods a case with evidence keeps neither side from being heard: the accuser convicts as it would have without', async () => {
  const { client, faucet } = jury;
  const other = await ask('The anchor');
  const { operatorId, sender, cases } = challenger;
  const nowhere = join(jury.folder, `cases-${randomBytes(4).toString('hex')}`);
  const { contractAddress: flooder } = await faucet.send({ to: null, data: FLOODER_CODE });
  const judge = receiptJudge({ client, modelOf: () => ({ engine }) });
  for (const pieces of [300, 0]) {
    const lying = await signedAgain(await ask(`The rope ${pieces}`), paid, { answer: other.answer });
    const { disputeId, receiptId } = await openReceiptCase(client, { sender, operatorId, folder: nowhere, sample: lying });
    if (pieces > 0) await faucet.send({ to: flooder as Hex, data: floodCall(disputeId, pieces) });
    const say = (text: string, by: Sender) =>
      by.send({ contract: 'receiptCourt', functionName: 'submitEvidence', args: [disputeId, text] });
    const document = caseDocument(lying);
    writeFileSync(join(cases, `${receiptId}.json`), document);
    const sha256 = createHash('sha256').update(document).digest('hex');
    await say(evidencePlaceText({ operatorId, path: `/v1/inference/cases/${receiptId}`, sha256 }), sender);
    await say('I did nothing', senderOf(MINER + 1));
    const seen = await readJuryCase(client, disputeId);
    const evidence = await readEvidence(client, seen);
    const parties = evidence.pieces.slice(0, 5).map(({ party }) => party);
    for (const speaker of [sender.address, senderOf(MINER + 1).address]) assert.ok(parties.includes(speaker), `${speaker} of ${parties}`);
    assert.equal(evidence.isCut, pieces > 0);
    const signal = AbortSignal.timeout(60_000);
    assert.equal(await judge.judge({ ...seen, commitUntil: (await client.now()) + 5n }, evidence, signal), 1n, 'guilty');
  }
});

test('evidence is opened only at operators’ nodes, and only as its digest says; whatever else a text names is not asked', async () => {
  const { client } = jury;
  const document = Buffer.from('{"path":"/v1/x","paid":1,"requests":[]}');
  const name = `0x${'ee'.repeat(32)}`;
  writeFileSync(join(challenger.cases, `${name}.json`), document);
  const sha256 = createHash('sha256').update(document).digest('hex');
  const place = { operatorId: challenger.operatorId, path: `/v1/inference/cases/${name}`, sha256 };
  const options = { bytesMax: 1000, signal: AbortSignal.timeout(60_000) };
  assert.deepEqual(await openEvidence(client, evidencePlaceText(place), options), document);
  assert.deepEqual(await openEvidence(client, inlineEvidence(document), options), document);
  const open = (change: Partial<typeof place>, bytesMax = 1000) =>
    openEvidence(client, evidencePlaceText({ ...place, ...change }), { ...options, bytesMax });
  await assert.rejects(open({ sha256: '00'.repeat(32) }), { code: 'evidence-not-had' });
  await assert.rejects(open({ path: '/v1/inference/cases/none' }), { code: 'evidence-not-had' });
  await assert.rejects(open({}, 10), { code: 'answer-too-long' });
  let asked = 0;
  const elsewhere = createServer((_, response) => {
    asked += 1;
    response.end();
  });
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/`;
  for (const text of [url, `operator:${url}#sha256=${sha256}`, `operator:1//${url}`, `data:text/html,${url}`, '']) {
    assert.equal(await openEvidence(client, text, options), undefined);
  }
  assert.equal(asked, 0);
  elsewhere.close();
});

test('a claim is what the court compares: each field of it changes it, times and wording do not', async () => {
  const { receipt } = verifyReceipt(codecOf(), (await ask('A claim')).receipt);
  const claimed = claimOf(receipt);
  assert.notEqual(claimOf({ ...receipt, outputs: { ...receipt.outputs, units: receipt.outputs.units + 1n } }), claimed);
  assert.notEqual(claimOf({ ...receipt, inputs: { ...receipt.inputs, voucher: 9n } }), claimed);
  assert.equal(claimOf({ ...receipt, outputs: { ...receipt.outputs, finishedAt: 1n, end: 'cut' } }), claimed);
});
