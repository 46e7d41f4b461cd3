import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkGguf } from '../engines/gguf-check.ts';
import { checkOnnx } from '../engines/onnx-check.ts';
import { splitCorpus } from './corpus.ts';
import { decodeGguf, encodeGguf, type GgufFile } from './gguf.ts';
import { lossOf } from './held-out-loss.ts';
import { type LanguageModel, openOnnxModel } from './language-model.ts';
import { decodeModel, encodeModel } from './model-file.ts';
import { generationGraph, trainingGraph } from './model-graph.ts';
import { initialWeights, LANGUAGE_MODEL, parameterShapes } from './model-shape.ts';
import { createPlainModel } from './plain-model.ts';
import { logProbabilities } from './sampling.ts';
import { WEIGHTS_PATH, WEIGHTS_SHA256 } from './text-generator.ts';

/** Out of the text that was held out of training. */
const EXCERPT = Buffer.from(`Here be it said, that this pertinacious pursuit of one particular whale,
continued through day into night, and through night into day, is a thing
by no means unprecedented in the South sea fishery. For such is the
wonderful skill, prescience of experience, and invincible confidence
acquired by some great natural geniuses among the Nantucket commanders;
that from the simple observation of a whale when last descried, they
will, under certain given circumstances, pretty accurately foretell both
the direction in which he will continue to swim for a time, while out of
sight, as well as his probable rate of progression during that period.
And, in these cases, somewhat as a pilot, when about losing sight of
a coast, whose general trending he well knows, and which he`);

const bytes = readFileSync(WEIGHTS_PATH);
const file = decodeModel(bytes);

test('the committed weights are those of the card, 869,504 of them, and writing them again gives the same file', () => {
  assert.equal(createHash('sha256').update(bytes).digest('hex'), WEIGHTS_SHA256);
  assert.deepEqual(file.shape, LANGUAGE_MODEL);
  assert.equal(
    Object.values(file.weights).reduce((sum, { length }) => sum + length, 0),
    869_504,
  );
  assert.ok(Buffer.from(encodeModel(file)).equals(bytes));
  assert.equal(checkGguf(bytes, bytes.length).architecture, 'llama');
});

test('a text that the model never read costs it less than 1.35 nats a byte; with one matrix spoilt or untrained it costs more', async () => {
  const loss = await lossOf(file.shape, file.weights, EXCERPT, { batch: 3 });
  assert.ok(loss > 1.2 && loss < 1.35, `${loss} nats/byte`);
  const spoilt = { ...file.weights, 'blk.2.attn_v.weight': (file.weights['blk.2.attn_v.weight'] as Float32Array).toReversed() };
  assert.ok((await lossOf(file.shape, spoilt, EXCERPT, { batch: 3 })) > 1.5);
  assert.ok((await lossOf(file.shape, initialWeights(file.shape, 1), EXCERPT, { batch: 3 })) > 5);
  await assert.rejects(lossOf(file.shape, file.weights, EXCERPT), { code: 'text-too-short' });
  assert.throws(() => splitCorpus(EXCERPT), { code: 'corpus-wrong' });
});

test('ONNX Runtime and plain TypeScript write the same bytes when each takes the most likely one', async () => {
  const onnx = await openOnnxModel(file);
  const plain = createPlainModel(file);
  for (const text of ['Call me Ishmael.', 'CHAPTER 136. ', '\u00e9\u0000\u{1F433}', 'x']) {
    assert.deepEqual(await greedy(onnx, Buffer.from(text), 64), await greedy(plain, Buffer.from(text), 64));
  }
  await onnx.close();
});

test('what both compute differs by rounding alone, and reading at once or byte by byte is the same', async () => {
  const onnx = await openOnnxModel(file);
  const [whole, single, plain] = [onnx.open({ hasStreams: true }), onnx.open({ hasStreams: true }), createPlainModel(file).open()];
  const text = [...EXCERPT.subarray(0, 40)];
  const one = await whole.start(text);
  let other = await single.start(text.slice(0, 1));
  for (const id of text.slice(1)) other = await single.append(id);
  const third = await plain.start(text);
  const nearest = (left: readonly Float32Array[], right: readonly Float32Array[]) =>
    left.forEach((row, layer) => {
      for (const [at, value] of row.entries()) assert.ok(Math.abs(value - (right[layer]?.[at] as number)) < 1e-3, `${layer} ${at}`);
    });
  nearest([one, one], [other, third]);
  nearest(whole.streams(), single.streams());
  nearest(whole.streams(), plain.streams());
  await onnx.close();
});

test('the loss that training counts is the one that generation sees', async () => {
  const text = EXCERPT.subarray(0, 33);
  const reading = createPlainModel(file).open();
  let total = 0;
  for (let at = 1; at < text.length; at += 1) {
    const logits = at === 1 ? await reading.start([text[0] as number]) : await reading.append(text[at - 1] as number);
    total -= logProbabilities(logits)[text[at] as number] as number;
  }
  const counted = await lossOf(file.shape, file.weights, text, { batch: 1, length: 32 });
  assert.ok(Math.abs(total / 32 - counted) < 1e-4, `${total / 32} and ${counted}`);
});

test('the ONNX export is the one whose hash stands beside the weights, and it passes the check of models', () => {
  const graph = generationGraph(file.shape, file.weights);
  const readMe = readFileSync(join(dirname(WEIGHTS_PATH), 'README.md'), 'utf8');
  for (const each of [graph, bytes]) assert.ok(readMe.includes(createHash('sha256').update(each).digest('hex')));
  const held = checkOnnx(graph).graph?.initializer.find(({ name }) => name === 'blk.1.ffn_up.weight')?.rawData as Uint8Array;
  assert.deepEqual(new Float32Array(held.slice().buffer), file.weights['blk.1.ffn_up.weight']);
});

test('a training step is a closed graph that passes the check of models, and its bytes name it', () => {
  const graph = trainingGraph(LANGUAGE_MODEL, 8, 256);
  assert.ok(Buffer.from(graph).equals(Buffer.from(trainingGraph(LANGUAGE_MODEL, 8, 256))));
  const outputs = checkOnnx(graph).graph?.output.map(({ name }) => name);
  assert.deepEqual(outputs, ['loss', ...Object.keys(parameterShapes(LANGUAGE_MODEL)).map((name) => `gradient.${name}`)]);
  assert.ok(graph.length < 1 << 20);
});

test('a GGUF file reads back as it was written', () => {
  const name = fc.string({ minLength: 1, maxLength: 9 });
  const value = fc.oneof(
    name,
    fc.boolean(),
    fc.nat(),
    fc.float({ noNaN: true }).map((float) => ({ float })),
    fc.array(name, { minLength: 1, maxLength: 4 }),
    fc.array(fc.integer(), { minLength: 1, maxLength: 4 }),
  );
  const tensor = fc
    .tuple(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
      fc.constantFrom('F32' as const, 'F16' as const),
      fc.integer({ min: -2048, max: 2048 }),
    )
    .map(([shape, type, from]) => ({ shape, type, data: new Float32Array(shape.reduce((size, each) => size * each, 1)).fill(from) }));
  fc.assert(
    fc.property(fc.dictionary(name, value, { noNullPrototype: false }), fc.dictionary(name, tensor), (metadata, tensors) => {
      fc.pre(!('general.alignment' in metadata));
      const read = decodeGguf(encodeGguf({ metadata, tensors } as GgufFile));
      assert.deepEqual(Object.entries(read.metadata), Object.entries(metadata));
      assert.deepEqual(Object.entries(read.tensors), Object.entries(tensors));
    }),
  );
});

test('a GGUF header that lies about lengths, counts, types or places is refused before anything is taken at its word', () => {
  const tensors = { a: { shape: [2, 3], type: 'F32' as const, data: new Float32Array(6) } };
  const good = encodeGguf({ metadata: { text: 'abc', list: ['x', 'y'], flag: true }, tensors });
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.constantFrom(0xff, 0x7f, 0x80, 0, 1), fc.nat(good.length), (at, byte, length) => {
      const bad = good.slice();
      bad[at] = byte;
      for (const sample of [bad, good.subarray(0, length)]) {
        try {
          decodeGguf(sample);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'gguf-malformed', String(error));
        }
      }
    }),
    { numRuns: 500 },
  );
  assert.throws(() => decodeGguf(good.subarray(0, good.length - 33)), { code: 'gguf-malformed' });
});

test('a model of another form is refused', () => {
  const { metadata, tensors } = decodeGguf(bytes);
  const changed = (change: Record<string, string | number>) => () =>
    decodeModel(encodeGguf({ metadata: { ...metadata, ...change }, tensors }));
  for (const change of [
    { 'general.architecture': 'gpt2' },
    { 'llama.vocab_size': 255 },
    { 'llama.block_count': 5 },
    { 'llama.attention.head_count_kv': 2 },
    { 'llama.attention.head_count': 0 },
    { 'llama.embedding_length': 64 },
  ] as Record<string, string | number>[]) {
    assert.throws(changed(change), { code: 'model-unreadable' });
  }
  assert.equal(Object.keys(tensors).join(), Object.keys(parameterShapes(LANGUAGE_MODEL)).join());
});

async function greedy(model: LanguageModel, prompt: Uint8Array, count: number): Promise<number[]> {
  const reading = model.open();
  let logits = await reading.start([...prompt]);
  const ids: number[] = [];
  while (ids.length < count) {
    ids.push(logits.indexOf(logits.reduce((most, each) => Math.max(most, each))));
    logits = await reading.append(ids.at(-1) as number);
  }
  return ids;
}
