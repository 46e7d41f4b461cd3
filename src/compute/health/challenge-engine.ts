import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { MillraceError } from '../../errors.ts';
import type { OpenedLeaf, WantedLeaf } from './challenge-check.ts';
import { PiecePool, type PieceSource } from './challenge-pool.ts';
import { type ChallengePlan, proveLeaf, treeOf, UNIT_WORK, unitAt, unitCount } from './challenge-work.ts';
import type { ChallengePiece } from './challenge-worker.ts';
import type { Declared } from './figures.ts';

/** A challenge of one device: its seed is the device's own, so no unit serves two. */
export interface ChallengeTask {
  seed: Uint8Array;
  plan: ChallengePlan;
}

/** How far a challenge has come: so many of the plan's first units are done, and this is the commitment to them. */
export interface ChallengeProgress {
  done: number;
  root: Uint8Array;
}

/** A challenge that is worked at. What was done stays, to be opened. */
export interface ChallengeRun {
  /** Undefined before the first unit is done. */
  progress(): ChallengeProgress | undefined;
  /** Ends when all units are done or the run was stopped. @throws challenge-engine-failed */
  ended: Promise<void>;
  /** Leaves of the first `done` units. @throws bad-leaf, challenge-engine-failed */
  open(done: number, wanted: readonly WantedLeaf[]): Promise<OpenedLeaf[]>;
  /** No more units are begun. */
  stop(): void;
}

/** Makes units on all cores of this machine. Several challenges at once share them, as several devices that are one machine do. */
export interface ChallengeEngine {
  threads: number;
  /**
   * Starts the threads and has each of them work once, so that the first challenge finds them ready: starting one takes a good part of a deadline on a
   * machine that has much else to do.
   * @throws challenge-engine-failed
   */
  warm(): Promise<void>;
  start(task: ChallengeTask): ChallengeRun;
  close(): Promise<void>;
}

const BENCHMARK_UNITS_PER_THREAD = 4;
const BENCHMARK_RUNS = 3;

/** An engine of so many threads, one a core unless told otherwise; they start with the first work and sleep until there is more. */
export function startChallengeEngine(threads = availableParallelism()): ChallengeEngine {
  const pool = new PiecePool(threads);
  const start = (task: ChallengeTask) => new Run(pool, task);
  return {
    threads,
    warm: () => start({ seed: randomBytes(32), plan: { products: threads, memories: threads } }).ended,
    start,
    close: () => pool.close(),
  };
}

/**
 * What this machine can do now: the best of three runs each of products and of memory, on all threads.
 * @throws challenge-engine-failed, or the signal's reason
 */
export async function benchmark(engine: ChallengeEngine, signal?: AbortSignal): Promise<Declared> {
  const units = BENCHMARK_UNITS_PER_THREAD * engine.threads;
  const timeOf = async (plan: ChallengePlan) => {
    let best = Number.POSITIVE_INFINITY;
    for (let run = 0; run < BENCHMARK_RUNS; run += 1) {
      signal?.throwIfAborted();
      const startedAt = performance.now();
      await engine.start({ seed: randomBytes(32), plan }).ended;
      best = Math.min(best, performance.now() - startedAt);
    }
    return best;
  };
  const productMs = await timeOf({ products: units, memories: 0 });
  const memoryMs = await timeOf({ products: 0, memories: units });
  return {
    rate: Math.max(1, Math.floor((units * UNIT_WORK.products) / 1000 / productMs)),
    memoryMbs: Math.max(1, Math.floor((units * UNIT_WORK.bytes) / 1000 / memoryMs)),
  };
}

class Run implements ChallengeRun {
  readonly ended: Promise<void>;
  readonly #pool: PiecePool;
  readonly #task: ChallengeTask;
  readonly #total: number;
  /** Levels of each made unit's tree, leaves first, by its place in the plan. */
  readonly #units: (Uint8Array[][] | undefined)[] = [];
  readonly #source: PieceSource;
  #begun = 0;
  #done = 0;
  #known: ChallengeProgress | undefined;
  #end: () => void;

  constructor(pool: PiecePool, task: ChallengeTask) {
    [this.#pool, this.#task, this.#total] = [pool, task, unitCount(task.plan)];
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {});
    [this.ended, this.#end] = [promise, resolve];
    this.#source = { next: () => this.#next(), take: (place, { hashes }) => this.#take(place, hashes), fail: reject };
    pool.add(this.#source);
  }

  progress(): ChallengeProgress | undefined {
    if (this.#done === 0) return undefined;
    if (this.#known?.done !== this.#done) this.#known = { done: this.#done, root: rootOf(treeOf(this.#rootsOf(this.#done))) };
    return this.#known;
  }

  async open(done: number, wanted: readonly WantedLeaf[]): Promise<OpenedLeaf[]> {
    const isThere = ({ place, leaf }: WantedLeaf) => this.#units[place]?.[0]?.[leaf] !== undefined && place < done;
    if (!(done >= 1 && done <= this.#done) || !wanted.every(isThere)) throw badLeaf(done, this.#done);
    const levels = treeOf(this.#rootsOf(done));
    const words = await makeLeaves(this.#pool, this.#task, wanted);
    return wanted.map(({ place, leaf }, index) => {
      const unit = this.#units[place] as Uint8Array[][];
      const proof = proveLeaf(unit, leaf);
      return { place, leaf, words: words[index] as Uint32Array, proof, unitRoot: rootOf(unit), unitProof: proveLeaf(levels, place) };
    });
  }

  stop(): void {
    this.#pool.remove(this.#source);
    this.#end();
  }

  #next(): ChallengePiece | undefined {
    if (this.#begun === this.#total) return undefined;
    this.#begun += 1;
    return { seed: this.#task.seed, unit: unitAt(this.#task.plan, this.#begun - 1) };
  }

  /** Threads end in any order; what counts are the first units without a gap. */
  #take(place: number, hashes: readonly Uint8Array[]): void {
    this.#units[place] = treeOf(hashes);
    while (this.#units[this.#done] !== undefined) this.#done += 1;
    if (this.#done === this.#total) this.#end();
  }

  #rootsOf(done: number): Uint8Array[] {
    return this.#units.slice(0, done).map((unit) => rootOf(unit as Uint8Array[][]));
  }
}

function badLeaf(done: number, made: number): MillraceError {
  return new MillraceError('bad-leaf', {
    actor: 'caller',
    message: `Got leaves of the first ${done} units, the challenge has ${made}`,
    values: { done, count: made },
  });
}

function rootOf(levels: readonly (readonly Uint8Array[])[]): Uint8Array {
  return (levels.at(-1) as readonly Uint8Array[])[0] as Uint8Array;
}

/** The words of leaves of a task, made again by the threads. */
function makeLeaves(pool: PiecePool, { seed, plan }: ChallengeTask, wanted: readonly WantedLeaf[]): Promise<Uint32Array[]> {
  return new Promise((resolve, reject) => {
    const words: Uint32Array[] = [];
    let [begun, ended] = [0, 0];
    if (wanted.length === 0) resolve(words);
    pool.add({
      next() {
        const leaf = wanted[begun];
        begun += 1;
        return leaf && { seed, unit: unitAt(plan, leaf.place), leaf: leaf.leaf };
      },
      take(index, result) {
        words[index] = result.words;
        ended += 1;
        if (ended === wanted.length) resolve(words);
      },
      fail: reject,
    });
  });
}
