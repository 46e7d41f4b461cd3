import type { ChainClient } from '../../chain/index.ts';
import { inBatches, readDeals } from '../market/chain-view.ts';
import type { DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import { fileOfBid, type ShardView, type StoredFile } from '../orders/stored-files.ts';
import { periodAt } from '../possession/periods.ts';

/** A shard that its operator left, and still holds and serves until somebody else has proven that it holds it. */
export interface Handover {
  dealId: bigint;
  bidId: bigint;
  shard: number;
  /** `offered`: nobody has claimed it yet; `claimed`: a repairer is fetching it. */
  state: 'offered' | 'claimed';
  /** Who claimed it; 0: nobody. */
  claimOperatorId: bigint;
}

type FileHealth = Pick<StoredFile, 'healthy' | 'needed' | 'repairBelow'> & { shards: readonly Pick<ShardView, 'state'>[] };

/**
 * Whether a shard of a file may be left now. `wait`: the file is below its owner's threshold or a repair is under way, and one more loss
 * at the same time is what nobody should cause; `never`: without this shard the file could not be read again. Pure.
 */
export function leaveVerdict({ healthy, needed, repairBelow, shards }: FileHealth): 'now' | 'wait' | 'never' {
  if (repairBelow !== 0 && (healthy < repairBelow || shards.some(({ state }) => state === 'claimed'))) return 'wait';
  return healthy - 1 < needed ? 'never' : 'now';
}

/**
 * The handover of a shard whose deal its operator left, or undefined when nobody will come for it: it is proven by somebody else, the
 * file's owner wanted no repair yet or gave it up, or the file ends too soon for a new deal. `lastStart` is the last period in
 * which a repair of it can begin. Pure.
 */
export function handoverOf(
  file: Pick<StoredFile, 'bidId' | 'healthy' | 'repairBelow'> & {
    shards: readonly Pick<ShardView, 'index' | 'state' | 'dealId' | 'claimOperatorId'>[];
  },
  dealId: bigint,
  at: { period: bigint; lastStart: bigint },
): Handover | undefined {
  const shard = file.shards.find((each) => each.dealId === dealId);
  if (shard === undefined) return undefined;
  const { index, state, claimOperatorId } = shard;
  if (state === 'claimed') return { dealId, bidId: file.bidId, shard: index, state, claimOperatorId };
  const isOffered = (state === 'live' || state === 'lost') && file.healthy < file.repairBelow && at.period <= at.lastStart;
  return isOffered ? { dealId, bidId: file.bidId, shard: index, state: 'offered', claimOperatorId: 0n } : undefined;
}

/** The handovers of an operator that nobody has fulfilled yet, from its own records of deals that it left, and the chain. */
export async function openHandovers(options: { client: ChainClient; records: DealRecords }): Promise<Handover[]> {
  const { client, records } = options;
  const deals = await readDeals(
    client,
    records.all().flatMap(({ dealId }) => (dealId === undefined ? [] : [dealId])),
  );
  const over = deals.filter(({ state }) => state === 'terminated' || state === 'dropped');
  const handovers = await inBatches(over, ({ dealId }) => openHandover(client, dealId));
  return handovers.filter((handover) => handover !== undefined);
}

/** The open handover of one deal: undefined as well when it was not left, or is not a file's. */
export async function openHandover(client: ChainClient, dealId: bigint): Promise<Handover | undefined> {
  if (!(await wasLeft(client, dealId))) return undefined;
  const file = await fileOfDeal(client, dealId);
  if (file === undefined) return undefined;
  const [{ clock }, { minPeriods }, now] = await Promise.all([readRules(client), client.read('storageMarket', 'config'), client.now()]);
  return handoverOf(file, dealId, { period: periodAt(clock, now), lastStart: file.endPeriod - 1n - BigInt(minPeriods) });
}

/** The file whose shard a deal is about; undefined for a deal of anybody else. */
export async function fileOfDeal(client: ChainClient, dealId: bigint): Promise<StoredFile | undefined> {
  if (client.manifest.modules.orderBook === undefined) return undefined;
  const { client: account } = await client.read('storageMarket', 'deal', [dealId]);
  const bidId = await client.read('orderBook', 'bidOfFile', [account]);
  return bidId === 0n ? undefined : fileOfBid(client, bidId);
}

/** `IStorageMarket.Cause.ProviderLeft`. */
const PROVIDER_LEFT = 4;

async function wasLeft(client: ChainClient, dealId: bigint): Promise<boolean> {
  const events = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId } });
  return events.some(({ args }) => args.cause === PROVIDER_LEFT);
}
