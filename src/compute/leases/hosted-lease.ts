import { systemClock } from '../../clock.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { IntervalProbes } from './interval-probes.ts';
import { intervalAt, passedIntervals, WORD } from './intervals.ts';
import type { LeaseView, MarketTimes } from './lease-chain.ts';
import type { LeaseRecord, LeaseRecords, SignedStatement } from './lease-record.ts';
import type { PanelAsker } from './panel-asker.ts';
import type { Rental, RentalMain } from './rental.ts';
import type { StatementCourier } from './statement-courier.ts';

/** What serving one lease stands on. */
export interface HostedLeaseOptions {
  view: LeaseView;
  times: MarketTimes;
  records: LeaseRecords;
  courier: StatementCourier;
  asker: PanelAsker;
  close: (leaseId: bigint) => Promise<undefined>;
  /** Starts its sandbox, or takes over that of the lease before it; undefined while that one still has it. */
  open: (record: LeaseRecord) => Rental | undefined;
  /** Takes the sandbox at the lease's end for the lease that follows; false when none does, and the sandbox is to end. */
  handOver: (rental: Rental) => boolean;
  log: Logger;
}

const PROBES_PER_INTERVAL = 3;
/** So many intervals without a word of the renter, and probers are asked. */
const SILENT_INTERVALS = 2;
/** Another one closed it. */
const CLOSED = 'lease-is-closed';
/** The chain's latest block is a little behind. */
const TOO_EARLY = 'lease-not-over';
const CLOSE_PAUSE_MS = 5_000;

/** A lease at its supplier: serves it to the second, measures itself, and brings both sides' words to the chain. */
export class HostedLease {
  readonly record: LeaseRecord;
  readonly #options: HostedLeaseOptions;
  readonly #probes: IntervalProbes;
  #view: LeaseView;
  #rental: Rental | undefined;
  #ending: Promise<void> | undefined;
  /** What runs is not its own sandbox. */
  #isLent = false;
  #isDone = false;
  #closeDueMs = Number.NEGATIVE_INFINITY;

  constructor(options: HostedLeaseOptions) {
    this.#options = options;
    this.#view = options.view;
    this.record = options.records.open(options.view.leaseId);
    const { meterSeconds } = options.times;
    this.#probes = new IntervalProbes({ pauseMs: () => (meterSeconds * 1000) / PROBES_PER_INTERVAL });
  }

  view(): LeaseView {
    return this.#view;
  }

  /** What runs; undefined before the lease and after it. */
  rental(): Rental | undefined {
    return this.#rental;
  }

  /** Whether nothing is left to do. */
  isDone(): boolean {
    return this.#isDone;
  }

  /** Tells it what the chain says now. */
  update(view: LeaseView): void {
    this.#view = view;
  }

  /** Does what is due; short, and never two at once. */
  async tick(now: bigint): Promise<void> {
    if (this.#isDone || now < this.#view.from) return;
    this.#beginOrEnd(now);
    this.#measure(now);
    try {
      await this.#speak(now);
      await this.#askIfSilent(now);
      await this.#options.asker.fixSeeds(now);
      await this.#ending;
      if (now >= this.#view.until) await this.#finish(now);
    } catch (error) {
      const { code, message } = toMillraceError(error);
      this.#options.log.warn('lease-duty-failed', { leaseId: this.#view.leaseId, code, message });
    }
  }

  /** Takes the renter's signed word. */
  take(word: number, statement: SignedStatement): void {
    this.record.theirs.set(word, statement);
    this.#options.records.save(this.record);
  }

  /** Runs a command in the rental by itself, also after a restart; replaces the one before. */
  async setMain(main: RentalMain): Promise<void> {
    this.keepMain(main);
    await this.#rental?.setMain(main);
  }

  /** Notes what runs already in a sandbox that it will take over. */
  keepMain(main: RentalMain): void {
    this.record.main = main;
    this.#options.records.save(this.record);
  }

  /** From now on `other` stands in the place of its sandbox, which ends; it is measured as the lease's own, and closed with the lease. */
  async lend(other: Rental): Promise<void> {
    const before = this.#isLent ? undefined : this.#rental;
    [this.#rental, this.#isLent] = [other, true];
    await before?.close();
  }

  /** What it was lent for is over: as long as the lease runs it has a sandbox again. */
  takeBack(): void {
    if (this.#isLent) [this.#rental, this.#isLent] = [undefined, false];
  }

  /** Stops what runs; the lease goes on at the next start. */
  async stop(): Promise<void> {
    if (!this.#isLent) await this.#rental?.close();
    await this.#ending;
  }

  #beginOrEnd(now: bigint): void {
    const { open, handOver, log } = this.#options;
    const { leaseId, until } = this.#view;
    if (now < until && this.#rental === undefined && this.#ending === undefined) {
      this.#rental = open(this.record);
      if (this.#rental !== undefined) log.info('lease-begun', { leaseId, until });
    }
    if (now >= until && this.#rental !== undefined) {
      const over = this.#rental;
      this.#rental = undefined;
      log.info('lease-over', { leaseId });
      this.#ending = !this.#isLent && handOver(over) ? Promise.resolve() : over.close();
    }
  }

  /** Of an interval in which this process was not there to look, it says that it was down. */
  #measure(now: bigint): void {
    const { records, times } = this.#options;
    const rental = this.#rental;
    const interval = intervalAt(this.#view, times.meterSeconds, now);
    if (interval !== undefined && rental !== undefined) this.#probes.look(interval, () => rental.probe());
    const passed = passedIntervals(this.#view, times.meterSeconds, now);
    const hasNoted = this.#probes.note(this.record.own, passed, (found) => found !== undefined && found.up > found.down);
    if (hasNoted) records.save(this.record);
  }

  async #speak(now: bigint): Promise<void> {
    const { courier } = this.#options;
    for (const word of this.record.own.words()) {
      await courier.deliver(this.#view, 'node', [[word, await courier.sign(this.record, 'node', word)]], now);
    }
    await courier.deliver(this.#view, 'renter', this.record.theirs, now);
  }

  async #askIfSilent(now: bigint): Promise<void> {
    const { asker, times } = this.#options;
    const passed = passedIntervals(this.#view, times.meterSeconds, now);
    const running = intervalAt(this.#view, times.meterSeconds, now);
    if (running === undefined || passed < SILENT_INTERVALS) return;
    const isSilent = Array.from({ length: SILENT_INTERVALS }, (_, back) => passed - 1 - back).every((interval) => {
      const said = this.record.theirs.get(Math.floor(interval / WORD));
      return said === undefined || ((said.spoken >> BigInt(interval % WORD)) & 1n) === 0n;
    });
    if (isSilent) await asker.ask(this.#view, running);
  }

  async #finish(now: bigint): Promise<void> {
    const { asker, close, log, records, times } = this.#options;
    const { leaseId, from, until, closed } = this.#view;
    const closable = until === from ? 0n : until + BigInt(times.speakSeconds);
    if (now < closable || systemClock.nowMs() < this.#closeDueMs) return;
    this.#closeDueMs = systemClock.nowMs() + CLOSE_PAUSE_MS;
    const refused = closed ? CLOSED : await close(leaseId).catch((error: MillraceError) => refusalOf(error));
    if (refused === TOO_EARLY) return;
    await asker.settle(this.#view);
    records.remove(leaseId);
    this.#isDone = true;
    log.info('lease-closed', { leaseId });
  }
}

function refusalOf(error: MillraceError): string {
  if (error.code === CLOSED || error.code === TOO_EARLY) return error.code;
  throw error;
}
