import { systemClock } from '../../clock.ts';
import type { IntervalRecord } from './intervals.ts';

/** Probes of one interval: how many found the rental up, how many down. */
export interface ProbeCounts {
  up: number;
  down: number;
}

/** Looks at one rental again and again while its intervals run, and notes what it found of each when it is over. */
export class IntervalProbes {
  readonly #pauseMs: () => number;
  readonly #counts = new Map<number, ProbeCounts>();
  #noted: number;
  #dueMs = Number.NEGATIVE_INFINITY;
  #isProbing = false;

  /** @param options.pauseMs gives the time between two probes @param options.from the first interval of which anything is to be noted */
  constructor(options: { pauseMs: () => number; from?: number }) {
    this.#pauseMs = options.pauseMs;
    this.#noted = options.from ?? 0;
  }

  /** Intervals before this one were noted, or nothing is to be said of them. */
  get noted(): number {
    return this.#noted;
  }

  /** Probes, unless a probe is under way or the next one is not due. */
  look(interval: number, probe: () => Promise<boolean>): void {
    const nowMs = systemClock.nowMs();
    if (this.#isProbing || nowMs < this.#dueMs) return;
    [this.#isProbing, this.#dueMs] = [true, nowMs + this.#pauseMs()];
    void probe().then((isUp) => {
      const { up, down } = this.#counts.get(interval) ?? { up: 0, down: 0 };
      this.#counts.set(interval, isUp ? { up: up + 1, down } : { up, down: down + 1 });
      this.#isProbing = false;
    });
  }

  /**
   * Notes the intervals before `passed` as `judge` finds them up or not; of an interval for which it gives undefined nothing is said.
   * @returns whether anything was noted
   */
  note(record: IntervalRecord, passed: number, judge: (found: ProbeCounts | undefined) => boolean | undefined): boolean {
    let hasNoted = false;
    for (; this.#noted < passed; this.#noted += 1) {
      const isUp = judge(this.#counts.get(this.#noted));
      this.#counts.delete(this.#noted);
      if (isUp === undefined) continue;
      record.note(this.#noted, isUp);
      hasNoted = true;
    }
    return hasNoted;
  }
}
