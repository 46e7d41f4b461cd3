import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Resources } from '../capacity.ts';
import type { FetchContent } from '../part.ts';
import type { RentalImages } from './rental-images.ts';

/** Where the image that a renter wants stands, for the renter. */
export interface RentalImageState {
  source: string;
  /** `refused`: it could not be had, or nothing starts in it; the rental runs in what the device has. */
  state: 'fetching' | 'ready' | 'refused';
  /** Code of the error, of the last try or of the refusal. */
  fault?: string;
}

/** What an image is brought with. */
export interface RentalImageOptions {
  images: RentalImages;
  fetchContent: FetchContent;
  /** What was rented: an archive has at most as many bytes as its disk and memory together. */
  resources: Pick<Resources, 'diskBytes' | 'memoryBytes'>;
  /** The rental's own folder. */
  folder: string;
  log: Logger;
}

/** Different ones in one rental: fetching and unpacking are the machine's work, and engines that remove no images keep them. */
const IMAGES_MAX = 4;
const TRIES = 6;
const PAUSE_MS = 5_000;
/** That it can be had later, or elsewhere, is no reason to try again. */
const FINAL = new Set(['bad-image', 'bad-cid', 'content-too-large']);

/**
 * The image that a renter wants its rental to run in. It is fetched beside the sandbox that runs, which stays up meanwhile: what takes the renter's
 * image long, or makes it impossible, is not the supplier's downtime.
 */
export class RentalImage {
  readonly #options: RentalImageOptions;
  readonly #onChange: () => Promise<void>;
  #wanted: string | undefined;
  #digest: string | undefined;
  #fault: string | undefined;
  #isRefused = false;
  readonly #seen = new Set<string>();
  #fetching: { stop: AbortController; done: Promise<void> } | undefined;
  #count = 0;

  /** @param onChange the sandbox is to be made anew: {@link digest} is another one now */
  constructor(options: RentalImageOptions, onChange: () => Promise<void>) {
    [this.#options, this.#onChange] = [options, onChange];
  }

  /** The image that is there; undefined: that of the device. */
  digest(): string | undefined {
    return this.#digest;
  }

  /** Whether a sandbox that begins now is in what the renter wants. */
  isIn(): boolean {
    return this.#wanted === undefined || this.#digest !== undefined;
  }

  /** Undefined: none is wanted. */
  state(): RentalImageState | undefined {
    if (this.#wanted === undefined) return undefined;
    const state = this.#isRefused ? 'refused' : this.#digest === undefined ? 'fetching' : 'ready';
    return { source: this.#wanted, state, ...(this.#fault === undefined ? {} : { fault: this.#fault }) };
  }

  /** From now on this one is wanted; undefined: that of the device. */
  want(source: string | undefined): void {
    if (source === this.#wanted && !this.#isRefused) return;
    const before = this.#digest;
    this.#fetching?.stop.abort();
    this.#leave();
    [this.#wanted, this.#fault, this.#isRefused] = [source, undefined, false];
    const isOneTooMany = source !== undefined && !this.#seen.has(source) && this.#seen.size >= IMAGES_MAX;
    if (isOneTooMany) [this.#isRefused, this.#fault] = [true, 'images-too-many'];
    else if (source !== undefined) this.#seen.add(source);
    const stop = new AbortController();
    const left = this.#fetching?.done;
    const done = (async () => {
      await left;
      if (source !== undefined && !isOneTooMany) await this.#bring(source, stop.signal);
      else if (before !== undefined) await this.#change();
    })();
    this.#fetching = { stop, done };
  }

  /** Nothing starts in it: it is left for the device's own. @returns whether there was one to leave */
  giveUp(reason: string | undefined): boolean {
    if (this.#digest === undefined) return false;
    this.#leave();
    [this.#isRefused, this.#fault] = [true, reason];
    this.#options.log.warn('rental-image-left', { image: this.#wanted, reason });
    return true;
  }

  /** Ends fetching. */
  async close(): Promise<void> {
    this.#fetching?.stop.abort();
    await this.#fetching?.done;
  }

  /** The rental is over and its sandbox has ended: what it brought is removed, unless another rental has it too. */
  async remove(): Promise<void> {
    this.#leave();
    await this.#sweep();
  }

  /** The sandbox is made anew, and the image that it ran in goes. */
  async #change(): Promise<void> {
    await this.#onChange();
    await this.#sweep();
  }

  async #sweep(): Promise<void> {
    await this.#options.images.sweep().catch((error: unknown) => {
      const { code, message } = toMillraceError(error);
      this.#options.log.warn('rental-image-stays', { code, reason: message.slice(0, 300) });
    });
  }

  /** What a sandbox still runs in stays until it has ended. */
  #leave(): void {
    if (this.#digest !== undefined) this.#options.images.release(this.#digest);
    this.#digest = undefined;
  }

  async #bring(source: string, signal: AbortSignal): Promise<void> {
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        const digest = await this.#take(source, signal);
        if (signal.aborted) return this.#options.images.release(digest);
        [this.#digest, this.#fault] = [digest, undefined];
        this.#options.log.info('rental-image-ready', { image: source });
        return await this.#change();
      } catch (error) {
        if (signal.aborted) return;
        const { code, message } = toMillraceError(error);
        this.#fault = code;
        this.#options.log.warn('rental-image-failed', { image: source, code, reason: message.slice(0, 300) });
        this.#isRefused = FINAL.has(code) || tries === TRIES;
        if (this.#isRefused) return;
        await systemClock.sleep(PAUSE_MS, signal).catch(() => undefined);
      }
    }
  }

  /** Fetches and unpacks it. @returns its digest */
  async #take(source: string, signal: AbortSignal): Promise<string> {
    const { images, fetchContent, folder, resources } = this.#options;
    this.#count += 1;
    const path = join(folder, `image-${this.#count}.tar`);
    try {
      await fetchContent(source, path, { bytesMax: resources.diskBytes + resources.memoryBytes, signal });
      return await images.take(path);
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  }
}
