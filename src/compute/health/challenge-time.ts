import type { Hex } from 'viem';
import { hexToBigInt, keccak256 } from 'viem';
import type { HealthRule, HealthView } from './health-view.ts';
import { readRecentSeed } from './recent-seed.ts';

/** When a hardware challenge is: the same for all devices, known when the randomness of its slot is. */
export interface ChallengeTime {
  hour: number;
  slot: number;
  /** Seconds of protocol time. */
  time: bigint;
  seed: Hex;
}

/** Most challenges of an hour. */
const CHALLENGES_MAX = 4;
/** Milliseconds of each second that all challenges together may take: 1 % of a device's time. */
const HOUR_SHARE_MS = 10;

/** How many challenges an hour has: the more, the less one that somebody waits for is worth. */
export function challengesAnHour({ hourSeconds, deadlineMs }: Pick<HealthRule, 'hourSeconds' | 'deadlineMs'>): number {
  return Math.max(1, Math.min(CHALLENGES_MAX, Math.floor((hourSeconds * HOUR_SHARE_MS) / deadlineMs)));
}

/**
 * Whether a slot has a challenge, by the randomness of its beginning: with the odds of those that are left to the slots that are left. So each slot is as
 * likely as any other, every hour has the same number, and none is known before it begins, unless as many are left as there are slots.
 */
export function isChallengeSlot(seed: Hex, left: { slots: number; challenges: number }): boolean {
  return hexToBigInt(seed) % BigInt(left.slots) < BigInt(left.challenges);
}

/** Finds each hour's challenges as its slots begin. */
export class ChallengeClock {
  readonly #view: HealthView;
  readonly #slots: number;
  readonly #count: number;
  #hour = 0;
  #next = 0;
  #found: ChallengeTime[] = [];

  constructor(view: HealthView) {
    this.#view = view;
    this.#slots = view.rule.hourSeconds / view.rule.slotSeconds;
    this.#count = challengesAnHour(view.rule);
  }

  /** The challenges of the hour of a block that the chain has told until then, the last one last. @throws chain-unreachable */
  async until({ number: head, timestamp: time }: { number: bigint; timestamp: bigint }): Promise<readonly ChallengeTime[]> {
    const view = this.#view;
    const hour = view.hourAt(time);
    if (hour !== this.#hour) [this.#hour, this.#next, this.#found] = [hour, 0, []];
    while (this.#found.length < this.#count && this.#next < this.#slots) {
      const slot = this.#next;
      const begins = view.startOf(hour) + BigInt(slot * view.rule.slotSeconds);
      if (begins > time) break;
      const seed = await readRecentSeed(view.client, { time: begins, head });
      if (seed === undefined) break;
      if (this.#hour !== hour || this.#next !== slot) continue;
      this.#next = slot + 1;
      const left = { slots: this.#slots - slot, challenges: this.#count - this.#found.length };
      if (isChallengeSlot(seed, left)) this.#found.push({ hour, slot, time: begins, seed });
    }
    return this.#found;
  }
}

/** The seed of a device's own work in a challenge. */
export function deviceSeed(seed: Hex, deviceId: bigint): Uint8Array {
  return keccak256(`${seed}${deviceId.toString(16).padStart(64, '0')}`, 'bytes');
}
