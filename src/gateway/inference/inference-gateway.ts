import { createHash } from 'node:crypto';
import type { Hex } from 'viem';
import type { ReceiptCodec, ReceiptDomain } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import {
  type ByteBudget,
  createByteBudget,
  createInferenceReceipts,
  createServingMetrics,
  createTill,
  failureAnswer,
  type InferenceReceipt,
  priceUp,
  RECEIPT_HEADER,
  REPLAY_HEADER,
  readBody,
  type Sale,
  type SeenReceipt,
  type ServingAnswer,
  type ServingMetrics,
  type ServingRequest,
  type TaskType,
  type Till,
} from '../../inference/index.ts';
import type { Logger } from '../../log.ts';
import type { Receiver } from '../../token/index.ts';
import { greater, lesser } from '../../units.ts';
import type { AnswerOutcome } from './ask-miner.ts';
import type { CallerKey, CallerKeys } from './caller-keys.ts';
import { createIdempotentAnswers, type IdempotentAnswers } from './idempotency.ts';
import { listModels, showKey } from './listing.ts';
import type { MinerDirectory } from './miner-directory.ts';
import { type Question, readQuestion, taskOfPath } from './question.ts';
import type { ReceiptBook } from './receipt-book.ts';
import { RECOGNIZE_PAGE } from './recognize-page.ts';
import { recountFault, type Tokenizers } from './recount.ts';
import { findMiners, noteOutcome, type Routed, type RoutingRules, routeToMiner } from './routing.ts';

/** A request that a validator may run again: its caller allowed it. */
export interface ReplaySample {
  path: string;
  query: string;
  contentType: string;
  requestBody: Buffer;
  answer: Buffer;
  /** Base64url of the receipt. */
  receipt: string;
  /** Of the receipt: the channel that paid for it. */
  channelId: Hex;
  uid: number;
  operatorId: bigint;
}

/** A request that a miner was paid for: counted, whether or not a validator may run it again. */
export interface PaidRequest {
  path: string;
  channelId: Hex;
  operatorId: bigint;
}

/** How a gateway works. */
export interface InferenceGatewayOptions {
  directory: MinerDirectory;
  domain: ReceiptDomain;
  keys: CallerKeys;
  receipts: ReceiptBook;
  /** Takes x402 payments of callers without a key. */
  receiver?: Receiver;
  /** On top of the miner's price, hundredths of a percent. */
  feeBps: number;
  /** Whoever reaches the gateway needs neither key nor payment: for a gateway that listens on this machine only. */
  isOpen?: boolean;
  /** Count tokens again, by model root: what a miner counts more is not paid by callers. */
  tokenizers?: Tokenizers;
  /** Gets requests and answers that validators may run again. */
  onSample?: (sample: ReplaySample) => void;
  /** Is told of every request that a miner was paid for. */
  onPaid?: (paid: PaidRequest) => void;
  /** Gets every receipt that a miner sent, also those that are no good. */
  onReceipt?: (seen: SeenReceipt) => void;
  rules?: Partial<RoutingRules>;
  bodyBytesMax?: number;
  log: Logger;
}

/** A gateway's HTTP API: OpenAI's endpoints in front of all miners. */
export interface InferenceGateway {
  /** Answers one request. Never throws. */
  answer(request: ServingRequest): Promise<ServingAnswer>;
  metrics(): string;
  stop(): Promise<void>;
}

/** Who asks: a key, a payment, or nobody in particular. */
interface Caller {
  /** Names the caller for idempotency. */
  name: string;
  key: CallerKey | undefined;
}

/** A request that is being answered. */
interface Running {
  request: ServingRequest;
  question: Question;
  body: Buffer;
  requestHash: Hex;
  caller: Caller;
  sale: Sale;
  zeroRetention: boolean;
  routed: Routed;
}

const RULES: RoutingRules = { attemptsMax: 3, roomMs: 30_000, firstPartMs: 30_000, idleMs: 60_000 };
const BODY_BYTES_MAX = 32 << 20;
const PAID_BYTES_MAX = 256 << 20;
const UNPAID_BYTES_MAX = 64 << 20;
/** A frame of a stream has so many bytes at least: how much was made for a caller who went away. */
const FRAME_BYTES = 160;
const BYTES_PER_UNIT = 4;
/** Header: the base units that the caller is charged. */
const COST_HEADER = 'millrace-cost';
/** Header: the operator that answers. */
const OPERATOR_HEADER = 'millrace-operator';
const IDEMPOTENCY_LENGTH_MAX = 256;

/** Opens a gateway. Directory, keys, receipts and receiver are closed by whoever opened them. */
export function createInferenceGateway(options: InferenceGatewayOptions): InferenceGateway {
  return new Gateway(options);
}

class Gateway implements InferenceGateway {
  readonly #options: InferenceGatewayOptions;
  readonly #codec: ReceiptCodec<InferenceReceipt>;
  readonly #rules: RoutingRules;
  readonly #till: Till;
  readonly #metrics: ServingMetrics = createServingMetrics('gateway');
  readonly #idempotent: IdempotentAnswers = createIdempotentAnswers();
  readonly #known: ByteBudget = createByteBudget(PAID_BYTES_MAX);
  readonly #unpaid: ByteBudget = createByteBudget(UNPAID_BYTES_MAX);

  constructor(options: InferenceGatewayOptions) {
    this.#options = options;
    this.#codec = createInferenceReceipts(options.domain);
    this.#rules = { ...RULES, ...options.rules };
    this.#till = createTill({ receiver: options.receiver, log: options.log });
  }

  async answer(request: ServingRequest): Promise<ServingAnswer> {
    try {
      return await this.#route(request);
    } catch (thrown) {
      const error = toMillraceError(thrown);
      this.#metrics.refused(error.code);
      if (error.code === 'miner-refused') return passedOn(error);
      if (error.actor === 'bug' || error.actor === 'host') {
        this.#options.log.warn('request-failed', {
          path: request.path.slice(0, 128),
          code: error.code,
          reason: error.message.slice(0, 500),
        });
      }
      return failureAnswer(error);
    }
  }

  metrics(): string {
    const counts = this.#till.counts();
    const miners = [...this.#options.directory.all()];
    return this.#metrics.text({
      miners_count: miners.length,
      receipts_total: this.#options.receipts.count,
      body_bytes: this.#known.used + this.#unpaid.used,
      paid_requests_total: counts.paidRequests,
      refused_payments_total: counts.refusedPayments,
      open_tabs_count: counts.openTabs,
    });
  }

  async stop(): Promise<void> {
    await this.#till.stop();
  }

  #route(request: ServingRequest): Promise<ServingAnswer> | ServingAnswer {
    const { method, path } = request;
    if (this.#options.isOpen === true) refuseForeignPages(request);
    const task = taskOfPath(path);
    if (task !== undefined) {
      if (method === 'POST') return this.#infer(request, task);
      throw methodNotAllowed(request, 'POST');
    }
    if (path === '/v1/inference/tabs' && this.#options.receiver !== undefined) {
      if (method === 'DELETE') return this.#till.endTab(request.headers);
      const amount = new URLSearchParams(request.query).get('amount') ?? '';
      if (method === 'POST' && /^[1-9][0-9]{0,37}$/.test(amount)) return this.#till.openTab(request.headers, BigInt(amount));
    }
    if (method !== 'GET' && method !== 'HEAD') throw methodNotAllowed(request, 'GET');
    return this.#show(request);
  }

  async #show(request: ServingRequest): Promise<ServingAnswer> {
    const { path } = request;
    if (path === '/recognize') return { status: 200, headers: RECOGNIZE_PAGE.headers, body: RECOGNIZE_PAGE.html };
    if (path === '/v1/models') return json({ object: 'list', data: listModels(this.#options.directory) });
    if (path.startsWith('/v1/models/')) {
      const id = decodeName(path.slice('/v1/models/'.length));
      const found = listModels(this.#options.directory).find((model) => model.id === id);
      if (found !== undefined) return json(found);
    }
    if (path === '/v1/key') return json(showKey(this.#callerOf(request).key));
    if (path.startsWith('/v1/receipts/')) {
      const isKnown = this.#callerOf(request).name !== 'payer';
      return json(await this.#options.receipts.find(path.slice('/v1/receipts/'.length), isKnown));
    }
    if (path === '/healthz') return json({ status: 'ok', miners: [...this.#options.directory.all()].length });
    if (path === '/metrics') return { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' }, body: this.metrics() };
    const message = `Nothing is served at ${path.slice(0, 128)}`;
    throw new MillraceError('no-such-path', { actor: 'caller', message, values: { path: path.slice(0, 128) } });
  }

  /** @throws key-unknown, key-expired */
  #callerOf({ headers }: ServingRequest): Caller {
    const given = /^Bearer (\S+)$/i.exec(headers.authorization ?? '')?.[1];
    const isOurs = given?.startsWith('sk-millrace-') === true;
    if (isOurs || (given !== undefined && this.#options.isOpen !== true && this.#options.receiver === undefined)) {
      const key = this.#options.keys.authenticate(given as string);
      return { name: key.id, key };
    }
    if (this.#options.isOpen === true) return { name: 'open', key: undefined };
    if (this.#options.receiver === undefined) this.#options.keys.authenticate('');
    return { name: 'payer', key: undefined };
  }

  async #infer(request: ServingRequest, task: TaskType): Promise<ServingAnswer> {
    const caller = this.#callerOf(request);
    const isKnown =
      caller.name !== 'payer' || request.headers['payment-signature'] !== undefined || request.headers['millrace-tab'] !== undefined;
    const budget = isKnown ? this.#known : this.#unpaid;
    const held = await readBody(request, { bytesMax: this.#options.bodyBytesMax ?? BODY_BYTES_MAX, budget });
    let isHandedOver = false;
    try {
      const question = readQuestion(request, task, held.bytes);
      const requestHash: Hex = `0x${createHash('sha256').update(held.bytes).digest('hex')}`;
      const zeroRetention =
        question.policy.zeroRetention || caller.key?.zeroRetention === true || request.headers['millrace-retention'] === 'none';
      const idempotencyKey = zeroRetention ? undefined : idempotencyOf(request, caller);
      const known = idempotencyKey === undefined ? undefined : this.#idempotent.begin(idempotencyKey, requestHash);
      if (known !== undefined) return { ...known, headers: { ...known.headers, 'idempotent-replayed': 'true' } };
      try {
        const answer = await this.#ask({ request, question, body: held.bytes, requestHash, caller, zeroRetention }, () => held.release());
        isHandedOver = true;
        if (idempotencyKey !== undefined) this.#keepAnswer(idempotencyKey, answer);
        return answer;
      } catch (error) {
        if (idempotencyKey !== undefined) this.#idempotent.drop(idempotencyKey);
        throw error;
      }
    } finally {
      if (!isHandedOver) held.release();
    }
  }

  #keepAnswer(key: string, answer: ServingAnswer): void {
    const isWhole = typeof answer.body === 'string' || answer.body instanceof Uint8Array;
    if (answer.status === 200 && isWhole) this.#idempotent.keep(key, answer);
    else if (answer.status !== 200) this.#idempotent.drop(key);
    else answer.body = this.#keptStream(key, answer, answer.body as AsyncIterable<string | Uint8Array>);
  }

  async *#keptStream(key: string, answer: ServingAnswer, body: AsyncIterable<string | Uint8Array>): AsyncGenerator<string | Uint8Array> {
    const { status, headers } = answer;
    const pieces: Uint8Array[] = [];
    let isWhole = false;
    try {
      for await (const piece of body) {
        pieces.push(typeof piece === 'string' ? Buffer.from(piece) : piece);
        yield piece;
      }
      isWhole = true;
    } finally {
      if (isWhole) this.#idempotent.keep(key, { status, headers, body: Buffer.concat(pieces) });
      else this.#idempotent.drop(key);
    }
  }

  async #ask(asked: Omit<Running, 'sale' | 'routed'>, release: () => void): Promise<ServingAnswer> {
    const { request, question, body, requestHash, caller, zeroRetention } = asked;
    const chosen = findMiners(this.#options.directory, question, performance.now()).slice(0, this.#rules.attemptsMax);
    const dearest = chosen.map(({ price }) => price).reduce(greater, 0n);
    const sold = await this.#sell(request, caller, { amount: this.#withFee(dearest), model: question.model, requestHash });
    if ('demand' in sold) {
      release();
      return sold.demand;
    }
    const { sale } = sold;
    const replayAllowed = !zeroRetention && request.headers[REPLAY_HEADER] === 'allow';
    const isCounted = chosen.some(({ model }) => this.#options.tokenizers?.has(model.root) === true);
    const keep = isCounted || (replayAllowed && this.#options.onSample !== undefined);
    try {
      const routed = await routeToMiner(
        { chosen, question, request, body, requestHash, keep, zeroRetention },
        { codec: this.#codec, rules: this.#rules, log: this.#options.log },
      );
      const running: Running = { ...asked, sale, routed };
      const { whole, parts } = routed.answer;
      if (whole !== undefined) return await this.#wholeAnswer(running, whole, release);
      void routed.answer.outcome
        .then((outcome) => this.#settle(running, outcome))
        .catch((error: Error) => this.#options.log.warn('settle-failed', { reason: error.message }))
        .finally(release);
      return {
        status: 200,
        headers: { 'content-type': routed.answer.contentType, 'cache-control': 'no-store', ...sale.headers, ...operatorHeader(routed) },
        body: parts as AsyncGenerator<Buffer>,
      };
    } catch (error) {
      await sale.settle(0n);
      throw error;
    }
  }

  async #wholeAnswer(running: Running, whole: Buffer, release: () => void): Promise<ServingAnswer> {
    const { routed } = running;
    const outcome = await routed.answer.outcome;
    const { charged, headers } = await this.#settle(running, outcome);
    release();
    // An answer whose receipt is no good is handed on as what it is: free of charge and without one.
    const receipt: Record<string, string> = outcome.signed === undefined ? {} : { [RECEIPT_HEADER]: outcome.encoded as string };
    return {
      status: 200,
      headers: {
        'content-type': routed.answer.contentType,
        ...headers,
        ...receipt,
        ...operatorHeader(routed),
        [COST_HEADER]: charged.toString(),
      },
      body: whole,
    };
  }

  /** Books an answer that is over: what the caller pays, what is known of the miner, the receipt. */
  async #settle(running: Running, outcome: AnswerOutcome): Promise<{ charged: bigint; headers: Record<string, string> }> {
    const { routed, question, sale, body } = running;
    const { chosen } = routed;
    // First of all: whoever reads the end of a stream may rely on it that its receipt was seen.
    if (outcome.encoded !== undefined) this.#options.onReceipt?.({ encoded: outcome.encoded, signed: outcome.signed });
    const { path, query } = running.request;
    const asked = { path, query, contentType: running.request.headers['content-type'] ?? 'application/json', bytes: body };
    const inflated = await recountFault(this.#options.tokenizers, { model: chosen.model, question, request: asked, outcome });
    const isCut = outcome.signed === undefined && outcome.fault === undefined && outcome.passedBytes > 0;
    const worth = isCut ? priceUp(chosen.model, unitsOf(body, outcome)) : 0n;
    noteOutcome(routed, outcome, { nowMs: performance.now(), worth });
    if (inflated !== undefined) chosen.miner.health(chosen.model.id).lied(performance.now());
    const fault = outcome.fault ?? inflated?.fault;
    let charged = 0n;
    const { signed } = outcome;
    if (signed !== undefined) {
      const { outputs, inputs } = signed.receipt;
      const honest = inflated === undefined ? outputs.price : priceUp(chosen.model, inflated);
      charged = this.#withFee(lesser(honest, outputs.price));
      const [input, output] = [Number(inputs.units), Number(outputs.units)];
      this.#metrics.units(chosen.model.id, { input, output });
      this.#metrics.latency(chosen.model.id, {
        ttftMs: outcome.ttftMs,
        totalMs: outcome.ttftMs + (Number(outputs.tpotUs) * output) / 1000,
      });
    } else if (fault === undefined) charged = this.#withFee(worth);
    charged = lesser(charged, sale.held);
    if (fault !== undefined)
      this.#options.log.warn('miner-fault', { uid: chosen.miner.entry.uid, code: fault.code, reason: fault.message.slice(0, 300) });
    this.#metrics.ended(chosen.model.id, signed !== undefined ? 'complete' : fault === undefined ? 'cut' : fault.code);
    const headers = await sale.settle(charged);
    if (signed !== undefined) this.#keepReceipt(running, outcome, charged);
    return { charged, headers };
  }

  #keepReceipt(running: Running, outcome: AnswerOutcome, charged: bigint): void {
    const { request, routed, caller, body, zeroRetention } = running;
    const { uid, operatorId } = routed.chosen.miner.entry;
    const encoded = outcome.encoded as string;
    const { inputs, outputs } = (outcome.signed as NonNullable<AnswerOutcome['signed']>).receipt;
    const keyId = caller.key === undefined ? {} : { keyId: caller.key.id };
    this.#options.receipts.add({ id: inputs.receiptId, encoded, ...keyId, charged: charged.toString(), uid });
    const { channelId } = inputs;
    if (outputs.price > 0n && channelId !== NO_CHANNEL) this.#options.onPaid?.({ path: request.path, channelId, operatorId });
    if (zeroRetention || !inputs.replayAllowed || outcome.kept === undefined) return;
    this.#options.onSample?.({
      path: request.path,
      query: request.query,
      contentType: request.headers['content-type'] ?? 'application/json',
      requestBody: body,
      answer: outcome.kept,
      receipt: encoded,
      channelId,
      uid,
      operatorId,
    });
  }

  async #sell(
    request: ServingRequest,
    caller: Caller,
    wanted: { amount: bigint; model: string; requestHash: Hex },
  ): Promise<{ sale: Sale } | { demand: ServingAnswer }> {
    const { amount } = wanted;
    if (caller.key !== undefined) {
      const hold = await this.#options.keys.hold(caller.key.id, { amount, model: wanted.model });
      const settle = async (actual: bigint) => {
        hold.settle(actual);
        return {};
      };
      return { sale: { payer: undefined, channelId: NO_CHANNEL, voucher: 0n, held: amount, headers: {}, settle } };
    }
    if (caller.name === 'open') {
      return { sale: { payer: undefined, channelId: NO_CHANNEL, voucher: 0n, held: amount, headers: {}, settle: async () => ({}) } };
    }
    return this.#till.sell(request.headers, { amount, resource: `${request.path}#${wanted.requestHash}` });
  }

  #withFee(price: bigint): bigint {
    return price + (price * BigInt(this.#options.feeBps) + 9_999n) / 10_000n;
  }
}

/** What a caller who left before the receipt came has got, by the bytes that passed. */
function unitsOf(body: Buffer, { passedBytes }: AnswerOutcome): { input: bigint; output: bigint } {
  return { input: BigInt(Math.ceil(body.length / BYTES_PER_UNIT)), output: BigInt(Math.ceil(passedBytes / FRAME_BYTES)) };
}

const NO_CHANNEL: Hex = `0x${'00'.repeat(32)}`;

function operatorHeader({ chosen }: Routed): Record<string, string> {
  return { [OPERATOR_HEADER]: chosen.miner.entry.operatorId.toString() };
}

function idempotencyOf({ headers }: ServingRequest, caller: Caller): string | undefined {
  const key = headers['idempotency-key'];
  if (key === undefined || key.length > IDEMPOTENCY_LENGTH_MAX || caller.name === 'payer') return undefined;
  return `${caller.name}:${key}`;
}

/** What the miner answered, with its own words. */
function passedOn(error: MillraceError): ServingAnswer {
  const { status, body } = error.values;
  return { status: Number(status), headers: { 'content-type': 'application/json', 'cache-control': 'no-store' }, body: String(body) };
}

/** A page of another site in this machine's browser may send requests here; they would spend its owner's money. @throws foreign-page */
function refuseForeignPages({ headers }: ServingRequest): void {
  const host = headers.host ?? '';
  const isLocal = /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(host);
  const { origin } = headers;
  if (isLocal && (origin === undefined || origin === `http://${host}`)) return;
  throw new MillraceError('foreign-page', {
    actor: 'caller',
    message: 'This gateway serves programs and pages of this machine only',
    values: { host: host.slice(0, 80), origin: origin?.slice(0, 80) },
    hint: 'Ask for 127.0.0.1 or localhost; for others, give out keys.',
  });
}

function decodeName(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function json(value: unknown): ServingAnswer {
  return { status: 200, headers: { 'content-type': 'application/json', 'cache-control': 'no-store' }, body: JSON.stringify(value) };
}

function methodNotAllowed({ method, path }: ServingRequest, allowed: string): MillraceError {
  const message = `Got ${method.slice(0, 16)} ${path.slice(0, 128)}, expected ${allowed}`;
  return new MillraceError('method-not-allowed', {
    actor: 'caller',
    message,
    values: { method: method.slice(0, 16), path: path.slice(0, 128) },
  });
}
