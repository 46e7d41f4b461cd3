import { isIP } from 'node:net';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { CID } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import { bytesToHex, type Hex } from 'viem';
import { isSignedBy, type Signer, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import { readFields } from '../market/fields.ts';
import type { StorageDomain } from '../market/signed-messages.ts';

/**
 * What a holder of content says of itself: where it is reached, what it holds, what a byte costs. Signed by its own key, which
 * needs neither stake nor registration. Money in base units of the network's token; times are chain time in seconds.
 */
export interface Announcement {
  /** The key that signs, and that is paid unless the 402 answer says otherwise. */
  holder: Hex;
  /** Of two announcements of one holder the one with the greater sequence counts. */
  sequence: bigint;
  issuedAt: bigint;
  expiry: bigint;
  /** `https://host:port`; the same port serves plain HTTP for foreign tools. */
  endpoint: string;
  /** SHA-256 of the public key that it shows over TLS. */
  transportKey: Hex;
  /** A binding offer until `expiry`: price of 2^30 bytes served. */
  pricePerGib: bigint;
  /** The most bytes that one payment buys, so the most that either side can lose. At most 16 MiB. */
  chunkBytes: bigint;
  /** Root CIDs of what it holds; it answers for every block below them, and may answer for more. */
  cids: string[];
}

/** An announcement with its holder's signature. */
export interface SignedAnnouncement {
  announcement: Announcement;
  signature: Hex;
}

/** Limits that every announcement keeps. */
export const ANNOUNCEMENT_LIMITS = {
  cids: 100,
  cidBytes: 64,
  endpointBytes: 200,
  lifetimeSeconds: 86_400n,
  skewSeconds: 300n,
  /** What one payment may buy at most, so what may be lost at most, whatever a seller says. */
  chunkBytes: 16n << 20n,
} as const;

/** The name of our protocol in records of the Delegated Routing V1 HTTP API. */
export const PROTOCOL = 'millrace-retrieval';
const GATEWAY_PROTOCOL = 'transport-ipfs-gateway-http';
const LIBP2P_KEY = 0x72;

const FIELDS = [
  { name: 'holder', type: 'address' },
  { name: 'sequence', type: 'uint64' },
  { name: 'issuedAt', type: 'uint64' },
  { name: 'expiry', type: 'uint64' },
  { name: 'endpoint', type: 'string' },
  { name: 'transportKey', type: 'bytes32' },
  { name: 'pricePerGib', type: 'uint128' },
  { name: 'chunkBytes', type: 'uint64' },
  { name: 'cids', type: 'bytes[]' },
];
const shapes = new Map<string, TypedDataShape>();

/** The price of so many bytes, rounded up to a base unit. */
export function priceOfBytes(pricePerGib: bigint, bytes: bigint): bigint {
  return (pricePerGib * bytes + (1n << 30n) - 1n) >> 30n;
}

/** The digest that a holder signs: EIP-712 domain "Millrace Retrieval", version "1", bound to chain and market. */
function announcementDigest(domain: StorageDomain, announcement: Announcement): Hex {
  const key = `${domain.chainId}:${domain.market.toLowerCase()}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Retrieval', version: '1', chainId: domain.chainId, verifyingContract: domain.market },
      types: { Announcement: FIELDS },
      primaryType: 'Announcement',
    };
    shapes.set(key, shape);
  }
  return typedDataDigest(shape, { ...announcement, cids: announcement.cids.map((cid) => bytesToHex(parseCid(cid).bytes)) });
}

/** Signs an announcement with the holder's key. @throws bad-announcement */
export async function signAnnouncement(
  domain: StorageDomain,
  signer: Signer,
  said: Omit<Announcement, 'holder'>,
): Promise<SignedAnnouncement> {
  const announcement = { ...said, holder: signer.address };
  return { announcement, signature: await signer.signDigest(announcementDigest(domain, announcement)) };
}

/** The JSON form: integers as decimal strings. */
export function announcementToJson({ announcement, signature }: SignedAnnouncement): Record<string, unknown> {
  const said = Object.entries(announcement).map(([name, value]) => [name, typeof value === 'bigint' ? value.toString() : value]);
  return { ...Object.fromEntries(said), signature };
}

/**
 * Reads a stranger's announcement: shape, limits, times and signature are checked; whether anybody answers there is not.
 * @throws bad-field, bad-cid, bad-announcement
 */
export function readAnnouncement(domain: StorageDomain, value: unknown, now: bigint): SignedAnnouncement {
  const fields = readFields(value, 'announcement');
  const [endpoint, cids] = [fields.raw('endpoint'), fields.raw('cids')];
  const announcement: Announcement = {
    holder: fields.hex('holder', 20),
    sequence: fields.uint('sequence', 64),
    issuedAt: fields.uint('issuedAt', 64),
    expiry: fields.uint('expiry', 64),
    endpoint: typeof endpoint === 'string' ? endpoint : '',
    transportKey: fields.hex('transportKey', 32),
    pricePerGib: fields.uint('pricePerGib', 128),
    chunkBytes: fields.uint('chunkBytes', 64),
    cids: Array.isArray(cids) ? cids.slice(0, ANNOUNCEMENT_LIMITS.cids + 1).map(cidText) : [],
  };
  const signature = fields.hex('signature', 65);
  const { expiry, issuedAt } = announcement;
  const url = URL.parse(announcement.endpoint);
  if (url === null || url.protocol !== 'https:' || url.origin !== announcement.endpoint) {
    throw badAnnouncement('endpoint', announcement.endpoint.slice(0, 80), 'https://host:port');
  }
  if (url.origin.length > ANNOUNCEMENT_LIMITS.endpointBytes) throw badAnnouncement('endpoint', 'a long one', 'at most 200 characters');
  if (announcement.cids.length > ANNOUNCEMENT_LIMITS.cids) throw badAnnouncement('cids', 'more', `at most ${ANNOUNCEMENT_LIMITS.cids}`);
  const { chunkBytes } = announcement;
  if (chunkBytes === 0n || chunkBytes > ANNOUNCEMENT_LIMITS.chunkBytes) {
    throw badAnnouncement('chunkBytes', chunkBytes.toString(), `1 to ${ANNOUNCEMENT_LIMITS.chunkBytes}`);
  }
  if (expiry <= now) throw badAnnouncement('expiry', expiry.toString(), `after now, ${now}`);
  if (issuedAt > now + ANNOUNCEMENT_LIMITS.skewSeconds) throw badAnnouncement('issuedAt', issuedAt.toString(), `at most ${now} and some`);
  if (expiry > issuedAt + ANNOUNCEMENT_LIMITS.lifetimeSeconds) {
    throw badAnnouncement('expiry', expiry.toString(), `at most ${ANNOUNCEMENT_LIMITS.lifetimeSeconds} s after issuedAt`);
  }
  if (!isSignedBy(announcement.holder, announcementDigest(domain, announcement), signature)) {
    throw badAnnouncement('signature', signature, `one by ${announcement.holder}`);
  }
  return { announcement, signature };
}

/**
 * The announcement as a record of schema `peer` (IPIP-337, IPIP-417): a stock IPFS client finds a trustless gateway at its
 * address, one of ours finds the signed announcement under `millrace-retrieval`.
 */
export function peerRecord(domain: StorageDomain, signed: SignedAnnouncement): Record<string, unknown> {
  return {
    Schema: 'peer',
    ID: peerIdOf(announcementDigest(domain, signed.announcement), signed.signature),
    Addrs: [multiaddrOf(signed.announcement.endpoint)],
    Protocols: [GATEWAY_PROTOCOL, PROTOCOL],
    [PROTOCOL]: announcementToJson(signed),
  };
}

/** The libp2p Peer ID of the secp256k1 key that made a signature: CIDv1, codec libp2p-key, the key itself inlined. */
function peerIdOf(digest: Hex, signature: Hex): string {
  const bytes = Buffer.from(signature.slice(2), 'hex');
  const recovery = (bytes[64] as number) - 27;
  const publicKey = secp256k1.Signature.fromBytes(bytes.subarray(0, 64))
    .addRecoveryBit(recovery)
    .recoverPublicKey(Buffer.from(digest.slice(2), 'hex'))
    .toBytes(true);
  const encoded = Uint8Array.from([0x08, 0x02, 0x12, publicKey.length, ...publicKey]); // protobuf PublicKey{Secp256k1, key}
  return CID.createV1(LIBP2P_KEY, createDigest(0x00, encoded)).toString();
}

function multiaddrOf(endpoint: string): string {
  const { hostname, port } = new URL(endpoint);
  const host = hostname.replace(/^\[|\]$/g, '');
  const kind = { 0: 'dns', 4: 'ip4', 6: 'ip6' }[isIP(host)] as string;
  return `/${kind}/${host}/tcp/${port === '' ? 443 : port}/http`;
}

function cidText(value: unknown): string {
  const cid = parseCid(typeof value === 'string' ? value : '');
  if (cid.bytes.length > ANNOUNCEMENT_LIMITS.cidBytes)
    throw badAnnouncement('cids', 'a long CID', `at most ${ANNOUNCEMENT_LIMITS.cidBytes} bytes`);
  return cid.toString();
}

function badAnnouncement(field: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-announcement', {
    actor: 'caller',
    message: `Got ${field} ${got} in an announcement, expected ${expected}`,
    values: { field, got, expected },
  });
}
