import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeFrames, encodeFrame, type FrameKind } from './frames.ts';

const frames = fc.array(
  fc.record({ kind: fc.constantFrom<FrameKind>('alive', 'stdout', 'stderr', 'started', 'ended'), bytes: fc.uint8Array({ maxLength: 40 }) }),
  {
    maxLength: 12,
  },
);

async function collect(source: AsyncIterable<Uint8Array>): Promise<{ kind: FrameKind; bytes: Uint8Array }[]> {
  const found: { kind: FrameKind; bytes: Uint8Array }[] = [];
  for await (const { kind, bytes } of decodeFrames(source)) found.push({ kind, bytes: Uint8Array.from(bytes) });
  return found;
}

async function* cutAt(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('frames come out as they went in, however the stream is cut', async () => {
  await fc.assert(
    fc.asyncProperty(frames, fc.integer({ min: 1, max: 60 }), async (given, size) => {
      const wire = Buffer.concat(given.map(({ kind, bytes }) => encodeFrame(kind, bytes)));
      assert.deepEqual(
        await collect(cutAt(wire, size)),
        given.map(({ kind, bytes }) => ({ kind, bytes: Uint8Array.from(bytes) })),
      );
    }),
  );
});

test('a stream that is cut off, or claims too much, is refused', async () => {
  const wire = encodeFrame('stdout', 'abc');
  await assert.rejects(collect(cutAt(wire.subarray(0, 6), 6)), { code: 'bad-frame' });
  await assert.rejects(collect(cutAt(Uint8Array.of(9, 0, 0, 0, 0), 5)), { code: 'bad-frame' });
  await assert.rejects(collect(cutAt(Uint8Array.of(1, 255, 0, 0, 0), 5)), { code: 'bad-frame' });
});
