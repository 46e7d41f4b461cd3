import { type FileHandle, open } from 'node:fs/promises';
import { hashInto } from '@chainsafe/hashtree';
import { MillraceError } from '../../errors.ts';
import { KEPT_HEIGHT, KEPT_RAW_BYTES, nodesAtHeight, truncateNodes, zeroNode } from './commp.ts';
import { FR32_PADDED_BYTES, FR32_RAW_BYTES, fr32Pad } from './fr32.ts';

/** One leaf of a piece and its Merkle path, the sibling of the leaf first; `path.length` is the piece's height. */
export interface LeafOpening {
  leaf: Uint8Array;
  path: Uint8Array[];
}

/** The size and shape of a piece, as needed to find nodes in its tree file. */
export interface PieceShape {
  rawSize: number;
  height: number;
}

/** Opens leaves of one piece from its payload file and its tree file. */
export interface PieceTree {
  /**
   * The leaf and its path. Reads 32 KiB of payload and one node per upper level; checks the payload against the kept node.
   * @throws bad-leaf-index, piece-damaged
   */
  openLeaf(leafIndex: number): Promise<LeafOpening>;
  close(): Promise<void>;
}

const CHUNK_NODES = 2048;
/** Levels of at most so many nodes are read once and kept while the tree is open: 128 KiB at most. */
const TOP_NODES_MAX = 2048;

/** Nodes kept of one level and their place in the tree file: levels from height 10 up to the root, each left to right. */
function levelPlace(shape: PieceShape, height: number): { offset: number; nodes: number } {
  let offset = 0;
  for (let level = KEPT_HEIGHT; level < height; level += 1) offset += nodesAtHeight(shape.rawSize, level) * 32;
  return { offset, nodes: nodesAtHeight(shape.rawSize, height) };
}

/** Bytes of the tree file of a piece: 0 for pieces of at most 32 KiB, else about 0.2 % of the payload. */
export function pieceTreeBytes(shape: PieceShape): number {
  if (shape.height < KEPT_HEIGHT) return 0;
  const top = levelPlace(shape, shape.height);
  return top.offset + top.nodes * 32;
}

/**
 * Completes a tree file that holds the nodes of height 10: appends all levels above, up to the root.
 * Nodes right of the payload are zero subtrees and are not kept. Constant memory.
 */
export async function completePieceTree(file: FileHandle, shape: PieceShape): Promise<void> {
  const children = Buffer.alloc(CHUNK_NODES * 32);
  const parents = Buffer.alloc(CHUNK_NODES * 16);
  for (let height = KEPT_HEIGHT; height < shape.height; height += 1) {
    const from = levelPlace(shape, height);
    const to = levelPlace(shape, height + 1);
    for (let node = 0; node < from.nodes; node += CHUNK_NODES) {
      let count = Math.min(CHUNK_NODES, from.nodes - node);
      await readFully(file, children.subarray(0, count * 32), from.offset + node * 32);
      if (count % 2 === 1) {
        children.set(zeroNode(height), count * 32);
        count += 1;
      }
      hashInto(children.subarray(0, count * 32), parents.subarray(0, count * 16));
      truncateNodes(parents, count * 16);
      await file.write(parents, 0, count * 16, to.offset + node * 16);
    }
  }
}

/**
 * Opens a stored piece for proving. `treePath` may be absent for pieces of at most 32 KiB.
 * @throws piece-damaged when a file cannot be opened
 */
export async function openPieceTree(input: { payloadPath: string; treePath: string; shape: PieceShape }): Promise<PieceTree> {
  const { shape } = input;
  const damaged = (cause?: unknown, leafIndex?: number) =>
    new MillraceError('piece-damaged', {
      actor: 'host',
      message: `The stored piece ${input.payloadPath} is damaged or gone`,
      values: { path: input.payloadPath, leafIndex },
      hint: 'Declare the fault, restore the file and recover, or surrender the deal.',
      cause,
    });
  let payload: FileHandle;
  let tree: FileHandle | undefined;
  try {
    payload = await open(input.payloadPath, 'r');
  } catch (error) {
    throw damaged(error);
  }
  try {
    tree = shape.height > KEPT_HEIGHT ? await open(input.treePath, 'r') : undefined;
  } catch (error) {
    await payload.close();
    throw damaged(error);
  }

  let top: { bytes: Uint8Array; offset: number } | undefined;
  const readTop = async (): Promise<{ bytes: Uint8Array; offset: number }> => {
    let height = KEPT_HEIGHT;
    while (nodesAtHeight(shape.rawSize, height) > TOP_NODES_MAX) height += 1;
    const { offset } = levelPlace(shape, height);
    const bytes = new Uint8Array(pieceTreeBytes(shape) - offset);
    await readFully(tree as FileHandle, bytes, offset);
    return { bytes, offset };
  };
  const treeNode = async (height: number, index: number): Promise<Uint8Array> => {
    const level = levelPlace(shape, height);
    if (index >= level.nodes) return zeroNode(height);
    top ??= await readTop();
    const at = level.offset + index * 32;
    if (at >= top.offset) return top.bytes.slice(at - top.offset, at - top.offset + 32);
    const node = new Uint8Array(32);
    await readFully(tree as FileHandle, node, at);
    return node;
  };

  const openLeaf = async (leafIndex: number): Promise<LeafOpening> => {
    if (!Number.isSafeInteger(leafIndex) || leafIndex < 0 || leafIndex >= 2 ** shape.height) {
      throw new MillraceError('bad-leaf-index', {
        actor: 'caller',
        message: `Got leaf ${leafIndex}, expected 0 to ${2 ** shape.height - 1}`,
        values: { leafIndex, height: shape.height },
      });
    }
    const block = Math.floor(leafIndex / 2 ** KEPT_HEIGHT);
    const low = Math.min(KEPT_HEIGHT, shape.height);
    const start = block * KEPT_RAW_BYTES;
    const raw = new Uint8Array(KEPT_RAW_BYTES);
    const wanted = Math.max(0, Math.min(KEPT_RAW_BYTES, shape.rawSize - start));
    await readFully(payload, raw.subarray(0, wanted), start);
    const opening = openInBlock(raw, leafIndex % 2 ** KEPT_HEIGHT, low);
    if (shape.height > KEPT_HEIGHT) {
      if (!Buffer.from(opening.top).equals(await treeNode(KEPT_HEIGHT, block))) throw damaged(undefined, leafIndex);
      for (let height = KEPT_HEIGHT, index = block; height < shape.height; height += 1, index = Math.floor(index / 2)) {
        opening.path.push(await treeNode(height, index % 2 === 0 ? index + 1 : index - 1));
      }
    }
    return { leaf: opening.leaf, path: opening.path };
  };

  return {
    openLeaf: (leafIndex) =>
      openLeaf(leafIndex).catch((error) => {
        throw error instanceof MillraceError ? error : damaged(error, leafIndex);
      }),
    async close() {
      await payload.close();
      await tree?.close();
    },
  };
}

function openInBlock(raw: Uint8Array, index: number, height: number): LeafOpening & { top: Uint8Array } {
  let nodes: Uint8Array = new Uint8Array((raw.length / FR32_RAW_BYTES) * FR32_PADDED_BYTES);
  fr32Pad(raw, 0, raw.length / FR32_RAW_BYTES, nodes);
  nodes = nodes.subarray(0, 32 * 2 ** height);
  const leaf = nodes.slice(index * 32, index * 32 + 32);
  const path: Uint8Array[] = [];
  let at = index;
  for (let level = 0; level < height; level += 1) {
    const sibling = at ^ 1;
    path.push(nodes.slice(sibling * 32, sibling * 32 + 32));
    const parents = new Uint8Array(nodes.length / 2);
    hashInto(nodes, parents);
    truncateNodes(parents, parents.length);
    nodes = parents;
    at >>= 1;
  }
  return { leaf, path, top: nodes };
}

async function readFully(file: FileHandle, target: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done);
    if (bytesRead === 0) throw new RangeError(`Got ${done} bytes at ${position}, expected ${target.length}`);
    done += bytesRead;
  }
}

/** The root that a leaf and its path lead to; equal to the piece's root for a right opening. */
export function rootOfOpening(opening: LeafOpening, leafIndex: number): Uint8Array {
  let node = opening.leaf;
  opening.path.forEach((sibling, height) => {
    const isRight = Math.floor(leafIndex / 2 ** height) % 2 === 1;
    const pair = isRight ? Buffer.concat([sibling, node]) : Buffer.concat([node, sibling]);
    node = new Uint8Array(32);
    hashInto(pair, node);
    truncateNodes(node, 32);
  });
  return node;
}
