import { systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import type { Capacity, Resources } from '../capacity.ts';
import type { LeaseHost } from '../leases/lease-host.ts';
import { OutputLog } from '../leases/output-log.ts';
import type { Rental } from '../leases/rental.ts';

/** Where a machine has the room for its part in a cluster. */
export interface LeaseRoom {
  /**
   * Finds room for a part, or refuses it.
   * @throws cluster-refused, lease-unknown
   */
  find(request: { leaseId: string; cluster: string; wanted: Resources }): Promise<FoundRoom>;
}

/** Room that was found for one part. */
export interface FoundRoom {
  /** The part is there; from now on `isUp` says whether it works, and `end` ends it. */
  begin(part: { isUp: () => boolean; end: () => Promise<void> }): Promise<void>;
  /** The part is gone, or was never there. */
  release(): Promise<void>;
}

/** How long a lease that is new on the chain may take until the node has seen it. */
const SEEN_PATIENCE_MS = 60_000;
const LOOK_MS = 200;
/** Of a lease that is in a cluster already. */
const NOTHING: Resources = { cpus: 0, memoryBytes: 0, diskBytes: 0, processes: 0 };

/**
 * The room of the lease itself: a part gets what was rented and not more, in place of the lease's sandbox, and the lease's meter says whether the part
 * works. A lease has room for one part.
 */
export function roomOfLeases(host: Pick<LeaseHost, 'find' | 'resourcesOf'>, patienceMs = SEEN_PATIENCE_MS): LeaseRoom {
  const taken = new Set<string>();
  return {
    async find({ leaseId, wanted }) {
      const lease = await found(host, BigInt(leaseId), patienceMs);
      const leased = taken.has(leaseId) ? NOTHING : host.resourcesOf(BigInt(leaseId));
      if (!fitsIn(wanted, leased)) throw noRoom(wanted, leased);
      taken.add(leaseId);
      return {
        begin: ({ isUp, end }) => lease.lend(rentalOf(isUp, end)),
        release: async () => {
          taken.delete(leaseId);
          lease.takeBack();
        },
      };
    },
  };
}

/** Room of the machine: for a node that only takes part in clusters, and whose leases nobody else serves. */
export function roomOfCapacity(capacity: Capacity): LeaseRoom {
  return {
    async find({ cluster, wanted }) {
      const reservation = capacity.reserve(`cluster ${cluster}`, wanted);
      if (reservation === undefined) throw noRoom(wanted, capacity.free());
      return { begin: async () => {}, release: async () => reservation.release() };
    },
  };
}

async function found(host: Pick<LeaseHost, 'find'>, leaseId: bigint, patienceMs: number): Promise<ReturnType<LeaseHost['find']>> {
  const deadlineMs = systemClock.nowMs() + patienceMs;
  for (;;) {
    try {
      return host.find(leaseId);
    } catch (error) {
      if (systemClock.nowMs() > deadlineMs) throw error;
      await systemClock.sleep(LOOK_MS);
    }
  }
}

/** Disk is none of it: what a part writes lies in memory, and counts there. */
function fitsIn(wanted: Resources, { cpus, memoryBytes, processes }: Resources): boolean {
  return wanted.cpus <= cpus && wanted.memoryBytes <= memoryBytes && wanted.processes <= processes;
}

/** A lease's device as its renter sees it while it is in a cluster: its programs are started and read through the cluster. */
function rentalOf(isUp: () => boolean, end: () => Promise<void>): Rental {
  return {
    output: new OutputLog(),
    run: () => Promise.reject(inCluster()),
    connect: () => Promise.reject(inCluster()),
    setMain: () => Promise.reject(inCluster()),
    probe: async () => isUp(),
    status: () => ({ isUp: isUp(), restarts: 0, lastFault: undefined }),
    close: end,
  };
}

function inCluster(): MillraceError {
  return new MillraceError('lease-in-cluster', {
    actor: 'caller',
    message: 'This rental is a machine of a cluster',
    hint: 'Use millrace cluster exec and logs, or leave the cluster first.',
  });
}

function noRoom(wanted: Resources, has: Resources): MillraceError {
  return new MillraceError('cluster-refused', {
    actor: 'caller',
    message: `This machine does not join the cluster: it wants ${JSON.stringify(wanted)}, there is ${JSON.stringify(has)}`,
    values: { wanted: JSON.stringify(wanted), has: JSON.stringify(has) },
    hint: 'Ask for less by process, or rent machines of a larger class.',
  });
}
