import { CID } from 'multiformats/cid';
import { type Hex, hexToBytes } from 'viem';
import { isSignedBy } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { readFields } from './fields.ts';
import { type StorageDomain, storageDigest } from './signed-messages.ts';

/** What client and provider agree, as `IStorageMarket.DealTerms`. Sizes in bytes, money in base units, expiry in seconds. */
export interface DealTerms {
  client: Hex;
  operatorId: bigint;
  pieceRoot: Hex;
  pieceHeight: number;
  rawSize: bigint;
  /** keccak256 of the binary root CID. */
  contentHash: Hex;
  periods: number;
  pricePerPeriod: bigint;
  collateral: bigint;
  bond: bigint;
  clientNonce: bigint;
  providerNonce: bigint;
  /** When the offer, not the deal, ends. */
  expiry: bigint;
}

/** Prolongs a deal; `endPeriod` is the old end, so that a signature is good once. */
export interface Extension {
  dealId: bigint;
  periods: number;
  endPeriod: bigint;
  expiry: bigint;
}

/** The digest that both sides sign; equal to `DealDesk.dealTermsDigest`. */
export function dealTermsDigest(domain: StorageDomain, terms: DealTerms): Hex {
  return storageDigest(domain, 'DealTerms', terms);
}

/** The digest by which a client says that the data of a deal can be read back. */
export function activationDigest(domain: StorageDomain, dealId: bigint): Hex {
  return storageDigest(domain, 'Activation', { dealId });
}

/** The digest of an extension, signed by both sides. */
export function extensionDigest(domain: StorageDomain, extension: Extension): Hex {
  return storageDigest(domain, 'Extension', extension);
}

/**
 * Refuses terms that are not signed by `signer`.
 * @throws bad-deal-signature
 */
export function requireTermsSignature(options: { domain: StorageDomain; terms: DealTerms; signer: Hex; signature: Hex }): void {
  if (isSignedBy(options.signer, dealTermsDigest(options.domain, options.terms), options.signature)) return;
  throw new MillraceError('bad-deal-signature', {
    actor: 'caller',
    message: `The signature on the deal terms is not by ${options.signer}`,
    values: { expectedSigner: options.signer, chainId: options.domain.chainId, market: options.domain.market },
    hint: 'Sign the terms with the client key, for this chain and this storage market.',
  });
}

/** Terms as JSON: integers as decimal strings, bytes as hexadecimal. */
export function termsToJson(terms: DealTerms): Record<string, string> {
  return Object.fromEntries(Object.entries(terms).map(([name, value]) => [name, value.toString()]));
}

/**
 * Terms from untrusted JSON, every field checked for type and width.
 * @throws bad-field
 */
export function termsFromJson(value: unknown): DealTerms {
  const fields = readFields(value, 'terms');
  return {
    client: fields.hex('client', 20),
    operatorId: fields.uint('operatorId', 64),
    pieceRoot: fields.hex('pieceRoot', 32),
    pieceHeight: fields.small('pieceHeight', 8),
    rawSize: fields.uint('rawSize', 64),
    contentHash: fields.hex('contentHash', 32),
    periods: fields.small('periods', 32),
    pricePerPeriod: fields.uint('pricePerPeriod', 128),
    collateral: fields.uint('collateral', 128),
    bond: fields.uint('bond', 128),
    clientNonce: fields.uint('clientNonce', 256),
    providerNonce: fields.uint('providerNonce', 256),
    expiry: fields.uint('expiry', 64),
  };
}

/**
 * The content's CID from the binary form that a deal carries.
 * @throws bad-cid
 */
export function cidFromHex(hex: Hex): CID {
  try {
    return CID.decode(hexToBytes(hex));
  } catch (cause) {
    throw new MillraceError('bad-cid', {
      actor: 'caller',
      message: `Got ${hex.slice(0, 80)}, expected a binary CID`,
      values: { got: hex.slice(0, 80) },
      cause,
    });
  }
}
