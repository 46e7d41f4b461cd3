import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { type EngineSet, openEngineSet } from '../../inference/engines/embedded-engines.ts';
import { createInferenceReceipts, RECEIPT_HEADER, verifyReceipt } from '../../inference/index.ts';
import { startTestMiner, TEST_DOMAIN, TEST_PRICE, type TestMiner } from '../../inference/serving/miner-fixture.ts';
import { silentLogger } from '../../log.ts';
import { type InferenceServer, startInferenceServer } from './inference-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-embedded-'));
const photo = readFileSync(new URL('../../../test/media/coffee.jpg', import.meta.url));
const codec = createInferenceReceipts(TEST_DOMAIN);
const now = () => BigInt(Math.floor(Date.now() / 1000));
let engines: EngineSet;
let miner: TestMiner;
let gateway: InferenceServer;
let url: string;

before(async () => {
  engines = openEngineSet({ dataFolder: folder, registry: 'none', isShared: false });
  const units = { 'ssdlite-coco': 'images', flite: 'characters', 'use-lite-en': 'tokens' } as const;
  const models = Object.entries(units).map(([id, unit]) => ({
    engine: engines.engine(id),
    price: { ...TEST_PRICE, unit, inputPerMillion: 0n, outputPerMillion: 0n, perRequest: 0n },
    outputUnitsMax: 1_000_000,
    concurrency: 1,
  }));
  miner = await startTestMiner({ models });
  const entry = { uid: 0, operatorId: 1n, endpoint: miner.url, transportKey: '', rank: 1 };
  gateway = await startInferenceServer({
    folder: join(folder, 'gateway'),
    port: 0,
    domain: TEST_DOMAIN,
    miners: async () => [entry],
    now,
    isOpen: true,
    log: silentLogger,
  });
  url = `http://127.0.0.1:${gateway.port}`;
});
after(async () => {
  await gateway?.stop(100);
  await miner?.stop();
  await engines?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a photograph is recognized as the page asks for it; the receipt is one of an exact engine, replayed where the caller allows it', async () => {
  for (const replay of [true, false]) {
    const headers = { 'content-type': 'image/jpeg', ...(replay ? { 'millrace-replay': 'allow' } : {}) };
    const answer = await fetch(`${url}/v1/tasks/detection?score_min=0.5`, { method: 'POST', body: photo, headers });
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    const { objects } = JSON.parse(text) as { objects: { label: string }[] };
    assert.ok(
      objects.some(({ label }) => label === 'cup'),
      text,
    );
    const requestHash = `0x${createHash('sha256').update(photo).digest('hex')}` as const;
    const { receipt } = verifyReceipt(codec, answer.headers.get(RECEIPT_HEADER) as string, { requestHash });
    assert.equal(receipt.evidence, replay ? 'replayed' : 'reputation only');
    assert.equal(receipt.outputs.unit, 'images');
  }
});

test('a photograph is classified as a whole, without boxes, by a request of its own', async () => {
  const answer = await fetch(`${url}/v1/tasks/classification`, { method: 'POST', body: photo, headers: { 'content-type': 'image/jpeg' } });
  const { object, classes, objects } = (await answer.json()) as {
    object: string;
    classes: { label: string; score: number }[];
    objects?: [];
  };
  assert.deepEqual([answer.status, object, objects], [200, 'task.classification', undefined]);
  assert.ok(classes.length === 5 && (classes[0]?.score ?? 0) >= (classes[4]?.score ?? 1));
  assert.ok(
    classes.slice(0, 3).some(({ label }) => label === 'cup'),
    JSON.stringify(classes),
  );
});

test('a witness of intermediate tensors is in the receipt when a nonce asks for it, and differs by nonce', async () => {
  const ask = async (nonce: string) => {
    const answer = await fetch(`${miner.url}/v1/tasks/detection`, {
      method: 'POST',
      body: photo,
      headers: { 'millrace-witness-nonce': nonce },
    });
    return verifyReceipt(codec, answer.headers.get(RECEIPT_HEADER) as string).receipt;
  };
  const [one, two] = [await ask(`0x${'01'.repeat(32)}`), await ask(`0x${'02'.repeat(32)}`)];
  assert.equal(one.outputs.outputDigest, two.outputs.outputDigest);
  assert.notEqual(one.outputs.witness, two.outputs.witness);
  assert.equal(one.inputs.witnessNonce, `0x${'01'.repeat(32)}`);
});

test('speech and embeddings of embedded engines reach the openai client', async () => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const speech = await client.audio.speech.create({ model: 'flite', voice: 'alloy', input: 'Water runs.', response_format: 'wav' });
  const wav = Buffer.from(await speech.arrayBuffer());
  assert.equal(wav.toString('latin1', 0, 4), 'RIFF');
  assert.ok(wav.length > 8000);
  const { data } = await client.embeddings.create({
    model: 'use-lite-en',
    input: ['the power is out', 'the generator failed', 'a chocolate cake'],
  });
  const dot = (one: number, other: number) =>
    data[one]?.embedding.reduce((sum, value, index) => sum + value * (data[other]?.embedding[index] as number), 0) as number;
  assert.ok(dot(0, 1) > dot(0, 2));
});

test('a picture that is none gets an error that says so', async () => {
  for (const body of [Buffer.from('no picture'), photo.subarray(0, 2000)]) {
    const answer = await fetch(`${url}/v1/tasks/detection`, { method: 'POST', body, headers: { 'content-type': 'image/jpeg' } });
    assert.equal(answer.status, 400, await answer.text());
  }
});
