import { type Hex, hexToBytes, keccak256, padHex, parseTransaction, serializeTransaction, type TransactionSerializable } from 'viem';
import { MillraceError } from '../errors.ts';
import { secp256k1Engine } from './secp256k1.ts';

/** EIP-7825: no transaction may ask for more gas. */
export const TRANSACTION_GAS_MAX = 16_777_216n;
/** The size above which Ethereum's nodes refuse a transaction. */
export const TRANSACTION_BYTES_MAX = 131_072;

/** A signed transaction that is well formed for this chain; whether it can be paid for is not checked here. */
export interface SignedTransaction {
  raw: Hex;
  hash: Hex;
  sender: Hex;
  nonce: number;
  gas: bigint;
  /** The most it pays per gas, wei. */
  maxFeePerGas: bigint;
  maxPriorityFeePerGas: bigint;
  /** The most that the sender can lose by it: value + gas × fee, wei. */
  costMax: bigint;
  sizeBytes: number;
}

/** n / 2 of secp256k1: a higher `s` is refused (EIP-2). */
const HALF_CURVE_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;
const TYPES: ReadonlySet<string> = new Set(['legacy', 'eip2930', 'eip1559']);

/**
 * Decodes a raw transaction and recovers its sender.
 * @throws bad-transaction when it cannot be decoded, is signed for another chain or by nobody, has a type that this
 * chain does not take (blobs, EIP-7702), or breaks a limit
 */
export function decodeSignedTransaction(raw: unknown, chainId: number, blockGasLimit: bigint): SignedTransaction {
  if (typeof raw !== 'string' || !/^0x([0-9a-fA-F]{2})+$/.test(raw)) throw badTransaction('not a hex string of whole bytes');
  const sizeBytes = (raw.length - 2) / 2;
  if (sizeBytes > TRANSACTION_BYTES_MAX) throw badTransaction(`oversized data: got ${sizeBytes} bytes, limit ${TRANSACTION_BYTES_MAX}`);
  const transaction = parse(raw as Hex);
  if (!TYPES.has(transaction.type as string)) throw badTransaction(`transaction type not supported: ${transaction.type}`);
  if (transaction.chainId !== chainId) {
    throw badTransaction(`invalid chain id: got ${transaction.chainId ?? 'none'}, this chain is ${chainId}`);
  }
  const gas = transaction.gas ?? 0n;
  const maxFeePerGas = transaction.maxFeePerGas ?? transaction.gasPrice ?? 0n;
  const maxPriorityFeePerGas = transaction.maxPriorityFeePerGas ?? transaction.gasPrice ?? 0n;
  const gasMax = blockGasLimit < TRANSACTION_GAS_MAX ? blockGasLimit : TRANSACTION_GAS_MAX;
  if (gas > gasMax) throw badTransaction(`exceeds the gas limit of a transaction: got ${gas}, limit ${gasMax} (EIP-7825)`);
  const intrinsic = intrinsicGas(transaction);
  if (gas < intrinsic) throw badTransaction(`intrinsic gas too low: got ${gas}, needs ${intrinsic}`);
  if (maxPriorityFeePerGas > maxFeePerGas) throw badTransaction('max priority fee per gas higher than max fee per gas');
  return {
    raw: raw.toLowerCase() as Hex,
    hash: keccak256(raw as Hex),
    sender: senderOf(transaction),
    nonce: transaction.nonce ?? 0,
    gas,
    maxFeePerGas,
    maxPriorityFeePerGas,
    costMax: (transaction.value ?? 0n) + gas * maxFeePerGas,
    sizeBytes,
  };
}

type ParsedTransaction = {
  type?: string;
  chainId?: number;
  nonce?: number;
  gas?: bigint;
  gasPrice?: bigint;
  maxFeePerGas?: bigint;
  maxPriorityFeePerGas?: bigint;
  value?: bigint;
  to?: Hex | null;
  data?: Hex;
  accessList?: readonly { storageKeys: readonly Hex[] }[];
  r?: Hex;
  s?: Hex;
  v?: bigint;
  yParity?: number;
};

function parse(raw: Hex): ParsedTransaction {
  try {
    return parseTransaction(raw) as ParsedTransaction;
  } catch (cause) {
    throw badTransaction('it cannot be decoded', cause);
  }
}

function senderOf(transaction: ParsedTransaction): Hex {
  const { r, s, v, yParity, ...unsigned } = transaction;
  if (r === undefined || s === undefined) throw badTransaction('it is not signed');
  if (BigInt(s) > HALF_CURVE_ORDER) throw badTransaction('invalid signature: s is in the upper half of the curve order');
  const recovery = yParity ?? (v === undefined ? undefined : v >= 35n ? Number((v - 35n) % 2n) : Number(v - 27n));
  if (recovery !== 0 && recovery !== 1) throw badTransaction('invalid signature: bad recovery id');
  const signature = new Uint8Array(64);
  // RLP drops leading zeros, and viem keeps r and s of a legacy transaction as they came.
  signature.set(hexToBytes(padHex(r, { size: 32 })), 0);
  signature.set(hexToBytes(padHex(s, { size: 32 })), 32);
  const digest = keccak256(serializeTransaction(unsigned as TransactionSerializable), 'bytes');
  const publicKey = secp256k1Engine.recover(digest, signature, recovery);
  if (publicKey === null) throw badTransaction('invalid signature: no key fits it');
  return `0x${keccak256(publicKey.subarray(1)).slice(-40)}`;
}

/** Gas that is due before anything runs (EIP-2028, 2930, 3860, and the floor of EIP-7623). */
function intrinsicGas(transaction: ParsedTransaction): bigint {
  const data = hexToBytes(transaction.data ?? '0x');
  let zeroBytes = 0;
  for (const byte of data) if (byte === 0) zeroBytes += 1;
  const tokens = BigInt(zeroBytes + (data.length - zeroBytes) * 4);
  const isCreation = transaction.to === undefined || transaction.to === null;
  const creation = isCreation ? 32_000n + 2n * BigInt(Math.ceil(data.length / 32)) : 0n;
  const entries = transaction.accessList ?? [];
  const keys = entries.reduce((count, entry) => count + entry.storageKeys.length, 0);
  const standard = 21_000n + 4n * tokens + creation + 2_400n * BigInt(entries.length) + 1_900n * BigInt(keys);
  const floor = 21_000n + 10n * tokens;
  return standard > floor ? standard : floor;
}

function badTransaction(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-transaction', { actor: 'caller', message: reason, values: { reason }, cause });
}
