import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { decodeUnixfs, isIdentity, RAW } from '../content/block.ts';
import { encodeCarHeader, sectionBytes } from '../content/car.ts';
import type { BlockGetter, ByteSpan } from '../content/unixfs-walk.ts';

/** The blocks of a CAR of part of a file, in order, and how long it will be; leaves are named, not read. */
export interface SpanPlan {
  carBytes: number;
  blocks: PlannedBlock[];
}

/** A block of a plan; nodes come with their bytes. */
export interface PlannedBlock {
  cid: CID;
  sizeBytes: number;
  bytes: Uint8Array | undefined;
}

const SPAN_BYTES_MAX = 16 << 20;
const BLOCKS_MAX = 1024;
const NODE_BYTES_MAX = 4 << 20;
const DEPTH_MAX = 32;

/**
 * Plans the CAR of a span of a file from the file's nodes alone, in the order of `walkDag` with every occurrence of a block: its length
 * is known before a leaf is read. Undefined for what is no plain file of few, raw leaves, which must be walked to be measured.
 * @throws bad-block and what `getBlock` throws
 */
export async function planSpan(file: { root: CID; target: CID }, span: ByteSpan, getBlock: BlockGetter): Promise<SpanPlan | undefined> {
  if (span.to - span.from > SPAN_BYTES_MAX) return undefined;
  const plan: SpanPlan = { carBytes: encodeCarHeader(file.root).length, blocks: [] };
  let nodeBytes = 0;
  const add = (cid: CID, sizeBytes: number, bytes?: Uint8Array): boolean => {
    if (isIdentity(cid)) return true; // carries its own bytes
    plan.blocks.push({ cid, sizeBytes, bytes });
    plan.carBytes += sectionBytes(sizeBytes, cid.bytes.length);
    return plan.blocks.length <= BLOCKS_MAX;
  };
  const visit = async (cid: CID, start: number, depth: number): Promise<boolean> => {
    const block = await getBlock(cid);
    const node = decodeUnixfs(cid, block);
    nodeBytes += block.length;
    if (node.kind !== 'file' || depth > DEPTH_MAX || nodeBytes > NODE_BYTES_MAX || !add(cid, block.length, block)) return false;
    let position = start + node.data.length;
    for (const link of node.links) {
      const from = position;
      position += link.fileBytes;
      if (from >= span.to || position <= span.from) continue;
      const isPlanned = link.cid.code === RAW ? add(link.cid, link.fileBytes) : await visit(link.cid, from, depth + 1);
      if (!isPlanned) return false;
    }
    return true;
  };
  if (file.target.code === RAW) return undefined;
  return (await visit(file.target, 0, 0)) ? plan : undefined;
}

const AT_ONCE = 4;

/** Makes sure that all leaves of a plan are to be had. @throws what `missing` gives, and what `hasBlock` throws */
export async function checkLeaves(
  plan: SpanPlan,
  hasBlock: (cid: CID) => Promise<boolean>,
  missing: (cid: CID) => MillraceError,
): Promise<void> {
  const leaves = plan.blocks.filter(({ bytes }) => bytes === undefined);
  for (let at = 0; at < leaves.length; at += AT_ONCE) {
    const some = leaves.slice(at, at + AT_ONCE);
    const found = await Promise.all(some.map(({ cid }) => hasBlock(cid)));
    const lost = some.find((_, index) => found[index] === false);
    if (lost !== undefined) throw missing(lost.cid);
  }
}

/** The blocks of a plan, leaves read as they are taken. @throws bad-block for a leaf of another size than its node says, and as `getBlock` */
export async function* readPlan(plan: SpanPlan, getBlock: BlockGetter): AsyncGenerator<{ cid: CID; bytes: Uint8Array }> {
  for (const { cid, sizeBytes, bytes: known } of plan.blocks) {
    const bytes = known ?? (await getBlock(cid));
    if (bytes.length !== sizeBytes) throw wrongSize(cid, bytes.length, sizeBytes);
    yield { cid, bytes };
  }
}

function wrongSize(cid: CID, got: number, expected: number): MillraceError {
  return new MillraceError('bad-block', {
    actor: 'peer',
    message: `Leaf ${cid} has ${got} bytes, its node says ${expected}`,
    values: { cid: cid.toString(), got, expected },
  });
}
