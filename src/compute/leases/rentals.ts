import type { Address } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type LeaseView, listLeases, readLease } from './lease-chain.ts';

/** What a person rents: a lease and those that extend it. Its number is that of the first. */
export interface RentalView {
  rentalId: bigint;
  /** In the order of time, each beginning where the one before ends. */
  leases: LeaseView[];
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
  const found = rentals.find(({ leases }) => leases.some(({ leaseId }) => leaseId === options.leaseId));
  if (found !== undefined) return found;
  throw new MillraceError('rental-unknown', {
    actor: 'caller',
    message: `This wallet has no rental ${options.leaseId}`,
    values: { leaseId: options.leaseId, renter: options.renter },
    hint: 'See `millrace rentals` for the ones it has.',
  });
}

/** Leases that follow one another on one device are one rental. */
export function groupRentals(leases: readonly LeaseView[], now: bigint): RentalView[] {
  const rentals: LeaseView[][] = [];
  const inTime = [...leases].sort((one, other) =>
    one.from === other.from ? Number(one.leaseId - other.leaseId) : one.from < other.from ? -1 : 1,
  );
  for (const lease of inTime) {
    const before = rentals.find((each) => {
      const last = each.at(-1) as LeaseView;
      return last.deviceId === lease.deviceId && last.until === lease.from && last.until > last.from;
    });
    if (before === undefined) rentals.push([lease]);
    else before.push(lease);
  }
  return rentals.map((each) => viewOf(each, now)).sort((one, other) => Number(one.rentalId - other.rentalId));
}

function viewOf(leases: LeaseView[], now: bigint): RentalView {
  const [first, last] = [leases[0] as LeaseView, leases.at(-1) as LeaseView];
  const current = leases.find(({ until }) => until > now) ?? last;
  const state = now < first.from ? 'waiting' : now < last.until ? 'running' : leases.every(({ closed }) => closed) ? 'closed' : 'ended';
  return { rentalId: first.leaseId, leases, current, state, from: first.from, until: last.until };
}
