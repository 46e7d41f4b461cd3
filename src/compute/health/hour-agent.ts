import { setImmediate } from 'node:timers/promises';
import { type Hex, keccak256, toHex } from 'viem';
import { type ChainClient, fixSeed, type Sender, type Signer, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { openFigure } from './figure-tree.ts';
import { encodeFigure, FIGURE_BYTES } from './figures.ts';
import { type HealthView, pageOf } from './health-view.ts';
import type { Observations } from './observations.ts';
import { encodeReport } from './report-data.ts';

/** What an agent of hours stands on. */
export interface HourAgentOptions {
  client: ChainClient;
  signer: Pick<Signer, 'signDigest'>;
  sender: Sender;
  operatorId: bigint;
  view: HealthView;
  /** What this node measured; without it nothing is reported. */
  observations?: Observations;
  log: Logger;
}

/** What an agent did so far. */
export interface HourAgentCounts {
  reports: number;
  proposals: number;
  disputes: number;
}

/** Hours behind the present one that are looked at. */
const LOOK_BACK = 48;
const ADVANCE_MAX = 16n;
/** Some 30 ms of work. */
const SEATS_AT_ONCE = 50;
/** Between two proposers' turns, as a share of the time that there is. */
const TURNS = 6;
const WITHOUT_LOOK = new Set(['already-proposed', 'reports-still-open', 'hour-out-of-reach', 'already-reported', 'not-proposed']);

/**
 * Does what an hour needs once it is over: reports what was measured, proposes the figures when it is this operator's turn (the order is drawn
 * from the hour's randomness), disputes a proposal that differs from what the reports give, and makes hours final. Every step may be done
 * by anybody, so any of it may have been done already.
 */
export class HourAgent {
  readonly counts: HourAgentCounts = { reports: 0, proposals: 0, disputes: 0 };
  readonly #options: HourAgentOptions;
  readonly #reported = new Set<number>();
  readonly #checked = new Set<string>();

  constructor(options: HourAgentOptions) {
    this.#options = options;
  }

  /** One look at the chain, at a block's time. */
  async run(now: bigint): Promise<void> {
    const { view } = this.#options;
    const next = await this.#options.client.read('computeHealth', 'nextHour');
    const present = view.hourAt(now);
    for (let hour = Math.max(1, next, present - LOOK_BACK); hour < present; hour += 1) {
      await this.#try('report', () => this.#report(hour, now));
      await this.#try('dispute', () => this.#dispute(hour, now));
      await this.#try('propose', () => this.#propose(hour, now));
    }
    await this.#try('advance', () => this.#advance(next, now));
  }

  /** Others may be quicker; anything else is logged and tried again with the next block. */
  async #try(step: string, work: () => Promise<void>): Promise<void> {
    await work().catch((error) => {
      if (error instanceof MillraceError && WITHOUT_LOOK.has(error.code)) return;
      this.#options.log.warn('health-step-failed', { step, message: String(error) });
    });
  }

  async #report(hour: number, now: bigint): Promise<void> {
    const { client, signer, sender, view, operatorId, observations } = this.#options;
    if (observations === undefined || this.#reported.has(hour) || now >= this.#reportsUntil(hour)) return;
    const own = observations.statements(hour, view.rule.rounds);
    const said = own.filter(({ seat, statements }) => {
      return statements.some((one) => one !== undefined) && view.occupantAt(seat, hour)?.operatorId === operatorId;
    });
    const reports = await Promise.all(
      [...Map.groupBy(said, ({ seat }) => pageOf(seat))]
        .filter(([page]) => view.report(hour, operatorId, page) === undefined)
        .map(async ([page, entries]) => {
          const data = toHex(encodeReport(entries));
          const signature = await signer.signDigest(reportDigest(client, { operatorId, hour, page, data }));
          return { operatorId, hour, page, data, signature };
        }),
    );
    if (reports.length > 0) {
      await sender.send({ contract: 'computeHealth', functionName: 'report', args: [reports], key: `health-report-${hour}` });
      this.counts.reports += 1;
    }
    this.#reported.add(hour);
  }

  /** In turns, so that not everybody pays for the same proposal; who has no stake for the bond lets its turn pass. */
  async #propose(hour: number, now: bigint): Promise<void> {
    const { client, sender, view, operatorId, log } = this.#options;
    const seats = view.seatsAt(hour);
    if (seats === 0 || now < this.#reportsUntil(hour) || view.figuresOf(hour) !== undefined) return;
    const seed = await view.seedOf(hour);
    if (seed === undefined) return;
    const turn = turnOf(view, hour, seed, operatorId);
    const wait = BigInt(Math.floor((Math.min(turn, TURNS - 1) * view.rule.proposeSeconds) / TURNS));
    if (turn < 0 || now < this.#reportsUntil(hour) + wait) return;
    if ((await client.read('stakeVault', 'availableOf', [operatorId])) < view.rule.bond) {
      log.debug('no-stake-for-bond', { hour, bond: view.rule.bond });
      return;
    }
    const figures = toHex(await figuresOfHour(view, hour, seed));
    await sender.send({ contract: 'computeHealth', functionName: 'propose', args: [hour, operatorId, figures] });
    this.counts.proposals += 1;
    log.info('figures-proposed', { hour, seats });
  }

  /** The first figure that differs is enough. */
  async #dispute(hour: number, now: bigint): Promise<void> {
    const { client, sender, view, log } = this.#options;
    const proposal = view.figuresOf(hour);
    if (proposal === undefined || proposal.ordinal !== undefined || now >= proposal.finalFrom) return;
    const key = `${hour}/${proposal.root}/${proposal.finalFrom}`;
    if (this.#checked.has(key)) return;
    const seed = await view.seedOf(hour);
    if (seed === undefined) return;
    const seat = firstDifference(proposal.figures, await figuresOfHour(view, hour, seed));
    if (seat !== undefined) {
      if (!(await fixSeed(client, { sender, time: view.startOf(hour) }))) return;
      const pages = view.pagesFor(hour, seat, seed).map((page) => toHex(page));
      await sender.send({
        contract: 'computeHealth',
        functionName: 'dispute',
        args: [hour, seat, openFigure(proposal.figures, seat), pages],
      });
      this.counts.disputes += 1;
      log.warn('figures-disputed', { hour, seat, proposer: proposal.operatorId });
    }
    this.#checked.add(key);
  }

  async #advance(next: number, now: bigint): Promise<void> {
    const { client, sender, view, operatorId } = this.#options;
    const proposal = view.figuresOf(next);
    const ready = proposal?.finalFrom ?? (await client.read('computeHealth', 'passableFrom', [next]));
    if (view.seatsAt(view.hourAt(now)) === 0) return;
    const seed = (await view.seedOf(next)) ?? keccak256(toHex(next));
    // Who had no seat in that hour comes last: those who had may be gone.
    const turn = turnOf(view, next, seed, operatorId);
    const place = turn < 0 ? TURNS : Math.min(turn, TURNS - 1);
    const wait = BigInt(Math.floor((place * view.rule.proposeSeconds) / TURNS));
    if (now < ready + wait) return;
    await sender.send({ contract: 'computeHealth', functionName: 'advance', args: [ADVANCE_MAX] });
  }

  #reportsUntil(hour: number): bigint {
    const { view } = this.#options;
    return view.startOf(hour + 1) + BigInt(view.rule.reportSeconds);
  }
}

/** The figures of all seats of an hour by what was reported, as `propose` takes them; the node answers meanwhile. */
async function figuresOfHour(view: HealthView, hour: number, seed: Hex): Promise<Uint8Array> {
  const figures: Uint8Array[] = [];
  for (let seat = 0; seat < view.seatsAt(hour); seat += 1) {
    figures.push(encodeFigure(view.compute(hour, seat, seed)));
    if (seat % SEATS_AT_ONCE === SEATS_AT_ONCE - 1) await setImmediate();
  }
  return Buffer.concat(figures);
}

/** The first seat whose figure differs. */
function firstDifference(proposed: Uint8Array, computed: Uint8Array): number | undefined {
  for (let at = 0; at < computed.length; at += 1) if (proposed[at] !== computed[at]) return Math.floor(at / FIGURE_BYTES);
  return undefined;
}

/** An operator's place in the order in which those with seats act in an hour; -1 for one without. */
function turnOf(view: HealthView, hour: number, seed: Hex, operatorId: bigint): number {
  const operators = [...new Set(view.occupantsAt(hour).map((one) => one.operatorId))];
  const order = (id: bigint) => keccak256(`${seed}${id.toString(16).padStart(16, '0')}`);
  return operators
    .map((id) => ({ id, key: order(id) }))
    .sort((one, other) => (one.key < other.key ? -1 : 1))
    .findIndex(({ id }) => id === operatorId);
}

/** What an operator signs of a report (`IComputeHealth.reportDigest`). */
function reportDigest(client: ChainClient, report: { operatorId: bigint; hour: number; page: number; data: Hex }): Hex {
  const shape: TypedDataShape = {
    domain: {
      name: 'Millrace Compute Health',
      version: '1',
      chainId: client.chainId,
      verifyingContract: client.address('computeHealth'),
    },
    types: {
      HealthReport: [
        { name: 'operatorId', type: 'uint64' },
        { name: 'hour', type: 'uint32' },
        { name: 'page', type: 'uint32' },
        { name: 'dataHash', type: 'bytes32' },
      ],
    },
    primaryType: 'HealthReport',
  };
  const { operatorId, hour, page, data } = report;
  return typedDataDigest(shape, { operatorId, hour, page, dataHash: keccak256(data) });
}
