import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Address, type Hex, isAddressEqual, keccak256, toHex } from 'viem';
import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import { depositIntoChannel, finishChannelWithdrawal, readChannel, requestChannelWithdrawal } from './channels.ts';
import { type ChannelConfig, createVoucherCodec, type SignedVoucher, VOUCHER_AMOUNT_MAX, type VoucherCodec } from './voucher.ts';
import { openVoucherJournal, type VoucherJournal } from './voucher-journal.ts';
import {
  decodePaymentRequired,
  decodePaymentResult,
  encodePayment,
  PAYMENT_REQUIRED,
  PAYMENT_RESPONSE,
  PAYMENT_SIGNATURE,
  type PaidResource,
  type PaymentRequired,
  type PaymentTerms,
  type ShownState,
} from './x402-wire.ts';

/** How a payer works. Amounts in base units of the channel's token. */
export interface PayerOptions {
  client: ChainClient;
  /** Signs vouchers; the address that it holds is the payer. */
  signer: Signer;
  /** Deposits and withdraws; the same address. */
  sender: Sender;
  /** Holds the journal of what was signed. Locked while open. */
  folder: string;
  /** A channel is opened or topped up with so many times the price. Default 20, at most `depositMax` in a channel beyond what was spent. */
  depositRequests?: bigint;
  depositMax?: bigint;
  /** Receivers that want the payer to wait longer for its money are not paid, seconds. Default 7 days. */
  withdrawDelayMax?: number;
}

/** A channel as its payer knows it. */
export interface PayerChannel {
  key: Hex;
  config: ChannelConfig;
  /** What the receiver has charged, as far as we know. */
  charged: bigint;
  /** The most that was ever signed. */
  signed: bigint;
  /** Deposited and not given back. */
  balance: bigint;
  /** A payment that was signed and not answered: charged, for all we know. */
  pending: PendingPayment | undefined;
  /** Protocol time when the rest can be fetched, once that was asked for. */
  finalizeAfter: bigint | undefined;
}

/** A payment on its way. */
export interface PendingPayment {
  id: string;
  resource: string;
  amount: bigint;
  voucher: SignedVoucher;
}

/** What came of a payment. */
export type PaymentOutcome =
  | { kind: 'charged'; amount: bigint; chargedCumulative: bigint }
  /** Our account of the channel was wrong and is right now: ask for the payment again. `disputed`: charged more than we knew of. */
  | { kind: 'corrected'; disputed: bigint }
  | { kind: 'refused'; reason: string };

/** A signed payment for one request. While it is open, other payments of its channel wait. */
export interface Payment {
  channelId: Hex;
  id: string;
  amount: bigint;
  /** What its voucher promises in all: this payment and everything before it in the channel. */
  cumulative: bigint;
  /** Value of the request header PAYMENT-SIGNATURE. */
  header: string;
  /** Reads the answer's headers, and frees the channel. @throws payment-malformed */
  finish(answer: { status: number; header(name: string): string | null | undefined }): Promise<PaymentOutcome>;
  /** There was no answer: it counts as charged until the receiver says otherwise. Asking again with the same key sends the same voucher. */
  abandon(): void;
}

/** What is asked for. */
export interface PaymentRequest {
  /** The 402 answer, or its PAYMENT-REQUIRED header. */
  required: PaymentRequired | string;
  /** More than this is not paid for the request. */
  amountMax: bigint;
  /** Names the payment: the same key for the same resource is never charged twice. Drawn when absent. */
  idempotencyKey?: string;
  /** The most that may ever be signed in the channel that pays, whatever its receiver says of it. Asked before money is deposited. */
  cumulativeMax?: (channelId: Hex) => bigint;
}

/** Pays receivers by vouchers. */
export interface Payer {
  readonly address: Address;
  readonly codec: VoucherCodec;
  /**
   * Signs the payment that a 402 answer asks for; opens the channel or adds money when it must. Durable before it resolves.
   * @throws payment-terms-unknown, payment-too-expensive, channel-delay-too-long, channel-closing, deposit-limit-reached, no-funds
   */
  payment(request: PaymentRequest): Promise<Payment>;
  /** As payment, for a receiver whose 402 answer was seen before: no round trip for the price. @throws payment-terms-unknown, as payment */
  pay(request: { receiver: Address; amount: bigint; resource: PaidResource; token?: Address; idempotencyKey?: string }): Promise<Payment>;
  /** `fetch` that pays when asked to, and again when the receiver corrected our account: what it gives back meanwhile may do so a few times. */
  fetch(url: string, options: { amountMax: bigint; idempotencyKey?: string; init?: RequestInit; fetch?: typeof fetch }): Promise<Response>;
  channels(): PayerChannel[];
  /** Asks for the rest of a channel; no more payments from it. Resolves with when it can be fetched; `undefined` when nothing is left. */
  requestClose(channelId: Hex): Promise<{ finalizeAfter: bigint } | undefined>;
  /** Fetches the rest. @throws withdraw-delay-not-elapsed */
  finishClose(channelId: Hex): Promise<void>;
  close(): Promise<void>;
}

const DEPOSIT_REQUESTS = 20n;
const WITHDRAW_DELAY_MAX = 7 * 86_400;
const SALT = keccak256(toHex('millrace payment channel 0'));
/** Each attempt but the last was corrected: nothing was charged for it. */
const ATTEMPTS_MAX = 8;
/** The turn of all channels' deposits; no channel has this id. */
const DEPOSITS: Hex = '0x';

/**
 * Opens the paying side of channels. A channel's salt is fixed, so a payer that has lost its journal finds its channels and their money
 * again, and learns from the receiver, by its own signature, where it stood.
 * @throws folder-busy, voucher-journal-broken
 */
export async function createPayer(options: PayerOptions): Promise<Payer> {
  const { client, signer, folder } = options;
  const lock = lockFolder(folder);
  try {
    const purse = new Purse(options);
    purse.open(join(folder, `payer-${client.chainId}-${signer.address.toLowerCase()}.ndjson`));
    return {
      address: signer.address,
      codec: purse.codec,
      payment: (request) => purse.payment(request),
      pay: (request) => purse.pay(request),
      fetch: (url, how) => payingFetch(purse, url, how),
      channels: () => [...purse.channels.values()],
      requestClose: (channelId) => purse.requestClose(channelId),
      finishClose: (channelId) => purse.finishClose(channelId),
      async close() {
        await purse.close();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function payingFetch(purse: Purse, url: string, how: Parameters<Payer['fetch']>[1]): Promise<Response> {
  const send = how.fetch ?? fetch;
  const idempotencyKey = how.idempotencyKey ?? newPaymentId();
  let answer = await send(url, how.init);
  for (let attempt = 0; attempt < ATTEMPTS_MAX && answer.status === 402; attempt += 1) {
    const required = answer.headers.get(PAYMENT_REQUIRED);
    if (required === null) return answer;
    await answer.body?.cancel();
    const payment = await purse.payment({ required, amountMax: how.amountMax, idempotencyKey });
    try {
      const headers = new Headers(how.init?.headers);
      headers.set(PAYMENT_SIGNATURE, payment.header);
      answer = await send(url, { ...how.init, headers });
    } catch (error) {
      payment.abandon();
      throw error;
    }
    const { status, headers } = answer;
    const outcome = await payment.finish({ status, header: (name) => headers.get(name) });
    if (outcome.kind !== 'corrected') return answer;
  }
  return answer;
}

class Purse {
  readonly codec: VoucherCodec;
  readonly channels = new Map<Hex, PayerChannel>();
  readonly #options: PayerOptions;
  /** The last terms of each receiver and token. */
  readonly #terms = new Map<string, PaymentTerms>();
  readonly #turns = new Map<Hex, Promise<void>>();
  #journal: VoucherJournal | undefined;

  constructor(options: PayerOptions) {
    this.#options = options;
    this.codec = createVoucherCodec(options.client.chainId, options.client.address('channels'));
  }

  open(path: string): void {
    this.#journal = openVoucherJournal<PayerChannel>({
      path,
      apply: (channel) => this.channels.set(channel.key, channel),
      current: () => this.channels.values(),
    });
  }

  async close(): Promise<void> {
    await this.#journal?.close();
  }

  payment({ required, amountMax, idempotencyKey, cumulativeMax }: PaymentRequest): Promise<Payment> {
    const demand = typeof required === 'string' ? decodePaymentRequired(required) : required;
    const terms = this.#chooseTerms(demand);
    if (terms.amount > amountMax) {
      throw new MillraceError('payment-too-expensive', {
        actor: 'peer',
        message: `${demand.resource.url.slice(0, 200)} costs ${terms.amount}, you pay at most ${amountMax}`,
        values: { got: terms.amount, max: amountMax },
        hint: 'Choose another server, or allow more.',
      });
    }
    this.#terms.set(termsKey(terms.receiver, terms.token), terms);
    return this.#sign(terms, demand.resource, { idempotencyKey, cumulativeMax });
  }

  pay(request: Parameters<Payer['pay']>[0]): Promise<Payment> {
    const { receiver, amount, resource, token, idempotencyKey } = request;
    const known = [...this.#terms.values()].find(
      (terms) => isAddressEqual(terms.receiver, receiver) && (token === undefined || isAddressEqual(terms.token, token)),
    );
    if (known === undefined) throw termsUnknown(`No terms of ${receiver} are known`);
    return this.#sign({ ...known, amount, shown: undefined }, resource, { idempotencyKey });
  }

  async requestClose(channelId: Hex): Promise<{ finalizeAfter: bigint } | undefined> {
    const { client, sender } = this.#options;
    const channel = this.#channel(channelId);
    const asked = await requestChannelWithdrawal(client, { sender, config: channel.config, channelId });
    await this.#keep({ ...this.#channel(channelId), finalizeAfter: asked?.finalizeAfter });
    return asked;
  }

  async finishClose(channelId: Hex): Promise<void> {
    const { client, sender } = this.#options;
    await finishChannelWithdrawal({ sender, config: this.#channel(channelId).config });
    const { balance } = await readChannel(client, channelId);
    await this.#keep({ ...this.#channel(channelId), balance, finalizeAfter: undefined });
  }

  #chooseTerms(demand: PaymentRequired): PaymentTerms {
    const { client } = this.#options;
    const own = demand.terms.find(
      ({ chainId, contract }) => chainId === client.chainId && (contract === undefined || isAddressEqual(contract, this.codec.contract)),
    );
    if (own !== undefined) return own;
    throw termsUnknown(`${demand.resource.url.slice(0, 200)} takes no payments over channels of this network`);
  }

  /** One payment of a channel after the other: each voucher stands on the one before. */
  async #sign(
    terms: PaymentTerms,
    resource: PaidResource,
    { idempotencyKey, cumulativeMax }: Pick<PaymentRequest, 'idempotencyKey' | 'cumulativeMax'>,
  ): Promise<Payment> {
    const config = this.#configOf(terms);
    const channelId = this.codec.channelId(config);
    const release = await this.#takeTurn(channelId);
    try {
      let channel = this.channels.get(channelId) ?? (await this.#find(channelId, config));
      if (channel.finalizeAfter !== undefined) {
        throw new MillraceError('channel-closing', {
          actor: 'caller',
          message: `The channel ${channelId} is being closed`,
          values: { channelId, finalizeAfter: channel.finalizeAfter },
          hint: 'Fetch what is left of it first.',
        });
      }
      const { pending } = channel;
      const isRepeat =
        pending !== undefined && pending.id === idempotencyKey && pending.resource === resource.url && pending.amount === terms.amount;
      if (!isRepeat) {
        // What was not answered counts as charged; the receiver corrects us if it was not.
        if (pending !== undefined) channel = { ...channel, charged: pending.voucher.maxClaimableAmount };
        const max = channel.charged + terms.amount;
        if (max > VOUCHER_AMOUNT_MAX) throw termsUnknown(`The price ${terms.amount} is no price`);
        const signable = cumulativeMax?.(channelId);
        if (signable !== undefined && max > signable) throw beyondBound(max, signable);
        if (max > channel.balance) channel = await this.#topUp(channel, terms.amount);
        const voucher = await this.codec.sign(this.#options.signer, { channelId, maxClaimableAmount: max });
        const id = idempotencyKey ?? newPaymentId();
        if (max > channel.signed) channel = { ...channel, signed: max };
        channel = { ...channel, pending: { id, resource: resource.url, amount: terms.amount, voucher } };
        await this.#keep(channel);
      }
      return this.#toPayment(channel.pending as PendingPayment, { terms, resource, config, release });
    } catch (error) {
      release();
      throw error;
    }
  }

  #toPayment(
    pending: PendingPayment,
    context: { terms: PaymentTerms; resource: PaidResource; config: ChannelConfig; release: () => void },
  ): Payment {
    const { terms, resource, config, release } = context;
    const { channelId } = pending.voucher;
    return {
      channelId,
      id: pending.id,
      amount: pending.amount,
      cumulative: pending.voucher.maxClaimableAmount,
      header: encodePayment({ resource, terms, config, voucher: pending.voucher, paymentId: pending.id }),
      abandon: release,
      finish: async ({ status, header }) => {
        try {
          const result = header(PAYMENT_RESPONSE);
          if (result) return await this.#applyResult(channelId, pending, result);
          const demand = status === 402 ? header(PAYMENT_REQUIRED) : undefined;
          return demand ? await this.#applyDemand(channelId, pending, demand) : { kind: 'refused', reason: `status ${status}` };
        } finally {
          release();
        }
      },
    };
  }

  async #applyResult(channelId: Hex, pending: PendingPayment, header: string): Promise<PaymentOutcome> {
    const { success, error, chargedAmount, chargedCumulative } = decodePaymentResult(header);
    if (!success) return { kind: 'refused', reason: error ?? 'unknown' };
    const channel = this.#channel(channelId);
    // Whatever the receiver says, it holds no more than what was signed.
    const most = pending.voucher.maxClaimableAmount;
    let charged = chargedCumulative ?? channel.charged + chargedAmount;
    if (charged > most) charged = most;
    // Not worth a write of its own: the record of the payment counts as charged until then, and the next payment's record has this too.
    const settled = { ...channel, charged, pending: undefined };
    this.channels.set(channelId, settled);
    this.#journal?.note(settled);
    return { kind: 'charged', amount: chargedAmount, chargedCumulative: charged };
  }

  async #applyDemand(channelId: Hex, pending: PendingPayment, header: string): Promise<PaymentOutcome> {
    const demand = decodePaymentRequired(header);
    const shown = this.#chooseTerms(demand).shown;
    const channel = this.#channel(channelId);
    const base = pending.voucher.maxClaimableAmount - pending.amount;
    const charged = shown === undefined ? undefined : await this.#believe(channelId, channel, shown);
    if (charged === undefined || charged === base) {
      // Refused for another reason: nothing was charged for it.
      await this.#keep({ ...channel, charged: base, pending: undefined });
      return { kind: 'refused', reason: demand.error ?? 'unknown' };
    }
    const signed = shown?.signed !== undefined && shown.signed > channel.signed ? shown.signed : channel.signed;
    await this.#keep({ ...channel, charged, signed, pending: undefined });
    return { kind: 'corrected', disputed: charged > base ? charged - base : 0n };
  }

  /** What a receiver shows of a channel counts as far as our own signature, or the chain, bears it out. */
  async #believe(channelId: Hex, channel: PayerChannel, { charged, signed, signature }: ShownState): Promise<bigint | undefined> {
    const isOurs =
      signed !== undefined &&
      signature !== undefined &&
      charged <= signed &&
      this.codec.isSignedBy(channel.config.payerAuthorizer, { channelId, maxClaimableAmount: signed, signature });
    if (isOurs) return charged;
    const { totalClaimed } = await readChannel(this.#options.client, channelId);
    return charged === totalClaimed ? charged : undefined;
  }

  async #topUp(channel: PayerChannel, amount: bigint): Promise<PayerChannel> {
    const { client, sender, depositRequests = DEPOSIT_REQUESTS, depositMax = VOUCHER_AMOUNT_MAX } = this.#options;
    // Somebody else may have added money, and an earlier deposit may have been cut off after it was sent.
    let { balance } = await readChannel(client, channel.key);
    const needed = channel.charged + amount;
    if (balance < needed) {
      let wanted = channel.charged + depositMax;
      if (amount * depositRequests < depositMax) wanted = channel.charged + amount * depositRequests;
      if (wanted < needed) {
        throw new MillraceError('deposit-limit-reached', {
          actor: 'caller',
          message: `A payment of ${amount} needs more money in the channel than the limit of ${depositMax}`,
          values: { amount, depositMax },
        });
      }
      // A deposit uses up the allowance that it has asked for: two at once would take it from one another.
      const release = await this.#takeTurn(DEPOSITS);
      try {
        await depositIntoChannel(client, { sender, config: channel.config, amount: wanted - balance });
      } finally {
        release();
      }
      balance = wanted;
    }
    const topped = { ...channel, balance };
    await this.#keep(topped);
    return topped;
  }

  /** A channel that is new here: it may exist on chain, from before the journal was lost. */
  async #find(channelId: Hex, config: ChannelConfig): Promise<PayerChannel> {
    const { balance, totalClaimed, withdrawal } = await readChannel(this.#options.client, channelId);
    const finalizeAfter = withdrawal === undefined ? undefined : BigInt(withdrawal.initiatedAt + config.withdrawDelay);
    const channel = { key: channelId, config, charged: totalClaimed, signed: totalClaimed, balance, pending: undefined, finalizeAfter };
    await this.#keep(channel);
    return channel;
  }

  #configOf(terms: PaymentTerms): ChannelConfig {
    const { receiver, receiverAuthorizer, token, withdrawDelay } = terms;
    const max = this.#options.withdrawDelayMax ?? WITHDRAW_DELAY_MAX;
    if (withdrawDelay > max) {
      throw new MillraceError('channel-delay-too-long', {
        actor: 'peer',
        message: `${receiver} wants to keep unspent money for ${withdrawDelay} s, you allow ${max} s`,
        values: { got: withdrawDelay, max },
      });
    }
    const payer = this.#options.signer.address;
    return { payer, payerAuthorizer: payer, receiver, receiverAuthorizer, token, withdrawDelay, salt: SALT };
  }

  async #takeTurn(channelId: Hex): Promise<() => void> {
    const before = this.#turns.get(channelId) ?? Promise.resolve();
    let release: () => void = () => {};
    const turn = new Promise<void>((resolve) => {
      release = resolve;
    });
    const chained = before.then(() => turn);
    this.#turns.set(channelId, chained);
    void chained.then(() => {
      if (this.#turns.get(channelId) === chained) this.#turns.delete(channelId);
    });
    await before;
    return release;
  }

  async #keep(channel: PayerChannel): Promise<void> {
    this.channels.set(channel.key, channel);
    await this.#journal?.append(channel);
  }

  #channel(channelId: Hex): PayerChannel {
    const channel = this.channels.get(channelId);
    if (channel !== undefined) return channel;
    throw new MillraceError('unknown-channel', {
      actor: 'caller',
      message: `There is no payment channel ${channelId} of this payer`,
      values: { channelId },
    });
  }
}

function termsKey(receiver: Address, token: Address): string {
  return `${receiver}/${token}`.toLowerCase();
}

function beyondBound(got: bigint, max: bigint): MillraceError {
  return new MillraceError('payment-too-expensive', {
    actor: 'peer',
    message: `The receiver says that so much was charged that a voucher would be for ${got} in all, you sign at most ${max}`,
    values: { got, max },
  });
}

function newPaymentId(): string {
  return `pay_${randomBytes(16).toString('hex')}`;
}

function termsUnknown(message: string): MillraceError {
  return new MillraceError('payment-terms-unknown', {
    actor: 'peer',
    message,
    hint: 'Ask without payment first: the 402 answer says how to pay.',
  });
}
