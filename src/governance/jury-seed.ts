import { type ChainClient, firstBlockAtOrAfter, fixArguments, type Sender } from '../chain/index.ts';

/**
 * Sees to it that the randomness of a time is fixed on chain, by us when nobody has done it.
 * @returns false while it cannot be fixed: no block is that late, or it is the last one
 * @throws header-unknown
 */
export async function fixSeed(client: ChainClient, { sender, time }: { sender: Sender; time: bigint }): Promise<boolean> {
  if (await client.read('randomness', 'isFixed', [time])) return true;
  const first = await firstBlockAtOrAfter(client, time);
  // The history knows a block's hash from the following block on.
  if (first === undefined || first >= (await client.public.getBlockNumber({ cacheTime: 0 }))) return false;
  const proof = await fixArguments(client, time);
  if (proof === undefined) return false;
  try {
    await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, proof.header, proof.parent, proof.oldest] });
  } catch (error) {
    // Somebody else may have fixed it between our look and our transaction.
    if (!(await client.read('randomness', 'isFixed', [time]))) throw error;
  }
  return true;
}
