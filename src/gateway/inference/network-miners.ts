import type { ChainClient } from '../../chain/index.ts';
import { hasReceiptCourt, listSubnets, NOBODY, readUids, type Uid } from '../../inference/index.ts';
import type { MinerEntry } from './miner-directory.ts';

const AT_ONCE = 16;

/**
 * Every operator that holds a uid in a subnet, with where it is reached and its rank: its incentive beside the highest of its subnet's
 * miners, the best of its subnets. Who is not bonded at the court of receipts is left out, where the network has a court: nothing would stand behind its
 * receipts. Who serves nothing makes no offer and is left out by the directory.
 * @throws chain-unreachable
 */
export async function minersOfNetwork(client: ChainClient): Promise<MinerEntry[]> {
  const best = new Map<bigint, { uid: number; rank: number }>();
  for (const { subnetId } of await listSubnets(client)) {
    const uids = await readUids(client, subnetId);
    const highest = await highestOf(client, uids);
    for (const { uid, operatorId, incentive } of uids) {
      const rank = Math.min(1, incentive / highest);
      if (rank >= (best.get(operatorId)?.rank ?? 0)) best.set(operatorId, { uid, rank });
    }
  }
  const operators = [...best];
  const entries: MinerEntry[] = [];
  for (let from = 0; from < operators.length; from += AT_ONCE) {
    const found = await Promise.all(operators.slice(from, from + AT_ONCE).map(([operatorId, at]) => entryOf(client, operatorId, at)));
    entries.push(...found.filter((entry) => entry !== undefined));
  }
  return entries;
}

/** The highest incentive of a miner. What nobody earned goes to a uid whose rewards nobody can have: that is none, and mostly has more than all. */
async function highestOf(client: ChainClient, uids: readonly Uid[]): Promise<number> {
  for (const { operatorId, incentive } of [...uids].sort((one, other) => other.incentive - one.incentive)) {
    if (operatorId === 0n || incentive === 0) continue;
    if ((await client.read('operators', 'beneficiaryOf', [operatorId])) !== NOBODY) return incentive;
  }
  return 1;
}

/** Whether receipts of this key convict this operator, whose whole bond is locked. */
async function isBonded(client: ChainClient, operatorId: bigint, key: `0x${string}`): Promise<boolean> {
  return !hasReceiptCourt(client) || client.read('receiptCourt', 'isBonded', [operatorId, key]);
}

async function entryOf(client: ChainClient, operatorId: bigint, at: { uid: number; rank: number }): Promise<MinerEntry | undefined> {
  const { endpoint, transportKey, nodeKey } = await client.read('operators', 'operator', [operatorId]);
  const isTaken = endpoint !== '' && (await isBonded(client, operatorId, nodeKey));
  return isTaken ? { ...at, operatorId, endpoint, transportKey, miner: nodeKey } : undefined;
}
