import { encodePacked, type Hex, keccak256 } from 'viem';
import { abis, type ChainClient, firstBlockAtOrAfter, fixArguments, type Sender } from '../../chain/index.ts';

/**
 * The randomness of a time as soon as the chain has a block that late, without a transaction; undefined before. For what is agreed between nodes:
 * where a contract needs it, it is fixed there (`fixSeed`), and then comes from there, as it does for a time whose block was replaced.
 * @throws chain-unreachable, block-unknown
 */
export async function readSeed(client: ChainClient, time: bigint): Promise<Hex | undefined> {
  const { source } = client.manifest.randomness;
  const [isFixed, number] = await Promise.all([
    client.read('randomness', 'isFixed', [time]),
    source === 'beacon' ? undefined : firstBlockAtOrAfter(client, time),
  ]);
  if (isFixed) return client.read('randomness', 'valueOf', [time]);
  if (source === 'beacon') return readBeacon(client, time);
  if (number === undefined) return undefined;
  const { mixHash, miner } = await client.public.getBlock({ blockNumber: number });
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

/** Sees to it that the contracts know the randomness of a time; false when the chain is not that far. @throws the errors of Randomness.fix */
export async function fixSeed({ client, sender }: { client: ChainClient; sender: Pick<Sender, 'send'> }, time: bigint): Promise<boolean> {
  if (await client.read('randomness', 'isFixed', [time])) return true;
  const args = await fixArguments(client, time);
  if (args === undefined) return false;
  await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, args.header, args.parent, args.oldest] });
  return true;
}
