import type { CID } from 'multiformats/cid';
import { cidOf, DAG_PB, encodeFileNode, LEAF_BYTES, NODE_LINKS_MAX, RAW } from './block.ts';
import { encodeSectionPrefix, sectionBytes } from './car.ts';
import type { ByteReader } from './source-tree.ts';

/**
 * A file's DAG before its bytes are known: raw leaves of 1 MiB, nodes of at most 1,024 links, balanced (the profile
 * `unixfs-v1-2025`). All block sizes follow from the file's size, so its CAR can be laid out root first and written in one
 * pass: each node goes to its place when its children are known.
 */
export interface FilePlan {
  size: number;
  level: number;
  /** Bytes of all blocks (`Tsize`), and of all their CAR sections. */
  dagBytes: number;
  carBytes: number;
}

/** Where blocks go in a CAR that is being built. */
export interface BlockSink {
  put(position: number, prefix: Uint8Array, block: Uint8Array): Promise<void>;
}

const DUMMY_CID = cidOf(RAW, new Uint8Array());
const fullPlans = new Map<number, NodePlan>();

interface NodePlan {
  blockBytes: number;
  dagBytes: number;
  carBytes: number;
}

/** The layout of a file of `size` bytes. */
export function planFile(size: number): FilePlan {
  let level = 0;
  while (spanOf(level) < size) level += 1;
  const { dagBytes, carBytes } = planNode(level, size);
  return { size, level, dagBytes, carBytes };
}

/** Reads a file and writes its blocks in depth-first order from `position` on; gives its root. */
export async function buildFile(input: {
  plan: FilePlan;
  reader: ByteReader;
  position: number;
  sink: BlockSink;
  onLeaf: (bytes: number) => void;
}): Promise<{ cid: CID; dagBytes: number }> {
  const { plan, reader, sink, onLeaf } = input;
  let spare: Uint8Array[] = [new Uint8Array(Math.min(LEAF_BYTES, plan.size)), new Uint8Array(plan.level === 0 ? 0 : LEAF_BYTES)];
  let writing: Promise<void> = Promise.resolve();

  const buildLeaf = async (size: number, position: number): Promise<CID> => {
    const [buffer, other] = spare as [Uint8Array, Uint8Array];
    spare = [other, buffer];
    const block = buffer.subarray(0, size);
    await reader.fill(block);
    const cid = cidOf(RAW, block);
    await writing; // at most one leaf is on its way to the disk, the other buffer is then free
    writing = sink.put(position, encodeSectionPrefix(cid, size), block);
    writing.catch(() => {});
    onLeaf(size);
    return cid;
  };

  const buildNode = async (level: number, size: number, position: number): Promise<CID> => {
    if (level === 0) return buildLeaf(size, position);
    const { blockBytes } = planNode(level, size);
    const children: { cid: CID; tsize: number; fileBytes: number }[] = [];
    let at = position + sectionBytes(blockBytes);
    for (const fileBytes of childSizes(level, size)) {
      const child = planNode(level - 1, fileBytes);
      children.push({ cid: await buildNode(level - 1, fileBytes, at), tsize: child.dagBytes, fileBytes });
      at += child.carBytes;
    }
    const block = encodeFileNode(children);
    const cid = cidOf(DAG_PB, block);
    await writing;
    await sink.put(position, encodeSectionPrefix(cid, block.length), block);
    return cid;
  };

  try {
    return { cid: await buildNode(plan.level, plan.size, input.position), dagBytes: plan.dagBytes };
  } finally {
    await writing;
  }
}

function spanOf(level: number): number {
  return LEAF_BYTES * NODE_LINKS_MAX ** level;
}

function childSizes(level: number, size: number): number[] {
  const span = spanOf(level - 1);
  const full = Math.floor(size / span);
  const sizes = new Array<number>(full).fill(span);
  if (size > full * span) sizes.push(size - full * span);
  return sizes;
}

function planNode(level: number, size: number): NodePlan {
  if (level === 0) return { blockBytes: size, dagBytes: size, carBytes: sectionBytes(size) };
  const isFull = size === spanOf(level);
  const known = isFull ? fullPlans.get(level) : undefined;
  if (known !== undefined) return known;
  const children = childSizes(level, size).map((fileBytes) => ({ fileBytes, plan: planNode(level - 1, fileBytes) }));
  const block = encodeFileNode(children.map(({ fileBytes, plan }) => ({ cid: DUMMY_CID, tsize: plan.dagBytes, fileBytes })));
  const below = children.reduce((sum, { plan }) => ({ dag: sum.dag + plan.dagBytes, car: sum.car + plan.carBytes }), { dag: 0, car: 0 });
  const plan = { blockBytes: block.length, dagBytes: block.length + below.dag, carBytes: sectionBytes(block.length) + below.car };
  if (isFull) fullPlans.set(level, plan);
  return plan;
}
