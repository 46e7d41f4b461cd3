import { MillraceError } from '../../errors.ts';
import type { SourceTree } from './source-tree.ts';

/** A file or empty folder inside a sealed container. `offset` counts plaintext bytes after the manifest. */
export interface SealedEntry {
  path: string;
  size: number;
  offset: number;
  mode: number;
  isFolder: boolean;
}

/** What a sealed container holds: names, tree, sizes and places of all files. It is sealed itself, before the files. */
export interface SealedManifest {
  kind: 'file' | 'folder';
  entries: SealedEntry[];
  /** Plaintext bytes before the first file: 4 bytes of length, and the manifest. */
  headBytes: number;
}

const MANIFEST_BYTES_MAX = 64 << 20;
const PATH_BYTES_MAX = 4096;

/** The manifest of a source: 4 bytes of length (big-endian), then JSON rows `[path, size, mode, isFolder]`. */
export function encodeManifest(tree: SourceTree): Uint8Array {
  const rows = tree.entries.map((entry) => [entry.path, entry.size, entry.mode, entry.isFolder ? 1 : 0]);
  const json = Buffer.from(JSON.stringify({ version: 1, kind: tree.kind, entries: rows }));
  if (json.length > MANIFEST_BYTES_MAX) throw bad(`it is ${json.length} bytes long, the limit is ${MANIFEST_BYTES_MAX}`);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(json.length);
  return Buffer.concat([head, json]);
}

/**
 * Plaintext bytes that the manifest takes, from its first four bytes.
 * @throws bad-manifest
 */
export function manifestHeadBytes(start: Uint8Array): number {
  if (start.length < 4) throw bad('the content is shorter than its length field');
  const length = Buffer.from(start.subarray(0, 4)).readUInt32BE();
  if (length > MANIFEST_BYTES_MAX) throw bad(`it says ${length} bytes, the limit is ${MANIFEST_BYTES_MAX}`);
  return 4 + length;
}

/**
 * Parses a manifest strictly: no path may leave the folder, name two things or hold control characters, and the sizes
 * must add up to the content.
 * @throws bad-manifest
 */
export function decodeManifest(head: Uint8Array, plainBytes: number): SealedManifest {
  let json: { version?: unknown; kind?: unknown; entries?: unknown };
  try {
    json = JSON.parse(Buffer.from(head.subarray(4)).toString('utf8')) as typeof json;
  } catch (cause) {
    throw bad('it is not JSON', cause);
  }
  if (json?.version !== 1) throw bad(`version ${String(json?.version)} is unknown`);
  if ((json.kind !== 'file' && json.kind !== 'folder') || !Array.isArray(json.entries)) throw bad('a field is missing');
  const entries: SealedEntry[] = [];
  let offset = 0;
  for (const row of json.entries as unknown[]) {
    const [path, size, mode, isFolder] = Array.isArray(row) ? row : [];
    if (typeof path !== 'string' || !Number.isSafeInteger(size) || size < 0 || !Number.isInteger(mode)) throw bad('a row is malformed');
    entries.push({ path: checkRelativePath(path), size, offset, mode: mode & 0o777, isFolder: isFolder === 1 });
    offset += size;
  }
  checkTree(entries.map((entry) => entry.path));
  if (head.length + offset !== plainBytes) throw bad(`its files have ${offset} bytes, the content has ${plainBytes - head.length}`);
  if (json.kind === 'file' && entries.length !== 1) throw bad('a single file is not alone');
  return { kind: json.kind, entries, headBytes: head.length };
}

/**
 * A path that stays inside a folder: relative, no empty, `.` or `..` step, no control character, at most 4 KiB.
 * @throws bad-manifest
 */
export function checkRelativePath(path: string): string {
  const steps = path.split('/');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  const isWrong = steps.some((step) => step === '' || step === '.' || step === '..') || /[\u0000-\u001f\u007f]/.test(path);
  if (isWrong || Buffer.byteLength(path) > PATH_BYTES_MAX) throw bad(`the path ${JSON.stringify(path.slice(0, 200))} is not allowed`);
  return path;
}

/** Refuses a path that occurs twice, and a file that is also a folder of others. */
function checkTree(paths: string[]): void {
  const all = new Set(paths);
  if (all.size !== paths.length) throw bad('a path occurs twice');
  for (const path of paths) {
    for (let cut = path.lastIndexOf('/'); cut > 0; cut = path.lastIndexOf('/', cut - 1)) {
      if (all.has(path.slice(0, cut))) throw bad(`${JSON.stringify(path.slice(0, cut))} is a file and a folder`);
    }
  }
}

function bad(why: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-manifest', {
    actor: 'peer',
    message: `The list of files inside the content is not acceptable: ${why}`,
    values: { why },
    hint: 'Whoever stored this content made it so; nothing was written.',
    cause,
  });
}
