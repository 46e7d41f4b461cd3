import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import { type Executor, holdImage, type ImageHold } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { Resources } from '../capacity.ts';
import type { FetchContent } from '../part.ts';

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
  executor: Executor;
  fetchContent: FetchContent;
  /** What was rented: an archive has at most as many bytes as its disk and memory together. */
  resources: Pick<Resources, 'diskBytes' | 'memoryBytes'>;
  /** The rental's own folder. */
  folder: string;
  log: Logger;
}

/** Different ones in one rental: fetching and unpacking are the machine's work, and some engines remove no images. */
const IMAGES_MAX = 4;
const TRIES = 6;
const PAUSE_MS = 5_000;
/** That it can be had later, or elsewhere, is no reason to try again. */
const FINAL = new Set(['bad-image', 'bad-cid', 'content-too-large', 'image-over-bound']);

/**
 * The image that a renter wants its rental to run in. It is fetched beside the sandbox that runs, which stays up meanwhile: what takes the renter's
 * image long, or makes it impossible, is not the supplier's downtime.
 */
export class RentalImage {
  readonly #options: RentalImageOptions;
  readonly #onChange: () => Promise<void>;
  #wanted: string | undefined;
  #hold: ImageHold | undefined;
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
    return this.#hold?.digest;
  }

  /** Whether a sandbox that begins now is in what the renter wants. */
  isIn(): boolean {
    return this.#wanted === undefined || this.#hold !== undefined;
  }

  /** Undefined: none is wanted. */
  state(): RentalImageState | undefined {
    if (this.#wanted === undefined) return undefined;
    const state = this.#isRefused ? 'refused' : this.#hold === undefined ? 'fetching' : 'ready';
    return { source: this.#wanted, state, ...(this.#fault === undefined ? {} : { fault: this.#fault }) };
  }

  /** From now on this one is wanted; undefined: that of the device. */
  want(source: string | undefined): void {
    if (source === this.#wanted && !this.#isRefused) return;
    const before = this.#hold;
    this.#fetching?.stop.abort();
    void this.#leave();
    [this.#wanted, this.#fault, this.#isRefused] = [source, undefined, false];
    const isOneTooMany = source !== undefined && !this.#seen.has(source) && this.#seen.size >= IMAGES_MAX;
    if (isOneTooMany) [this.#isRefused, this.#fault] = [true, 'images-too-many'];
    else if (source !== undefined) this.#seen.add(source);
    const stop = new AbortController();
    const left = this.#fetching?.done;
    const done = (async () => {
      await left;
      if (source !== undefined && !isOneTooMany) await this.#bring(source, stop.signal);
      else if (before !== undefined) await this.#onChange();
    })();
    this.#fetching = { stop, done };
  }

  /** Nothing starts in it: it is left for the device's own. @returns whether there was one to leave */
  giveUp(reason: string | undefined): boolean {
    if (this.#hold === undefined) return false;
    void this.#leave();
    [this.#isRefused, this.#fault] = [true, reason];
    this.#options.log.warn('rental-image-left', { image: this.#wanted, reason });
    return true;
  }

  /** Ends fetching. */
  async close(): Promise<void> {
    this.#fetching?.stop.abort();
    await this.#fetching?.done;
  }

  /** The rental is over: what it brought may go. */
  async remove(): Promise<void> {
    await this.#leave();
  }

  /** What a sandbox still runs in stays until it has ended. */
  async #leave(): Promise<void> {
    const hold = this.#hold;
    this.#hold = undefined;
    await hold?.release();
  }

  async #bring(source: string, signal: AbortSignal): Promise<void> {
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        const hold = await this.#take(source, signal);
        if (signal.aborted) return await hold.release();
        [this.#hold, this.#fault] = [hold, undefined];
        this.#options.log.info('rental-image-ready', { image: source });
        return await this.#onChange();
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

  /** Fetches and unpacks it. */
  async #take(source: string, signal: AbortSignal): Promise<ImageHold> {
    const { executor, fetchContent, folder, resources } = this.#options;
    this.#count += 1;
    const path = join(folder, `image-${this.#count}.tar`);
    try {
      await fetchContent(source, path, { bytesMax: resources.diskBytes + resources.memoryBytes, signal });
      return await holdImage(executor, path);
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  }
}
