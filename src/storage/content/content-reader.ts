import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { DAG_PB, decodeUnixfs, RAW, type UnixfsNode } from './block.ts';
import type { BlockFetcher, LeafRun } from './block-fetcher.ts';
import { checkRelativePath } from './manifest-sealed.ts';
import type { LeafParent } from './run-chunk.ts';
import { isShardName, shardPrefixLength } from './unixfs-walk.ts';

/** A file or folder found in a public UnixFS tree. */
export interface TreeEntry {
  path: string;
  cid: CID;
  isFolder: boolean;
}

const RUN_BYTES = 8 << 20;
const WINDOW_BYTES = 32 << 20;
const WINDOW_UNITS = 24;
const DEPTH_MAX = 32;
const ENTRIES_MAX = 1_000_000;
/** More than a page can show. */
const FOLDER_ENTRIES_MAX = 20_000;

/** Bytes that come next, at once or by a request. */
type Unit = { ready: Uint8Array } | { run: LeafRun; skip: number; take: number };

/** The UnixFS node of a CID, verified. */
export async function fetchNode(fetcher: Pick<BlockFetcher, 'block'>, cid: CID): Promise<UnixfsNode> {
  return decodeUnixfs(cid, await fetcher.block(cid));
}

/**
 * Bytes `from` to `to` (exclusive) of a file in order, while up to 32 MiB ahead are being fetched from all sources.
 * @throws content-unavailable, bad-block
 */
export async function* readFile(
  fetcher: Pick<BlockFetcher, 'block' | 'run'>,
  cid: CID,
  span: { from: number; to: number } = { from: 0, to: Number.POSITIVE_INFINITY },
): AsyncGenerator<Uint8Array> {
  const ahead: { bytes: number; result: Promise<Uint8Array[]> }[] = [];
  const units = unitsOf(fetcher, cid, span)[Symbol.asyncIterator]();
  let aheadBytes = 0;
  let isEnd = false;
  try {
    for (;;) {
      while (!isEnd && ahead.length < WINDOW_UNITS && aheadBytes < WINDOW_BYTES) {
        const { done, value } = await units.next();
        if (done === true) {
          isEnd = true;
          break;
        }
        const bytes = 'ready' in value ? value.ready.length : value.run.to - value.run.from;
        const result = 'ready' in value ? Promise.resolve([value.ready]) : fetchUnit(fetcher, value);
        result.catch(() => {});
        ahead.push({ bytes, result });
        aheadBytes += bytes;
      }
      const next = ahead.shift();
      if (next === undefined) return;
      yield* await next.result;
      aheadBytes -= next.bytes;
    }
  } finally {
    await units.return?.(undefined);
  }
}

async function fetchUnit(fetcher: Pick<BlockFetcher, 'block' | 'run'>, unit: Extract<Unit, { run: LeafRun }>): Promise<Uint8Array[]> {
  const { run, skip, take } = unit;
  const single = run.leaves.length === 1 ? run.leaves[0] : undefined;
  const blocks = single === undefined ? await fetcher.run(run) : [await fetcher.block(single.cid)];
  const parts: Uint8Array[] = [];
  let position = 0;
  for (const [index, block] of blocks.entries()) {
    const expected = (run.leaves[index] as { bytes: number }).bytes;
    if (block.length !== expected) throw wrongSize(run.file, block.length, expected);
    const [start, end] = [Math.max(0, skip - position), Math.min(block.length, skip + take - position)];
    if (end > start) parts.push(block.subarray(start, end));
    position += block.length;
  }
  return parts;
}

/** Walks a file's nodes and gathers neighbouring leaves into runs of about 8 MiB. */
async function* unitsOf(fetcher: Pick<BlockFetcher, 'block' | 'run'>, file: CID, span: { from: number; to: number }): AsyncGenerator<Unit> {
  let run: LeafRun = { file, from: 0, to: 0, leaves: [] };
  const flush = (): Unit => {
    const skip = Math.max(0, span.from - run.from);
    const unit = { run, skip, take: Math.min(run.to, span.to) - run.from - skip };
    run = { file, from: run.to, to: run.to, leaves: [] };
    return unit;
  };
  async function* visit(cid: CID, start: number, size: number, parent?: LeafParent): AsyncGenerator<Unit> {
    const depth = parent === undefined ? 0 : parent.depth + 1;
    if (start >= span.to || (start + size <= span.from && size > 0)) return;
    if (parent !== undefined && cid.code === RAW) {
      if (run.leaves.length > 0 && (run.to !== start || run.to - run.from + size > RUN_BYTES)) yield flush();
      if (run.leaves.length === 0) run.from = start;
      run.leaves.push({ cid, bytes: size, start, parent });
      run.to = start + size;
      return;
    }
    if (depth > DEPTH_MAX) throw wrongSize(cid, depth, DEPTH_MAX);
    const block = await fetcher.block(cid);
    const node = decodeUnixfs(cid, block);
    if (node.kind !== 'file') throw notAFile(cid, node.kind);
    if (depth > 0 && node.fileSize !== size) throw wrongSize(cid, node.fileSize, size);
    if (node.data.length > 0) {
      if (run.leaves.length > 0) yield flush();
      const ready = node.data.subarray(Math.max(0, span.from - start), Math.max(0, Math.min(node.data.length, span.to - start)));
      if (ready.length > 0) yield { ready };
      run = { file, from: start + node.data.length, to: start + node.data.length, leaves: [] };
    }
    let position = start + node.data.length;
    const own: LeafParent = { cid, start, bytes: block.length, depth };
    for (const link of node.links) {
      yield* visit(link.cid, position, link.fileBytes, own);
      position += link.fileBytes;
    }
  }
  yield* visit(file, 0, Number.POSITIVE_INFINITY);
  if (run.leaves.length > 0) yield flush();
}

/**
 * All files and folders below a directory, depth first, names checked: none can leave the folder it is written to.
 * @throws bad-manifest, unsupported-entry, too-many-entries, content-unavailable
 */
export async function listTree(fetcher: BlockFetcher, root: CID): Promise<TreeEntry[]> {
  const entries: TreeEntry[] = [];
  const visit = async (cid: CID, path: string, node: UnixfsNode, depth: number): Promise<void> => {
    if (depth > DEPTH_MAX * 4) throw wrongSize(cid, depth, DEPTH_MAX * 4);
    if (path !== '') entries.push({ path, cid, isFolder: true });
    const names = new Set<string>();
    const add = async (name: string, child: CID): Promise<void> => {
      if (entries.length >= ENTRIES_MAX) throw tooMany(root);
      if (name.includes('/') || names.has(name)) checkRelativePath('');
      names.add(name);
      const childPath = checkRelativePath(path === '' ? name : `${path}/${name}`);
      if (child.code === RAW) return void entries.push({ path: childPath, cid: child, isFolder: false });
      const childNode = await fetchNode(fetcher, child);
      if (childNode.kind === 'file') entries.push({ path: childPath, cid: child, isFolder: false });
      else if (childNode.kind === 'symlink') throw unsupportedLink(childPath);
      else await visit(child, childPath, childNode, depth + 1);
    };
    await eachLink(fetcher, node, add, 0);
  };
  const node = await fetchNode(fetcher, root);
  if (node.kind !== 'directory' && node.kind !== 'hamt') throw notAFile(root, node.kind);
  await visit(root, '', node, 0);
  return entries;
}

/**
 * What lies directly in a directory, sharded or not, sorted by name; `sizeBytes` is that of all blocks below (`Tsize`).
 * @throws wrong-content-kind, too-many-entries, content-unavailable
 */
export async function listFolder(
  fetcher: Pick<BlockFetcher, 'block'>,
  root: CID,
): Promise<{ name: string; cid: CID; sizeBytes: number }[]> {
  const entries: { name: string; cid: CID; sizeBytes: number }[] = [];
  const node = await fetchNode(fetcher, root);
  if (node.kind !== 'directory' && node.kind !== 'hamt') throw notAFile(root, node.kind);
  await eachLink(
    fetcher,
    node,
    async (name, cid, sizeBytes) => {
      if (entries.length >= FOLDER_ENTRIES_MAX) throw tooMany(root);
      entries.push({ name, cid, sizeBytes });
    },
    0,
  );
  return entries.sort((one, other) => (one.name < other.name ? -1 : 1));
}

async function eachLink(
  fetcher: Pick<BlockFetcher, 'block'>,
  node: UnixfsNode,
  add: (name: string, cid: CID, sizeBytes: number) => Promise<void>,
  depth: number,
): Promise<void> {
  if (depth > DEPTH_MAX)
    throw new MillraceError('bad-block', {
      actor: 'peer',
      message: `A directory sharded deeper than ${DEPTH_MAX}`,
      values: { limit: DEPTH_MAX },
    });
  // Neighbours are fetched together: a directory of many folders or large files would else wait for each in turn.
  const shards = new Map<CID, Promise<UnixfsNode>>();
  for (const [index, link] of node.links.entries()) {
    for (const next of node.links.slice(index, index + 8)) {
      if (node.kind === 'hamt' && isShardName(next.name, node.fanout) && next.cid.code === DAG_PB && !shards.has(next.cid)) {
        const fetching = fetchNode(fetcher, next.cid);
        fetching.catch(() => {});
        shards.set(next.cid, fetching);
      }
    }
    if (node.kind !== 'hamt') await add(link.name, link.cid, link.tsize);
    else if (!isShardName(link.name, node.fanout)) await add(link.name.slice(shardPrefixLength(node.fanout)), link.cid, link.tsize);
    else {
      const shard = await (shards.get(link.cid) ?? fetchNode(fetcher, link.cid));
      shards.delete(link.cid);
      if (shard.kind !== 'hamt') throw notAFile(link.cid, shard.kind);
      await eachLink(fetcher, shard, add, depth + 1);
    }
  }
}

function wrongSize(cid: CID, got: number, expected: number): MillraceError {
  return new MillraceError('bad-block', {
    actor: 'peer',
    message: `Content ${cid} contradicts itself: got ${got}, expected ${expected}`,
    values: { cid: cid.toString(), got, expected },
    hint: 'Whoever made this content made it so; no other holder can have it better.',
  });
}

function notAFile(cid: CID, kind: string): MillraceError {
  return new MillraceError('wrong-content-kind', {
    actor: 'caller',
    message: `${cid} is a ${kind}`,
    values: { cid: cid.toString(), kind },
  });
}

function unsupportedLink(path: string): MillraceError {
  return new MillraceError('unsupported-entry', {
    actor: 'peer',
    message: `The content holds a symbolic link, ${JSON.stringify(path)}, which is not written to your disk`,
    values: { path },
    hint: 'Get single files by their path.',
  });
}

function tooMany(cid: CID): MillraceError {
  return new MillraceError('too-many-entries', {
    actor: 'peer',
    message: `${cid} holds more than ${ENTRIES_MAX} files`,
    values: { cid: cid.toString(), limit: ENTRIES_MAX },
    hint: 'Get single files or folders by their path.',
  });
}
