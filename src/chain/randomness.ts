import { type Hex, keccak256, numberToHex, toHex, toRlp } from 'viem';
import { MillraceError } from '../errors.ts';
import type { ChainClient } from './client.ts';
import { chainError } from './errors.ts';

/** What `Randomness.fix` and `Possession.prove` take besides the time: RLP of headers, `0x` where none is needed. */
export interface FixArguments {
  header: Hex;
  parent: Hex;
  oldest: Hex;
}

/** A block's header as the history contract's hash covers it. */
export interface BlockHeader {
  number: bigint;
  timestamp: bigint;
  hash: Hex;
  rlp: Hex;
}

type RpcBlock = Record<string, Hex | undefined> & { number: Hex; timestamp: Hex; hash: Hex };

/** Windows and steps of `Randomness.oldestBlock`: EIP-2935, and the BLOCKHASH opcode where that is absent. */
const HISTORY = { 'eip-2935': { blocks: 8191n, step: 64n }, blockhash: { blocks: 256n, step: 16n } } as const;
const SETTLED_BLOCKS = 64n;
const TIMESTAMPS_KEPT = 20_000;
const NOTHING: FixArguments = { header: '0x', parent: '0x', oldest: '0x' };

/** Header fields in the order of the list (go-ethereum `types.Header`); those at the end exist since London, Shanghai, Cancun, Prague … */
const HEADER_FIELDS = [
  'parentHash',
  'sha3Uncles',
  'miner',
  'stateRoot',
  'transactionsRoot',
  'receiptsRoot',
  'logsBloom',
  'difficulty',
  'number',
  'gasLimit',
  'gasUsed',
  'timestamp',
  'extraData',
  'mixHash',
  'nonce',
  'baseFeePerGas',
  'withdrawalsRoot',
  'blobGasUsed',
  'excessBlobGas',
  'parentBeaconBlockRoot',
  'requestsHash',
  'blockAccessListHash',
] as const;
const QUANTITIES = new Set(['difficulty', 'number', 'gasLimit', 'gasUsed', 'timestamp', 'baseFeePerGas', 'blobGasUsed', 'excessBlobGas']);

/**
 * What proves the randomness of `time`: the first block at or after it and its parent; when that block has left the history, the block of
 * the fixed later time that replaces it, and the oldest block that shows so. Empty when the value is fixed already, and for a beacon.
 * `undefined` while the chain has no block that late, and for one block in some dozens while the oldest one changes. Rule: `Randomness.fix`.
 * @throws header-unknown, chain-unreachable
 */
export async function fixArguments(client: ChainClient, time: bigint): Promise<FixArguments | undefined> {
  if (await client.read('randomness', 'isFixed', [time])) return NOTHING;
  if (client.manifest.randomness.source === 'beacon') return (await client.now()) >= time ? NOTHING : undefined;
  const first = await firstBlockAtOrAfter(client, time);
  if (first === undefined) return undefined;
  // The transaction is in the next block at the earliest; for some blocks from then on the oldest one stays the same.
  const head = await latestNumber(client);
  const oldestNumber = oldestBlock(client, head + 1n);
  if (first > oldestNumber) return { ...(await headerPair(client, first)), oldest: '0x' };
  // Just when the oldest block changes, nodes that simulate on the latest block would still want the one before: wait one block.
  if (oldestBlock(client, head) !== oldestNumber) return undefined;
  const oldest = await readHeader(client, oldestNumber);
  const staleAfter = await client.read('randomness', 'staleAfterSeconds');
  const later = time + ((oldest.timestamp - time) / staleAfter + 1n) * staleAfter;
  const replacement = await firstBlockAtOrAfter(client, later);
  return replacement === undefined ? undefined : { ...(await headerPair(client, replacement)), oldest: oldest.rlp };
}

/** The number of the first block whose timestamp is at or after `time` (seconds); `undefined` while there is none. */
export async function firstBlockAtOrAfter(client: ChainClient, time: bigint): Promise<bigint | undefined> {
  const head = await latestNumber(client);
  const timestamps = settledTimestamps(client);
  const timestampOf = async (number: bigint) => {
    const known = timestamps.get(number);
    if (known !== undefined) return known;
    const timestamp = BigInt((await readBlock(client, number)).timestamp);
    if (number + SETTLED_BLOCKS <= head) {
      if (timestamps.size >= TIMESTAMPS_KEPT) timestamps.clear();
      timestamps.set(number, timestamp);
    }
    return timestamp;
  };
  if ((await timestampOf(head)) < time) return undefined;
  let [before, found] = [-1n, head];
  // Most questions are about the recent past: gallop back from the head, then halve.
  for (let stride = 1n; found > 0n; stride *= 2n) {
    const number = found > stride ? found - stride : 0n;
    if ((await timestampOf(number)) < time) {
      before = number;
      break;
    }
    found = number;
  }
  while (found - before > 1n) {
    const middle = (before + found) / 2n;
    if ((await timestampOf(middle)) < time) before = middle;
    else found = middle;
  }
  return found;
}

/**
 * A block's header as RLP, proven to be right: its keccak256 is the block's hash.
 * @throws header-unknown, chain-unreachable
 */
export async function readHeader(client: Pick<ChainClient, 'public'>, number: bigint): Promise<BlockHeader> {
  const block = await readBlock(client, number);
  const fields: Hex[] = [];
  for (const name of HEADER_FIELDS) {
    const value = block[name];
    if (typeof value !== 'string') break;
    fields.push(QUANTITIES.has(name) ? quantity(value) : value);
  }
  const rlp = toRlp(fields);
  if (keccak256(rlp) === block.hash) return { number, timestamp: BigInt(block.timestamp), hash: block.hash, rlp };
  throw new MillraceError('header-unknown', {
    actor: 'chain',
    message: `The header of block ${number} does not give its hash ${block.hash}`,
    values: { number, hash: block.hash, fields: fields.length },
    hint: 'The chain has header fields that this version of Millrace does not know; update it, or the node answers wrongly.',
  });
}

/** `Randomness.oldestBlock` as of a block. */
function oldestBlock(client: ChainClient, blockNumber: bigint): bigint {
  const { blocks, step } = HISTORY[client.manifest.randomness.history];
  return blockNumber <= blocks ? 0n : ((blockNumber - blocks + step - 1n) / step) * step;
}

async function headerPair(client: ChainClient, number: bigint): Promise<{ header: Hex; parent: Hex }> {
  const [header, parent] = await Promise.all([readHeader(client, number), number === 0n ? undefined : readHeader(client, number - 1n)]);
  return { header: header.rlp, parent: parent?.rlp ?? '0x' };
}

const timestampsByClient = new WeakMap<object, Map<bigint, bigint>>();

/** Timestamps of blocks too deep to be reorganised, kept per client. */
function settledTimestamps(client: ChainClient): Map<bigint, bigint> {
  let timestamps = timestampsByClient.get(client);
  if (timestamps === undefined) {
    timestamps = new Map();
    timestampsByClient.set(client, timestamps);
  }
  return timestamps;
}

async function latestNumber(client: ChainClient): Promise<bigint> {
  return client.public
    .getBlockNumber({ cacheTime: 0 })
    .catch((error) => Promise.reject(chainError(error, 'Reading the latest block number')));
}

async function readBlock({ public: rpc }: Pick<ChainClient, 'public'>, number: bigint): Promise<RpcBlock> {
  try {
    const block = await rpc.request({ method: 'eth_getBlockByNumber', params: [toHex(number), false] });
    if (block !== null) return block as unknown as RpcBlock;
  } catch (error) {
    throw chainError(error, `Reading block ${number}`);
  }
  throw new MillraceError('block-unknown', {
    actor: 'chain',
    message: `The chain does not show block ${number}`,
    values: { number },
    hint: 'It may have been reorganised, or the node has dropped old blocks; try again, or another node.',
  });
}

/** RLP of a number has no leading zeros, and none at all for 0. */
function quantity(value: Hex): Hex {
  const number = BigInt(value);
  return number === 0n ? '0x' : numberToHex(number);
}
