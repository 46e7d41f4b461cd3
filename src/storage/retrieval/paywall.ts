import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type Credit, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, type PaymentOffer, type Receiver } from '../../token/index.ts';
import { lesser } from '../../units.ts';
import { BLOCK_BYTES_MAX } from '../content/block.ts';
import { problemResponse } from '../pieces/problem.ts';
import { ANNOUNCEMENT_LIMITS, priceOfBytes } from './announcement.ts';

/**
 * Bytes that one payment buys at most, unless a seller says otherwise: a CAR of eight leaves of a file that this network made, with the
 * node above them: as much as is asked for at once where nothing is paid.
 */
export const CHUNK_BYTES: number = (8 << 20) + (64 << 10);
/**
 * A header by which a buyer says how much of this answer it has from an earlier one that was cut. A seller that goes on there says so by
 * the same header. It is no part of what is paid for, and changes no price.
 */
export const CONTINUE_FROM = 'millrace-continue-from';

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
 * does not take is not charged. The price is that of the bytes of the answer, known from its `content-length` before they are read.
 * Greater answers are refused with a hint.
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
  const chunkBytes = Math.min(options.chunkBytes ?? CHUNK_BYTES, Number(ANNOUNCEMENT_LIMITS.chunkBytes));
  const counts: PaywallCounts = { paidRequests: 0, paidBytes: 0, creditedBytes: 0, earned: 0n, refusedPayments: 0 };
  const cuts = createCutAllowance();
  let answers = 0;

  /** The credit for a payment, or the answer that says why there is none. */
  const charge = async (request: Request, offer: PaymentOffer): Promise<Credit | Response> => {
    const header = request.headers.get(PAYMENT_SIGNATURE);
    if (header === null) return demand(receiver, offer, undefined);
    try {
      return await receiver.accept(header, offer);
    } catch (error) {
      const { code, message } = toMillraceError(error);
      if (OWN_FAULTS.has(code)) throw error;
      counts.refusedPayments += 1;
      log.info('payment-refused', { code, reason: message });
      return demand(receiver, offer, error);
    }
  };

  const sell = async (request: Request): Promise<Response> => {
    const response = await gateway(request);
    if (response.body === null || (response.status !== 200 && response.status !== 206)) return response;
    const { body, length } = await measured(response, chunkBytes);
    const offer: PaymentOffer = { amount: priceOfBytes(pricePerGib, BigInt(length)), resource: { url: resourceOf(request) } };
    const headers = new Headers(response.headers);
    headers.set('content-length', String(length));
    if (offer.amount === 0n) return new Response(body, { status: response.status, headers });
    const credit = await charge(request, offer).catch(async (error) => {
      await body.cancel();
      throw error;
    });
    if (credit instanceof Response) {
      await body.cancel();
      return credit;
    }
    headers.set(PAYMENT_RESPONSE, credit.header);
    headers.set('access-control-expose-headers', PAYMENT_RESPONSE);
    headers.set('cache-control', 'private, no-store'); // bytes are public, the receipt is not
    const from = continuedFrom(request, length);
    if (from > 0) {
      headers.set(CONTINUE_FROM, String(from));
      headers.set('content-length', String(length - from));
    }
    return new Response(metered({ body, length, from, credit, pricePerGib, counts, cuts, log }), { status: response.status, headers });
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

/** Where a buyer that has part of an answer wants to go on; 0 for the beginning. */
function continuedFrom(request: Request, length: number): number {
  const asked = request.headers.get(CONTINUE_FROM) ?? '';
  const from = /^[0-9]{1,9}$/.test(asked) ? Number(asked) : 0;
  return from < length ? from : 0;
}

/** A body and its length, which the gateway told; what it did not measure is read, up to the greatest block. @throws answer-too-big */
async function measured({ headers, body }: Response, bytesMax: number): Promise<{ body: ReadableStream<Uint8Array>; length: number }> {
  const stream = body as ReadableStream<Uint8Array>;
  const told = headers.get('content-length');
  if (told !== null) {
    const length = Number(told);
    if (length <= bytesMax) return { body: stream, length };
    await stream.cancel();
    throw tooBig(bytesMax);
  }
  const chunks = await readUpTo(stream, Math.min(bytesMax, BLOCK_BYTES_MAX));
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  return { body: source, length: chunks.reduce((sum, { length }) => sum + length, 0) };
}

async function readUpTo(body: ReadableStream<Uint8Array>, bytesMax: number): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > bytesMax) throw tooBig(bytesMax); // leaving the loop cancels the stream
    chunks.push(chunk);
  }
  return chunks;
}

/** An answer that was paid for. */
interface PaidAnswer {
  body: ReadableStream<Uint8Array>;
  length: number;
  /** The other side has what precedes. */
  from: number;
  credit: Credit;
  pricePerGib: bigint;
  counts: PaywallCounts;
  cuts: CutAllowance;
  log: Logger;
}

/** The body, a slice at a time as the other side takes it; the rest is given back when either side cannot go on. */
function metered(answer: PaidAnswer): ReadableStream<Uint8Array> {
  const { length, from, credit, log } = answer;
  const source = answer.body.getReader();
  let held: Uint8Array = new Uint8Array();
  let read = 0;
  let sent = from;
  const nextSlice = async (): Promise<Uint8Array> => {
    while (held.length === 0) {
      const { done, value } = await source.read();
      if (done || read + value.length > length) throw brokenAnswer(read, length);
      held = value.subarray(Math.max(0, Math.min(value.length, from - read)));
      read += value.length;
    }
    const slice = held.subarray(0, SLICE_BYTES);
    held = held.subarray(slice.length);
    return slice;
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const slice = await nextSlice().catch(async (error) => {
          log.warn('paid-answer-failed', { sent, bytes: length, channelId: credit.channelId, reason: toMillraceError(error).message });
          await source.cancel().catch(() => {});
          await settle(answer, sent);
          throw error;
        });
        sent += slice.length;
        if (sent === length) await settle(answer, sent);
        controller.enqueue(slice);
        if (sent === length) controller.close();
      },
      async cancel() {
        if (sent === length) return;
        log.info('paid-answer-cut', { sent, bytes: length, channelId: credit.channelId });
        await source.cancel().catch(() => {});
        await settle(answer, sent);
      },
    },
    { highWaterMark: 0 },
  );
}

/** Books what came of an answer, of which the other side has the first `sent` bytes. */
async function settle({ length, credit, pricePerGib, counts, cuts }: PaidAnswer, sent: number): Promise<void> {
  // Part of a block is of no use to an honest buyer: it pays for none of it, as long as that does not become a habit.
  const isFree = sent < length && cuts.take(credit.channelId);
  const price = isFree ? 0n : priceOfBytes(pricePerGib, BigInt(sent));
  if (sent === length) cuts.paid(credit.channelId);
  const kept = lesser(price, credit.charged);
  counts.paidRequests += 1;
  counts.paidBytes += isFree ? 0 : sent;
  counts.creditedBytes += isFree ? length : length - sent;
  counts.earned += kept;
  await credit.settle(kept);
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

function tooBig(limit: number): MillraceError {
  return new MillraceError('answer-too-big', {
    actor: 'caller',
    message: `The answer is longer than ${limit} bytes, the most that one payment buys here`,
    values: { limit },
    hint: 'Ask by parts: single blocks with format=raw, or entity-bytes; /piece takes ranges.',
  });
}

function brokenAnswer(read: number, length: number): MillraceError {
  return new MillraceError('answer-broken', {
    actor: 'host',
    message: `An answer of ${length} bytes broke off, or went on, at byte ${read}`,
    values: { read, length },
    hint: 'What was not sent is not charged. Ask again, or another holder.',
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
