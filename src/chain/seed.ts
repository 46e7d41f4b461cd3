import { encodePacked, type Hex, keccak256 } from 'viem';
import type { ChainClient } from './client.ts';
import { abis } from './contracts.generated.ts';
import { type FixArguments, firstBlockAtOrAfter, fixArguments } from './randomness.ts';
import type { Sender } from './sender.ts';

/**
 * Sees to it that the randomness of a time is fixed on chain, by us when nobody has done it.
 * @param options.time chain seconds
 * @returns false while it cannot be fixed: no block is that late, or it is the last one
 * @throws header-unknown, chain-unreachable
 */
export async function fixSeed(client: ChainClient, { sender, time }: { sender: Pick<Sender, 'send'>; time: bigint }): Promise<boolean> {
  if (await client.read('randomness', 'isFixed', [time])) return true;
  const proof = await provableSeed(client, time);
  if (proof === undefined) return false;
  try {
    await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, proof.header, proof.parent, proof.oldest] });
  } catch (error) {
    // Somebody else may have fixed it between our look and our transaction.
    if (!(await client.read('randomness', 'isFixed', [time]))) throw error;
  }
  return true;
}

/**
 * What proves the randomness of a time in the next transaction; undefined while the next block cannot check it: the history knows a block's hash
 * from the following one on.
 * @throws header-unknown, chain-unreachable
 */
export async function provableSeed(client: ChainClient, time: bigint): Promise<FixArguments | undefined> {
  const first = await firstBlockAtOrAfter(client, time);
  const isLast = first !== undefined && first >= (await client.public.getBlockNumber({ cacheTime: 0 }));
  return first === undefined || isLast ? undefined : fixArguments(client, time);
}

/**
 * The randomness of a time as soon as the chain has a block that late, without a transaction; undefined before. For what is agreed between nodes:
 * where a contract needs it, it is fixed there (`fixSeed`), and then comes from there, as it does for a time whose block was replaced.
 * @throws chain-unreachable, block-unknown
 */
export async function readSeed(client: ChainClient, time: bigint): Promise<Hex | undefined> {
  if (await client.read('randomness', 'isFixed', [time])) return client.read('randomness', 'valueOf', [time]);
  const { source } = client.manifest.randomness;
  if (source === 'beacon') return readBeacon(client, time);
  const blockNumber = await firstBlockAtOrAfter(client, time);
  if (blockNumber === undefined) return undefined;
  const { mixHash, miner } = await client.public.getBlock({ blockNumber });
  return source === 'trusted-operator' ? keccak256(encodePacked(['bytes32', 'address'], [mixHash, miner])) : mixHash;
}

async function readBeacon(client: ChainClient, time: bigint): Promise<Hex | undefined> {
  if ((await client.now()) < time) return undefined;
  const call = {
    address: client.address('randomness'),
    abi: abis.randomness,
    functionName: 'fix',
    args: [time, '0x', '0x', '0x'],
  } as const;
  return client.public.simulateContract(call).then(
    ({ result }) => result,
    () => undefined, // the beacon's round is not there yet
  );
}
