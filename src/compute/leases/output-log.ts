import { EventEmitter, once } from 'node:events';

const KEPT_BYTES = 1 << 20;

/** The last mebibyte of what a command printed, for whoever reads it now or later. */
export class OutputLog {
  readonly #changed = new EventEmitter().setMaxListeners(0);
  #kept: Buffer = Buffer.alloc(0);
  /** Bytes ever written. */
  #end = 0;

  write(bytes: Uint8Array): void {
    this.#kept = Buffer.concat([this.#kept, bytes]).subarray(-KEPT_BYTES);
    this.#end += bytes.length;
    this.#changed.emit('more');
  }

  /** What is kept, and what comes when it is followed, until the signal ends it. */
  async *read(options: { follow: boolean; signal: AbortSignal }): AsyncGenerator<Uint8Array> {
    let at = this.#end - this.#kept.length;
    for (;;) {
      const start = this.#end - this.#kept.length;
      const fresh = this.#kept.subarray(Math.max(0, at - start));
      at = this.#end;
      if (fresh.length > 0) yield fresh;
      if (!options.follow || options.signal.aborted) return;
      if (at === this.#end) await once(this.#changed, 'more', { signal: options.signal }).catch(() => {});
    }
  }
}
