import type { Executor } from '../../host/index.ts';

/**
 * The images that renters brought to this machine. Each stays as long as a rental wants it or a sandbox runs in it, and is removed then, where the
 * engine can; what an earlier process left is removed with the first sweep. An image that something else of this machine imports too, a job or
 * its owner, stays.
 */
export class RentalImages {
  readonly #executor: Executor;
  readonly #holders = new Map<string, number>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(executor: Executor) {
    this.#executor = executor;
  }

  /** Imports an archive and holds it until {@link release}. @returns its digest @throws bad-image */
  take(path: string): Promise<string> {
    return this.#inTurn(async () => {
      const digest = await this.#executor.importImage(path, { isTemporary: true });
      this.#holders.set(digest, (this.#holders.get(digest) ?? 0) + 1);
      return digest;
    });
  }

  /** One holder less; with the last one the image may go. */
  release(digest: string): void {
    const left = (this.#holders.get(digest) ?? 1) - 1;
    if (left > 0) this.#holders.set(digest, left);
    else this.#holders.delete(digest);
  }

  /** Removes what nobody holds and nothing runs in. */
  sweep(): Promise<void> {
    return this.#inTurn(async () => await this.#executor.removeTemporaryImages?.(new Set(this.#holders.keys())));
  }

  /** One after another: what was just imported is held before anything is removed. */
  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}
