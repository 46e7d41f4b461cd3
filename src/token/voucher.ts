import { keccak_256 } from '@noble/hashes/sha3.js';
import { type Address, bytesToHex, domainSeparator, type Hex, hexToBytes } from 'viem';
import { type Secp256k1Engine, type Signer, secp256k1Engine } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';

/** A payment channel's immutable terms (`IX402BatchSettlement.ChannelConfig`); its EIP-712 hash is the channel's id. */
export interface ChannelConfig {
  payer: Address;
  /** The key that signs vouchers. Zero (the payer signs as a contract, ERC-1271) works on chain, but no receiver of ours takes it. */
  payerAuthorizer: Address;
  receiver: Address;
  /** May claim and refund besides the receiver. */
  receiverAuthorizer: Address;
  token: Address;
  /** Seconds from the payer's request to its withdrawal: 900 to 2,592,000. */
  withdrawDelay: number;
  salt: Hex;
}

/** "The receiver may have up to `maxClaimableAmount` of this channel, in all": each voucher replaces the earlier ones. Base units. */
export interface Voucher {
  channelId: Hex;
  maxClaimableAmount: bigint;
}

/** A voucher and its 65-byte signature by the channel's `payerAuthorizer`. */
export interface SignedVoucher extends Voucher {
  signature: Hex;
}

/** Hashes, signs and checks vouchers of one channels contract. */
export interface VoucherCodec {
  readonly chainId: number;
  /** The channels contract. */
  readonly contract: Address;
  /** The id of a channel; names chain and contract, so that a voucher is of no use anywhere else. @throws bad-channel */
  channelId(config: ChannelConfig): Hex;
  digest(voucher: Voucher): Hex;
  /** Deterministic: the same voucher has the same signature. */
  sign(signer: Signer, voucher: Voucher): Promise<SignedVoucher>;
  /** Whether `authorizer` signed. Never throws; refuses high s, as the contract does. About 11,000 per CPU-second. */
  isSignedBy(authorizer: Address, voucher: SignedVoucher): boolean;
}

const DOMAIN = { name: 'x402 Batch Settlement', version: '1' } as const;
const text = new TextEncoder();
const CONFIG_TYPE_HASH = keccak_256(
  text.encode(
    'ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)',
  ),
);
const VOUCHER_TYPE_HASH = keccak_256(text.encode('Voucher(bytes32 channelId,uint128 maxClaimableAmount)'));
const HALF_ORDER = hexToBytes('0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0');
const MASK_64 = 0xffffffffffffffffn;

/** The greatest amount that fits a voucher. */
export const VOUCHER_AMOUNT_MAX = (1n << 128n) - 1n;

/**
 * The voucher codec of a channels contract: domain separator and type hashes are computed once, messages are packed by hand into buffers
 * that are used again.
 */
export function createVoucherCodec(chainId: number, contract: Address, engine: Secp256k1Engine = secp256k1Engine): VoucherCodec {
  const separator = hexToBytes(domainSeparator({ domain: { ...DOMAIN, chainId, verifyingContract: contract } }));
  const envelope = new Uint8Array(66);
  envelope.set([0x19, 0x01]);
  envelope.set(separator, 2);
  const packed = new Uint8Array(96);
  packed.set(VOUCHER_TYPE_HASH);
  const packedWords = new DataView(packed.buffer);
  const digestOf = (struct: Uint8Array): Uint8Array => {
    envelope.set(keccak_256(struct), 34);
    return keccak_256(envelope);
  };
  const voucherDigest = ({ channelId, maxClaimableAmount }: Voucher): Uint8Array => {
    writeHex(packed, 32, channelId, 32);
    packedWords.setBigUint64(80, maxClaimableAmount >> 64n);
    packedWords.setBigUint64(88, maxClaimableAmount & MASK_64);
    return digestOf(packed);
  };
  return {
    chainId,
    contract,
    channelId: (config) => bytesToHex(digestOf(packConfig(config))),
    digest: (voucher) => bytesToHex(voucherDigest(voucher)),
    sign: async (signer, { channelId, maxClaimableAmount }) => ({
      channelId,
      maxClaimableAmount,
      signature: await signer.signDigest(bytesToHex(voucherDigest({ channelId, maxClaimableAmount }))),
    }),
    isSignedBy(authorizer, voucher) {
      const signature = Buffer.from(voucher.signature.slice(2), 'hex');
      const recovery = (signature[64] as number) - 27;
      if (signature.length !== 65 || voucher.signature.length !== 132 || (recovery !== 0 && recovery !== 1)) return false;
      if (voucher.maxClaimableAmount < 0n || voucher.maxClaimableAmount > VOUCHER_AMOUNT_MAX) return false;
      if (Buffer.compare(signature.subarray(32, 64), HALF_ORDER) > 0) return false;
      const publicKey = engine.recover(voucherDigest(voucher), signature.subarray(0, 64), recovery);
      if (publicKey === null) return false;
      const hash = keccak_256(publicKey.subarray(1));
      return Buffer.from(hash.buffer, hash.byteOffset + 12, 20).equals(Buffer.from(authorizer.slice(2), 'hex'));
    },
  };
}

function packConfig(config: ChannelConfig): Uint8Array {
  const { withdrawDelay, salt } = config;
  if (!Number.isInteger(withdrawDelay) || withdrawDelay < 0 || withdrawDelay >= 2 ** 40) throw badChannel('withdrawDelay', withdrawDelay);
  const packed = new Uint8Array(256);
  packed.set(CONFIG_TYPE_HASH);
  const addresses = ['payer', 'payerAuthorizer', 'receiver', 'receiverAuthorizer', 'token'] as const;
  for (const [index, field] of addresses.entries()) {
    if (!writeHex(packed, 32 * (index + 1) + 12, config[field], 20)) throw badChannel(field, config[field]);
  }
  new DataView(packed.buffer).setBigUint64(216, BigInt(withdrawDelay));
  if (!writeHex(packed, 224, salt, 32)) throw badChannel('salt', salt);
  return packed;
}

function writeHex(into: Uint8Array, at: number, value: Hex, length: number): boolean {
  const bytes = Buffer.from(value.slice(2), 'hex');
  if (bytes.length !== length || value.length !== 2 + 2 * length) {
    into.fill(0, at, at + length);
    return false;
  }
  into.set(bytes, at);
  return true;
}

function badChannel(field: string, got: unknown): MillraceError {
  const shown = String(got).slice(0, 80);
  return new MillraceError('bad-channel', {
    actor: 'caller',
    message: `Got ${shown} as a payment channel's ${field}`,
    values: { field, got: shown },
  });
}
