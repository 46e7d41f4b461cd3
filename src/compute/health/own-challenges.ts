import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { OpenedLeaf, WantedLeaf } from './challenge-check.ts';
import type { ChallengeEngine, ChallengeProgress, ChallengeRun } from './challenge-engine.ts';
import { type ChallengeTime, deviceSeed } from './challenge-time.ts';
import { planOf } from './challenge-work.ts';
import type { HealthRule, Occupant } from './health-view.ts';

/** Which challenge of which own seat. */
export interface OwnChallenge {
  hour: number;
  slot: number;
  seat: number;
}

/** Verifiers may ask for openings until so many deadlines after the challenge's time. */
const KEPT_DEADLINES = 10;
const POLL_MS = 50;

/** What own challenges stand on. */
export interface OwnChallengesOptions {
  engine: ChallengeEngine;
  rule: HealthRule;
  log: Logger;
  /** Looks at the chain for a challenge whose time has come, and begins it. */
  look(): Promise<void>;
}

/** The challenges of this node's own devices: begun when their time comes, told to whoever asks, forgotten soon after. */
export class OwnChallenges {
  readonly #options: OwnChallengesOptions;
  readonly #runs = new Map<string, ChallengeRun>();
  #busyMs = 0;

  constructor(options: OwnChallengesOptions) {
    this.#options = options;
  }

  /** Time that this machine has spent on challenges, milliseconds. */
  get busyMs(): number {
    return this.#busyMs;
  }

  /** Begins the work of one device; once. It ends with the deadline: what is done later counts nowhere. */
  begin({ hour, slot, seed }: ChallengeTime, device: Occupant): void {
    const { engine, rule, log } = this.#options;
    const key = keyOf({ hour, slot, seat: device.seat });
    if (this.#runs.has(key)) return;
    const startedAt = performance.now();
    const run = engine.start({ seed: deviceSeed(seed, device.deviceId), plan: planOf(rule, device) });
    run.ended
      .catch((error) => log.warn('challenge-not-solved', { hour, slot, seat: device.seat, message: String(error) }))
      .finally(() => {
        this.#busyMs += performance.now() - startedAt;
      });
    this.#runs.set(key, run);
    setTimeout(() => run.stop(), rule.deadlineMs).unref();
    setTimeout(() => this.#end(key), KEPT_DEADLINES * rule.deadlineMs).unref();
  }

  /**
   * What is committed to, again and again until all is done or the time is over. A partner that asks has seen the challenge's block, so the chain is
   * looked at for it without waiting for the next usual look, which on a chain elsewhere is seconds away: who asks early must not make who is
   * asked late.
   * @throws no-challenge
   */
  async *progressOf(own: OwnChallenge): AsyncGenerator<ChallengeProgress> {
    const { rule, look } = this.#options;
    const until = performance.now() + rule.deadlineMs;
    while (!this.#runs.has(keyOf(own)) && performance.now() < until) {
      await look();
      if (!this.#runs.has(keyOf(own))) await pause();
    }
    const run = this.#runOf(own);
    let isOver = false;
    const noteEnd = () => {
      isOver = true;
    };
    run.ended.then(noteEnd, noteEnd);
    for (let told = 0; ; await pause()) {
      const wasOver = isOver;
      const progress = run.progress();
      if (progress !== undefined && progress.done > told) {
        told = progress.done;
        yield progress;
      }
      if (wasOver) return;
    }
  }

  /** @throws no-challenge, bad-leaf, challenge-engine-failed */
  async open(own: OwnChallenge, done: number, leaves: readonly WantedLeaf[]): Promise<OpenedLeaf[]> {
    return this.#runOf(own).open(done, leaves);
  }

  stop(): void {
    for (const key of this.#runs.keys()) this.#end(key);
  }

  #runOf(own: OwnChallenge): ChallengeRun {
    const run = this.#runs.get(keyOf(own));
    if (run !== undefined) return run;
    throw new MillraceError('no-challenge', {
      actor: 'caller',
      message: `There is no challenge of seat ${own.seat} in slot ${own.slot} of hour ${own.hour} here`,
      values: { ...own },
    });
  }

  #end(key: string): void {
    this.#runs.get(key)?.stop();
    this.#runs.delete(key);
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

function keyOf({ hour, slot, seat }: OwnChallenge): string {
  return `${hour}/${slot}/${seat}`;
}
