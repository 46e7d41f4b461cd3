import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type Credit, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, type PaymentOffer, type Receiver } from '../../token/index.ts';
import { BLOCK_BYTES_MAX } from '../content/block.ts';
import { problemResponse } from '../pieces/problem.ts';
import { priceOfBytes } from './announcement.ts';

/** Bytes that one payment buys at most, unless a seller says otherwise: a leaf of a file that this network made. */
export const CHUNK_BYTES = 1 << 20;

/** What a paid gateway has done since it started. */
export interface PaywallCounts {
  paidRequests: number;
  paidBytes: number;
  /** Bytes that were paid for and not taken, and so not charged. */
  creditedBytes: number;
  /** Base units. */
  earned: bigint;
  refusedPayments: number;
}

/** A gateway behind payment, and its counts. */
export interface Paywall {
  fetch(request: Request): Promise<Response>;
  counts(): PaywallCounts;
}

const SLICE_BYTES = 256 << 10;
/** Paid answers after which a channel may again have one cut answer free. */
const PAID_PER_CUT = 16;
const CHANNELS_MAX = 10_000;
const ANSWERS_MAX = 64;
const STATUS_OF_CODE: Record<string, number> = { 'answer-too-big': 413, 'gateway-busy': 503, 'receiver-busy': 503 };
/** Refusals of a payment that a payer can mend: the answer is another 402. All others are this side's. */
const OWN_FAULTS: ReadonlySet<string> = new Set([
  'chain-unreachable',
  'voucher-journal-unwritable',
  'receiver-busy',
  'no-funds',
  'sender-closed',
]);

/**
 * Puts a trustless gateway behind HTTP 402 (x402 v2, `batch-settlement`). One payment is for one answer of at most `chunkBytes`, so
 * neither side can lose more than that: nothing is sent before the voucher that covers it is on the disk, and what the other side
 * does not take is not charged. The price is that of the bytes of the answer. Greater answers are refused with a hint.
 */
export function createPaywall(options: {
  gateway: (request: Request) => Promise<Response>;
  receiver: Receiver;
  /** Base units for 2^30 bytes. */
  pricePerGib: bigint;
  chunkBytes?: number;
  log: Logger;
}): Paywall {
  const { gateway, receiver, pricePerGib, log } = options;
  const chunkBytes = Math.min(options.chunkBytes ?? CHUNK_BYTES, BLOCK_BYTES_MAX);
  const counts: PaywallCounts = { paidRequests: 0, paidBytes: 0, creditedBytes: 0, earned: 0n, refusedPayments: 0 };
  const cuts = createCutAllowance();
  let answers = 0;

  const sell = async (request: Request): Promise<Response> => {
    const response = await gateway(request);
    if (response.body === null || (response.status !== 200 && response.status !== 206)) return response;
    const body = await readUpTo(response.body, chunkBytes);
    const offer: PaymentOffer = { amount: priceOfBytes(pricePerGib, BigInt(body.length)), resource: { url: resourceOf(request) } };
    const headers = new Headers(response.headers);
    headers.set('content-length', String(body.length));
    if (offer.amount === 0n) return new Response(body as Uint8Array<ArrayBuffer>, { status: response.status, headers });
    const header = request.headers.get(PAYMENT_SIGNATURE);
    if (header === null) return demand(receiver, offer, undefined);
    let credit: Credit;
    try {
      credit = await receiver.accept(header, offer);
    } catch (error) {
      const { code, message } = toMillraceError(error);
      if (OWN_FAULTS.has(code)) throw error;
      counts.refusedPayments += 1;
      log.info('payment-refused', { code, reason: message });
      return demand(receiver, offer, error);
    }
    headers.set(PAYMENT_RESPONSE, credit.header);
    headers.set('access-control-expose-headers', PAYMENT_RESPONSE);
    headers.set('cache-control', 'private, no-store'); // bytes are public, the receipt is not
    return new Response(metered({ body, credit, pricePerGib, counts, cuts, log }), { status: response.status, headers });
  };

  return {
    counts: () => ({ ...counts }),
    async fetch(request) {
      if (request.method !== 'GET') return gateway(request);
      try {
        if (answers >= ANSWERS_MAX) throw busy(answers);
        answers += 1;
        return await sell(request).finally(() => {
          answers -= 1;
        });
      } catch (error) {
        const answer = problemResponse(error);
        return new Response(answer.body, { status: STATUS_OF_CODE[toMillraceError(error).code] ?? answer.status, headers: answer.headers });
      }
    },
  };
}

/** What a payment is for: a path with its parameters and range. By which name the host was asked is no part of it. */
function resourceOf(request: Request): string {
  const { pathname, search } = new URL(request.url);
  const range = request.headers.get('range');
  return `${pathname}${search}${range === null ? '' : `#${range}`}`.slice(0, 4096);
}

/** The 402 answer: x402's header for machines, problem+json with the code of the refusal for people. */
function demand(receiver: Receiver, offer: PaymentOffer, refusal: unknown): Response {
  const { headers } = receiver.demand(offer, refusal);
  const shown =
    refusal === undefined
      ? new MillraceError('payment-required', {
          actor: 'caller',
          message: `This costs ${offer.amount} base units; bytes that do not arrive are not charged`,
          values: { amount: offer.amount, resource: offer.resource.url },
          hint: 'Pay by x402 v2, scheme batch-settlement: see the header PAYMENT-REQUIRED.',
        })
      : toMillraceError(refusal);
  const answer = problemResponse(shown);
  const all = new Headers({ ...headers, 'content-type': 'application/problem+json', 'access-control-expose-headers': 'PAYMENT-REQUIRED' });
  return new Response(answer.body, { status: 402, headers: all });
}

async function readUpTo(body: ReadableStream<Uint8Array>, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > bytesMax) throw tooBig(bytesMax); // leaving the loop cancels the stream
    chunks.push(chunk);
  }
  return chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks, size);
}

/** The body, a slice at a time as the other side takes it; the rest is given back when the other side goes away. */
function metered(answer: {
  body: Uint8Array;
  credit: Credit;
  pricePerGib: bigint;
  counts: PaywallCounts;
  cuts: CutAllowance;
  log: Logger;
}): ReadableStream<Uint8Array> {
  const { body, credit, pricePerGib, counts, cuts, log } = answer;
  let sent = 0;
  const settle = async (): Promise<void> => {
    // Part of a block is of no use to an honest buyer: it pays for none of it, as long as that does not become a habit.
    const isFree = sent < body.length && cuts.take(credit.channelId);
    const price = isFree ? 0n : priceOfBytes(pricePerGib, BigInt(sent));
    if (sent === body.length) cuts.paid(credit.channelId);
    const kept = lesser(price, credit.charged);
    counts.paidRequests += 1;
    counts.paidBytes += isFree ? 0 : sent;
    counts.creditedBytes += isFree ? body.length : body.length - sent;
    counts.earned += kept;
    await credit.settle(kept);
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const slice = body.subarray(sent, sent + SLICE_BYTES);
        sent += slice.length;
        if (sent === body.length) await settle();
        controller.enqueue(slice);
        if (sent === body.length) controller.close();
      },
      async cancel() {
        if (sent === body.length) return;
        log.info('paid-answer-cut', { sent, bytes: body.length, channelId: credit.channelId });
        await settle();
      },
    },
    { highWaterMark: 0 },
  );
}

/** Which channels may have a cut answer free: one at first, and one more after every 16 that they paid in full. */
interface CutAllowance {
  take(channelId: string): boolean;
  paid(channelId: string): void;
}

function createCutAllowance(): CutAllowance {
  /** Paid answers that are still due; a channel that is not here has its allowance. */
  const due = new Map<string, number>();
  return {
    take(channelId) {
      if (due.has(channelId) || due.size >= CHANNELS_MAX) return false;
      due.set(channelId, PAID_PER_CUT);
      return true;
    },
    paid(channelId) {
      const left = due.get(channelId);
      if (left === undefined) return;
      if (left > 1) due.set(channelId, left - 1);
      else due.delete(channelId);
    },
  };
}

function lesser(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

function tooBig(limit: number): MillraceError {
  return new MillraceError('answer-too-big', {
    actor: 'caller',
    message: `The answer is longer than ${limit} bytes, the most that one payment buys here`,
    values: { limit },
    hint: 'Ask by parts: single blocks with format=raw, or entity-bytes; /piece takes ranges.',
  });
}

function busy(limit: number): MillraceError {
  return new MillraceError('gateway-busy', {
    actor: 'peer',
    message: `${limit} answers are being made already`,
    values: { limit },
    hint: 'Try again in a moment, or at another holder.',
  });
}
