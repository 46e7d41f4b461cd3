import { createHash, type Hash, randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import type { ReceiptCodec, Signer } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { EnginePart, EngineResult } from '../engines/engine.ts';
import type { AnswerName, Call } from './call.ts';
import type { ServingAnswer, ServingRequest } from './exchange.ts';
import { errorObject } from './failure.ts';
import type { ServingMetrics } from './metrics.ts';
import { evidenceOf, type OpenModel } from './miner-model.ts';
import { createPartBuffer, type PartBuffer } from './part-buffer.ts';
import { priceUp } from './price.ts';
import { encodeReceipt, type InferenceReceipt, NO_BYTES, RECEIPT_HEADER } from './receipt.ts';
import type { Sale } from './till.ts';

/** What every answer of a miner is made with. */
export interface AnsweringParts {
  signer: Signer;
  operatorId: bigint;
  profile: string;
  codec: ReceiptCodec<InferenceReceipt>;
  metrics: ServingMetrics;
  log: Logger;
}

/** One request that was understood, paid and admitted. */
export interface Work {
  request: ServingRequest;
  call: Call;
  model: OpenModel;
  sale: Sale;
  requestHash: Hex;
  /** Frees what the request held: its place in the queue, its body. */
  release(): void;
  /** Resolves when it is the request's turn. */
  turn(signal: AbortSignal): Promise<void>;
  flags: { zeroRetention: boolean; replayAllowed: boolean; witnessNonce: Hex };
}

/** A stream is answered by then, so that no connection looks dead; until then a failure still has its own status. */
const SILENCE_MS = 10_000;
const WHOLE_MS = 55_000;
const STREAM_MS = 600_000;
const STREAM_HEADERS = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no' };
const REASON_LENGTH_MAX = 500;
/** Without a count from the engine (the caller went away), input is counted as four bytes for each token. */
const BYTES_PER_UNIT = 4;

/** Nobody can guess another's receipt from its own. */
function drawReceiptId(): Hex {
  return `0x${randomBytes(32).toString('hex')}`;
}

/** Runs a request's model and answers with a signed receipt; whatever happens, the sale is settled and everything is released. */
export function answerWork(parts: AnsweringParts, work: Work): Promise<ServingAnswer> {
  const run = new RunningWork(parts, work);
  return work.call.stream === undefined ? run.whole() : run.stream(work.call.stream(run.name));
}

class RunningWork {
  readonly name: AnswerName;
  readonly #parts: AnsweringParts;
  readonly #work: Work;
  readonly #receiptId = drawReceiptId();
  readonly #startedMs = performance.now();
  readonly #abort = new AbortController();
  #firstMs = 0;
  #lastMs = 0;
  #partUnits = 0;
  #isOver = false;

  constructor(parts: AnsweringParts, work: Work) {
    this.#parts = parts;
    this.#work = work;
    this.name = { id: this.#receiptId.slice(-32), created: Math.floor(Date.now() / 1000), model: work.model.engine.card.id };
  }

  async whole(): Promise<ServingAnswer> {
    const { call, sale } = this.#work;
    let end: 'complete' | 'cut' | 'failed' = 'failed';
    try {
      const result = await this.#run(WHOLE_MS);
      this.#firstMs = this.#lastMs = performance.now();
      const { contentType, body } = call.whole(result, this.name);
      const price = this.#priceOf(result);
      const payment = await sale.settle(price);
      const receipt = await this.#sign(result, createHash('sha256').update(body), { price, end: 'complete' });
      end = 'complete';
      return { status: 200, headers: { 'content-type': contentType, [RECEIPT_HEADER]: receipt, ...payment }, body };
    } catch (error) {
      if (this.#work.request.signal.aborted) end = 'cut';
      throw error;
    } finally {
      await this.#finish(end);
    }
  }

  async stream(writer: ReturnType<NonNullable<Call['stream']>>): Promise<ServingAnswer> {
    const buffer = createPartBuffer(() => this.#abort.abort(readerTooSlow()));
    const running = this.#run(STREAM_MS, buffer).then(
      (result) => ({ result, error: undefined }),
      (error: unknown) => ({ result: undefined, error: toMillraceError(error) }),
    );
    void running.then(() => buffer.end());
    // A stream that nobody begins to read is never told to end: the connection's end is what counts.
    const { signal } = this.#work.request;
    signal.addEventListener('abort', () => void this.#finish('cut').catch(() => {}), { once: true });
    let first: Awaited<ReturnType<PartBuffer['take']>> | 'silence';
    try {
      first = await orSilence(buffer.take());
    } catch (error) {
      await this.#finish('failed');
      throw error;
    }
    if (first === undefined) {
      // It ended without a part: an empty answer, or a failure that still gets its own status.
      const { error } = await running;
      if (error !== undefined) {
        await this.#finish(this.#work.request.signal.aborted ? 'cut' : 'failed');
        throw error;
      }
    }
    return {
      status: 200,
      headers: { ...STREAM_HEADERS, ...this.#work.sale.headers },
      body: this.#events({ writer, buffer, running, first }),
    };
  }

  async *#events(from: {
    writer: ReturnType<NonNullable<Call['stream']>>;
    buffer: PartBuffer;
    running: Promise<{ result: EngineResult | undefined; error: MillraceError | undefined }>;
    first: Awaited<ReturnType<PartBuffer['take']>> | 'silence';
  }): AsyncGenerator<string> {
    const { writer, buffer, running } = from;
    const hash = createHash('sha256');
    let end: 'complete' | 'cut' | 'failed' = 'cut';
    try {
      let text = writer.first();
      for (let taken = from.first; taken !== undefined; ) {
        text += taken === 'silence' ? ': waiting\n\n' : writer.parts(taken);
        hash.update(text);
        yield text;
        text = '';
        taken = await orSilence(buffer.take());
      }
      const { result, error } = await running;
      if (result === undefined) {
        end = 'failed';
        // Had nothing been answered yet, whoever answers would have told of it.
        if (error?.actor === 'bug' || error?.actor === 'host') this.#tell(error);
        yield `data: ${JSON.stringify(errorObject(error as MillraceError))}\n\n`;
        return;
      }
      text += writer.last(result);
      hash.update(text);
      const price = this.#priceOf(result);
      await this.#work.sale.settle(price);
      const receipt = await this.#sign(result, hash, { price, end: 'complete' });
      end = 'complete';
      yield `${text}: ${RECEIPT_HEADER} ${receipt}\n\n${writer.end}`;
    } finally {
      await this.#finish(end);
    }
  }

  /** Runs the engine in its turn, and ends it when the caller is gone or the time is up. */
  async #run(timeoutMs: number, buffer?: PartBuffer): Promise<EngineResult> {
    const { request, call, model } = this.#work;
    const abort = this.#abort;
    const onGone = () => abort.abort(callerGone());
    if (request.signal.aborted) throw callerGone();
    request.signal.addEventListener('abort', onGone, { once: true });
    const late = setTimeout(() => abort.abort(tookTooLong(timeoutMs)), timeoutMs);
    try {
      await this.#work.turn(abort.signal);
      return await model.engine.run(call.request, {
        signal: abort.signal,
        ...(buffer === undefined ? {} : { onPart: (part) => this.#take(part, buffer) }),
      });
    } catch (error) {
      // Why it was ended says more than that it was.
      if (abort.signal.aborted) throw abort.signal.reason;
      const failure = toMillraceError(error);
      if (failure.actor === 'peer') this.#tell(failure);
      throw failure;
    } finally {
      clearTimeout(late);
      request.signal.removeEventListener('abort', onGone);
    }
  }

  /** One line on a model that failed: its backend, or what runs it here. */
  #tell(error: MillraceError): void {
    const { code, message, cause } = error;
    const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
    this.#parts.log.warn('model-failed', { model: this.name.model, code, reason: reason.slice(0, REASON_LENGTH_MAX) });
  }

  #take(part: EnginePart, buffer: PartBuffer): void {
    this.#lastMs = performance.now();
    if (this.#firstMs === 0) this.#firstMs = this.#lastMs;
    this.#partUnits += part.type === 'text' ? part.tokens : 1;
    buffer.push(part);
  }

  #priceOf({ usage }: EngineResult): bigint {
    const { call, model } = this.#work;
    return priceUp(model.price, {
      input: BigInt(Math.ceil(usage.input)),
      output: BigInt(Math.min(Math.ceil(usage.output), call.bounds.output)),
    });
  }

  async #sign(result: EngineResult, hash: Hash, { price, end }: { price: bigint; end: string }): Promise<string> {
    const { signer, operatorId, profile, codec, metrics } = this.#parts;
    const { model, sale, call, request, requestHash, flags } = this.#work;
    const { usage } = result;
    const units = Math.min(Math.ceil(usage.output), call.bounds.output);
    // An answer without a part is there when it is over.
    if (this.#firstMs === 0) this.#firstMs = this.#lastMs = performance.now();
    const ttftMs = this.#firstMs - this.#startedMs;
    const tpotMs = units > 1 ? (this.#lastMs - this.#firstMs) / (units - 1) : 0;
    const receipt: InferenceReceipt = {
      kind: 'inference',
      subject: { operatorId, miner: signer.address, model: model.engine.card.id, modelRoot: model.engine.card.root },
      inputs: {
        receiptId: this.#receiptId,
        requestHash,
        path: request.path.slice(0, 128),
        units: BigInt(Math.ceil(usage.input)),
        outputUnitsMax: BigInt(call.bounds.output),
        channelId: sale.channelId,
        voucher: sale.voucher,
        ...flags,
      },
      outputs: {
        responseHash: `0x${hash.digest('hex')}`,
        outputDigest: result.outputDigest,
        witness: result.witness?.digest ?? NO_BYTES,
        unit: usage.unit,
        units: BigInt(units),
        price: sale.held < price ? sale.held : price,
        ttftUs: BigInt(Math.round(ttftMs * 1000)),
        tpotUs: BigInt(Math.round(tpotMs * 1000)),
        end,
        finishedAt: BigInt(Math.floor(Date.now() / 1000)),
      },
      evidence: evidenceOf(model.engine, flags.replayAllowed),
      profile,
    };
    metrics.units(this.name.model, { input: Math.ceil(usage.input), output: units });
    metrics.latency(this.name.model, { ttftMs, totalMs: performance.now() - this.#startedMs });
    return encodeReceipt(codec, { receipt, signature: await codec.sign(signer, receipt) });
  }

  /** Ends what is still running. A caller who went away pays for what was made; an answer that failed costs nothing. */
  async #finish(end: 'complete' | 'cut' | 'failed'): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    const { call, model, sale, release } = this.#work;
    if (end !== 'complete') this.#abort.abort(callerGone());
    const isUsed = end === 'cut' && this.#partUnits > 0;
    const used = { input: BigInt(Math.ceil(call.bounds.input / BYTES_PER_UNIT)), output: BigInt(this.#partUnits) };
    this.#parts.metrics.ended(this.name.model, end);
    release();
    if (end !== 'complete') await sale.settle(isUsed ? priceUp(model.price, used) : 0n);
  }
}

/** What comes, or `silence` after a while; what comes later is not lost, because a buffer is asked again. */
async function orSilence<T>(wanted: Promise<T>): Promise<T | 'silence'> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<'silence'>((resolve) => {
    timer = setTimeout(() => resolve('silence'), SILENCE_MS);
  });
  try {
    return await Promise.race([wanted, silence]);
  } finally {
    clearTimeout(timer);
  }
}

function callerGone(): MillraceError {
  return new MillraceError('request-aborted', { actor: 'caller', message: 'The caller went away before the answer was there' });
}

function tookTooLong(limitMs: number): MillraceError {
  return new MillraceError('engine-timeout', {
    actor: 'host',
    message: `The answer took longer than ${limitMs} ms`,
    values: { limitMs },
    hint: 'Ask for a stream, or for less.',
  });
}

function readerTooSlow(): MillraceError {
  return new MillraceError('reader-too-slow', {
    actor: 'caller',
    message: 'The caller takes its answer too slowly: what waits for it is more than is kept',
  });
}
