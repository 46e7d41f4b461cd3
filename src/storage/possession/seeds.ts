import type { Hex } from 'viem';
import { type ChainClient, type FixArguments, fixSeed, provableSeed, readSeed, type Sender } from '../../chain/index.ts';

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
export async function ensureSeed({ client, sender, time }: SeedOptions): Promise<Hex | undefined> {
  return (await fixSeed(client, { sender, time })) ? client.read('randomness', 'valueOf', [time]) : undefined;
}

/**
 * The seed for a proof that fixes it itself, which saves a transaction. A beacon's value, and that of a time whose block
 * has left the history, is only known once it is fixed, so it is fixed first.
 * @throws header-unknown
 */
export async function seedForProof(options: SeedOptions): Promise<Seed | undefined> {
  const { client, time } = options;
  if (!(await client.read('randomness', 'isFixed', [time])) && client.manifest.randomness.source !== 'beacon') {
    const proof = await provableSeed(client, time);
    if (proof === undefined) return undefined;
    const value = proof.oldest === '0x' ? await readSeed(client, time) : undefined;
    if (value !== undefined) return { ...proof, value };
  }
  const value = await ensureSeed(options);
  return value === undefined ? undefined : { ...FIXED, value };
}
