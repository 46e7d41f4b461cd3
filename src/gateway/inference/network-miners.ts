import type { ChainClient } from '../../chain/index.ts';
import { hasReceiptCourt, listSubnets, readUids } from '../../inference/index.ts';
import type { MinerEntry } from './miner-directory.ts';

const AT_ONCE = 16;

/**
 * Every operator that holds a uid in a subnet, with where it is reached and its rank: its incentive beside the highest of its subnet, the
 * best of its subnets. Who is not bonded at the court of receipts is left out, where the network has a court: nothing would stand behind its
 * receipts. Who serves nothing makes no offer and is left out by the directory.
 * @throws chain-unreachable
 */
export async function minersOfNetwork(client: ChainClient): Promise<MinerEntry[]> {
  const best = new Map<bigint, { uid: number; rank: number }>();
  for (const { subnetId } of await listSubnets(client)) {
    const uids = await readUids(client, subnetId);
    const highest = Math.max(1, ...uids.map(({ incentive }) => incentive));
    for (const { uid, operatorId, incentive } of uids) {
      const rank = incentive / highest;
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

/** Whether receipts of this key convict this operator, whose whole bond is locked. */
async function isBonded(client: ChainClient, operatorId: bigint, key: `0x${string}`): Promise<boolean> {
  return !hasReceiptCourt(client) || client.read('receiptCourt', 'isBonded', [operatorId, key]);
}

async function entryOf(client: ChainClient, operatorId: bigint, at: { uid: number; rank: number }): Promise<MinerEntry | undefined> {
  const { endpoint, transportKey, nodeKey } = await client.read('operators', 'operator', [operatorId]);
  const isTaken = endpoint !== '' && (await isBonded(client, operatorId, nodeKey));
  return isTaken ? { ...at, operatorId, endpoint, transportKey, miner: nodeKey } : undefined;
}
