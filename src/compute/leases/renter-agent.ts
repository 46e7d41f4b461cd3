import { join } from 'node:path';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { isSignedBy } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { startDuties } from './duties.ts';
import { IntervalProbes } from './interval-probes.ts';
import { intervalAt, passedIntervals, WORD } from './intervals.ts';
import { blockToReadFrom, type LeaseView, listLeases, type MarketTimes, meterDigest, readLease, readMarketTimes } from './lease-chain.ts';
import { type LeaseRecord, type LeaseRecords, openLeaseRecords } from './lease-record.ts';
import { createPanelAsker, type PanelAsker } from './panel-asker.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';
import { createStatementCourier, type StatementCourier } from './statement-courier.ts';

/** Who speaks for a renter while it rents. */
export interface RenterAgent {
  /** Leases that it still follows. */
  followed(): { leaseId: bigint; intervals: number; intervalsUp: number }[];
  /** Resolves when no lease is left to follow. */
  readonly idle: Promise<void>;
  stop(): Promise<void>;
}

/** Who rents, and where what was found is kept. */
export interface RenterAgentOptions {
  client: ChainClient;
  signer: Signer;
  /** Lends the renter's sender for one piece of work: others use the same wallet. */
  withSender: <Result>(work: (sender: Sender) => Promise<Result>) => Promise<Result>;
  folder: string;
  log: Logger;
  /** Whether it pays for drawn probers where it finds a machine down. Default true. */
  asksProbers?: boolean;
}

const TICK_MS = 250;
const PROBES_PER_INTERVAL = 3;
/** The supplier has every reason to be first: the renter sends what it denies only when the supplier did not. */
const DUE_SHARE = 2 / 3;
const CLOSE_PATIENCE_SECONDS = 20n;
/** So many of its own probes in a row find nothing before drawn probers are asked to look too. */
const DOWN_INTERVALS = 2;

interface Followed {
  view: LeaseView;
  readonly record: LeaseRecord;
  readonly rental: RentalClient;
  readonly nodeKey: `0x${string}`;
  readonly probes: IntervalProbes;
  /** Intervals noted when it last spoke with the machine; -1 when it is to speak again. */
  exchanged: number;
}

/**
 * Follows all leases of a renter until they are closed: probes them itself, signs what it found, gives it to the machine and takes the machine's word
 * for it; brings a denial to the chain itself when the machine does not, asks for drawn probers where it finds a machine down, and closes leases,
 * so that refunds come back. What it found is on disk: after a kill it goes on, and says nothing of the intervals in which it did not look.
 * @throws chain-unreachable
 */
export async function startRenterAgent(options: RenterAgentOptions): Promise<RenterAgent> {
  return new OpenRenterAgent(options, await readMarketTimes(options.client));
}

class OpenRenterAgent implements RenterAgent {
  readonly #options: RenterAgentOptions;
  readonly #times: MarketTimes;
  readonly #clock = new ProtocolClock();
  readonly #records: LeaseRecords;
  readonly #sender: Sender;
  readonly #courier: StatementCourier;
  readonly #asker: PanelAsker;
  readonly #followed = new Map<bigint, Followed>();
  readonly #done = new Set<bigint>();
  readonly #idle = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #stopDuties: () => Promise<void>;
  #seenBlock: bigint | undefined;

  constructor(options: RenterAgentOptions, times: MarketTimes) {
    const { client, signer, withSender, folder, log } = options;
    this.#options = options;
    this.#times = times;
    this.#records = openLeaseRecords(join(folder, 'leases'));
    const send = (call: never) => withSender((sender) => sender.send(call));
    this.#sender = { address: signer.address, send } as unknown as Sender;
    this.#courier = createStatementCourier({ client, sender: this.#sender, signer, times, dueShare: DUE_SHARE });
    this.#asker = createPanelAsker({ client, sender: this.#sender, log });
    this.#watching = client.watchBlocks(
      ({ number, timestamp }) => this.#look(number, timestamp).catch((error) => this.#warn(error)),
      this.#stop.signal,
    );
    this.#stopDuties = startDuties({
      items: () => this.#followed.values(),
      duty: (lease) => this.#work(lease, this.#clock.now()).catch((error) => this.#warn(error)),
      everyMs: TICK_MS,
    });
  }

  get idle(): Promise<void> {
    return this.#idle.promise;
  }

  followed(): { leaseId: bigint; intervals: number; intervalsUp: number }[] {
    return [...this.#followed.values()].map(({ view, record }) => {
      const { spoken, up } = record.own.counts();
      return { leaseId: view.leaseId, intervals: spoken, intervalsUp: up };
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled([this.#watching, this.#stopDuties()]);
  }

  async #look(number: bigint, timestamp: bigint): Promise<void> {
    const { client, signer } = this.#options;
    this.#clock.observe(timestamp);
    for (const leaseId of await listLeases(client, { renter: signer.address }, blockToReadFrom(this.#seenBlock))) {
      if (this.#followed.has(leaseId) || this.#done.has(leaseId)) continue;
      const lease = await this.#follow(leaseId);
      if (lease === undefined) this.#done.add(leaseId);
      else this.#followed.set(leaseId, lease);
    }
    this.#seenBlock = number;
    for (const lease of this.#followed.values()) lease.view = await readLease(client, lease.view.leaseId);
    if (this.#followed.size === 0) this.#idle.resolve();
  }

  async #follow(leaseId: bigint): Promise<Followed | undefined> {
    const { client, signer } = this.#options;
    const { meterSeconds } = this.#times;
    const view = await readLease(client, leaseId);
    if (view.closed || view.agent.toLowerCase() !== signer.address.toLowerCase()) return undefined;
    const [rental, nodeKey] = await Promise.all([
      openRentalClient(client, { leaseId, signer }),
      client.read('operators', 'nodeKeyOf', [view.operatorId]),
    ]);
    // Of what passed before it looked it knows nothing, and says nothing.
    const from = passedIntervals(view, meterSeconds, this.#clock.now());
    const probes = new IntervalProbes({ pauseMs: () => (meterSeconds * 1000) / PROBES_PER_INTERVAL, from });
    return { view, record: this.#records.open(leaseId), rental, nodeKey, probes, exchanged: 0 };
  }

  async #work(lease: Followed, now: bigint): Promise<void> {
    const running = intervalAt(lease.view, this.#times.meterSeconds, now);
    if (running !== undefined) lease.probes.look(running, () => lease.rental.probe());
    const passed = passedIntervals(lease.view, this.#times.meterSeconds, now);
    const judge = (found?: { up: number; down: number }) => (found === undefined ? undefined : found.up > found.down);
    if (lease.probes.note(lease.record.own, passed, judge)) this.#records.save(lease.record);
    await this.#exchange(lease);
    await this.#denyOnChain(lease, now);
    if (this.#options.asksProbers !== false && running !== undefined && isFoundDown(lease)) await this.#asker.ask(lease.view, running);
    await this.#asker.fixSeeds(now);
    await this.#finish(lease, now);
  }

  /** Gives the machine what was found since the last time, and keeps the machine's own signed word. */
  async #exchange(lease: Followed): Promise<void> {
    const { record, view, rental, nodeKey } = lease;
    const { spoken } = record.own.counts();
    if (spoken === lease.exchanged) return;
    lease.exchanged = spoken;
    const word = Math.max(...record.own.words());
    try {
      const answer = await rental.exchange(word, await this.#courier.sign(record, 'renter', word));
      const said = { leaseId: view.leaseId, side: 'node', word, spoken: answer.spoken, up: answer.up } as const;
      if (!isSignedBy(nodeKey, meterDigest(this.#options.client, said), answer.signature)) return;
      record.theirs.set(word, answer);
      this.#records.save(record);
    } catch {
      // The machine is down, or refuses: the word goes on chain by itself when it denies anything.
      lease.exchanged = -1;
    }
  }

  async #denyOnChain({ record, view }: Followed, now: bigint): Promise<void> {
    for (const word of record.own.words()) {
      const { spoken, up } = record.own.word(word);
      if ((spoken & ~up) === 0n) continue;
      await this.#courier.deliver(view, 'renter', [[word, await this.#courier.sign(record, 'renter', word)]], now);
      const theirs = record.theirs.get(word);
      if (theirs !== undefined) await this.#courier.deliver(view, 'node', [[word, theirs]], now);
    }
  }

  async #finish({ view }: Followed, now: bigint): Promise<void> {
    const { leaseId, from, until, closed } = view;
    const closable = until === from ? 0n : until + BigInt(this.#times.speakSeconds);
    if (!closed && now >= closable + CLOSE_PATIENCE_SECONDS) {
      await this.#sender.send({ contract: 'computeMarket', functionName: 'close', args: [leaseId] });
    }
    if (!closed) return;
    await this.#asker.settle(view);
    this.#records.remove(leaseId);
    this.#followed.delete(leaseId);
    this.#done.add(leaseId);
    this.#options.log.info('lease-closed', { leaseId });
  }

  #warn(error: unknown): void {
    const { code, message } = toMillraceError(error);
    if (!this.#stop.signal.aborted) this.#options.log.warn('renter-agent-failed', { code, message });
  }
}

function isFoundDown({ record, probes: { noted } }: Followed): boolean {
  if (noted < DOWN_INTERVALS) return false;
  return Array.from({ length: DOWN_INTERVALS }, (_, back) => noted - 1 - back).every((interval) => {
    const { spoken, up } = record.own.word(Math.floor(interval / WORD));
    return ((spoken & ~up) >> BigInt(interval % WORD)) & 1n;
  });
}
