import type { Address, Hex } from 'viem';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { PAYMENT_RESPONSE, PAYMENT_SIGNATURE, type PaymentOffer, type Receiver } from '../../token/index.ts';
import { lesser } from '../../units.ts';
import type { ServingAnswer } from './exchange.ts';
import { failureAnswer } from './failure.ts';
import { NO_BYTES } from './receipt.ts';
import { createTabs, type Tabs } from './tab.ts';

/** Header by which a request is paid from an open tab. */
export const TAB_HEADER = 'millrace-tab';

/** A request's payment: what it may cost is held until `settle`. */
export interface Sale {
  /** Undefined where nothing was paid. */
  payer: Address | undefined;
  channelId: Hex;
  /** The cumulative voucher behind it, 0 where nothing was paid. */
  voucher: bigint;
  /** The most that `settle` can take. */
  held: bigint;
  /** Headers for an answer that begins before the price is known. */
  headers: Record<string, string>;
  /** Takes the actual price, at most what is held, and gives headers for an answer that begins afterwards. Counts once. */
  settle(actual: bigint): Promise<Record<string, string>>;
}

/** Takes payments for requests: by one voucher each (x402), or from a tab. */
export interface Till {
  readonly receiver: Receiver | undefined;
  readonly token: Address | undefined;
  /** The sale, or the answer that says how to pay. @throws what is this side's fault */
  sell(
    headers: Readonly<Record<string, string | undefined>>,
    wanted: { amount: bigint; resource: string },
  ): Promise<{ sale: Sale } | { demand: ServingAnswer }>;
  /** Opens a tab with `amount`, or adds it to the one that the header names; or says how to pay for it. */
  openTab(headers: Readonly<Record<string, string | undefined>>, amount: bigint): Promise<ServingAnswer>;
  endTab(headers: Readonly<Record<string, string | undefined>>): Promise<ServingAnswer>;
  counts(): TillCounts;
  stop(): Promise<void>;
}

/** What a till has done since it was opened. */
export interface TillCounts {
  paidRequests: number;
  /** Base units. */
  earned: bigint;
  refusedPayments: number;
  openTabs: number;
}

/** Refusals that are this side's: they are no 402. */
const OWN_FAULTS: ReadonlySet<string> = new Set([
  'chain-unreachable',
  'voucher-journal-unwritable',
  'receiver-busy',
  'no-funds',
  'sender-closed',
]);
const SWEEP_MS = 5_000;
const FREE: Sale = { payer: undefined, channelId: NO_BYTES, voucher: 0n, held: 0n, headers: {}, settle: async () => ({}) };

/** A till; without a receiver nothing costs anything. */
export function createTill(options: { receiver?: Receiver; token?: Address; log: Logger }): Till {
  const { receiver, token, log } = options;
  const tabs = createTabs();
  const counts = { paidRequests: 0, earned: 0n, refusedPayments: 0 };
  const sweeper = setInterval(
    () => void tabs.sweep().catch((error: Error) => log.warn('tab-settle-failed', { reason: error.message })),
    SWEEP_MS,
  );
  sweeper.unref();
  const booked = (actual: bigint): void => {
    counts.paidRequests += 1;
    counts.earned += actual;
  };

  const accept = async (offer: PaymentOffer, header: string | undefined) => {
    const taker = receiver as Receiver;
    if (header === undefined) return { demand: demandAnswer(taker, offer, undefined) };
    try {
      return { credit: await taker.accept(header, offer) };
    } catch (error) {
      const { code, message } = toMillraceError(error);
      if (OWN_FAULTS.has(code)) throw error;
      counts.refusedPayments += 1;
      log.info('payment-refused', { code, reason: message });
      return { demand: demandAnswer(taker, offer, error) };
    }
  };

  return {
    receiver,
    token,
    async sell(headers, { amount, resource }) {
      if (receiver === undefined || amount === 0n) return { sale: FREE };
      const tabToken = headers[TAB_HEADER];
      if (tabToken !== undefined) return { sale: sellFromTab(tabs, tabToken, amount, booked) };
      const taken = await accept({ amount, resource: { url: resource }, token }, headers[PAYMENT_SIGNATURE.toLowerCase()]);
      if (taken.credit === undefined) return { demand: taken.demand };
      const { credit } = taken;
      const sale: Sale = {
        payer: credit.payer,
        channelId: credit.channelId,
        voucher: credit.chargedCumulative,
        held: credit.charged,
        headers: paymentHeaders(credit.header),
        async settle(actual) {
          const kept = lesser(actual, credit.charged);
          booked(kept);
          return paymentHeaders(await credit.settle(kept));
        },
      };
      return { sale };
    },
    async openTab(headers, amount) {
      if (receiver === undefined) return failureAnswer(nothingCosts());
      const resource = `/v1/inference/tabs?amount=${amount}`;
      const taken = await accept({ amount, resource: { url: resource }, token }, headers[PAYMENT_SIGNATURE.toLowerCase()]);
      if (taken.credit === undefined) return taken.demand;
      const tab = await tabs.open(taken.credit, headers[TAB_HEADER]);
      const body = JSON.stringify({ tab: tab.token, amount: amount.toString(), channelId: tab.channelId, voucher: tab.voucher.toString() });
      return { status: 201, headers: { 'content-type': 'application/json', ...paymentHeaders(taken.credit.header) }, body };
    },
    async endTab(headers) {
      await tabs.end(headers[TAB_HEADER] ?? '');
      return { status: 204, headers: {}, body: '' };
    },
    counts: () => ({ ...counts, openTabs: tabs.size }),
    async stop() {
      clearInterval(sweeper);
      await tabs.close();
    },
  };
}

function sellFromTab(tabs: Tabs, tabToken: string, amount: bigint, booked: (actual: bigint) => void): Sale {
  const tab = tabs.find(tabToken);
  const held = tab.hold(amount);
  return {
    payer: tab.payer,
    channelId: tab.channelId,
    voucher: tab.voucher,
    held: amount,
    headers: {},
    async settle(actual) {
      const kept = lesser(actual, amount);
      held.settle(kept);
      booked(kept);
      return {};
    },
  };
}

function paymentHeaders(result: string): Record<string, string> {
  return { [PAYMENT_RESPONSE]: result };
}

/** The 402 answer: x402's header for machines, an error of OpenAI's form with the price for people. */
function demandAnswer(receiver: Receiver, offer: PaymentOffer, refusal: unknown): ServingAnswer {
  const { headers } = receiver.demand(offer, refusal);
  const shown =
    refusal === undefined
      ? new MillraceError('payment-required', {
          actor: 'caller',
          message: `This costs at most ${offer.amount} base units; what is used is charged`,
          values: { amount: offer.amount, resource: offer.resource.url },
          hint: 'Pay by x402 v2, scheme batch-settlement: see the header PAYMENT-REQUIRED.',
        })
      : toMillraceError(refusal);
  return { ...failureAnswer(shown, headers), status: 402 };
}

function nothingCosts(): MillraceError {
  return new MillraceError('bad-request', {
    actor: 'caller',
    message: 'Nothing costs anything here: no tab is needed',
    values: { parameter: 'amount' },
  });
}
