import { type Hex, hexToString, keccak256 } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { ProviderPeer } from './provider-api.ts';
import type { StorageDomain } from './signed-messages.ts';

/** An operator as the chain knows it. */
export interface OperatorView extends ProviderPeer {
  owner: Hex;
  beneficiary: Hex;
  region: string;
}

/** The states of a deal, in the order of `IStorageMarket.State`. */
export const DEAL_STATES = ['none', 'open', 'active', 'faulty', 'ended', 'dropped', 'expired', 'terminated'] as const;
/** One of them. */
export type DealState = (typeof DEAL_STATES)[number];

/** A deal as the chain knows it, with its number and its state by name. */
export interface DealView {
  dealId: bigint;
  state: DealState;
  client: Hex;
  operatorId: bigint;
  pieceRoot: Hex;
  pieceHeight: number;
  leaves: bigint;
  rawSize: bigint;
  contentHash: Hex;
  openedAt: bigint;
  firstPeriod: bigint;
  endPeriod: bigint;
  feesTo: bigint;
  faultySince: bigint;
  challengedAt: bigint;
  /** First leaf and number of leaves that the open challenge demands; 0 leaves: it draws some by lot. */
  demandedFrom: bigint;
  demanded: number;
  /** The rail that holds the bond of the open challenge or demand; no two have the same. */
  challengeRailId: bigint;
  slot: number;
  pricePerPeriod: bigint;
  collateral: bigint;
  locked: bigint;
  bond: bigint;
  railId: bigint;
}

/** A provider that holds, or should hold, some content. */
export interface Holder {
  operator: OperatorView;
  deal: DealView;
}

const READS_AT_ONCE = 32;

/** The EIP-712 domain of a network's storage market. */
export function storageDomainOf(client: ChainClient): StorageDomain {
  return { chainId: client.chainId, market: client.address('storageMarket') };
}

/** One operator. @throws unknown-operator */
export async function readOperator(client: ChainClient, operatorId: bigint): Promise<OperatorView> {
  const { owner, nodeKey, beneficiary, transportKey, endpoint, region } = await client.read('operators', 'operator', [operatorId]);
  return { operatorId, owner, nodeKey, beneficiary, transportKey, endpoint, region: hexToString(region, { size: 32 }) };
}

/** All operators that say where they are reached. */
export async function listOperators(client: ChainClient): Promise<OperatorView[]> {
  const count = await client.read('operators', 'operatorCount');
  const ids = Array.from({ length: Number(count) }, (_, index) => BigInt(index + 1));
  const operators = await inBatches(ids, (operatorId) => readOperator(client, operatorId));
  return operators.filter(({ endpoint }) => endpoint !== '');
}

/** One deal. @throws unknown-deal */
export async function readDeal(client: ChainClient, dealId: bigint): Promise<DealView> {
  const deal = await client.read('storageMarket', 'deal', [dealId]);
  const state = DEAL_STATES[deal.state];
  if (state === undefined || state === 'none') {
    throw new MillraceError('unknown-deal', {
      actor: 'caller',
      message: `There is no deal ${dealId}`,
      values: { dealId },
      hint: 'See `millrace deals` for the numbers of your deals.',
    });
  }
  return { ...deal, dealId, state };
}

/** Several deals, in the order of their numbers. */
export async function readDeals(client: ChainClient, dealIds: readonly bigint[]): Promise<DealView[]> {
  return inBatches([...new Set(dealIds)].sort(ascending), (dealId) => readDeal(client, dealId));
}

/** All deals that an account made as client, oldest first. */
export async function dealsOfClient(client: ChainClient, account: Hex): Promise<DealView[]> {
  const events = await client.events({ name: 'storageMarket', event: 'DealOfClient', args: { client: account } });
  return readDeals(
    client,
    events.map(({ args }) => args.dealId),
  );
}

/** All deals of an operator, oldest first, with the binary root CID of each. */
export async function dealsOfOperator(client: ChainClient, operatorId: bigint): Promise<(DealView & { cid: Hex })[]> {
  const events = await client.events({ name: 'storageMarket', event: 'DealOpened', args: { operatorId } });
  const cids = new Map(events.map(({ args }) => [args.dealId, args.cid]));
  const deals = await readDeals(client, [...cids.keys()]);
  return deals.map((deal) => ({ ...deal, cid: cids.get(deal.dealId) as Hex }));
}

/** Deals about one content (binary root CID), whoever is their client, and their operators: those that prove it first. */
export async function holdersOf(client: ChainClient, cid: Uint8Array): Promise<Holder[]> {
  const contentHash = keccak256(cid);
  const events = await client.events({ name: 'storageMarket', event: 'DealOpened', args: { contentHash } });
  const deals = await readDeals(
    client,
    events.map(({ args }) => args.dealId),
  );
  const order: DealState[] = ['active', 'faulty', 'open', 'ended'];
  const live = deals
    .filter(({ state }) => order.includes(state))
    .sort((left, right) => order.indexOf(left.state) - order.indexOf(right.state));
  const operators = new Map<bigint, OperatorView>();
  await inBatches([...new Set(live.map(({ operatorId }) => operatorId))], async (operatorId) => {
    operators.set(operatorId, await readOperator(client, operatorId));
  });
  return live.map((deal) => ({ deal, operator: operators.get(deal.operatorId) as OperatorView }));
}

/** Maps in order, a bounded number at a time. */
export async function inBatches<Item, Result>(items: readonly Item[], work: (item: Item) => Promise<Result>): Promise<Result[]> {
  const results: Result[] = [];
  for (let index = 0; index < items.length; index += READS_AT_ONCE) {
    results.push(...(await Promise.all(items.slice(index, index + READS_AT_ONCE).map(work))));
  }
  return results;
}

function ascending(left: bigint, right: bigint): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
