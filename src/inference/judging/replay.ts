import { createHash } from 'node:crypto';
import { type Address, type Hex, isAddressEqual } from 'viem';
import type { EvidenceClass, ReceiptCodec } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Engine, EngineResult } from '../engines/engine.ts';
import type { Call } from '../serving/call.ts';
import { callReaderOf } from '../serving/call-readers.ts';
import { type InferenceReceipt, NO_BYTES, verifyReceipt } from '../serving/receipt.ts';
import { type AnswerContent, contentOf, readAnswer, signedBytes } from './answer-content.ts';
import { distanceOf, EXACT_DISTANCE_MAX } from './fingerprint.ts';
import { inflationOf } from './token-recount.ts';

/** A request that a miner answered, as its caller or the caller's gateway saw it. */
export interface AnsweredRequest {
  path: string;
  query?: string;
  contentType: string;
  requestBody: Buffer;
  /** Content type of the answer; guessed from its first bytes where absent. */
  answerType?: string;
  answer: Buffer;
  /** Base64url of the receipt. */
  receipt: string;
}

/** What a validator has to run a request again with. */
export interface JudgedModel {
  engine: Engine;
  /** For models that are not exact: the greatest honest distance, in millionths (`calibrateThreshold`). */
  distanceMax?: number;
}

/** What came of running a request again. `unproven` says nothing against the miner, and never punishes. */
export interface ReplayVerdict {
  outcome: 'confirmed' | 'refuted' | 'unproven';
  evidence: EvidenceClass;
  /**
   * `same-output`, `near-output`, `unlike-bits` (the right answer, but neither digest nor witness are those of this kind of processor);
   * `other-output`, `other-witness`, `other-answer` (it signed the right digest and said something else),
   * `inflated-count`, `unreadable-answer`; and why nothing is proven.
   */
  reason: string;
  /** Distance to the own answer, millionths. */
  distance?: number;
  /** Units of output that are too many. */
  inflatedBy?: number;
  receipt?: InferenceReceipt;
}

/** How requests are run again. */
export interface ReplayOptions {
  codec: ReceiptCodec<InferenceReceipt>;
  modelOf: (root: Hex) => JudgedModel | undefined;
  /** Declared tokenizers by model root: the number of tokens in a text. */
  countTokens?: (root: Hex) => ((text: string) => number) | undefined;
  /** It is the validator's own request: neither leave nor a payment is needed to run it again. */
  isOwn?: boolean;
  /** Whose answer it is said to be: a receipt of anybody else says nothing of that miner. */
  miner?: { operatorId: bigint; nodeKey: Address };
  signal: AbortSignal;
}

/**
 * Runs an answered request again with the same model. A bad receipt, or bytes that it does not cover, say nothing against the miner: whoever
 * brought them may have made them up. Requests of others are run only if they were paid, their caller allowed it, and nothing was to be forgotten.
 */
export async function replayRequest(sample: AnsweredRequest, options: ReplayOptions): Promise<ReplayVerdict> {
  const receipt = receiptOfSample(sample, options.codec);
  if (typeof receipt === 'string') return unproven(receipt);
  const { inputs, subject } = receipt;
  const { miner } = options;
  if (miner !== undefined && (subject.operatorId !== miner.operatorId || !isAddressEqual(subject.miner, miner.nodeKey))) {
    return unproven('other-miner', receipt);
  }
  if (options.isOwn !== true) {
    if (inputs.zeroRetention || !inputs.replayAllowed) return unproven('not-allowed', receipt);
    if (receipt.outputs.price === 0n || inputs.channelId === NO_BYTES) return unproven('not-paid', receipt);
    // Whoever broke off has a part of the answer: to run all of it again would say it was another.
    if (receipt.outputs.end !== 'complete') return unproven('not-complete', receipt);
  }
  const model = options.modelOf(subject.modelRoot);
  const recounted = (reason: string) => recount(sample, receipt, { reason, count: options.countTokens?.(subject.modelRoot) });
  if (model === undefined) return recounted('no-such-model-here');
  const { determinism } = model.engine.card;
  if (determinism === 'none' || (determinism === 'tolerant' && model.distanceMax === undefined)) return recounted('not-comparable');
  try {
    const call = await understand(sample, receipt, model);
    if (call === undefined) return unproven('not-understood', receipt);
    if (inputs.witnessNonce !== NO_BYTES) call.request.witness = { nonce: inputs.witnessNonce, operator: subject.miner };
    const result = await model.engine.run(call.request, { signal: options.signal });
    return judge({ sample, receipt, call, result, model, isTrusted: options.isOwn === true || isSelfContained(sample) });
  } catch (error) {
    return unproven(`not-run: ${toMillraceError(error).code}`, receipt);
  }
}

interface Rerun {
  sample: AnsweredRequest;
  receipt: InferenceReceipt;
  call: Call;
  result: EngineResult;
  model: JudgedModel;
  /** All of the request is known to be what the miner was asked. */
  isTrusted: boolean;
}

function judge({ sample, receipt, call, result, model, isTrusted }: Rerun): ReplayVerdict {
  const { outputs, inputs } = receipt;
  const isSame = outputs.outputDigest === result.outputDigest;
  const isExact = model.engine.card.determinism === 'exact';
  let answer: AnswerContent;
  try {
    answer = readAnswer(result.task, answerTypeOf(sample), signedBytes(answerTypeOf(sample), sample.answer));
  } catch {
    return refuted('unreadable-answer', receipt, isExact);
  }
  const distance = distanceOf(answer, ownContent(call, result, receipt));
  if (!isSame) {
    // What stands in the query is not under the receipt's hash: whoever brought the sample may have changed it.
    if (!isTrusted) return { ...unproven('query-not-signed', receipt), distance };
    if (!isDetermined(model, call)) return { ...unproven('not-comparable', receipt), distance };
    if (distance === undefined) {
      return isExact ? refuted('other-output', receipt, isExact) : unproven('not-comparable', receipt);
    }
    if (distance > (model.distanceMax ?? EXACT_DISTANCE_MAX)) return { ...refuted('other-output', receipt, isExact), distance };
    // The same answer from other bits: another kind of processor, or somebody who passed the question on. The witness could have told.
    if (isExact && inputs.witnessNonce !== NO_BYTES) return { ...unproven('unlike-bits', receipt), distance };
  } else {
    const hasWitness = inputs.witnessNonce !== NO_BYTES && result.witness !== undefined;
    if (hasWitness && result.witness?.digest !== outputs.witness) return refuted('other-witness', receipt, isExact);
    if (distance !== undefined && distance > 0 && isTrusted) return { ...refuted('other-answer', receipt, isExact), distance };
  }
  const inflatedBy = Number(outputs.units) - Math.ceil(result.usage.output);
  if (isSame && inflatedBy > 0) return { ...refuted('inflated-count', receipt, isExact), inflatedBy, distance };
  if (isSame && Number(inputs.units) > Math.ceil(result.usage.input)) {
    return { ...refuted('inflated-count', receipt, isExact), inflatedBy: Number(inputs.units) - Math.ceil(result.usage.input), distance };
  }
  return isSame && isExact
    ? { outcome: 'confirmed', evidence: 'replayed', reason: 'same-output', distance, receipt }
    : { outcome: 'confirmed', evidence: 'fingerprinted', reason: 'near-output', distance, receipt };
}

/** The receipt of a sample that its miner signed over these very bytes, or why there is none to judge by. Never throws. */
export function receiptOfSample(sample: AnsweredRequest, codec: ReceiptCodec<InferenceReceipt>): InferenceReceipt | string {
  try {
    const covered = signedBytes(answerTypeOf(sample), sample.answer);
    const { receipt } = verifyReceipt(codec, sample.receipt, { requestHash: sha256(sample.requestBody), responseHash: sha256(covered) });
    return receipt.inputs.path === sample.path ? receipt : 'other-path';
  } catch (error) {
    return `bad-sample: ${toMillraceError(error).code}`;
  }
}

async function understand(sample: AnsweredRequest, receipt: InferenceReceipt, model: JudgedModel): Promise<Call | undefined> {
  const reader = callReaderOf(sample.path);
  const { card } = model.engine;
  return reader?.({
    path: sample.path,
    query: new URLSearchParams(sample.query ?? ''),
    contentType: sample.contentType,
    bytes: sample.requestBody,
    // What the miner's offer limits output to stands in the receipt.
    modelFor: () => ({ card, outputUnitsMax: Math.max(1, Number(receipt.inputs.outputUnitsMax)) }),
  });
}

/** What is left where an answer cannot be made again: a chat's count that its text cannot have, by its tokenizer or else by its bytes. */
function recount(
  sample: AnsweredRequest,
  receipt: InferenceReceipt,
  { reason, count }: { reason: string; count: ((text: string) => number) | undefined },
): ReplayVerdict {
  if (receipt.outputs.unit !== 'tokens' || !/^\/v1\/(chat|responses)/.test(sample.path)) return unproven(reason, receipt);
  try {
    const type = answerTypeOf(sample);
    const content = readAnswer('chat', type, signedBytes(type, sample.answer));
    const text = content.task === 'chat' ? content.text : '';
    const inflatedBy = inflationOf({ claimed: Number(receipt.outputs.units), text, count });
    return inflatedBy > 0 ? { ...refuted('inflated-count', receipt, false), inflatedBy } : unproven(reason, receipt);
  } catch {
    return unproven(reason, receipt); // what cannot be read is judged where the model is known
  }
}

/** What would have been answered here. Speech is packed as the caller asked for it, so that bytes can be compared. */
function ownContent(call: Call, result: EngineResult, receipt: InferenceReceipt): AnswerContent {
  if (result.task !== 'speech') return contentOf(result);
  const { body } = call.whole(result, { id: '', created: 0, model: receipt.subject.model });
  return { task: 'speech', audio: typeof body === 'string' ? Buffer.from(body) : body };
}

/** Whether the body alone says all that was asked. A form takes what it has not from the query, and its boundary from a header: neither is signed. */
function isSelfContained({ contentType }: AnsweredRequest): boolean {
  return /^application\/json/i.test(contentType);
}

/** Whether the same request has one answer: exact models always; others when they draw nothing, or from a seed. */
function isDetermined({ engine }: JudgedModel, { request }: Call): boolean {
  if (engine.card.determinism === 'exact' || request.task !== 'chat') return true;
  return request.sampling.seed !== undefined || request.sampling.temperature === 0;
}

function answerTypeOf({ answerType, answer, path }: AnsweredRequest): string {
  if (answerType !== undefined) return answerType;
  const start = answer.toString('latin1', 0, 8);
  if (/^(data: |: |event: )/.test(start)) return 'text/event-stream';
  return path === '/v1/audio/speech' ? 'audio/wav' : start.trimStart().startsWith('{') ? 'application/json' : 'text/plain';
}

function sha256(bytes: Uint8Array): Hex {
  return `0x${createHash('sha256').update(bytes).digest('hex')}`;
}

function unproven(reason: string, receipt?: InferenceReceipt): ReplayVerdict {
  return { outcome: 'unproven', evidence: 'reputation only', reason, receipt };
}

function refuted(reason: string, receipt: InferenceReceipt, isExact: boolean): ReplayVerdict {
  return { outcome: 'refuted', evidence: isExact ? 'replayed' : 'fingerprinted', reason, receipt };
}
