import type { Resources } from '../capacity.ts';
import { type MachineState, workWithTurn } from '../schedule/machine-turn.ts';

/** Work of a machine that must have ended by a time. */
export interface DueWork {
  resources: Resources;
  /** Seconds from its start, at most. */
  wallSeconds: number;
  /** Seconds of the clock of the plan. */
  dueAt: number;
}

type Kind = keyof Resources;

const KINDS: readonly Kind[] = ['cpus', 'memoryBytes', 'diskBytes', 'processes'];
const THOUSAND = 1000;

/**
 * When each piece of work ends at the latest, if all are started in their order, none passing another, each as soon as there is room beside all that is
 * held. Infinity where nobody can say when there will be. Work that ends earlier than it may makes nothing else end later: what ran beside it then
 * still runs beside it or is over (a property test); schedules in which work passes other work have not this law.
 */
export function endsInOrder(work: readonly DueWork[], { free, running }: MachineState, now: number): number[] {
  const held = running.map(({ resources, endsBy }) => ({ counts: countsOf(resources), endsBy: Math.max(endsBy, now) }));
  const room = countsOf(free);
  let from = now;
  return work.map(({ resources, wallSeconds }) => {
    const wanted = countsOf(resources);
    while (from < Number.POSITIVE_INFINITY && !KINDS.every((kind) => wanted[kind] <= room[kind])) {
      held.sort((one, other) => one.endsBy - other.endsBy);
      const next = held.shift();
      from = next === undefined ? Number.POSITIVE_INFINITY : Math.max(from, next.endsBy);
      if (next !== undefined) for (const kind of KINDS) room[kind] += next.counts[kind];
    }
    if (from === Number.POSITIVE_INFINITY) return from;
    for (const kind of KINDS) room[kind] -= wanted[kind];
    held.push({ counts: wanted, endsBy: from + wallSeconds });
    return from + wallSeconds;
  });
}

/**
 * Whether a machine that starts work in the order in which it is due can take more: it would be done in time, and nothing that would have been in time
 * without it is late.
 */
export function hasTimeFor(
  more: DueWork,
  { work, machine, now }: { work: readonly DueWork[]; machine: MachineState; now: number },
): boolean {
  const before = lateOf(work, machine, now);
  const after = lateOf([...work, more], machine, now);
  return [...after].every((one) => before.has(one));
}

/** What would be late of work that is started in the order in which it is due. */
export function lateOf(work: readonly DueWork[], machine: MachineState, now: number): Set<DueWork> {
  const ordered = inOrder(work);
  const ends = endsInOrder(ordered, machine, now);
  return new Set(ordered.filter(({ dueAt }, index) => (ends[index] as number) > dueAt));
}

/** The order in which work is started: what is due first comes first. */
export function inOrder<Work extends DueWork>(work: readonly Work[]): Work[] {
  return [...work].sort((one, other) => one.dueAt - other.dueAt);
}

/** What begins now of work that waits in its order: all that has its turn, but of what passes other work only what makes none of that late. */
export function withTurn<Work extends DueWork>(waiting: readonly Work[], machine: MachineState, now: number): Work[] {
  const turns = new Set(
    workWithTurn(
      waiting.map((work) => ({ ...work, work })),
      machine,
      now,
    ),
  );
  const left = [...waiting];
  let [state, isPassing] = [machine, false];
  return waiting.filter((work) => {
    const rest = left.filter((one) => one !== work);
    const after = turns.has(work) ? startedOn(state, work, now) : undefined;
    const isLater = isPassing && after !== undefined && lateOf(rest, after, now).size > lateOf(left, state, now).size;
    if (after === undefined || isLater) {
      isPassing = true;
      return false;
    }
    left.splice(left.indexOf(work), 1);
    state = after;
    return true;
  });
}

/** A machine on which a piece of work begins. */
function startedOn({ total, free, running }: MachineState, { resources, wallSeconds }: DueWork, now: number): MachineState {
  const left = { ...free };
  for (const kind of Object.keys(left) as (keyof Resources)[]) left[kind] -= resources[kind];
  return { total, free: left, running: [...running, { resources, endsBy: now + wallSeconds }] };
}

/** Processors in thousandths, so that sums are exact. */
function countsOf(resources: Resources): Resources {
  return { ...resources, cpus: Math.ceil(Number((resources.cpus * THOUSAND).toFixed(6))) };
}
