import { type AbiEvent, type Hex, parseAbiItem } from 'viem';
import { type ChainClient, chainError } from '../../chain/index.ts';
import type { CodeChoice, CodeWishes } from '../erasure/choose-code.ts';
import { chooseCode, describeCode } from '../erasure/choose-code.ts';
import { type DurabilityRecord, type MeasuredRates, measureRates } from '../erasure/durability-record.ts';
import { type DurabilityView, viewDurability } from '../erasure/durability-text.ts';
import { readRules } from '../market/market-rules.ts';
import { periodAt } from '../possession/periods.ts';
import { readBookRules } from './book-rules.ts';
import { openBookView, readPrices } from './book-view.ts';
import { repairBelowOf } from './file-bid.ts';
import type { FileShape } from './file-shards.ts';
import { type OrderFees, shardPriceUp } from './orders.ts';

/** A code that was chosen or described, and what its durability and price rest on. */
export interface ChosenShape {
  shape: FileShape;
  repairBelow: number;
  view: DurabilityView;
}

/** `IStorageMarket.Cause.ProviderLeft`: a provider that leaves still has the piece, and says so. */
const CAUSE_LEFT = 4;
const REPAIRS_MAX = 200;
const LOG_RANGE = 10_000n;
const SHARD_LOST = parseAbiItem('event ShardLost(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId, uint8 healthy)');
const REPAIR_FINISHED = parseAbiItem(
  'event RepairFinished(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId, uint128 bounty, uint8 healthy)',
);

/**
 * The code for a file: the one that was asked for, or the cheapest that is as durable as was asked for, with the
 * probability of loss over the file's life at the rates that this chain has seen.
 * @throws durability-unreachable, too-expensive, bad-erasure-code
 */
export async function chooseShape(options: {
  client: ChainClient;
  wish: FileShape | { nines: number };
  repairBelow?: number;
  carSize: number;
  periods: number;
  maxPrice?: bigint;
}): Promise<ChosenShape> {
  const { client, wish, carSize, periods } = options;
  const { clock } = await readRules(client);
  const hours = (periods * Number(clock.period)) / 3600;
  const [rates, market] = await Promise.all([readRates(client), readTerms(client)]);
  const price = options.maxPrice ?? market.price;
  const quote: CodeWishes['quote'] = ({ n, shardCarSize }) =>
    costOf({ size: BigInt(shardCarSize), count: n, periods, price, fees: market.fees });
  const wishes = { carSize, hours, rates, operators: market.operators, quote };
  const choice = 'nines' in wish ? chooseCode({ ...wishes, nines: wish.nines }) : describe(wishes, wish, options.repairBelow);
  const shape = { needed: choice.k, count: choice.n };
  return { shape, repairBelow: choice.repairBelow, view: viewDurability(choice, rates, hours) };
}

function describe(wishes: CodeWishes, shape: FileShape, repairBelow: number | undefined): CodeChoice {
  return describeCode(wishes, { k: shape.needed, n: shape.count, repairBelow: repairBelow ?? repairBelowOf(shape) });
}

/** What storing costs besides what comes back: price and network fee. */
function costOf(options: { size: bigint; count: number; periods: number; price: bigint; fees: OrderFees }): bigint {
  const { size, count, periods, price, fees } = options;
  const shard = shardPriceUp(size, price);
  return (shard + (shard * BigInt(fees.feeBps)) / 10_000n) * BigInt(count) * BigInt(periods) + fees.matcherTip;
}

/** The last price, else the dearest ask; and how many owners have asks. */
async function readTerms(client: ChainClient): Promise<{ price: bigint; operators: number; fees: OrderFees }> {
  const view = openBookView(client);
  await view.refresh();
  const asks = view.asks();
  const last = (await readPrices(client)).at(-1)?.price;
  const dearest = asks
    .map(({ minPrice }) => minPrice)
    .sort(ascending)
    .at(-1);
  const operators = new Set(asks.map(({ owner }) => owner)).size;
  return { price: last ?? dearest ?? 0n, operators, fees: await readBookRules(client) };
}

/** Failure rate and repair time as this chain has seen them, together with the stated prior. */
export async function readRates(client: ChainClient): Promise<MeasuredRates> {
  const possession = await client.read('possession', 'config');
  const [{ shardHours, losses }, repairs] = await Promise.all([readLosses(client), readRepairs(client)]);
  const seen: DurabilityRecord = { shardHours, losses, repairHoursSum: repairs.hours, repairs: repairs.count };
  const unnoticedHours = ((0.5 + possession.maxMisses) * possession.period) / 3600;
  return measureRates(seen, unnoticedHours);
}

async function readLosses(client: ChainClient): Promise<{ shardHours: number; losses: number }> {
  const [activated, terminated, ended, { clock }, now] = await Promise.all([
    client.events({ name: 'storageMarket', event: 'DealActivated' }),
    client.events({ name: 'storageMarket', event: 'DealTerminated' }),
    client.events({ name: 'storageMarket', event: 'DealEndsEarly' }),
    readRules(client),
    client.now(),
  ]);
  const current = periodAt(clock, now);
  const ends = new Map<bigint, bigint>();
  for (const { args } of ended) ends.set(args.dealId, args.endPeriod);
  for (const { args } of terminated) ends.set(args.dealId, args.period);
  let periods = 0n;
  for (const { args } of activated) {
    const end = ends.get(args.dealId) ?? args.endPeriod;
    const last = [end, current].sort(ascending)[0] as bigint;
    if (last > args.firstPeriod) periods += last - args.firstPeriod;
  }
  const losses = terminated.filter(({ args }) => args.cause !== CAUSE_LEFT).length;
  return { shardHours: (Number(periods) * Number(clock.period)) / 3600, losses };
}

function ascending(left: bigint, right: bigint): number {
  return left < right ? -1 : 1;
}

/** How long the last repairs took, from the note of the loss to the end of the repair. */
async function readRepairs(client: ChainClient): Promise<{ count: number; hours: number }> {
  const posted = await client.events({ name: 'orderBook', event: 'BidPosted' });
  const files = new Set(posted.map(({ args }) => args.file.toLowerCase()));
  if (files.size === 0) return { count: 0, hours: 0 };
  const [lost, finished] = [await logsOfFiles(client, SHARD_LOST, files), await logsOfFiles(client, REPAIR_FINISHED, files)];
  const times = new Map<bigint, Promise<bigint>>();
  const timeOf = (blockNumber: bigint) => {
    const time = times.get(blockNumber) ?? client.public.getBlock({ blockNumber }).then(({ timestamp }) => timestamp);
    times.set(blockNumber, time);
    return time;
  };
  let seconds = 0;
  let count = 0;
  for (const repair of finished.slice(-REPAIRS_MAX)) {
    const loss = lost.findLast(({ key, block }) => key === repair.key && block <= repair.block);
    if (loss === undefined) continue;
    seconds += Number((await timeOf(repair.block)) - (await timeOf(loss.block)));
    count += 1;
  }
  return { count, hours: seconds / 3600 };
}

/** Events of files' accounts, which are many addresses: those of other contracts that look alike are left out. */
async function logsOfFiles(client: ChainClient, event: AbiEvent, files: ReadonlySet<string>): Promise<{ key: string; block: bigint }[]> {
  const found: { key: string; block: bigint }[] = [];
  try {
    const head = await client.public.getBlockNumber({ cacheTime: 0 });
    for (let from = BigInt(client.manifest.modules.orderBook?.deployBlock ?? 0); from <= head; from += LOG_RANGE) {
      const to = from + LOG_RANGE - 1n;
      for (const log of await client.public.getLogs({ event, fromBlock: from, toBlock: to < head ? to : head })) {
        const { shard } = log.args as { shard: number };
        const address: Hex = log.address;
        if (files.has(address.toLowerCase())) found.push({ key: `${address.toLowerCase()} ${shard}`, block: log.blockNumber });
      }
    }
  } catch (error) {
    throw chainError(error, 'Reading events of files');
  }
  return found;
}
