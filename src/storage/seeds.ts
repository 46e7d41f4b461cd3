import { type Hex, keccak256, toHex, toRlp } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { firstBlockAt } from './chain-view.ts';

/** The headers that fix the randomness of a time, as `IRandomness.fix` takes them; all empty when it is fixed already. */
export interface SeedProof {
  header: Hex;
  parent: Hex;
  oldest: Hex;
}

/** Blocks that the EIP-2935 history contract knows. */
const HISTORY_BLOCKS = 8191n;
const NOTHING: SeedProof = { header: '0x', parent: '0x', oldest: '0x' };

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
 * Undefined while there is no such block yet.
 * @throws header-unknown when the chain's headers are of a form that this version does not know
 */
export async function seedProof(client: ChainClient, time: bigint): Promise<SeedProof | undefined> {
  if (await client.read('randomness', 'isFixed', [time])) return NOTHING;
  const head = await client.public.getBlockNumber({ cacheTime: 0 });
  const oldest = head > HISTORY_BLOCKS - 64n ? head - HISTORY_BLOCKS + 64n : 0n;
  const first = await firstBlockAt(client, time);
  if (first === undefined) return undefined;
  if (first > oldest) return { header: await headerOf(client, first), parent: await headerOf(client, first - 1n), oldest: '0x' };
  const { timestamp } = await client.public.getBlock({ blockNumber: oldest });
  const step = await client.read('randomness', 'staleAfterSeconds');
  const later = time + ((timestamp - time) / step + 1n) * step;
  const replacement = await firstBlockAt(client, later);
  if (replacement === undefined) return undefined;
  return {
    header: await headerOf(client, replacement),
    parent: await headerOf(client, replacement - 1n),
    oldest: await headerOf(client, oldest),
  };
}

/** The randomness of a time, fixed by us when nobody has done it; undefined while the chain has no block at or after it. */
export async function ensureSeed(options: { client: ChainClient; sender: Sender; time: bigint }): Promise<Hex | undefined> {
  const { client, sender, time } = options;
  const proof = await seedProof(client, time);
  if (proof === undefined) return undefined;
  if (proof !== NOTHING) {
    try {
      await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, proof.header, proof.parent, proof.oldest] });
    } catch (error) {
      // Somebody else may have fixed it between our look and our transaction.
      if (!(await client.read('randomness', 'isFixed', [time]))) throw error;
    }
  }
  return client.read('randomness', 'valueOf', [time]);
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
