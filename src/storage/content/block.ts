import { hash } from 'node:crypto';
import { decode as decodePb, encode as encodePb } from '@ipld/dag-pb';
import { UnixFS } from 'ipfs-unixfs';
import { CID } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import { MillraceError } from '../../errors.ts';

/** Codecs that a block's CID may name. Only dag-pb has links that are followed; all others are leaves. */
export const RAW = 0x55;
/** The codec of UnixFS nodes, the one whose links are followed. */
export const DAG_PB = 0x70;
const SHA2_256 = 0x12;
const IDENTITY = 0x00;

/** The greatest block that is accepted from anyone: the limit of the trustless gateway's clients (2 MiB). */
export const BLOCK_BYTES_MAX = 2 << 20;
/** Payload bytes of one leaf of a file. */
export const LEAF_BYTES = 1 << 20;
/** The most links of one file node. */
export const NODE_LINKS_MAX = 1024;
/** Bytes of the binary CIDs that this code makes: version 1, sha2-256. */
export const CID_BYTES = 36;

/** The CIDv1 of a block, by SHA-256. */
export function cidOf(codec: number, block: Uint8Array): CID {
  return CID.createV1(codec, createDigest(SHA2_256, hash('sha256', block, 'buffer')));
}

/** The digest under which a block is kept, or undefined for an identity CID, whose bytes are the digest itself. */
export function isIdentity(cid: CID): boolean {
  return cid.multihash.code === IDENTITY;
}

/**
 * Parses a CID from text (CIDv0 and v1).
 * @throws bad-cid
 */
export function parseCid(text: string): CID {
  try {
    const cid = CID.parse(text);
    if (cid.multihash.code === IDENTITY || (cid.multihash.code === SHA2_256 && cid.multihash.digest.length === 32)) return cid;
  } catch {
    // falls through to the typed error
  }
  throw new MillraceError('bad-cid', {
    actor: 'caller',
    message: `Got "${text.slice(0, 120)}", expected a CID with a SHA-256 hash, such as bafybei… or Qm…`,
    values: { got: text.slice(0, 120) },
  });
}

/** True when the bytes are the block that the CID names. Hashes other than SHA-256 and identity are never true. */
export function isBlockOf(cid: CID, block: Uint8Array): boolean {
  const { code, digest } = cid.multihash;
  if (code === IDENTITY) return Buffer.compare(digest, block) === 0;
  return code === SHA2_256 && digest.length === 32 && hash('sha256', block, 'buffer').equals(digest);
}

/** A UnixFS node that has been decoded: what it is, and its links in order with the file bytes below each. */
export interface UnixfsNode {
  kind: 'file' | 'directory' | 'hamt' | 'symlink';
  links: { cid: CID; name: string; tsize: number; fileBytes: number }[];
  /** Bytes of the file, its inline data included; 0 for directories. */
  fileSize: number;
  /** Data inside the node itself: before the links' bytes. */
  data: Uint8Array;
  fanout: number;
}

/**
 * Decodes a block as a UnixFS node; a raw block is a file without links.
 * @throws bad-block
 */
export function decodeUnixfs(cid: CID, block: Uint8Array): UnixfsNode {
  if (cid.code === RAW) return { kind: 'file', links: [], fileSize: block.length, data: block, fanout: 0 };
  try {
    if (cid.code !== DAG_PB) throw new TypeError(`codec 0x${cid.code.toString(16)}`);
    const node = decodePb(block);
    const unixfs = UnixFS.unmarshal(node.Data ?? new Uint8Array());
    const kind = kindOf(unixfs.type);
    const isFile = kind === 'file';
    if (isFile && unixfs.blockSizes.length !== node.Links.length) throw new TypeError('as many block sizes as links expected');
    const links = node.Links.map((link, index) => ({
      cid: link.Hash,
      name: link.Name ?? '',
      tsize: link.Tsize ?? 0,
      fileBytes: isFile ? safeSize(unixfs.blockSizes[index] as bigint) : 0,
    }));
    const data = unixfs.data ?? new Uint8Array();
    const fileSize = isFile ? links.reduce((sum, link) => sum + link.fileBytes, data.length) : 0;
    return { kind, links, fileSize: safeSize(BigInt(fileSize)), data, fanout: Number(unixfs.fanout ?? 0n) };
  } catch (cause) {
    throw new MillraceError('bad-block', {
      actor: 'peer',
      message: `Block ${cid} is no UnixFS node: ${(cause as Error).message}`,
      values: { cid: cid.toString() },
      cause,
    });
  }
}

/** CIDs that a block links to, in order; none for anything but dag-pb. Throws what the decoder throws. */
export function linksOf(cid: CID, block: Uint8Array): CID[] {
  return cid.code === DAG_PB ? decodePb(block).Links.map((link) => link.Hash) : [];
}

/** The dag-pb block of a file node over its children in order. */
export function encodeFileNode(children: { cid: CID; tsize: number; fileBytes: number }[]): Uint8Array {
  const unixfs = new UnixFS({ type: 'file', blockSizes: children.map((child) => BigInt(child.fileBytes)) });
  return encodePb({ Data: unixfs.marshal(), Links: children.map((child) => ({ Hash: child.cid, Name: '', Tsize: child.tsize })) });
}

function kindOf(type: string): UnixfsNode['kind'] {
  if (type === 'file' || type === 'raw') return 'file';
  if (type === 'directory' || type === 'symlink') return type;
  if (type === 'hamt-sharded-directory') return 'hamt';
  throw new TypeError(`UnixFS type ${type}`);
}

function safeSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`size ${size}`);
  return Number(size);
}
