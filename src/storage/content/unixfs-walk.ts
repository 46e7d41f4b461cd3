import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { decodeUnixfs, type UnixfsNode } from './block.ts';

/** Gives the verified bytes of a block, or throws a typed error. */
export type BlockGetter = (cid: CID) => Promise<Uint8Array>;

/** A block met on a walk, with its bytes. */
export interface WalkedBlock {
  cid: CID;
  bytes: Uint8Array;
}

/** Bytes of a file to walk: `from` inclusive to `to` exclusive. */
export interface ByteSpan {
  from: number;
  to: number;
}

const STEPS_MAX = 64;
const DEPTH_MAX = 32;

/**
 * Follows a path of names below a directory, sharded ones too. Gives the target and the blocks on the way to it, the root
 * first, the target excluded.
 * @throws not-found, bad-path and what `getBlock` throws
 */
export async function resolvePath(root: CID, steps: string[], getBlock: BlockGetter): Promise<{ target: CID; way: WalkedBlock[] }> {
  if (steps.length === 0) return { target: root, way: [] };
  if (steps.length > STEPS_MAX || steps.some((step) => step === '' || step === '.' || step === '..' || step.includes('/'))) {
    throw new MillraceError('bad-path', {
      actor: 'caller',
      message: `Got path ${JSON.stringify(steps.join('/').slice(0, 200))}, expected up to ${STEPS_MAX} names`,
      values: { path: steps.join('/').slice(0, 200) },
    });
  }
  const way: WalkedBlock[] = [];
  let failure: unknown;
  const store = {
    async *get(cid: CID) {
      try {
        const bytes = await getBlock(cid);
        if (!way.some((known) => known.cid.equals(cid))) way.push({ cid, bytes });
        yield bytes;
      } catch (error) {
        failure = error;
        throw error;
      }
    },
  };
  let target: CID | undefined;
  const { walkPath } = await import('ipfs-unixfs-exporter');
  try {
    const path = [root.toString(), ...steps].join('/');
    for await (const entry of walkPath(path, store as never)) target = entry.cid;
  } catch (cause) {
    if (failure !== undefined) throw failure;
    throw notFound(root, steps, cause);
  }
  if (target === undefined) throw notFound(root, steps);
  const found = target;
  return { target: found, way: way.filter((block) => !block.cid.equals(found)) };
}

/**
 * The blocks of a DAG in depth-first order. Scope `block`: the first alone; `entity`: a file with all its blocks, or what
 * a directory needs to be listed; `all`: everything below. A span limits a file to the blocks that hold those bytes.
 */
export async function* walkDag(
  cid: CID,
  options: { scope: 'block' | 'entity' | 'all'; span?: ByteSpan; getBlock: BlockGetter },
  depth = 0,
): AsyncGenerator<WalkedBlock> {
  if (depth > DEPTH_MAX)
    throw new MillraceError('bad-block', { actor: 'peer', message: `A DAG deeper than ${DEPTH_MAX}`, values: { limit: DEPTH_MAX } });
  const bytes = await options.getBlock(cid);
  yield { cid, bytes };
  if (options.scope === 'block') return;
  const node = decodeUnixfs(cid, bytes);
  let position = node.data.length;
  for (const link of node.links) {
    const start = position;
    position += link.fileBytes;
    if (!isWanted(node, link.name, start, position, options)) continue;
    const span = options.span && { from: options.span.from - start, to: options.span.to - start };
    yield* walkDag(link.cid, { ...options, span: node.kind === 'file' ? span : undefined }, depth + 1);
  }
}

function isWanted(
  node: UnixfsNode,
  name: string,
  start: number,
  end: number,
  options: { scope: 'block' | 'entity' | 'all'; span?: ByteSpan },
): boolean {
  if (node.kind === 'file') return options.span === undefined || (start < options.span.to && end > options.span.from);
  if (options.scope === 'all') return true;
  return node.kind === 'hamt' && isShardName(name, node.fanout);
}

/** True for a link of a sharded directory that leads to another shard: its name is the bucket's number alone. */
export function isShardName(name: string, fanout: number): boolean {
  return name.length === shardPrefixLength(fanout);
}

/** Letters before each name in a sharded directory: the bucket's number in hexadecimal. */
export function shardPrefixLength(fanout: number): number {
  return (Math.max(2, fanout) - 1).toString(16).length;
}

function notFound(root: CID, steps: string[], cause?: unknown): MillraceError {
  return new MillraceError('not-found', {
    actor: 'caller',
    message: `There is no ${JSON.stringify(steps.join('/').slice(0, 200))} in ${root}`,
    values: { cid: root.toString(), path: steps.join('/').slice(0, 200) },
    cause,
  });
}
