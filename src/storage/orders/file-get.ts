import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { CID } from 'multiformats/cid';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import type { ContentSource, FetchLimits } from '../content/block-fetcher.ts';
import { createCarIndexer, findRow, INDEX_ROW_BYTES } from '../content/car-index.ts';
import { decodeShards } from '../erasure/decode-shards.ts';
import { openRemoteShard, type ShardReader } from '../erasure/shard-reader.ts';
import type { OfferedShard, UnusableShard } from '../erasure/shard-set.ts';
import { readOperator } from '../market/chain-view.ts';
import { cidFromHex } from '../market/terms.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { sourceOf } from './checker.ts';
import { filesOfContent, type ShardView, type StoredFile } from './stored-files.ts';

/** A content of the order book, ready to be read. */
export interface FetchedFile {
  bidId: bigint;
  sources: ContentSource[];
  /** Shards that could not be used, and why. */
  unusable: readonly UnusableShard[];
  /** Deletes what was put together on disk. */
  close(): Promise<void>;
}

/** How long shards that are slower than enough others are waited for. */
const GRACE_MS = 2_000;
const SHARD_LIMITS: FetchLimits = { headersMs: 10_000, idleMs: 10_000, bytesPerSecondMin: 16 << 10, failuresMax: 2 };

/**
 * Finds a file by its root CID in the chain's events alone and fetches any k of its shards, the data itself first; a shard
 * that is missing, wrong or slow is replaced by parity. The whole is put together on disk, every block verified.
 * Undefined when no bid about this content was ever filled.
 * @throws bad-cid, too-few-shards, shards-inconsistent, disk-full
 */
export async function fetchFile(options: {
  client: ChainClient;
  cid: string;
  /** Where the content's CAR is put together. */
  carPath: string;
  onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void;
  signal?: AbortSignal;
}): Promise<FetchedFile | undefined> {
  const { client, cid, carPath } = options;
  const files = (await filesOfContent(client, parseCid(cid).bytes)).filter(({ filled }) => filled);
  let failure: unknown;
  for (const file of files) {
    try {
      return file.needed === 1 ? await copiesOf(client, file) : await rebuild(file, { ...options, carPath });
    } catch (error) {
      options.signal?.throwIfAborted();
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
  return undefined;
}

/** With one shard needed, each is the whole content. */
async function copiesOf(client: ChainClient, file: StoredFile): Promise<FetchedFile> {
  const sources = (await Promise.all(file.shards.map((shard) => holdersOfShard(client, shard)))).flat();
  return { bidId: file.bidId, sources, unusable: [], close: async () => {} };
}

async function rebuild(file: StoredFile, options: Parameters<typeof fetchFile>[0]): Promise<FetchedFile> {
  const { client, cid, carPath, signal } = options;
  await mkdir(dirname(carPath), { recursive: true, mode: 0o700 });
  const { shards, failed } = await openShards(client, file, signal);
  try {
    const code = { k: file.needed, n: file.count };
    const decoded = await decodeShards({ cid, code, shards, carPath, onProgress: options.onProgress, signal });
    const local = await openCarSource(carPath);
    const close = async () => {
      await local.close();
      await rm(carPath, { force: true });
    };
    return { bidId: file.bidId, sources: [local.source], unusable: [...failed, ...decoded.unusable], close };
  } finally {
    for (const { reader } of shards) await reader.close();
  }
}

/** Opens all shards side by side, and goes on as soon as the data is there, or enough of any kind and a moment has passed. */
export async function openShards(
  client: ChainClient,
  file: StoredFile,
  signal: AbortSignal | undefined,
): Promise<{ shards: OfferedShard[]; failed: UnusableShard[] }> {
  const opened = new Map<number, OfferedShard>();
  const failed: UnusableShard[] = [];
  let wake: () => void = () => {};
  const enough = new Promise<void>((resolve) => {
    wake = resolve;
  });
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    const hasData = Array.from({ length: file.needed }, (_, index) => index).every((index) => opened.has(index));
    if (hasData || opened.size + failed.length === file.count) wake();
    else if (opened.size >= file.needed) timer ??= setTimeout(wake, GRACE_MS);
  };
  let isOver = false;
  for (const shard of file.shards) {
    openShard(client, shard, signal)
      .then(async (reader) => {
        if (isOver) await reader.close();
        else opened.set(shard.index, { index: shard.index, cid: cidFromHex(shard.cid).toString(), reader });
      })
      .catch((error: unknown) => {
        const { code = 'unexpected', message } = error as MillraceError;
        failed.push({ index: shard.index, code, message });
      })
      .finally(look);
  }
  await enough;
  isOver = true;
  clearTimeout(timer);
  signal?.throwIfAborted();
  return { shards: [...opened.values()].sort((left, right) => left.index - right.index), failed };
}

async function openShard(client: ChainClient, shard: ShardView, signal: AbortSignal | undefined): Promise<ShardReader> {
  const sources = await holdersOfShard(client, shard);
  const cid = cidFromHex(shard.cid).toString();
  if (sources.length > 0) return openRemoteShard({ cid, sources, signal, limits: SHARD_LIMITS });
  throw new MillraceError('no-holders', {
    actor: 'peer',
    message: `Nobody holds shard ${shard.index}`,
    values: { shard: shard.index, cid },
  });
}

/** Whoever should hold a shard now, and whoever repairs it. A holder whose deal is over may still have it, so it is asked too. */
async function holdersOfShard(client: ChainClient, shard: ShardView): Promise<ContentSource[]> {
  const repairer = shard.claimOperatorId === 0n ? undefined : await readOperator(client, shard.claimOperatorId);
  return [shard.operator, repairer]
    .filter((operator) => operator !== undefined && operator.endpoint !== '')
    .map((operator) => sourceOf(operator as NonNullable<typeof operator>));
}

/** A CAR on the own disk as a source of content: blocks by their digest, at the same gateway that others are served by. */
async function openCarSource(carPath: string): Promise<{ source: ContentSource; close(): Promise<void> }> {
  const indexer = createCarIndexer();
  for await (const chunk of createReadStream(carPath, { highWaterMark: 1 << 20 })) indexer.write(chunk as Uint8Array);
  const { rows } = indexer.finish();
  const file = await open(carPath, 'r');
  const gateway = createTrustlessGateway({
    store: {
      block: (cid) => readBlock(file, rows, cid),
      pieceOfContent: () => undefined,
      piece: () => undefined,
      async *readPayload() {},
    },
  });
  return {
    source: { url: 'http://local.invalid', fetch: (url, { headers, signal }) => gateway(new Request(url, { headers, signal })) },
    close: () => file.close(),
  };
}

async function readBlock(file: FileHandle, rows: Buffer, cid: CID): Promise<Uint8Array | undefined> {
  const row = findRow(rows, cid.multihash.digest);
  if (row < 0) return undefined;
  const at = row * INDEX_ROW_BYTES;
  const offset = rows.readUInt32BE(at + 32) * 2 ** 32 + rows.readUInt32BE(at + 36);
  const bytes = Buffer.alloc(rows.readUInt32BE(at + 40));
  const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
  return bytesRead === bytes.length ? bytes : undefined;
}
