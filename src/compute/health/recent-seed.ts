import { encodePacked, type Hex, keccak256 } from 'viem';
import { type ChainClient, readSeed } from '../../chain/index.ts';

/** Blocks that are asked for at once, the newest among them. */
const BLOCKS = 5n;

/**
 * The randomness of a time that has just come, from one round of questions instead of a search: what a deadline waits for must not be slow on a slow
 * link. As `readSeed` where the first block of that time is not one of the last few, or randomness is a beacon's.
 * @param options.head number of a block at or after that time
 * @throws chain-unreachable, block-unknown
 */
export async function readRecentSeed(client: ChainClient, { time, head }: { time: bigint; head: bigint }): Promise<Hex | undefined> {
  const { source } = client.manifest.randomness;
  if (source === 'beacon' || head < BLOCKS) return readSeed(client, time);
  const numbers = Array.from({ length: Number(BLOCKS) }, (_, back) => head - BigInt(back));
  const blocks = await Promise.all(numbers.map((blockNumber) => client.public.getBlock({ blockNumber })));
  const before = blocks.findIndex(({ timestamp }) => timestamp < time);
  const first = blocks[before - 1];
  if (first === undefined) return readSeed(client, time);
  return source === 'trusted-operator' ? keccak256(encodePacked(['bytes32', 'address'], [first.mixHash, first.miner])) : first.mixHash;
}
