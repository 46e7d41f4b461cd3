import { join } from 'node:path';
import { fixSeed } from '../../chain/index.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { startDuties } from './duties.ts';
import { IntervalProbes, type ProbeCounts } from './interval-probes.ts';
import { endOfInterval, intervalAt, passedIntervals, STRETCH, stretchOf } from './intervals.ts';
import { blockToReadFrom, findingDigest, type LeaseView, type MarketTimes, readLease, readMarketTimes } from './lease-chain.ts';
import { type LeaseRecord, openLeaseRecords } from './lease-record.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';

const TICK_MS = 250;
const PROBES_PER_INTERVAL = 2;
const SETTLE_PATIENCE_SECONDS = 30n;
const GONE = new Set(['already-settled', 'nothing-to-say', 'nothing-to-state']);

/** A panel that was asked for. */
interface Watch {
  readonly leaseId: bigint;
  readonly stretch: number;
  readonly seedTime: bigint;
  readonly record: LeaseRecord;
  readonly probes: IntervalProbes;
  view: LeaseView;
  /** This operator's place on the panel, and the rental; undefined until it is drawn. */
  place: { index: number; rental: RentalClient } | undefined;
  /** The interval up to which it has spoken on chain. */
  saidUpTo: number;
  isDone: boolean;
}

/**
 * Takes a seat among the probers and does what its panels ask: reaches for the rental at moments that nobody knows beforehand, and says on chain what
 * it found. It is paid for what most of its panel found too.
 * @throws chain-unreachable
 */
export async function startLeaseProber(context: ComputeContext): Promise<ComputePart> {
  return new LeaseProber(context, await readMarketTimes(context.client));
}

class LeaseProber implements ComputePart {
  readonly #context: ComputeContext;
  readonly #times: MarketTimes;
  readonly #clock = new ProtocolClock();
  readonly #records: ReturnType<typeof openLeaseRecords>;
  /** One for all stretches of a lease: they lie in one file. */
  readonly #recordsOpen = new Map<bigint, LeaseRecord>();
  readonly #watches = new Map<string, Watch>();
  readonly #counts = { panels: 0, spoken: 0, settled: 0 };
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #stopDuties: () => Promise<void>;
  #isDraining = false;
  #isSeated = false;
  #seenBlock: bigint | undefined;

  constructor(context: ComputeContext, times: MarketTimes) {
    this.#context = context;
    this.#times = times;
    this.#records = openLeaseRecords(join(context.folder, 'panels'));
    this.#watching = context.client.watchBlocks(
      ({ number, timestamp }) => this.#look(number, timestamp).catch((error) => this.#warn(error)),
      this.#stop.signal,
    );
    this.#stopDuties = startDuties({
      items: () => [...this.#watches.values()].filter(({ isDone }) => !isDone),
      duty: (watch) => this.#work(watch, this.#clock.now()).catch((error) => this.#warn(error)),
      everyMs: TICK_MS,
    });
  }

  fetch(): undefined {
    return undefined;
  }

  metrics(): string {
    const { panels, spoken } = this.#counts;
    return `millrace_compute_panels_count ${panels}\nmillrace_compute_findings_count ${spoken}\n`;
  }

  async status(): Promise<Record<string, unknown>> {
    const watching = [...this.#watches.values()].filter(({ isDone, place }) => !isDone && place !== undefined).length;
    return { isSeated: this.#isSeated, ...this.#counts, watching };
  }

  drain(): void {
    this.#isDraining = true;
  }

  resume(): void {
    this.#isDraining = false;
  }

  async leave(): Promise<Record<string, unknown>> {
    const { sender, operatorId } = this.#context;
    this.#isDraining = true;
    if (this.#isSeated) await sender.send({ contract: 'leaseProbers', functionName: 'leave', args: [operatorId] });
    this.#isSeated = false;
    return { ...this.#counts };
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled([this.#watching, this.#stopDuties()]);
  }

  async #look(number: bigint, timestamp: bigint): Promise<void> {
    const { client, log } = this.#context;
    this.#clock.observe(timestamp);
    await this.#takeSeat().catch((error: MillraceError) => log.debug('prober-without-seat', { reason: error.code }));
    const fromBlock = blockToReadFrom(this.#seenBlock);
    for (const { args } of await client.events({ name: 'leaseProbers', event: 'PanelAsked', fromBlock })) await this.#watch(args);
    this.#seenBlock = number;
    for (const watch of this.#watches.values()) if (!watch.isDone) watch.view = await readLease(client, watch.leaseId);
  }

  async #takeSeat(): Promise<void> {
    const { client, sender, operatorId, log } = this.#context;
    if (this.#isSeated || this.#isDraining) return;
    this.#isSeated = (await client.read('leaseProbers', 'seatOf', [operatorId])) !== 0n;
    if (this.#isSeated) return;
    await sender.send({ contract: 'leaseProbers', functionName: 'enrol', args: [operatorId] });
    this.#isSeated = true;
    log.info('prober-seated', { operatorId });
  }

  async #watch({ leaseId, stretch, seedTime }: { leaseId: bigint; stretch: number; seedTime: bigint }): Promise<void> {
    const key = `${leaseId}-${stretch}`;
    if (this.#watches.has(key)) return;
    const view = await readLease(this.#context.client, leaseId);
    if (view.closed) return;
    const record = this.#recordsOpen.get(leaseId) ?? this.#records.open(leaseId);
    this.#recordsOpen.set(leaseId, record);
    // Drawn afresh each time: nobody knows when it will look.
    const pauseMs = () => 2 * Math.random() * ((this.#times.meterSeconds * 1000) / PROBES_PER_INTERVAL);
    const probes = new IntervalProbes({ pauseMs, from: stretch * STRETCH });
    this.#watches.set(key, { leaseId, stretch, seedTime, record, probes, view, place: undefined, saidUpTo: 0, isDone: false });
  }

  async #work(watch: Watch, now: bigint): Promise<void> {
    const place = watch.place ?? (await this.#takePlace(watch, now));
    if (place === undefined) return;
    const { view, stretch, probes, record } = watch;
    const { meterSeconds } = this.#times;
    const interval = intervalAt(view, meterSeconds, now);
    if (interval !== undefined && Math.floor(interval / STRETCH) === stretch) probes.look(interval, () => place.rental.probe());
    const passed = Math.min((stretch + 1) * STRETCH, passedIntervals(view, meterSeconds, now));
    if (probes.note(record.own, passed, isReached)) this.#records.save(record);
    await this.#speak(watch, place.index, now);
    await this.#settle(watch, now);
  }

  /** @returns this operator's place on the panel, once the panel is drawn and when it has one */
  async #takePlace(watch: Watch, now: bigint): Promise<Watch['place']> {
    const { client, sender, signer, operatorId, log } = this.#context;
    const { leaseId, stretch, seedTime } = watch;
    if (now < seedTime || !(await fixSeed(client, { sender, time: seedTime }))) return undefined;
    const panel = await client.read('leaseProbers', 'panelOf', [leaseId, stretch]);
    const index = panel.indexOf(operatorId);
    watch.isDone = index === -1;
    if (watch.isDone) return undefined;
    watch.place = { index, rental: await openRentalClient(client, { leaseId, signer }) };
    this.#counts.panels += 1;
    log.info('panel-drawn', { leaseId, stretch });
    return watch.place;
  }

  async #speak(watch: Watch, index: number, now: bigint): Promise<void> {
    const { client, sender, signer } = this.#context;
    const { leaseId, stretch, view } = watch;
    const last = watch.probes.noted;
    if (last === watch.saidUpTo) return;
    const oldest = endOfInterval(view, this.#times.meterSeconds, Math.max(watch.saidUpTo, stretch * STRETCH));
    const isOver = now >= view.until || last === (stretch + 1) * STRETCH;
    if (!isOver && now - oldest < BigInt(this.#times.speakSeconds) / 3n) return;
    const { spoken, up } = stretchOf(watch.record.own.word(Math.floor(stretch / 2)), stretch);
    if (spoken === 0n) return;
    const signature = await signer.signDigest(findingDigest(client, { leaseId, stretch, spoken, up }));
    const args = [leaseId, stretch, [{ index, spoken, up, signature }]] as const;
    const key = `finding-${leaseId}-${stretch}-${spoken.toString(16)}`;
    await sender.send({ contract: 'leaseProbers', functionName: 'speak', args, key }).catch(harmless);
    watch.saidUpTo = last;
    this.#counts.spoken += 1;
  }

  async #settle(watch: Watch, now: bigint): Promise<void> {
    const { leaseId, stretch, view } = watch;
    const stretchEnd = view.from + BigInt((stretch + 1) * STRETCH * this.#times.meterSeconds);
    const end = stretchEnd < view.until ? stretchEnd : view.until;
    if (now < end + BigInt(this.#times.speakSeconds) + SETTLE_PATIENCE_SECONDS) return;
    await this.#context.sender.send({ contract: 'leaseProbers', functionName: 'settle', args: [leaseId, stretch] }).catch(harmless);
    watch.isDone = true;
    this.#counts.settled += 1;
    if (now < view.until) return;
    this.#records.remove(leaseId);
    this.#recordsOpen.delete(leaseId);
  }

  #warn(error: unknown): void {
    const { code, message } = toMillraceError(error);
    if (!this.#stop.signal.aborted) this.#context.log.warn('lease-prober-failed', { code, message });
  }
}

/** One answer is enough for an interval to be up; of one in which it did not look it says nothing. */
function isReached(found: ProbeCounts | undefined): boolean | undefined {
  return found === undefined ? undefined : found.up > 0;
}

function harmless(error: MillraceError): void {
  if (!GONE.has(error.code)) throw error;
}
