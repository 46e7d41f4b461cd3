import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AnswerContent, contentOf, readAnswer } from './answer-content.ts';
import { likelihoodQuality, qualityOf } from './answer-quality.ts';
import { boxLikeness, type LabelledBox, overlap } from './box-match.ts';
import { editDistance, textLikeness, WHOLE, wordLikeness } from './text-distance.ts';

const words = fc.array(fc.constantFrom('call', 'me', 'ishmael', 'some', 'years', 'ago'), { maxLength: 12 });
const boxes = fc.array(
  fc.record({
    label: fc.constantFrom('cat', 'dog'),
    box: fc.record({
      x: fc.integer({ min: 0, max: 90 }),
      y: fc.integer({ min: 0, max: 90 }),
      width: fc.integer({ min: 1, max: 50 }),
      height: fc.integer({ min: 1, max: 50 }),
    }),
  }),
  { maxLength: 8 },
);

test('edit distance is a metric, and none between equal lists', () => {
  fc.assert(
    fc.property(words, words, words, (one, other, third) => {
      assert.equal(editDistance(one, one), 0);
      assert.equal(editDistance(one, other), editDistance(other, one));
      assert.ok(editDistance(one, other) <= editDistance(one, third) + editDistance(third, other));
      assert.ok(editDistance(one, other) >= Math.abs(one.length - other.length));
    }),
    { numRuns: 60 },
  );
});

test('text and words are compared by what they say: case, spacing and, for speech, points are left aside', () => {
  assert.equal(textLikeness('The  Mill\nturns', 'the mill turns'), WHOLE);
  assert.equal(textLikeness('', ''), WHOLE);
  assert.equal(textLikeness('abcd', 'abcx'), 750_000);
  assert.equal(wordLikeness('Call me, Ishmael.', 'call me ishmael'), WHOLE);
  assert.equal(wordLikeness('call him ishmael', 'call me ishmael'), 666_666);
  assert.equal(wordLikeness('anything at all that is far longer than that', 'no'), 0);
});

test('boxes fit themselves wholly, never more than wholly, and the same both ways; another label fits nothing', () => {
  fc.assert(
    fc.property(boxes, boxes, (one, other) => {
      assert.equal(boxLikeness(one, one), WHOLE);
      const fit = boxLikeness(one, other);
      assert.ok(fit >= 0 && fit <= WHOLE);
      assert.equal(fit, boxLikeness(other, one));
    }),
    { numRuns: 60 },
  );
  const there: LabelledBox = { label: 'cat', box: { x: 0, y: 0, width: 10, height: 10 } };
  assert.equal(boxLikeness([{ ...there, label: 'dog' }], [there]), 0);
  assert.equal(overlap(there.box, { x: 5, y: 0, width: 10, height: 10 }), 333_333);
  assert.equal(boxLikeness([there, { ...there, box: { x: 50, y: 50, width: 5, height: 5 } }], [there]), 666_666);
});

test('every task has its measure: the truth is whole, garbage is nothing, an answer of another kind is nothing', () => {
  const truths: AnswerContent[] = [
    { task: 'chat', text: 'the whale turned' },
    { task: 'embedding', vectors: [[1, 0, 0.5]] },
    { task: 'detection', objects: [{ label: 'cat', box: { x: 1, y: 1, width: 5, height: 5 } }] },
    { task: 'ocr', text: 'to be or not' },
    { task: 'speech', audio: new Uint8Array([1]), heard: 'stop' },
    { task: 'transcription', text: 'stop now' },
    { task: 'activity', segments: [{ startMs: 100, endMs: 900 }] },
    { task: 'command', command: 'stop' },
    { task: 'moderation', flagged: [true, false] },
  ];
  const garbage: AnswerContent[] = [
    { task: 'chat', text: '§§§§' },
    { task: 'embedding', vectors: [[0, 1, 0]] },
    { task: 'detection', objects: [] },
    { task: 'ocr', text: '' },
    { task: 'speech', audio: new Uint8Array([2]), heard: 'yes' },
    { task: 'transcription', text: 'la la' },
    { task: 'activity', segments: [] },
    { task: 'command', command: undefined },
    { task: 'moderation', flagged: [false, true] },
  ];
  truths.forEach((truth, index) => {
    assert.equal(qualityOf(truth, truth), WHOLE, truth.task);
    assert.equal(qualityOf(garbage[index] as AnswerContent, truth), 0, truth.task);
    assert.equal(qualityOf(garbage[index] as AnswerContent, truths[(index + 1) % truths.length] as AnswerContent), 0, truth.task);
  });
  assert.equal(qualityOf({ task: 'activity', segments: [{ startMs: 0, endMs: 500 }] }, truths[6] as AnswerContent), 444_444);
  assert.equal(qualityOf({ task: 'embedding', vectors: [[1, Number.NaN, 1]] }, truths[1] as AnswerContent), 0);
});

test('a text that the reference finds as likely as its own is whole; one by chance is nothing', () => {
  assert.equal(likelihoodQuality(1.4, 1.4, 5.5), WHOLE);
  assert.equal(likelihoodQuality(0.2, 1.4, 5.5), WHOLE);
  assert.equal(likelihoodQuality(9, 1.4, 5.5), 0);
  assert.equal(likelihoodQuality(Number.NaN, 1.4, 5.5), 0);
  assert.equal(likelihoodQuality(3.45, 1.4, 5.5), 500_000);
});

test('answers are read alike from whole chats, responses and streams, and what is no answer is refused', () => {
  const chat = JSON.stringify({ choices: [{ message: { content: 'ab' } }] });
  const responses = JSON.stringify({ output: [{ type: 'message', content: [{ text: 'a' }, { text: 'b' }] }] });
  const stream = ['a', 'b'].map((content) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`).join('');
  for (const [type, body] of [
    ['application/json', chat],
    ['application/json', responses],
    ['text/event-stream', `${stream}data: [DONE]\n\n`],
  ] as const) {
    assert.deepEqual(readAnswer('chat', type, Buffer.from(body)), { task: 'chat', text: 'ab' });
  }
  const vectors = Buffer.from(new Float32Array([1, 2]).buffer).toString('base64');
  const embedding = readAnswer('embedding', 'application/json', Buffer.from(JSON.stringify({ data: [{ embedding: vectors }] })));
  const own = contentOf({
    task: 'embedding',
    vectors: [new Float32Array([1, 2])],
    usage: { unit: 'tokens', input: 1, output: 0 },
    outputDigest: '0x',
  });
  assert.equal(qualityOf(embedding, own), WHOLE);
  const nothing = { code: 'bad-answer' };
  for (const body of ['{', '[]', '{"choices":[]}', '{"choices":"x"}', 'null'])
    assert.throws(() => readAnswer('chat', 'application/json', Buffer.from(body)), nothing);
  assert.throws(() => readAnswer('detection', 'application/json', Buffer.from('{"objects":[{"label":"x","box":{"x":"1"}}]}')), nothing);
  assert.throws(() => readAnswer('activity', 'application/json', Buffer.from(`{"segments":[${'{},'.repeat(2000)}{}]}`)), nothing);
  fc.assert(
    fc.property(fc.json(), fc.constantFrom('chat' as const, 'detection' as const, 'moderation' as const), (body, task) => {
      try {
        readAnswer(task, 'application/json', Buffer.from(body));
      } catch (error) {
        assert.equal((error as { code: string }).code, 'bad-answer');
      }
    }),
    { numRuns: 60 },
  );
});
