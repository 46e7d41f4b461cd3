import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { Hex } from 'viem';
import { developmentSigner } from '../../chain/index.ts';
import { createTextGenerator, TEXT_CARD } from '../language/text-generator.ts';
import { REPLAY_HEADER, RETENTION_HEADER, WITNESS_HEADER } from '../serving/miner.ts';
import { startTestMiner, TEST_DOMAIN, TEST_PRICE, type TestMiner } from '../serving/miner-fixture.ts';
import { createInferenceReceipts, encodeReceipt, type InferenceReceipt, RECEIPT_HEADER, verifyReceipt } from '../serving/receipt.ts';
import { readAnswer, signedBytes } from './answer-content.ts';
import { type AnsweredRequest, type ReplayVerdict, replayRequest } from './replay.ts';
import { TOKEN_COUNTERS } from './token-counter.ts';

// The language model answers a small request in milliseconds, so one engine serves and judges here: it is exact.
const engine = createTextGenerator({ limits: { idleMs: 0 } });
const codec = createInferenceReceipts(TEST_DOMAIN);
const signal = AbortSignal.timeout(60_000);
let miner: TestMiner;
before(async () => {
  miner = await startTestMiner({ models: [{ engine, price: TEST_PRICE, outputUnitsMax: 64, concurrency: 8 }] });
});
after(() => miner.stop());

const CHAT = '/v1/chat/completions';

function ask(more: Record<string, unknown> = {}, headers: Record<string, string> = {}): Promise<AnsweredRequest> {
  const body = { model: TEXT_CARD.id, messages: [{ role: 'user', content: 'The whale' }], max_tokens: 24, ...more };
  return send(CHAT, body, headers);
}

async function send(path: string, body: object, headers: Record<string, string> = {}): Promise<AnsweredRequest> {
  const requestBody = Buffer.from(JSON.stringify(body));
  const response = await fetch(`${miner.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: requestBody,
  });
  const answer = Buffer.from(await response.arrayBuffer());
  const inStream = /: millrace-receipt (\S+)/.exec(answer.toString('latin1'))?.[1];
  const receipt = response.headers.get(RECEIPT_HEADER) ?? inStream ?? '';
  return { path, contentType: 'application/json', requestBody, answer, receipt };
}

function replay(sample: AnsweredRequest, isOwn = true): Promise<ReplayVerdict> {
  return replayRequest(sample, { codec, modelOf: (root) => (root === TEXT_CARD.root ? { engine } : undefined), isOwn, signal });
}

/** The same answer with other claims, signed again: what a miner that lies would give. */
async function lie(
  sample: AnsweredRequest,
  change: (receipt: InferenceReceipt) => void,
  answer: Buffer = sample.answer,
): Promise<AnsweredRequest> {
  const { receipt } = verifyReceipt(codec, sample.receipt);
  const changed = { ...receipt, inputs: { ...receipt.inputs }, outputs: { ...receipt.outputs } };
  const hash: Hex = `0x${createHash('sha256').update(signedBytes('application/json', answer)).digest('hex')}`;
  changed.outputs.responseHash = hash;
  change(changed);
  return { ...sample, answer, receipt: encodeReceipt(codec, { receipt: changed, signature: await codec.sign(miner.signer, changed) }) };
}

test('an honest answer is confirmed bit for bit, streamed or not, with a witness or without', async () => {
  for (const sample of [
    await ask(),
    await ask({ stream: true, temperature: 1.2, seed: 7 }),
    await send('/v1/responses', { model: TEXT_CARD.id, input: 'The whale', max_output_tokens: 12 }),
    await send('/v1/responses', { model: TEXT_CARD.id, input: 'The whale', max_output_tokens: 12, stream: true }),
    await ask({}, { [WITNESS_HEADER]: `0x${'ab'.repeat(32)}` }),
  ]) {
    const verdict = await replay(sample);
    assert.deepEqual([verdict.outcome, verdict.evidence, verdict.reason, verdict.distance], ['confirmed', 'replayed', 'same-output', 0]);
  }
});

test('another model, another text under the right digest, a borrowed witness and inflated counts are refuted', async () => {
  const honest = await ask();
  const other = await ask({ seed: 99, temperature: 1 });
  const otherOutput = verifyReceipt(codec, other.receipt).receipt.outputs.outputDigest;
  const swapped = await lie(honest, (receipt) => Object.assign(receipt.outputs, { outputDigest: otherOutput }), other.answer);
  assert.equal((await replay(swapped)).reason, 'other-output');
  assert.equal((await replay(await lie(honest, () => {}, other.answer))).reason, 'other-answer');
  assert.equal((await replay(await lie(honest, () => {}, Buffer.from('fast garbage')))).reason, 'unreadable-answer');
  const inflated = await replay(
    await lie(honest, ({ outputs, inputs }) => {
      outputs.units = 30n;
      inputs.outputUnitsMax = 64n;
    }),
  );
  assert.deepEqual([inflated.outcome, inflated.reason, inflated.inflatedBy], ['refuted', 'inflated-count', 6]);
  const witnessed = await ask({}, { [WITNESS_HEADER]: `0x${'cd'.repeat(32)}` });
  const borrowed = await lie(witnessed, ({ outputs }) => {
    outputs.witness = `0x${'11'.repeat(32)}`;
  });
  assert.equal((await replay(borrowed)).reason, 'other-witness');
});

test('a proxy that has another miner compute for it shows a witness that names the other', async () => {
  const sample = await ask({}, { [WITNESS_HEADER]: `0x${'ef'.repeat(32)}` });
  const proxy = developmentSigner(5, 'dev');
  const { receipt } = verifyReceipt(codec, sample.receipt);
  const relabelled = { ...receipt, subject: { ...receipt.subject, miner: proxy.address } };
  const passedOff = { ...sample, receipt: encodeReceipt(codec, { receipt: relabelled, signature: await codec.sign(proxy, relabelled) }) };
  assert.equal((await replay(passedOff)).reason, 'other-witness');
});

test('requests of others are run again only when they were paid and their callers allow it; retention wins over leave', async () => {
  const unasked = await ask();
  assert.equal((await replay(unasked, false)).reason, 'not-allowed');
  const silent = await ask({}, { [REPLAY_HEADER]: 'allow', [RETENTION_HEADER]: 'none' });
  assert.equal(verifyReceipt(codec, silent.receipt).receipt.evidence, 'reputation only');
  assert.equal((await replay(silent, false)).reason, 'not-allowed');
  const allowed = await ask({}, { [REPLAY_HEADER]: 'allow' });
  assert.equal((await replay(allowed, false)).reason, 'not-paid');
  const paid = await lie(allowed, ({ inputs, outputs }) => {
    inputs.channelId = `0x${'01'.repeat(32)}`;
    outputs.price = 5n;
  });
  assert.equal((await replay(paid, false)).outcome, 'confirmed');
  const cut = await lie(paid, ({ outputs }) => {
    outputs.end = 'cut';
  });
  assert.equal((await replay(cut, false)).reason, 'not-complete');
});

test('what a stranger made up says nothing against a miner', async () => {
  const sample = await ask({}, { [REPLAY_HEADER]: 'allow' });
  const cases: [AnsweredRequest, string][] = [
    [{ ...sample, answer: Buffer.from('{}') }, 'bad-sample: receipt-mismatch'],
    [{ ...sample, requestBody: Buffer.from('{}') }, 'bad-sample: receipt-mismatch'],
    [{ ...sample, receipt: 'bm9uc2Vuc2U' }, 'bad-sample: bad-receipt'],
    [{ ...sample, path: '/v1/responses' }, 'other-path'],
    [{ ...sample, contentType: 'text/plain' }, 'confirmed'],
  ];
  for (const [made, reason] of cases) {
    const verdict = await replay(made);
    assert.ok(verdict.reason === reason || verdict.outcome === reason, verdict.reason);
    assert.notEqual(verdict.outcome, 'refuted');
  }
  const miners = [
    { operatorId: 2n, nodeKey: miner.signer.address },
    { operatorId: 1n, nodeKey: developmentSigner(5, 'dev').address },
  ];
  for (const other of miners) {
    const verdict = await replayRequest(sample, { codec, modelOf: () => ({ engine }), isOwn: true, miner: other, signal });
    assert.equal(verdict.reason, 'other-miner');
  }
  const unknown = await replayRequest(sample, { codec, modelOf: () => undefined, isOwn: true, signal });
  assert.deepEqual([unknown.outcome, unknown.evidence, unknown.reason], ['unproven', 'reputation only', 'no-such-model-here']);
});

test('tokens of the embedded language model are counted again exactly: input to the unit, output up to a stop text that was cut off', async () => {
  const long = 'The whale, the sea and the ship. '.repeat(40);
  for (const sample of [
    await ask(),
    await ask({
      messages: [
        { role: 'system', content: 'Ahoy' },
        { role: 'user', content: 'Où est la baleine ? 🐋' },
      ],
    }),
    await ask({ messages: [{ role: 'user', content: long }], stop: [' the', 'e'], stream: true }),
    await send('/v1/responses', { model: TEXT_CARD.id, input: 'Call me', max_output_tokens: 9 }),
  ]) {
    const { inputs, outputs } = verifyReceipt(codec, sample.receipt).receipt;
    const type = sample.answer.toString('latin1', 0, 5) === 'data:' ? 'text/event-stream' : 'application/json';
    const said = readAnswer('chat', type, signedBytes(type, sample.answer));
    const { path, contentType, requestBody: bytes } = sample;
    const count = TOKEN_COUNTERS.get(TEXT_CARD.root);
    const counted = await count?.({ path, query: '', contentType, bytes }, said.task === 'chat' ? said.text : '');
    assert.equal(counted?.input, Number(inputs.units));
    assert.ok((counted?.output ?? 0) >= Number(outputs.units), `${counted?.output} for ${outputs.units}`);
    assert.ok((counted?.output ?? 0) <= Number(outputs.units) + 3 * 4, `${counted?.output} for ${outputs.units}`);
  }
  assert.equal(
    await TOKEN_COUNTERS.get(TEXT_CARD.root)?.({ path: CHAT, query: '', contentType: 'application/json', bytes: Buffer.from('{') }, ''),
    undefined,
  );
});
