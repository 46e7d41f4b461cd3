import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { readJsonFile, writeDurably } from '../content/durable-file.ts';
import { putFolder } from '../market/put-journal.ts';
import type { FileShape } from './file-shards.ts';
import { type BidOrder, bidOrderFromJson, orderToJson } from './orders.ts';

/** One shard of a file as far as it has come. */
export interface ShardJournal {
  dealId?: bigint;
  operatorId?: bigint;
  /** The provider has all bytes, verified and durable. */
  isStored?: boolean;
  /** Random blocks came back right, and the provider has our acknowledgement. */
  isAcknowledged?: boolean;
  isActive?: boolean;
  /** Why its provider was given up: its deal is left to expire, and becomes a repair job. */
  failure?: { code: string; message: string };
}

/** What the put of a file by the order book has done so far; written before each step that the outside world can see. */
export interface FileJournal {
  version: 1;
  kind: 'file';
  putId: string;
  name: string;
  account: Hex;
  shape: FileShape;
  repairBelow: number;
  /** The signed order; absent until it was priced. */
  order?: { bid: BidOrder; excluded: bigint[]; signature: Hex };
  bidId?: bigint;
  file?: Hex;
  /** The price per GiB and period at which it was filled. */
  price?: bigint;
  shards: ShardJournal[];
  startedAt: string;
}

/** Reads the journal of a put by the order book, or undefined when it has none. */
export async function readFileJournal(folder: string, putId: string): Promise<FileJournal | undefined> {
  const raw = (await readJsonFile(pathOf(folder, putId))) as (FileJournal & { order?: { bid: unknown } }) | undefined;
  if (raw === undefined) return undefined;
  const { order } = raw;
  return {
    ...raw,
    order: order === undefined ? undefined : { ...order, bid: bidOrderFromJson(order.bid), excluded: order.excluded.map(BigInt) },
    bidId: optional(raw.bidId),
    price: optional(raw.price),
    shards: raw.shards.map((shard) => ({ ...shard, dealId: optional(shard.dealId), operatorId: optional(shard.operatorId) })),
  };
}

/** A writer of one journal: changes are written one after another, each durable when its promise resolves. */
export function createFileJournalWriter(folder: string, journal: FileJournal): () => Promise<void> {
  let last: Promise<void> = Promise.resolve();
  return () => {
    last = last.catch(() => {}).then(() => writeDurably(pathOf(folder, journal.putId), textOf(journal)));
    return last;
  };
}

/** Deletes the staged shards of a put and its journal. */
export async function removeFilePut(folder: string, putId: string): Promise<void> {
  await rm(putFolder(folder, putId), { recursive: true, force: true });
}

function pathOf(folder: string, putId: string): string {
  return join(putFolder(folder, putId), 'file.json');
}

function textOf(journal: FileJournal): string {
  const { order } = journal;
  const plain = { ...journal, order: order === undefined ? undefined : { ...order, bid: orderToJson(order.bid) } };
  return `${JSON.stringify(plain, (_, value) => (typeof value === 'bigint' ? value.toString() : value))}\n`;
}

function optional(value: unknown): bigint | undefined {
  return value === undefined ? undefined : BigInt(value as string);
}
