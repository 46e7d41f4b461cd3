import type { CID } from 'multiformats/cid';
import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { BLOCK_BYTES_MAX, isBlockOf, isIdentity } from './block.ts';
import { createCarScanner } from './car.ts';
import { type Leaf, takeChunk } from './run-chunk.ts';

/** A holder of content: any HTTP trustless gateway. `fetch` may pin the holder's key; without it the global one is used. */
export interface ContentSource {
  url: string;
  /**
   * Paid by the answer: asked for single blocks and for CARs of at most `bytesMax`, one after the other, and told by a header of that
   * name how many bytes are expected, where that is known.
   */
  chunked?: { expectedBytesHeader: string; bytesMax: number };
  /** Asked only when no other source is left. */
  isReserve?: boolean;
  fetch?: (url: string, init: { headers: Record<string, string>; signal: AbortSignal }) => Promise<Response>;
}

/** Time-outs of one step and how often a source may fail in a row. */
export interface FetchLimits {
  /** Until the headers are there. */
  headersMs: number;
  /** Longest silence between two chunks. */
  idleMs: number;
  /** Slowest average, in bytes a second, after the first `idleMs`. */
  bytesPerSecondMin: number;
  failuresMax: number;
}

/** Limits that suit home connections. */
export const FETCH_LIMITS: FetchLimits = { headersMs: 10_000, idleMs: 10_000, bytesPerSecondMin: 16 << 10, failuresMax: 4 };

/** What a source did during one retrieval. */
export interface SourceReport {
  url: string;
  bytes: number;
  /** Served bytes that do not have the hash that was asked for; it was not asked again. */
  lied: boolean;
  failures: number;
  lastError: string | undefined;
}

/** Blocks of one file, in order, with their place in the file: fetched by one request. */
export interface LeafRun {
  file: CID;
  from: number;
  to: number;
  leaves: Leaf[];
}

/** Fetches verified blocks from several sources, each request from the one with the least to do. */
export interface BlockFetcher {
  /** @throws content-unavailable */
  block(cid: CID): Promise<Uint8Array>;
  /** The leaves of a run, all verified. @throws content-unavailable */
  run(run: LeafRun): Promise<Uint8Array[]>;
  report(): SourceReport[];
}

interface Source extends SourceReport {
  source: ContentSource;
  active: number;
  failuresInRow: number;
  restUntilMs: number;
}

/** What a source is not asked again for: it broke its word about money, or there is none left for it. */
const NOT_AGAIN: ReadonlySet<string> = new Set([
  'paid-not-delivered',
  'overcharged',
  'payment-refused',
  'payment-too-expensive',
  'price-over-budget',
]);
/** A whole answer that was paid for and is not what was asked for is a lie; unpaid, it may be a mishap. */
const WRONG_FOR_MONEY: ReadonlySet<string> = new Set(['bad-car', 'source-incomplete']);
const REST_MS = 250;
/** Blocks kept because they are asked for more than once: nodes of a file, and the leaf that holds a header. */
const RECENT_MAX = 8;

/**
 * Fetches from several holders at once and falls over between them: a source that serves wrong bytes is never asked
 * again, one that fails or stalls rests a little longer each time and is dropped after `failuresMax` failures in a row.
 */
export function createBlockFetcher(options: {
  sources: ContentSource[];
  signal?: AbortSignal;
  limits?: FetchLimits;
  clock?: Clock;
}): BlockFetcher {
  const { signal, limits = FETCH_LIMITS, clock = systemClock } = options;
  const sources: Source[] = options.sources.map((source) => ({
    source,
    url: source.url,
    bytes: 0,
    lied: false,
    failures: 0,
    lastError: undefined,
    active: 0,
    failuresInRow: 0,
    restUntilMs: 0,
  }));

  const recent = new Map<string, Promise<Uint8Array>>();

  /** Tries sources until one succeeds; `refused` are those that do not have this content. */
  const attempt = async <T>(what: string, work: (source: Source) => Promise<T>): Promise<T> => {
    const refused = new Set<Source>();
    for (;;) {
      signal?.throwIfAborted();
      const possible = sources.filter((each) => !each.lied && each.failuresInRow < limits.failuresMax && !refused.has(each));
      const preferred = possible.filter((each) => each.source.isReserve !== true);
      const usable = preferred.length > 0 ? preferred : possible;
      if (usable.length === 0) throw unavailable(what, sources);
      const now = clock.nowMs();
      const rested = usable.filter((each) => each.restUntilMs <= now);
      if (rested.length === 0) {
        await clock.sleep(Math.min(...usable.map((each) => each.restUntilMs)) - now + 1, signal);
        continue;
      }
      const source = rested.reduce((best, each) => (cost(each) < cost(best) ? each : best));
      source.active += 1;
      try {
        const result = await work(source);
        source.failuresInRow = 0;
        return result;
      } catch (error) {
        signal?.throwIfAborted();
        note(source, error, clock.nowMs(), refused);
      } finally {
        source.active -= 1;
      }
    }
  };

  return {
    async block(cid) {
      if (isIdentity(cid)) return cid.multihash.digest;
      const key = cid.toString();
      const known = recent.get(key);
      if (known !== undefined) return known;
      const fetching = attempt(cid.toString(), (source) => fetchBlock(source, { cid }, limits, signal));
      recent.set(key, fetching);
      fetching.catch(() => recent.delete(key));
      if (recent.size > RECENT_MAX) recent.delete(recent.keys().next().value as string);
      return fetching;
    },
    async run(run) {
      // Leaves that one source brought before it failed are not fetched, or paid, again.
      const found = await Promise.all(run.leaves.map(({ cid }) => recent.get(cid.toString())?.catch(() => undefined)));
      return attempt(run.file.toString(), async (source) => {
        const { chunked } = source.source;
        if (chunked === undefined) await fetchCar(source, { ...run, found }, limits, signal);
        else await fetchChunks({ source, bytesMax: chunked.bytesMax }, { leaves: run.leaves, found }, limits, signal);
        return found as Uint8Array[];
      });
    },
    report: () => sources.map(({ url, bytes, lied, failures, lastError }) => ({ url, bytes, lied, failures, lastError })),
  };
}

function cost(source: Source): number {
  return source.active + source.failuresInRow;
}

function note(source: Source, error: unknown, nowMs: number, refused: Set<Source>): void {
  const code = error instanceof MillraceError ? error.code : '';
  source.lastError = (error as Error).message;
  if (code === 'source-lacks-content') return void refused.add(source);
  source.failures += 1;
  source.failuresInRow += 1;
  source.restUntilMs = nowMs + REST_MS * 2 ** source.failuresInRow;
  if (code === 'bad-block' || (source.source.chunked !== undefined && WRONG_FOR_MONEY.has(code))) source.lied = true;
  if (NOT_AGAIN.has(code)) source.failuresInRow = Number.POSITIVE_INFINITY;
}

/** One block, verified. */
async function fetchBlock(
  source: Source,
  wanted: { cid: CID; bytes?: number },
  limits: FetchLimits,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const { cid } = wanted;
  const chunks: Uint8Array[] = [];
  let size = 0;
  const request = {
    path: `/ipfs/${cid}?format=raw`,
    accept: 'application/vnd.ipld.raw',
    bytesMax: BLOCK_BYTES_MAX,
    expectedBytes: wanted.bytes,
  };
  for await (const chunk of download(source, request, limits, signal)) {
    chunks.push(chunk);
    size += chunk.length;
  }
  const bytes = chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks, size);
  if (!isBlockOf(cid, bytes)) throw wrongBytes(source.url, cid);
  return bytes;
}

/** What is wanted of a file: leaves in order, each with a place for its bytes. */
interface Wanted {
  leaves: Leaf[];
  found: (Uint8Array | undefined)[];
}

/** The leaves of a run by as few answers as `bytesMax` allows, each verified before the next is paid for. What came stays in `found`. */
async function fetchChunks(
  { source, bytesMax }: { source: Source; bytesMax: number },
  { leaves, found }: Wanted,
  limits: FetchLimits,
  signal?: AbortSignal,
): Promise<void> {
  for (let at = 0; at < leaves.length; at += 1) {
    if (found[at] !== undefined) continue;
    const end = found.findIndex((block, index) => index > at && block !== undefined);
    const chunk = takeChunk(leaves.slice(at, end === -1 ? undefined : end), bytesMax);
    const [first] = chunk.leaves as [Leaf];
    if (chunk.leaves.length === 1) {
      found[at] = await fetchBlock(source, first, limits, signal);
      continue;
    }
    const { cid: file, start } = first.parent;
    const from = first.start - start;
    const to = from + chunk.leaves.reduce((sum, { bytes }) => sum + bytes, 0);
    const part = new Array<Uint8Array | undefined>(chunk.leaves.length).fill(undefined);
    try {
      await fetchCar(source, { file, from, to, leaves: chunk.leaves, found: part, expectedBytes: chunk.carBytes }, limits, signal);
    } finally {
      for (const [index, block] of part.entries()) found[at + index] = block;
    }
  }
}

/** One CAR of the blocks that hold a byte range; every block is verified as it comes and the leaves must be the expected ones. */
async function fetchCar(
  source: Source,
  wanted: Wanted & { file: CID; from: number; to: number; expectedBytes?: number },
  limits: FetchLimits,
  signal?: AbortSignal,
): Promise<void> {
  const { file, from, to, leaves, found, expectedBytes } = wanted;
  const places = new Map<string, number[]>();
  for (const [index, { cid }] of leaves.entries()) places.set(cid.toString(), [...(places.get(cid.toString()) ?? []), index]);
  const scanner = createCarScanner(({ cid, bytes }) => {
    const known = places.get(cid.toString())?.filter((index) => found[index] === undefined) ?? [];
    if (known.length === 0) return;
    const own = new Uint8Array(bytes);
    for (const index of known) found[index] = own;
  });
  const path = `/ipfs/${file}?format=car&dag-scope=entity&entity-bytes=${from}:${to - 1}`;
  const bytesMax = to - from + 8 * BLOCK_BYTES_MAX;
  const accept = 'application/vnd.ipld.car; version=1; order=dfs; dups=y';
  for await (const chunk of download(source, { path, accept, bytesMax, expectedBytes }, limits, signal)) scanner.write(chunk);
  scanner.finish();
  const missing = found.filter((block) => block === undefined).length;
  if (missing > 0) {
    throw new MillraceError('source-incomplete', {
      actor: 'peer',
      message: `${source.url} did not send ${missing} of ${found.length} blocks of ${file}`,
      values: { url: source.url, missing, expected: found.length },
    });
  }
}

/** The body of an answer, with time-outs for the headers, for each silence and for the whole, and a limit of bytes. */
async function* download(
  source: Source,
  request: { path: string; accept: string; bytesMax: number; expectedBytes?: number },
  limits: FetchLimits,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const stop = new AbortController();
  const onAbort = () => stop.abort(signal?.reason);
  if (signal?.aborted === true) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  let timer: NodeJS.Timeout | undefined;
  const within = async <T>(work: Promise<T>, ms: number): Promise<T> => {
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const error = sourceFailed(source.url, `nothing came for ${ms} ms`);
        stop.abort(error);
        reject(error);
      }, ms);
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  };
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  try {
    const url = new URL(request.path, source.url).toString();
    const headers: Record<string, string> = { accept: request.accept };
    const { chunked } = source.source;
    if (chunked !== undefined && request.expectedBytes !== undefined) headers[chunked.expectedBytesHeader] = String(request.expectedBytes);
    const init = { headers, signal: stop.signal };
    const fetching = source.source.fetch === undefined ? fetch(url, { ...init, redirect: 'error' }) : source.source.fetch(url, init);
    const response = await within(fetching, limits.headersMs);
    if (response.status === 404 || response.status === 410) throw lacksContent(source.url, request.path);
    if (response.status !== 200 || response.body === null) throw sourceFailed(source.url, `status ${response.status}`);
    reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    const startedAt = performance.now();
    let received = 0;
    for (;;) {
      const { done, value } = await within(reader.read(), limits.idleMs);
      if (done) return;
      received += value.length;
      source.bytes += value.length;
      if (received > request.bytesMax) throw sourceFailed(source.url, `more than ${request.bytesMax} bytes`);
      if (performance.now() - startedAt > limits.idleMs + (received / limits.bytesPerSecondMin) * 1000) {
        throw sourceFailed(source.url, `slower than ${limits.bytesPerSecondMin} bytes per second`);
      }
      yield value;
    }
  } catch (error) {
    throw error instanceof MillraceError ? error : sourceFailed(source.url, (error as Error).message, error);
  } finally {
    signal?.removeEventListener('abort', onAbort);
    stop.abort();
    reader?.cancel().catch(() => {});
  }
}

function wrongBytes(url: string, cid: CID): MillraceError {
  return new MillraceError('bad-block', {
    actor: 'peer',
    message: `${url} served wrong bytes for block ${cid}`,
    values: { url, cid: cid.toString() },
  });
}

function lacksContent(url: string, path: string): MillraceError {
  return new MillraceError('source-lacks-content', { actor: 'peer', message: `${url} does not have ${path}`, values: { url, path } });
}

function sourceFailed(url: string, why: string, cause?: unknown): MillraceError {
  return new MillraceError('source-failed', { actor: 'peer', message: `${url} failed: ${why}`, values: { url, why }, cause });
}

function unavailable(what: string, sources: Source[]): MillraceError {
  return new MillraceError('content-unavailable', {
    actor: 'peer',
    message: `None of ${sources.length} holders gave ${what}`,
    values: {
      cid: what,
      holders: sources.map(({ url, lied, lastError }) => `${url}: ${lied ? 'served wrong bytes' : (lastError ?? 'not asked')}`),
    },
    hint: 'Try again later: what has come is kept. `millrace deals` shows who should hold it.',
  });
}
