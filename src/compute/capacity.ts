import { availableParallelism, totalmem } from 'node:os';
import { MillraceError } from '../errors.ts';
import { freeDiskBytes } from '../host/index.ts';

/** What a machine has and what work takes of it. `cpus` counts in thousandths: 1 is one core, 0.001 the least. */
export interface Resources {
  cpus: number;
  memoryBytes: number;
  diskBytes: number;
  processes: number;
}

/** Resources that were set aside. */
export interface Reservation {
  /** Whose they are, e.g. `job 0x12…` or `lease 7`. */
  holder: string;
  resources: Resources;
  /** Gives them back; the second call changes nothing. */
  release(): void;
}

/** What the machine gives to all work together. Never oversold: the reservations together are never above the total. */
export interface Capacity {
  readonly total: Resources;
  /** What nobody holds now. */
  free(): Resources;
  /** Whether the machine could ever hold it, were nothing else on it. */
  fits(wanted: Resources): boolean;
  /**
   * Sets resources aside, all of them or none; undefined when not all are free. `cpus` are rounded up to thousandths.
   * @throws bad-resources when something is negative, no finite number, or a part of a byte or process
   */
  reserve(holder: string, wanted: Resources): Reservation | undefined;
  /** Everything that is held, oldest first. */
  reservations(): readonly Reservation[];
  /** Calls the listener after each release, for work that waits; the result ends that. */
  onRelease(listener: () => void): () => void;
}

type Kind = keyof Resources;

const KINDS: readonly Kind[] = ['cpus', 'memoryBytes', 'diskBytes', 'processes'];
const THOUSAND = 1000;
/** What stays for the node itself and the rest of the machine: measured 96 MB for a bare node, 250 MB with the engines of a busy one. */
const OWN_MEMORY_BYTES = 512 * 2 ** 20;
/** Of free disk: a machine whose disk fills up loses more than jobs. */
const DISK_SHARE = 0.5;
/** Far below the 32,768 of a kernel without settings: tests of fork bombs hold at 4,096. */
const PROCESSES = 4096;
/** One core for a job, beside the device that is leased out. */
const CPUS_MIN = 1.5;

/** The capacity that gives out a total. @throws bad-resources */
export function createCapacity(total: Resources): Capacity {
  const limit = countsOf(total);
  const held = new Map<Reservation, Resources>();
  const listeners = new Set<() => void>();
  const left = (): Resources => {
    const sum = { ...limit };
    for (const counts of held.values()) for (const kind of KINDS) sum[kind] -= counts[kind];
    return sum;
  };
  return {
    total: amountsOf(limit),
    free: () => amountsOf(left()),
    fits: (wanted) => isWithin(countsOf(wanted), limit),
    reserve(holder, wanted) {
      const counts = countsOf(wanted);
      if (!isWithin(counts, left())) return undefined;
      const reservation: Reservation = {
        holder,
        resources: amountsOf(counts),
        release() {
          if (held.delete(reservation)) for (const listener of [...listeners]) listener();
        },
      };
      held.set(reservation, counts);
      return reservation;
    },
    reservations: () => [...held.keys()],
    onRelease(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/**
 * What this machine can give: its processors, its memory (or that of its control group) less 512 MiB for the node itself, half of the free disk at
 * `folder`, and 4,096 processes; a share of each where several nodes run on one machine, but at least one core and a half: more nodes than cores take turns.
 */
export async function measureResources(options: { folder: string; nodesHere?: number }): Promise<Resources> {
  const nodes = options.nodesHere ?? 1;
  const constrained = process.constrainedMemory();
  const memoryBytes = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  const diskBytes = Number(await freeDiskBytes(options.folder)) * DISK_SHARE;
  return {
    cpus: Math.max(CPUS_MIN, Math.floor((availableParallelism() * THOUSAND) / nodes) / THOUSAND),
    memoryBytes: Math.floor(Math.max(0, memoryBytes / nodes - OWN_MEMORY_BYTES)),
    diskBytes: Math.floor(diskBytes / nodes),
    processes: Math.floor(PROCESSES / nodes),
  };
}

/** Whole numbers: thousandths of a processor, bytes, processes. */
function countsOf(resources: Resources): Resources {
  const counts = { ...resources, cpus: Math.ceil(Number((resources.cpus * THOUSAND).toFixed(6))) };
  for (const kind of KINDS) {
    if (Number.isSafeInteger(counts[kind]) && counts[kind] >= 0) continue;
    throw new MillraceError('bad-resources', {
      actor: 'caller',
      message: `Got ${resources[kind]} as ${kind}, expected a whole number, not negative (processors: in thousandths)`,
      values: { kind, got: resources[kind] },
      hint: 'Correct the limits.',
    });
  }
  return { cpus: counts.cpus, memoryBytes: counts.memoryBytes, diskBytes: counts.diskBytes, processes: counts.processes };
}

function amountsOf(counts: Resources): Resources {
  return { ...counts, cpus: counts.cpus / THOUSAND };
}

function isWithin(wanted: Resources, limit: Resources): boolean {
  return KINDS.every((kind) => wanted[kind] <= limit[kind]);
}
