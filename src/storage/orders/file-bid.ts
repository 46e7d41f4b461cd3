import { randomBytes } from 'node:crypto';
import { bytesToBigInt, type Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { approveMeter, depositToRails, meterAllowance, railsBalance, tokenBalance } from '../../token/index.ts';
import { readRules } from '../market/market-rules.ts';
import { batchTimes, NOBODY, readBookRules } from './book-rules.ts';
import { openBookView, readPrices } from './book-view.ts';
import type { StagedFile } from './file-shards.ts';
import { solveMatching } from './matcher.ts';
import type { BookAsk, BookBid } from './matching-rules.ts';
import { type BidOrder, bidCostParts, bidOrderDigest, excludedHashOf, orderDomainOf, shardCollateralUp, shardsHashOf } from './orders.ts';

/** What a client may wish of a bid; the rest follows from the book. Money in base units, prices per GiB and period. */
export interface BidWishes {
  maxPrice?: bigint;
  collateralPerGiB?: bigint;
  repairBelow?: number;
  distinctNetworks?: boolean;
  regionMax?: number;
  excluded?: bigint[];
  reserve?: bigint;
  bountyMax?: bigint;
  challengeBudget?: bigint;
  /** May acknowledge and challenge in the owner's name. */
  agent?: Hex;
}

/** The price of a bid before it is signed. */
export interface BidQuote {
  order: BidOrder;
  excluded: bigint[];
  cost: ReturnType<typeof bidCostParts>;
  /** Asks of the book that could take a shard now. */
  fitting: number;
  /** The price of the batch that cleared last, undefined when none has. */
  lastPrice: bigint | undefined;
}

/** A price that was not given is this much above the dearest ask that is needed now, in hundredths: others bid too. */
const MARGIN_PERCENT = 110n;
const MAX_UINT128 = (1n << 128n) - 1n;
const BID_BATCHES = 12n;

/**
 * The order for a staged file, after the asks of the book and the last price: what it costs at most is known before it is signed.
 * @throws book-too-thin when the book has no asks for it now and no price was given
 */
export async function quoteBid(options: {
  client: ChainClient;
  account: Hex;
  file: StagedFile;
  periods: number;
  wishes: BidWishes;
}): Promise<BidQuote> {
  const { client, account, file, periods, wishes } = options;
  const rules = await readBookRules(client);
  const view = openBookView(client);
  await view.refresh();
  const { challengeBond } = await readRules(client);
  const excluded = wishes.excluded ?? [];
  const demand = { ...file, periods, excluded, distinctNetworks: wishes.distinctNetworks ?? false, regionMax: wishes.regionMax ?? 0 };
  const collateralPerGiB = wishes.collateralPerGiB ?? collateralOffered(view.asks(), file.count);
  const { open } = await view.clock();
  const needed = dearestNeeded(view.asks(), { ...demand, collateralPerGiB, maxPrice: MAX_UINT128 }, batchTimes(rules, open));
  const lastPrice = (await readPrices(client)).at(-1)?.price;
  const collateral = shardCollateralUp(file.shardSize, collateralPerGiB);
  const repairBelow = wishes.repairBelow ?? repairBelowOf(file);
  const limit = await client.read('orderBook', 'bountyLimit', [collateral]);
  const bountyMax = wishes.bountyMax ?? (repairBelow === 0 || limit === 0n ? 0n : limit - 1n);
  const maxPrice = wishes.maxPrice ?? suggestedPrice(needed, lastPrice, file);
  const order: BidOrder = {
    client: account,
    agent: wishes.agent ?? NOBODY,
    contentHash: file.contentHash,
    shardsHash: shardsHashOf(file.shards.map(({ pieceRoot, cid }) => ({ pieceRoot, cid }))),
    shardSize: file.shardSize,
    pieceHeight: file.pieceHeight,
    count: file.count,
    needed: file.needed,
    repairBelow,
    periods,
    maxPrice,
    collateralPerGiB,
    distinctNetworks: demand.distinctNetworks,
    regionMax: demand.regionMax,
    excludedHash: excludedHashOf(excluded),
    reserve: wishes.reserve ?? bountyMax * BigInt(file.count - file.needed),
    bountyMax,
    challengeBudget: wishes.challengeBudget ?? challengeBond * BigInt(file.count),
    nonce: bytesToBigInt(randomBytes(32)),
    expiry: (await client.now()) + BID_BATCHES * rules.batchSeconds + 600n,
  };
  const fitting = view.asks().filter((ask) => ask.minPrice <= maxPrice && ask.collateralPerGiB >= collateralPerGiB).length;
  return { order, excluded, cost: bidCostParts(order, rules), fitting, lastPrice };
}

/** Of the shards that may be lost, a quarter is lost before repair begins; without any to spare there is no repair. */
export function repairBelowOf({ needed, count }: { needed: number; count: number }): number {
  return count === needed ? 0 : Math.max(needed + 1, needed + Math.ceil(((count - needed) * 3) / 4));
}

/** Signs a bid for the order book. */
export function signBid(client: ChainClient, signer: Signer, order: BidOrder): Promise<Hex> {
  return signer.signDigest(bidOrderDigest(orderDomainOf(client), order));
}

/**
 * Posts a signed bid, its money covered; the same bid is posted once however often it is called.
 * @throws no-funds and the contract's errors
 */
export async function postBid(options: {
  client: ChainClient;
  sender: Sender;
  order: BidOrder;
  excluded: readonly bigint[];
  signature: Hex;
  file: StagedFile;
}): Promise<{ bidId: bigint; file: Hex }> {
  const { client, sender, order, excluded, signature, file } = options;
  const account = await client.read('orderBook', 'fileAddress', [order]);
  const known = await client.read('orderBook', 'bidOfFile', [account]);
  if (known !== 0n) return { bidId: known, file: account };
  await cover(client, sender, await client.read('orderBook', 'bidCost', [order]));
  const shards = file.shards.map(({ pieceRoot, cid }) => ({ pieceRoot, cid }));
  await sender.send({
    contract: 'orderBook',
    functionName: 'postBid',
    args: [order, excluded, shards, file.cidHex, signature],
    key: `bid:${account.toLowerCase()}`,
  });
  return { bidId: await client.read('orderBook', 'bidOfFile', [account]), file: account };
}

/** Puts what a bid costs into the account at the rails, and lets the book take it. */
async function cover(client: ChainClient, sender: Sender, needed: bigint): Promise<void> {
  const account = sender.address;
  const [wallet, deposited, allowance] = await Promise.all([
    tokenBalance(client, { token: 'network', account }),
    railsBalance(client, { token: 'network', account }),
    meterAllowance(client, { payer: account, meter: 'orderBook', token: 'network' }),
  ]);
  if (wallet + deposited < needed) {
    throw new MillraceError('no-funds', {
      actor: 'caller',
      message: `${account} has ${wallet + deposited} base units of the network's token, needs ${needed}`,
      values: { account, needed, wallet, deposited },
      hint: 'Get more of the token, or take a lower price, fewer shards or fewer periods.',
    });
  }
  if (deposited < needed) await depositToRails(client, { sender, token: 'network', amount: needed - deposited });
  if (allowance < needed) await approveMeter(client, { sender, meter: 'orderBook', token: 'network', allowance: needed });
}

/** The greatest collateral that enough asks bear: one and a half times as many as there are shards, where there are so many. */
function collateralOffered(asks: readonly BookAsk[], count: number): bigint {
  const offered = asks.map(({ collateralPerGiB }) => collateralPerGiB).sort((left, right) => (left > right ? -1 : 1));
  return offered[Math.min(offered.length, Math.ceil(count * 1.5)) - 1] ?? 1n;
}

/** The dearest ask that a matching of this bid alone takes; undefined when the book cannot fill it now. */
function dearestNeeded(
  asks: readonly BookAsk[],
  demand: Pick<
    BookBid,
    'count' | 'shardSize' | 'periods' | 'maxPrice' | 'collateralPerGiB' | 'distinctNetworks' | 'regionMax' | 'excluded'
  >,
  times: { close: bigint; batchSeconds: bigint },
): bigint | undefined {
  const lasting = { postedAt: 0n, validUntil: times.close + times.batchSeconds };
  const bid: BookBid = { ...demand, ...lasting, bidId: 1n, filled: false };
  const book = { asks: asks.map((ask) => ({ ...ask, ...lasting })), bids: [bid] };
  const found = solveMatching({ book, times, limits: { steps: 500_000 } });
  const taken = asks.filter(({ askId }) => found?.matching.asks.includes(askId) === true).map(({ minPrice }) => minPrice);
  return taken.sort((left, right) => (left > right ? -1 : 1))[0];
}

function suggestedPrice(needed: bigint | undefined, lastPrice: bigint | undefined, file: StagedFile): bigint {
  if (needed === undefined) {
    throw new MillraceError('book-too-thin', {
      actor: 'peer',
      message: `The order book has no asks for ${file.count} shards of ${file.shardSize} bytes at different providers now`,
      values: { shards: file.count, shardSize: file.shardSize },
      hint: 'See `millrace market`. Take fewer shards, or give --max-price to post the bid and wait for asks.',
    });
  }
  const base = lastPrice !== undefined && lastPrice > needed ? lastPrice : needed;
  return (base * MARGIN_PERCENT) / 100n + 1n;
}
