import type { DeterminismClass } from '../spec/job-spec.ts';
import type { DeviceNeeds } from '../spec/needs.ts';

/** A time in which a device is taken: a slot of `DeviceCalendar`. */
export interface BusyTime {
  slotId: bigint;
  /** Seconds; taken from here up to `until`. */
  from: number;
  until: number;
}

/** Graphics processors of a device, all of one kind. */
export interface GpuFacts {
  count: number;
  /** Lower case. */
  vendor: string;
  model: string;
  memoryBytes: number;
  bus: string;
}

/** All that is known of a device on offer: its offer on chain, its attributes document, its health, its calendar. */
export interface DeviceView {
  deviceId: bigint;
  operatorId: bigint;
  deviceClass: string;
  region: string;
  milliCpus: number;
  memoryBytes: number;
  diskBytes: number;
  gpu?: GpuFacts;
  attributes: Readonly<Record<string, string>>;
  /** Base units an hour; 0: not for this token. */
  prices: Readonly<Record<'stable' | 'native', bigint>>;
  /** When it can be had, seconds. */
  from: number;
  until: number;
  /** In the order of time, without overlaps. */
  busy: readonly BusyTime[];
  /** Classes of jobs that it takes; `none` is what leases have. */
  takes: readonly DeterminismClass[];
  /** Reason code of health, stake or record for which it gets no work; left out: eligible. */
  ineligible?: string;
  /** From the performance, stability and record that health has posted, and from stake (`DeviceRank.weight`), 0 to 1000. */
  rank: number;
  /** Of the posted hours those in which its partners reached it, in thousandths. */
  uptime: number;
  /** Reservations that its operator got of late, for each device that it has on offer. */
  recentGrants: number;
  /** Notice before it is taken back, seconds; Infinity: never taken back. */
  noticeSeconds: number;
}

/** What is wanted: so many devices, for one time, on these terms. */
export interface DeviceWish {
  needs: DeviceNeeds;
  /** Devices: all of them or none. */
  count: number;
  token: 'stable' | 'native';
  /** Base units an hour and device. */
  priceMax: bigint;
  from: number;
  until: number;
  determinism: DeterminismClass;
  /** Least notice before a device is taken back, where it may be. */
  noticeSecondsMin: number;
  /** Whether devices that may be taken back would do. */
  isInterruptible: boolean;
  /** Bytes of the job's inputs that an operator stores; others store none. */
  storedBytes: ReadonlyMap<bigint, number>;
  /** Bytes of all inputs. */
  inputBytes: number;
  /** Most devices of one operator: one failure, one loss. */
  perOperatorMax: number;
  /** Candidates beyond the count, for those that others take first; all together at most 128 (`CANDIDATES_MAX`). */
  spares: number;
  /** Devices that failed at this before. */
  excluded: ReadonlySet<bigint>;
}
