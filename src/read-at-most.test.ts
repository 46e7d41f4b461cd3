import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readAtMost, readRequest } from './read-at-most.ts';

test('a body is read whole up to its limit and refused above it, however it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }), fc.nat(300), async (pieces, bytesMax) => {
      const whole = Buffer.concat(pieces);
      const body = () => new Response(ReadableStream.from(pieces)).body;
      if (whole.length <= bytesMax) {
        assert.deepEqual(await readAtMost(body(), bytesMax), whole);
        assert.deepEqual(await readRequest({ body: body() }, bytesMax), whole);
      } else {
        await assert.rejects(readAtMost(body(), bytesMax), { code: 'answer-too-long', actor: 'peer' });
        await assert.rejects(readRequest({ body: body() }, bytesMax), { code: 'body-too-big', actor: 'caller' });
      }
    }),
  );
});

test('a body without end is let go at the first byte too many', async () => {
  let sent = 0;
  let isLetGo = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        sent += 1024;
        yield new Uint8Array(1024);
      }
    } finally {
      isLetGo = true;
    }
  }
  await assert.rejects(readAtMost(endless(), 10_000), { code: 'answer-too-long' });
  assert.ok(isLetGo && sent <= 11_264);
  assert.equal((await readAtMost(null, 0)).length, 0);
});
