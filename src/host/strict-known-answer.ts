import { encodeNumber } from './wasm-module.ts';

/**
 * State hashes of the known-answer module after its start and its two segments. Taken on x86-64; another machine that gives others does not
 * do WebAssembly's arithmetic as it is written.
 */
export const KNOWN_ANSWER: readonly string[] = [
  '0xbd469af605ae6638daef9e68379e4bdf122bdc8cd85e41665930ce88ba396636',
  '0x030bacb3076679d3a8e0a0d9adbf1373bbc6d9ab6bafb896e86b6dd7e2c4ca6b',
  '0xe1cf2ecbfeaf7584e5c9e3c333c6132d9fa3ad481198445a9f5547fc54cf49af',
];
/** Memory of the known-answer module. */
export const KNOWN_ANSWER_MEMORY_BYTES = 2 * 65_536;
/** What it is begun with. */
export const KNOWN_ANSWER_INPUT = Uint8Array.from([0x4d, 0x52, 0x53, 0x31]);

type Code = readonly number[];
const ROUNDS = 200;
const TABLE_AT = 2048;

const [X, AT, ROUND, A, B, C, D, P, Q] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const get = (local: number): Code => [0x20, local];
const set = (local: number): Code => [0x21, local];
const i32 = (value: number): Code => [0x41, ...(value < 64 ? [value] : [(value % 128) | 0x80, ...i32(Math.floor(value / 128)).slice(1)])];
const f32 = (value: number): Code => [0x43, ...Buffer.from(Float32Array.of(value).buffer)];
const vector = (sub: number): Code => [0xfd, ...encodeNumber(sub)];
const shift = (by: number, operation: number): Code => [...get(X), ...get(X), ...i32(by), operation, 0x73, ...set(X)];
/** The next number of xorshift32 (Marsaglia 2003), on the stack. */
const draw: Code = [...shift(13, 0x74), ...shift(17, 0x76), ...shift(5, 0x74), ...get(X)];
const draw64: Code = [...draw, 0xad, 0x42, 32, 0x86, ...draw, 0xad, 0x84];
/** A number of middling size: sums of products show where steps are joined or their order changed. */
const middling: Code = [...draw, 0xb2, ...f32(1e-6), 0x94];

/** Operators on one and two operands, by opcode: rounding, square root, sign, arithmetic, least and greatest, sign copied. */
const F32_UNARY = [0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x91];
const F32_BINARY = [0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98];
const F64_UNARY = [0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f];
const F64_BINARY = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6];
const F32_VECTORS = [0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xeb];
const F64_VECTORS = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7];

/** Every result with the code that computes it and the instruction that keeps it. */
const RESULTS: readonly { bytes: number; code: Code; store: Code }[] = [
  ...F32_UNARY.map((operation) => single([...get(A), operation])),
  ...F32_BINARY.map((operation) => single([...get(A), ...get(B), operation])),
  ...F64_UNARY.map((operation) => double([...get(C), operation])),
  ...F64_BINARY.map((operation) => double([...get(C), ...get(D), operation])),
  single([...middling, ...middling, 0x94, ...middling, 0x92]),
  single([...get(C), 0xb6]),
  double([...get(A), 0xbb]),
  single([...get(A), 0xfc, 0, 0xb2]),
  double([...get(C), 0xfc, 6, 0xb9]),
  ...F32_VECTORS.map((operation) => wide([...get(P), ...get(Q), ...vector(operation)])),
  ...F64_VECTORS.map((operation) => wide([...get(P), ...get(Q), ...vector(operation)])),
  wide([...get(P), ...get(Q), ...vector(0xe6), ...get(P), ...vector(0xe4)]),
];

function single(code: Code) {
  return { bytes: 4, code, store: [0x38, 2] };
}
function double(code: Code) {
  return { bytes: 8, code, store: [0x39, 3] };
}
function wide(code: Code) {
  return { bytes: 16, code, store: [...vector(11), 4] };
}

/**
 * A module whose states show how a machine calculates: all float instructions on random bits (subnormal numbers, infinities and NaNs among
 * them), scalar and vector, sums of products, conversions, a float global.
 */
export function knownAnswerModule(): Uint8Array {
  let offset = 0;
  const stores = RESULTS.flatMap(({ bytes, code, store }) => {
    const at = offset;
    offset += bytes;
    return [...get(AT), ...code, ...store, ...encodeNumber(at)];
  });
  const round: Code = [
    ...[...draw, 0xbe, ...set(A), ...draw, 0xbe, ...set(B), ...draw64, 0xbf, ...set(C), ...draw64, 0xbf, ...set(D)],
    ...[...get(A), ...vector(0x13), ...get(B), ...vector(0x20), 1, ...set(P)],
    ...[...get(B), ...vector(0x13), ...middling, ...vector(0x20), 2, ...set(Q)],
    ...stores,
    ...[...get(AT), ...i32(offset), 0x6a, ...set(AT), ...get(C), ...get(A), 0xbb, 0xa0, 0x24, 1],
    ...[...get(ROUND), ...i32(1), 0x6a, 0x22, ROUND, ...i32(ROUNDS), 0x48, 0x0d, 0],
  ];
  const segment = [...[0x23, 0], ...set(X), ...i32(TABLE_AT), ...set(AT), 0x03, 0x40, ...round, 0x0b, ...get(X), 0x24, 0];
  const begin = [...get(0), 0x28, 2, 0, 0x24, 0];
  return moduleOf({ begin, segment });
}

function moduleOf({ begin, segment }: { begin: Code; segment: Code }): Uint8Array {
  const list = (items: readonly Code[]): Code => [...encodeNumber(items.length), ...items.flat()];
  const sized = (bytes: Code): Code => [...encodeNumber(bytes.length), ...bytes];
  const section = (id: number, content: Code): Code => [id, ...sized(content)];
  const name = (text: string): Code => sized([...Buffer.from(text)]);
  const body = (locals: Code, code: Code): Code => sized([...locals, ...code, 0x0b]);
  const types = [
    [0x60, 1, 0x7f, 1, 0x7f],
    [0x60, 3, 0x7f, 0x7f, 0x7f, 0],
    [0x60, 1, 0x7f, 0],
    [0x60, 0, 1, 0x7e],
  ];
  const segmentLocals = list([
    [3, 0x7f],
    [2, 0x7d],
    [2, 0x7c],
    [2, 0x7b],
  ]);
  const bodies = [body([0], i32(1024)), body([0], begin), body(segmentLocals, segment), body([0], [0x42, 0])];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(types)),
    ...section(3, list([[0], [1], [2], [3]])),
    ...section(5, list([[0, 1]])),
    ...section(
      6,
      list([
        [0x7f, 1, 0x41, 0, 0x0b],
        [0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b],
      ]),
    ),
    ...section(7, list(['allocate', 'begin', 'segment', 'output'].map((each, index) => [...name(each), 0, index]))),
    ...section(10, list(bodies)),
  ]);
}
