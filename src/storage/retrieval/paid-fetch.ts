import { randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import { systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { PAYMENT_REQUIRED, PAYMENT_SIGNATURE, type Payer, type Payment, type PaymentOutcome } from '../../token/index.ts';
import type { ContentSource } from '../content/block-fetcher.ts';
import { priceOfBytes } from './announcement.ts';
import { CONTINUE_FROM } from './paywall.ts';

type SourceFetch = NonNullable<ContentSource['fetch']>;

/** What was agreed with a seller before the first byte, and what this buyer may spend. */
export interface PaidTerms {
  /** Who is paid by the seller's signed quote; a 402 answer that names another receiver is refused. */
  holder: Hex;
  pricePerGib: bigint;
  chunkBytes: bigint;
  budget: Budget;
}

/** Money that several sellers draw on, base units. */
export interface Budget {
  left: bigint;
}

/** What a seller did with the money; base units. */
export interface PaidRecord {
  paid: bigint;
  paidBytes: number;
  /** Charged, or signed and in the seller's hand, without the bytes. Never more than the price of one chunk. */
  lost: bigint;
  /** Payments that the seller would not take. */
  refusals: number;
}

/** A `fetch` that pays, and what it paid. */
export interface PaidFetch {
  fetch: SourceFetch;
  record(): PaidRecord;
}

/** A header by which our fetcher says how many bytes it expects, so that no round trip is needed for the price. Never sent. */
export const EXPECTED_BYTES = 'millrace-expected-bytes';

const CORRECTIONS_MAX = 2;
/** How often the answer to one payment is asked for: the same voucher again costs nothing. */
const TRIES_MAX = 2;
const IDLE_MS = 10_000;
const BUSY_TRIES_MAX = 6;
const BUSY_MS = 50;
/** A receiver of ours looks again at a channel's money after half a second. */
const DEPOSIT_SEEN_MS = 600;

/**
 * A `fetch` for one seller that pays what is asked, within its signed quote and the budget. One request at a time, and never a second
 * unanswered payment: a seller that takes money and sends nothing has at most the price of one chunk, and is asked for nothing else.
 */
export function createPaidFetch(options: { payer: Payer; fetch: SourceFetch; terms: PaidTerms }): PaidFetch {
  const { payer, terms } = options;
  const record: PaidRecord = { paid: 0n, paidBytes: 0, lost: 0n, refusals: 0 };
  let lane: Promise<void> = Promise.resolve();
  let isKnown = false;

  /** A payment for a resource, on the disk before it is sent. Its amount is within quote and budget. */
  const payFor = async (url: string, key: string, expectedBytes: number | undefined, required: string | undefined): Promise<Payment> => {
    const most = priceOfBytes(terms.pricePerGib, terms.chunkBytes);
    let amountMax = expectedBytes === undefined ? most : priceOfBytes(terms.pricePerGib, BigInt(expectedBytes));
    if (terms.budget.left <= 0n) throw overBudget(amountMax, terms.budget.left);
    if (required !== undefined && terms.budget.left < amountMax) amountMax = terms.budget.left;
    const { pathname, search } = new URL(url);
    const payment =
      required === undefined
        ? await payer.pay({ receiver: terms.holder, amount: amountMax, resource: { url: `${pathname}${search}` }, idempotencyKey: key })
        : await payer.payment({ required, amountMax, idempotencyKey: key });
    const receiver = payer.channels().find(({ key: id }) => id === payment.channelId)?.config.receiver;
    if (receiver?.toLowerCase() !== terms.holder.toLowerCase()) {
      payment.abandon(); // signed, never sent
      throw otherReceiver(url, receiver, terms.holder);
    }
    isKnown = true;
    return payment;
  };

  /** Asks until there is an answer: first without payment where the price is not known, again where accounts differed. */
  const exchange = async (url: string, init: Parameters<SourceFetch>[1], key: string): Promise<Exchange> => {
    const { [EXPECTED_BYTES]: expected, ...headers } = init.headers;
    const expectedBytes = expected === undefined ? undefined : Number(expected);
    const price = expectedBytes === undefined ? 0n : priceOfBytes(terms.pricePerGib, BigInt(expectedBytes));
    let isAhead = isKnown && price > 0n && price <= terms.budget.left;
    let required: string | undefined;
    for (let corrections = 0; ; ) {
      if (required === undefined && !isAhead) {
        const response = await options.fetch(url, { ...init, headers });
        required = await demandOf(response);
        if (required === undefined) return { response, paying: undefined };
      }
      const payment = await payFor(url, key, expectedBytes, required);
      const paying = { payment, before: payer.channels().find((channel) => channel.key === payment.channelId)?.charged ?? 0n };
      let response: Response;
      try {
        response = await options.fetch(url, { ...init, headers: { ...headers, [PAYMENT_SIGNATURE.toLowerCase()]: payment.header } });
        required = await demandOf(response);
      } catch (error) {
        payment.abandon();
        throw new Unanswered(payment.amount, error);
      }
      if (response.ok) return { response, paying };
      if (required === undefined) {
        payment.abandon();
        await response.body?.cancel();
        throw new Unanswered(payment.amount, badStatus(url, response.status), response.status === 503 || response.status === 429);
      }
      const outcome = await finish(payment, response);
      if (outcome.kind === 'corrected') lose(outcome.disputed);
      const isPriceUnknown = isAhead && outcome.kind === 'refused';
      isAhead = false;
      if (outcome.kind === 'refused' && outcome.reason.endsWith('cumulative_exceeds_balance') && corrections < CORRECTIONS_MAX) {
        await systemClock.sleep(DEPOSIT_SEEN_MS, init.signal); // money that was just added: it does not look at the chain all the time
      } else if (isPriceUnknown)
        continue; // what it asks is in this answer
      else if (outcome.kind === 'refused') corrections = CORRECTIONS_MAX;
      corrections += 1;
      if (corrections > CORRECTIONS_MAX) {
        record.refusals += 1;
        throw refused(url, outcome.kind === 'refused' ? outcome.reason : 'accounts differ');
      }
    }
  };

  const lose = (amount: bigint): void => {
    record.lost += amount;
    terms.budget.left -= amount;
  };

  /** The answer to one payment; asked for again, with the same voucher, when it is cut, and continued where it was. */
  const buy = async (url: string, init: Parameters<SourceFetch>[1], free: () => void): Promise<Response> => {
    const key = `r_${randomBytes(12).toString('hex')}`;
    const tries: Tries = { made: 0, unanswered: undefined };
    const ask = async (taken: number): Promise<Exchange> => {
      const continued = taken === 0 ? init : { ...init, headers: { ...init.headers, [CONTINUE_FROM]: String(taken) } };
      for (;;) {
        tries.made += 1;
        try {
          return await exchange(url, continued, key);
        } catch (error) {
          await mayRetry(url, init.signal, tries, error);
        }
      }
    };
    const first = await ask(0);
    if (first.paying === undefined) {
      free();
      return first.response;
    }
    let { response, paying } = first as PaidExchange;
    let reader = readerOf(response, 0, Number(terms.chunkBytes));
    const again = async (error: unknown): Promise<void> => {
      paying.payment.abandon();
      await mayRetry(url, init.signal, tries, new Unanswered(paying.payment.amount, error));
      const next = await ask(reader.taken());
      if (next.paying === undefined) throw unaccounted(url);
      ({ response, paying } = next as PaidExchange);
      reader = readerOf(response, reader.taken(), Number(terms.chunkBytes));
    };
    /** The next bytes; undefined when all have come and are accounted for. */
    const next = async (): Promise<Uint8Array | undefined> => {
      for (;;) {
        try {
          const bytes = await reader.next();
          if (bytes !== undefined) return bytes;
        } catch (error) {
          await again(error);
          continue;
        }
        const outcome = await finish(paying.payment, response);
        if (outcome.kind === 'charged') settle(url, outcome.chargedCumulative - paying.before, reader.taken());
        else await mayRetry(url, init.signal, { ...tries, made: TRIES_MAX }, new Unanswered(paying.payment.amount, unaccounted(url)));
        return undefined;
      }
    };
    const stream = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const bytes = await next().catch((error) => {
            free();
            throw error;
          });
          if (bytes !== undefined) return controller.enqueue(bytes);
          free();
          controller.close();
        },
        cancel() {
          // Whoever reads has seen enough: what came is not what was paid for, or is not wanted any more.
          reader.cancel();
          paying.payment.abandon();
          lose(paying.payment.amount);
          free();
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(stream, { status: response.status, headers: response.headers });
  };

  /** Returns when the same voucher may be sent again, else counts the money as lost. @throws what ended it */
  const mayRetry = async (url: string, signal: AbortSignal, tries: Tries, error: unknown): Promise<void> => {
    if (error instanceof Unanswered) tries.unanswered = error;
    const { unanswered } = tries;
    if (unanswered === undefined) throw error;
    if (!signal.aborted && tries.made < (unanswered.isBusy ? BUSY_TRIES_MAX : TRIES_MAX)) {
      if (unanswered.isBusy) await systemClock.sleep(BUSY_MS * 2 ** tries.made, signal).catch(() => {});
      return;
    }
    lose(unanswered.amount);
    throw notDelivered(url, unanswered);
  };

  const settle = (url: string, charged: bigint, bytes: number): void => {
    const worth = priceOfBytes(terms.pricePerGib, BigInt(bytes));
    record.paid += charged;
    record.paidBytes += bytes;
    terms.budget.left -= charged;
    if (charged <= worth) return;
    record.lost += charged - worth;
    throw overcharged(url, charged, worth);
  };

  return {
    record: () => ({ ...record }),
    async fetch(url, init) {
      const before = lane;
      let free = (): void => {};
      lane = new Promise((resolve) => {
        free = resolve;
      });
      await before;
      try {
        init.signal.throwIfAborted();
        if (record.lost > 0n) throw dropped(url, record.lost);
        return await buy(url, init, free);
      } catch (error) {
        free();
        throw error;
      }
    },
  };
}

interface Exchange {
  response: Response;
  /** The payment that the answer is for, and what its channel was charged before. */
  paying: { payment: Payment; before: bigint } | undefined;
}

type PaidExchange = Exchange & { paying: NonNullable<Exchange['paying']> };

interface Tries {
  made: number;
  unanswered: Unanswered | undefined;
}

function finish(payment: Payment, { status, headers }: Response): Promise<PaymentOutcome> {
  return payment.finish({ status, header: (name) => headers.get(name) });
}

/** Reads a body on from what was taken of an earlier one: of bounded size in all, and none of its parts may be long in coming. */
function readerOf(response: Response, takenBefore: number, bytesMax: number) {
  const reader = (response.body as ReadableStream<Uint8Array> | null)?.getReader();
  let position = response.headers.get(CONTINUE_FROM) === String(takenBefore) ? takenBefore : 0;
  let taken = takenBefore;
  const cancel = (): void => void reader?.cancel().catch(() => {});
  return {
    taken: () => taken,
    cancel,
    /** The next bytes that were not taken; undefined at the end. */
    async next(): Promise<Uint8Array | undefined> {
      for (;;) {
        let isLate = false;
        const timer = setTimeout(() => {
          isLate = true;
          cancel();
        }, IDLE_MS);
        const { done, value } = (await reader?.read().finally(() => clearTimeout(timer))) ?? { done: true, value: undefined };
        if (isLate) throw new DOMException(`Nothing came for ${IDLE_MS} ms`, 'TimeoutError');
        if (done && position < taken) throw new RangeError(`Got ${position} bytes, ${taken} before`);
        if (done) return undefined;
        position += value.length;
        if (position > bytesMax) throw new RangeError(`More than ${bytesMax} bytes`);
        if (position <= taken) continue;
        const fresh = value.subarray(Math.max(0, value.length - (position - taken)));
        taken = position;
        return fresh;
      }
    },
  };
}

/** A payment was sent, and its bytes did not come. */
class Unanswered {
  readonly amount: bigint;
  readonly cause: unknown;
  /** It said that it cannot now; it may have the same voucher again in a moment. */
  readonly isBusy: boolean;

  constructor(amount: bigint, cause: unknown, isBusy = false) {
    this.amount = amount;
    this.cause = cause;
    this.isBusy = isBusy;
  }
}

async function demandOf(response: Response): Promise<string | undefined> {
  if (response.status !== 402) return undefined;
  const header = response.headers.get(PAYMENT_REQUIRED);
  await response.body?.cancel();
  if (header === null) throw refused(response.url, 'a 402 answer without PAYMENT-REQUIRED');
  return header;
}

function otherReceiver(url: string, got: Hex | undefined, expected: Hex): MillraceError {
  return new MillraceError('payment-refused', {
    actor: 'peer',
    message: `${new URL(url).origin} wants ${got} to be paid, its quote is signed by ${expected}`,
    values: { url: new URL(url).origin, got, expected },
  });
}

function overBudget(amount: bigint, left: bigint): MillraceError {
  return new MillraceError('price-over-budget', {
    actor: 'caller',
    message: `The next part costs up to ${amount} base units, ${left} are left of the budget`,
    values: { amount, left },
    hint: 'Raise --max-price; what has come is kept.',
  });
}

function notDelivered(url: string, { amount, cause }: Unanswered): MillraceError {
  return new MillraceError('paid-not-delivered', {
    actor: 'peer',
    message: `${new URL(url).origin} was paid ${amount} base units and did not send the bytes: ${toMillraceError(cause).message}`,
    values: { url: new URL(url).origin, amount },
    hint: 'It is not asked again; the loss is at most the price of one chunk.',
    cause,
  });
}

function dropped(url: string, lost: bigint): MillraceError {
  return new MillraceError('paid-not-delivered', {
    actor: 'peer',
    message: `${new URL(url).origin} owes bytes for ${lost} base units`,
    values: { url: new URL(url).origin, lost },
  });
}

function refused(url: string, reason: string): MillraceError {
  return new MillraceError('payment-refused', {
    actor: 'peer',
    message: `${new URL(url).origin} does not take this payment: ${reason}`,
    values: { url: new URL(url).origin, reason },
  });
}

function badStatus(url: string, status: number): MillraceError {
  return new MillraceError('source-failed', {
    actor: 'peer',
    message: `${new URL(url).origin} took a payment and answered ${status}`,
    values: { url: new URL(url).origin, status },
  });
}

function unaccounted(url: string): MillraceError {
  return new MillraceError('payment-unaccounted', {
    actor: 'peer',
    message: `${new URL(url).origin} answered without saying what it charged`,
    values: { url: new URL(url).origin },
  });
}

function overcharged(url: string, got: bigint, expected: bigint): MillraceError {
  return new MillraceError('overcharged', {
    actor: 'peer',
    message: `${new URL(url).origin} charged ${got} base units for bytes worth ${expected}`,
    values: { url: new URL(url).origin, got, expected },
  });
}
