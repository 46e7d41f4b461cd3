import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LeaseView } from './lease-chain.ts';
import { groupRentals } from './rentals.ts';

const address = '0x00000000000000000000000000000000000000aa';
const lease = (leaseId: bigint, from: bigint, until: bigint, more: Partial<LeaseView> = {}): LeaseView => ({
  leaseId,
  renter: address,
  agent: address,
  deviceId: 1n,
  operatorId: 1n,
  from,
  until,
  interruptible: false,
  closed: false,
  takenSeconds: 0,
  collateral: 0n,
  token: address,
  railId: leaseId,
  ...more,
});
const shapes = (leases: LeaseView[], now: bigint) =>
  groupRentals(leases, now).map(({ rentalId, state, leases: used, unused, from, until }) => ({
    rentalId,
    state,
    time: [from, until],
    leases: used.map((each) => each.leaseId),
    unused: unused.map((each) => each.leaseId),
  }));

test('a rental that was extended is one, and what extends it is no other rental when both are ended before it began', () => {
  const beside = lease(3n, 100n, 300n, { deviceId: 2n });
  const running = { rentalId: 2n, state: 'running', time: [100n, 500n], leases: [2n, 4n], unused: [] };
  const other = { rentalId: 3n, state: 'running', time: [100n, 300n], leases: [3n], unused: [] };
  assert.deepEqual(shapes([lease(4n, 200n, 500n), lease(2n, 100n, 200n), beside], 150n), [running, other]);
  const ended = { ...running, state: 'ended', time: [100n, 150n], leases: [2n], unused: [4n] };
  assert.deepEqual(shapes([lease(4n, 200n, 200n), lease(2n, 100n, 150n), beside], 160n), [ended, other]);
});

test('a rental is closed when the money of an extension that never began is back, too', () => {
  const of = (closed: boolean) => shapes([lease(2n, 100n, 150n, { closed: true }), lease(4n, 200n, 200n, { closed })], 160n);
  assert.deepEqual(
    [of(false), of(true)].map(([rental]) => rental?.state),
    ['ended', 'closed'],
  );
});

test('a rental that was ended before it began does not wait for its time', () => {
  assert.deepEqual(
    shapes([lease(1n, 200n, 200n)], 100n).map(({ state }) => state),
    ['ended'],
  );
});
