import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { FeeAgent, readRewards } from './fee-agent.ts';
import { openFigure } from './figure-tree.ts';
import { decodeFigure } from './figures.ts';
import type { HealthView, HourFigures } from './health-view.ts';

/** What an agent of claims stands on. */
export interface ClaimAgentOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  view: HealthView;
  log: Logger;
  /** Between two looks, milliseconds; left out: fifteen seconds. */
  lookEveryMs?: number;
}

const CLAIMS_MAX = 16;
const LOOK_EVERY_MS = 15_000;

/**
 * Brings an operator's rewards in: claims the final hours of its devices in their order, has the fees of its leases and jobs counted, has granted what
 * both allow and pays on what has vested. All of it is anybody's call and changes nothing when done twice.
 */
export class ClaimAgent {
  readonly #options: ClaimAgentOptions;
  readonly #fees: FeeAgent;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #soldSeen = 0n;

  constructor(options: ClaimAgentOptions) {
    this.#options = options;
    this.#fees = new FeeAgent(options);
  }

  /** One look, not more often than was set. */
  async run(): Promise<void> {
    if (performance.now() - this.#lookedAt < (this.#options.lookEveryMs ?? LOOK_EVERY_MS)) return;
    this.#lookedAt = performance.now();
    for (const step of [() => this.#claim(), () => this.#fees.countLeases(), () => this.#fees.countJobs(), () => this.#grant()]) {
      await step().catch((error) => {
        this.#options.log.warn('rewards-step-failed', { message: String(error) });
      });
    }
  }

  async #claim(): Promise<void> {
    const { client, sender, view, operatorId, log } = this.#options;
    const claims: { hour: number; seat: number; opening: ReturnType<typeof openFigure> }[] = [];
    const records = new Map<bigint, bigint>();
    for (const final of view.finalHours()) {
      for (const device of view.occupantsAt(final.hour)) {
        if (device.operatorId !== operatorId || claims.length >= CLAIMS_MAX) continue;
        const known = records.get(device.deviceId) ?? (await client.read('computeRewards', 'recordOf', [device.deviceId])).ordinal;
        records.set(device.deviceId, known);
        if ((final.ordinal as bigint) <= known || !(await this.#isDue(final))) continue;
        if (decodeFigure(final.figures, device.seat).performance === 0n) continue;
        claims.push({ hour: final.hour, seat: device.seat, opening: openFigure(final.figures, device.seat) });
      }
    }
    if (claims.length === 0) return;
    await sender.send({ contract: 'computeRewards', functionName: 'claim', args: [claims] });
    log.info('hours-claimed', { count: claims.length });
  }

  /** Whether the emission's hour in which an hour of health lies is over. */
  async #isDue({ hour }: HourFigures): Promise<boolean> {
    const { client, view } = this.#options;
    const emissionHour = (view.startOf(hour) - view.rule.startTime) / 3600n + 1n;
    return (await client.now()) >= view.rule.startTime + emissionHour * 3600n;
  }

  async #grant(): Promise<void> {
    const { client, sender, operatorId } = this.#options;
    const [{ grantable }, [queued, unqueued], releasable, sold] = await Promise.all([
      readRewards(client, operatorId),
      client.read('computeRewards', 'waitingFees', [operatorId]),
      client.read('computeRewards', 'releasable', [operatorId]),
      client.read('buybackAuction', 'sold'),
    ]);
    if (grantable > 0n || unqueued > 0n || (queued > 0n && sold > this.#soldSeen)) {
      await sender.send({ contract: 'computeRewards', functionName: 'grant', args: [operatorId] });
      this.#soldSeen = sold;
    }
    if (releasable > 0n) await sender.send({ contract: 'computeRewards', functionName: 'release', args: [operatorId] });
  }
}
