import type { Hex } from 'viem';
import type { ChainClient, ReceiptCodec } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import { type DisputeEvidence, type Judge, type JuryDispute, openEvidence } from '../../governance/index.ts';
import { type Logger, silentLogger } from '../../log.ts';
import { type AnsweredRequest, type JudgedModel, type ReplayVerdict, receiptOfSample, replayRequest } from '../judging/replay.ts';
import { createInferenceReceipts, type InferenceReceipt } from '../serving/receipt.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { CASE_BYTES_MAX, readCaseDocument } from './receipt-case.ts';

/** What a juror judges receipts with. */
export interface ReceiptJudgeOptions {
  client: ChainClient;
  /** Own models, to run requests again with. */
  modelOf: (root: Hex) => JudgedModel | undefined;
  log?: Logger;
}

/** Rulings of `ReceiptCourt`. */
const [REFUSED, GUILTY, NOT_GUILTY] = [0n, 1n, 2n];
/** Of all pieces, those that are opened: the first of each side. */
const PIECES_MAX = 12;
/** Before the last part of the time to commit, evidence that cannot be had is waited for. */
const LAST_PART = 4n;
/** What another juror may know better, or this one in a moment: no ground for a vote. */
const OWN_SHORTCOMINGS = /^(no-such-model-here|not-run: )/;

/**
 * Judges cases of the receipt court: takes the request, the answer and the receipt from the evidence, sees that the accused miner signed just that,
 * and runs the request again. Refuted: guilty. Confirmed: not guilty. What a re-run cannot tell (no leave to repeat, an answer that was broken off,
 * a model that is not comparable): refused, and nobody loses. Evidence that nobody can have by the end speaks against who brought the case.
 */
export function receiptJudge(options: ReceiptJudgeOptions): Judge {
  const { client, log = silentLogger } = options;
  const codec = createInferenceReceipts(inferenceReceiptDomain(client));
  return {
    arbitrable: client.address('receiptCourt'),
    async judge(dispute, evidence, signal) {
      const sample = await sampleOf(options, { dispute, evidence, codec, signal });
      if (sample === undefined) {
        const left = dispute.commitUntil - (await client.now());
        const { commitSeconds } = await client.read('jury', 'config');
        return left > BigInt(commitSeconds) / LAST_PART ? undefined : NOT_GUILTY;
      }
      const verdict = await replayRequest(sample, { codec, modelOf: options.modelOf, signal });
      log.info('receipt-judged', { disputeId: dispute.disputeId, outcome: verdict.outcome, reason: verdict.reason });
      return rulingOf(verdict);
    },
  };
}

function rulingOf({ outcome, reason }: ReplayVerdict): bigint | undefined {
  if (outcome === 'refuted') return GUILTY;
  if (outcome === 'confirmed') return NOT_GUILTY;
  return OWN_SHORTCOMINGS.test(reason) ? undefined : REFUSED;
}

/** The first document of the evidence that holds the very receipt of the case, signed by a key that convicts the accused. */
async function sampleOf(
  { client, log = silentLogger }: ReceiptJudgeOptions,
  of: { dispute: JuryDispute; evidence: DisputeEvidence; codec: ReceiptCodec<InferenceReceipt>; signal: AbortSignal },
): Promise<AnsweredRequest | undefined> {
  const { dispute, evidence, codec, signal } = of;
  const { operatorId, receiptId } = await client.read('receiptCourt', 'caseOf', [dispute.disputeId]);
  for (const { text } of evidence.pieces.slice(0, PIECES_MAX)) {
    try {
      const bytes = await openEvidence(client, text, { bytesMax: CASE_BYTES_MAX, signal });
      const sample = bytes === undefined ? undefined : readCaseDocument(bytes);
      const receipt = sample === undefined ? 'no-request' : receiptOfSample(sample, codec);
      if (typeof receipt === 'string' || receipt.inputs.receiptId !== receiptId || receipt.subject.operatorId !== operatorId) continue;
      // Anybody can sign a receipt in an operator's name; only its bound keys speak for it.
      if (await client.read('receiptCourt', 'isAnswerable', [operatorId, receipt.subject.miner])) return sample;
    } catch (error) {
      log.info('evidence-not-read', { disputeId: dispute.disputeId, reason: toMillraceError(error).message.slice(0, 200) });
    }
  }
  return undefined;
}
