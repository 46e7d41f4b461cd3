import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { type Hex, hexToBytes } from 'viem';
import { abis, type ChainClient, type Sender } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { pieceCidV1 } from '../content/piece.ts';
import { rebuildShard } from '../erasure/decode-shards.ts';
import { pieceOfFile } from '../erasure/prepare-shards.ts';
import { readOperator } from '../market/chain-view.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { cidFromHex } from '../market/terms.ts';
import { openShards } from '../orders/file-get.ts';
import { networkPrefixOfOperator } from '../orders/standing-ask.ts';
import { callFile, fileOfBid, NO_SIGNATURE, type ShardView, type StoredFile } from '../orders/stored-files.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import type { Duty } from '../provider/duty.ts';
import type { FileWatch } from './file-watch.ts';

/** What an operator sets for repairs. */
export interface RepairPolicy {
  /** What fetching and computing costs it, base units per GiB of the shard: below that a bounty is not worth it. */
  costPerGiB: bigint;
  /** The least that it stores for, base units per GiB and period. */
  minPrice: bigint;
}

/** What repairing stands on. */
export interface RepairerOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  records: DealRecords;
  store: PieceStore;
  watch: FileWatch;
  policy: RepairPolicy;
  /** Work in progress; its content can be deleted at any time. */
  folder: string;
  log: Logger;
  room(): Promise<{ freeBytes: bigint; accepting: boolean }>;
  everyMs: number;
}

/** A lost shard that the file's account offers now. Money in base units. */
export interface RepairJob {
  shard: number;
  periods: number;
  pricePerPeriod: bigint;
  bounty: bigint;
}

const GIB = 1n << 30n;
/** How long a job that could not be taken is left to others. */
const REST_MS = 30_000;
/** A last holder that is slower than that is not waited for: k others are faster. */
const HOLDER_PATIENCE_MS = 10_000;
const HOLDER_BYTES_PER_SECOND_MIN = 1 << 20;

/** Whether a job pays its costs: the bounty must cover the work and what the price falls short of the own one. Pure. */
export function isWorthwhile(job: RepairJob, sizeBytes: bigint, policy: RepairPolicy): boolean {
  const work = (policy.costPerGiB * sizeBytes + GIB - 1n) / GIB;
  const own = (policy.minPrice * sizeBytes + GIB - 1n) / GIB;
  const shortfall = own > job.pricePerPeriod ? (own - job.pricePerPeriod) * BigInt(job.periods) : 0n;
  return job.bounty >= work + shortfall;
}

/**
 * The duty to repair other people's lost shards for their bounty. The shard is rebuilt first, so that no bond is risked on one that
 * nobody can make, then claimed, put into the store, and activated like any deal; the bounty comes with its proof. One job at a time;
 * operators begin at different shards. A claim whose work was interrupted goes on after a restart.
 */
export function repairerDuty(options: RepairerOptions): Duty {
  const { client, operatorId, records, watch, log } = options;
  const hopeless = new Set<string>();
  const restUntil = new Map<string, number>();
  const keyOf = (file: StoredFile, shard: number) => `${file.file}:${shard}`;
  const isResting = (key: string) => hopeless.has(key) || (restUntil.get(key) ?? 0) > performance.now();
  return {
    name: 'repairer',
    everyMs: options.everyMs,
    async run(signal) {
      for (const record of records.all()) {
        if (record.isClaim === true && (record.status === 'receiving' || record.status === 'stored')) await fulfil(options, record, signal);
      }
      for (const file of await watch.running()) {
        signal.throwIfAborted();
        if (file.repairBelow === 0 || file.jobs === 0 || (await isBarred(client, file, operatorId))) continue;
        const jobs = (await openJobsOf(client, file)).filter(({ shard }) => !isResting(keyOf(file, shard)));
        const worthwhile = jobs.filter((job) => isWorthwhile(job, file.shardSize, options.policy));
        const job = worthwhile[Number(operatorId % BigInt(Math.max(1, worthwhile.length)))];
        const { freeBytes, accepting } = await options.room();
        if (job === undefined || !accepting || freeBytes < file.shardSize) continue;
        try {
          await takeJob(options, file, file.shards[job.shard] as ShardView, signal);
        } catch (error) {
          signal.throwIfAborted();
          const { code, message } = error as MillraceError;
          // The shards that are there contradict what the owner stated: nobody can make this one.
          if (code === 'shards-inconsistent') hopeless.add(keyOf(file, job.shard));
          restUntil.set(keyOf(file, job.shard), performance.now() + REST_MS);
          log.warn('repair-not-taken', { bidId: file.bidId, shard: job.shard, code, reason: message });
        }
      }
    },
  };
}

/** Whether the operator may not repair this file: it holds a shard, or has failed with one before. */
async function isBarred(client: ChainClient, file: StoredFile, operatorId: bigint): Promise<boolean> {
  const holds = file.shards.some(
    (shard) => (shard.state === 'live' && shard.operatorId === operatorId) || shard.claimOperatorId === operatorId,
  );
  if (holds) return true;
  const view = { address: file.file, abi: abis.storageFile, functionName: 'hasFailed', args: [operatorId] } as const;
  return client.public.readContract(view);
}

/** The jobs that a file's account offers now; none while enough of its shards are healthy. */
export async function openJobsOf(client: ChainClient, { file }: Pick<StoredFile, 'file'>): Promise<RepairJob[]> {
  const jobs = await client.public.readContract({ address: file, abi: abis.storageFile, functionName: 'openJobs' });
  return jobs.map(({ shard, periods, pricePerPeriod, bounty }) => ({ shard, periods, pricePerPeriod, bounty }));
}

async function takeJob(options: RepairerOptions, file: StoredFile, shard: ShardView, signal: AbortSignal): Promise<void> {
  const { client, sender, operatorId, log } = options;
  await stage(options, file, shard, signal);
  const networkPrefix = await networkPrefixOfOperator(client, operatorId);
  try {
    await callFile(sender, { file: file.file, functionName: 'claimRepair', args: [shard.index, shard.cid, networkPrefix] });
  } catch (error) {
    await rm(stagePath(options, shard.pieceRoot), { force: true });
    throw error;
  }
  log.info('repair-claimed', { bidId: file.bidId, shard: shard.index });
}

function stagePath({ folder }: RepairerOptions, pieceRoot: Hex): string {
  return join(folder, `${pieceRoot.slice(2)}.car`);
}

/** Brings the shard's CAR to the own disk, from its last holder or made of others, unless the piece is in the store already. */
async function stage(options: RepairerOptions, file: StoredFile, shard: ShardView, signal: AbortSignal): Promise<void> {
  const { client, store } = options;
  if (store.piece(shard.pieceRoot) !== undefined || file.needed === 1 || existsSync(stagePath(options, shard.pieceRoot))) return;
  if (await fetchFromHolder(options, file, shard, signal)) return;
  // Not the shard itself, which its last holder may still offer: it would count as one of those that are enough.
  const others = file.shards.filter(({ index }) => index !== shard.index);
  const { shards } = await openShards(client, { ...file, count: others.length, shards: others }, signal);
  try {
    const cid = cidFromHex(shard.cid).toString();
    const code = { k: file.needed, n: file.count };
    const { piece } = await rebuildShard({ code, index: shard.index, cid, shards, carPath: stagePath(options, shard.pieceRoot), signal });
    if (piece.root === shard.pieceRoot) return;
    throw new MillraceError('shards-inconsistent', {
      actor: 'peer',
      message: `Shard ${shard.index} is piece ${piece.root}, its owner stated ${shard.pieceRoot}`,
      values: { bidId: file.bidId, shard: shard.index, got: piece.root, expected: shard.pieceRoot },
    });
  } finally {
    for (const { reader } of shards) await reader.close();
  }
}

/**
 * Asks the shard's last holder first: one that leaves serves the shard until it is proven elsewhere, which costs one shard's bytes
 * instead of k. What comes is compared with the piece's root; false when it does not come, is slow or is something else.
 */
async function fetchFromHolder(options: RepairerOptions, file: StoredFile, shard: ShardView, signal: AbortSignal): Promise<boolean> {
  const { operator } = shard;
  if (operator === undefined || operator.endpoint === '') return false;
  const path = stagePath(options, shard.pieceRoot);
  const unfinished = `${path}.part`;
  const size = Number(file.shardSize);
  try {
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    const slow = AbortSignal.timeout(HOLDER_PATIENCE_MS + Math.ceil((size / HOLDER_BYTES_PER_SECOND_MIN) * 1000));
    const response = await peerFetch(operator, `/piece/${pieceCidV1(hexToBytes(shard.pieceRoot))}`, {
      headersTimeoutMs: HOLDER_PATIENCE_MS,
      idleTimeoutMs: HOLDER_PATIENCE_MS,
      signal: AbortSignal.any([signal, slow]),
    });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      return false;
    }
    await pipeline(
      Readable.fromWeb(response.body as ReadableStream<Uint8Array>),
      (body) => noMoreThan(body, size),
      createWriteStream(unfinished),
    );
    if ((await pieceOfFile(unfinished, () => {})).root !== shard.pieceRoot) return false;
    await rename(unfinished, path);
    options.log.info('shard-handed-over', { bidId: file.bidId, shard: shard.index, operatorId: operator.operatorId });
    return true;
  } catch (error) {
    // Whatever is wrong with the last holder, the others are left.
    signal.throwIfAborted();
    options.log.info('shard-not-handed-over', { bidId: file.bidId, shard: shard.index, reason: (error as Error).message });
    return false;
  } finally {
    await rm(unfinished, { force: true });
  }
}

async function* noMoreThan(body: AsyncIterable<Uint8Array>, sizeMax: number): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > sizeMax) return;
    yield chunk;
  }
}

/** Brings a claimed deal's piece into the store; from there its activation goes on by itself, without anybody's acknowledgement. */
async function fulfil(options: RepairerOptions, record: DealRecord, signal: AbortSignal): Promise<void> {
  const { client, store, records, log } = options;
  const { pieceRoot, rawSize, client: account } = record.terms;
  const file = await fileOfBid(client, await client.read('orderBook', 'bidOfFile', [account]));
  const shard = file?.shards.find((each) => each.claimDealId === record.dealId);
  if (file === undefined || shard === undefined) return;
  if (store.piece(pieceRoot) === undefined) {
    await stage(options, file, shard, signal);
    const receiver = await store.receive({ root: pieceRoot, rawSize: Number(rawSize), cid: cidFromHex(record.cid).toString() });
    const body =
      file.needed === 1
        ? await copyOf(options, file, shard, receiver.offset)
        : createReadStream(stagePath(options, pieceRoot), { start: receiver.offset });
    try {
      await receiver.append(body, { offset: receiver.offset });
      await receiver.commit();
    } finally {
      // Also when the disk changed it meanwhile: it is made anew the next time.
      await rm(stagePath(options, pieceRoot), { force: true });
    }
  }
  record.acknowledgement = NO_SIGNATURE;
  record.status = 'acknowledged';
  await records.save(record);
  log.info('repair-stored', { bidId: file.bidId, shard: shard.index, dealId: record.dealId });
}

/** The same piece at its last holder or another one of a file that is kept in copies; what comes is verified when it is committed. */
async function copyOf(options: RepairerOptions, file: StoredFile, lost: ShardView, offset: number): Promise<Readable> {
  const pieceCid = pieceCidV1(hexToBytes(lost.pieceRoot)).toString();
  let failure: unknown;
  for (const { operatorId } of [lost, ...file.shards.filter(({ state }) => state === 'live')]) {
    try {
      const response = await peerFetch(await readOperator(options.client, operatorId), `/piece/${pieceCid}`, {
        headers: offset === 0 ? {} : { range: `bytes=${offset}-` },
      });
      if (response.ok && response.body !== null) return Readable.fromWeb(response.body as ReadableStream<Uint8Array>);
      await response.body?.cancel();
    } catch (error) {
      failure = error;
    }
  }
  throw new MillraceError('no-holders', {
    actor: 'peer',
    message: `Nobody serves piece ${pieceCid}`,
    values: { bidId: file.bidId, pieceCid },
    cause: failure,
  });
}
