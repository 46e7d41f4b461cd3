import { concat, type Hex, keccak256, toHex, toRlp } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { firstBlockAt } from './chain-view.ts';

/** What fixes the randomness of a time, as `IRandomness.fix` and `IPossession.prove` take it, and the value that it gives. */
export interface SeedProof {
  value: Hex;
  isFixed: boolean;
  /** All three are empty when the value is fixed already, and with a beacon. */
  header: Hex;
  parent: Hex;
  oldest: Hex;
}

/** Header fields in the order of their RLP list; those at the end came with later forks and may be absent. */
const HEADER_FIELDS = [
  ['parentHash', 'bytes'],
  ['sha3Uncles', 'bytes'],
  ['miner', 'bytes'],
  ['stateRoot', 'bytes'],
  ['transactionsRoot', 'bytes'],
  ['receiptsRoot', 'bytes'],
  ['logsBloom', 'bytes'],
  ['difficulty', 'quantity'],
  ['number', 'quantity'],
  ['gasLimit', 'quantity'],
  ['gasUsed', 'quantity'],
  ['timestamp', 'quantity'],
  ['extraData', 'bytes'],
  ['mixHash', 'bytes'],
  ['nonce', 'bytes'],
  ['baseFeePerGas', 'quantity'],
  ['withdrawalsRoot', 'bytes'],
  ['blobGasUsed', 'quantity'],
  ['excessBlobGas', 'quantity'],
  ['parentBeaconBlockRoot', 'bytes'],
  ['requestsHash', 'bytes'],
] as const;

/**
 * What fixes the randomness of `time`: the header of the first block at or after it and its parent's. When that block has
 * left the history, the next time of the contract's fixed ladder is proven, with the oldest block that is still known.
 * Undefined while there is no such block yet, or it is the newest one: the history knows a block from the next one on.
 * @throws header-unknown when the chain's headers are of a form that this version does not know
 */
export async function seedProof(client: ChainClient, time: bigint): Promise<SeedProof | undefined> {
  if (await client.read('randomness', 'isFixed', [time])) {
    return { value: await client.read('randomness', 'valueOf', [time]), isFixed: true, header: '0x', parent: '0x', oldest: '0x' };
  }
  const head = await client.public.getBlockNumber({ cacheTime: 0 });
  const oldest = await client.read('randomness', 'oldestBlock');
  const first = await firstBlockAt(client, time);
  if (first === undefined || first >= head) return undefined;
  if (first > oldest) return proofFrom(client, first, '0x');
  const { timestamp } = await client.public.getBlock({ blockNumber: oldest });
  const step = await client.read('randomness', 'staleAfterSeconds');
  const replacement = await firstBlockAt(client, time + ((timestamp - time) / step + 1n) * step);
  return replacement === undefined || replacement >= head ? undefined : proofFrom(client, replacement, await headerOf(client, oldest));
}

/**
 * The randomness of a time, fixed on chain by us when nobody has done it; undefined while the chain has no block at or
 * after it.
 */
export async function ensureSeed(options: { client: ChainClient; sender: Sender; time: bigint }): Promise<Hex | undefined> {
  const { client, sender, time } = options;
  const proof = client.manifest.randomness.source === 'beacon' ? await beaconProof(client, time) : await seedProof(client, time);
  if (proof === undefined) return undefined;
  if (proof.isFixed) return proof.value;
  try {
    await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, proof.header, proof.parent, proof.oldest] });
  } catch (error) {
    // Somebody else may have fixed it between our look and our transaction.
    if (!(await client.read('randomness', 'isFixed', [time]))) throw error;
  }
  return client.read('randomness', 'valueOf', [time]);
}

/** A declared beacon needs no headers; its value is known once it is fixed. */
async function beaconProof(client: ChainClient, time: bigint): Promise<SeedProof | undefined> {
  const isFixed = await client.read('randomness', 'isFixed', [time]);
  if (!isFixed && (await client.now()) < time) return undefined;
  const value = isFixed ? await client.read('randomness', 'valueOf', [time]) : '0x';
  return { value, isFixed, header: '0x', parent: '0x', oldest: '0x' };
}

async function proofFrom(client: ChainClient, blockNumber: bigint, oldest: Hex): Promise<SeedProof> {
  const { mixHash, miner } = await client.public.getBlock({ blockNumber });
  const trusted = client.manifest.randomness.source === 'trusted-operator';
  const value = trusted ? keccak256(concat([mixHash, miner])) : mixHash;
  return { value, isFixed: false, header: await headerOf(client, blockNumber), parent: await headerOf(client, blockNumber - 1n), oldest };
}

/** The RLP of a block's header, checked against the block's hash. */
async function headerOf(client: ChainClient, blockNumber: bigint): Promise<Hex> {
  const block = (await client.public.request({
    method: 'eth_getBlockByNumber',
    params: [toHex(blockNumber), false],
  })) as unknown as Record<string, Hex | undefined> | null;
  const fields: Hex[] = [];
  for (const [name, kind] of HEADER_FIELDS) {
    const value = block?.[name];
    if (typeof value !== 'string') break;
    fields.push(kind === 'bytes' ? value : quantity(value));
  }
  const header = toRlp(fields);
  if (keccak256(header) === block?.hash) return header;
  throw new MillraceError('header-unknown', {
    actor: 'chain',
    message: `The header of block ${blockNumber} does not give its hash ${block?.hash ?? ''}`,
    values: { blockNumber, hash: block?.hash },
    hint: 'The chain may have forked to a header format that this version of Millrace does not know.',
  });
}

function quantity(value: Hex): Hex {
  const number = BigInt(value);
  return number === 0n ? '0x' : toHex(number);
}
