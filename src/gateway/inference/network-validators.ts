import type { ChainClient } from '../../chain/index.ts';
import type { PeerAddress } from '../../connect/index.ts';
import { toMillraceError } from '../../errors.ts';
import { listSubnets, readUids } from '../../inference/index.ts';

/** A validator as others reach it. */
export interface ValidatorEntry extends PeerAddress {
  operatorId: bigint;
}

/** Who holds a permit in a subnet in which an operator holds a uid, and is reached: those who judge it. Each once. @throws chain-unreachable */
export async function validatorsOf(client: ChainClient, operatorId: bigint): Promise<ValidatorEntry[]> {
  const found = new Map<bigint, ValidatorEntry>();
  for (const { subnetId } of await listSubnets(client)) {
    if (!(await holdsUid(client, subnetId, operatorId))) continue;
    const judges = (await readUids(client, subnetId)).filter((uid) => uid.hasPermit && uid.operatorId !== operatorId);
    for (const judge of judges) {
      if (found.has(judge.operatorId)) continue;
      const { endpoint, transportKey } = await client.read('operators', 'operator', [judge.operatorId]);
      if (endpoint.startsWith('https:')) found.set(judge.operatorId, { operatorId: judge.operatorId, endpoint, transportKey });
    }
  }
  return [...found.values()];
}

async function holdsUid(client: ChainClient, subnetId: bigint, operatorId: bigint): Promise<boolean> {
  try {
    await client.read('subnets', 'uidOf', [subnetId, operatorId]);
    return true;
  } catch (error) {
    if (toMillraceError(error).code === 'not-registered') return false;
    throw error;
  }
}
