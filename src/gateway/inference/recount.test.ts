import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { InferenceReceipt, OfferedModel, TokenCounter } from '../../inference/index.ts';
import { type Recounted, recountFault } from './recount.ts';

const ROOT = `0x${'ab'.repeat(32)}` as const;
const ANSWER = Buffer.from(JSON.stringify({ choices: [{ message: { content: 'a whale' } }] }));

/** A chat's answer for which a miner has signed these counts. */
function answered(input: number, output: number): Recounted {
  const receipt = { inputs: { units: BigInt(input) }, outputs: { units: BigInt(output) } } as InferenceReceipt;
  return {
    model: { root: ROOT, unit: 'tokens' } as OfferedModel,
    question: { task: 'chat', stream: false, inputMax: () => 600 } as unknown as Recounted['question'],
    request: { path: '/v1/chat/completions', query: '', contentType: 'application/json', bytes: Buffer.from('{}') },
    outcome: { signed: { receipt, signature: '0x' }, encoded: '', fault: undefined, ttftMs: 1, passedBytes: ANSWER.length, kept: ANSWER },
  };
}

const counterOf = (input: number, output: number): Map<typeof ROOT, TokenCounter> => new Map([[ROOT, async () => ({ input, output })]]);

test('nobody is paid above a recount and its tolerance, for input or output, and no honest count is doubted', async () => {
  const units = fc.integer({ min: 0, max: 5_000 });
  await fc.assert(
    fc.asyncProperty(units, units, units, units, async (input, output, moreIn, moreOut) => {
      const honest = counterOf(input, output);
      assert.equal(await recountFault(honest, answered(input, output)), undefined);
      const [claimedIn, claimedOut] = [input + moreIn, output + moreOut];
      const found = await recountFault(honest, answered(claimedIn, claimedOut));
      const paid = found ?? { input: BigInt(claimedIn), output: BigInt(claimedOut) };
      const most = (count: number) => BigInt(count + Math.floor(count / 50) + 4);
      assert.ok(paid.input <= most(input) && paid.output <= most(output));
      assert.equal(found !== undefined, BigInt(claimedIn) > most(input) || BigInt(claimedOut) > most(output));
    }),
  );
});

test('without the tokenizer only what cannot be is refused: more tokens than the answer has bytes, more input than the request can have been', async () => {
  assert.equal(await recountFault(new Map(), answered(600, ANSWER.length)), undefined);
  assert.deepEqual((await recountFault(new Map(), answered(600, ANSWER.length + 1)))?.output, BigInt(ANSWER.length));
  assert.deepEqual((await recountFault(undefined, answered(601, 3)))?.input, 600n);
});
