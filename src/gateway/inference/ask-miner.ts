import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Hex } from 'viem';
import type { ReceiptCodec } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import {
  type ChunkQueue,
  createChunkQueue,
  errorObject,
  type InferenceReceipt,
  type OfferedModel,
  RECEIPT_HEADER,
  readAll,
  type SignedReceipt,
  sendHttp,
  verifyReceipt,
} from '../../inference/index.ts';
import type { KnownMiner } from './miner-directory.ts';
import type { TabLease } from './miner-purse.ts';
import { createStreamTail } from './stream-tail.ts';

/** A request on its way to one miner. */
export interface MinerRequest {
  path: string;
  query: string;
  headers: Record<string, string | number>;
  body: Buffer;
  requestHash: Hex;
  stream: boolean;
  signal: AbortSignal;
  /** To the first part of the answer. */
  firstPartMs: number;
  /** Between two parts. */
  idleMs: number;
}

/** What came of an answer: its receipt, or why there is none that is good. */
export interface AnswerOutcome {
  signed: SignedReceipt | undefined;
  encoded: string | undefined;
  fault: MillraceError | undefined;
  ttftMs: number;
  /** Bytes that were handed on. */
  passedBytes: number;
  /** The whole body where the caller asked to keep it. */
  kept: Buffer | undefined;
}

/** A miner's answer: whole, or a stream whose first part is there. */
export interface MinerAnswer {
  status: number;
  contentType: string;
  whole?: Buffer;
  /** The bytes as they come. */
  parts?: AsyncGenerator<Buffer>;
  /** Resolves when the answer is over, however it ended. */
  outcome: Promise<AnswerOutcome>;
}

const ANSWER_BYTES_MAX = 64 << 20;
const FIRST_BYTES_MAX = 1 << 20;
const KEPT_BYTES_MAX = 8 << 20;
const SAID_LENGTH_MAX = 200;

/**
 * Sends a request to a miner and gives its answer as soon as the first part is there: until then another miner can be asked.
 * @throws miner-refused (the caller's fault: no other miner is asked), miner-busy, miner-failed, tab-refused
 */
export async function askMiner(
  target: { miner: KnownMiner; model: OfferedModel; codec: ReceiptCodec<InferenceReceipt>; keep: boolean },
  request: MinerRequest,
  lease: TabLease | undefined,
): Promise<MinerAnswer> {
  const startedMs = performance.now();
  const incoming = await send(target.miner, request, lease);
  const contentType = incoming.headers['content-type'] ?? 'application/octet-stream';
  if (incoming.statusCode !== 200) throw await refusalOf(incoming, lease);
  const check = (encoded: string | undefined, responseHash: Hex) =>
    checkReceipt(target, { encoded, responseHash, requestHash: request.requestHash });
  if (!contentType.startsWith('text/event-stream')) {
    const whole = await readAll(incoming, ANSWER_BYTES_MAX);
    const ttftMs = performance.now() - startedMs;
    const encoded = incoming.headers[RECEIPT_HEADER] as string | undefined;
    const checked = check(encoded, `0x${createHash('sha256').update(whole).digest('hex')}`);
    return {
      status: 200,
      contentType,
      whole,
      outcome: Promise.resolve({ ...checked, encoded, ttftMs, passedBytes: whole.length, kept: whole }),
    };
  }
  return streamOf(incoming, { contentType, startedMs, request, keep: target.keep, check });
}

async function send(miner: KnownMiner, request: MinerRequest, lease: TabLease | undefined): Promise<IncomingMessage> {
  const url = new URL(request.query === '' ? request.path : `${request.path}?${request.query}`, miner.entry.endpoint);
  const tab: Record<string, string> = lease === undefined ? {} : { 'millrace-tab': lease.token };
  try {
    return await sendHttp({
      url,
      method: 'POST',
      headers: { ...request.headers, ...tab, 'content-length': request.body.length },
      body: request.body,
      agent: miner.agent,
      signal: request.signal,
      headersTimeoutMs: request.firstPartMs,
      idleTimeoutMs: request.idleMs,
    });
  } catch (error) {
    throw request.signal.aborted ? toMillraceError(error) : minerFailed(toMillraceError(error).message);
  }
}

/** A refusal as an error that says whose fault it is. */
async function refusalOf(incoming: IncomingMessage, lease: TabLease | undefined): Promise<MillraceError> {
  const status = incoming.statusCode ?? 0;
  const retryAfter = Number(incoming.headers['retry-after'] ?? 0);
  const text = (await readAll(incoming, FIRST_BYTES_MAX).catch(() => Buffer.alloc(0))).toString('utf8');
  if (status === 402) {
    lease?.broken();
    return new MillraceError('tab-refused', { actor: 'peer', message: 'The miner wants another payment', values: { status } });
  }
  const said = saidBy(text);
  if (status === 503 && said.code === 'model-unavailable') return minerFailed(said.message);
  if (status === 429 || status === 503) {
    const retryAfterMs = Number.isFinite(retryAfter) ? Math.min(retryAfter, 60) * 1000 : 0;
    return new MillraceError('miner-busy', {
      actor: 'peer',
      message: `The miner is busy: status ${status}`,
      values: { status, retryAfterMs },
    });
  }
  if (status >= 400 && status < 500 && status !== 404 && status !== 405 && status !== 408) {
    return new MillraceError('miner-refused', {
      actor: 'caller',
      message: 'The miner refused the request',
      values: { status, body: text.slice(0, 4096) },
    });
  }
  return minerFailed(`it answered with status ${status}`);
}

/** What a miner says of its failure: its words, short and printable. */
function saidBy(text: string): { code: string; message: string } {
  try {
    const { error } = JSON.parse(text) as { error?: { message?: unknown; millrace?: { code?: unknown } } };
    const message = String(error?.message ?? '').replace(/[^\x20-\x7e\u00a0-\ud7ff]/g, ' ');
    return { code: String(error?.millrace?.code ?? ''), message: message.slice(0, SAID_LENGTH_MAX) };
  } catch {
    return { code: '', message: '' };
  }
}

function checkReceipt(
  target: { miner: KnownMiner; model: OfferedModel; codec: ReceiptCodec<InferenceReceipt> },
  seen: { encoded: string | undefined; responseHash: Hex; requestHash: Hex },
): { signed: SignedReceipt | undefined; fault: MillraceError | undefined } {
  try {
    if (seen.encoded === undefined) throw new MillraceError('receipt-missing', { actor: 'peer', message: 'The answer has no receipt' });
    const { offer } = target.miner.signed;
    const expected = { miner: offer.miner, modelRoot: target.model.root, requestHash: seen.requestHash, responseHash: seen.responseHash };
    return { signed: verifyReceipt(target.codec, seen.encoded, expected), fault: undefined };
  } catch (error) {
    return { signed: undefined, fault: toMillraceError(error) };
  }
}

interface StreamContext {
  contentType: string;
  startedMs: number;
  request: MinerRequest;
  keep: boolean;
  check: (encoded: string | undefined, hash: Hex) => Pick<AnswerOutcome, 'signed' | 'fault'>;
}

async function streamOf(incoming: IncomingMessage, context: StreamContext): Promise<MinerAnswer> {
  const { request } = context;
  const queue = createChunkQueue(incoming);
  const late = setTimeout(() => incoming.destroy(minerFailed('its first part did not come in time')), request.firstPartMs);
  const onGone = () => incoming.destroy();
  request.signal.addEventListener('abort', onGone, { once: true });
  const first: Buffer[] = [];
  try {
    for (let isThere = false; !isThere; ) {
      const chunk = await queue.take();
      if (chunk === undefined) break;
      first.push(chunk);
      isThere = firstPartIn(first.length === 1 ? chunk : Buffer.concat(first));
    }
  } catch (error) {
    throw request.signal.aborted ? toMillraceError(request.signal.reason) : minerFailed(toMillraceError(error).message);
  } finally {
    clearTimeout(late);
  }
  const ttftMs = performance.now() - context.startedMs;
  let finish: (outcome: AnswerOutcome) => void = () => {};
  const outcome = new Promise<AnswerOutcome>((resolve) => {
    finish = resolve;
  });
  const passed: Passed = { bytes: 0 };
  const parts = pump({ first, queue, incoming, context, ttftMs, passed, finish });
  // A stream that nobody reads to its end has an end all the same.
  incoming.once('close', () => {
    request.signal.removeEventListener('abort', onGone);
    const cut = cutOutcome(ttftMs, passed.bytes);
    if (request.signal.aborted) finish(cut);
    else if (!incoming.readableEnded) finish({ ...cut, fault: minerFailed('its connection closed in the middle of an answer') });
  });
  return { status: 200, contentType: context.contentType, parts, outcome };
}

/** Whether an event is there; comments that keep a connection alive are none. @throws miner-failed when it is an error */
function firstPartIn(data: Buffer): boolean {
  if (data.length > FIRST_BYTES_MAX) throw minerFailed('its first part is too long');
  const at = data.indexOf('data: ');
  if (at === -1) return false;
  if (data.indexOf('data: {"error"') === at) throw minerFailed('it failed before its first part');
  return true;
}

/** How much of a stream its reader has been given. */
interface Passed {
  bytes: number;
}

async function* pump(from: {
  first: Buffer[];
  queue: ChunkQueue;
  incoming: IncomingMessage;
  context: StreamContext;
  ttftMs: number;
  passed: Passed;
  finish: (outcome: AnswerOutcome) => void;
}): AsyncGenerator<Buffer> {
  const { queue, incoming, context, ttftMs, passed, finish } = from;
  const tail = createStreamTail();
  const kept: Buffer[] = [];
  const pass = (bytes: Buffer): Buffer => {
    if (context.keep && passed.bytes < KEPT_BYTES_MAX) kept.push(bytes);
    passed.bytes += bytes.length;
    return bytes;
  };
  try {
    for (const chunk of from.first) {
      const part = pass(tail.feed(chunk));
      if (part.length > 0) yield part;
    }
    for (;;) {
      const chunk = await queue.take();
      if (chunk === undefined) break;
      const part = pass(tail.feed(chunk));
      if (part.length > 0) yield part;
    }
    const rest = pass(tail.rest());
    const encoded = tail.receipt();
    const checked = context.check(encoded, tail.hash());
    const whole = context.keep && passed.bytes < KEPT_BYTES_MAX ? Buffer.concat(kept) : undefined;
    finish({ ...checked, encoded, ttftMs, passedBytes: passed.bytes, kept: whole });
    // Who streams what it does not sign for has given no answer: its reader must not take it for one.
    yield checked.fault === undefined || tail.isError() ? rest : errorEvent(unproven(checked.fault));
  } catch (error) {
    if (!context.request.signal.aborted) {
      const failure = minerFailed(toMillraceError(error).message);
      finish({ ...cutOutcome(ttftMs, passed.bytes), fault: failure });
      // A stream that breaks ends with an error event, not with silence.
      yield errorEvent(failure);
    }
  } finally {
    finish(cutOutcome(ttftMs, passed.bytes));
    incoming.destroy();
  }
}

function errorEvent(error: MillraceError): Buffer {
  return Buffer.from(`data: ${JSON.stringify(errorObject(error))}\n\n`);
}

function cutOutcome(ttftMs: number, passedBytes: number): AnswerOutcome {
  return { signed: undefined, encoded: undefined, fault: undefined, ttftMs, passedBytes, kept: undefined };
}

function unproven(fault: MillraceError): MillraceError {
  return new MillraceError('answer-not-signed', {
    actor: 'peer',
    message: `The miner did not sign for what it streamed (${fault.code}); nothing was charged`,
    values: { reason: fault.code },
    hint: 'Do not rely on what came; ask again: another miner will answer.',
    cause: fault,
  });
}

function minerFailed(reason: string): MillraceError {
  return new MillraceError('miner-failed', {
    actor: 'peer',
    message: `The miner failed: ${reason}`,
    hint: 'Try again: another miner may answer.',
  });
}
