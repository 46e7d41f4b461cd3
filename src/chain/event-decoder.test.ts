import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Abi, decodeEventLog, encodeAbiParameters, encodeEventTopics, type Hex, parseAbi } from 'viem';
import { abis } from './contracts.generated.ts';
import { createLogDecoder, eventTopics } from './event-decoder.ts';

const abi: Abi = parseAbi([
  'event Mixed(address indexed a, uint64 indexed b, bytes4 indexed c, int128 d, bool e, uint8 f, int8 g, bytes20 h, uint256 i)',
  'event Dynamic(string indexed a, uint256 b, bytes c, (uint8 x, string y) d, uint16[] e)',
  'event Empty()',
]);
const hex = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes): Hex => `0x${Buffer.from(bytes).toString('hex')}`);
const unsigned = (bits: number) => fc.oneof(fc.bigInt({ min: 0n, max: 1000n }), fc.bigInt({ min: 0n, max: 2n ** BigInt(bits) - 1n }));

test('events of static types decode as viem decodes them', () => {
  const decode = createLogDecoder(abi);
  const values = fc.record({
    a: hex(20),
    b: unsigned(64),
    c: hex(4),
    d: fc.bigInt({ min: -(2n ** 127n), max: 2n ** 127n - 1n }),
    e: fc.boolean(),
    f: fc.integer({ min: 0, max: 255 }),
    g: fc.integer({ min: -128, max: 127 }),
    h: hex(20),
    i: unsigned(256),
  });
  fc.assert(
    fc.property(values, (args) => {
      const topics = encodeEventTopics({ abi, eventName: 'Mixed', args }) as Hex[];
      const types = ['int128', 'bool', 'uint8', 'int8', 'bytes20', 'uint256'].map((type) => ({ type }));
      const data = encodeAbiParameters(types, [args.d, args.e, args.f, args.g, args.h, args.i]);
      const reference = decodeEventLog({ abi, topics: topics as [Hex, ...Hex[]], data });
      assert.deepEqual(decode({ topics, data }), { name: reference.eventName, args: reference.args });
    }),
  );
});

test('events of dynamic types decode as viem decodes them', () => {
  const decode = createLogDecoder(abi);
  const [, event] = abi as unknown as [unknown, { inputs: { indexed?: boolean }[] }];
  const types = event.inputs.filter((input) => !input.indexed) as never;
  fc.assert(
    fc.property(unsigned(256), hex(37), fc.string(), fc.array(fc.integer({ min: 0, max: 65_535 })), (b, c, y, e) => {
      const topics = encodeEventTopics({ abi, eventName: 'Dynamic', args: { a: 'text' } }) as Hex[];
      const data = encodeAbiParameters(types, [b, c, { x: 7, y }, e] as never);
      const reference = decodeEventLog({ abi, topics: topics as [Hex, ...Hex[]], data });
      assert.deepEqual(decode({ topics, data }), { name: reference.eventName, args: reference.args });
    }),
  );
});

test('unknown, short and misshapen logs are no events', () => {
  const decode = createLogDecoder(abi, ['Mixed', 'Dynamic']);
  const [mixed, dynamic] = eventTopics(abi, ['Mixed', 'Dynamic']) as [Hex, Hex];
  const word: Hex = `0x${'00'.repeat(32)}`;
  assert.equal(decode({ topics: [], data: '0x' }), undefined);
  assert.equal(decode({ topics: [word], data: '0x' }), undefined);
  assert.equal(decode({ topics: eventTopics(abi, ['Empty']), data: '0x' }), undefined);
  assert.equal(decode({ topics: [mixed, word], data: '0x' }), undefined);
  assert.equal(decode({ topics: [mixed, word, word, word], data: '0x00' }), undefined);
  assert.equal(decode({ topics: [dynamic, word], data: word }), undefined);
});

test('every event of the contracts has its own topic within its contract', () => {
  for (const [name, moduleAbi] of Object.entries(abis)) {
    const topics = eventTopics(moduleAbi as unknown as Abi);
    assert.equal(new Set(topics).size, topics.length, name);
  }
});
