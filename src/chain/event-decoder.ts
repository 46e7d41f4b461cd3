import { type Abi, type AbiEvent, type AbiParameter, decodeAbiParameters, getAddress, type Hex, toEventSelector } from 'viem';

/** A log as JSON-RPC gives it. */
export interface RawLog {
  address: Hex;
  topics: readonly Hex[];
  data: Hex;
  blockNumber: Hex;
  blockHash: Hex;
  blockTimestamp?: Hex;
  transactionHash: Hex;
  logIndex: Hex;
  removed?: boolean;
}

/** An event's name and its arguments by name. */
export interface DecodedLog {
  name: string;
  args: Record<string, unknown>;
}

/** Decodes logs of one contract; `undefined` for an event that the ABI does not have, or whose shape is another. */
export type LogDecoder = (log: Pick<RawLog, 'topics' | 'data'>) => DecodedLog | undefined;

type WordReader = (word: string) => unknown;
type EventDecoder = (topics: readonly Hex[], data: Hex) => Record<string, unknown> | undefined;

/**
 * A decoder for the events of an ABI (all of them, or those named), prepared once: several times faster than viem's `decodeEventLog`
 * for events of static types, the same result for all.
 */
export function createLogDecoder(abi: Abi, names?: readonly string[]): LogDecoder {
  const byTopic = new Map<string, { name: string; decode: EventDecoder }>();
  for (const item of abi) {
    if (item.type !== 'event' || item.anonymous || (names !== undefined && !names.includes(item.name))) continue;
    byTopic.set(toEventSelector(item), { name: item.name, decode: eventDecoder(item) });
  }
  return ({ topics, data }) => {
    const event = byTopic.get(topics[0] ?? '');
    const args = event?.decode(topics, data);
    return event === undefined || args === undefined ? undefined : { name: event.name, args };
  };
}

/** The first topics of the named events of an ABI, for a log filter. */
export function eventTopics(abi: Abi, names?: readonly string[]): Hex[] {
  return abi
    .filter((item): item is AbiEvent => item.type === 'event' && !item.anonymous && (names === undefined || names.includes(item.name)))
    .map((item) => toEventSelector(item));
}

function eventDecoder(event: AbiEvent): EventDecoder {
  const indexed = event.inputs.filter((input) => input.indexed);
  const plain = event.inputs.filter((input) => !input.indexed);
  const topicReaders = indexed.map((input) => [input.name ?? '', wordReader(input) ?? ((word: string) => `0x${word}`)] as const);
  const wordReaders = plain.map((input) => [input.name ?? '', wordReader(input)] as const);
  const isStatic = wordReaders.every(([, read]) => read !== undefined);
  return (topics, data) => {
    if (topics.length !== topicReaders.length + 1) return undefined;
    const args: Record<string, unknown> = {};
    for (let index = 0; index < topicReaders.length; index += 1) {
      const [name, read] = topicReaders[index] as (typeof topicReaders)[number];
      args[name] = read((topics[index + 1] as Hex).slice(2));
    }
    if (!isStatic) {
      try {
        const values = decodeAbiParameters(plain, data) as readonly unknown[];
        plain.forEach((input, index) => {
          args[input.name ?? ''] = values[index];
        });
      } catch {
        return undefined;
      }
      return args;
    }
    if (data.length < 2 + 64 * wordReaders.length) return undefined;
    for (let index = 0, at = 2; index < wordReaders.length; index += 1, at += 64) {
      const [name, read] = wordReaders[index] as readonly [string, WordReader];
      args[name] = read(data.slice(at, at + 64));
    }
    return args;
  };
}

/** Reads one 32-byte word (64 hex digits) of a static type as viem does; `undefined` for dynamic types. */
function wordReader(input: AbiParameter): WordReader | undefined {
  const { type } = input;
  if (type === 'address') return readAddress;
  if (type === 'bool') return (word) => word.endsWith('1');
  const fixedBytes = /^bytes(\d+)$/.exec(type);
  if (fixedBytes !== null) {
    const digits = 2 * Number(fixedBytes[1]);
    return (word) => `0x${word.slice(0, digits)}`;
  }
  const integer = /^(u?)int(\d+)$/.exec(type);
  if (integer === null) return undefined;
  const bits = Number(integer[2]);
  // viem gives numbers up to 48 bits and bigints above; typed ABIs say the same
  if (integer[1] === 'u') return bits <= 48 ? (word) => Number.parseInt(word.slice(52), 16) : readUnsigned;
  return bits <= 48 ? (word) => Number(BigInt.asIntN(256, BigInt(`0x${word}`))) : (word) => BigInt.asIntN(256, BigInt(`0x${word}`));
}

function readUnsigned(word: string): bigint {
  // most amounts and ids fit into 52 bits: parsing those as a number first is twice as fast
  return word.startsWith('000000000000000000000000000000000000000000000000000')
    ? BigInt(Number.parseInt(word.slice(51), 16))
    : BigInt(`0x${word}`);
}

const checksums = new Map<string, string>();

function readAddress(word: string): string {
  const plain = word.slice(24);
  let known = checksums.get(plain);
  if (known === undefined) {
    if (checksums.size >= 65_536) checksums.clear();
    known = getAddress(`0x${plain}`);
    checksums.set(plain, known);
  }
  return known;
}
