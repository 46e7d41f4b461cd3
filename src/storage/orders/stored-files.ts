import { type ContractFunctionArgs, encodeFunctionData, type Hex, keccak256 } from 'viem';
import { abis, type ChainClient, type ChainEvent, chainError, type Receipt, type Sender } from '../../chain/index.ts';
import { type DealView, inBatches, type OperatorView, readDeal, readOperator } from '../market/chain-view.ts';
import { NOBODY } from './book-rules.ts';
import type { ShardPiece } from './orders.ts';

/** The deals of a file carry no signature of their own: its bid was signed. */
export const NO_SIGNATURE: Hex = '0x';

/** The states of a shard, in the order of `IStorageFile.ShardState`. */
export const SHARD_STATES = ['none', 'live', 'lost', 'claimed', 'ended'] as const;
/** One of them. */
export type ShardState = (typeof SHARD_STATES)[number];

/** One shard of a file: its piece, who should hold it, and how its deal stands. */
export interface ShardView extends ShardPiece {
  index: number;
  state: ShardState;
  dealId: bigint;
  operatorId: bigint;
  /** While a repair is claimed: the deal of the repairer. */
  claimDealId: bigint;
  claimOperatorId: bigint;
  deal: DealView | undefined;
  operator: OperatorView | undefined;
}

/** A file of the order book: what was asked for, and what the chain says of it now. Money in base units. */
export interface StoredFile {
  bidId: bigint;
  file: Hex;
  client: Hex;
  agent: Hex;
  contentHash: Hex;
  /** Binary root CID of the whole file. */
  cid: Hex;
  count: number;
  needed: number;
  repairBelow: number;
  shardSize: bigint;
  periods: number;
  maxPrice: bigint;
  filled: boolean;
  validUntil: bigint;
  /** Exclusive; 0: not filled. */
  endPeriod: bigint;
  pricePerPeriod: bigint;
  reserve: bigint;
  challengeBudget: bigint;
  /** What the owner could take out now. */
  free: bigint;
  /** Shards that are proven: their deals are active. */
  proven: number;
  /** Shards whose deals are not over, as the file counts them. */
  healthy: number;
  /** Shards that are lost and may be repaired. */
  jobs: number;
  shards: ShardView[];
}

type FileAbi = typeof abis.storageFile;
type FileRead = Extract<FileAbi[number], { type: 'function'; stateMutability: 'view' }>['name'];
type FileWrite = Extract<FileAbi[number], { type: 'function'; stateMutability: 'nonpayable' }>['name'];

/** Calls a view function of a file's account. */
async function readFile<F extends FileRead>(client: ChainClient, file: Hex, functionName: F) {
  try {
    return await client.public.readContract({ address: file, abi: abis.storageFile, functionName } as never);
  } catch (error) {
    throw chainError(error, `Reading file ${file}.${functionName}`);
  }
}

/** Calls a function of a file's account that changes state. @throws the contract's error code */
export function callFile<F extends FileWrite>(
  sender: Sender,
  call: { file: Hex; functionName: F; args: ContractFunctionArgs<FileAbi, 'nonpayable', F>; key?: string },
): Promise<Receipt> {
  const { file, functionName, args, key } = call;
  return sender.send({ to: file, data: encodeFunctionData({ abi: abis.storageFile, functionName, args } as never), key });
}

/** What of a file does not change with each block: who may speak for it. */
export async function readFileParties(client: ChainClient, file: Hex): Promise<{ owner: Hex; agent: Hex }> {
  const { owner, agent } = (await readFile(client, file, 'terms')) as { owner: Hex; agent: Hex };
  return { owner, agent };
}

/** Whether an account is a file of this network's order book. */
export async function isFile(client: ChainClient, account: Hex): Promise<boolean> {
  return client.manifest.modules.orderBook !== undefined && (await client.read('orderBook', 'bidOfFile', [account])) !== 0n;
}

/** All files about one content (binary root CID), newest first: found by events of the chain alone. */
export async function filesOfContent(client: ChainClient, cid: Uint8Array): Promise<StoredFile[]> {
  if (client.manifest.modules.orderBook === undefined) return [];
  const events = await client.events({ name: 'orderBook', event: 'BidPosted', args: { contentHash: keccak256(cid) } });
  return inBatches(events.toReversed(), (event) => storedFileOf(client, event));
}

/** All files of an owner, oldest first. */
export async function filesOfClient(client: ChainClient, account: Hex): Promise<StoredFile[]> {
  if (client.manifest.modules.orderBook === undefined) return [];
  const events = await client.events({ name: 'orderBook', event: 'BidPosted', args: { client: account } });
  return inBatches(events, (event) => storedFileOf(client, event));
}

/** One file by the number of its bid, undefined when there is none. */
export async function fileOfBid(client: ChainClient, bidId: bigint): Promise<StoredFile | undefined> {
  const [event] = await client.events({ name: 'orderBook', event: 'BidPosted', args: { bidId } });
  return event === undefined ? undefined : storedFileOf(client, event);
}

interface Account {
  endPeriod: bigint;
  healthy: number;
  pricePerPeriod: bigint;
  reserve: bigint;
  challengeBudget: bigint;
}

interface ShardAccount {
  state: number;
  dealId: bigint;
  operatorId: bigint;
  claimDealId: bigint;
  claimOperatorId: bigint;
}

async function storedFileOf(client: ChainClient, { args }: ChainEvent<'orderBook', 'BidPosted'>): Promise<StoredFile> {
  const { bid, bidId, file, cid } = args;
  const [state, account, accounts, free] = await Promise.all([
    client.read('orderBook', 'bid', [bidId]),
    readFile(client, file, 'account') as Promise<Account>,
    readFile(client, file, 'shards') as Promise<readonly ShardAccount[]>,
    readFile(client, file, 'free') as Promise<bigint>,
  ]);
  const shards = await inBatches(
    args.shards.map((shard, index) => ({ shard, index })),
    ({ shard, index }) => shardOf(client, { ...shard, index }, state.filled ? accounts[index] : undefined),
  );
  const agent = bid.agent === NOBODY ? NOBODY : (await readFileParties(client, file)).agent;
  const { client: owner, contentHash, count, needed, repairBelow, shardSize, periods, maxPrice } = bid;
  return {
    bidId,
    file,
    client: owner,
    agent,
    contentHash,
    cid,
    count,
    needed,
    repairBelow,
    shardSize,
    periods,
    maxPrice,
    filled: state.filled,
    validUntil: state.validUntil,
    endPeriod: account.endPeriod,
    pricePerPeriod: account.pricePerPeriod,
    reserve: account.reserve,
    challengeBudget: account.challengeBudget,
    free,
    healthy: state.filled ? shards.filter(isHealthy).length : 0,
    proven: shards.filter(({ deal }) => deal?.state === 'active').length,
    jobs: shards.filter((shard) => state.filled && (shard.state === 'lost' || (shard.state === 'live' && !isHealthy(shard)))).length,
    shards,
  };
}

/** A loss may not have been noted yet: the deal says so first. */
function isHealthy({ state, deal }: ShardView): boolean {
  return state === 'live' && deal !== undefined && ['open', 'active', 'faulty'].includes(deal.state);
}

async function shardOf(client: ChainClient, shard: ShardPiece & { index: number }, account: ShardAccount | undefined): Promise<ShardView> {
  const { dealId = 0n, operatorId = 0n, claimDealId = 0n, claimOperatorId = 0n } = account ?? {};
  const [deal, operator] = await Promise.all([
    dealId === 0n ? undefined : readDeal(client, dealId),
    operatorId === 0n ? undefined : readOperator(client, operatorId),
  ]);
  const state = SHARD_STATES[account?.state ?? 0] ?? 'none';
  return { ...shard, state, dealId, operatorId, claimDealId, claimOperatorId, deal, operator };
}
