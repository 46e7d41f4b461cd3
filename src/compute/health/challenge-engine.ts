import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { MillraceError } from '../../errors.ts';
import type { ChallengeTask, OpenedLeaf } from './challenge-check.ts';
import { CHUNK_ELEMENTS, type ChallengeSize, challengeSize, proveLeaf, SEGMENTS, treeOf } from './challenge-work.ts';
import type { ChallengePiece, ChallengePieceResult } from './challenge-worker.ts';
import type { Declared } from './figures.ts';

/** A challenge that was solved: what is committed to, and what opens it. */
export interface ChallengeSolution {
  root: Uint8Array;
  /** @throws bad-leaf */
  open(indices: readonly number[]): OpenedLeaf[];
}

/** Solves challenges on all cores of this machine. Several at once share them, as several devices that are one machine would. */
export interface ChallengeEngine {
  /**
   * Starts the threads and has each of them work once, so that the first challenge finds them ready: starting one takes a good part of a deadline on a
   * machine that has much else to do.
   * @throws challenge-engine-failed
   */
  warm(): Promise<void>;
  /** @throws challenge-engine-failed, or the signal's reason */
  solve(task: ChallengeTask, signal?: AbortSignal): Promise<ChallengeSolution>;
  close(): Promise<void>;
}

const ROWS_PER_PIECE = 32;
const BENCHMARK_SIDE = 640;
const BENCHMARK_ELEMENTS = 512 * CHUNK_ELEMENTS;
const BENCHMARK_RUNS = 3;

/** An engine of so many threads, one a core unless told otherwise; they start with the first work and sleep until there is more. */
export function startChallengeEngine(threads = availableParallelism()): ChallengeEngine {
  const pool = new PiecePool(threads);
  return {
    async warm() {
      const side = ROWS_PER_PIECE * threads;
      const b = new SharedArrayBuffer(side * side * 4);
      for (const kind of ['fill', 'rows'] as const) {
        await pool.run(rowPieces(kind, { seed: randomBytes(32), size: { side, elements: CHUNK_ELEMENTS }, b }));
      }
    },
    async solve({ seed, size }, signal) {
      const b = new SharedArrayBuffer(size.side * size.side * 4);
      await pool.run(rowPieces('fill', { seed, size, b }), signal);
      const rows = rowPieces('rows', { seed, size, b });
      const segments = Array.from({ length: SEGMENTS }, (_, segment): ChallengePiece => {
        const firstLeaf = size.side + (segment * size.elements) / CHUNK_ELEMENTS;
        return { kind: 'segment', seed, segment, elements: size.elements, firstLeaf };
      });
      const results = await pool.run([...rows, ...segments], signal);
      return solutionOf(size, results);
    },
    close: () => pool.close(),
  };
}

/**
 * What this machine can do now: the best of three runs each of the product and of the memory's part. Declare less than that: a challenge comes
 * while other work runs, and one that is missed costs the hour.
 * @throws challenge-engine-failed, or the signal's reason
 */
export async function benchmark(engine: ChallengeEngine, signal?: AbortSignal): Promise<Declared> {
  const least = { side: 16, elements: CHUNK_ELEMENTS };
  const timeOf = async (size: ChallengeSize) => {
    let best = Number.POSITIVE_INFINITY;
    for (let run = 0; run < BENCHMARK_RUNS; run += 1) {
      const startedAt = performance.now();
      await engine.solve({ seed: randomBytes(32), size }, signal);
      best = Math.min(best, performance.now() - startedAt);
    }
    return best;
  };
  const productMs = await timeOf({ ...least, side: BENCHMARK_SIDE });
  const memoryMs = await timeOf({ ...least, elements: BENCHMARK_ELEMENTS });
  const megabytes = (SEGMENTS * BENCHMARK_ELEMENTS * 96) / 1e6;
  return {
    rate: Math.max(1, Math.floor(BENCHMARK_SIDE ** 3 / 1000 / productMs)),
    memoryMbs: Math.max(1, Math.floor((megabytes * 1000) / memoryMs)),
  };
}

/** The task of a device: its seed is its own, so one answer is good for one device. */
export function taskOf(rule: Parameters<typeof challengeSize>[0], declared: Declared, seed: Uint8Array): ChallengeTask {
  return { seed, size: challengeSize(rule, declared) };
}

function rowPieces(
  kind: 'fill' | 'rows',
  { seed, size, b }: { seed: Uint8Array; size: ChallengeSize; b: SharedArrayBuffer },
): ChallengePiece[] {
  const { side } = size;
  return Array.from({ length: Math.ceil(side / ROWS_PER_PIECE) }, (_, piece) => {
    const from = piece * ROWS_PER_PIECE;
    return { kind, seed, side, from, to: Math.min(side, from + ROWS_PER_PIECE), b };
  });
}

function solutionOf(size: ChallengeSize, results: readonly ChallengePieceResult[]): ChallengeSolution {
  const levels = treeOf(results.flatMap(({ hashes }) => hashes));
  return {
    root: (levels.at(-1) as Uint8Array[])[0] as Uint8Array,
    open: (indices) => indices.map((index) => ({ index, words: wordsOf(size, results, index), proof: proveLeaf(levels, index) })),
  };
}

function wordsOf(size: ChallengeSize, results: readonly ChallengePieceResult[], index: number): Uint32Array {
  let first = 0;
  for (const { words, hashes } of results) {
    if (index < first + hashes.length && index >= first) {
      const length = index < size.side ? size.side : CHUNK_ELEMENTS;
      return words.subarray((index - first) * length, (index - first + 1) * length);
    }
    first += hashes.length;
  }
  throw new MillraceError('bad-leaf', {
    actor: 'caller',
    message: `Got leaf ${index}, the challenge has ${first}`,
    values: { index, count: first },
  });
}

interface PieceEntry {
  piece: ChallengePiece;
  resolve(result: ChallengePieceResult): void;
  reject(reason: unknown): void;
}

/** Threads that take pieces in turn. Each has one at a time, so pieces of challenges that are solved at once alternate. */
class PiecePool {
  readonly #workers: Worker[] = [];
  readonly #idle: Worker[] = [];
  readonly #queue: PieceEntry[] = [];
  readonly #running = new Set<PieceEntry>();
  readonly #threads: number;
  #closed = false;

  constructor(threads: number) {
    this.#threads = threads;
  }

  /** All results in the order of the pieces; stops giving out pieces when the signal says so. */
  async run(pieces: readonly ChallengePiece[], signal?: AbortSignal): Promise<ChallengePieceResult[]> {
    signal?.throwIfAborted();
    const entries = pieces.map((piece) => ({ piece, ...Promise.withResolvers<ChallengePieceResult>() }));
    const stop = () => {
      for (const entry of entries) {
        const at = this.#queue.indexOf(entry);
        if (at >= 0) this.#queue.splice(at, 1);
        entry.reject(signal?.reason);
      }
    };
    signal?.addEventListener('abort', stop, { once: true });
    this.#queue.push(...entries);
    this.#feed();
    try {
      return await Promise.all(entries.map(({ promise }) => promise));
    } finally {
      signal?.removeEventListener('abort', stop);
      for (const { promise } of entries) promise.catch(() => {});
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject } of [...this.#queue.splice(0), ...this.#running]) reject(engineFailed('it was closed'));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #feed(): void {
    while (this.#queue.length > 0 && !this.#closed) {
      const worker = this.#idle.pop() ?? this.#start();
      if (worker === undefined) return;
      const entry = this.#queue.shift() as PieceEntry;
      this.#running.add(entry);
      const end = (done: () => void) => {
        worker.removeAllListeners('message');
        worker.removeAllListeners('error');
        worker.unref();
        this.#running.delete(entry);
        done();
        this.#feed();
      };
      worker.ref();
      worker.once('message', (result: ChallengePieceResult) =>
        end(() => {
          this.#idle.push(worker);
          entry.resolve(result);
        }),
      );
      worker.once('error', (cause) =>
        end(() => {
          this.#workers.splice(this.#workers.indexOf(worker), 1);
          entry.reject(engineFailed((cause as Error).message));
        }),
      );
      worker.postMessage(entry.piece);
    }
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
    hint: 'Too little memory for the work that was declared is the usual reason; enrol the device with less.',
  });
}
