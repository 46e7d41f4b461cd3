import type { Writable } from 'node:stream';
import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { parseCid, RAW } from './block.ts';
import { type ContentSource, createBlockFetcher, type FetchLimits, type SourceReport } from './block-fetcher.ts';
import { fetchNode, listTree, readFile } from './content-reader.ts';
import { type Output, type OutputEntry, openFileOutput, openStreamOutput } from './output.ts';
import { type Keys, openSealed, readStart } from './sealed-reader.ts';
import { resolvePath } from './unixfs-walk.ts';

/** How far a retrieval is, in bytes of the files as they are written. `totalBytes` is unknown for public folders. */
export interface RetrievalProgress {
  doneBytes: number;
  totalBytes: number | undefined;
}

/** What to get, from whom, with which keys, and where to. */
export interface RetrievalInput {
  cid: string;
  /** A file or folder inside the content. */
  path?: string;
  sources: ContentSource[];
  keys?: Keys;
  /** A path on the disk, or a stream such as standard output, which takes a single file. */
  output: { path: string; overwrite?: boolean } | { stream: Writable };
  /** Gives sealed content as it is stored, still sealed. */
  raw?: boolean;
  onProgress?: (progress: RetrievalProgress) => void;
  signal?: AbortSignal;
  limits?: FetchLimits;
}

/** What was got. */
export interface Retrieval {
  cid: string;
  kind: 'file' | 'folder';
  files: number;
  bytes: number;
  /** Bytes that an earlier, interrupted retrieval had brought. */
  resumedBytes: number;
  wasSealed: boolean;
  sources: SourceReport[];
}

const FILES_AHEAD = 16;

/** What will be written: entries in order, and their bytes from any position on. */
interface Plan {
  kind: 'file' | 'folder';
  entries: OutputEntry[];
  totalBytes: number | undefined;
  wasSealed: boolean;
  bytesBefore(entry: number): number;
  read(from: { entry: number; offset: number }): AsyncGenerator<{ entry: number; bytes: Uint8Array }>;
}

/**
 * Gets content by its CID from several holders at once: every block is verified, a holder that lies is not asked again, one
 * that fails or stalls is replaced by the others. Sealed content is opened. Files appear at their place only when complete;
 * what came before an interruption is used again. Memory does not grow with the content.
 * @throws bad-cid, bad-path, not-found, content-unavailable, no-key, wrong-file-key, container-damaged, bad-manifest,
 *   unsupported-entry, output-exists, output-is-folder, disk-full
 */
export async function retrieve(input: RetrievalInput): Promise<Retrieval> {
  const { signal, onProgress } = input;
  const root = parseCid(input.cid);
  if (input.sources.length === 0) throw noHolders(root);
  const fetcher = createBlockFetcher({ sources: input.sources, signal, limits: input.limits });
  const steps = (input.path ?? '').split('/').filter((step) => step !== '');
  const plan = (await planSealed(fetcher, root, steps, input)) ?? (await planPublic(fetcher, root, steps));
  const output = await openOutput(input, plan);
  const resumedBytes = plan.bytesBefore(output.position.entry) + output.position.offset;
  let doneBytes = resumedBytes;
  try {
    for await (const { entry, bytes } of plan.read(output.position)) {
      signal?.throwIfAborted();
      await output.write(entry, bytes);
      doneBytes += bytes.length;
      onProgress?.({ doneBytes, totalBytes: plan.totalBytes });
    }
    await output.finish();
  } catch (error) {
    await output.pause().catch(() => {});
    throw error;
  }
  const files = plan.entries.filter((entry) => !entry.isFolder).length;
  return {
    cid: root.toString(),
    kind: plan.kind,
    files,
    bytes: doneBytes,
    resumedBytes,
    wasSealed: plan.wasSealed,
    sources: fetcher.report(),
  };
}

async function planSealed(
  fetcher: ReturnType<typeof createBlockFetcher>,
  root: CID,
  steps: string[],
  input: RetrievalInput,
): Promise<Plan | undefined> {
  if (input.raw === true) return undefined;
  const node = await fetchNode(fetcher, root);
  if (node.kind !== 'file') return undefined;
  const start = await readStart(fetcher, root);
  const sealed = await openSealed({ fetcher, cid: root, size: node.fileSize, start, keys: input.keys ?? {} });
  if (sealed === undefined) return undefined;
  const path = steps.join('/');
  const { kind, entries } = sealed.manifest;
  const chosen = path === '' ? entries : entries.filter((entry) => entry.path === path || entry.path.startsWith(`${path}/`));
  const single = kind === 'file' && path === '' ? entries[0] : chosen.find((entry) => entry.path === path && !entry.isFolder);
  const taken = single === undefined ? chosen : [single];
  if (taken.length === 0) throw notFound(root, path);
  const first = taken[0] as (typeof taken)[number];
  const last = taken[taken.length - 1] as (typeof taken)[number];
  const prefix = path === '' ? 0 : path.length + 1;
  return {
    kind: single === undefined ? 'folder' : 'file',
    // The folder itself may be an entry, when it is empty: it is the output's root.
    entries: taken.map((entry) => ({ ...entry, path: single === undefined ? entry.path.slice(prefix) || '.' : entry.path })),
    totalBytes: last.offset + last.size - first.offset,
    wasSealed: true,
    bytesBefore: (entry) => (taken[entry]?.offset ?? last.offset + last.size) - first.offset,
    async *read(from) {
      // Entries of a path are neighbours, because the manifest is sorted; only a foreign manifest could have gaps.
      for (let entry = from.entry; entry < taken.length; ) {
        let end = entry;
        while (end + 1 < taken.length && taken[end + 1]?.offset === (taken[end]?.offset ?? 0) + (taken[end]?.size ?? 0)) end += 1;
        const [head, tail] = [taken[entry] as (typeof taken)[number], taken[end] as (typeof taken)[number]];
        const offset = entry === from.entry ? from.offset : 0;
        let position = head.offset + offset;
        for await (const bytes of sealed.read(position, tail.offset + tail.size)) {
          for (let rest = bytes; rest.length > 0; ) {
            while (position >= (taken[entry] as typeof head).offset + (taken[entry] as typeof head).size) entry += 1;
            const left = (taken[entry] as typeof head).offset + (taken[entry] as typeof head).size - position;
            const part = rest.subarray(0, left);
            yield { entry, bytes: part };
            position += part.length;
            rest = rest.subarray(part.length);
          }
        }
        entry = end + 1;
      }
    },
  };
}

async function planPublic(fetcher: ReturnType<typeof createBlockFetcher>, root: CID, steps: string[]): Promise<Plan> {
  const { target } = await resolvePath(root, steps, (cid) => fetcher.block(cid));
  const node = await fetchNode(fetcher, target);
  if (node.kind === 'file') {
    return {
      kind: 'file',
      entries: [{ path: steps.at(-1) ?? target.toString(), isFolder: false }],
      totalBytes: node.fileSize,
      wasSealed: false,
      bytesBefore: () => 0,
      async *read({ offset }) {
        for await (const bytes of readFile(fetcher, target, { from: offset, to: node.fileSize })) yield { entry: 0, bytes };
      },
    };
  }
  const entries = await listTree(fetcher, target);
  return {
    kind: 'folder',
    entries,
    totalBytes: undefined,
    wasSealed: false,
    bytesBefore: () => 0,
    async *read(from) {
      const ahead = new Map<number, Promise<Uint8Array>>(); // small files are fetched side by side
      for (let entry = from.entry; entry < entries.length; entry += 1) {
        for (let next = entry; next < Math.min(entries.length, entry + FILES_AHEAD); next += 1) {
          const { cid, isFolder } = entries[next] as (typeof entries)[number];
          if (isFolder || cid.code !== RAW || ahead.has(next)) continue;
          const fetching = fetcher.block(cid);
          fetching.catch(() => {});
          ahead.set(next, fetching);
        }
        const { cid, isFolder } = entries[entry] as (typeof entries)[number];
        if (isFolder) continue;
        const small = ahead.get(entry);
        ahead.delete(entry);
        if (small !== undefined) {
          yield { entry, bytes: (await small).subarray(entry === from.entry ? from.offset : 0) };
          continue;
        }
        const span = { from: entry === from.entry ? from.offset : 0, to: Number.POSITIVE_INFINITY };
        for await (const bytes of readFile(fetcher, cid, span)) yield { entry, bytes };
      }
    },
  };
}

async function openOutput(input: RetrievalInput, plan: Plan): Promise<Output> {
  if ('path' in input.output) {
    const identity = `${input.cid}/${input.path ?? ''}${input.raw === true ? ' raw' : ''}`;
    return openFileOutput({ ...input.output, kind: plan.kind, entries: plan.entries, identity });
  }
  if (plan.kind === 'folder') {
    throw new MillraceError('output-is-folder', {
      actor: 'caller',
      message: `${input.cid} is a folder of ${plan.entries.length} entries, which cannot go to a stream`,
      values: { cid: input.cid, entries: plan.entries.length },
      hint: 'Give a folder with -o, or the path of one file.',
    });
  }
  return openStreamOutput(input.output.stream);
}

function notFound(root: CID, path: string): MillraceError {
  return new MillraceError('not-found', {
    actor: 'caller',
    message: `There is no ${JSON.stringify(path)} in ${root}`,
    values: { cid: root.toString(), path },
  });
}

function noHolders(root: CID): MillraceError {
  return new MillraceError('content-unavailable', {
    actor: 'peer',
    message: `Nobody is known to hold ${root}`,
    values: { cid: root.toString(), holders: [] },
    hint: 'Check the CID; `millrace deals` shows what is stored.',
  });
}
