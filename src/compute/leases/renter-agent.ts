import { join } from 'node:path';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { isSignedBy } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { intervalAt, passedIntervals, WORD } from './intervals.ts';
import { type LeaseView, listLeases, type MarketTimes, meterDigest, readLease, readMarketTimes } from './lease-chain.ts';
import { type LeaseRecord, openLeaseRecords } from './lease-record.ts';
import { createPanelAsker } from './panel-asker.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';
import { createStatementCourier } from './statement-courier.ts';

/** Who speaks for a renter while it rents. */
export interface RenterAgent {
  /** Leases that it still follows. */
  followed(): { leaseId: bigint; intervals: number; intervalsUp: number }[];
  /** Resolves when no lease is left to follow. */
  readonly idle: Promise<void>;
  stop(): Promise<void>;
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
  record: LeaseRecord;
  rental: RentalClient;
  nodeKey: `0x${string}`;
  tally: Map<number, { up: number; down: number }>;
  noted: number;
  probedAtMs: number;
  isProbing: boolean;
  exchanged: number;
  isBusy: boolean;
}

/**
 * Follows all leases of a renter until they are closed: probes them itself, signs what it found, gives it to the machine and takes the machine's word
 * for it; brings a denial to the chain itself when the machine does not, asks for drawn probers where it finds a machine down, and closes leases,
 * so that refunds come back. What it found is on disk: after a kill it goes on, and says nothing of the intervals in which it did not look.
 * @param options.withSender lends the renter's sender for one piece of work: others use the same wallet
 */
export async function startRenterAgent(options: {
  client: ChainClient;
  signer: Signer;
  withSender: <Result>(work: (sender: Sender) => Promise<Result>) => Promise<Result>;
  folder: string;
  log: Logger;
  /** Whether it pays for drawn probers where it finds a machine down. Default true. */
  asksProbers?: boolean;
}): Promise<RenterAgent> {
  const { client, signer, withSender, log, asksProbers = true } = options;
  const times = await readMarketTimes(client);
  const clock = new ProtocolClock();
  const records = openLeaseRecords(join(options.folder, 'leases'));
  const lent = { address: signer.address, send: (call: never) => withSender((sender) => sender.send(call)) } as unknown as Sender;
  const courier = createStatementCourier({ client, sender: lent, signer, times, dueShare: DUE_SHARE });
  const asker = createPanelAsker({ client, sender: lent, log });
  const followed = new Map<bigint, Followed>();
  const done = new Set<bigint>();
  const stop = new AbortController();
  const idle = Promise.withResolvers<void>();
  let seenBlock: bigint | undefined;

  const look = async (number: bigint, timestamp: bigint): Promise<void> => {
    clock.observe(timestamp);
    for (const leaseId of await listLeases(client, { renter: signer.address }, seenBlock)) {
      if (followed.has(leaseId) || done.has(leaseId)) continue;
      const lease = await follow({ client, signer, records, times, clock }, leaseId);
      if (lease === undefined) done.add(leaseId);
      else followed.set(leaseId, lease);
    }
    seenBlock = number;
    for (const lease of followed.values()) lease.view = await readLease(client, lease.view.leaseId);
    if (followed.size === 0) idle.resolve();
  };
  const duty = async (lease: Followed, now: bigint): Promise<void> => {
    probe(lease, times, now);
    if (noteIntervals(lease, times, now)) records.save(lease.record);
    await exchange(lease, { client, records, sign: (word) => courier.sign(lease.record, 'renter', word) });
    await denyOnChain(lease, now);
    if (asksProbers && isFoundDown(lease)) {
      const running = intervalAt(lease.view, times.meterSeconds, now);
      if (running !== undefined) await asker.ask(lease.view, running);
    }
    await asker.fixSeeds(now);
    await finish(lease, now);
  };
  const denyOnChain = async ({ record, view }: Followed, now: bigint): Promise<void> => {
    for (const word of record.own.words()) {
      const { spoken, up } = record.own.word(word);
      if ((spoken & ~up) === 0n) continue;
      await courier.deliver(view, 'renter', [[word, await courier.sign(record, 'renter', word)]], now);
      const theirs = record.theirs.get(word);
      if (theirs !== undefined) await courier.deliver(view, 'node', [[word, theirs]], now);
    }
  };
  const finish = async ({ view }: Followed, now: bigint): Promise<void> => {
    const closable = view.until === view.from ? view.until : view.until + BigInt(times.speakSeconds);
    if (!view.closed && now >= closable + CLOSE_PATIENCE_SECONDS) {
      await lent.send({ contract: 'computeMarket', functionName: 'close', args: [view.leaseId] });
    }
    if (!view.closed) return;
    await asker.settle(view);
    records.remove(view.leaseId);
    followed.delete(view.leaseId);
    done.add(view.leaseId);
    log.info('lease-closed', { leaseId: view.leaseId });
  };
  const failed = (error: unknown) => {
    const { code, message } = toMillraceError(error);
    if (!stop.signal.aborted) log.warn('renter-agent-failed', { code, message });
  };
  const watching = client.watchBlocks(({ number, timestamp }) => look(number, timestamp).catch(failed), stop.signal);
  const working = new Set<Promise<void>>();
  const timer = setInterval(() => {
    for (const lease of followed.values()) {
      if (lease.isBusy) continue;
      lease.isBusy = true;
      const work = duty(lease, clock.now())
        .catch(failed)
        .finally(() => {
          lease.isBusy = false;
          working.delete(work);
        });
      working.add(work);
    }
  }, TICK_MS);
  return {
    followed: () =>
      [...followed.values()].map(({ view, record }) => {
        const { spoken, up } = record.own.counts();
        return { leaseId: view.leaseId, intervals: spoken, intervalsUp: up };
      }),
    idle: idle.promise,
    async stop() {
      stop.abort();
      clearInterval(timer);
      await Promise.allSettled([watching, ...working]);
    },
  };
}

async function follow(
  parts: { client: ChainClient; signer: Signer; records: ReturnType<typeof openLeaseRecords>; times: MarketTimes; clock: ProtocolClock },
  leaseId: bigint,
): Promise<Followed | undefined> {
  const { client, signer, records, times, clock } = parts;
  const view = await readLease(client, leaseId);
  if (view.closed || view.agent.toLowerCase() !== signer.address.toLowerCase()) return undefined;
  const [rental, nodeKey] = await Promise.all([
    openRentalClient(client, { leaseId, signer }),
    client.read('operators', 'nodeKeyOf', [view.operatorId]),
  ]);
  const record = records.open(leaseId);
  // Of what passed before it looked it knows nothing, and says nothing.
  const noted = passedIntervals(view, times.meterSeconds, clock.now());
  return { view, record, rental, nodeKey, tally: new Map(), noted, probedAtMs: 0, isProbing: false, exchanged: 0, isBusy: false };
}

function probe(lease: Followed, { meterSeconds }: MarketTimes, now: bigint): void {
  const interval = intervalAt(lease.view, meterSeconds, now);
  const dueMs = lease.probedAtMs + (meterSeconds * 1000) / PROBES_PER_INTERVAL;
  if (interval === undefined || lease.isProbing || systemClock.nowMs() < dueMs) return;
  [lease.isProbing, lease.probedAtMs] = [true, systemClock.nowMs()];
  void lease.rental.probe().then((isUp) => {
    const count = lease.tally.get(interval) ?? { up: 0, down: 0 };
    lease.tally.set(interval, isUp ? { ...count, up: count.up + 1 } : { ...count, down: count.down + 1 });
    lease.isProbing = false;
  });
}

/** @returns whether there was anything to note */
function noteIntervals(lease: Followed, { meterSeconds }: MarketTimes, now: bigint): boolean {
  const passed = passedIntervals(lease.view, meterSeconds, now);
  let hasNoted = false;
  for (; lease.noted < passed; lease.noted += 1) {
    const found = lease.tally.get(lease.noted);
    if (found === undefined) continue;
    lease.record.own.note(lease.noted, found.up > found.down);
    lease.tally.delete(lease.noted);
    hasNoted = true;
  }
  return hasNoted;
}

/** Gives the machine what was found since the last time, and keeps the machine's own signed word. */
async function exchange(
  lease: Followed,
  parts: {
    client: ChainClient;
    records: ReturnType<typeof openLeaseRecords>;
    sign: (word: number) => ReturnType<ReturnType<typeof createStatementCourier>['sign']>;
  },
): Promise<void> {
  const { record, view, rental, nodeKey } = lease;
  const { spoken } = record.own.counts();
  if (spoken === lease.exchanged) return;
  lease.exchanged = spoken;
  const word = Math.max(...record.own.words());
  try {
    const answer = await rental.exchange(word, await parts.sign(word));
    const digest = meterDigest(parts.client, { leaseId: view.leaseId, side: 'node', word, spoken: answer.spoken, up: answer.up });
    if (!isSignedBy(nodeKey, digest, answer.signature)) return;
    record.theirs.set(word, answer);
    parts.records.save(record);
  } catch {
    // The machine is down, or refuses: the word goes on chain by itself when it denies anything.
    lease.exchanged = -1;
  }
}

function isFoundDown({ record, noted }: Followed): boolean {
  if (noted < DOWN_INTERVALS) return false;
  return Array.from({ length: DOWN_INTERVALS }, (_, back) => noted - 1 - back).every((interval) => {
    const { spoken, up } = record.own.word(Math.floor(interval / WORD));
    return ((spoken & ~up) >> BigInt(interval % WORD)) & 1n;
  });
}
