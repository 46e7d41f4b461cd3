import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { parseCid } from './block.ts';
import { type BlockFetcher, type ContentSource, createBlockFetcher, type FetchLimits } from './block-fetcher.ts';
import { fetchNode, readFile } from './content-reader.ts';
import { type Keys, openSealed, readStart, type SealedContent } from './sealed-reader.ts';
import { resolvePath } from './unixfs-walk.ts';

/** One file of a content, any bytes of which can be read: verified, and opened when it is sealed. */
export interface OpenedFile {
  sizeBytes: number;
  /** Bytes `from` to `to` (exclusive) in order. @throws content-unavailable, container-damaged */
  read(from: number, to: number): AsyncGenerator<Uint8Array>;
}

/** A content whose header and list of files have been read. */
export interface OpenedContent {
  cid: string;
  isSealed: boolean;
  /** The file at a path; the empty path is the content itself when it is a single file. @throws not-found, wrong-content-kind */
  file(path: string): Promise<OpenedFile>;
}

/**
 * Opens a content to read parts of its files at random places, from several holders at once. Every block is verified; of
 * sealed content only the chunks that hold the bytes are fetched and opened.
 * @throws bad-cid, no-key, wrong-file-key, container-damaged, bad-manifest, content-unavailable
 */
export async function openContent(input: {
  cid: string;
  sources: ContentSource[];
  keys?: Keys;
  signal?: AbortSignal;
  limits?: FetchLimits;
}): Promise<OpenedContent> {
  const root = parseCid(input.cid);
  const fetcher = createBlockFetcher({ sources: input.sources, signal: input.signal, limits: input.limits });
  const node = await fetchNode(fetcher, root);
  const start = node.kind === 'file' ? await readStart(fetcher, root) : undefined;
  const sealed =
    start === undefined ? undefined : await openSealed({ fetcher, cid: root, size: node.fileSize, start, keys: input.keys ?? {} });
  return {
    cid: root.toString(),
    isSealed: sealed !== undefined,
    file: async (path) => (sealed === undefined ? publicFile(fetcher, root, path) : sealedFile(sealed, root, path)),
  };
}

async function publicFile(fetcher: BlockFetcher, root: CID, path: string): Promise<OpenedFile> {
  const steps = path.split('/').filter((step) => step !== '');
  const { target } = await resolvePath(root, steps, (cid) => fetcher.block(cid));
  const node = await fetchNode(fetcher, target);
  if (node.kind !== 'file') throw notAFile(root, path);
  return { sizeBytes: node.fileSize, read: (from, to) => readFile(fetcher, target, { from, to }) };
}

function sealedFile(sealed: SealedContent, root: CID, path: string): OpenedFile {
  const { kind, entries } = sealed.manifest;
  const entry = path === '' && kind === 'file' ? entries[0] : entries.find((each) => each.path === path);
  if (entry === undefined && path === '') throw notAFile(root, path);
  if (entry === undefined) {
    throw new MillraceError('not-found', {
      actor: 'caller',
      message: `There is no ${JSON.stringify(path)} in ${root}`,
      values: { cid: root.toString(), path },
    });
  }
  if (entry.isFolder) throw notAFile(root, path);
  return {
    sizeBytes: entry.size,
    read: (from, to) => sealed.read(entry.offset + from, entry.offset + Math.min(to, entry.size)),
  };
}

function notAFile(root: CID, path: string): MillraceError {
  return new MillraceError('wrong-content-kind', {
    actor: 'caller',
    message: `${JSON.stringify(path)} in ${root} is a folder`,
    values: { cid: root.toString(), path },
    hint: 'Give the path of one file.',
  });
}
