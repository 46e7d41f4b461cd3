import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDrawer, logProbabilities, readSampling } from './sampling.ts';
import { createTextPieces, type TextPiece } from './text-pieces.ts';

test('pieces put together are the text of the bytes, cut at the first stop text, and their tokens add up', () => {
  const bytes = fc.oneof(
    fc.string({ unit: 'grapheme', maxLength: 60 }).map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 60 }).map((each) => Buffer.from(each)),
    fc.array(fc.constantFrom('a', 'b', 'ab', ' '), { maxLength: 40 }).map((parts) => Buffer.from(parts.join(''))),
  );
  const stops = fc.array(fc.constantFrom('ab', 'aab', 'bb ', '\u{1F433}', 'é', 'abab'), { maxLength: 3 });
  fc.assert(
    fc.property(bytes, stops, (input, stop) => {
      const { pieces, taken } = run(input, stop);
      const text = pieces.map((piece) => piece.text).join('');
      const whole = new TextDecoder('utf-8', { ignoreBOM: true }).decode(input.subarray(0, taken), { stream: true });
      const ends = stop.map((each) => whole.indexOf(each)).filter((at) => at >= 0);
      assert.equal(text, ends.length === 0 ? whole : whole.slice(0, Math.min(...ends)));
      assert.equal(
        pieces.reduce((sum, { tokens }) => sum + tokens, 0),
        taken,
      );
      assert.ok(ends.length > 0 || taken === input.length);
    }),
    { numRuns: 500 },
  );
});

test('a stop text is found before anything of it is given out, and a beginning that leads nowhere is given out later', () => {
  assert.deepEqual(
    run(Buffer.from('the white whale! swims'), ['whale!']).pieces.map(({ text }) => text),
    ['the ', 'white ', ''],
  );
  const { pieces } = run(Buffer.from('the whales '), ['whale!']);
  assert.equal(pieces.map(({ text }) => text).join(''), 'the whales ');
});

test('a character of several bytes is never cut, and one that is never finished is left out but counted', () => {
  const { pieces } = run(Buffer.from('whale \u{1F433} whale'), []);
  assert.ok(pieces.some(({ text }) => text.includes('\u{1F433}')) && pieces.every(({ text }) => !text.includes('\uFFFD')));
  const cut = run(Buffer.from('ab\u{1F433}').subarray(0, 4), []).pieces;
  assert.equal(cut.map(({ text }) => text).join(''), 'ab');
  assert.equal(
    cut.reduce((sum, { tokens }) => sum + tokens, 0),
    4,
  );
});

test('temperature 0 draws the most likely token, the lower one of two that are equal', () => {
  const draw = createDrawer(readSampling({ temperature: 0, logprobs: 2 }));
  const { id, top } = draw(Float32Array.of(1, 3, 3, 0));
  assert.equal(id, 1);
  assert.deepEqual(
    top.map((each) => each.id),
    [1, 2],
  );
});

test('draws follow the distribution, keep to top k and top p, and are the same for a seed', () => {
  const logits = Float32Array.of(Math.log(0.5), Math.log(0.3), Math.log(0.15), Math.log(0.05));
  const counts = (sampling: object, runs = 4000) => {
    const draw = createDrawer(readSampling({ temperature: 1, seed: 5, ...sampling }));
    const found = [0, 0, 0, 0];
    for (let at = 0; at < runs; at += 1) {
      const { id } = draw(logits);
      found[id] = (found[id] as number) + 1;
    }
    return found.map((count) => count / runs);
  };
  assert.deepEqual(counts({}), counts({}));
  assert.notDeepEqual(counts({ seed: 6 }), counts({}));
  for (const [at, share] of [0.5, 0.3, 0.15, 0.05].entries()) assert.ok(Math.abs((counts({})[at] as number) - share) < 0.03);
  assert.deepEqual(counts({ topK: 2 }).slice(2), [0, 0]);
  assert.deepEqual(counts({ topP: 0.79 }).slice(2), [0, 0]);
  assert.ok((counts({ temperature: 0.3 })[0] as number) > 0.75);
  assert.ok(Math.abs(logProbabilities(logits).reduce((sum, log) => sum + Math.exp(log), 0) - 1) < 1e-12);
});

test('what this model cannot honour is refused by name', () => {
  for (const wrong of [
    { responseFormat: { type: 'json' as const } },
    { responseFormat: { type: 'schema' as const, name: 'x', schema: {} } },
    { frequencyPenalty: 1 },
    { presencePenalty: -1 },
    { temperature: 2.5 },
    { temperature: Number.NaN },
    { topP: -0.1 },
    { topK: 0 },
    { seed: 0.5 },
    { logprobs: 21 },
    { outputTokensMax: 0 },
    { outputTokensMax: 4096 },
    { stop: [''] },
  ]) {
    assert.throws(() => readSampling(wrong), { code: 'unsupported-parameter', actor: 'caller' }, JSON.stringify(wrong));
  }
});

function run(bytes: Uint8Array, stop: string[]): { pieces: TextPiece[]; taken: number } {
  const cutter = createTextPieces(stop);
  const pieces: (TextPiece | undefined)[] = [];
  let taken = 0;
  for (const byte of bytes) {
    taken += 1;
    const { piece, isStopped } = cutter.take(byte);
    pieces.push(piece);
    if (isStopped) return { pieces: pieces.filter((each) => each !== undefined), taken };
  }
  pieces.push(cutter.end());
  return { pieces: pieces.filter((each) => each !== undefined), taken };
}
