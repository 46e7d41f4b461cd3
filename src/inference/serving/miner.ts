import { createHash } from 'node:crypto';
import { type Address, type Hex, zeroAddress } from 'viem';
import type { ReceiptDomain, Signer } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { PAYMENT_SIGNATURE, type Receiver } from '../../token/index.ts';
import { type AnsweringParts, answerWork } from './answering.ts';
import type { Call } from './call.ts';
import { callReaderOf, type ReadCall } from './call-readers.ts';
import { type ByteBudget, createByteBudget, readBody, type ServingAnswer, type ServingRequest } from './exchange.ts';
import { badRequest, failureAnswer } from './failure.ts';
import { createServingMetrics } from './metrics.ts';
import { createModelTable, listedModel, type MinerModel, type ModelTable, type OpenModel, offeredModel } from './miner-model.ts';
import { offerToJson, type SignedOffer, signOffer } from './offer.ts';
import { priceUp } from './price.ts';
import { createInferenceReceipts, NO_BYTES } from './receipt.ts';
import { createTill, TAB_HEADER, type Till } from './till.ts';

/** How a miner serves. Money in base units of `token`. */
export interface MinerOptions {
  operatorId: bigint;
  /** Signs the offer and every receipt. */
  signer: Signer;
  domain: ReceiptDomain;
  /** The network's profile, shown in receipts. */
  profile: string;
  models: readonly MinerModel[];
  /** Takes payments; without it nothing costs anything. */
  receiver?: Receiver;
  /** The token of the prices; default: the receiver's first. */
  token?: Address;
  /** Protocol time, seconds. */
  now: () => bigint | Promise<bigint>;
  limits?: Partial<MinerLimits>;
  log: Logger;
}

/** What a miner takes. */
export interface MinerLimits {
  /** Bytes of one body. Default 32 MiB. */
  bodyBytesMax: number;
  /** Bytes of all bodies in memory of requests that bring a payment. Default 256 MiB. */
  paidBytesMax: number;
  /** The same for requests without one, which are only told the price. Default 64 MiB. */
  unpaidBytesMax: number;
}

/** A miner's HTTP API; a server of any kind carries it. */
export interface Miner {
  /** Answers one request. Never throws. */
  answer(request: ServingRequest): Promise<ServingAnswer>;
  /** The signed offer: models, prices, whom to pay. */
  offer(): Promise<SignedOffer>;
  /** Prometheus text format. */
  metrics(): string;
  status(): Record<string, unknown>;
  /** Takes no new work; `resume` takes work again. */
  drain(): void;
  resume(): void;
  /** Settles what is open. Engines are closed by whoever opened them. */
  stop(): Promise<void>;
}

/** Header: `none` asks the miner to keep nothing. */
export const RETENTION_HEADER = 'millrace-retention';
/** Header: `allow` lets validators run this request again. */
export const REPLAY_HEADER = 'millrace-replay';
/** Header: 32 bytes that choose which intermediate tensors the receipt's witness covers. */
export const WITNESS_HEADER = 'millrace-witness-nonce';

const LIMITS: MinerLimits = { bodyBytesMax: 32 << 20, paidBytesMax: 256 << 20, unpaidBytesMax: 64 << 20 };
const OFFER_SECONDS = 3600n;

/** Opens a miner: OpenAI's endpoints and `/v1/tasks/{type}` on top of engines, paid by voucher, each answer with a signed receipt. */
export function createMiner(options: MinerOptions): Miner {
  return new OpenMiner(options);
}

class OpenMiner implements Miner {
  readonly #options: MinerOptions;
  readonly #limits: MinerLimits;
  readonly #table: ModelTable;
  readonly #till: Till;
  readonly #paid: ByteBudget;
  readonly #unpaid: ByteBudget;
  readonly #parts: AnsweringParts;
  #offer: SignedOffer | undefined;
  #isDraining = false;

  constructor(options: MinerOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#table = createModelTable(options.models);
    this.#till = createTill({ receiver: options.receiver, token: options.token, log: options.log });
    this.#paid = createByteBudget(this.#limits.paidBytesMax);
    this.#unpaid = createByteBudget(this.#limits.unpaidBytesMax);
    const { signer, operatorId, profile, domain, log } = options;
    this.#parts = { signer, operatorId, profile, codec: createInferenceReceipts(domain), metrics: createServingMetrics('miner'), log };
  }

  async answer(request: ServingRequest): Promise<ServingAnswer> {
    try {
      return await this.#route(request);
    } catch (thrown) {
      const error = toMillraceError(thrown);
      this.#parts.metrics.refused(error.code);
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

  async offer(): Promise<SignedOffer> {
    const now = BigInt(await this.#options.now());
    const known = this.#offer;
    if (known !== undefined && known.offer.issuedAt <= now && now < known.offer.issuedAt + OFFER_SECONDS / 2n) return known;
    const { domain, signer, operatorId, receiver, token } = this.#options;
    this.#offer = await signOffer(domain, signer, {
      operatorId,
      receiver: receiver?.receiver ?? zeroAddress,
      token: token ?? zeroAddress,
      zeroRetention: true,
      issuedAt: now,
      expiry: now + OFFER_SECONDS,
      models: [...this.#table.all()].map(offeredModel),
    });
    return this.#offer;
  }

  metrics(): string {
    const models = [...this.#table.all()];
    const counts = this.#till.counts();
    return this.#parts.metrics.text({
      running_count: models.reduce((sum, { queue }) => sum + queue.running, 0),
      waiting_count: models.reduce((sum, { queue }) => sum + queue.waiting, 0),
      warm_models_count: models.filter(({ engine }) => engine.state() === 'warm').length,
      body_bytes: this.#paid.used + this.#unpaid.used,
      paid_requests_total: counts.paidRequests,
      earned_base_units_total: counts.earned,
      refused_payments_total: counts.refusedPayments,
      open_tabs_count: counts.openTabs,
    });
  }

  status(): Record<string, unknown> {
    const models = [...this.#table.all()].map(({ engine, queue }) => ({
      id: engine.card.id,
      task: engine.card.task,
      state: engine.state(),
      running: queue.running,
      waiting: queue.waiting,
    }));
    return { models, ...this.#till.counts() };
  }

  drain(): void {
    this.#isDraining = true;
  }

  resume(): void {
    this.#isDraining = false;
  }

  async stop(): Promise<void> {
    this.drain();
    await this.#till.stop();
  }

  #route(request: ServingRequest): Promise<ServingAnswer> | ServingAnswer {
    const { method, path } = request;
    const reader = callReaderOf(path);
    if (reader !== undefined) return method === 'POST' ? this.#infer(request, reader) : methodNotAllowed(request, 'POST');
    if (path === '/v1/inference/tabs') return this.#tab(request);
    if (method !== 'GET' && method !== 'HEAD') return methodNotAllowed(request, 'GET');
    return this.#show(path);
  }

  async #show(path: string): Promise<ServingAnswer> {
    const owner = `operator-${this.#options.operatorId}`;
    if (path === '/v1/models') {
      const data = [...this.#table.all()].map((model) => listedModel(model, owner));
      return jsonAnswer(JSON.stringify({ object: 'list', data }));
    }
    if (path.startsWith('/v1/models/')) {
      const id = decodeURIComponent(path.slice('/v1/models/'.length));
      const found = [...this.#table.all()].find(({ engine }) => engine.card.id === id);
      if (found !== undefined) return jsonAnswer(JSON.stringify(listedModel(found, owner)));
    }
    if (path === '/v1/inference/offer') return jsonAnswer(offerToJson(await this.offer()));
    if (path === '/healthz') return jsonAnswer(JSON.stringify({ status: this.#isDraining ? 'draining' : 'ok' }));
    if (path === '/metrics') return { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' }, body: this.metrics() };
    const message = `Nothing is served at ${path.slice(0, 128)}`;
    throw new MillraceError('no-such-path', { actor: 'caller', message, values: { path: path.slice(0, 128) } });
  }

  #tab(request: ServingRequest): Promise<ServingAnswer> {
    if (request.method === 'DELETE') return this.#till.endTab(request.headers);
    if (request.method !== 'POST') throw methodError(request, 'POST or DELETE');
    const amount = new URLSearchParams(request.query).get('amount') ?? '';
    if (!/^[1-9][0-9]{0,37}$/.test(amount)) throw badRequest('amount', amount, 'a whole number of base units');
    return this.#till.openTab(request.headers, BigInt(amount));
  }

  async #infer(request: ServingRequest, reader: ReadCall): Promise<ServingAnswer> {
    if (this.#isDraining) throw draining();
    const { headers } = request;
    const isPaid = headers[TAB_HEADER] !== undefined || headers[PAYMENT_SIGNATURE.toLowerCase()] !== undefined;
    const budget = isPaid || this.#options.receiver === undefined ? this.#paid : this.#unpaid;
    const body = await readBody(request, { bytesMax: this.#limits.bodyBytesMax, budget });
    try {
      const { call, model } = await this.#understand(request, body.bytes, reader);
      const requestHash: Hex = `0x${createHash('sha256').update(body.bytes).digest('hex')}`;
      const flags = readFlags(headers);
      if (flags.witnessNonce !== NO_BYTES) call.request.witness = { nonce: flags.witnessNonce, operator: this.#options.signer.address };
      model.queue.check();
      const amount = priceUp(model.price, { input: BigInt(call.bounds.input), output: BigInt(call.bounds.output) });
      const sold = await this.#till.sell(headers, { amount, resource: `${request.path}#${requestHash}` });
      if ('demand' in sold) {
        body.release();
        return sold.demand;
      }
      const place = await enterOrRefund(model, sold.sale);
      const release = () => {
        place.leave();
        body.release();
      };
      return await answerWork(this.#parts, {
        request,
        call,
        model,
        sale: sold.sale,
        requestHash,
        release,
        turn: (signal) => place.turn(signal),
        flags,
      });
    } catch (error) {
      body.release();
      throw error;
    }
  }

  async #understand(request: ServingRequest, bytes: Buffer, reader: ReadCall): Promise<{ call: Call; model: OpenModel }> {
    let model: OpenModel | undefined;
    const call = await reader({
      path: request.path,
      query: new URLSearchParams(request.query),
      contentType: request.headers['content-type'] ?? '',
      bytes,
      modelFor: (name, task) => {
        model = this.#table.find(name, task);
        return { card: model.engine.card, outputUnitsMax: model.outputUnitsMax };
      },
    });
    return { call, model: model as OpenModel };
  }
}

async function enterOrRefund(model: OpenModel, sale: { payer: Address | undefined; settle(actual: bigint): Promise<unknown> }) {
  try {
    return model.queue.enter(sale.payer ?? 'free');
  } catch (error) {
    await sale.settle(0n);
    throw error;
  }
}

function readFlags(headers: ServingRequest['headers']): { zeroRetention: boolean; replayAllowed: boolean; witnessNonce: Hex } {
  const nonce = headers[WITNESS_HEADER];
  if (nonce !== undefined && !/^0x[0-9a-f]{64}$/.test(nonce)) throw badRequest(WITNESS_HEADER, nonce, '0x and 64 hex digits');
  const zeroRetention = headers[RETENTION_HEADER] === 'none';
  return { zeroRetention, replayAllowed: !zeroRetention && headers[REPLAY_HEADER] === 'allow', witnessNonce: (nonce ?? NO_BYTES) as Hex };
}

function jsonAnswer(body: string): ServingAnswer {
  return { status: 200, headers: { 'content-type': 'application/json' }, body };
}

function methodError({ method, path }: ServingRequest, allowed: string): MillraceError {
  const message = `Got ${method.slice(0, 16)} ${path.slice(0, 128)}, expected ${allowed}`;
  return new MillraceError('method-not-allowed', {
    actor: 'caller',
    message,
    values: { method: method.slice(0, 16), path: path.slice(0, 128) },
  });
}

function methodNotAllowed(request: ServingRequest, allowed: string): ServingAnswer {
  return failureAnswer(methodError(request, allowed), { allow: allowed });
}

function draining(): MillraceError {
  return new MillraceError('serving-busy', {
    actor: 'peer',
    message: 'This miner takes no new requests: it is about to stop',
    values: { retryAfterSeconds: 5 },
  });
}
