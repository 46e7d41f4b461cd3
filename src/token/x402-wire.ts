import { type Address, getAddress, type Hex, isAddress } from 'viem';
import { MillraceError } from '../errors.ts';
import { type ChannelConfig, type SignedVoucher, VOUCHER_AMOUNT_MAX } from './voucher.ts';

/** The scheme of x402 v2 that is spoken here. */
export const X402_SCHEME = 'batch-settlement';
/** Header of a 402 answer: what must be paid. */
export const PAYMENT_REQUIRED = 'PAYMENT-REQUIRED';
/** Header of a request: the payment. */
export const PAYMENT_SIGNATURE = 'PAYMENT-SIGNATURE';
/** Header of the answer to a paid request: what was charged. */
export const PAYMENT_RESPONSE = 'PAYMENT-RESPONSE';
/** x402 extension by which a client names a payment, so that a repetition is not charged again. */
const PAYMENT_IDENTIFIER = 'payment-identifier';

/** What is paid for. */
export interface PaidResource {
  url: string;
  description?: string;
  mimeType?: string;
}

/** One way to pay: who gets how much (base units) of what, over which kind of channel. */
export interface PaymentTerms {
  chainId: number;
  amount: bigint;
  token: Address;
  receiver: Address;
  receiverAuthorizer: Address;
  withdrawDelay: number;
  maxTimeoutSeconds: number;
  /** The channels contract, where the receiver names it (stock servers do not). */
  contract: Address | undefined;
  /** A first deposit below this is not taken by the receiver's facilitator. */
  minDeposit: bigint;
  /** The token's EIP-712 name and version, for deposits by authorization. */
  tokenDomain: { name: string; version: string } | undefined;
  /** What the receiver has of the channel, in the answer to a payment that did not fit. */
  shown: ShownState | undefined;
}

/** A receiver's own account of a channel, with the payer's signature as evidence. */
export interface ShownState {
  charged: bigint;
  signed: bigint | undefined;
  signature: Hex | undefined;
}

/** The answer to an unpaid request, decoded. */
export interface PaymentRequired {
  resource: PaidResource;
  /** The x402 reason, when a payment was refused. */
  error: string | undefined;
  terms: PaymentTerms[];
}

/** A payment as it came with a request. */
export interface PaymentMessage {
  kind: 'voucher' | 'deposit' | 'refund';
  chainId: number;
  config: ChannelConfig;
  voucher: SignedVoucher;
  /** What the payer says it pays for. */
  resourceUrl: string | undefined;
  paymentId: string | undefined;
  /** An ERC-3009 authorization of a deposit. */
  deposit: { amount: bigint; validAfter: bigint; validBefore: bigint; salt: bigint; signature: Hex } | undefined;
  /** How much of the rest is asked back; all of it when absent. */
  refundAmount: bigint | undefined;
}

/** The answer to a paid request, decoded. */
export interface PaymentResult {
  success: boolean;
  error: string | undefined;
  chargedAmount: bigint;
  chargedCumulative: bigint | undefined;
}

const HEADER_LENGTH_MAX = 16_384;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const AMOUNT = /^(0|[1-9][0-9]{0,38})$/;
const TIMESTAMP = /^(0|[1-9][0-9]{0,77})$/;
const IDENTIFIER = /^[A-Za-z0-9_-]{8,128}$/;

/** A header that demands payment. */
export function encodePaymentRequired(required: PaymentRequired): string {
  return encode({
    x402Version: 2,
    ...(required.error === undefined ? {} : { error: required.error }),
    resource: required.resource,
    accepts: required.terms.map((terms) => encodeTerms(terms)),
  });
}

/** What a header demands, as far as it is of our scheme. @throws payment-malformed */
export function decodePaymentRequired(header: string): PaymentRequired {
  const object = decode(header);
  const resource = record(object.resource, 'resource');
  const accepts = Array.isArray(object.accepts) ? object.accepts.slice(0, 32) : [];
  return {
    resource: { url: string(resource.url, 'resource.url', 8192) },
    error: typeof object.error === 'string' ? object.error.slice(0, 200) : undefined,
    terms: accepts.map((entry) => record(entry, 'accepts')).flatMap((entry) => (entry.scheme === X402_SCHEME ? [decodeTerms(entry)] : [])),
  };
}

function encodeTerms(terms: PaymentTerms): Record<string, unknown> {
  const { shown, tokenDomain } = terms;
  return {
    scheme: X402_SCHEME,
    network: `eip155:${terms.chainId}`,
    amount: terms.amount.toString(),
    asset: terms.token,
    payTo: terms.receiver,
    maxTimeoutSeconds: terms.maxTimeoutSeconds,
    extra: {
      receiverAuthorizer: terms.receiverAuthorizer,
      withdrawDelay: terms.withdrawDelay,
      ...tokenDomain,
      assetTransferMethod: 'eip3009',
      minDeposit: terms.minDeposit.toString(),
      ...(terms.contract === undefined ? {} : { contract: terms.contract }),
      ...(shown === undefined
        ? {}
        : {
            channelState: { chargedCumulativeAmount: shown.charged.toString() },
            voucherState: { signedMaxClaimable: shown.signed?.toString(), signature: shown.signature },
          }),
    },
  };
}

function decodeTerms(entry: Record<string, unknown>): PaymentTerms {
  const extra = record(entry.extra ?? {}, 'extra');
  const channelState = record(extra.channelState ?? {}, 'channelState');
  const voucherState = record(extra.voucherState ?? {}, 'voucherState');
  const charged = optional(channelState.chargedCumulativeAmount, (value) => amount(value, 'chargedCumulativeAmount'));
  return {
    chainId: chainIdOf(entry.network),
    amount: amount(entry.amount, 'amount'),
    token: address(entry.asset, 'asset'),
    receiver: address(entry.payTo, 'payTo'),
    receiverAuthorizer: address(extra.receiverAuthorizer, 'receiverAuthorizer'),
    withdrawDelay: integer(extra.withdrawDelay, 'withdrawDelay', 2 ** 32),
    maxTimeoutSeconds: integer(entry.maxTimeoutSeconds, 'maxTimeoutSeconds', 86_400),
    contract: optional(extra.contract, (value) => address(value, 'contract')),
    minDeposit: optional(extra.minDeposit, (value) => amount(value, 'minDeposit')) ?? 0n,
    tokenDomain:
      typeof extra.name === 'string' && typeof extra.version === 'string'
        ? { name: extra.name.slice(0, 200), version: extra.version.slice(0, 20) }
        : undefined,
    shown:
      charged === undefined
        ? undefined
        : {
            charged,
            signed: optional(voucherState.signedMaxClaimable, (value) => amount(value, 'signedMaxClaimable')),
            signature: optional(voucherState.signature, (value) => hex(value, 'signature', 65)),
          },
  };
}

/** A header that pays: a voucher for one request of `required`. */
export function encodePayment(options: {
  resource: PaidResource;
  terms: PaymentTerms;
  config: ChannelConfig;
  voucher: SignedVoucher;
  paymentId: string;
}): string {
  const { channelId, maxClaimableAmount, signature } = options.voucher;
  return encode({
    x402Version: 2,
    resource: options.resource,
    accepted: encodeTerms({ ...options.terms, shown: undefined }),
    payload: {
      type: 'voucher',
      channelConfig: options.config,
      voucher: { channelId, maxClaimableAmount: maxClaimableAmount.toString(), signature },
    },
    extensions: { [PAYMENT_IDENTIFIER]: { info: { required: false, id: options.paymentId } } },
  });
}

/** A payment from an untrusted header. @throws payment-malformed */
export function decodePayment(header: string): PaymentMessage {
  const object = decode(header);
  const accepted = record(object.accepted, 'accepted');
  if (object.x402Version !== 2 || accepted.scheme !== X402_SCHEME)
    throw malformed('scheme', accepted.scheme, `x402 version 2, ${X402_SCHEME}`);
  const payload = record(object.payload, 'payload');
  const kind = payload.type;
  if (kind !== 'voucher' && kind !== 'deposit' && kind !== 'refund') throw malformed('payload.type', kind, 'voucher, deposit or refund');
  const voucher = record(payload.voucher, 'voucher');
  const extension = record(record(object.extensions ?? {}, 'extensions')[PAYMENT_IDENTIFIER] ?? {}, PAYMENT_IDENTIFIER);
  const id = record(extension.info ?? {}, 'info').id;
  return {
    kind,
    chainId: chainIdOf(accepted.network),
    config: decodeConfig(record(payload.channelConfig, 'channelConfig')),
    voucher: {
      channelId: hex(voucher.channelId, 'channelId', 32),
      maxClaimableAmount: amount(voucher.maxClaimableAmount, 'maxClaimableAmount'),
      signature: hex(voucher.signature, 'signature', 65),
    },
    resourceUrl: optional(object.resource, (value) => string(record(value, 'resource').url, 'resource.url', 8192)),
    paymentId: typeof id === 'string' && IDENTIFIER.test(id) ? id : undefined,
    deposit: kind === 'deposit' ? decodeDeposit(record(payload.deposit, 'deposit')) : undefined,
    refundAmount: kind === 'refund' ? optional(payload.amount, (value) => amount(value, 'amount')) : undefined,
  };
}

function decodeConfig(value: Record<string, unknown>): ChannelConfig {
  return {
    payer: address(value.payer, 'payer'),
    payerAuthorizer: address(value.payerAuthorizer, 'payerAuthorizer'),
    receiver: address(value.receiver, 'receiver'),
    receiverAuthorizer: address(value.receiverAuthorizer, 'receiverAuthorizer'),
    token: address(value.token, 'token'),
    withdrawDelay: integer(value.withdrawDelay, 'withdrawDelay', 2 ** 32),
    salt: hex(value.salt, 'salt', 32),
  };
}

function decodeDeposit(value: Record<string, unknown>): NonNullable<PaymentMessage['deposit']> {
  const authorization = record(record(value.authorization, 'authorization').erc3009Authorization, 'erc3009Authorization');
  return {
    amount: amount(value.amount, 'deposit.amount'),
    validAfter: time(authorization.validAfter, 'validAfter'),
    validBefore: time(authorization.validBefore, 'validBefore'),
    salt: BigInt(hex(authorization.salt, 'deposit.salt', 32)),
    signature: hex(authorization.signature, 'deposit.signature', 65),
  };
}

/** A header that tells the payer what was charged. */
export function encodePaymentResult(options: {
  chainId: number;
  payer: Address;
  channelId: Hex;
  charged: bigint;
  chargedCumulative: bigint;
  transaction?: Hex;
}): string {
  return encode({
    success: true,
    payer: options.payer,
    transaction: options.transaction ?? '',
    network: `eip155:${options.chainId}`,
    amount: '',
    extra: {
      chargedAmount: options.charged.toString(),
      channelState: { channelId: options.channelId, chargedCumulativeAmount: options.chargedCumulative.toString() },
    },
  });
}

/** What was charged, from an untrusted header. @throws payment-malformed */
export function decodePaymentResult(header: string): PaymentResult {
  const object = decode(header);
  const extra = record(object.extra ?? {}, 'extra');
  const state = record(extra.channelState ?? {}, 'channelState');
  return {
    success: object.success === true,
    error: typeof object.errorReason === 'string' ? object.errorReason.slice(0, 200) : undefined,
    chargedAmount: optional(extra.chargedAmount, (value) => amount(value, 'chargedAmount')) ?? 0n,
    chargedCumulative: optional(state.chargedCumulativeAmount, (value) => amount(value, 'chargedCumulativeAmount')),
  };
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64');
}

function decode(header: string): Record<string, unknown> {
  if (header.length > HEADER_LENGTH_MAX || !BASE64.test(header)) {
    throw malformed('header', `${header.length} characters`, `base64 of at most ${HEADER_LENGTH_MAX}`);
  }
  try {
    return record(JSON.parse(Buffer.from(header, 'base64').toString('utf8')), 'header');
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw malformed('header', 'something else', 'JSON');
  }
}

function optional<T>(value: unknown, read: (value: unknown) => T): T | undefined {
  return value === undefined || value === null ? undefined : read(value);
}

function record(value: unknown, field: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw malformed(field, value, 'an object');
}

function string(value: unknown, field: string, lengthMax: number): string {
  if (typeof value === 'string' && value.length > 0 && value.length <= lengthMax) return value;
  throw malformed(field, value, `a text of 1 to ${lengthMax} characters`);
}

function amount(value: unknown, field: string): bigint {
  const read = typeof value === 'string' && AMOUNT.test(value) ? BigInt(value) : -1n;
  if (read >= 0n && read <= VOUCHER_AMOUNT_MAX) return read;
  throw malformed(field, value, 'a decimal number below 2^128');
}

function time(value: unknown, field: string): bigint {
  if (typeof value === 'string' && TIMESTAMP.test(value)) return BigInt(value);
  throw malformed(field, value, 'a decimal number');
}

function integer(value: unknown, field: string, limit: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < limit) return value;
  throw malformed(field, value, `a whole number below ${limit}`);
}

function address(value: unknown, field: string): Address {
  if (typeof value === 'string' && isAddress(value, { strict: false })) return getAddress(value);
  throw malformed(field, value, 'an address');
}

function hex(value: unknown, field: string, length: number): Hex {
  if (typeof value === 'string' && value.length === 2 + 2 * length && /^0x[0-9a-fA-F]+$/.test(value)) return value.toLowerCase() as Hex;
  throw malformed(field, value, `0x and ${2 * length} hex digits`);
}

function chainIdOf(value: unknown): number {
  const match = typeof value === 'string' ? /^eip155:([1-9][0-9]{0,14})$/.exec(value) : null;
  if (match !== null) return Number(match[1]);
  throw malformed('network', value, 'eip155 and a chain id');
}

function malformed(field: string, got: unknown, expected: string): MillraceError {
  const shown = typeof got === 'object' ? typeof got : String(got).slice(0, 80);
  return new MillraceError('payment-malformed', {
    actor: 'peer',
    message: `Got ${shown} as ${field} of a payment message, expected ${expected}`,
    values: { field, got: shown, expected },
  });
}
