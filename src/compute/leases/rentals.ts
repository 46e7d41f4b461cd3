import type { Address } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type LeaseView, listLeases, readLease } from './lease-chain.ts';

/** What a person rents: a lease and those that extend it. Its number is that of the first. */
export interface RentalView {
  rentalId: bigint;
  /** In the order of time, each beginning where the one before ends. */
  leases: LeaseView[];
  /** Extensions that were ended before they began: no time, only money that returns. */
  unused: LeaseView[];
  /** The lease that runs, else the next one, else the last. */
  current: LeaseView;
  state: 'waiting' | 'running' | 'ended' | 'closed';
  from: bigint;
  until: bigint;
}

/** All that a renter rents or has rented, the oldest first. @throws chain-unreachable */
export async function listRentals(client: ChainClient, renter: Address): Promise<RentalView[]> {
  const [now, numbers] = await Promise.all([client.now(), listLeases(client, { renter })]);
  const leases = await Promise.all(numbers.map((leaseId) => readLease(client, leaseId)));
  return groupRentals(leases, now);
}

/**
 * One rental of a renter, by the number of any of its leases.
 * @throws rental-unknown
 */
export async function findRental(client: ChainClient, options: { renter: Address; leaseId: bigint }): Promise<RentalView> {
  const rentals = await listRentals(client, options.renter);
  const found = rentals.find(({ leases, unused }) => [...leases, ...unused].some(({ leaseId }) => leaseId === options.leaseId));
  if (found !== undefined) return found;
  throw new MillraceError('rental-unknown', {
    actor: 'caller',
    message: `This wallet has no rental ${options.leaseId}`,
    values: { leaseId: options.leaseId, renter: options.renter },
    hint: 'See `millrace rentals` for the ones it has.',
  });
}

/** Leases that follow one another on one device are one rental; one that was ended before it began goes to the rental that it was to extend. */
export function groupRentals(leases: readonly LeaseView[], now: bigint): RentalView[] {
  const rentals: { leases: LeaseView[]; unused: LeaseView[] }[] = [];
  const inTime = [...leases].sort((one, other) =>
    one.from === other.from ? Number(one.leaseId - other.leaseId) : one.from < other.from ? -1 : 1,
  );
  for (const lease of inTime.filter(hasTime)) {
    const before = rentals.find((each) => {
      const last = each.leases.at(-1) as LeaseView;
      return last.deviceId === lease.deviceId && last.until === lease.from;
    });
    if (before === undefined) rentals.push({ leases: [lease], unused: [] });
    else before.leases.push(lease);
  }
  for (const lease of inTime.filter((each) => !hasTime(each))) {
    // Where the one before it ended then is no longer known: ending it moved that.
    const before = rentals.findLast((each) => each.leases.some((one) => isBefore(one, lease)));
    if (before === undefined) rentals.push({ leases: [lease], unused: [] });
    else before.unused.push(lease);
  }
  return rentals.map((each) => viewOf(each, now)).sort((one, other) => Number(one.rentalId - other.rentalId));
}

const hasTime = ({ from, until }: LeaseView): boolean => until > from;

const isBefore = (one: LeaseView, other: LeaseView): boolean =>
  one.deviceId === other.deviceId && one.leaseId < other.leaseId && one.from < other.from;

function viewOf({ leases, unused }: { leases: LeaseView[]; unused: LeaseView[] }, now: bigint): RentalView {
  const [first, last] = [leases[0] as LeaseView, leases.at(-1) as LeaseView];
  const current = leases.find(({ until }) => until > now) ?? last;
  const isOver = now >= last.until || !hasTime(last);
  const isClosed = [...leases, ...unused].every(({ closed }) => closed);
  const state = isOver ? (isClosed ? 'closed' : 'ended') : now < first.from ? 'waiting' : 'running';
  return { rentalId: first.leaseId, leases, unused, current, state, from: first.from, until: last.until };
}
