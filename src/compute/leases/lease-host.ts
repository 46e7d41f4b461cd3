import { join } from 'node:path';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { Reservation, Resources } from '../capacity.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { describeDevice, keepOffers, type LeasedDevice } from './device-offers.ts';
import { startDuties } from './duties.ts';
import { HostedLease } from './hosted-lease.ts';
import { blockToReadFrom, type LeaseView, listLeases, type MarketTimes, readLease, readMarketTimes } from './lease-chain.ts';
import { type LeaseRecord, type LeaseRecords, openLeaseRecords, type SignedStatement } from './lease-record.ts';
import { leaseRoutes } from './lease-routes.ts';
import { checkRenterWord } from './meter-word.ts';
import { createPanelAsker, type PanelAsker } from './panel-asker.ts';
import { ProtocolClock } from './protocol-clock.ts';
import { openRental, type Rental } from './rental.ts';
import { createStatementCourier, type StatementCourier } from './statement-courier.ts';

/** The part of a node that leases its devices out. */
export interface LeaseHost extends ComputePart {
  /** A lease that it serves. @throws lease-unknown */
  find(leaseId: bigint): HostedLease;
  /** What the device of a lease has, and its renter has paid for. @throws lease-unknown */
  resourcesOf(leaseId: bigint): Resources;
}

/** How a machine is leased out. */
export interface LeaseHostOptions {
  devices: readonly LeasedDevice[];
}

const TICK_MS = 200;
const PREFIX = '/v1/compute/leases';

/**
 * Puts this machine's devices on offer and serves their leases: a sandbox for the time of each, to the second; requests of its renter; a meter that
 * both sides sign; drawn probers where the renter is silent. What it took on is on disk: after a kill at any moment the leases go on with new
 * sandboxes, and the intervals in between are said to be down. Devices' resources are set aside for as long as the part runs.
 * @throws bad-device, chain-unreachable
 */
export async function startLeaseHost(context: ComputeContext, options: LeaseHostOptions): Promise<LeaseHost> {
  const [executor, times] = await Promise.all([chooseExecutor(context.executors), readMarketTimes(context.client)]);
  return new OpenLeaseHost(context, { wanted: options.devices, executor, times });
}

class OpenLeaseHost implements LeaseHost {
  readonly #context: ComputeContext;
  readonly #executor: Executor | undefined;
  readonly #times: MarketTimes;
  readonly #wanted: readonly LeasedDevice[];
  /** Those of them for which there is room, and what is set aside for them. */
  readonly #devices: readonly LeasedDevice[];
  readonly #held: readonly Reservation[];
  readonly #clock = new ProtocolClock();
  readonly #records: LeaseRecords;
  readonly #courier: StatementCourier;
  readonly #asker: PanelAsker;
  readonly #leases = new Map<bigint, HostedLease>();
  readonly #devicesById = new Map<bigint, LeasedDevice>();
  /** Sandboxes between a lease and the one that follows it. */
  readonly #handed = new Map<string, Rental>();
  readonly #routes: ReturnType<typeof leaseRoutes>;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #stopDuties: () => Promise<void>;
  #isDraining = false;
  #offersDue = true;
  #seenBlock: bigint | undefined;

  constructor(context: ComputeContext, given: { wanted: readonly LeasedDevice[]; executor: Executor | undefined; times: MarketTimes }) {
    const { client, sender, signer, folder, log } = context;
    const { wanted, executor, times } = given;
    [this.#context, this.#executor, this.#times, this.#wanted] = [context, executor, times, wanted];
    this.#records = openLeaseRecords(join(folder, 'leases'));
    this.#courier = createStatementCourier({ client, sender, signer, times });
    this.#asker = createPanelAsker({ client, sender, log });
    const room = setAside(context, executor === undefined ? [] : wanted);
    [this.#devices, this.#held] = [room.devices, room.held];
    this.#routes = leaseRoutes({
      find: (leaseId) => this.find(leaseId),
      isNodeKey: async (address) => (await client.read('operators', 'operatorOfNodeKey', [address])) !== 0n,
      exchange: (lease, word, statement) => this.#exchange(lease, word, statement),
      devices: () => this.#devices.map((device) => this.#shown(device)),
    });
    this.#watching = client.watchBlocks(
      ({ number, timestamp }) => this.#look(number, timestamp).catch((error) => this.#warn(error)),
      this.#stop.signal,
    );
    this.#stopDuties = startDuties({
      items: () => this.#leases.values(),
      duty: (lease) => this.#tick(lease),
      everyMs: TICK_MS,
    });
  }

  find(leaseId: bigint): HostedLease {
    return this.#leases.get(leaseId) ?? unknownLease(leaseId);
  }

  resourcesOf(leaseId: bigint): Resources {
    return this.#devicesById.get(this.find(leaseId).view().deviceId)?.resources ?? unknownLease(leaseId);
  }

  fetch(request: Request): Promise<Response> | undefined {
    return new URL(request.url).pathname.startsWith(PREFIX) ? Promise.resolve(this.#routes.fetch(request)) : undefined;
  }

  metrics(): string {
    return metricsOf(this.#leases);
  }

  async status(): Promise<Record<string, unknown>> {
    const names = (devices: readonly LeasedDevice[]) => devices.map(({ name }) => name);
    return {
      engine: this.#executor?.engine ?? null,
      devices: names(this.#devices),
      devicesWithoutRoom: names(this.#wanted.filter((each) => !this.#devices.includes(each))),
      leases: [...this.#leases.values()].map((lease) => leaseStatus(lease)),
      isDraining: this.#isDraining,
    };
  }

  drain(): void {
    [this.#isDraining, this.#offersDue] = [true, true];
  }

  resume(): void {
    [this.#isDraining, this.#offersDue] = [false, true];
  }

  async leave(): Promise<Record<string, unknown>> {
    this.drain();
    await this.#offer();
    for (const lease of this.#leases.values()) {
      const { leaseId, interruptible, closed } = lease.view();
      if (!interruptible || closed) continue;
      const call = { contract: 'computeMarket', functionName: 'end', args: [leaseId] } as const;
      await this.#context.sender.send(call).catch((error: MillraceError) => {
        if (error.code !== 'lease-is-over') throw error;
      });
    }
    return { leases: [...this.#leases.values()].map((lease) => leaseStatus(lease)) };
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled([this.#watching, this.#stopDuties()]);
    await Promise.all([...this.#leases.values()].map((lease) => lease.stop()));
    await Promise.all([...this.#handed.values()].map((rental) => rental.close()));
    for (const each of this.#held) each.release();
  }

  async #look(number: bigint, timestamp: bigint): Promise<void> {
    const { client, operatorId } = this.#context;
    this.#clock.observe(timestamp);
    await this.#offer();
    for (const leaseId of await listLeases(client, { operatorId }, blockToReadFrom(this.#seenBlock))) await this.#takeOn(leaseId);
    this.#seenBlock = number;
    for (const lease of this.#leases.values()) lease.update(await readLease(client, lease.view().leaseId));
  }

  async #offer(): Promise<void> {
    const { client, sender, operatorId, folder } = this.#context;
    if (!this.#offersDue || this.#executor === undefined) return;
    this.#offersDue = false;
    const { engine } = this.#executor;
    const wanted = { devices: this.#devices, engine, isDraining: this.#isDraining };
    const found = await keepOffers({ client, sender, operatorId, folder, ...wanted });
    for (const device of this.#devices) this.#devicesById.set(found.get(device.name) as bigint, device);
  }

  async #takeOn(leaseId: bigint): Promise<void> {
    if (this.#leases.has(leaseId)) return;
    const { client, sender, log } = this.#context;
    const view = await readLease(client, leaseId);
    const device = this.#devicesById.get(view.deviceId);
    if (view.closed) return;
    if (device === undefined || this.#executor === undefined) {
      log.error('lease-without-device', { leaseId, deviceId: view.deviceId });
      return;
    }
    const lease: HostedLease = new HostedLease({
      view,
      times: this.#times,
      records: this.#records,
      courier: this.#courier,
      asker: this.#asker,
      close: async (id) => {
        await sender.send({ contract: 'computeMarket', functionName: 'close', args: [id] });
        return undefined;
      },
      open: (record) => this.#openSandbox(lease, device, record),
      handOver: (rental) => this.#handOver(lease, rental),
      log,
    });
    this.#leases.set(leaseId, lease);
  }

  /** That of the lease before it goes on; a new one where there is none. */
  #openSandbox(lease: HostedLease, { image, resources }: LeasedDevice, { main }: LeaseRecord): Rental | undefined {
    const { folder, fetchContent, log } = this.#context;
    const view = lease.view();
    if (predecessorOf(this.#leases, view)?.rental() !== undefined) return undefined;
    const known = this.#handed.get(keyOf(view));
    this.#handed.delete(keyOf(view));
    const place = join(folder, 'rentals', String(view.leaseId));
    return known ?? openRental({ executor: this.#executor as Executor, image, resources, folder: place, main, fetchContent, log });
  }

  #handOver(lease: HostedLease, rental: Rental): boolean {
    const next = successorOf(this.#leases, lease.view());
    if (next === undefined) return false;
    this.#handed.set(keyOf(lease.view()), rental);
    if (lease.record.main !== undefined) next.keepMain(lease.record.main);
    return true;
  }

  async #tick(lease: HostedLease): Promise<void> {
    await lease.tick(this.#clock.now());
    if (lease.isDone()) this.#leases.delete(lease.view().leaseId);
  }

  async #exchange(lease: HostedLease, word: number, statement: SignedStatement): Promise<SignedStatement> {
    checkRenterWord(this.#context.client, lease, { word, statement, meterSeconds: this.#times.meterSeconds });
    lease.take(word, statement);
    return await this.#courier.sign(lease.record, 'node', word);
  }

  #shown(device: LeasedDevice): Record<string, unknown> {
    const known = [...this.#devicesById].find(([, each]) => each === device);
    return { ...describeDevice(device, this.#executor?.engine ?? 'none'), deviceId: known === undefined ? null : String(known[0]) };
  }

  #warn(error: unknown): void {
    const { code, message } = toMillraceError(error);
    this.#offersDue = true;
    if (!this.#stop.signal.aborted) this.#context.log.warn('lease-host-failed', { code, message });
  }
}

const keyOf = ({ deviceId, renter }: LeaseView) => `${deviceId} ${renter}`;

/** The same renter's lease of the same device that ends where this one begins: this one is its extension. */
function predecessorOf(leases: Map<bigint, HostedLease>, view: LeaseView): HostedLease | undefined {
  return [...leases.values()].find((each) => keyOf(each.view()) === keyOf(view) && each.view().until === view.from);
}

function successorOf(leases: Map<bigint, HostedLease>, view: LeaseView): HostedLease | undefined {
  return [...leases.values()].find((each) => keyOf(each.view()) === keyOf(view) && each.view().from === view.until);
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

function unknownLease(leaseId: bigint): never {
  throw new MillraceError('lease-unknown', {
    actor: 'caller',
    message: `This machine serves no lease ${leaseId}`,
    values: { leaseId },
    hint: 'It may be over, or so new that the machine has not seen it yet.',
  });
}
