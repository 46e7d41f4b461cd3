import { systemClock } from '../../clock.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { intervalAt, passedIntervals, WORD } from './intervals.ts';
import type { LeaseView, MarketTimes } from './lease-chain.ts';
import type { LeaseRecord, LeaseRecords, SignedStatement } from './lease-record.ts';
import type { PanelAsker } from './panel-asker.ts';
import type { Rental } from './rental.ts';
import type { StatementCourier } from './statement-courier.ts';
import type { WorkspaceCommand } from './workspace.ts';

/** A lease at its supplier: serves it to the second, measures itself, and brings both sides' words to the chain. */
export interface HostedLease {
  readonly record: LeaseRecord;
  view(): LeaseView;
  /** What runs; undefined before the lease and after it. */
  rental(): Rental | undefined;
  /** Tells it what the chain says now. */
  update(view: LeaseView): void;
  /** Does what is due; short, and never two at once. */
  tick(now: bigint): Promise<void>;
  /** Takes the renter's signed word. */
  take(word: number, statement: SignedStatement): void;
  /** Runs a command in the rental by itself, also after a restart; replaces the one before. */
  setMain(command: WorkspaceCommand): Promise<void>;
  /** Notes what runs already in a sandbox that it will take over. */
  keepMain(command: WorkspaceCommand): void;
  /** Whether nothing is left to do. */
  isDone(): boolean;
  /** Stops what runs; the lease goes on at the next start. */
  stop(): Promise<void>;
}

const PROBES_PER_INTERVAL = 3;
/** So many intervals without a word of the renter, and probers are asked. */
const SILENT_INTERVALS = 2;
/** Another one closed it. */
const CLOSED = 'lease-is-closed';
/** The chain's latest block is a little behind. */
const TOO_EARLY = 'lease-not-over';
const CLOSE_PAUSE_MS = 5_000;

/** Serves one lease. */
export function hostLease(options: {
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
}): HostedLease {
  const { times, records, courier, asker, log } = options;
  const { meterSeconds, speakSeconds } = times;
  const record = records.open(options.view.leaseId);
  const tally = new Map<number, { up: number; down: number }>();
  let view = options.view;
  let rental: Rental | undefined;
  let ending: Promise<void> | undefined;
  let noted = 0;
  let probedAtMs = Number.NEGATIVE_INFINITY;
  let isProbing = false;
  let isDone = false;
  let closeTriedMs = Number.NEGATIVE_INFINITY;

  const probe = (now: bigint): void => {
    const interval = intervalAt(view, meterSeconds, now);
    const dueMs = probedAtMs + (meterSeconds * 1000) / PROBES_PER_INTERVAL;
    if (interval === undefined || rental === undefined || isProbing || systemClock.nowMs() < dueMs) return;
    [isProbing, probedAtMs] = [true, systemClock.nowMs()];
    void rental.probe().then((isUp) => {
      const count = tally.get(interval) ?? { up: 0, down: 0 };
      tally.set(interval, isUp ? { ...count, up: count.up + 1 } : { ...count, down: count.down + 1 });
      isProbing = false;
    });
  };
  /** Of an interval in which this process was not there to look, it says that it was down. */
  const noteIntervals = (now: bigint): void => {
    const passed = passedIntervals(view, meterSeconds, now);
    const before = noted;
    for (; noted < passed; noted += 1) {
      const { up, down } = tally.get(noted) ?? { up: 0, down: 0 };
      record.own.note(noted, up > down);
      tally.delete(noted);
    }
    if (noted > before) records.save(record);
  };
  const speak = async (now: bigint): Promise<void> => {
    for (const word of record.own.words()) {
      await courier.deliver(view, 'node', [[word, await courier.sign(record, 'node', word)]], now);
    }
    await courier.deliver(view, 'renter', record.theirs, now);
  };
  const askIfSilent = async (now: bigint): Promise<void> => {
    const passed = passedIntervals(view, meterSeconds, now);
    const running = intervalAt(view, meterSeconds, now);
    if (running === undefined || passed < SILENT_INTERVALS) return;
    const isSilent = Array.from({ length: SILENT_INTERVALS }, (_, back) => passed - 1 - back).every((interval) => {
      const said = record.theirs.get(Math.floor(interval / WORD));
      return said === undefined || ((said.spoken >> BigInt(interval % WORD)) & 1n) === 0n;
    });
    if (isSilent) await asker.ask(view, running);
  };
  const finish = async (now: bigint): Promise<void> => {
    if (now < view.until + (view.until === view.from ? 0n : BigInt(speakSeconds)) || systemClock.nowMs() < closeTriedMs) return;
    closeTriedMs = systemClock.nowMs() + CLOSE_PAUSE_MS;
    const refused = view.closed ? CLOSED : await options.close(view.leaseId).catch((error: MillraceError) => refusalOf(error));
    if (refused === TOO_EARLY) return;
    await asker.settle(view);
    records.remove(view.leaseId);
    isDone = true;
    log.info('lease-closed', { leaseId: view.leaseId });
  };
  return {
    record,
    view: () => view,
    rental: () => rental,
    update(next) {
      view = next;
    },
    async tick(now) {
      if (isDone || now < view.from) return;
      if (now < view.until && rental === undefined && ending === undefined) {
        rental = options.open(record);
        if (rental !== undefined) log.info('lease-begun', { leaseId: view.leaseId, until: view.until });
      }
      if (now >= view.until && rental !== undefined) {
        const over = rental;
        rental = undefined;
        log.info('lease-over', { leaseId: view.leaseId });
        ending = options.handOver(over) ? Promise.resolve() : over.close();
      }
      probe(now);
      noteIntervals(now);
      try {
        await speak(now);
        await askIfSilent(now);
        await asker.fixSeeds(now);
        await ending;
        if (now >= view.until) await finish(now);
      } catch (error) {
        const { code, message } = toMillraceError(error);
        log.warn('lease-duty-failed', { leaseId: view.leaseId, code, message });
      }
    },
    take(word, statement) {
      record.theirs.set(word, statement);
      records.save(record);
    },
    async setMain(command) {
      record.main = command;
      records.save(record);
      await rental?.setMain(command);
    },
    keepMain(command) {
      record.main = command;
      records.save(record);
    },
    isDone: () => isDone,
    async stop() {
      await rental?.close();
      await ending;
    },
  };
}

function refusalOf(error: MillraceError): string {
  if (error.code === CLOSED || error.code === TOO_EARLY) return error.code;
  throw error;
}
