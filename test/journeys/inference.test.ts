import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createInferenceReceipts, inferenceReceiptDomain, verifyReceipt } from '../../src/inference/index.ts';
import { localNetwork } from './local-network.ts';

const MEDIA = new URL('../media/', import.meta.url).pathname;
const OWNER_CUT = 11_796n;
const ALL = 65_535n;
const ROUNDS_MAX = 90;

const network = localNetwork();

/** The receipt of an answer is signed by the key that the chain has for the operator that it names, and says what the command said. */
async function assertReceipt(answer: { receipt: string; operatorId: string; price: string; model: string }): Promise<void> {
  const client = await network.client();
  const { nodeKey } = await client.read('operators', 'operator', [BigInt(answer.operatorId)]);
  const { receipt } = verifyReceipt(createInferenceReceipts(inferenceReceiptDomain(client)), answer.receipt, { miner: nodeKey });
  assert.equal(receipt.subject.model, answer.model);
  assert.equal(receipt.outputs.price, BigInt(answer.price));
  assert.ok(receipt.outputs.price > 0n);
}

before(() => network.json('up', '--with', 'inference', '--detach'));
after(() => network.remove());

test('one subnet per modality is there, its models served by three nodes', async () => {
  const subnets = await network.json('subnet', 'list');
  assert.deepEqual(
    subnets.items.map(({ kind }: { kind: string }) => kind),
    ['text', 'image', 'voice'],
  );
  for (const { beacon } of subnets.items) assert.equal(beacon, 'local: operator can read weights early');
  const models = await network.json('models');
  assert.deepEqual([...new Set(models.items.map(({ operatorId }: { operatorId: string }) => operatorId))].sort(), ['1', '2', '3']);
});

test('a question, a picture, a sentence to say and sentences to compare are answered with receipts', async () => {
  const answer = await network.json('ask', 'Call me', '--seed', '7', '--max-tokens', '40');
  assert.ok(answer.text.length > 10);
  assert.equal((await network.json('ask', 'Call me', '--seed', '7', '--max-tokens', '40')).text, answer.text);
  const seen = await network.json('recognize', join(MEDIA, 'chelsea.jpg'));
  assert.equal(seen.objects[0].label, 'cat');
  const wav = join(network.home, 'out.wav');
  const said = await network.json('say', 'The mill turns while the water runs.', '-o', wav);
  assert.equal(readFileSync(wav).toString('latin1', 0, 4), 'RIFF');
  const { vectors, ...embedded } = await network.json('embed', 'a broken generator', 'the power unit failed', 'chocolate cake');
  const near = (a: number[], b: number[]) => a.reduce((sum, part, at) => sum + part * (b[at] as number), 0);
  assert.ok(near(vectors[0], vectors[1]) > near(vectors[0], vectors[2]));
  for (const one of [answer, seen, said, embedded]) await assertReceipt(one);
  const page = await network.text('recognize', join(MEDIA, 'page.png'), '--task', 'ocr');
  assert.match(page, /segment/i);
});

test('a request that its caller lets validators repeat is shown to them and run again; no other is', async () => {
  const receipts = [
    await network.json('ask', 'A secret', '--max-tokens', '4'),
    await network.json('ask', 'Call me', '--max-tokens', '4', '--replay'),
  ];
  assert.deepEqual(
    receipts.map(({ check, evidence }) => [check, evidence]),
    [
      ['probes only', 'reputation only'],
      ['replay allowed', 'replayed'],
    ],
  );
  const replays = async () => (await network.json('subnet', 'show', '1')).userReplays as Record<string, number>[];
  const sum = (all: Record<string, number>[], name: string) => all.reduce((total, one) => total + (one[name] ?? 0), 0);
  let all = await replays();
  for (let round = 0; round < ROUNDS_MAX && sum(all, 'confirmed') === 0; round += 1) {
    // Validators that have just started do not know the miner yet, and take nothing.
    if (sum(all, 'shown') === 0) await network.json('ask', 'Call me', '--max-tokens', '4', '--replay');
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    all = await replays();
  }
  assert.ok(sum(all, 'confirmed') > 0);
  assert.ok(sum(all, 'shown') < sum(all, 'paid'));
  assert.equal(sum(all, 'refuted') + sum(all, 'unproven'), 0);
});

test('after two epochs rewards are paid on chain; they, the owner’s share and what is carried are the emission to the unit', async () => {
  const client = await network.client();
  // The beacon is killed while commits are sealed to it: it comes back with the same key, and until then everybody opens their own.
  const { processes } = await network.json('status');
  process.kill(processes.find(({ name }: { name: string }) => name === 'beacon').pid, 'SIGKILL');
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const paid = await client.events({ name: 'subnetEpochs', event: 'MinerPaid' });
    const final = await client.events({ name: 'subnetEpochs', event: 'Finalized', args: { subnetId: 1n } });
    if (paid.length > 0 && final.length >= 2) break;
    await network.json('dev', 'warp', '1m');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const [finals, credits] = await Promise.all([
    client.events({ name: 'subnetEpochs', event: 'Finalized' }),
    client.events({ name: 'subnetEpochs', event: 'Credited' }),
  ]);
  assert.ok(finals.length >= 2, `${finals.length} epochs are final`);
  let checked = 0;
  for (const { args } of finals) {
    const { subnetId, epoch, emission, ownerPart, dust } = args;
    const payments = credits.filter((credit) => credit.args.subnetId === subnetId && credit.args.epoch === epoch);
    const sum = payments.reduce((total, credit) => total + credit.args.miner + credit.args.validator, 0n);
    assert.equal(ownerPart, (emission * OWNER_CUT) / ALL);
    if (payments.length === 0) continue; // it was made final a moment ago
    assert.equal(sum + ownerPart + dust, emission, `epoch ${epoch} of subnet ${subnetId}`);
    checked += 1;
  }
  assert.ok(checked >= 2);
  const [paid] = await client.events({ name: 'subnetEpochs', event: 'MinerPaid' });
  assert.ok(paid !== undefined);
  assert.ok((await client.read('inferenceToken', 'balanceOf', [paid.args.to])) >= paid.args.amount);
  const shown = await network.json('subnet', 'show', '1');
  assert.ok(shown.uids.some(({ incentive }: { incentive: number }) => incentive > 0));
  assert.ok(shown.concentration.coalition.length >= 2);
});
