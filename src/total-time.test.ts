import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withinTotal } from './total-time.ts';

const FOREVER = () => new Promise<never>(() => {});

test('who never ends is left when the time is over, whether or not it listens', async () => {
  await assert.rejects(withinTotal(20, undefined, FOREVER), { code: 'peer-too-slow', actor: 'peer' });
  let heard: AbortSignal | undefined;
  const listening = withinTotal(20, undefined, (signal) => {
    heard = signal;
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new RangeError('cut'))));
  });
  await assert.rejects(listening, { code: 'peer-too-slow' });
  assert.ok(heard?.aborted);
});

test('what comes in time is handed on, errors too, and the caller ends it with its own reason', async () => {
  assert.equal(await withinTotal(60_000, undefined, async () => 7), 7);
  const soon = () => new Promise<number>((resolve) => setTimeout(resolve, 20, 7));
  assert.equal(await withinTotal(1e15, undefined, soon), 7);
  await assert.rejects(
    withinTotal(60_000, undefined, () => Promise.reject(new RangeError('no'))),
    /no/,
  );
  const stopping = new AbortController();
  const waiting = withinTotal(60_000, stopping.signal, FOREVER);
  stopping.abort(new RangeError('stopped'));
  await assert.rejects(waiting, /stopped/);
  await assert.rejects(
    withinTotal(60_000, stopping.signal, async () => 7),
    /stopped/,
  );
});
