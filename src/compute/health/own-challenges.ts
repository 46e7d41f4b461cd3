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

/** The challenges of this node's own devices: begun when their time comes, answered to whoever asks, forgotten soon after. */
export class OwnChallenges {
  readonly #options: OwnChallengesOptions;
  readonly #works = new Map<string, Work>();
  #busyMs = 0;

  constructor(options: OwnChallengesOptions) {
    this.#options = options;
  }

  /** Time that this machine has spent on challenges, milliseconds. */
  get busyMs(): number {
    return this.#busyMs;
  }

  /** Begins the work of one device; once. */
  begin(challenge: ChallengeTime, device: Occupant): void {
    const { engine, rule, log } = this.#options;
    const key = keyOf(challenge.hour, device.seat);
    if (this.#works.has(key)) return;
    const stop = new AbortController();
    const startedAt = performance.now();
    const task = taskOf(rule, device, deviceSeed(challenge.seed, device.deviceId));
    const solution = engine.solve(task, stop.signal);
    solution
      .catch((error) => log.warn('challenge-not-solved', { hour: challenge.hour, seat: device.seat, message: String(error) }))
      .finally(() => {
        this.#busyMs += performance.now() - startedAt;
      });
    this.#works.set(key, { solution, stop });
    const end = setTimeout(() => this.#end(key), KEPT_DEADLINES * rule.deadlineMs);
    end.unref();
  }

  /**
   * The commitment, as soon as it is there. A partner that asks has seen the challenge's block, so the chain is looked at for it without waiting for
   * the next usual look, which on a chain elsewhere is seconds away: who asks early must not make who is asked late.
   * @throws no-challenge
   */
  async rootOf(hour: number, seat: number): Promise<Uint8Array> {
    const { rule, look } = this.#options;
    const until = performance.now() + rule.deadlineMs;
    while (!this.#works.has(keyOf(hour, seat)) && performance.now() < until) {
      await look();
      if (!this.#works.has(keyOf(hour, seat))) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
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
