import { varint } from 'multiformats';
import { CID } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import { MillraceError } from '../../errors.ts';
import { createPieceHasher, PIECE_HEIGHT_MAX, type PieceRoot, payloadLeaves } from './commp.ts';

/** Bytes as 0x-prefixed hexadecimal text. */
export type Hex = `0x${string}`;

/** What a piece is: CommP root, tree height, sizes in bytes, the challenged leaves, and its Filecoin CIDs of both versions. */
export interface PieceInfo {
  root: Hex;
  height: number;
  rawSize: number;
  paddedSize: number;
  payloadLeaves: number;
  cidV1: string;
  cidV2: string;
}

const RAW_CODEC = 0x55;
const FIL_COMMITMENT_UNSEALED = 0xf101;
const SHA2_256_TRUNC254_PADDED = 0x1012;
const FR32_SHA2_256_TRUNC254_PADBINTREE = 0x1011;

/** Describes a piece from its CommP root. */
export function describePiece(piece: PieceRoot): PieceInfo {
  const { root, height, rawSize } = piece;
  return {
    root: `0x${Buffer.from(root).toString('hex')}`,
    height,
    rawSize,
    paddedSize: 32 * 2 ** height,
    payloadLeaves: payloadLeaves(rawSize),
    cidV1: pieceCidV1(root).toString(),
    cidV2: pieceCidV2(piece).toString(),
  };
}

/** The piece (CommP) of a byte stream, in constant memory. Raw sizes below 127 bytes are zero-filled to 127, as Filecoin does. */
export async function pieceOf(payload: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<PieceInfo> {
  const hasher = createPieceHasher();
  for await (const chunk of payload) hasher.write(chunk);
  return describePiece(hasher.finish());
}

/** Piece CID v1: `fil-commitment-unsealed`, `sha2-256-trunc254-padded`; it does not tell the size. */
export function pieceCidV1(root: Uint8Array): CID {
  return CID.createV1(FIL_COMMITMENT_UNSEALED, createDigest(SHA2_256_TRUNC254_PADDED, root));
}

/** Piece CID v2: raw codec, `fr32-sha2-256-trunc254-padbintree`; it tells padding and height. Rule: FRC-0069. */
export function pieceCidV2({ root, height, rawSize }: PieceRoot): CID {
  const padding = 127 * 2 ** (height - 2) - rawSize;
  const length = varint.encodingLength(padding);
  const digest = new Uint8Array(length + 33);
  varint.encodeTo(padding, digest, 0);
  digest[length] = height;
  digest.set(root, length + 1);
  return CID.createV1(RAW_CODEC, createDigest(FR32_SHA2_256_TRUNC254_PADBINTREE, digest));
}

/**
 * Root, height and raw size of a piece CID v2, or the root alone (height and rawSize undefined) of a v1.
 * @throws bad-piece-cid
 */
export function parsePieceCid(text: string): { root: Hex; height?: number; rawSize?: number } {
  try {
    const cid = CID.parse(text);
    const digest = cid.multihash.digest;
    if (cid.code === FIL_COMMITMENT_UNSEALED && cid.multihash.code === SHA2_256_TRUNC254_PADDED && digest.length === 32) {
      return { root: `0x${Buffer.from(digest).toString('hex')}` };
    }
    if (cid.code === RAW_CODEC && cid.multihash.code === FR32_SHA2_256_TRUNC254_PADBINTREE) {
      const [padding, length] = varint.decode(digest);
      const height = digest[length] as number;
      const rawSize = 127 * 2 ** (height - 2) - padding;
      if (digest.length === length + 33 && height >= 2 && height <= PIECE_HEIGHT_MAX && Number.isSafeInteger(rawSize) && rawSize >= 0) {
        return { root: `0x${Buffer.from(digest.subarray(length + 1)).toString('hex')}`, height, rawSize };
      }
    }
  } catch {
    // falls through to the typed error
  }
  throw new MillraceError('bad-piece-cid', {
    actor: 'caller',
    message: `Got "${text.slice(0, 120)}", expected a Filecoin piece CID (v1 "baga…" or v2 "bafkz…")`,
    values: { got: text.slice(0, 120) },
  });
}
