import type { ChainClient } from '../../chain/index.ts';
import type { PeerAddress } from '../../connect/index.ts';
import { findUid, isJudgedIn, listSubnets, readUids } from '../../inference/index.ts';

/** A validator as others reach it. */
export interface ValidatorEntry extends PeerAddress {
  operatorId: bigint;
}

/**
 * Who judges an operator's answers at a path: holds a permit in a subnet of that task in which the operator holds a uid, and is reached. Each once.
 * @throws chain-unreachable
 */
export async function validatorsOf(
  client: ChainClient,
  { operatorId, path }: { operatorId: bigint; path: string },
): Promise<ValidatorEntry[]> {
  const found = new Map<bigint, ValidatorEntry>();
  for (const { subnetId, kind } of await listSubnets(client)) {
    if (!isJudgedIn(kind, path)) continue;
    if ((await findUid(client, { subnetId, operatorId })) === undefined) continue;
    const judges = (await readUids(client, subnetId)).filter((uid) => uid.hasPermit && uid.operatorId !== operatorId);
    for (const judge of judges) {
      if (found.has(judge.operatorId)) continue;
      const { endpoint, transportKey } = await client.read('operators', 'operator', [judge.operatorId]);
      if (endpoint.startsWith('https:')) found.set(judge.operatorId, { operatorId: judge.operatorId, endpoint, transportKey });
    }
  }
  return [...found.values()];
}
