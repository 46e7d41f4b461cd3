/** What work takes of a node, and what a node has. */
export interface Load {
  milliCpus: number;
  memoryBytes: number;
  diskBytes: number;
  gpus: number;
}

/** Something that takes the same of each of its nodes until a time at the latest. */
export interface Task {
  load: Load;
  nodes: Set<string>;
  /** Seconds; it has ended by then. */
  endsBy: number;
}

/** A node and what is on it. */
export interface WorkNode {
  id: string;
  capacity: Load;
  tasks: Set<Task>;
}

/** Members that want a node each. */
export interface Members {
  load: Load;
  count: number;
  wallSeconds: number;
  fits: (nodeId: string) => boolean;
}

/** Nodes that are kept for the work that has waited longest, from a time on. */
export interface Reservation {
  from: number;
  nodes: ReadonlySet<string>;
  load: Load;
}

const KINDS = ['milliCpus', 'memoryBytes', 'diskBytes', 'gpus'] as const;

/**
 * Nodes for all of the members now, the fullest first so that large work finds whole ones; undefined when there are not enough. What would still
 * run when a reservation begins must leave room for that.
 */
export function findPlaces(
  nodes: readonly WorkNode[],
  wanted: Members & { now: number; reservation?: Reservation | undefined; besides?: ReadonlySet<string> },
): string[] | undefined {
  const { load, count, fits, now, besides, reservation } = wanted;
  const endsBy = now + wanted.wallSeconds;
  const free = nodes
    .filter((node) => besides?.has(node.id) !== true && fits(node.id))
    .map((node) => ({ node, room: roomOf(node, () => true) }))
    .filter(({ node, room }) => isWithin(load, room) && !isInTheWay(node, { load, endsBy, now, reservation }));
  if (free.length < count) return undefined;
  free.sort(
    (one, other) =>
      one.room.milliCpus - other.room.milliCpus || one.room.memoryBytes - other.room.memoryBytes || order(one.node, other.node),
  );
  return free.slice(0, count).map(({ node }) => node.id);
}

/**
 * The earliest time at which enough nodes have room for all of the members, and which these are; undefined when they never have.
 * @param wanted.endOf when a task has ended, where that is not the time it says
 */
export function reserveFor(
  nodes: readonly WorkNode[],
  wanted: Members & { now: number; endOf?: (task: Task) => number },
): Reservation | undefined {
  const { load, count, fits, now, endOf = (task) => task.endsBy } = wanted;
  const times = nodes
    .filter((node) => fits(node.id))
    .map((node) => ({ node, from: roomFrom(node, { load, now, endOf }) }))
    .filter(({ from }) => from < Number.POSITIVE_INFINITY)
    .sort((one, other) => one.from - other.from || order(one.node, other.node));
  const last = times[count - 1];
  if (last === undefined) return undefined;
  return { from: last.from, nodes: new Set(times.slice(0, count).map(({ node }) => node.id)), load };
}

/** What is left of a node beside the tasks that count. */
export function roomOf(node: WorkNode, counts: (task: Task) => boolean): Load {
  const room = { ...node.capacity };
  for (const task of node.tasks) if (counts(task)) for (const kind of KINDS) room[kind] -= task.load[kind];
  return room;
}

function roomFrom(node: WorkNode, wanted: { load: Load; now: number; endOf: (task: Task) => number }): number {
  const { load, now, endOf } = wanted;
  if (!isWithin(load, node.capacity)) return Number.POSITIVE_INFINITY;
  const ends = [now, ...[...node.tasks].map((task) => Math.max(now, endOf(task)))].sort((one, other) => one - other);
  const isFree = (time: number) =>
    isWithin(
      load,
      roomOf(node, (task) => Math.max(now, endOf(task)) > time),
    );
  // With none of its tasks there is room, so one of the ends is it. A task that is overdue still takes its room.
  if (
    isWithin(
      load,
      roomOf(node, () => true),
    )
  )
    return now;
  return ends.find(isFree) ?? Number.POSITIVE_INFINITY;
}

function isInTheWay(node: WorkNode, wanted: { load: Load; endsBy: number; now: number; reservation: Reservation | undefined }): boolean {
  const { load, endsBy, now, reservation } = wanted;
  if (reservation === undefined || !reservation.nodes.has(node.id) || endsBy <= reservation.from) return false;
  const left = roomOf(node, (task) => Math.max(now, task.endsBy) > reservation.from);
  for (const kind of KINDS) left[kind] -= reservation.load[kind];
  return !isWithin(load, left);
}

/** Whether there is room for it, of every kind. */
export function isWithin(load: Load, room: Load): boolean {
  return KINDS.every((kind) => load[kind] <= room[kind]);
}

function order(one: WorkNode, other: WorkNode): number {
  return one.id < other.id ? -1 : 1;
}
