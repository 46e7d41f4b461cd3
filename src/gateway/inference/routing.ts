import { randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import type { ReceiptCodec } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import {
  type InferenceReceipt,
  MISSING_MODELS,
  type OfferedModel,
  priceUp,
  REPLAY_HEADER,
  RETENTION_HEADER,
  type ServingRequest,
  WITNESS_HEADER,
} from '../../inference/index.ts';
import type { Logger } from '../../log.ts';
import { type AnswerOutcome, askMiner, type MinerAnswer, type MinerRequest } from './ask-miner.ts';
import { type Candidate, chooseMiners } from './choose-miners.ts';
import type { KnownMiner, MinerDirectory } from './miner-directory.ts';
import type { MinerPurse, TabLease } from './miner-purse.ts';
import type { Question } from './question.ts';

/** How requests are sent to miners. */
export interface RoutingRules {
  /** Miners that are tried for one request. */
  attemptsMax: number;
  /** Until a miner has a place and can be paid, where all have as many requests as they take or as may be paid ahead. */
  roomMs: number;
  /** To the first part of an answer. */
  firstPartMs: number;
  /** Between two parts. */
  idleMs: number;
}

/** A miner that may get the request. */
export interface Choosable extends Candidate {
  miner: KnownMiner;
}

/** An answer and who gives it. */
export interface Routed {
  answer: MinerAnswer;
  chosen: Choosable;
  lease: TabLease | undefined;
  attempts: number;
}

const OUTPUT_GUESS = 64;
/** A miner signed for something else than what it answered. None at all may be a failure in the middle of an answer. */
const LIES: ReadonlySet<string> = new Set(['receipt-mismatch', 'bad-receipt']);
/** Why a tab was not opened, as far as the miner is to blame. */
const MINER_FAULTS: ReadonlySet<string> = new Set([
  'tab-refused',
  'payment-terms-unknown',
  'payment-too-expensive',
  'payment-malformed',
  'channel-delay-too-long',
  'peer-unreachable',
  'peer-timeout',
  'peer-key-mismatch',
]);

/** Why no tab is opened, where it is neither the miner's fault of now nor this side's. */
const PURSE_LIMITS: ReadonlySet<string> = new Set(['purse-too-small', 'purse-spent']);

/** The miners for a question, best first. @throws unknown-model, no-miner, price-above-limit */
export function findMiners(directory: MinerDirectory, question: Question, nowMs: number): Choosable[] {
  const serving = directory.serving(question.model, question.task);
  if (serving.length === 0) throw unknownModel(question);
  const trusted = serving.filter(({ miner, model }) => !miner.health(model.id).isBarred(nowMs));
  const candidates = trusted.map(({ miner, model }): Choosable => {
    const health = miner.health(model.id);
    const price = priceMax(model, question);
    return {
      miner,
      names: miner.names,
      key: miner.key,
      rank: miner.entry.rank,
      model,
      zeroRetention: miner.signed.offer.zeroRetention,
      price,
      ttftMs: health.ttftMs,
      tpotMs: health.tpotMs,
      inFlight: health.inFlight,
      isOpen: health.isOpen(nowMs),
      hasRoom: hasRoom({ miner, model, price }),
    };
  });
  const { policy, parameters, affinity } = question;
  const outputUnits = Math.min(question.outputMax ?? OUTPUT_GUESS, OUTPUT_GUESS);
  const chosen = chooseMiners(candidates, { policy, parameters, affinity, outputUnits });
  if (chosen.length === 0) throw noMiner(question.model);
  return chosen;
}

/** The most that a question can cost at a model's price: what is held until the actual price is known. */
function priceMax(model: OfferedModel, question: Question): bigint {
  const offered = Number(model.outputUnitsMax);
  const output =
    question.outputMax === undefined ? offered : question.task === 'chat' ? Math.min(question.outputMax, offered) : question.outputMax;
  const context = model.contextTokens > 0n ? Number(model.contextTokens) : Number.MAX_SAFE_INTEGER;
  return priceUp(model, { input: BigInt(Math.min(question.inputMax(model.unit), context)), output: BigInt(output) });
}

/** A question on its way to one of several miners. */
export interface Routable {
  chosen: readonly Choosable[];
  question: Question;
  request: ServingRequest;
  body: Buffer;
  requestHash: Hex;
  keep: boolean;
  zeroRetention: boolean;
}

/** What routing needs besides. */
export interface RoutingParts {
  codec: ReceiptCodec<InferenceReceipt>;
  rules: RoutingRules;
  log: Logger;
}

/**
 * Asks one miner after the other until one gives the first part of an answer. Those that have no place, or that no more may be paid ahead, come last:
 * whichever of them has room first is asked. @throws miner-refused, no-miner, request-aborted, gateway-cannot-pay, purse-too-small
 */
export function routeToMiner(from: Routable, parts: RoutingParts): Promise<Routed> {
  return new Route(from, parts).run();
}

class Route {
  readonly #from: Routable;
  readonly #parts: RoutingParts;
  readonly #asked: MinerRequest;
  #attempts = 0;
  #last: MillraceError | undefined;

  constructor(from: Routable, parts: RoutingParts) {
    const { request, body, requestHash, question, zeroRetention } = from;
    const { firstPartMs, idleMs } = parts.rules;
    const { path, query, signal } = request;
    const headers = minerHeaders(request, zeroRetention);
    this.#from = from;
    this.#parts = parts;
    this.#asked = { path, query, headers, body, requestHash, stream: question.stream, signal, firstPartMs, idleMs };
  }

  async run(): Promise<Routed> {
    const { rules } = this.#parts;
    const full: Choosable[] = [];
    for (const chosen of this.#from.chosen.slice(0, rules.attemptsMax)) {
      if (!hasRoom(chosen)) {
        full.push(chosen);
        continue;
      }
      const routed = await this.#ask(chosen);
      if (routed !== undefined) return routed;
    }
    const deadlineMs = performance.now() + rules.roomMs;
    while (full.length > 0) {
      const granted = await this.#waitForRoom(full, deadlineMs);
      if (granted === undefined) break;
      const routed = await this.#ask(granted.chosen, granted.admission);
      if (routed !== undefined) return routed;
      full.splice(full.indexOf(granted.chosen), 1);
    }
    if (this.#last?.code === 'purse-too-small') throw this.#last;
    throw allFailed(this.#from.question.model, this.#attempts, this.#last);
  }

  /** An answer, or undefined where another miner is to be asked. A tab that the miner no longer knows is replaced once. */
  async #ask(chosen: Choosable, granted?: Admission): Promise<Routed | undefined> {
    this.#attempts += 1;
    try {
      return await this.#try(chosen, granted);
    } catch (thrown) {
      if (toMillraceError(thrown).code !== 'tab-refused' || !hasRoom(chosen)) return this.#passOver(chosen, thrown);
    }
    try {
      return await this.#try(chosen);
    } catch (thrown) {
      return this.#passOver(chosen, thrown);
    }
  }

  async #try(chosen: Choosable, granted?: Admission): Promise<Routed> {
    const { miner, model } = chosen;
    const { lease, leave } = granted ?? (await admit(chosen, this.#asked.signal));
    miner.health(model.id).begin(performance.now());
    try {
      const asked = model.evidence === 'replayed' ? witnessed(this.#asked) : this.#asked;
      const answer = await askMiner({ miner, model, codec: this.#parts.codec, keep: this.#from.keep }, asked, lease);
      void answer.outcome.then(leave);
      return { answer, lease, chosen, attempts: this.#attempts };
    } catch (error) {
      leave();
      lease?.settle(0n);
      throw error;
    }
  }

  /** Notes why a miner gave no answer. @throws where no other miner would do better */
  #passOver({ miner, model }: Choosable, thrown: unknown): undefined {
    const error = toMillraceError(thrown);
    this.#last = error;
    const { code, message, values } = error;
    if (this.#asked.signal.aborted || code === 'miner-refused' || code === 'gateway-cannot-pay') throw error;
    const retryAfterMs = typeof values.retryAfterMs === 'number' ? values.retryAfterMs : 0;
    miner.health(model.id).failed(performance.now(), retryAfterMs);
    this.#parts.log.info('miner-passed-over', { uid: miner.entry.uid, model: model.id, code, reason: message.slice(0, 200) });
    return undefined;
  }

  /** A place, and money, at whichever miner has both first; undefined where none has until the time is up. */
  async #waitForRoom(full: readonly Choosable[], deadlineMs: number): Promise<{ chosen: Choosable; admission: Admission } | undefined> {
    const { signal } = this.#asked;
    const over = new AbortController();
    const onGone = () => over.abort(signal.reason);
    signal.addEventListener('abort', onGone, { once: true });
    const late = setTimeout(() => over.abort(minersFull()), Math.max(0, deadlineMs - performance.now()));
    const waiting = full.map(async (chosen) => {
      const admission = await admit(chosen, over.signal);
      // A second one that had room in the same moment.
      if (over.signal.aborted) giveBack(admission);
      return { chosen, admission };
    });
    try {
      return await Promise.any(waiting);
    } catch (thrown) {
      signal.throwIfAborted();
      const [first] = (thrown as AggregateError).errors;
      this.#last = toMillraceError(first);
      return undefined;
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', onGone);
      over.abort(minersFull());
    }
  }
}

/** What a request has at a miner: a place among those that it works on, and money where it costs some. */
interface Admission {
  lease: TabLease | undefined;
  leave(): void;
}

/** Twice as many as a miner works on at once: the next are there when one is over, and its queue stays free for others. */
function placesOf({ concurrency }: OfferedModel): number {
  return 2 * Math.max(1, Number(concurrency));
}

/** Whether a miner can be asked now, without waiting for another request to end. */
function hasRoom({ miner, model, price }: Pick<Choosable, 'miner' | 'model' | 'price'>): boolean {
  if (!miner.health(model.id).hasPlace(placesOf(model))) return false;
  return price === 0n || miner.purse === undefined || miner.purse.hasRoom(price);
}

async function admit({ miner, model, price }: Choosable, signal: AbortSignal): Promise<Admission> {
  const health = miner.health(model.id);
  await health.enter(placesOf(model), signal);
  const leave = () => health.leave();
  try {
    return { lease: price > 0n && miner.purse !== undefined ? await leaseFrom(miner.purse, price, signal) : undefined, leave };
  } catch (error) {
    leave();
    throw error;
  }
}

function giveBack({ lease, leave }: Admission): void {
  lease?.settle(0n);
  leave();
}

/** Money for a miner; what hinders this side from paying is no fault of the miner's, and no caller's business. */
async function leaseFrom(purse: MinerPurse, price: bigint, signal: AbortSignal): Promise<TabLease> {
  try {
    return await purse.lease(price, signal);
  } catch (thrown) {
    const error = toMillraceError(thrown);
    if (signal.aborted || MINER_FAULTS.has(error.code) || PURSE_LIMITS.has(error.code)) throw error;
    throw new MillraceError('gateway-cannot-pay', {
      actor: 'host',
      message: `The gateway cannot pay a miner: ${error.message}`,
      values: { reason: error.code },
      hint: 'Check the balance of its wallet and the chain.',
      cause: error,
    });
  }
}

/**
 * Books what an answer's outcome says of its miner. A receipt that does not fit is a lie; a stream that broke is a failure. `worth`: what a caller
 * who left before the receipt came pays for what he got, base units.
 */
export function noteOutcome(
  { chosen, lease, answer }: Routed,
  outcome: AnswerOutcome,
  { nowMs, worth }: { nowMs: number; worth: bigint },
): void {
  const health = chosen.miner.health(chosen.model.id);
  const { signed, fault } = outcome;
  if (signed !== undefined) {
    lease?.settle(signed.receipt.outputs.price);
    const { units, tpotUs } = signed.receipt.outputs;
    health.succeeded({ ttftMs: outcome.ttftMs, tpotMs: answer.parts !== undefined && units > 1n ? Number(tpotUs) / 1000 : undefined });
    return;
  }
  // What the miner took of the tab nobody knows now.
  lease?.forfeit(worth);
  if (fault === undefined) return;
  if (LIES.has(fault.code)) health.lied(nowMs);
  else health.failed(nowMs);
}

/** Asks for a digest of intermediate tensors that only who runs the model can give: in every request, so that validators' are not told apart. */
function witnessed(request: MinerRequest): MinerRequest {
  return { ...request, headers: { ...request.headers, [WITNESS_HEADER]: `0x${randomBytes(32).toString('hex')}` } };
}

function minerHeaders(request: ServingRequest, zeroRetention: boolean): Record<string, string> {
  const { headers } = request;
  const replay = headers[REPLAY_HEADER];
  return {
    'content-type': headers['content-type'] ?? 'application/json',
    ...(zeroRetention ? { [RETENTION_HEADER]: 'none' } : replay === undefined ? {} : { [REPLAY_HEADER]: replay }),
  };
}

function minersFull(): MillraceError {
  return new MillraceError('miners-full', {
    actor: 'peer',
    message: 'All miners have as many requests as they take, or as may be paid ahead there',
    hint: 'Try again in a moment; more is paid ahead the more a miner has earned here.',
  });
}

function unknownModel({ model, task }: Question): MillraceError {
  const shown = model.slice(0, 80);
  return new MillraceError('unknown-model', {
    actor: 'caller',
    message: shown === '' ? 'No miner does this' : `No miner serves ${shown} for this`,
    values: { parameter: 'model', got: shown },
    hint: MISSING_MODELS.some((missing) => missing.task === task)
      ? `No embedded model does this: it is served where a miner has a backend for it. GET /v1/models lists the models.`
      : 'GET /v1/models lists the models.',
  });
}

function noMiner(model: string): MillraceError {
  return new MillraceError('no-miner', {
    actor: 'caller',
    message: `No miner of ${model.slice(0, 80)} fits the wishes in "provider"`,
    values: { parameter: 'provider', got: model.slice(0, 80) },
    hint: 'Allow a higher price, or other miners.',
  });
}

function allFailed(model: string, attempts: number, last: MillraceError | undefined): MillraceError {
  return new MillraceError('no-miner', {
    actor: 'peer',
    message: `${attempts} miners of ${model.slice(0, 80)} were asked and none answered: ${last?.message.slice(0, 200) ?? ''}`,
    values: { attempts, lastCode: last?.code, retryAfterSeconds: 1 },
    hint: 'Try again in a moment; nothing was charged.',
  });
}
