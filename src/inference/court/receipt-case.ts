import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { evidencePlaceText } from '../../governance/index.ts';
import { approveMeter, depositToRails, eventArgs, meterAllowance, railsBalance } from '../../token/index.ts';
import type { AnsweredRequest } from '../judging/replay.ts';
import { readShown, SHOWN_LIMITS, writeShown } from '../judging/shown-requests.ts';
import { createInferenceReceipts } from '../serving/receipt.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';

/** Where an operator's node shows the documents of the cases that it opened. */
export const CASES_PATH = '/v1/inference/cases/';
/** The largest document of a case: one request with its answer as base64, and what stands around them. */
export const CASE_BYTES_MAX = 2 * SHOWN_LIMITS.requestBytes;

/** A case before the jury. */
export interface ReceiptCase {
  disputeId: bigint;
  receiptId: Hex;
}

/** A document with all that a juror needs to run an answered request again: the request, the answer, the receipt that covers both. */
export function caseDocument({ path, query, contentType, requestBody, answer, receipt }: AnsweredRequest): Buffer {
  return writeShown({ path, paid: 1, requests: [{ query: query ?? '', contentType, requestBody, answer, receipt }] });
}

/** Reads such a document of a stranger; undefined where it holds no request. @throws bad-request */
export function readCaseDocument(bytes: Uint8Array): AnsweredRequest | undefined {
  const { path, requests } = readShown(Buffer.from(bytes));
  const [sample] = requests;
  return sample === undefined ? undefined : { ...sample, path };
}

/**
 * Brings a miner's receipt before the jury: the document of the case is put where the node of `operatorId` shows it (`caseOf`), the bond goes to
 * Rails, the jury is paid. Whoever loses the case loses the bond to the miner: only for what a replay has refuted.
 * @throws key-not-bound, already-punished, nothing-locked, too-few-jurors, no-funds, erc20-insufficient-balance
 */
export async function openReceiptCase(
  client: ChainClient,
  options: { sender: Sender; operatorId: bigint; folder: string; sample: AnsweredRequest },
): Promise<ReceiptCase> {
  const { sender, operatorId, folder, sample } = options;
  const { receipt, signature } = createInferenceReceipts(inferenceReceiptDomain(client)).fromJson(
    Buffer.from(sample.receipt, 'base64url').toString('utf8'),
  );
  const { receiptId } = receipt.inputs;
  const document = caseDocument(sample);
  const sha256 = createHash('sha256').update(document).digest('hex');
  writeFileDurably(pathOf(folder, receiptId), document);
  const { caseBond } = await client.read('receiptCourt', 'config');
  const held = await railsBalance(client, { token: 'network', account: sender.address });
  if (held < caseBond) await depositToRails(client, { sender, token: 'network', amount: caseBond - held });
  const allowed = await meterAllowance(client, { payer: sender.address, meter: 'receiptCourt', token: 'network' });
  if (allowed < caseBond) await approveMeter(client, { sender, meter: 'receiptCourt', token: 'network', allowance: caseBond });
  const value = await client.read('jury', 'arbitrationCost', ['0x']);
  const evidence = evidencePlaceText({ operatorId, path: `${CASES_PATH}${receiptId}`, sha256 });
  const sent = await sender.send({
    contract: 'receiptCourt',
    functionName: 'challenge',
    args: [receipt, signature, evidence],
    value,
    key: `receipt-case/${receipt.subject.operatorId}/${receiptId}`,
  });
  return { disputeId: eventArgs(sent, 'receiptCourt', 'Challenged').disputeId, receiptId };
}

/** Answers a request for the document of a case that this node opened; undefined where the path is another. */
export function caseAnswer(folder: string, request: Request): Response | undefined {
  const { pathname } = new URL(request.url);
  if (!pathname.startsWith(CASES_PATH)) return undefined;
  const receiptId = pathname.slice(CASES_PATH.length);
  const path = /^0x[0-9a-f]{64}$/.test(receiptId) ? pathOf(folder, receiptId as Hex) : '';
  if (request.method !== 'GET' || path === '' || !existsSync(path)) return new Response(null, { status: 404 });
  return new Response(new Uint8Array(readFileSync(path)), { headers: { 'content-type': 'application/json' } });
}

function pathOf(folder: string, receiptId: Hex): string {
  return join(folder, `${receiptId}.json`);
}
