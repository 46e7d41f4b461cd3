import { CID } from 'multiformats/cid';
import { type Hex, hexToBytes } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import type { DealAccount } from '../storage/index.ts';

const EVENTS_AT_ONCE = 100;

/** A deal with its root CID as text. */
export type DealRow = DealAccount & { cid: string; provenPeriods: bigint };

/** Adds the root CID, which only the event of a deal's record holds, and the number of proven periods. */
export async function dealRows(client: ChainClient, deals: readonly DealAccount[]): Promise<DealRow[]> {
  const cids = new Map<bigint, Hex>();
  for (let index = 0; index < deals.length; index += EVENTS_AT_ONCE) {
    const dealId = deals.slice(index, index + EVENTS_AT_ONCE).map((deal) => deal.dealId);
    for (const { args } of await client.events({ name: 'storageMarket', event: 'DealOpened', args: { dealId } }))
      cids.set(args.dealId, args.cid);
  }
  const { period } = await client.read('possession', 'config');
  return deals.map((deal) => ({
    ...deal,
    cid: CID.decode(hexToBytes(cids.get(deal.dealId) as Hex)).toString(),
    provenPeriods: deal.provenSeconds / BigInt(period),
  }));
}
