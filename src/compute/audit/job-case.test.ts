import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LeafProof } from '../verify/commitment.ts';
import { type StateSource, withinTime } from './job-case.ts';

const LEAF: LeafProof = { index: 1, chainHash: '0x', stateHash: '0x', proof: [] };
const OPTIONS = { signal: new AbortController().signal, bytesMax: 100 };

/** Hands its states over after so many milliseconds, as long as somebody waits. */
function slow(answerMs: number): StateSource {
  return {
    fetch: (_index, { signal }) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => resolve({ leaf: LEAF, state: new Uint8Array() }), answerMs);
        signal.addEventListener('abort', () => {
          clearTimeout(timer);
          reject(signal.reason);
        });
      }),
  };
}

test('who hands a state over too slowly has handed none over', async () => {
  await assert.rejects(withinTime(slow(60_000), 20).fetch(1, OPTIONS), { name: 'TimeoutError' });
});

test('the time is for all states together: many that come late are as one that never comes', async () => {
  const source = withinTime(slow(40), 150);
  let fetched = 0;
  const fetchAll = async () => {
    for (;;) {
      await source.fetch(1, OPTIONS);
      fetched += 1;
    }
  };
  await assert.rejects(fetchAll(), { name: 'TimeoutError' });
  assert.ok(fetched <= 4, `${fetched} of a source that needs 40 ms each, in 150 ms`);
});

test('a state that comes in time is handed on, and what the caller ends is not called slow', async () => {
  const stopping = new AbortController();
  const source = withinTime(slow(1), 60_000);
  assert.equal((await source.fetch(1, OPTIONS)).leaf, LEAF);
  const asked = withinTime(slow(60_000), 60_000).fetch(1, { ...OPTIONS, signal: stopping.signal });
  stopping.abort(new RangeError('stopped'));
  await assert.rejects(asked, /stopped/);
});
