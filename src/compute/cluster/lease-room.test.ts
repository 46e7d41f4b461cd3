import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { zeroAddress, zeroHash } from 'viem';
import { MillraceError } from '../../errors.ts';
import { silentLogger } from '../../log.ts';
import { createCapacity } from '../capacity.ts';
import { HostedLease } from '../leases/hosted-lease.ts';
import type { LeaseView } from '../leases/lease-chain.ts';
import { openLeaseRecords } from '../leases/lease-record.ts';
import { OutputLog } from '../leases/output-log.ts';
import type { Rental } from '../leases/rental.ts';
import { roomOfCapacity, roomOfLeases } from './lease-room.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-lease-room-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const DEVICE = { cpus: 1, memoryBytes: 1 << 30, diskBytes: 1 << 20, processes: 100 };
const VIEW: LeaseView = {
  leaseId: 7n,
  renter: zeroAddress,
  agent: zeroAddress,
  deviceId: 1n,
  operatorId: 1n,
  from: 1_000n,
  until: 1_100n,
  interruptible: false,
  closed: false,
  takenSeconds: 0,
  collateral: 0n,
  token: zeroAddress,
  railId: 1n,
};

interface Sandbox {
  isUp: boolean;
}

/** A lease whose sandboxes are remembered; nothing of it is brought to a chain. */
function leaseWithSandboxes(name: string) {
  const sandboxes: Sandbox[] = [];
  const open = (): Rental => {
    const sandbox = { isUp: true };
    sandboxes.push(sandbox);
    return {
      output: new OutputLog(),
      run: () => Promise.reject(new MillraceError('workspace-ended', { actor: 'peer', message: 'no command is run in this test' })),
      connect: () => Promise.reject(new MillraceError('workspace-ended', { actor: 'peer', message: 'nothing listens in this test' })),
      setMain: async () => {},
      probe: async () => sandbox.isUp,
      status: () => ({ isUp: sandbox.isUp, restarts: 0, lastFault: undefined }),
      close: async () => {
        sandbox.isUp = false;
      },
    };
  };
  const handed: Rental[] = [];
  const lease = new HostedLease({
    view: VIEW,
    times: { meterSeconds: 1, speakSeconds: 60, noticeSeconds: 5 },
    records: openLeaseRecords(join(folder, name)),
    courier: { sign: async () => ({ spoken: 0n, up: 0n, signature: zeroHash }), deliver: async () => 0 },
    asker: { ask: async () => {}, fixSeeds: async () => {}, settle: async () => {} },
    close: async () => undefined,
    open,
    handOver: (rental) => handed.push(rental) > 0,
    log: silentLogger,
  });
  const host = { find: () => lease, resourcesOf: () => DEVICE };
  return { lease, host, sandboxes, handed };
}

test('a part of a cluster stands in the place of its lease’s sandbox, and the lease’s meter measures it', async () => {
  const { lease, host, sandboxes } = leaseWithSandboxes('stands-in');
  await lease.tick(1_001n);
  const room = await roomOfLeases(host).find({ leaseId: '7', cluster: '0x', wanted: DEVICE });
  assert.deepEqual(sandboxes, [{ isUp: true }]);
  let isUp = true;
  await room.begin({ isUp: () => isUp, end: async () => {} });
  await lease.tick(1_002n);
  assert.deepEqual(sandboxes, [{ isUp: false }], 'the sandbox ended, and no other one was made');
  await assert.rejects(async () => lease.rental()?.run({ argv: ['true'] }), { code: 'lease-in-cluster' });
  assert.equal(await lease.rental()?.probe(), true);
  isUp = false;
  assert.equal(await lease.rental()?.probe(), false);
  await room.release();
  await lease.tick(1_003n);
  assert.deepEqual(sandboxes, [{ isUp: false }, { isUp: true }], 'as long as it runs it has a sandbox again');
});

test('a part ends with its lease, and is not handed to the lease that follows', async () => {
  const { lease, host, handed } = leaseWithSandboxes('ends');
  const room = await roomOfLeases(host).find({ leaseId: '7', cluster: '0x', wanted: DEVICE });
  let hasEnded = false;
  const end = async () => {
    hasEnded = true;
    await room.release();
  };
  await room.begin({ isUp: () => !hasEnded, end });
  await lease.tick(1_099n);
  assert.equal(hasEnded, false);
  await lease.tick(1_100n);
  assert.equal(hasEnded, true);
  assert.deepEqual([handed.length, lease.rental()], [0, undefined]);
});

test('a node that stops ends no part of a cluster: that goes on with the lease at its next start', async () => {
  const { lease, host } = leaseWithSandboxes('stops');
  const room = await roomOfLeases(host).find({ leaseId: '7', cluster: '0x', wanted: DEVICE });
  let hasEnded = false;
  await room.begin({
    isUp: () => true,
    end: async () => {
      hasEnded = true;
    },
  });
  await lease.stop();
  assert.equal(hasEnded, false);
});

test('a cluster gets what its lease was paid for, and not a core, byte or process more', async () => {
  const { host } = leaseWithSandboxes('bounds');
  const find = (change: Partial<typeof DEVICE>) =>
    roomOfLeases(host).find({ leaseId: '7', cluster: '0x', wanted: { ...DEVICE, ...change } });
  for (const change of [{ cpus: 1.001 }, { memoryBytes: DEVICE.memoryBytes + 1 }, { processes: 101 }]) {
    await assert.rejects(find(change), { code: 'cluster-refused' });
  }
  const leased = roomOfLeases(host);
  const once = await leased.find({ leaseId: '7', cluster: '0x01', wanted: DEVICE });
  await assert.rejects(leased.find({ leaseId: '7', cluster: '0x02', wanted: DEVICE }), { code: 'cluster-refused' });
  await once.release();
  await leased.find({ leaseId: '7', cluster: '0x02', wanted: DEVICE });
  const machine = roomOfCapacity(createCapacity(DEVICE));
  const taken = await machine.find({ leaseId: '1', cluster: '0x', wanted: { ...DEVICE, diskBytes: 0 } });
  await assert.rejects(machine.find({ leaseId: '2', cluster: '0x', wanted: { ...DEVICE, diskBytes: 0 } }), { code: 'cluster-refused' });
  await taken.release();
  await machine.find({ leaseId: '2', cluster: '0x', wanted: { ...DEVICE, diskBytes: 0 } });
});

test('a lease that is new on the chain is waited for; one that never comes is refused', async () => {
  const { lease, host } = leaseWithSandboxes('late');
  let isSeen = false;
  const find = () => {
    if (isSeen) return lease;
    throw new MillraceError('lease-unknown', { actor: 'caller', message: 'not seen yet' });
  };
  const waiting = roomOfLeases({ ...host, find }).find({ leaseId: '7', cluster: '0x', wanted: DEVICE });
  await sleep(50);
  isSeen = true;
  await waiting;
  isSeen = false;
  await assert.rejects(roomOfLeases({ ...host, find }, 0).find({ leaseId: '7', cluster: '0x', wanted: DEVICE }), { code: 'lease-unknown' });
});
