import { hexToString, trim } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';

/** A uid that an operator holds, as it is now. */
export interface OwnUid {
  subnetId: bigint;
  /** The task of the subnet's models. */
  kind: string;
  uid: number;
  hasPermit: boolean;
  /** Of the last recorded epoch, u16 of one. */
  incentive: number;
  dividends: number;
}

/** The uid of an operator in a subnet; undefined when it has none. @throws unknown-subnet, chain-unreachable */
export async function findUid(client: ChainClient, options: { subnetId: bigint; operatorId: bigint }): Promise<number | undefined> {
  try {
    return await client.read('subnets', 'uidOf', [options.subnetId, options.operatorId]);
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'not-registered') return undefined;
    throw error;
  }
}

/** Every uid of an operator in subnets that are not dissolved. @throws chain-unreachable */
export async function uidsOfOperator(client: ChainClient, operatorId: bigint): Promise<OwnUid[]> {
  const [count, now] = await Promise.all([client.read('subnets', 'subnetCount'), client.now()]);
  const found: OwnUid[] = [];
  for (let subnetId = 1n; subnetId <= count; subnetId += 1n) {
    const uid = await findUid(client, { subnetId, operatorId });
    if (uid === undefined) continue;
    const [subnet, [incentive, dividends], epoch] = await Promise.all([
      client.read('subnets', 'subnet', [subnetId]),
      client.read('subnets', 'rankOf', [subnetId, uid]),
      client.read('subnets', 'epochAt', [subnetId, now]),
    ]);
    if (subnet.dissolved) continue;
    const permits = await client.read('subnets', 'permitsAt', [subnetId, epoch]);
    const kind = hexToString(trim(subnet.kind, { dir: 'right' }));
    found.push({ subnetId, kind, uid, incentive, dividends, hasPermit: ((permits >> BigInt(uid)) & 1n) === 1n });
  }
  return found;
}
