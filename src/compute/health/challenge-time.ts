import type { Hex } from 'viem';
import { hexToBigInt, keccak256 } from 'viem';
import type { HealthView } from './health-view.ts';
import { readRecentSeed } from './recent-seed.ts';

/** When an hour's hardware challenge is: the same for all devices, known when the randomness of its slot is. */
export interface ChallengeTime {
  hour: number;
  slot: number;
  /** Seconds of protocol time. */
  time: bigint;
  seed: Hex;
}

/**
 * Which of an hour's slots has the challenge: slot j of S if the randomness of its beginning is divisible by S - j and no earlier one's was. So each
 * slot is as likely as any other, there is always one, and it is not known before it begins. What is not secure: the later the hour, the likelier
 * the next slot; who has waited for the last one knows it.
 */
export function isChallengeSlot(seed: Hex, slot: number, slots: number): boolean {
  return hexToBigInt(seed) % BigInt(slots - slot) === 0n;
}

/** Finds each hour's challenge as its slots begin. */
export class ChallengeClock {
  readonly #view: HealthView;
  readonly #slots: number;
  #hour = 0;
  #next = 0;
  #found: ChallengeTime | undefined;

  constructor(view: HealthView) {
    this.#view = view;
    this.#slots = view.rule.hourSeconds / view.rule.slotSeconds;
  }

  /** The challenge of the hour of a block, once the chain says it; undefined before. @throws chain-unreachable */
  async at({ number: head, timestamp: time }: { number: bigint; timestamp: bigint }): Promise<ChallengeTime | undefined> {
    const view = this.#view;
    const hour = view.hourAt(time);
    if (hour !== this.#hour) [this.#hour, this.#next, this.#found] = [hour, 0, undefined];
    while (this.#found === undefined && this.#next < this.#slots) {
      const slot = this.#next;
      const begins = view.startOf(hour) + BigInt(slot * view.rule.slotSeconds);
      if (begins > time) break;
      const seed = await readRecentSeed(view.client, { time: begins, head });
      if (seed === undefined) break;
      if (this.#hour !== hour || this.#next !== slot) continue;
      this.#next = slot + 1;
      if (isChallengeSlot(seed, slot, this.#slots)) this.#found = { hour, slot, time: begins, seed };
    }
    return this.#found;
  }
}

/** The seed of a device's own work in a challenge. */
export function deviceSeed(seed: Hex, deviceId: bigint): Uint8Array {
  return keccak256(`${seed}${deviceId.toString(16).padStart(64, '0')}`, 'bytes');
}
