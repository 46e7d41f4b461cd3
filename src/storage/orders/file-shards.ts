import { CID } from 'multiformats/cid';
import { type Hex, keccak256, toHex } from 'viem';
import type { BuiltContent } from '../content/content.ts';
import type { PieceInfo } from '../content/piece.ts';
import { prepareShards, type ShardProgress } from '../erasure/prepare-shards.ts';
import type { ShardPiece } from './orders.ts';

/** How a file is spread: any `needed` of `count` shards give it back. Copies are shards of which one is needed. */
export interface FileShape {
  needed: number;
  count: number;
}

/** A shard that is ready to be sent. */
export interface StagedShard extends ShardPiece {
  index: number;
  rootCid: string;
  carPath: string;
}

/** A file cut into its shards, all of one size, on the own disk. */
export interface StagedFile extends FileShape {
  cid: string;
  cidHex: Hex;
  contentHash: Hex;
  shardSize: bigint;
  pieceHeight: number;
  shards: StagedShard[];
}

/** Cuts a built content into shards, or, when one is enough, lets every shard be the whole. @throws bad-erasure-code, disk-full */
export async function stageFile(options: {
  content: BuiltContent;
  shape: FileShape;
  workFolder: string;
  onProgress?: (progress: ShardProgress) => void;
  signal?: AbortSignal;
}): Promise<StagedFile> {
  const { content, shape } = options;
  const cidHex = toHex(CID.parse(content.cid).bytes);
  const pieces = shape.needed === 1 ? copiesOf(content, shape.count) : await shardsOf(options);
  const [first] = pieces as [(typeof pieces)[number]];
  return {
    ...shape,
    cid: content.cid,
    cidHex,
    contentHash: keccak256(cidHex),
    shardSize: BigInt(first.piece.rawSize),
    pieceHeight: first.piece.height,
    shards: pieces.map(({ cid, carPath, piece }, index) => ({
      index,
      rootCid: cid,
      carPath,
      pieceRoot: piece.root,
      cid: toHex(CID.parse(cid).bytes),
    })),
  };
}

function copiesOf({ cid, carPath, piece }: BuiltContent, count: number): { cid: string; carPath: string; piece: PieceInfo }[] {
  return Array.from({ length: count }, () => ({ cid, carPath, piece }));
}

async function shardsOf(options: Parameters<typeof stageFile>[0]): Promise<{ cid: string; carPath: string; piece: PieceInfo }[]> {
  const { content, shape, workFolder, onProgress, signal } = options;
  const { shards } = await prepareShards({ content, code: { k: shape.needed, n: shape.count }, workFolder, onProgress, signal });
  return shards;
}
