import { hexToString } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { benchmark, type ChallengeEngine } from './challenge-engine.ts';
import type { Declared } from './figures.ts';
import type { HealthView } from './health-view.ts';

/** What a keeper of seats stands on. */
export interface SeatKeeperOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  view: HealthView;
  engine: ChallengeEngine;
  log: Logger;
  /** What the operator declares by hand of all its devices together, instead of a share of what is measured. */
  declared?: Declared;
  /** Between two looks, milliseconds; left out: ten seconds. */
  lookEveryMs?: number;
}

/** Of what was measured: what is done in time is paid, so a machine that is in use then earns less in proportion. */
const DECLARED_SHARE = 1;
/** On a development network all nodes are one machine, and a challenge comes to all of them at once. */
const DECLARED_SHARE_DEV = 0.12;
const LOOK_EVERY_MS = 10_000;

/**
 * Sees to it that the operator's devices on offer have seats: measures what this machine can do, declares a share of it, parted evenly among the
 * devices. A device that is withdrawn from the market gives up its seat.
 */
export class SeatKeeper {
  readonly #options: SeatKeeperOptions;
  readonly #devices = new Set<bigint>();
  #offersRead: bigint | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #paused = false;

  constructor(options: SeatKeeperOptions) {
    this.#options = options;
  }

  /** No new seats; those that there are stay. */
  pause(paused: boolean): void {
    this.#paused = paused;
  }

  /** One look, not more often than was set. @throws chain-unreachable, challenge-engine-failed, insufficient-unlocked */
  async run(now: bigint, signal: AbortSignal): Promise<void> {
    if (performance.now() - this.#lookedAt < (this.#options.lookEveryMs ?? LOOK_EVERY_MS)) return;
    this.#lookedAt = performance.now();
    await this.#readOffers();
    const wanting: bigint[] = [];
    for (const deviceId of this.#devices) {
      const isOffered = await this.#isOffered(deviceId, now);
      const [seated] = await this.#options.client.read('computeHealth', 'seatOf', [deviceId]);
      if (seated && !isOffered) await this.#leave(deviceId);
      if (!seated && isOffered) wanting.push(deviceId);
    }
    if (wanting.length > 0 && !this.#paused) await this.#enrol(wanting, signal);
  }

  /** Gives up all seats; the hour that runs is the last. */
  async leaveAll(): Promise<bigint[]> {
    await this.#readOffers();
    const left: bigint[] = [];
    for (const deviceId of this.#devices) {
      const [seated] = await this.#options.client.read('computeHealth', 'seatOf', [deviceId]);
      if (!seated) continue;
      await this.#leave(deviceId);
      left.push(deviceId);
    }
    return left;
  }

  async #readOffers(): Promise<void> {
    const { client, operatorId } = this.#options;
    const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
    const fromBlock = this.#offersRead === undefined ? undefined : this.#offersRead + 1n;
    if (fromBlock !== undefined && fromBlock > toBlock) return;
    const offers = await client.events({ name: 'computeMarket', event: 'OfferSet', args: { operatorId }, fromBlock, toBlock });
    for (const { args } of offers) this.#devices.add(args.deviceId);
    this.#offersRead = toBlock;
  }

  async #isOffered(deviceId: bigint, now: bigint): Promise<boolean> {
    const { from, until } = await this.#options.client.read('computeMarket', 'offerOf', [deviceId]);
    return from <= now && now < until;
  }

  async #enrol(deviceIds: readonly bigint[], signal: AbortSignal): Promise<void> {
    const { client, sender, engine, log, declared } = this.#options;
    const measured = declared ?? (await benchmark(engine, signal));
    const ofMeasured = client.manifest.profile === 'dev' ? DECLARED_SHARE_DEV : DECLARED_SHARE;
    const share = (declared === undefined ? ofMeasured : 1) / this.#devices.size;
    const rate = Math.max(1, Math.floor(measured.rate * share));
    const memoryMbs = Math.max(1, Math.floor(measured.memoryMbs * share));
    for (const deviceId of deviceIds) {
      const { deviceClass } = await client.read('computeMarket', 'offerOf', [deviceId]);
      await sender.send({ contract: 'computeHealth', functionName: 'enrol', args: [deviceId, rate, memoryMbs] }).catch((error) => {
        if (!(error instanceof MillraceError && error.code === 'already-seated')) throw error;
      });
      log.info('device-seated', { deviceId, deviceClass: hexToString(deviceClass, { size: 32 }), rate, memoryMbs });
    }
  }

  async #leave(deviceId: bigint): Promise<void> {
    await this.#options.sender.send({ contract: 'computeHealth', functionName: 'leave', args: [deviceId] });
    this.#options.log.info('seat-given-up', { deviceId });
  }
}
