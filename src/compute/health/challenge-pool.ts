import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { MillraceError } from '../../errors.ts';
import type { ChallengePiece, ChallengePieceResult } from './challenge-worker.ts';

/** Work that is cut into pieces, made as threads become free. */
export interface PieceSource {
  /** The next piece; undefined: there is none left. */
  next(): ChallengePiece | undefined;
  /** What the how-manieth piece gave; pieces may end in another order than they were given out in. */
  take(index: number, result: ChallengePieceResult): void;
  fail(reason: unknown): void;
}

interface Line {
  source: PieceSource;
  given: number;
}

/** Threads that take a piece of each source in turn: works at the same time have equal parts of the machine. */
export class PiecePool {
  readonly #workers: Worker[] = [];
  readonly #idle: Worker[] = [];
  readonly #lines: Line[] = [];
  readonly #running = new Set<PieceSource>();
  readonly #threads: number;
  #closed = false;

  constructor(threads: number) {
    this.#threads = threads;
  }

  add(source: PieceSource): void {
    this.#lines.push({ source, given: 0 });
    this.#feed();
  }

  /** Gives out no more of a source; what threads work at they end. */
  remove(source: PieceSource): void {
    const at = this.#lines.findIndex((line) => line.source === source);
    if (at >= 0) this.#lines.splice(at, 1);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const source of [...this.#lines.splice(0).map((line) => line.source), ...this.#running])
      source.fail(engineFailed('it was closed'));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #feed(): void {
    while (!this.#closed && this.#lines.length > 0) {
      const worker = this.#idle.pop() ?? this.#start();
      if (worker === undefined) return;
      const given = this.#takePiece();
      if (given === undefined) {
        this.#idle.push(worker);
        return;
      }
      this.#work(worker, given);
    }
  }

  /** Of the source that waits longest, which then waits behind the others. */
  #takePiece(): { source: PieceSource; index: number; piece: ChallengePiece } | undefined {
    for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) {
      const piece = line.source.next();
      if (piece === undefined) continue;
      this.#lines.push(line);
      line.given += 1;
      return { source: line.source, index: line.given - 1, piece };
    }
    return undefined;
  }

  #work(worker: Worker, { source, index, piece }: { source: PieceSource; index: number; piece: ChallengePiece }): void {
    this.#running.add(source);
    const end = (done: () => void) => {
      worker.removeAllListeners('message');
      worker.removeAllListeners('error');
      worker.unref();
      if (this.#closed) return;
      done();
      this.#feed();
    };
    worker.ref();
    worker.once('message', (result: ChallengePieceResult) =>
      end(() => {
        this.#idle.push(worker);
        source.take(index, result);
      }),
    );
    worker.once('error', (cause) =>
      end(() => {
        this.#workers.splice(this.#workers.indexOf(worker), 1);
        this.remove(source);
        source.fail(engineFailed((cause as Error).message));
      }),
    );
    worker.postMessage(piece);
  }

  #start(): Worker | undefined {
    if (this.#workers.length >= this.#threads) return undefined;
    const worker = new Worker(join(import.meta.dirname, 'challenge-worker.ts'), { env: {} });
    this.#workers.push(worker);
    return worker;
  }
}

function engineFailed(reason: string): MillraceError {
  return new MillraceError('challenge-engine-failed', {
    actor: 'host',
    message: `The threads that solve hardware challenges failed: ${reason}`,
    values: { reason },
    hint: 'Too little memory is the usual reason; each thread needs some 10 MB.',
  });
}
