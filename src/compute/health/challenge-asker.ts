import type { Hex } from 'viem';
import type { Clock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { checkLeaves, drawLeaves, type OpenedLeaf } from './challenge-check.ts';
import type { ChallengeProgress } from './challenge-engine.ts';
import { type ChallengeTime, deviceSeed } from './challenge-time.ts';
import { planOf, shareBps, unitCount } from './challenge-work.ts';
import type { HealthRule, Occupant } from './health-view.ts';
import { askPartner, callPartner, type PartnerCaller, type PartnerNode } from './partner-calls.ts';
import { isReceipt } from './receipt.ts';

/** Who is asked about which challenge, and since when its time is counted, on the asker's monotonic clock. */
export interface ChallengeAsk {
  node: PartnerNode;
  device: Occupant;
  challenge: ChallengeTime;
  startMs: number;
}

/** What an asker stands on. */
export interface ChallengeAskerOptions extends PartnerCaller {
  operatorId: bigint;
  rule: HealthRule;
  clock: Clock;
  signal: AbortSignal;
}

/** What an opening tells. */
export interface ChallengeVerdict {
  verdict: 'wrong' | 'passed';
  /** The share of what was declared that was done in time, of 10,000. */
  doneBps: number;
  receipt: Hex;
  signatures: readonly [request: string, answer: string];
}

const ASK_AGAIN_MS = 100;
/** Time for an opening, which counts in nothing. */
export const OPENING_TIMEOUT_MS = 15_000;
const LINE_BYTES_MAX = 256;
const STREAM_BYTES_MAX = 1 << 16;
const REFUSAL_BYTES_MAX = 1 << 16;

/**
 * Has a partner's node tell what it commits to as it comes on, and gives the last commitment that was here in time; undefined where there was none.
 * Asks again until the deadline: a node that has not yet seen the block which this one has refuses at first.
 */
export async function watchCommitments(options: ChallengeAskerOptions, ask: ChallengeAsk): Promise<ChallengeProgress | undefined> {
  const { rule, clock, signal } = options;
  const leftMs = () => ask.startMs + rule.deadlineMs - clock.nowMs();
  let last: ChallengeProgress | undefined;
  while (leftMs() > 0) {
    const inTime = AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(leftMs()))]);
    try {
      for await (const progress of readCommitments(options, ask, inTime)) {
        if (leftMs() >= 0 && progress.done > (last?.done ?? 0)) last = progress;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (last === undefined && leftMs() <= 0) throw error;
    }
    if (last !== undefined) return last;
    await clock.sleep(ASK_AGAIN_MS, inTime).catch(() => {});
  }
  return last;
}

/** Draws leaves of what was committed to and checks them. @throws the errors of askPartner, no-challenge-receipt */
export async function checkCommitment(
  options: ChallengeAskerOptions,
  { node, device, challenge }: ChallengeAsk,
  progress: ChallengeProgress,
): Promise<ChallengeVerdict> {
  const { rule, signal, operatorId, client } = options;
  const { hour, slot, seed } = challenge;
  const task = { seed: deviceSeed(seed, device.deviceId), plan: planOf(rule, device) };
  const leaves = drawLeaves(task, progress);
  // What the node signs is bound to this request, and so to the commitment that it named before.
  const root = Buffer.from(progress.root).toString('base64');
  const body = { hour, slot, seat: device.seat, done: progress.done, root, leaves };
  const asked = { path: '/opening', body, timeoutMs: OPENING_TIMEOUT_MS, signal };
  const { value, requestSignature, answerSignature } = await askPartner(options, node, asked);
  const receipt = String(value.receipt) as Hex;
  if (!isReceipt(client, { hour, seat: device.seat, askerId: operatorId }, { nodeKey: node.nodeKey, receipt })) throw receiptMissing(node);
  const isRight = checkLeaves(task, progress, leaves, readLeaves(value.leaves));
  return {
    verdict: isRight ? 'passed' : 'wrong',
    doneBps: isRight ? shareBps(rule, device, progress.done) : 0,
    receipt,
    signatures: [requestSignature, answerSignature],
  };
}

async function* readCommitments(
  options: ChallengeAskerOptions,
  { node, device, challenge }: ChallengeAsk,
  signal: AbortSignal,
): AsyncGenerator<ChallengeProgress> {
  const { hour, slot } = challenge;
  const { deadlineMs } = options.rule;
  const body = JSON.stringify({ hour, slot, seat: device.seat });
  const { response } = await callPartner(options, node, { path: '/challenge', body, timeoutMs: deadlineMs, signal });
  if (!response.ok) {
    const text = (await readAtMost(response.body, REFUSAL_BYTES_MAX)).toString('utf8');
    throw new MillraceError('partner-refused', {
      actor: 'peer',
      message: `The node of operator ${node.operatorId} refused its challenge: ${response.status} ${text.slice(0, 200)}`,
      values: { operatorId: node.operatorId, status: response.status },
    });
  }
  const total = unitCount(planOf(options.rule, device));
  let [rest, size] = ['', 0];
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    const lines = (rest + Buffer.from(chunk).toString('latin1')).split('\n');
    rest = lines.pop() as string;
    if (size > STREAM_BYTES_MAX || rest.length > LINE_BYTES_MAX) return;
    for (const line of lines) {
      const progress = parseProgress(line, total);
      if (progress === undefined) return;
      yield progress;
    }
  }
}

function parseProgress(line: string, total: number): ChallengeProgress | undefined {
  try {
    const { done, root } = JSON.parse(line) as { done?: unknown; root?: unknown };
    const bytes = Buffer.from(String(root), 'base64');
    if (Number.isSafeInteger(done) && (done as number) >= 1 && (done as number) <= total && bytes.length === 32) {
      return { done: done as number, root: bytes };
    }
  } catch {}
  return undefined;
}

/** The leaves of an answer; what cannot be read is left out, and so missing. */
function readLeaves(value: unknown): OpenedLeaf[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((each: Record<string, unknown> | null) => {
    const { place, leaf, words, proof, unitRoot, unitProof } = each ?? {};
    if (typeof place !== 'number' || typeof leaf !== 'number' || typeof words !== 'string') return [];
    if (!isProof(proof) || !isProof(unitProof)) return [];
    const bytes = Buffer.from(words, 'base64');
    if (bytes.length % 4 !== 0) return [];
    const read = Uint32Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readUInt32LE(4 * at));
    return [{ place, leaf, words: read, proof: proof.map(hashOf), unitRoot: hashOf(unitRoot), unitProof: unitProof.map(hashOf) }];
  });
}

function isProof(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length <= 64;
}

function hashOf(value: unknown): Uint8Array {
  return Buffer.from(String(value), 'base64');
}

function receiptMissing({ operatorId }: PartnerNode): MillraceError {
  return new MillraceError('no-challenge-receipt', {
    actor: 'peer',
    message: `The node of operator ${operatorId} gave no receipt for its challenge`,
    values: { operatorId },
  });
}
