import { concat, type Hex, keccak256 } from 'viem';
import { type ChainClient, type FixArguments, firstBlockAtOrAfter, fixArguments, type Sender } from '../../chain/index.ts';

/** The randomness of a time, and what fixes it in the same transaction that uses it; empty when it is fixed already. */
export interface Seed extends FixArguments {
  value: Hex;
}

/** Who looks for a seed, and of which time (chain seconds). */
export interface SeedOptions {
  client: ChainClient;
  sender: Sender;
  time: bigint;
}

const FIXED: FixArguments = { header: '0x', parent: '0x', oldest: '0x' };

/**
 * The randomness of a time, fixed on chain by us when nobody has done it; undefined while it cannot be fixed.
 * @throws header-unknown
 */
export async function ensureSeed(options: SeedOptions): Promise<Hex | undefined> {
  const { client, sender, time } = options;
  if (!(await client.read('randomness', 'isFixed', [time]))) {
    const proof = await provableNow(options);
    if (proof === undefined) return undefined;
    try {
      await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, proof.header, proof.parent, proof.oldest] });
    } catch (error) {
      // Somebody else may have fixed it between our look and our transaction.
      if (!(await client.read('randomness', 'isFixed', [time]))) throw error;
    }
  }
  return client.read('randomness', 'valueOf', [time]);
}

/**
 * The seed for a proof that fixes it itself, which saves a transaction. A beacon's value, and that of a time whose block
 * has left the history, is only known once it is fixed, so it is fixed first.
 * @throws header-unknown
 */
export async function seedForProof(options: SeedOptions): Promise<Seed | undefined> {
  const { client, time } = options;
  if (!(await client.read('randomness', 'isFixed', [time])) && client.manifest.randomness.source !== 'beacon') {
    const proof = await provableNow(options);
    if (proof === undefined) return undefined;
    if (proof.oldest === '0x') return { ...proof, value: await valueOfBlock(client, await firstBlockAtOrAfter(client, time)) };
  }
  const value = await ensureSeed(options);
  return value === undefined ? undefined : { ...FIXED, value };
}

/** The proof of a time, once the next block can check it: the history knows a block's hash from the following one on. */
async function provableNow({ client, time }: SeedOptions): Promise<FixArguments | undefined> {
  const first = await firstBlockAtOrAfter(client, time);
  const isLast = first !== undefined && first >= (await client.public.getBlockNumber({ cacheTime: 0 }));
  return first === undefined || isLast ? undefined : fixArguments(client, time);
}

/** The entropy of a block by the rule of `Randomness`. */
async function valueOfBlock(client: ChainClient, blockNumber: bigint | undefined): Promise<Hex> {
  const { mixHash, miner } = await client.public.getBlock({ blockNumber });
  return client.manifest.randomness.source === 'trusted-operator' ? keccak256(concat([mixHash, miner])) : mixHash;
}
