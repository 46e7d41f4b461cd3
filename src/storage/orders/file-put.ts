import { realpath } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type BuiltContent, buildContent, type ContentProgress } from '../content/content.ts';
import type { DurabilityView } from '../erasure/durability-text.ts';
import type { ShardProgress } from '../erasure/prepare-shards.ts';
import { sampleOfCar, takeSome } from '../market/block-sample.ts';
import { readDeal, readOperator, storageDomainOf } from '../market/chain-view.ts';
import { type CopyProgress, placeCopy } from '../market/place-copy.ts';
import { fetchDealProgress, type ProviderPeer } from '../market/provider-api.ts';
import { type Attempt, putFolder, putIdOf } from '../market/put-journal.ts';
import { type BatchClock, batchClock, readBookRules } from './book-rules.ts';
import { chooseShape } from './durability-seen.ts';
import { type BidQuote, type BidWishes, postBid, quoteBid, signBid } from './file-bid.ts';
import { createFileJournalWriter, type FileJournal, readFileJournal, removeFilePut, type ShardJournal } from './file-journal.ts';
import { type FileShape, type StagedFile, stageFile } from './file-shards.ts';
import { callFile, fileOfBid, NO_SIGNATURE } from './stored-files.ts';

/** What happens during a put by the order book. */
export type FilePutEvent =
  | { kind: 'build'; progress: ContentProgress }
  | { kind: 'durability'; view: DurabilityView }
  | { kind: 'shards'; progress: ShardProgress }
  | { kind: 'staged'; cid: string; sizeBytes: number; shardSize: bigint; shape: FileShape }
  | { kind: 'priced'; quote: BidQuote }
  | { kind: 'posted'; bidId: bigint; file: Hex }
  | { kind: 'waiting'; bidId: bigint; clock: BatchClock; now: bigint }
  | { kind: 'filled'; bidId: bigint; price: bigint; operatorIds: bigint[] }
  | ({ kind: 'shard'; shard: number } & CopyProgress)
  | { kind: 'shard-failed'; shard: number; operatorId: bigint; code: string; message: string };

/** What to store by the order book, and how. */
export interface FilePutOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  /** The client's data folder: journals, CARs and shards of unfinished puts are kept in `puts` below it. */
  folder: string;
  source: { path: string };
  /** A code, or how durable the file shall be, in nines. */
  shape: FileShape | { nines: number };
  periods: number;
  public?: boolean;
  recipients?: Uint8Array[];
  wishes?: BidWishes;
  /** Greatest total that is paid without asking back; more is refused. */
  maxTotal?: bigint;
  /** Called with the price before anything is signed or paid; may refuse by throwing. */
  confirm?: (quote: BidQuote) => Promise<void>;
  /** Ends when all shards are acknowledged instead of proven on chain. */
  untilActive?: boolean;
  uploadsMax?: number;
  stallMs?: number;
  chunkBytes?: number;
  onEvent?: (event: FilePutEvent) => void;
  log?: Logger;
  signal?: AbortSignal;
}

/** A file stored by the order book. */
export interface FilePutResult {
  cid: string;
  bidId: bigint;
  file: Hex;
  needed: number;
  count: number;
  repairBelow: number;
  sizeBytes: number;
  isSealed: boolean;
  /** Per GiB and period, as it cleared. */
  price: bigint;
  shards: { shard: number; cid: string; dealId: bigint; operatorId: bigint; isActive: boolean }[];
  /** Shards whose providers did not take them: they stay staged here until they are repaired. */
  failed: { shard: number; operatorId: bigint; code: string; message: string }[];
}

interface Run {
  options: FilePutOptions;
  journal: FileJournal;
  content: BuiltContent;
  staged: StagedFile;
  samples: Map<string, Promise<CID[]>>;
  save(): Promise<void>;
  emit(event: FilePutEvent): void;
}

const STALL_MS = 60_000;
const UPLOADS_MAX = 6;
const POLL_MS = 500;
const SHARDS_MAX = 32;

/**
 * Stores a file by the order book: builds it, cuts it into shards, posts a funded bid, waits for the batch that fills it,
 * sends each shard to the provider that it fell to, reads back random blocks, acknowledges, and waits for the first proofs.
 * What is done is kept in a journal, so the same call after an interruption goes on where it was. A provider that does not
 * take its shard is left to its deadline; the shard is then repaired out of the file's reserve.
 * @throws bad-shape, source-missing, disk-full, book-too-thin, too-expensive, no-funds, bid-not-filled, file-not-safe
 */
export async function putFile(options: FilePutOptions): Promise<FilePutResult> {
  const putId = await identify(options);
  const workFolder = putFolder(options.folder, putId);
  const emit = options.onEvent ?? (() => {});
  const { signal } = options;
  const content = await buildContent({
    source: options.source,
    workFolder: join(workFolder, 'content-0'),
    public: options.public,
    recipients: options.recipients,
    signal,
    onProgress: (progress) => emit({ kind: 'build', progress }),
  });
  const journal = (await readFileJournal(options.folder, putId)) ?? (await newJournal(options, putId, content, emit));
  const save = createFileJournalWriter(options.folder, journal);
  await save();
  const { shape } = journal;
  const staged = await stageFile({
    content,
    shape,
    workFolder: join(workFolder, 'shards'),
    onProgress: (progress) => emit({ kind: 'shards', progress }),
    signal,
  });
  emit({ kind: 'staged', cid: content.cid, sizeBytes: content.carSize, shardSize: staged.shardSize, shape });
  const run: Run = { options, journal, content, staged, samples: new Map(), save, emit };
  await order(run);
  await untilFilled(run);
  await placeAll(run);
  const result = resultOf(run);
  requireSafe(result);
  if (result.failed.length === 0) await removeFilePut(options.folder, putId);
  return result;
}

/** The same account, path and options give the same number. */
async function identify(options: FilePutOptions): Promise<string> {
  const { source, signer, periods, shape } = options;
  const path = await realpath(source.path).catch(() => resolve(source.path));
  const readers = (options.recipients ?? []).map((key) => Buffer.from(key).toString('hex'));
  const kind = options.public === true ? 'public' : 'sealed';
  const wish = 'nines' in shape ? `${shape.nines}nines` : `${shape.needed}of${shape.count}`;
  const parts = ['file', signer.address, options.client.address('orderBook'), path, kind, String(periods), wish];
  return putIdOf([...parts, ...readers]);
}

async function newJournal(
  options: FilePutOptions,
  putId: string,
  content: BuiltContent,
  emit: (event: FilePutEvent) => void,
): Promise<FileJournal> {
  const { client, periods, shape: wish, wishes } = options;
  if (!('nines' in wish)) requireShape(wish);
  const { repairBelow: wanted, maxPrice } = wishes ?? {};
  const chosen = await chooseShape({ client, wish, repairBelow: wanted, carSize: content.carSize, periods, maxPrice });
  const { shape, repairBelow, view } = chosen;
  requireShape(shape);
  emit({ kind: 'durability', view });
  return {
    version: 1,
    kind: 'file',
    putId,
    name: resolve(options.source.path),
    account: options.signer.address,
    shape,
    repairBelow,
    shards: Array.from({ length: shape.count }, () => ({})),
    startedAt: new Date().toISOString(),
  };
}

/** Prices, signs and posts the bid, each once. */
async function order(run: Run): Promise<void> {
  const { options, journal, staged } = run;
  const { client, signer, sender, periods } = options;
  if (journal.order === undefined) {
    const quote = await quoteBid({
      client,
      account: signer.address,
      file: staged,
      periods,
      wishes: { ...options.wishes, repairBelow: journal.repairBelow },
    });
    run.emit({ kind: 'priced', quote });
    if (options.maxTotal !== undefined && quote.cost.total > options.maxTotal) throw tooExpensive(quote.cost.total, options.maxTotal);
    await options.confirm?.(quote);
    options.signal?.throwIfAborted();
    journal.order = { bid: quote.order, excluded: quote.excluded, signature: await signBid(client, signer, quote.order) };
    await run.save();
  }
  if (journal.bidId === undefined) {
    const { bid, excluded, signature } = journal.order;
    const posted = await postBid({ client, sender, order: bid, excluded, signature, file: staged }).catch(async (error: unknown) => {
      // An order that ran out before it was posted is made anew by the next call.
      if (error instanceof MillraceError && error.code === 'order-expired') await forgetOrder(run);
      throw error;
    });
    journal.bidId = posted.bidId;
    journal.file = posted.file;
    await run.save();
  }
  run.emit({ kind: 'posted', bidId: journal.bidId, file: journal.file as Hex });
}

async function forgetOrder(run: Run): Promise<void> {
  for (const key of ['order', 'bidId', 'file'] as const) delete run.journal[key];
  await run.save();
}

/** Waits for the batch that fills the bid; a bid that ran out unfilled gives its money back. */
async function untilFilled(run: Run): Promise<void> {
  const { options, journal } = run;
  if (journal.price !== undefined) return;
  const { client, signal } = options;
  const bidId = journal.bidId as bigint;
  const rules = await readBookRules(client);
  while (true) {
    const { filled, validUntil } = await client.read('orderBook', 'bid', [bidId]);
    if (filled) break;
    const now = await client.now();
    if (now >= validUntil) throw await notFilled(run, validUntil);
    run.emit({ kind: 'waiting', bidId, clock: batchClock(rules, now), now });
    await pause(POLL_MS, signal);
  }
  const [event] = await client.events({ name: 'orderBook', event: 'BidFilled', args: { bidId } });
  if (event === undefined)
    throw new MillraceError('event-missing', { actor: 'chain', message: `Bid ${bidId} is filled, but no event says so` });
  const deals = await Promise.all(event.args.deals.map((dealId) => readDeal(client, dealId)));
  deals.forEach(({ dealId, operatorId }, index) => {
    Object.assign(journal.shards[index] as ShardJournal, { dealId, operatorId });
  });
  journal.price = event.args.price;
  await run.save();
  run.emit({ kind: 'filled', bidId, price: journal.price, operatorIds: deals.map(({ operatorId }) => operatorId) });
}

async function notFilled(run: Run, validUntil: bigint): Promise<MillraceError> {
  const { options, journal } = run;
  const { bidId, file } = journal;
  const free = (await fileOfBid(options.client, bidId as bigint))?.free ?? 0n;
  if (free > 0n) await callFile(options.sender, { file: file as Hex, functionName: 'withdraw', args: [free, options.signer.address] });
  await forgetOrder(run);
  return new MillraceError('bid-not-filled', {
    actor: 'peer',
    message: `No batch filled bid ${bidId} until ${validUntil}; its money came back`,
    values: { bidId, validUntil, returned: free },
    hint: 'Run it again with a higher --max-price, or with fewer shards; see `millrace market`.',
  });
}

/** Sends all shards, several at a time; a shard that fails does not hold up the others. */
async function placeAll(run: Run): Promise<void> {
  const waiting = run.journal.shards.map((_, index) => index);
  const worker = async () => {
    for (let index = waiting.shift(); index !== undefined; index = waiting.shift()) await placeShard(run, index);
  };
  await Promise.all(Array.from({ length: run.options.uploadsMax ?? UPLOADS_MAX }, worker));
}

async function placeShard(run: Run, index: number): Promise<void> {
  const { options, journal, staged } = run;
  const shard = journal.shards[index] as ShardJournal;
  const content = staged.shards[index] as StagedFile['shards'][number];
  if (shard.isActive === true || shard.failure !== undefined) return;
  const { client, signer, signal, stallMs = STALL_MS } = options;
  try {
    const peer = await readOperator(client, shard.operatorId as bigint);
    const attempt = await attemptOf(run, shard);
    await untilKnown(peer, shard.dealId as bigint, { stallMs, signal });
    await placeCopy(
      {
        client,
        domain: storageDomainOf(client),
        signer,
        peer,
        content: { cid: content.rootCid, carPath: content.carPath },
        save: async () => {
          const { isStored, isAcknowledged, isActive } = attempt;
          Object.assign(shard, { isStored, isAcknowledged, isActive });
          await run.save();
        },
        onProgress: (progress) => run.emit({ kind: 'shard', shard: index, ...progress }),
        sampleBlocks: () => sampleBlocks(run, content.carPath),
        stallMs,
        untilActive: options.untilActive ?? true,
        chunkBytes: options.chunkBytes,
        signal,
      },
      attempt,
    );
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof MillraceError) || error.actor !== 'peer') throw error;
    const { code, message } = error;
    shard.failure = { code, message };
    await run.save();
    run.emit({ kind: 'shard-failed', shard: index, operatorId: shard.operatorId as bigint, code, message });
    options.log?.warn('shard-failed', { shard: index, operatorId: shard.operatorId, code, reason: message });
  }
}

/** A matched deal as an attempt that is opened already: its terms are the chain's. */
async function attemptOf({ options }: Run, shard: ShardJournal): Promise<Attempt> {
  const deal = await readDeal(options.client, shard.dealId as bigint);
  const { isStored, isAcknowledged, isActive } = shard;
  return {
    operatorId: deal.operatorId,
    terms: { ...deal, periods: 0, clientNonce: deal.dealId, providerNonce: 0n, expiry: 0n },
    signature: NO_SIGNATURE,
    dealId: deal.dealId,
    isStored,
    isAcknowledged,
    isActive,
  };
}

/** The provider learns of a matched deal from the chain, a moment later. */
async function untilKnown(peer: ProviderPeer, dealId: bigint, options: { stallMs: number; signal?: AbortSignal }): Promise<void> {
  const deadline = performance.now() + options.stallMs;
  while (true) {
    try {
      await fetchDealProgress(peer, dealId, { signal: options.signal });
      return;
    } catch (error) {
      options.signal?.throwIfAborted();
      if (performance.now() > deadline) throw error;
      await pause(POLL_MS, options.signal);
    }
  }
}

async function sampleBlocks(run: Run, carPath: string): Promise<CID[]> {
  const sample = run.samples.get(carPath) ?? sampleOfCar(carPath);
  run.samples.set(carPath, sample);
  return takeSome(await sample);
}

function resultOf({ journal, content, staged }: Run): FilePutResult {
  const { bidId, file, price, order: signed } = journal;
  return {
    cid: content.cid,
    bidId: bidId as bigint,
    file: file as Hex,
    needed: staged.needed,
    count: staged.count,
    repairBelow: signed?.bid.repairBelow ?? 0,
    sizeBytes: content.plainSize,
    isSealed: content.isSealed,
    price: price as bigint,
    shards: journal.shards.map((shard, index) => ({
      shard: index,
      cid: staged.shards[index]?.rootCid as string,
      dealId: shard.dealId as bigint,
      operatorId: shard.operatorId as bigint,
      isActive: shard.isActive === true,
    })),
    failed: journal.shards.flatMap(({ failure, operatorId }, shard) =>
      failure === undefined ? [] : [{ shard, operatorId: operatorId as bigint, ...failure }],
    ),
  };
}

function requireSafe(result: FilePutResult): void {
  const placed = result.count - result.failed.length;
  if (placed >= result.needed) return;
  throw new MillraceError('file-not-safe', {
    actor: 'peer',
    message: `${placed} of ${result.count} shards of ${result.cid} are placed, ${result.needed} are needed`,
    values: {
      cid: result.cid,
      bidId: result.bidId,
      placed,
      needed: result.needed,
      failed: result.failed.map(({ operatorId, code }) => `${operatorId}: ${code}`),
    },
    hint: 'The shards stay staged here. What is lost is repaired from them; see `millrace file`.',
  });
}

function requireShape({ needed, count }: FileShape): void {
  if (Number.isInteger(needed) && Number.isInteger(count) && needed >= 1 && needed <= count && count <= SHARDS_MAX) return;
  throw new MillraceError('bad-shape', {
    actor: 'caller',
    message: `Got ${needed} of ${count} shards, expected 1 to ${SHARDS_MAX} shards of which at least one and at most all are needed`,
    values: { needed, count, limit: SHARDS_MAX },
  });
}

function tooExpensive(total: bigint, limit: bigint): MillraceError {
  return new MillraceError('too-expensive', {
    actor: 'caller',
    message: `The file costs at most ${total} base units in all, the limit is ${limit}`,
    values: { total, limit },
    hint: 'Raise the limit, or take fewer shards or periods.',
  });
}

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise((resume) => setTimeout(resume, ms));
  signal?.throwIfAborted();
}
