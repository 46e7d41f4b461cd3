import { join } from 'node:path';
import { type ChainClient, isSignedBy } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { Reservation } from '../capacity.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { describeDevice, keepOffers, type LeasedDevice } from './device-offers.ts';
import { type HostedLease, hostLease } from './hosted-lease.ts';
import { intervalCount, WORD } from './intervals.ts';
import { type LeaseView, listLeases, meterDigest, readLease, readMarketTimes } from './lease-chain.ts';
import { openLeaseRecords, type SignedStatement } from './lease-record.ts';
import { leaseRoutes } from './lease-routes.ts';
import { createPanelAsker } from './panel-asker.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRental, type Rental } from './rental.ts';
import { createStatementCourier } from './statement-courier.ts';

/** How a machine is leased out. */
export interface LeaseHostOptions {
  devices: readonly LeasedDevice[];
}

const TICK_MS = 200;
/** Events of so many blocks back are looked at again: some may have been reorganised. */
const OVERLAP_BLOCKS = 12n;
const PREFIX = '/v1/compute/leases';

/**
 * Puts this machine's devices on offer and serves their leases: a sandbox for the time of each, to the second; requests of its renter; a meter that
 * both sides sign; drawn probers where the renter is silent. What it took on is on disk: after a kill at any moment the leases go on with new
 * sandboxes, and the intervals in between are said to be down. Devices' resources are set aside for as long as the part runs.
 * @throws bad-device, chain-unreachable
 */
export async function startLeaseHost(context: ComputeContext, options: LeaseHostOptions): Promise<ComputePart> {
  const { client, sender, signer, operatorId, folder, log } = context;
  const [executor, times] = await Promise.all([chooseExecutor(context.executors), readMarketTimes(client)]);
  const clock = new ProtocolClock();
  const records = openLeaseRecords(join(folder, 'leases'));
  const courier = createStatementCourier({ client, sender, signer, times });
  const asker = createPanelAsker({ client, sender, log });
  const { held, devices } = setAside(context, executor === undefined ? [] : options.devices);
  const leases = new Map<bigint, HostedLease>();
  const devicesById = new Map<bigint, LeasedDevice>();
  /** Sandboxes between a lease and the one that follows it. */
  const handed = new Map<string, Rental>();
  const stop = new AbortController();
  let isDraining = false;
  let offersDue = true;
  let seenBlock: bigint | undefined;

  const takeOn = async (leaseId: bigint): Promise<void> => {
    if (leases.has(leaseId)) return;
    const view = await readLease(client, leaseId);
    const device = devicesById.get(view.deviceId);
    if (view.closed) return;
    if (device === undefined || executor === undefined) {
      log.error('lease-without-device', { leaseId, deviceId: view.deviceId });
      return;
    }
    const close = async (id: bigint) => {
      await sender.send({ contract: 'computeMarket', functionName: 'close', args: [id] });
      return undefined;
    };
    const open = (record: HostedLease['record']) => {
      if (predecessorOf(leases, leases.get(leaseId)?.view() ?? view)?.rental() !== undefined) return undefined;
      const known = handed.get(keyOf(view));
      handed.delete(keyOf(view));
      const place = join(folder, 'rentals', String(leaseId));
      return known ?? openRental({ executor, image: device.image, resources: device.resources, folder: place, main: record.main, log });
    };
    const handOver = (rental: Rental): boolean => {
      const current = leases.get(leaseId) as HostedLease;
      const next = successorOf(leases, current.view());
      if (next === undefined) return false;
      handed.set(keyOf(view), rental);
      if (current.record.main !== undefined) next.keepMain(current.record.main);
      return true;
    };
    leases.set(leaseId, hostLease({ view, times, records, courier, asker, close, open, handOver, log }));
  };
  const offer = async (): Promise<void> => {
    if (!offersDue || executor === undefined) return;
    offersDue = false;
    const { engine } = executor;
    const found = await keepOffers({ client, sender, operatorId, folder, devices, engine, isDraining });
    for (const device of devices) devicesById.set(found.get(device.name) as bigint, device);
  };
  const look = async (number: bigint, timestamp: bigint): Promise<void> => {
    clock.observe(timestamp);
    await offer();
    const from = seenBlock === undefined ? undefined : seenBlock > OVERLAP_BLOCKS ? seenBlock - OVERLAP_BLOCKS : 0n;
    for (const leaseId of await listLeases(client, { operatorId }, from)) await takeOn(leaseId);
    seenBlock = number;
    for (const lease of leases.values()) lease.update(await readLease(client, lease.view().leaseId));
  };
  const failed = (error: unknown) => {
    const { code, message } = toMillraceError(error);
    offersDue = true;
    if (!stop.signal.aborted) log.warn('lease-host-failed', { code, message });
  };
  const watching = client.watchBlocks(({ number, timestamp }) => look(number, timestamp).catch(failed), stop.signal);
  const ticking = tickAll(leases, clock, stop.signal);
  const routes = leaseRoutes({
    find: (leaseId) => leases.get(leaseId) ?? unknownLease(leaseId),
    isNodeKey: async (address) => (await client.read('operators', 'operatorOfNodeKey', [address])) !== 0n,
    exchange: async (lease, word, statement) => {
      checkWord(client, lease, { word, statement, meterSeconds: times.meterSeconds });
      lease.take(word, statement);
      return await courier.sign(lease.record, 'node', word);
    },
    devices: () =>
      devices.map((device) => ({ ...describeDevice(device, executor?.engine ?? 'none'), deviceId: idOf(device, devicesById) })),
  });
  const status = () => ({
    engine: executor?.engine ?? null,
    devices: devices.map(({ name }) => name),
    devicesWithoutRoom:
      executor === undefined
        ? options.devices.map(({ name }) => name)
        : options.devices.filter((each) => !devices.includes(each)).map(({ name }) => name),
    leases: [...leases.values()].map((lease) => leaseStatus(lease)),
    isDraining,
  });
  return {
    fetch: (request) => (new URL(request.url).pathname.startsWith(PREFIX) ? Promise.resolve(routes.fetch(request)) : undefined),
    metrics: () => metricsOf(leases),
    status: async () => status(),
    drain() {
      [isDraining, offersDue] = [true, true];
    },
    resume() {
      [isDraining, offersDue] = [false, true];
    },
    async leave() {
      [isDraining, offersDue] = [true, true];
      await offer();
      for (const lease of leases.values()) {
        const { leaseId, interruptible, closed } = lease.view();
        if (!interruptible || closed) continue;
        await sender.send({ contract: 'computeMarket', functionName: 'end', args: [leaseId] }).catch((error: MillraceError) => {
          if (error.code !== 'lease-is-over') throw error;
        });
      }
      return { leases: [...leases.values()].map((lease) => leaseStatus(lease)) };
    },
    async stop() {
      stop.abort();
      await Promise.allSettled([watching, ticking]);
      await Promise.all([...[...leases.values()].map((lease) => lease.stop()), ...[...handed.values()].map((rental) => rental.close())]);
      for (const each of held) each.release();
    },
  };
}

const keyOf = ({ deviceId, renter }: LeaseView) => `${deviceId} ${renter}`;

/** The same renter's lease of the same device that ends where this one begins: this one is its extension. */
function predecessorOf(leases: Map<bigint, HostedLease>, view: LeaseView): HostedLease | undefined {
  return [...leases.values()].find((each) => keyOf(each.view()) === keyOf(view) && each.view().until === view.from);
}

function successorOf(leases: Map<bigint, HostedLease>, view: LeaseView): HostedLease | undefined {
  return [...leases.values()].find((each) => keyOf(each.view()) === keyOf(view) && each.view().from === view.until);
}

/** Each lease ticks by itself, so that one that waits for the chain keeps no other from ending at its second. */
async function tickAll(leases: Map<bigint, HostedLease>, clock: ProtocolClock, signal: AbortSignal): Promise<void> {
  const busy = new Set<bigint>();
  const pending = new Set<Promise<void>>();
  const timer = setInterval(() => {
    for (const [leaseId, lease] of leases) {
      if (busy.has(leaseId)) continue;
      busy.add(leaseId);
      const tick = lease.tick(clock.now()).finally(() => {
        busy.delete(leaseId);
        pending.delete(tick);
        if (lease.isDone()) leases.delete(leaseId);
      });
      pending.add(tick);
    }
  }, TICK_MS);
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  clearInterval(timer);
  await Promise.allSettled(pending);
}

/** The first engine that holds strangers to every limit; WebAssembly alone is no place for a rental. */
async function chooseExecutor(executors: readonly Executor[]): Promise<Executor | undefined> {
  for (const executor of executors) {
    const isPlace = executor.engine === 'bubblewrap' || executor.engine === 'docker';
    if (isPlace && (await executor.inspect()).takesForeign) return executor;
  }
  return undefined;
}

/** Reserves what the devices need; a device for which there is no room is not offered. */
function setAside({ capacity, log }: ComputeContext, wanted: readonly LeasedDevice[]): { held: Reservation[]; devices: LeasedDevice[] } {
  const held: Reservation[] = [];
  const devices: LeasedDevice[] = [];
  for (const device of wanted) {
    const reservation = capacity.reserve(`device ${device.name}`, device.resources);
    if (reservation === undefined) {
      log.warn('device-without-room', { name: device.name });
      continue;
    }
    held.push(reservation);
    devices.push(device);
  }
  return { held, devices };
}

/** A renter's word counts when its agent signed it, it is about intervals that the lease has, and it takes nothing back. */
function checkWord(
  client: ChainClient,
  lease: HostedLease,
  { word, statement, meterSeconds }: { word: number; statement: SignedStatement; meterSeconds: number },
): void {
  const { leaseId, agent, ...view } = lease.view();
  const words = Math.ceil(intervalCount(view, meterSeconds) / WORD);
  if (!Number.isInteger(word) || word < 0 || word >= words) throw badWord(leaseId, `the lease has no word ${word}`);
  const digest = meterDigest(client, { leaseId, side: 'renter', word, spoken: statement.spoken, up: statement.up });
  if (!isSignedBy(agent, digest, statement.signature)) throw badWord(leaseId, 'it is not signed by the renter’s agent');
  const before = lease.record.theirs.get(word);
  const isMore =
    before === undefined || ((before.spoken & ~statement.spoken) === 0n && ((before.up ^ statement.up) & before.spoken) === 0n);
  if (!isMore) throw badWord(leaseId, 'it takes back what was said before');
}

function leaseStatus(lease: HostedLease): Record<string, unknown> {
  const { leaseId, renter, deviceId, from, until, interruptible } = lease.view();
  const { spoken, up } = lease.record.own.counts();
  const numbers = { leaseId: `${leaseId}`, deviceId: `${deviceId}`, from: `${from}`, until: `${until}` };
  return { ...numbers, renter, interruptible, intervals: spoken, intervalsUp: up, ...lease.rental()?.status() };
}

function metricsOf(leases: Map<bigint, HostedLease>): string {
  const running = [...leases.values()].filter((lease) => lease.rental() !== undefined);
  const restarts = running.reduce((sum, lease) => sum + (lease.rental()?.status().restarts ?? 0), 0);
  return `millrace_compute_leases_count ${leases.size}\nmillrace_compute_leases_running_count ${running.length}\nmillrace_compute_lease_restarts_count ${restarts}\n`;
}

function idOf(device: LeasedDevice, byId: Map<bigint, LeasedDevice>): string | null {
  const found = [...byId].find(([, each]) => each === device);
  return found === undefined ? null : String(found[0]);
}

function unknownLease(leaseId: bigint): never {
  throw new MillraceError('lease-unknown', {
    actor: 'caller',
    message: `This machine serves no lease ${leaseId}`,
    values: { leaseId },
    hint: 'It may be over, or so new that the machine has not seen it yet.',
  });
}

function badWord(leaseId: bigint, reason: string): MillraceError {
  return new MillraceError('bad-meter-word', {
    actor: 'caller',
    message: `The renter’s word on lease ${leaseId} cannot be taken: ${reason}`,
    values: { leaseId, reason },
  });
}
