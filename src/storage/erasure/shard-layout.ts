import { decode, encode } from 'cborg/json';
import { MillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import { CAR_HEADER_BYTES } from '../content/car.ts';
import { parsePieceCid } from '../content/piece.ts';
import { planFile } from '../content/unixfs-file.ts';
import { type CodeShape, checkCode } from './reed-solomon.ts';

/** Shards are whole multiples of this many bytes. */
export const SHARD_UNIT_BYTES = 64;
/** The most shards that a file of the order book has. */
export const FILE_SHARDS_MAX = 32;
const MANIFEST_BYTES_MAX = 64 << 10;

/** Where the bytes of a CAR are in its shards. */
export interface ShardLayout extends CodeShape {
  /** Bytes of the CAR. */
  carSize: number;
  /** Payload bytes of every shard: data shard i is bytes [i × shardBytes, (i + 1) × shardBytes) of the CAR, zeros after its end. */
  shardBytes: number;
  /** Bytes of the CAR that each shard is stored as: the size of its piece. */
  shardCarSize: number;
}

/**
 * The layout of a CAR's shards; it follows from the CAR's size, k and n alone.
 * @throws bad-erasure-code
 */
export function layoutShards(carSize: number, code: CodeShape): ShardLayout {
  const { k, n } = checkCode(code, FILE_SHARDS_MAX);
  const shardBytes = Math.max(1, Math.ceil(carSize / (k * SHARD_UNIT_BYTES))) * SHARD_UNIT_BYTES;
  return { k, n, carSize, shardBytes, shardCarSize: CAR_HEADER_BYTES + planFile(shardBytes).carBytes };
}

/** What names a file's shards; all of it also follows from the bid's event on chain and the shards themselves. */
export interface ShardManifest extends ShardLayout {
  /** Root CID of the whole content. */
  cid: string;
  shards: { cid: string; pieceCid: string }[];
}

/** The manifest as canonical DAG-JSON: sorted keys, no spaces, CIDs as links. The same shards give the same bytes everywhere. */
export function encodeShardManifest(manifest: ShardManifest): Uint8Array {
  const { cid, carSize, k, n, shardBytes, shards } = manifest;
  const links = shards.map((shard) => ({ cid: { '/': shard.cid }, piece: { '/': shard.pieceCid } }));
  return encode({ version: 1, cid: { '/': cid }, carSize, k, n, shardBytes, shards: links });
}

/**
 * Reads a manifest of at most 64 KiB that anyone may have made.
 * @throws bad-shard-manifest
 */
export function decodeShardManifest(bytes: Uint8Array): ShardManifest {
  try {
    if (bytes.length > MANIFEST_BYTES_MAX) throw new RangeError(`${bytes.length} bytes, limit ${MANIFEST_BYTES_MAX}`);
    const value = decode(bytes) as Record<string, unknown>;
    if (value.version !== 1) throw new RangeError(`version ${value.version}, expected 1`);
    const { carSize, k, n, shardBytes, shards } = value as unknown as ShardManifest;
    if (!Number.isSafeInteger(carSize) || carSize <= CAR_HEADER_BYTES) throw new RangeError(`a CAR of ${carSize} bytes`);
    const layout = layoutShards(carSize, { k, n });
    if (layout.shardBytes !== shardBytes) throw new RangeError(`shards of ${shardBytes} bytes, expected ${layout.shardBytes}`);
    if (!Array.isArray(shards) || shards.length !== n) throw new RangeError(`${shards?.length} shards, expected ${n}`);
    return {
      ...layout,
      cid: parseCid(linkOf(value.cid)).toString(),
      shards: (shards as unknown as Record<string, unknown>[]).map((shard) => {
        const pieceCid = linkOf(shard.piece);
        parsePieceCid(pieceCid);
        return { cid: parseCid(linkOf(shard.cid)).toString(), pieceCid };
      }),
    };
  } catch (cause) {
    throw new MillraceError('bad-shard-manifest', {
      actor: 'caller',
      message: `Not a manifest of shards: ${(cause as Error).message}`,
      values: { sizeBytes: bytes.length },
      cause,
    });
  }
}

function linkOf(value: unknown): string {
  const link = (value as { '/'?: unknown } | undefined)?.['/'];
  if (typeof link !== 'string') throw new TypeError('a link that is no CID');
  return link;
}
