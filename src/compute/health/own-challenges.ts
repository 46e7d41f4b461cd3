import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { OpenedLeaf } from './challenge-check.ts';
import { type ChallengeEngine, type ChallengeSolution, taskOf } from './challenge-engine.ts';
import { type ChallengeTime, deviceSeed } from './challenge-time.ts';
import type { HealthRule, Occupant } from './health-view.ts';

interface Work {
  solution: Promise<ChallengeSolution>;
  stop: AbortController;
}

/** Verifiers may ask for openings until so many deadlines after the challenge's time. */
const KEPT_DEADLINES = 6;
const POLL_MS = 10;

/** The challenges of this node's own devices: begun when their time comes, answered to whoever asks, forgotten soon after. */
export class OwnChallenges {
  readonly #engine: ChallengeEngine;
  readonly #rule: HealthRule;
  readonly #log: Logger;
  readonly #works = new Map<string, Work>();
  #busyMs = 0;

  constructor(engine: ChallengeEngine, rule: HealthRule, log: Logger) {
    this.#engine = engine;
    this.#rule = rule;
    this.#log = log;
  }

  /** Time that this machine has spent on challenges, milliseconds. */
  get busyMs(): number {
    return this.#busyMs;
  }

  /** Begins the work of one device; once. */
  begin(challenge: ChallengeTime, device: Occupant): void {
    const key = keyOf(challenge.hour, device.seat);
    if (this.#works.has(key)) return;
    const stop = new AbortController();
    const startedAt = performance.now();
    const task = taskOf(this.#rule, device, deviceSeed(challenge.seed, device.deviceId));
    const solution = this.#engine.solve(task, stop.signal);
    solution
      .catch((error) => this.#log.warn('challenge-not-solved', { hour: challenge.hour, seat: device.seat, message: String(error) }))
      .finally(() => {
        this.#busyMs += performance.now() - startedAt;
      });
    this.#works.set(key, { solution, stop });
    const end = setTimeout(() => this.#end(key), KEPT_DEADLINES * this.#rule.deadlineMs);
    end.unref();
  }

  /** The commitment, as soon as it is there; waits for a challenge that this node has not seen yet. @throws no-challenge */
  async rootOf(hour: number, seat: number): Promise<Uint8Array> {
    const until = performance.now() + this.#rule.deadlineMs;
    while (!this.#works.has(keyOf(hour, seat)) && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    return (await this.#workOf(hour, seat).solution).root;
  }

  /** @throws no-challenge, bad-leaf */
  async open(hour: number, seat: number, leaves: readonly number[]): Promise<OpenedLeaf[]> {
    return (await this.#workOf(hour, seat).solution).open(leaves);
  }

  stop(): void {
    for (const key of this.#works.keys()) this.#end(key);
  }

  #workOf(hour: number, seat: number): Work {
    const work = this.#works.get(keyOf(hour, seat));
    if (work !== undefined) return work;
    throw new MillraceError('no-challenge', {
      actor: 'caller',
      message: `There is no challenge of seat ${seat} in hour ${hour} here`,
      values: { hour, seat },
    });
  }

  #end(key: string): void {
    this.#works.get(key)?.stop.abort(new MillraceError('no-challenge', { actor: 'caller', message: 'The challenge is over' }));
    this.#works.delete(key);
  }
}

function keyOf(hour: number, seat: number): string {
  return `${hour}/${seat}`;
}
