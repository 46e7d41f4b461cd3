import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, chmod, link, lstat, mkdir, open, readdir, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { badImage, type ImageHold } from './executor.ts';
import { freeDiskBytes } from './facts.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import { readTarEntries, type TarEntry } from './tar-entries.ts';
import { type ImageSource, TemporaryImages } from './temporary-images.ts';

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
/** A file takes whole blocks of the disk; a folder, a link or an empty file is counted as one. */
const BLOCK_BYTES = 4096;
const PATH_LENGTH_MAX = 4096;
const LIST_FOLDER = '.temporary';
const GONE = '-gone';

/** What an {@link ImageStore} is held to. */
export interface ImageStoreOptions {
  limits?: Partial<ImageLimits>;
  /** Of the disk, for images that came for a time; see {@link TemporaryImages}. */
  bytesMax?: number;
}

/**
 * Root file systems by digest: a tar archive unpacked into `<folder>/<sha256 of the archive>`, complete or not there. Nothing of the archive
 * can reach outside: parts of a path that are links are refused, devices and special bits dropped, links kept as text (they mean something
 * only inside the sandbox). A bomb ends at the limits and leaves nothing.
 */
export class ImageStore {
  readonly #folder: string;
  readonly #limits: ImageLimits;
  readonly #temporary: TemporaryImages;

  constructor(folder: string, { limits, bytesMax }: ImageStoreOptions = {}) {
    this.#folder = folder;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    const place = {
      has: async (digest: string) => (await this.find(digest)) !== undefined,
      discard: (digest: string) => this.#discard(digest),
      clean: () => this.#clean(),
      freeBytes: async () => Number(await freeDiskBytes(folder)),
    };
    this.#temporary = new TemporaryImages({ folder: join(folder, LIST_FOLDER), place, bytesMax });
  }

  /** Takes an image for good. @returns its digest @throws bad-image */
  async import(path: string): Promise<string> {
    const source = await this.#sourceOf(path);
    await this.#temporary.keep(source);
    return source.digest;
  }

  /** Takes an image until it is released, and for as long as there is room after that. @throws bad-image, image-over-bound, images-full */
  async hold(path: string): Promise<ImageHold> {
    return await this.#temporary.hold(await this.#sourceOf(path));
  }

  /** Reads whether an image could be held. @throws bad-image, image-over-bound */
  async check(path: string): Promise<void> {
    await this.#temporary.check(await checkArchive(path, this.#limits));
  }

  /** The folder of an image for as long as something runs in it; undefined when it is not there. */
  async use(digest: string): Promise<{ root: string; release(): Promise<void> } | undefined> {
    const use = await this.#temporary.use(digest);
    return use === undefined ? undefined : { root: this.#path(digest), release: use.release };
  }

  /** What the images that may go take of the disk. */
  held(): Promise<{ images: number; bytes: number }> {
    return this.#temporary.held();
  }

  /** Removes what killed processes left, and temporary images beyond their bound. */
  async sweep(): Promise<void> {
    await this.#clean();
    await this.#temporary.sweep();
  }

  /** Releases all that is held and used through this one. */
  close(): Promise<void> {
    return this.#temporary.close();
  }

  async #sourceOf(path: string): Promise<ImageSource> {
    await mkdir(this.#folder, { recursive: true });
    await this.#clean();
    const digest = await digestOf(path);
    return { digest, measure: () => checkArchive(path, this.#limits), place: () => this.#unpack(path, digest) };
  }

  async #unpack(path: string, digest: string): Promise<void> {
    const unpacked = this.#ownPath(digest);
    try {
      await mkdir(unpacked, { mode: 0o755 });
      for await (const entry of limitedEntries(path, this.#limits)) await place(unpacked, entry);
      for (const name of MOUNT_POINTS) await makeFolders(unpacked, [name]);
      await chmod(unpacked, 0o755);
      await rename(unpacked, this.#path(digest));
    } catch (error) {
      await removeTree(unpacked);
      // A process that this one cannot see, in another container, was first.
      if ((await this.find(digest)) === undefined) throw error;
    }
  }

  /** Out of its place at once; its files go in {@link #clean}. */
  async #discard(digest: string): Promise<boolean> {
    const gone = this.#ownPath(digest) + GONE;
    await rename(this.#path(digest), gone).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
    return true;
  }

  async #clean(): Promise<void> {
    const own = `${ownerTag()}-`;
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const isDue = (name.startsWith(own) && name.endsWith(GONE)) || ownerIsGone(name);
      if (isDue) await removeTree(join(this.#folder, name));
    }
  }

  /** The folder of an image; undefined when it is not there. */
  async find(digest: string): Promise<string | undefined> {
    const path = this.#path(digest);
    return await access(path).then(
      () => path,
      () => undefined,
    );
  }

  #path(digest: string): string {
    return join(this.#folder, digest.replace('sha256:', ''));
  }

  #ownPath(digest: string): string {
    return join(this.#folder, `${ownerTag()}-${digest.slice(7, 23)}-${randomUUID()}`);
  }
}

/** What of an archive was read so far, in what it takes of a disk. */
interface Reading {
  diskBytes: number;
}

async function* limitedEntries(path: string, limits: ImageLimits, reading: Reading = { diskBytes: 0 }): AsyncGenerator<TarEntry> {
  let [bytes, entries] = [0, 0];
  const root: FolderTree = new Map();
  for await (const entry of readTarEntries(path)) {
    const isFolder = entry.type === 'folder';
    if (entry.path.length > PATH_LENGTH_MAX) throw badImage(`a path of it has more than ${PATH_LENGTH_MAX} characters`);
    const made = addFolders(root, isFolder ? partsOf(entry.path) : partsOf(entry.path).slice(0, -1));
    bytes += entry.sizeBytes;
    entries += isFolder ? Math.max(1, made) : made + 1;
    if (bytes > limits.unpackedBytesMax) throw badImage(`it unpacks to more than ${limits.unpackedBytesMax} bytes`);
    if (entries > limits.entriesMax) throw badImage(`it has more than ${limits.entriesMax} entries`);
    reading.diskBytes += BLOCK_BYTES * (made + (isFolder ? 0 : Math.max(1, Math.ceil(entry.sizeBytes / BLOCK_BYTES))));
    yield entry;
  }
}

interface FolderTree extends Map<string, FolderTree> {}

/** Folders that an archive need not name, for they are on the way to what it names. @returns how many are new */
function addFolders(root: FolderTree, parts: readonly string[]): number {
  let [folder, made] = [root, 0];
  for (const part of parts) {
    let next = folder.get(part);
    if (next === undefined) {
      next = new Map();
      folder.set(part, next);
      made += 1;
    }
    folder = next;
  }
  return made;
}

/**
 * Reads an archive to its end, for an engine that unpacks it itself and knows no limits.
 * @returns bytes that it takes of a disk, unpacked
 * @throws bad-image
 */
export async function checkArchive(path: string, limits: Partial<ImageLimits> = {}): Promise<number> {
  const reading: Reading = { diskBytes: 0 };
  for await (const _ of limitedEntries(path, { ...DEFAULT_LIMITS, ...limits }, reading));
  return reading.diskBytes;
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
