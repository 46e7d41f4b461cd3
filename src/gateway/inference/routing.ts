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

/** The miners for a question, best first. @throws unknown-model, no-miner, price-above-limit */
export function findMiners(directory: MinerDirectory, question: Question, nowMs: number): Choosable[] {
  const serving = directory.serving(question.model, question.task);
  if (serving.length === 0) throw unknownModel(question);
  const trusted = serving.filter(({ miner, model }) => !miner.health(model.id).isBarred(nowMs));
  const candidates = trusted.map(({ miner, model }): Choosable => {
    const health = miner.health(model.id);
    return {
      miner,
      names: miner.names,
      key: miner.key,
      rank: miner.entry.rank,
      model,
      zeroRetention: miner.signed.offer.zeroRetention,
      price: priceMax(model, question),
      ttftMs: health.ttftMs,
      tpotMs: health.tpotMs,
      inFlight: health.inFlight,
      isOpen: health.isOpen(nowMs),
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

/** Asks one miner after the other until one gives the first part of an answer. @throws miner-refused, no-miner, request-aborted */
export async function routeToMiner(
  from: {
    chosen: readonly Choosable[];
    question: Question;
    request: ServingRequest;
    body: Buffer;
    requestHash: Hex;
    keep: boolean;
    zeroRetention: boolean;
  },
  parts: { codec: ReceiptCodec<InferenceReceipt>; rules: RoutingRules; log: Logger },
): Promise<Routed> {
  const { request, question } = from;
  const asked: MinerRequest = {
    path: request.path,
    query: request.query,
    headers: minerHeaders(request, from.zeroRetention),
    body: from.body,
    requestHash: from.requestHash,
    stream: question.stream,
    signal: request.signal,
    firstPartMs: parts.rules.firstPartMs,
    idleMs: parts.rules.idleMs,
  };
  let last: MillraceError | undefined;
  let attempts = 0;
  const tried = from.chosen.slice(0, parts.rules.attemptsMax);
  for (const chosen of tried) {
    attempts += 1;
    // Who else could answer is asked before anybody is waited for.
    const patienceMs = chosen === tried.at(-1) ? parts.rules.firstPartMs : 0;
    // A tab that the miner no longer knows is replaced once.
    for (let renewals = 0; renewals < 2; renewals += 1) {
      try {
        return { ...(await tryMiner(chosen, asked, { codec: parts.codec, keep: from.keep, patienceMs })), chosen, attempts };
      } catch (thrown) {
        last = toMillraceError(thrown);
        if (request.signal.aborted || last.code === 'miner-refused' || last.code === 'gateway-cannot-pay') throw last;
        if (last.code === 'tab-refused' && renewals === 0) continue;
        if (last.code === 'purse-full') break; // no fault of the miner's
        const retryAfterMs = typeof last.values.retryAfterMs === 'number' ? last.values.retryAfterMs : 0;
        chosen.miner.health(chosen.model.id).failed(performance.now(), retryAfterMs);
        parts.log.info('miner-passed-over', {
          uid: chosen.miner.entry.uid,
          model: chosen.model.id,
          code: last.code,
          reason: last.message.slice(0, 200),
        });
        break;
      }
    }
  }
  throw allFailed(question.model, attempts, last);
}

/** Money for a miner; what hinders this side from paying is no fault of the miner's, and no caller's business. */
async function leaseFrom(purse: MinerPurse, price: bigint, patienceMs: number): Promise<TabLease> {
  try {
    return await purse.lease(price, patienceMs);
  } catch (thrown) {
    const error = toMillraceError(thrown);
    if (MINER_FAULTS.has(error.code) || error.code === 'purse-full') throw error;
    throw new MillraceError('gateway-cannot-pay', {
      actor: 'host',
      message: `The gateway cannot pay a miner: ${error.message}`,
      values: { reason: error.code },
      hint: 'Check the balance of its wallet and the chain.',
      cause: error,
    });
  }
}

async function tryMiner(
  { miner, model, price }: Choosable,
  request: MinerRequest,
  how: { codec: ReceiptCodec<InferenceReceipt>; keep: boolean; patienceMs: number },
): Promise<{ answer: MinerAnswer; lease: TabLease | undefined }> {
  const health = miner.health(model.id);
  health.begin(performance.now());
  health.inFlight += 1;
  let lease: TabLease | undefined;
  try {
    if (price > 0n && miner.purse !== undefined) lease = await leaseFrom(miner.purse, price, how.patienceMs);
    const answer = await askMiner({ miner, model, ...how }, model.evidence === 'replayed' ? witnessed(request) : request, lease);
    void answer.outcome.then(() => {
      health.inFlight -= 1;
    });
    return { answer, lease };
  } catch (error) {
    health.inFlight -= 1;
    lease?.settle(0n);
    throw error;
  }
}

/** Books what an answer's outcome says of its miner. A receipt that does not fit is a lie; a stream that broke is a failure. */
export function noteOutcome({ chosen, lease, answer }: Routed, outcome: AnswerOutcome, nowMs: number): void {
  const health = chosen.miner.health(chosen.model.id);
  const { signed, fault } = outcome;
  if (signed !== undefined) {
    lease?.settle(signed.receipt.outputs.price);
    const { units, tpotUs } = signed.receipt.outputs;
    health.succeeded({ ttftMs: outcome.ttftMs, tpotMs: answer.parts !== undefined && units > 1n ? Number(tpotUs) / 1000 : undefined });
    return;
  }
  // What the miner took of the tab nobody knows now.
  lease?.broken();
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
