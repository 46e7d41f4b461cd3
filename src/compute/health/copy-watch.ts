import type { ChainClient, Signer } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import type { HealthView } from './health-view.ts';
import { receiptTag, signReceipt } from './receipt.ts';

/** A statement that was not measured: it says that a device passed, and the device's node gave its author no receipt. */
export interface UnmeasuredStatement {
  hour: number;
  /** Of the device that it is about. */
  seat: number;
  /** Who says it. */
  operatorId: bigint;
}

/** What a watch stands on. */
export interface CopyWatchOptions {
  client: ChainClient;
  signer: Pick<Signer, 'signDigest'>;
  operatorId: bigint;
  view: HealthView;
  log: Logger;
}

/** Hours behind the present one that are looked at. */
const LOOK_BACK = 24;
const FOUND_MAX = 1000;

/**
 * Looks through what others have reported of this operator's devices: who says that one passed must have its receipt, which only this node can make. A
 * partner that copies what others say is found, though it can say what it likes of a device that "did not answer". What it finds changes no
 * figure: it is shown.
 */
export class CopyWatch {
  readonly #options: CopyWatchOptions;
  readonly #found: UnmeasuredStatement[] = [];
  #next = 1;

  constructor(options: CopyWatchOptions) {
    this.#options = options;
  }

  /** The last ones that were found, oldest first. */
  get found(): readonly UnmeasuredStatement[] {
    return this.#found;
  }

  /** Looks through the hours whose report time is over. @throws chain-unreachable */
  async run(now: bigint): Promise<void> {
    const { view } = this.#options;
    const last = view.hourAt(now - BigInt(view.rule.reportSeconds)) - 1;
    for (let hour = Math.max(this.#next, last - LOOK_BACK + 1); hour <= last; hour += 1) {
      for (const device of view.occupantsAt(hour)) {
        if (device.operatorId === this.#options.operatorId) await this.#lookAt(hour, device.seat);
      }
      this.#next = hour + 1;
    }
  }

  async #lookAt(hour: number, seat: number): Promise<void> {
    const { client, signer, view, log } = this.#options;
    const seed = await view.seedOf(hour);
    const device = view.occupantAt(seat, hour);
    if (seed === undefined || device === undefined) return;
    for (const { said, partner } of view.pairsOf(hour, device, seed)) {
      if (said?.verdict !== 'passed') continue;
      const { operatorId } = partner;
      if (said.receiptTag === receiptTag(await signReceipt(client, signer, { hour, seat, askerId: operatorId }))) continue;
      log.warn('statement-not-measured', { hour, seat, operatorId });
      this.#found.push({ hour, seat, operatorId });
      if (this.#found.length > FOUND_MAX) this.#found.shift();
    }
  }
}
