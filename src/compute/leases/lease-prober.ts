import { join } from 'node:path';
import { fixSeed } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { endOfInterval, intervalAt, passedIntervals, STRETCH, stretchOf } from './intervals.ts';
import { findingDigest, type LeaseView, type MarketTimes, readLease, readMarketTimes } from './lease-chain.ts';
import { type LeaseRecord, openLeaseRecords } from './lease-record.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';

const TICK_MS = 250;
const PROBES_PER_INTERVAL = 2;
const SETTLE_PATIENCE_SECONDS = 30n;
const OVERLAP_BLOCKS = 12n;
const GONE = new Set(['already-settled', 'nothing-to-say', 'nothing-to-state']);

interface Watch {
  leaseId: bigint;
  stretch: number;
  seedTime: bigint;
  view: LeaseView;
  /** Place on the panel; undefined until it is drawn. */
  index: number | undefined;
  rental: RentalClient | undefined;
  record: LeaseRecord;
  tally: Map<number, { up: number; down: number }>;
  noted: number;
  nextProbeMs: number;
  isProbing: boolean;
  isBusy: boolean;
  saidUpTo: number;
  isDone: boolean;
}

/**
 * Takes a seat among the probers and does what its panels ask: reaches for the rental at moments that nobody knows beforehand, and says on chain what
 * it found. It is paid for what most of its panel found too.
 */
export async function startLeaseProber(context: ComputeContext): Promise<ComputePart> {
  const { client, sender, signer, operatorId, folder, log } = context;
  const times = await readMarketTimes(client);
  const clock = new ProtocolClock();
  const records = openLeaseRecords(join(folder, 'panels'));
  const recordsOpen = new Map<bigint, LeaseRecord>();
  const watches = new Map<string, Watch>();
  const stop = new AbortController();
  const counts = { panels: 0, spoken: 0, settled: 0 };
  let isDraining = false;
  let isSeated = false;
  let seenBlock: bigint | undefined;

  const takeSeat = async (): Promise<void> => {
    if (isSeated || isDraining) return;
    isSeated = (await client.read('leaseProbers', 'seatOf', [operatorId])) !== 0n;
    if (isSeated) return;
    await sender.send({ contract: 'leaseProbers', functionName: 'enrol', args: [operatorId] });
    isSeated = true;
    log.info('prober-seated', { operatorId });
  };
  const look = async (number: bigint, timestamp: bigint): Promise<void> => {
    clock.observe(timestamp);
    await takeSeat().catch((error: MillraceError) => log.debug('prober-without-seat', { reason: error.code }));
    const fromBlock = seenBlock === undefined ? undefined : seenBlock > OVERLAP_BLOCKS ? seenBlock - OVERLAP_BLOCKS : 0n;
    for (const { args } of await client.events({ name: 'leaseProbers', event: 'PanelAsked', fromBlock })) {
      const key = `${args.leaseId}-${args.stretch}`;
      if (watches.has(key)) continue;
      const view = await readLease(client, args.leaseId);
      if (view.closed) continue;
      // One for all stretches of a lease: they lie in one file.
      const record = recordsOpen.get(args.leaseId) ?? records.open(args.leaseId);
      recordsOpen.set(args.leaseId, record);
      const at = { leaseId: args.leaseId, stretch: args.stretch, seedTime: args.seedTime, view, record };
      const idle = { index: undefined, rental: undefined, tally: new Map(), nextProbeMs: 0, isProbing: false, isBusy: false };
      watches.set(key, { ...at, ...idle, noted: args.stretch * STRETCH, saidUpTo: 0, isDone: false });
    }
    seenBlock = number;
    for (const watch of watches.values()) if (!watch.isDone) watch.view = await readLease(client, watch.leaseId);
  };
  const duty = async (watch: Watch, now: bigint): Promise<void> => {
    if (watch.index === undefined && !(await takePlace(watch, now))) return;
    probe(watch, times, now);
    if (note(watch, times, now)) records.save(watch.record);
    await speak(watch, now);
    await settle(watch, now);
  };
  /** @returns whether this operator is on the panel */
  const takePlace = async (watch: Watch, now: bigint): Promise<boolean> => {
    if (now < watch.seedTime || !(await fixSeed(client, { sender, time: watch.seedTime }))) return false;
    const panel = await client.read('leaseProbers', 'panelOf', [watch.leaseId, watch.stretch]);
    watch.index = panel.indexOf(operatorId);
    watch.isDone = watch.index === -1;
    if (watch.isDone) return false;
    watch.rental = await openRentalClient(client, { leaseId: watch.leaseId, signer });
    counts.panels += 1;
    log.info('panel-drawn', { leaseId: watch.leaseId, stretch: watch.stretch });
    return true;
  };
  const speak = async (watch: Watch, now: bigint): Promise<void> => {
    const last = watch.noted;
    if (last === watch.saidUpTo) return;
    const oldest = endOfInterval(watch.view, times.meterSeconds, Math.max(watch.saidUpTo, watch.stretch * STRETCH));
    const isOver = now >= watch.view.until || last === (watch.stretch + 1) * STRETCH;
    if (!isOver && now - oldest < BigInt(times.speakSeconds) / 3n) return;
    const { spoken, up } = stretchOf(watch.record.own.word(Math.floor(watch.stretch / 2)), watch.stretch);
    if (spoken === 0n) return;
    const { leaseId, stretch } = watch;
    const signature = await signer.signDigest(findingDigest(client, { leaseId, stretch, spoken, up }));
    const args = [leaseId, stretch, [{ index: watch.index as number, spoken, up, signature }]] as const;
    const key = `finding-${leaseId}-${stretch}-${spoken.toString(16)}`;
    await sender.send({ contract: 'leaseProbers', functionName: 'speak', args, key }).catch(harmless);
    watch.saidUpTo = last;
    counts.spoken += 1;
  };
  const settle = async (watch: Watch, now: bigint): Promise<void> => {
    const { leaseId, stretch, view } = watch;
    const stretchEnd = view.from + BigInt((stretch + 1) * STRETCH * times.meterSeconds);
    const end = stretchEnd < view.until ? stretchEnd : view.until;
    if (now < end + BigInt(times.speakSeconds) + SETTLE_PATIENCE_SECONDS) return;
    await sender.send({ contract: 'leaseProbers', functionName: 'settle', args: [leaseId, stretch] }).catch(harmless);
    watch.isDone = true;
    counts.settled += 1;
    if (now < view.until) return;
    records.remove(leaseId);
    recordsOpen.delete(leaseId);
  };
  const failed = (error: unknown) => {
    const { code, message } = toMillraceError(error);
    if (!stop.signal.aborted) log.warn('lease-prober-failed', { code, message });
  };
  const watching = client.watchBlocks(({ number, timestamp }) => look(number, timestamp).catch(failed), stop.signal);
  const working = new Set<Promise<void>>();
  const timer = setInterval(() => {
    for (const watch of watches.values()) {
      if (watch.isBusy || watch.isDone) continue;
      watch.isBusy = true;
      const work = duty(watch, clock.now())
        .catch(failed)
        .finally(() => {
          watch.isBusy = false;
          working.delete(work);
        });
      working.add(work);
    }
  }, TICK_MS);
  return {
    fetch: () => undefined,
    metrics: () => `millrace_compute_panels_count ${counts.panels}\nmillrace_compute_findings_count ${counts.spoken}\n`,
    status: async () => ({
      isSeated,
      ...counts,
      watching: [...watches.values()].filter(({ isDone, index }) => !isDone && index !== undefined).length,
    }),
    drain() {
      isDraining = true;
    },
    resume() {
      isDraining = false;
    },
    async leave() {
      isDraining = true;
      if (isSeated) await sender.send({ contract: 'leaseProbers', functionName: 'leave', args: [operatorId] });
      isSeated = false;
      return { ...counts };
    },
    async stop() {
      stop.abort();
      clearInterval(timer);
      await Promise.allSettled([watching, ...working]);
    },
  };
}

/** Looks twice in each interval, at moments drawn afresh. */
function probe(watch: Watch, { meterSeconds }: MarketTimes, now: bigint): void {
  const interval = intervalAt(watch.view, meterSeconds, now);
  if (
    interval === undefined ||
    Math.floor(interval / STRETCH) !== watch.stretch ||
    watch.isProbing ||
    systemClock.nowMs() < watch.nextProbeMs
  )
    return;
  watch.isProbing = true;
  watch.nextProbeMs = systemClock.nowMs() + 2 * Math.random() * ((meterSeconds * 1000) / PROBES_PER_INTERVAL);
  void watch.rental?.probe().then((isUp) => {
    const count = watch.tally.get(interval) ?? { up: 0, down: 0 };
    watch.tally.set(interval, isUp ? { ...count, up: count.up + 1 } : { ...count, down: count.down + 1 });
    watch.isProbing = false;
  });
}

/** One answer is enough for an interval to be up. @returns whether there was anything to note */
function note(watch: Watch, { meterSeconds }: MarketTimes, now: bigint): boolean {
  const passed = Math.min((watch.stretch + 1) * STRETCH, passedIntervals(watch.view, meterSeconds, now));
  let hasNoted = false;
  for (; watch.noted < passed; watch.noted += 1) {
    const found = watch.tally.get(watch.noted);
    if (found === undefined) continue;
    watch.record.own.note(watch.noted, found.up > 0);
    watch.tally.delete(watch.noted);
    hasNoted = true;
  }
  return hasNoted;
}

function harmless(error: MillraceError): void {
  if (!GONE.has(error.code)) throw error;
}
