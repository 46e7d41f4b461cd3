import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import {
  type DeploymentSpec,
  type DeploymentUnit,
  isCid,
  type SpecPlaces,
  type Workload,
  type WorkloadPlaces,
} from '../spec/deployment-spec.ts';
import { priceUnits } from '../spec/needs.ts';
import type { LeaseView } from './lease-chain.ts';
import { type DeviceOffer, listDeviceOffers } from './market-offers.ts';
import type { RentalMain } from './rental.ts';
import { chooseForWish, endLease, type RentalWish, reserveDevices } from './reserve.ts';

/** So many rentals of one workload, and what is to run in each by itself. */
export interface RentalUnit {
  /** Units of one group are reserved together or not at all. */
  group: string;
  workload: string;
  wish: RentalWish;
  main: RentalMain;
  /** Ports on which it listens, for the renter's forward. */
  ports: RentedPort[];
}

/** A TCP port of a rental, and the one of the renter's machine that its document proposes for it. */
export interface RentedPort {
  port: number;
  as: number;
}

/** What a renter says beside its document, where that says nothing. */
export interface RentalTerms {
  decimals: Readonly<Record<'stable' | 'native', number>>;
  /** Greatest price of an hour and device where a unit has none, base units. */
  price?: { token: 'stable' | 'native'; max: bigint };
  /** Where the document has no time. */
  seconds: number;
  collateralMin: bigint;
}

/** A unit with its leases. */
export interface RentedUnit {
  unit: RentalUnit;
  leases: LeaseView[];
}

/**
 * A deployment as rentals, those first that others wait for. What a rental cannot do (pull from a registry, be reached by another workload or by UDP, keep a volume) is
 * refused where the document says it.
 * @throws spec-unsupported with field, line and column; price-missing
 */
export function rentalUnits({ spec, places }: { spec: DeploymentSpec; places: SpecPlaces }, terms: RentalTerms): RentalUnit[] {
  const order = inOrder(spec.workloads);
  const units = spec.groups.flatMap((group) =>
    group.units.map((unit) => {
      const workload = spec.workloads.find(({ name }) => name === unit.workload) as Workload;
      checkRentable(workload, unit, places);
      const wish = { ...wishOf(spec, unit, terms), isInterruptible: spec.isInterruptible, noticeSecondsMin: spec.noticeSeconds };
      return {
        group: group.name,
        workload: workload.name,
        wish,
        main: mainOf(workload),
        ports: workload.ports.map(({ port, as }) => ({ port, as })),
      };
    }),
  );
  return units.sort((one, other) => order.indexOf(one.workload) - order.indexOf(other.workload));
}

/**
 * Reserves all units or none: looks first whether all of them can be had at once, and ends what it has reserved when another renter was quicker
 * with the rest; that costs the reservation's fee and the interval that runs.
 * @throws no-devices with the workload, gang-incomplete, insufficient-balance, and the sender's errors
 */
export async function rentUnits(
  { client, sender }: { client: ChainClient; sender: Sender },
  units: readonly RentalUnit[],
): Promise<RentedUnit[]> {
  const offers = await listDeviceOffers(client);
  await requireAll(client, units, offers);
  const taken = new Set<bigint>();
  const rented: RentedUnit[] = [];
  for (const unit of units) {
    try {
      const leases = await reserveDevices({ client, sender, wish: { ...unit.wish, excluded: taken }, offers });
      for (const { deviceId } of leases) taken.add(deviceId);
      rented.push({ unit, leases });
    } catch (error) {
      for (const { leaseId } of rented.flatMap((each) => each.leases)) await endLease({ sender, leaseId }).catch(() => undefined);
      throw ofWorkload(unit.workload, error);
    }
  }
  return rented;
}

/** Whether there are devices for all of them together: those that one would take, the next cannot have. */
async function requireAll(client: ChainClient, units: readonly RentalUnit[], offers: readonly DeviceOffer[]): Promise<void> {
  const taken = new Set<bigint>();
  for (const { workload, wish } of units) {
    const { chosen } = await chooseForWish({ client, wish: { ...wish, excluded: taken }, offers }).catch((error: unknown) => {
      throw ofWorkload(workload, error);
    });
    for (const { deviceId } of chosen.slice(0, wish.count)) taken.add(deviceId);
  }
}

function wishOf(spec: DeploymentSpec, { count, needs, priceMax, workload }: DeploymentUnit, terms: RentalTerms) {
  const seconds = spec.seconds ?? terms.seconds;
  const shared = { needs, count, seconds, collateralMin: terms.collateralMin };
  if (priceMax !== undefined) {
    return { ...shared, token: priceMax.token, priceMax: priceUnits(priceMax.amount, terms.decimals[priceMax.token]) };
  }
  if (terms.price !== undefined) return { ...shared, token: terms.price.token, priceMax: terms.price.max };
  throw new MillraceError('price-missing', {
    actor: 'caller',
    message: `The document has no price in a token of this network for ${workload}`,
    values: { workload },
    hint: 'Say the greatest price of an hour and device: --max-price, with --token stable or native.',
  });
}

function mainOf({ image, command, args, env }: Workload): RentalMain {
  return { argv: [...command, ...args], env, ...(image === '' ? {} : { image }) };
}

function checkRentable(workload: Workload, unit: DeploymentUnit, places: SpecPlaces): void {
  const place = places.get(workload.name);
  if (place === undefined) return;
  const { whole, image = whole, volumes = whole, args = image } = place;
  if (workload.image !== '' && !isCid(workload.image)) {
    throw image.unsupported(
      'no machine pulls from a registry, or has images by a digest',
      'Make an archive (docker export CONTAINER > image.tar), put it in (millrace put --public image.tar), and name it by its CID.',
    );
  }
  if (workload.command.length === 0) {
    throw args.unsupported(
      'an image here is an archive of files, without an entry point of its own',
      'Say the command: the program with its path, and its arguments.',
    );
  }
  checkPorts(workload, place);
  if (unit.volumes.length > 0) {
    throw volumes.unsupported(
      'a rental has no volumes: what it writes to /tmp lies in its sandbox and is lost with it',
      'Leave them out, write to /tmp, and copy out what matters (millrace cp).',
    );
  }
}

/** A rental has no network: its renter reaches what listens in it, and nobody else. */
function checkPorts({ ports }: Workload, { whole, ports: list = whole, eachPort = [] }: WorkloadPlaces): void {
  for (const [index, { protocol, workloads }] of ports.entries()) {
    const place = eachPort[index] ?? list;
    if (protocol === 'udp') {
      throw place.unsupported('a rental is reached by TCP alone', 'Leave it out, or let the program listen on TCP for millrace forward.');
    }
    if (workloads.length > 0) {
      throw place.unsupported(
        `a rental has no network, so ${workloads.join(' and ')} would not reach it`,
        'Run what must reach one another in one image, or leave "to" out and forward it (millrace forward); for machines on one mesh see millrace cluster up --help.',
      );
    }
  }
}

/** Names of workloads, each after those for which it waits; parsing has refused circles. */
function inOrder(workloads: readonly Workload[]): string[] {
  const order: string[] = [];
  const visit = (name: string) => {
    if (order.includes(name)) return;
    for (const before of workloads.find((each) => each.name === name)?.startsAfter ?? []) visit(before);
    order.push(name);
  };
  for (const { name } of workloads) visit(name);
  return order;
}

function ofWorkload(workload: string, error: unknown): unknown {
  if (!(error instanceof MillraceError)) return error;
  const { code, actor, message, values, hint } = error;
  return new MillraceError(code, { actor, message: `${workload}: ${message}`, values: { ...values, workload }, hint, cause: error });
}
