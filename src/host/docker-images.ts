import { hash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import type Docker from 'dockerode';
import { callEngine, withinTime } from './docker-calls.ts';
import { badImage, type ImageHold } from './executor.ts';
import { freeDiskBytes } from './facts.ts';
import { checkArchive, digestOf, type ImageLimits } from './image-store.ts';
import { pauseImage } from './pause-program.ts';
import { type ImageSource, TemporaryImages } from './temporary-images.ts';

/** What images of an engine of Docker are kept by. */
export interface DockerImagesOptions {
  limits: Partial<ImageLimits> | undefined;
  /** For the list of those that came for a time; undefined: all stay. */
  folder: string | undefined;
  bytesMax: number | undefined;
}

const REPOSITORY = 'localhost/millrace';
const PAUSE = `${REPOSITORY}:pause`;
const BUILD_TIMEOUT_MS = 15 * 60_000;
const BUILD_MEMORY_BYTES = 2 ** 31;
const NOT_FOUND = 404;
const CONFLICT = 409;
const ID_DIGITS = 12;

/**
 * Images in an engine of Docker or Podman, by the digest of the file that they came from: `localhost/millrace:<digest>`, for good. One that came for a time
 * is `localhost/millrace-<list>:<digest>`, a name of its own for each list: nothing is removed but by that name, and nothing by it that a container is
 * made of.
 */
export class DockerImages {
  readonly #docker: Docker;
  readonly #limits: Partial<ImageLimits> | undefined;
  readonly #temporaryRepository: string;
  readonly #temporary: TemporaryImages | undefined;

  constructor(docker: Docker, { limits, folder, bytesMax }: DockerImagesOptions) {
    this.#docker = docker;
    this.#limits = limits;
    this.#temporaryRepository = `${REPOSITORY}-${hash('sha256', resolve(folder ?? '')).slice(0, ID_DIGITS)}`;
    const place = {
      has: async (digest: string) => (await this.#idOf(digest)) !== undefined,
      discard: (digest: string) => this.#discard(digest),
      keepForGood: (digest: string) => this.#keepForGood(digest),
      freeBytes: () => this.#freeBytes(),
    };
    if (folder !== undefined) this.#temporary = new TemporaryImages({ folder, place, bytesMax });
  }

  /** Takes an image for good. @returns its digest @throws bad-image */
  async import(path: string): Promise<string> {
    const source = await this.#sourceOf(path);
    const isHere = this.#temporary === undefined && (await this.isForGood(source.digest));
    if (this.#temporary !== undefined) await this.#temporary.keep(source);
    else if (!isHere) await source.place({ isTemporary: false });
    return source.digest;
  }

  /** Takes an image until it is released, and as long as there is room after that. @throws bad-image, image-over-bound, images-full */
  async hold(path: string): Promise<ImageHold> {
    if (this.#temporary === undefined) return { digest: await this.import(path), release: async () => {} };
    return await this.#temporary.hold(await this.#sourceOf(path));
  }

  /** Reads whether an image could be held. @throws bad-image, image-over-bound */
  async check(path: string): Promise<void> {
    const bytes = await checkArchive(path, this.#limits);
    await this.#temporary?.check(bytes);
  }

  /** An image by its id in the engine, for as long as something runs in it; undefined when it is not there. */
  async use(digest: string): Promise<{ id: string; release(): Promise<void> } | undefined> {
    const use = this.#temporary === undefined ? { release: async () => {} } : await this.#temporary.use(digest);
    const id = use === undefined ? undefined : await this.#idOf(digest);
    if (id !== undefined) return { id, release: async () => await use?.release() };
    await use?.release();
    return undefined;
  }

  /** Whether an image is there and stays. */
  async isForGood(digest: string): Promise<boolean> {
    return (await this.#inspect(nameOf(REPOSITORY, digest))) !== undefined;
  }

  /**
   * Builds an image out of a context, with neither network nor registry.
   * @returns the digest of the context
   * @throws bad-image
   */
  async build(contextPath: string): Promise<string> {
    await checkArchive(contextPath, this.#limits);
    const digest = await digestOf(contextPath);
    const stream = await callEngine(
      this.#docker.buildImage(contextPath, {
        t: nameOf(REPOSITORY, digest),
        networkmode: 'none',
        pull: undefined,
        memory: BUILD_MEMORY_BYTES,
        memswap: BUILD_MEMORY_BYTES,
        forcerm: true,
      }),
    );
    await this.#follow(stream);
    return digest;
  }

  /** The image of a program that only waits. @returns its name */
  async pause(): Promise<string> {
    if ((await this.#inspect(PAUSE)) === undefined) await this.#take(Readable.from([pauseImage()]), PAUSE);
    return PAUSE;
  }

  /** What the images that may go take of the disk. */
  async held(): Promise<{ images: number; bytes: number }> {
    return (await this.#temporary?.held()) ?? { images: 0, bytes: 0 };
  }

  /** Removes those beyond the bound that killed processes left. */
  async sweep(): Promise<void> {
    await this.#temporary?.sweep();
  }

  /** Releases all that is held and used through this one. */
  async close(): Promise<void> {
    await this.#temporary?.close();
  }

  async #sourceOf(path: string): Promise<ImageSource> {
    const digest = await digestOf(path);
    let bytes: Promise<number> | undefined;
    const measure = () => {
      bytes ??= checkArchive(path, this.#limits);
      return bytes;
    };
    return {
      digest,
      measure,
      place: async ({ isTemporary }) => {
        await measure();
        await this.#take(createReadStream(path), nameOf(isTemporary ? this.#temporaryRepository : REPOSITORY, digest));
        if ((await this.#idOf(digest)) === undefined) throw badImage('the engine did not take the archive');
      },
    };
  }

  async #take(archive: Readable, name: string): Promise<void> {
    const [repo, tag] = name.split(':') as [string, string];
    const progress = await callEngine(this.#docker.importImage(archive, { repo, tag }));
    await this.#follow(progress as NodeJS.ReadableStream);
  }

  async #discard(digest: string): Promise<boolean> {
    try {
      await callEngine(this.#docker.getImage(nameOf(this.#temporaryRepository, digest)).remove());
      return true;
    } catch (error) {
      const { statusCode } = error as { statusCode?: number };
      if (statusCode === CONFLICT) return false;
      if (statusCode === NOT_FOUND) return true;
      throw error;
    }
  }

  async #keepForGood(digest: string): Promise<void> {
    if (await this.isForGood(digest)) return;
    const image = this.#docker.getImage(nameOf(this.#temporaryRepository, digest));
    await callEngine(image.tag({ repo: REPOSITORY, tag: tagOf(digest) }));
    await callEngine(image.remove());
  }

  async #idOf(digest: string): Promise<string | undefined> {
    return (await this.#inspect(nameOf(REPOSITORY, digest))) ?? (await this.#inspect(nameOf(this.#temporaryRepository, digest)));
  }

  async #inspect(name: string): Promise<string | undefined> {
    try {
      return (await callEngine(this.#docker.getImage(name).inspect())).Id;
    } catch (error) {
      if ((error as { statusCode?: number }).statusCode === NOT_FOUND) return undefined;
      throw error;
    }
  }

  /** Of the disk where the engine keeps images; of this machine's, where that is not to be seen. */
  async #freeBytes(): Promise<number> {
    const { DockerRootDir: folder } = (await callEngine(this.#docker.info())) as { DockerRootDir?: string };
    return Number(await freeDiskBytes(folder !== undefined && existsSync(folder) ? folder : '/'));
  }

  async #follow(stream: NodeJS.ReadableStream): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#docker.modem.followProgress(stream, (error, steps) => {
        const fault = error?.message ?? (steps as { error?: string }[] | undefined)?.find((step) => step.error !== undefined)?.error;
        if (fault === undefined) resolve();
        else reject(badImage(fault.slice(0, 500), error ?? undefined));
      });
    });
    await withinTime(done, BUILD_TIMEOUT_MS);
  }
}

const tagOf = (digest: string) => digest.slice('sha256:'.length);

const nameOf = (repository: string, digest: string) => `${repository}:${tagOf(digest)}`;
