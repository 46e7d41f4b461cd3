import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { checkGguf } from './gguf-check.ts';

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(BigInt(Buffer.byteLength(value))), Buffer.from(value)]);
const entry = (key: string, type: number, value: Buffer) => Buffer.concat([text(key), u32(type), value]);
const tensor = (name: string, dims: bigint[], type: number, offset: bigint) =>
  Buffer.concat([text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(offset)]);

const ARCHITECTURE = entry('general.architecture', 8, text('llama'));
const TENSOR = tensor('token_embd.weight', [32n, 2n], 0, 0n);

function header(parts: { version?: number; tensors?: bigint; entries?: bigint; metadata?: Buffer[]; list?: Buffer[] } = {}): Buffer {
  const { version = 3, metadata = [ARCHITECTURE], list = [TENSOR] } = parts;
  const counts = [u64(parts.tensors ?? BigInt(list.length)), u64(parts.entries ?? BigInt(metadata.length))];
  return Buffer.concat([Buffer.from('GGUF'), u32(version), ...counts, ...metadata, ...list]);
}

const FILE_BYTES = 4_096;
const refuses = (bytes: Buffer, reason: RegExp, fileBytes = FILE_BYTES) =>
  assert.throws(
    () => checkGguf(bytes, fileBytes),
    (error: Error & { code: string }) => {
      assert.equal(error.code, 'bad-model');
      assert.match(error.message, reason);
      return true;
    },
  );

describe('the header of a GGUF file', () => {
  it('passes when it is sound, and says what the file is', () => {
    const summary = checkGguf(header(), FILE_BYTES);
    assert.deepEqual(
      { ...summary, dataAt: summary.dataAt % 32 },
      { version: 3, architecture: 'llama', alignment: 32, tensors: 1, metadata: 1, dataAt: 0 },
    );
  });

  it('is refused when its counts are absurd: nothing is allocated for them', () => {
    refuses(header({ tensors: 1n << 60n }), /tensors, at most/);
    refuses(header({ entries: (1n << 64n) - 1n }), /metadata entries, at most/);
    const strings = entry('tokenizer.ggml.tokens', 9, Buffer.concat([u32(8), u64(1n << 62n)]));
    refuses(header({ metadata: [strings] }), /elements of an array, at most/);
    refuses(header({ metadata: [entry('x', 8, u64(1n << 63n))] }), /bytes of text, at most/);
  });

  it('is refused when sizes overflow, lie outside the file, or overlap', () => {
    refuses(header({ list: [tensor('t', [1n << 63n, 2n], 0, 0n)] }), /elements/);
    refuses(header({ list: [tensor('t', [0n], 0, 0n)] }), /elements/);
    refuses(header({ list: [tensor('t', [1n << 20n], 0, 0n)] }), /tensors end at byte/);
    refuses(header({ list: [tensor('t', [32n], 0, 1n << 62n)] }), /begins at/);
    refuses(header({ list: [TENSOR, tensor('b', [32n], 0, 32n)] }), /overlaps/);
    refuses(header({ list: [tensor('t', [33n], 2, 0n)] }), /whole number of blocks/);
  });

  it('is refused for unknown types, ranks, versions, alignments and names that stand twice', () => {
    refuses(header({ version: 1 }), /version 1/);
    refuses(Buffer.from('NOPE'.padEnd(64)), /does not begin/);
    refuses(header({ list: [tensor('t', [32n], 77, 0n)] }), /type 77/);
    refuses(header({ list: [tensor('t', [1n, 1n, 1n, 1n, 1n], 0, 0n)] }), /5 dimensions/);
    for (const alignment of [0, 3, 1 << 20]) refuses(header({ metadata: [entry('general.alignment', 4, u32(alignment))] }), /alignment is/);
    refuses(header({ metadata: [entry('general.alignment', 6, u32(32))] }), /alignment is not/);
    refuses(header({ list: [TENSOR, TENSOR] }), /stands twice/);
    refuses(header({ metadata: [ARCHITECTURE, ARCHITECTURE] }), /stands twice/);
    refuses(header({ metadata: [entry('x', 9, Buffer.concat([u32(9), u64(1n)]))] }), /array of arrays/);
    refuses(header({ list: [tensor('t', [32n], 0, 8n)] }), /begins at 8/);
  });

  it('that has been changed or cut anywhere passes or is refused as a bad model, and nothing else happens', () => {
    const whole = header({
      metadata: [ARCHITECTURE, entry('general.alignment', 4, u32(64)), entry('a', 9, Buffer.concat([u32(8), u64(1n), text('b')]))],
    });
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, flip, isCut) => {
        const bytes = Buffer.from(isCut ? whole.subarray(0, at) : whole);
        if (!isCut) bytes[at] = (bytes[at] as number) ^ flip;
        try {
          checkGguf(bytes, FILE_BYTES);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'bad-model');
        }
      }),
      { numRuns: 500 },
    );
  });
});
