import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, chmod, link, lstat, mkdir, open, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { badImage } from './executor.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import { readTarEntries, type TarEntry } from './tar-entries.ts';

/** What a root file system may be at most, unpacked. */
export interface ImageLimits {
  unpackedBytesMax: number;
  entriesMax: number;
}

const DEFAULT_LIMITS: ImageLimits = { unpackedBytesMax: 8 * 2 ** 30, entriesMax: 200_000 };
/** Where the sandbox mounts something: in an image these are folders, and nothing that was packed in them is kept. */
const MOUNT_POINTS = ['proc', 'dev', 'tmp', 'input', 'output', 'sys'];
/** Jobs have one user for everything: all may be read, and executed where anybody might; all special bits are dropped. */
const ANY_EXECUTE = 0o111;
/** Beside an image that may go when nobody needs it, an empty file with its name and this. */
const TEMPORARY = '.temporary';

/**
 * Root file systems by digest: a tar archive unpacked into `<folder>/<sha256 of the archive>`, complete or not there. Nothing of the archive
 * can reach outside: parts of a path that are links are refused, devices and special bits dropped, links kept as text (they mean something
 * only inside the sandbox). A bomb ends at the limits and leaves nothing.
 */
export class ImageStore {
  readonly #folder: string;
  readonly #limits: ImageLimits;
  /** Per image one after another: nobody is told of an image that is being removed. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(folder: string, limits: Partial<ImageLimits> = {}) {
    this.#folder = folder;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
  }

  /**
   * @param options.isTemporary it may be removed, unless it is there already, or is imported without this later
   * @throws bad-image
   */
  async import(path: string, { isTemporary = false }: { isTemporary?: boolean } = {}): Promise<string> {
    await mkdir(this.#folder, { recursive: true });
    for (const name of await readdir(this.#folder)) if (ownerIsGone(name)) await removeTree(join(this.#folder, name));
    const digest = await digestOf(path);
    await this.#inTurn(digest, async () => {
      const isThere = (await this.find(digest)) !== undefined;
      if (!isTemporary) await rm(this.#path(digest) + TEMPORARY, { force: true });
      else if (!isThere) await writeFile(this.#path(digest) + TEMPORARY, '');
      if (!isThere) await this.#unpack(path, digest);
    });
    return digest;
  }

  async #unpack(path: string, digest: string): Promise<void> {
    const temporary = join(this.#folder, `${ownerTag()}-${digest.slice(7, 23)}-${performance.now().toString().replace('.', '')}`);
    try {
      await mkdir(temporary, { mode: 0o755 });
      for await (const entry of limitedEntries(path, this.#limits)) await place(temporary, entry);
      for (const name of MOUNT_POINTS) await makeFolders(temporary, [name]);
      await chmod(temporary, 0o755);
      await rename(temporary, this.#path(digest));
    } catch (error) {
      await removeTree(temporary);
      // Another process was first.
      if ((await this.find(digest)) === undefined) throw error;
    }
  }

  /** Digests of the images that were imported as temporary alone. */
  async temporary(): Promise<string[]> {
    const names = await readdir(this.#folder).catch(() => []);
    return names.filter((name) => name.endsWith(TEMPORARY)).map((name) => `sha256:${name.slice(0, -TEMPORARY.length)}`);
  }

  /** Removes such an image if it still is one and is not needed when its turn comes. */
  async removeTemporary(digest: string, isFree: () => boolean): Promise<void> {
    await this.#inTurn(digest, async () => {
      const marker = this.#path(digest) + TEMPORARY;
      if (!(await exists(marker)) || !isFree()) return;
      // Out of the way at once; what is left of it when this process ends here is removed with the next import.
      const gone = join(this.#folder, `${ownerTag()}-gone-${digest.slice(7, 23)}`);
      await rename(this.#path(digest), gone).catch(() => undefined);
      await removeTree(gone);
      await rm(marker, { force: true });
    });
  }

  async #inTurn(digest: string, work: () => Promise<void>): Promise<void> {
    const turn = (this.#turns.get(digest) ?? Promise.resolve()).then(work);
    const settled = turn.catch(() => undefined);
    this.#turns.set(digest, settled);
    await turn.finally(() => {
      if (this.#turns.get(digest) === settled) this.#turns.delete(digest);
    });
  }

  /** The folder of an image; undefined when it was never imported. */
  async find(digest: string): Promise<string | undefined> {
    const path = this.#path(digest);
    return (await exists(path)) ? path : undefined;
  }

  #path(digest: string): string {
    return join(this.#folder, digest.replace('sha256:', ''));
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function* limitedEntries(path: string, limits: ImageLimits): AsyncGenerator<TarEntry> {
  let [bytes, entries] = [0, 0];
  for await (const entry of readTarEntries(path)) {
    bytes += entry.sizeBytes;
    entries += 1;
    if (bytes > limits.unpackedBytesMax) throw badImage(`it unpacks to more than ${limits.unpackedBytesMax} bytes`);
    if (entries > limits.entriesMax) throw badImage(`it has more than ${limits.entriesMax} entries`);
    partsOf(entry.path);
    yield entry;
  }
}

/**
 * Reads an archive to its end, for an engine that unpacks it itself and knows no limits.
 * @throws bad-image
 */
export async function checkArchive(path: string, limits: Partial<ImageLimits> = {}): Promise<void> {
  for await (const _ of limitedEntries(path, { ...DEFAULT_LIMITS, ...limits }));
}

/** `sha256:…` of a file. */
export async function digestOf(path: string): Promise<string> {
  const sha = createHash('sha256');
  const file = await open(path);
  try {
    for await (const chunk of file.createReadStream({ autoClose: false })) sha.update(chunk as Uint8Array);
  } finally {
    await file.close();
  }
  return `sha256:${sha.digest('hex')}`;
}

async function place(root: string, entry: TarEntry): Promise<void> {
  const parts = partsOf(entry.path);
  const [first] = parts;
  if (first === undefined) return;
  if (parts.length > 1 && MOUNT_POINTS.includes(first)) return;
  if (entry.type === 'other' || (MOUNT_POINTS.includes(first) && entry.type !== 'folder')) return;
  await makeFolders(root, parts.slice(0, -1));
  const path = join(root, ...parts);
  if (entry.type === 'folder') {
    await makeFolders(root, parts);
    return;
  }
  const there = await lstat(path).catch(() => undefined);
  if (there?.isDirectory()) throw badImage(`${JSON.stringify(entry.path)} is a folder and something else`);
  if (there !== undefined) await rm(path);
  if (entry.type === 'symlink') return await symlink(entry.target, path);
  if (entry.type === 'link') return await placeLink(root, entry, path);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(path, flags, 0o600);
  try {
    for await (const chunk of entry.content()) await file.write(chunk);
    await file.chmod((entry.mode & ANY_EXECUTE) === 0 ? 0o644 : 0o755);
  } finally {
    await file.close();
  }
}

/** A second name of a plain file inside the image; the way to it holds no link. */
async function placeLink(root: string, entry: TarEntry, path: string): Promise<void> {
  const target = partsOf(entry.target);
  await makeFolders(root, target.slice(0, -1));
  const source = join(root, ...target);
  const stats = await lstat(source).catch(() => undefined);
  if (!stats?.isFile()) throw badImage(`${JSON.stringify(entry.path)} is another name of what is no file of the image`);
  await link(source, path);
}

/** Every folder on the way, made or found; never through a link. */
async function makeFolders(root: string, parts: readonly string[]): Promise<void> {
  let path = root;
  for (const part of parts) {
    path = join(path, part);
    await mkdir(path, { mode: 0o755 }).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST' || !(await lstat(path)).isDirectory()) {
        throw badImage(`a path of it goes through ${JSON.stringify(parts.join('/').slice(0, 200))}, which is no folder`, error);
      }
    });
  }
}

function partsOf(path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..') || path.includes('\0')) throw badImage(`it holds the path ${JSON.stringify(path.slice(0, 200))}`);
  return parts;
}

async function removeTree(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}
