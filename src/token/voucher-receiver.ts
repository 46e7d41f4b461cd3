import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Address, type Hex, isAddressEqual, zeroAddress } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import { type ChannelState, depositAuthorized, readChannel, readTokenDomain } from './channels.ts';
import { type TokenChoice, tokenAddress } from './contract-call.ts';
import { createVoucherCodec, type VoucherCodec } from './voucher.ts';
import { openVoucherStore, type PaymentStep, type ReceiverChannel, type VoucherStore } from './voucher-store.ts';
import {
  decodePayment,
  encodePaymentRequired,
  encodePaymentResult,
  PAYMENT_REQUIRED,
  type PaidResource,
  type PaymentMessage,
  type PaymentTerms,
} from './x402-wire.ts';

/** What is asked for one request. */
export interface PaymentOffer {
  /** Base units. */
  amount: bigint;
  resource: PaidResource;
  /** Default: the first of the receiver's tokens. */
  token?: Address;
}

/** A payment that was taken and is on the disk. */
export interface Credit {
  channelId: Hex;
  payer: Address;
  /** What this request was charged: 0 when it repeats one that was charged already. */
  charged: bigint;
  /** What the channel was charged in all. */
  chargedCumulative: bigint;
  /** The request repeats an earlier one: serve it again, free of charge. */
  isRepeat: boolean;
  /** Value of the header PAYMENT-RESPONSE. */
  header: string;
  /**
   * Gives back what was not delivered: of this request's charge only `delivered` (base units) stays. Call it once, when the request is over,
   * however it ended; only then is the charge claimed on chain. Gives the header PAYMENT-RESPONSE with what stayed, for answers whose
   * headers are sent after the work.
   */
  settle(delivered: bigint): Promise<string>;
}

/** The answer that demands payment: status 402. */
export interface PaymentDemand {
  status: 402;
  headers: Record<string, string>;
  body: { error: string; code?: string };
}

/** What a receiver takes. */
export interface ReceiverLimits {
  /** Channels that are remembered. Default 10,000. */
  channelsMax: number;
  /** Looks at the chain that unknown channels may cause at once. Default 8. */
  chainReadsMax: number;
  /** How often the same request is served again for one payment. Default 3. */
  repeatsMax: number;
  /** A deposit that the receiver sends for the payer is at least so many times the price. Default 10. */
  minDepositRequests: bigint;
}

/** Takes payments for one receiver. */
export interface Receiver {
  readonly receiver: Address;
  readonly receiverAuthorizer: Address;
  readonly codec: VoucherCodec;
  /** The answer to a request without payment, or with one that `accept` refused. */
  demand(offer: PaymentOffer, refusal?: unknown): PaymentDemand;
  /**
   * Takes the payment in a PAYMENT-SIGNATURE header for this offer. When it resolves, the voucher is on the disk: serve then.
   * @throws payment-malformed, payment-for-other-resource, channel-not-ours, channel-delay-too-short, payment-token-unknown,
   * voucher-signature-wrong, voucher-base-wrong, voucher-exceeds-balance, channel-closing, payment-repeated-too-often, receiver-busy,
   * deposit-refused, chain-unreachable, voucher-journal-unwritable
   */
  accept(header: string, offer: PaymentOffer): Promise<Credit>;
  /** Channels with what can be claimed now: charged, the request over, covered by the channel, and not claimed yet. */
  claimable(): ClaimableChannel[];
  /** Looks at the chain for a channel of ours, and believes it from then on. @throws chain-unreachable */
  refresh(channelId: Hex): Promise<ChannelState>;
  /** Notes what the chain has recorded as claimed. */
  noteClaimed(channelId: Hex, totalClaimed: bigint): Promise<void>;
  channels(): Iterable<ReceiverChannel>;
  close(): Promise<void>;
}

/** A channel and what of it can be claimed, in all. */
export interface ClaimableChannel {
  channel: ReceiverChannel;
  total: bigint;
}

/** How a receiver is opened. */
export interface ReceiverOptions {
  client: ChainClient;
  /** Who is paid. */
  receiver: Address;
  /** Whose key may claim and refund besides the receiver's; default: the receiver's own. */
  receiverAuthorizer?: Address;
  /** Holds the vouchers: what they are worth is lost with it. Locked while open. */
  folder: string;
  /** Default: the network's token and its stable token. */
  tokens?: readonly TokenChoice[];
  /** How often claims are made, seconds: channels whose payer could withdraw within three of these are refused. */
  claimIntervalSeconds: number;
  /** What the terms ask; default and least: three claim intervals, at least 900 s. */
  withdrawDelaySeconds?: number;
  /** Sends deposits that payers authorized (stock x402 clients); without it only funded channels can pay. */
  sender?: Sender;
  limits?: Partial<ReceiverLimits>;
}

const LIMITS: ReceiverLimits = { channelsMax: 10_000, chainReadsMax: 8, repeatsMax: 3, minDepositRequests: 10n };
const DELAY_MIN = 900;
const DELAY_MAX = 2_592_000;
const STEPS_KEPT = 8;
const TIMEOUT_SECONDS = 60;
/** A voucher above the known balance makes the receiver look again, but not more often than this. */
const REREAD_MS = 500;

/** x402's own words for our codes, which stock clients act upon. */
const X402_REASONS: Record<string, string> = {
  'voucher-base-wrong': 'invalid_batch_settlement_evm_cumulative_amount_mismatch',
  'voucher-signature-wrong': 'invalid_batch_settlement_evm_voucher_signature',
  'voucher-exceeds-balance': 'invalid_batch_settlement_evm_cumulative_exceeds_balance',
  'channel-not-ours': 'invalid_batch_settlement_evm_receiver_mismatch',
  'channel-delay-too-short': 'invalid_batch_settlement_evm_withdraw_delay_out_of_range',
  'payment-token-unknown': 'invalid_batch_settlement_evm_token_mismatch',
  'deposit-refused': 'invalid_batch_settlement_evm_deposit_simulation_failed',
  'receiver-busy': 'invalid_batch_settlement_evm_channel_busy',
  'payment-malformed': 'invalid_batch_settlement_evm_payload_type',
};

interface KnownState extends ChannelState {
  readAtMs: number;
}

/**
 * Opens the receiving side of payment channels.
 * @throws folder-busy, voucher-journal-broken, unknown-token, claim-interval-too-long, chain-unreachable
 */
export async function openReceiver(options: ReceiverOptions): Promise<Receiver> {
  const { client, receiver, folder } = options;
  const withdrawDelay = Math.max(options.withdrawDelaySeconds ?? 0, 3 * options.claimIntervalSeconds, DELAY_MIN);
  if (withdrawDelay > DELAY_MAX) throw intervalTooLong(options.claimIntervalSeconds);
  const tokens = (options.tokens ?? ['network', 'stable']).map((token) => tokenAddress(client, token));
  const domains = new Map<string, PaymentTerms['tokenDomain']>();
  for (const token of tokens) domains.set(token.toLowerCase(), await readTokenDomain(client, token));
  const lock = lockFolder(folder);
  let store: VoucherStore;
  try {
    store = openVoucherStore(join(folder, `vouchers-${client.chainId}-${client.address('channels').toLowerCase()}.ndjson`));
  } catch (error) {
    lock.release();
    throw error;
  }
  const taker = new VoucherTaker(options, { store, tokens, withdrawDelay, limits: { ...LIMITS, ...options.limits } });
  return {
    receiver,
    receiverAuthorizer: taker.authorizer,
    codec: taker.codec,
    demand(offer, refusal) {
      const { terms, error, code } = taker.demand(offer, domains, refusal);
      const header = encodePaymentRequired({ resource: offer.resource, error, terms: [terms] });
      return { status: 402, headers: { [PAYMENT_REQUIRED]: header, 'Cache-Control': 'private, no-store' }, body: { error, code } };
    },
    accept: (header, offer) => taker.accept(decodePayment(header), offer),
    claimable: () => taker.claimable(),
    refresh: (channelId) => taker.refresh(channelId),
    noteClaimed: (channelId, totalClaimed) => taker.noteClaimed(channelId, totalClaimed),
    channels: () => store.all(),
    async close() {
      await store.close();
      lock.release();
    },
  };
}

interface TakerParts {
  store: VoucherStore;
  tokens: readonly Address[];
  withdrawDelay: number;
  limits: ReceiverLimits;
}

class VoucherTaker {
  readonly codec: VoucherCodec;
  readonly authorizer: Address;
  readonly #options: ReceiverOptions;
  readonly #parts: TakerParts;
  /** What the chain had of a channel. */
  readonly #states = new Map<Hex, KnownState>();
  readonly #reading = new Map<Hex, Promise<KnownState>>();
  /** Charges whose requests are not over. */
  readonly #open = new Map<Hex, bigint>();
  readonly #depositing = new Set<Hex>();

  constructor(options: ReceiverOptions, parts: TakerParts) {
    this.#options = options;
    this.#parts = parts;
    this.authorizer = options.receiverAuthorizer ?? options.receiver;
    this.codec = createVoucherCodec(options.client.chainId, options.client.address('channels'));
  }

  demand(offer: PaymentOffer, domains: Map<string, PaymentTerms['tokenDomain']>, refusal: unknown) {
    const token = offer.token ?? (this.#parts.tokens[0] as Address);
    const failure = refusal === undefined ? undefined : toMillraceError(refusal);
    const shownId = failure?.code === 'voucher-base-wrong' ? (failure.values.channelId as Hex) : undefined;
    const channel = shownId === undefined ? undefined : this.#parts.store.get(shownId);
    const { signature, maxClaimableAmount: signed } = channel?.voucher ?? {};
    const terms: PaymentTerms = {
      chainId: this.#options.client.chainId,
      amount: offer.amount,
      token,
      receiver: this.#options.receiver,
      receiverAuthorizer: this.authorizer,
      withdrawDelay: this.#parts.withdrawDelay,
      maxTimeoutSeconds: TIMEOUT_SECONDS,
      contract: this.codec.contract,
      minDeposit: offer.amount * this.#parts.limits.minDepositRequests,
      tokenDomain: domains.get(token.toLowerCase()),
      shown:
        shownId === undefined
          ? undefined
          : { charged: channel?.charged ?? this.#states.get(shownId)?.totalClaimed ?? 0n, signed, signature },
    };
    const code = failure?.code;
    return { terms, code, error: failure === undefined ? 'payment required' : (X402_REASONS[failure.code] ?? failure.code) };
  }

  async accept(payment: PaymentMessage, offer: PaymentOffer): Promise<Credit> {
    const channelId = this.#checkTerms(payment, offer);
    const { voucher, config } = payment;
    if (!this.codec.isSignedBy(config.payerAuthorizer, voucher)) {
      throw refused('voucher-signature-wrong', `The voucher is not signed by ${config.payerAuthorizer}`, { channelId });
    }
    const resource = hashResource(offer);
    const repeated = this.#findRepeat(channelId, payment, offer.amount, resource);
    if (repeated !== undefined) return this.#repeat(channelId, repeated);
    const state = await this.#fundedState(channelId, payment, offer);
    // From here to the store nothing waits: two payments of one channel cannot both be taken on one base.
    const known = this.#parts.store.get(channelId);
    const again = this.#findRepeat(channelId, payment, offer.amount, resource);
    if (again !== undefined) return this.#repeat(channelId, again);
    const base = known?.charged ?? state.totalClaimed;
    const max = voucher.maxClaimableAmount;
    if (max !== base + offer.amount) throw baseWrong(channelId, max, base + offer.amount);
    if (max > state.balance) throw exceedsBalance(channelId, max, state.balance);
    if (known === undefined && this.#parts.store.size >= this.#parts.limits.channelsMax)
      throw busy('It remembers as many channels as it may');
    const step: PaymentStep = { id: payment.paymentId, max, amount: offer.amount, resource, repeats: 0 };
    const highest = known !== undefined && known.voucher.maxClaimableAmount >= max ? known.voucher : voucher;
    await this.#keep(
      channelId,
      {
        key: channelId,
        config,
        voucher: { channelId, maxClaimableAmount: highest.maxClaimableAmount, signature: highest.signature },
        charged: max,
        claimed: known?.claimed ?? state.totalClaimed,
        steps: [...(known?.steps ?? []), step].slice(-STEPS_KEPT),
        usedAt: Math.floor(Date.now() / 1000),
      },
      offer.amount,
    );
    return this.#credit(channelId, step, false);
  }

  claimable(): ClaimableChannel[] {
    return [...this.#parts.store.all()].flatMap((channel) => {
      const earned = channel.charged - (this.#open.get(channel.key) ?? 0n);
      const balance = this.#states.get(channel.key)?.balance;
      // Less than earned is there only when a withdrawal was faster than all claims.
      const total = balance !== undefined && balance < earned ? balance : earned;
      return total > channel.claimed ? [{ channel, total }] : [];
    });
  }

  async refresh(channelId: Hex): Promise<ChannelState> {
    const state = await readChannel(this.#options.client, channelId);
    this.#states.set(channelId, { ...state, readAtMs: performance.now() });
    await this.noteClaimed(channelId, state.totalClaimed);
    return state;
  }

  async noteClaimed(channelId: Hex, totalClaimed: bigint): Promise<void> {
    const channel = this.#parts.store.get(channelId);
    if (channel !== undefined && channel.claimed < totalClaimed) await this.#parts.store.put({ ...channel, claimed: totalClaimed });
  }

  /** All that can be said without a look at the chain. Gives the channel's id. */
  #checkTerms(payment: PaymentMessage, offer: PaymentOffer): Hex {
    const { config, voucher } = payment;
    const { receiver, client } = this.#options;
    if (payment.kind === 'refund') throw refused('channel-not-ours', 'Refunds are made by withdrawal only', {});
    const channelId = this.codec.channelId(config);
    const isOurs =
      payment.chainId === client.chainId &&
      channelId === voucher.channelId &&
      isAddressEqual(config.receiver, receiver) &&
      isAddressEqual(config.receiverAuthorizer, this.authorizer) &&
      !isAddressEqual(config.payerAuthorizer, zeroAddress);
    if (!isOurs) {
      throw refused('channel-not-ours', `The channel ${voucher.channelId} is not one that pays ${receiver} on chain ${client.chainId}`, {
        channelId: voucher.channelId,
        receiver: config.receiver,
      });
    }
    const token = offer.token ?? (this.#parts.tokens[0] as Address);
    if (!isAddressEqual(config.token, token) || !this.#parts.tokens.some((known) => isAddressEqual(known, token))) {
      throw refused('payment-token-unknown', `Got a channel in token ${config.token}, expected ${token}`, {
        got: config.token,
        expected: token,
      });
    }
    const least = 3 * this.#options.claimIntervalSeconds;
    if (config.withdrawDelay < Math.max(least, DELAY_MIN)) {
      throw refused('channel-delay-too-short', `The payer could withdraw after ${config.withdrawDelay} s, expected at least ${least} s`, {
        got: config.withdrawDelay,
        expected: least,
      });
    }
    if (payment.resourceUrl !== undefined && payment.resourceUrl !== offer.resource.url) {
      throw refused('payment-for-other-resource', `The payment is for ${payment.resourceUrl.slice(0, 200)}, not for what was asked`, {
        got: payment.resourceUrl.slice(0, 200),
        expected: offer.resource.url.slice(0, 200),
      });
    }
    return channelId;
  }

  /** The step that a payment repeats: its id was seen, or it is the voucher that we have, for the same resource and price. */
  #findRepeat(channelId: Hex, payment: PaymentMessage, amount: bigint, resource: Hex): PaymentStep | undefined {
    const steps = this.#parts.store.get(channelId)?.steps ?? [];
    const { paymentId, voucher } = payment;
    const named = paymentId === undefined ? undefined : steps.find((step) => step.id === paymentId);
    if (named !== undefined) {
      if (named.resource === resource && named.amount === amount) return named;
      throw refused('payment-for-other-resource', `The payment ${paymentId} was for another resource`, { paymentId });
    }
    const last = steps.at(-1);
    const isSame = last !== undefined && last.max === voucher.maxClaimableAmount && last.resource === resource && last.amount === amount;
    return isSame && last.id === paymentId ? last : undefined;
  }

  async #repeat(channelId: Hex, step: PaymentStep): Promise<Credit> {
    const channel = this.#parts.store.get(channelId) as ReceiverChannel;
    if (step.repeats >= this.#parts.limits.repeatsMax) {
      throw refused('payment-repeated-too-often', `The same request was served ${step.repeats + 1} times for one payment`, { channelId });
    }
    const steps = channel.steps.map((known) => (known === step ? { ...known, repeats: known.repeats + 1 } : known));
    await this.#keep(channelId, { ...channel, steps }, 0n);
    return this.#credit(channelId, step, true);
  }

  /** What the chain has of a channel, money that comes with the payment included. */
  async #fundedState(channelId: Hex, payment: PaymentMessage, offer: PaymentOffer): Promise<KnownState> {
    const max = payment.voucher.maxClaimableAmount;
    let state = this.#states.get(channelId);
    // A withdrawal takes three claim intervals at least: looking once in each is soon enough to see it begin.
    const isFresh = state !== undefined && performance.now() - state.readAtMs < this.#options.claimIntervalSeconds * 1000;
    if (state === undefined || !isFresh) state = await this.#read(channelId);
    if (payment.deposit !== undefined) state = await this.#takeDeposit(channelId, payment, offer, state);
    if (max > state.balance && performance.now() - state.readAtMs > REREAD_MS) state = await this.#read(channelId);
    if (state.withdrawal !== undefined) state = await this.#read(channelId);
    if (state.withdrawal !== undefined) {
      throw refused('channel-closing', `The payer of channel ${channelId} asked for its money back`, { channelId });
    }
    if (max > state.balance) throw exceedsBalance(channelId, max, state.balance);
    return state;
  }

  async #takeDeposit(channelId: Hex, payment: PaymentMessage, offer: PaymentOffer, state: KnownState): Promise<KnownState> {
    const { client, sender } = this.#options;
    const deposit = payment.deposit as NonNullable<PaymentMessage['deposit']>;
    const max = payment.voucher.maxClaimableAmount;
    const base = this.#parts.store.get(channelId)?.charged ?? state.totalClaimed;
    if (max !== base + offer.amount) throw baseWrong(channelId, max, base + offer.amount);
    if (max > state.balance + deposit.amount) throw exceedsBalance(channelId, max, state.balance + deposit.amount);
    const least = offer.amount * this.#parts.limits.minDepositRequests;
    if (sender === undefined || deposit.amount < least) {
      throw refused('deposit-refused', sender === undefined ? 'No deposits are sent here' : `A deposit is at least ${least}`, {
        got: deposit.amount,
        expected: least,
      });
    }
    if (this.#depositing.has(channelId) || this.#depositing.size >= this.#parts.limits.chainReadsMax)
      throw busy('It is sending other deposits');
    this.#depositing.add(channelId);
    try {
      await depositAuthorized({
        client,
        sender,
        config: payment.config,
        deposit,
        key: `deposit:${channelId}:${deposit.salt.toString(16)}`,
      });
    } catch (error) {
      const { code, message } = toMillraceError(error);
      if (code === 'chain-unreachable' || code === 'no-funds' || code === 'sender-closed') throw error;
      throw refused('deposit-refused', `The deposit was refused by the chain: ${message}`, { channelId, reason: code });
    } finally {
      this.#depositing.delete(channelId);
    }
    return this.#read(channelId);
  }

  #read(channelId: Hex): Promise<KnownState> {
    const reading = this.#reading.get(channelId);
    if (reading !== undefined) return reading;
    if (this.#reading.size >= this.#parts.limits.chainReadsMax) throw busy('It is looking at other channels');
    const read = readChannel(this.#options.client, channelId)
      .then((state) => {
        const known = { ...state, readAtMs: performance.now() };
        // Only funded channels are remembered: others cost nothing to invent.
        if (state.balance > 0n) this.#states.set(channelId, known);
        return known;
      })
      .finally(() => this.#reading.delete(channelId));
    this.#reading.set(channelId, read);
    return read;
  }

  async #keep(channelId: Hex, channel: ReceiverChannel, opened: bigint): Promise<void> {
    this.#open.set(channelId, (this.#open.get(channelId) ?? 0n) + opened);
    await this.#parts.store.put(channel);
  }

  #credit(channelId: Hex, step: PaymentStep, isRepeat: boolean): Credit {
    const charged = isRepeat ? 0n : step.amount;
    const { config, charged: chargedCumulative } = this.#parts.store.get(channelId) as ReceiverChannel;
    const { chainId } = this.codec;
    let isOver = false;
    const headerOf = (kept: bigint, total: bigint) =>
      encodePaymentResult({ chainId, payer: config.payer, channelId, charged: kept, chargedCumulative: total });
    const header = headerOf(charged, chargedCumulative);
    return {
      channelId,
      payer: config.payer,
      charged,
      chargedCumulative,
      isRepeat,
      header,
      settle: async (delivered) => {
        if (isOver) return header;
        isOver = true;
        const open = (this.#open.get(channelId) ?? 0n) - charged;
        if (open > 0n) this.#open.set(channelId, open);
        else this.#open.delete(channelId);
        const back = delivered >= charged ? 0n : charged - (delivered < 0n ? 0n : delivered);
        const channel = this.#parts.store.get(channelId) as ReceiverChannel;
        if (back === 0n) return header;
        // What was given back may be charged again: the step is no longer one that a repetition finds.
        const steps = channel.steps.filter(({ max, id }) => max !== step.max || id !== step.id);
        const kept = channel.charged - back;
        await this.#parts.store.put({ ...channel, charged: kept, steps });
        return headerOf(charged - back, kept);
      },
    };
  }
}

function hashResource({ resource }: PaymentOffer): Hex {
  return `0x${createHash('sha256').update(resource.url).digest('hex')}`;
}

function refused(code: string, message: string, values: MillraceError['values']): MillraceError {
  return new MillraceError(code, { actor: 'peer', message, values });
}

function baseWrong(channelId: Hex, got: bigint, expected: bigint): MillraceError {
  return refused('voucher-base-wrong', `Got a voucher for ${got} in all, expected ${expected}`, { channelId, got, expected });
}

function exceedsBalance(channelId: Hex, got: bigint, balance: bigint): MillraceError {
  return refused('voucher-exceeds-balance', `Got a voucher for ${got}, the channel holds ${balance}`, { channelId, got, balance });
}

function busy(reason: string): MillraceError {
  return new MillraceError('receiver-busy', {
    actor: 'peer',
    message: `The receiver takes no such payment now: ${reason}`,
    hint: 'Try again in a moment.',
  });
}

function intervalTooLong(claimIntervalSeconds: number): MillraceError {
  return new MillraceError('claim-interval-too-long', {
    actor: 'caller',
    message: `With claims every ${claimIntervalSeconds} s no channel could be taken: payers may withdraw after 30 days at the latest`,
    values: { got: claimIntervalSeconds, max: DELAY_MAX / 3 },
  });
}
