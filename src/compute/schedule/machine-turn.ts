import type { Resources } from '../capacity.ts';
import { findPlaces, type Load, type Reservation, reserveFor, type Task, type WorkNode } from './node-load.ts';

/** Work of a machine: what it takes, and for how long at most. */
export interface MachineWork<T> {
  work: T;
  resources: Resources;
  /** Seconds from its start. */
  wallSeconds: number;
}

/** What a machine has and does. Times in seconds of one clock. */
export interface MachineState {
  total: Resources;
  /** What nobody holds. */
  free: Resources;
  /** Work that ends by itself; what else is held (rentals, audits) may be held for ever. */
  running: readonly { resources: Resources; endsBy: number }[];
}

const MACHINE = 'machine';

/**
 * Which of the work that waits, in its order, has its turn now on one machine: the first that has no room gets the earliest time at which it
 * will have, and what comes after it may pass only where that time stays (EASY backfilling, decision 0033). Where nobody can say when it will
 * have room, nothing passes.
 */
export function workWithTurn<T>(waiting: readonly MachineWork<T>[], machine: MachineState, now: number): T[] {
  const node = nodeOf(machine);
  const started: T[] = [];
  let reservation: Reservation | undefined;
  for (const { work, resources, wallSeconds } of waiting) {
    const members = { load: loadOf(resources), count: 1, wallSeconds, fits: () => true, now };
    if (findPlaces([node], { ...members, reservation }) !== undefined) {
      node.tasks.add({ load: members.load, nodes: new Set([MACHINE]), endsBy: now + wallSeconds });
      started.push(work);
    } else {
      reservation ??= reserveFor([node], members);
      if (reservation === undefined) break;
    }
  }
  return started;
}

function nodeOf({ total, free, running }: MachineState): WorkNode {
  const capacity = loadOf(total);
  const tasks = running.map(({ resources, endsBy }): Task => ({ load: loadOf(resources), nodes: new Set([MACHINE]), endsBy }));
  const left = loadOf(free);
  const rest = { ...capacity };
  for (const kind of Object.keys(rest) as (keyof Load)[]) {
    rest[kind] -= left[kind] + tasks.reduce((sum, { load }) => sum + load[kind], 0);
  }
  return { id: MACHINE, capacity, tasks: new Set([...tasks, { load: rest, nodes: new Set([MACHINE]), endsBy: Number.POSITIVE_INFINITY }]) };
}

function loadOf({ cpus, memoryBytes, diskBytes }: Resources): Load {
  return { milliCpus: Math.ceil(cpus * 1000), memoryBytes, diskBytes, gpus: 0 };
}
