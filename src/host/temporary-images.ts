import { access, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../clock.ts';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import type { ImageHold } from './executor.ts';
import { FolderTurns } from './folder-turns.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';

/** Where an engine has its images. */
export interface ImagePlace {
  has(digest: string): Promise<boolean>;
  /** Takes an image away so that `has` denies it at once. @returns whether it is away or never was there: one that something else uses stays */
  discard(digest: string): Promise<boolean>;
  /** The rest of what was discarded, where that takes long. */
  clean?(): Promise<void>;
  /** Of an image that is there for a time and is to stay. */
  keepForGood?(digest: string): Promise<void>;
  freeBytes(): Promise<number>;
}

/** An image that is to be brought to its place. */
export interface ImageSource {
  digest: string;
  /** What it takes of the disk, by reading it. @throws bad-image */
  measure(): Promise<number>;
  place(options: { isTemporary: boolean }): Promise<void>;
}

/** What temporary images are kept by. */
export interface TemporaryImagesOptions {
  /** For the list; all engines and processes that share the images share it. */
  folder: string;
  place: ImagePlace;
  /** Of all together; 0: none stays when nobody uses it; left out: a quarter of the disk that is free or theirs. */
  bytesMax: number | undefined;
}

interface Entry {
  digest: string;
  bytes: number;
  usedMs: number;
}

const DISK_PARTS = 4;
/** What images of others leave free for everything else. */
const SPARE_BYTES = 256 << 20;
const POLL_MS = 25;
const ENTRY = /^[0-9a-f]{64}$/;
const MARK = /^job-.*-(uses|brings)-([0-9a-f]{64})$/;
let count = 0;

/**
 * Images that came for a time: with somebody's job, its audit, a rental. Each is there as long as it is held or a job runs in it, by whichever process of
 * this machine; then the one used longest ago goes whenever all together are more than their bound. So what is in use may be more than the bound, and nothing
 * else is. One that alone is larger is refused. The list is files, so that it outlives a kill: an entry of an image has its size as content and its last
 * use as time; marks of use have the name of their process, and mean nothing when that is gone. An image without an entry is there for good.
 */
export class TemporaryImages {
  readonly #options: TemporaryImagesOptions;
  readonly #turns: FolderTurns;
  readonly #name: string;
  readonly #uses = new Map<string, number>();

  constructor(options: TemporaryImagesOptions) {
    this.#options = options;
    this.#turns = new FolderTurns(options.folder);
    count += 1;
    this.#name = `${ownerTag()}-${count}`;
  }

  /**
   * Has an image there until it is released; brought once, however many want it.
   * @throws image-over-bound, images-full, and what its source throws
   */
  async hold(source: ImageSource): Promise<ImageHold> {
    const { digest } = source;
    for (;;) {
      const found = await this.#turns.take(() => this.#claim(digest, async () => await this.#useEntered(digest)));
      if (typeof found === 'object') return { digest, release: found.release };
      if (found === 'mine') return { digest, release: await this.#bring(source) };
      await systemClock.sleep(POLL_MS);
    }
  }

  /** Has an image there for good. @throws what its source throws */
  async keep(source: ImageSource): Promise<void> {
    const { digest } = source;
    const stay = async () => {
      if (await this.#isEntered(digest)) await this.#options.place.keepForGood?.(digest);
      await this.#forget(digest);
      return nothingToRelease;
    };
    for (;;) {
      const found = await this.#turns.take(() => this.#claim(digest, stay));
      if (typeof found === 'object') return;
      if (found === 'mine') return await source.place({ isTemporary: false }).finally(() => this.#unmark('brings', digest));
      await systemClock.sleep(POLL_MS);
    }
  }

  /** Uses an image that is there. @returns undefined when it is not */
  async use(digest: string): Promise<Pick<ImageHold, 'release'> | undefined> {
    if (this.#uses.has(digest)) return this.#useOnceMore(digest);
    return await this.#turns.take(async () => ((await this.#options.place.has(digest)) ? await this.#useEntered(digest) : undefined));
  }

  /** @throws image-over-bound for what {@link hold} would refuse for its size */
  async check(bytes: number): Promise<void> {
    const { bytes: held } = await this.held();
    refuseLarger(bytes, await this.#boundOf(held), this.#options.bytesMax);
  }

  /** What temporary images take of the disk. */
  async held(): Promise<{ images: number; bytes: number }> {
    const entries = await this.#entries();
    return { images: entries.length, bytes: sumOf(entries) };
  }

  /** Removes what is too much, as after a kill or under a lower bound. */
  async sweep(): Promise<void> {
    if (!(await exists(this.#options.folder))) return;
    await this.#trim(async () => {
      const { brought } = await this.#marks();
      for (const { digest } of await this.#entries())
        if (!brought.has(digest) && !(await this.#options.place.has(digest))) await this.#forget(digest);
      await this.#evict();
    });
  }

  /** Releases all that is held through this one. */
  async close(): Promise<void> {
    if (this.#uses.size === 0) return;
    const held = [...this.#uses.keys()];
    this.#uses.clear();
    await this.#trim(() => this.#endUse(held)).catch(() => undefined);
  }

  /** What is there is taken; what nobody brings is the caller's to bring. In turn. */
  async #claim<Taken>(digest: string, take: () => Promise<Taken>): Promise<Taken | 'mine' | 'elsewhere'> {
    const { brought } = await this.#marks();
    if (brought.has(digest)) return 'elsewhere';
    if (await this.#options.place.has(digest)) return await take();
    await this.#forget(digest);
    await this.#mark('brings', digest);
    return 'mine';
  }

  /** Its mark keeps an image that is entered and not there yet. */
  async #bring(source: ImageSource): Promise<() => Promise<void>> {
    const { digest } = source;
    try {
      const bytes = await source.measure();
      await this.#trim(() => this.#enter(digest, bytes));
      await source.place({ isTemporary: true });
      return await this.#turns.take(async () => {
        const { release } = await this.#useEntered(digest);
        await this.#unmark('brings', digest);
        return release;
      });
    } catch (error) {
      await this.#turns.take(async () => {
        if (!(await this.#options.place.has(digest))) await this.#forget(digest);
        await this.#unmark('brings', digest);
      });
      throw error;
    }
  }

  /** Makes room for an image and enters it. In turn. */
  async #enter(digest: string, bytes: number): Promise<void> {
    const { bytesMax, place } = this.#options;
    const bound = await this.#boundOf(sumOf(await this.#entries()));
    refuseLarger(bytes, bound, bytesMax);
    await this.#evict(Math.max(0, bound - bytes));
    if ((await place.freeBytes()) - bytes < SPARE_BYTES) {
      await this.#evict(0);
      await place.clean?.();
      const freeBytes = await place.freeBytes();
      if (freeBytes - bytes < SPARE_BYTES) throw full(bytes, freeBytes);
    }
    writeFileDurably(join(this.#options.folder, digest.slice('sha256:'.length)), String(bytes));
  }

  /** In turn, of an image that is there. */
  async #useEntered(digest: string): Promise<Pick<ImageHold, 'release'>> {
    if (!(await this.#isEntered(digest))) return nothingToRelease;
    await this.#mark('uses', digest);
    return this.#useOnceMore(digest);
  }

  #useOnceMore(digest: string): Pick<ImageHold, 'release'> {
    this.#uses.set(digest, (this.#uses.get(digest) ?? 0) + 1);
    let isReleased = false;
    return {
      release: async () => {
        if (isReleased) return;
        isReleased = true;
        const left = (this.#uses.get(digest) ?? 1) - 1;
        if (left > 0) return void this.#uses.set(digest, left);
        this.#uses.delete(digest);
        // A job's result is not lost for an image that cannot be removed now; the next end tries again.
        await this.#trim(() => this.#endUse([digest])).catch(() => undefined);
      },
    };
  }

  async #endUse(digests: readonly string[]): Promise<void> {
    for (const digest of digests.filter((each) => !this.#uses.has(each))) {
      await this.#unmark('uses', digest);
      const now = new Date();
      await utimes(this.#entryPath(digest), now, now).catch(() => undefined);
    }
    await this.#evict();
  }

  async #trim<Result>(work: () => Promise<Result>): Promise<Result> {
    return await this.#turns.take(work).finally(() => this.#options.place.clean?.());
  }

  /** In turn: the longest unused go until all together are within the bound. */
  async #evict(bytesMax?: number): Promise<void> {
    const { place } = this.#options;
    const [{ used, brought }, entries] = [await this.#marks(), await this.#entries()];
    const free = entries.filter(({ digest }) => !used.has(digest) && !brought.has(digest));
    let held = sumOf(entries);
    const bound = bytesMax ?? (await this.#boundOf(held));
    for (const { digest, bytes } of free.sort((one, other) => one.usedMs - other.usedMs)) {
      if (held <= bound) return;
      if (!(await place.discard(digest))) continue;
      await this.#forget(digest);
      held -= bytes;
    }
  }

  async #boundOf(held: number): Promise<number> {
    const { bytesMax, place } = this.#options;
    return bytesMax ?? Math.floor(((await place.freeBytes()) + held) / DISK_PARTS);
  }

  async #entries(): Promise<Entry[]> {
    const names = await readdir(this.#options.folder).catch(() => []);
    const found = await Promise.all(names.filter((name) => ENTRY.test(name)).map((name) => this.#entry(name)));
    return found.filter((entry) => entry !== undefined);
  }

  async #entry(name: string): Promise<Entry | undefined> {
    const path = join(this.#options.folder, name);
    try {
      const [text, { mtimeMs }] = [await readFile(path, 'utf8'), await stat(path)];
      return { digest: `sha256:${name}`, bytes: /^\d{1,15}$/.test(text) ? Number(text) : 0, usedMs: mtimeMs };
    } catch {
      return undefined;
    }
  }

  /** What processes that are still there use and bring. */
  async #marks(): Promise<{ used: Set<string>; brought: Set<string> }> {
    const [used, brought] = [new Set<string>(), new Set<string>()];
    for (const name of await readdir(this.#options.folder)) {
      const [, kind, hex] = MARK.exec(name) ?? [];
      if (hex === undefined) continue;
      if (ownerIsGone(name)) await rm(join(this.#options.folder, name), { force: true });
      else (kind === 'uses' ? used : brought).add(`sha256:${hex}`);
    }
    return { used, brought };
  }

  async #mark(kind: 'uses' | 'brings', digest: string): Promise<void> {
    await writeFile(this.#markPath(kind, digest), '');
  }

  async #unmark(kind: 'uses' | 'brings', digest: string): Promise<void> {
    await rm(this.#markPath(kind, digest), { force: true });
  }

  async #forget(digest: string): Promise<void> {
    await rm(this.#entryPath(digest), { force: true });
  }

  async #isEntered(digest: string): Promise<boolean> {
    return await exists(this.#entryPath(digest));
  }

  #markPath(kind: 'uses' | 'brings', digest: string): string {
    return join(this.#options.folder, `${this.#name}-${kind}-${digest.slice('sha256:'.length)}`);
  }

  #entryPath(digest: string): string {
    return join(this.#options.folder, digest.slice('sha256:'.length));
  }
}

const nothingToRelease = { release: async () => {} };

const sumOf = (entries: readonly Entry[]) => entries.reduce((sum, { bytes }) => sum + bytes, 0);

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** Where nothing is kept, there is no bound to what runs. */
function refuseLarger(bytes: number, bound: number, bytesMax: number | undefined): void {
  if (bytesMax === 0 || bytes <= bound) return;
  throw new MillraceError('image-over-bound', {
    actor: 'host',
    message: `The image takes ${bytes} bytes, and images of others have ${bound} bytes of this machine in all`,
    values: { bytes, bytesMax: bound },
    hint: 'Take a smaller image or another machine; its owner sets the bound (computeImages).',
  });
}

function full(bytes: number, freeBytes: number): MillraceError {
  return new MillraceError('images-full', {
    actor: 'host',
    message: `The image takes ${bytes} bytes, and of ${freeBytes} free ones ${SPARE_BYTES} are left to all else`,
    values: { bytes, freeBytes },
    hint: 'Free some disk; images that are in use are not removed.',
  });
}
