import { MillraceError } from '../../errors.ts';
import { findPlaces, isWithin, type Load, type Reservation, reserveFor, roomOf, type Task, type WorkNode } from './node-load.ts';

/** A piece of work that waits for devices: one member on each of `count` nodes, all at once. */
export interface QueuedWork {
  id: string;
  /** What each member takes of its node. */
  load: Load;
  count: number;
  /** The longest that it runs; its engine ends it then. */
  wallSeconds: number;
  /** Whether it comes after work that is not, and may be stopped for it; it goes on later, from its own checkpoint. */
  isInterruptible: boolean;
  /** Which nodes would do, beside having room; left out: all. */
  fits?: (nodeId: string) => boolean;
}

/**
 * What is to be done now. `start`: begin an attempt on all of its nodes. `refill`: a gang that runs has lost a node, put its member on another.
 * `interrupt`: stop it within the notice, then say `stopped`. `suspend`: as `interrupt`, without notice: a gang that found no replacement.
 */
export interface QueueAction {
  kind: 'start' | 'refill' | 'interrupt' | 'suspend';
  workId: string;
  attempt: number;
  /** Of `refill` the new ones only. */
  nodes: readonly string[];
}

/** Where a piece of work stands. */
export type WorkState = 'waiting' | 'running' | 'refilling' | 'stopping' | 'done';

/** The rules of a queue. */
export interface QueueRules {
  /** From `interrupt` until the work must have stopped. */
  noticeSeconds: number;
  /** How long a gang may hold its other nodes while it waits for a replacement. */
  refillSeconds: number;
  /** After so many interruptions work runs to its end. */
  interruptionsMax: number;
  /** At this age interruptible work is like any other, waiting or running. */
  patienceSeconds: number;
}

interface Entry extends Task {
  work: QueuedWork;
  /** Place in the queue, kept over every restart: this is what nothing can be starved past. */
  arrival: number;
  submittedAt: number;
  state: WorkState;
  attempt: number;
  interruptions: number;
  refillBy: number;
}

/**
 * A queue of work on nodes: a machine's own, or a builder's on the devices that it rents. A pure state machine: whoever holds it tells it what
 * happened and does what {@link plan} says. Its laws, each a property test: the members on a node never take more than it has; work runs with
 * all of its members or not at all; of every attempt at most one end counts; the first in line that the nodes could hold is never overtaken
 * beyond the time at which they are free for it (EASY backfilling: D. Lifka, The ANL/IBM SP scheduling system, 1995).
 */
export class WorkQueue {
  readonly #nodes = new Map<string, WorkNode>();
  readonly #entries = new Map<string, Entry>();
  readonly #rules: QueueRules;
  #arrivals = 0;

  constructor(rules: QueueRules) {
    this.#rules = rules;
  }

  /** A node joins, or is back, empty. @throws bad-queue-call when it is here already */
  addNode(nodeId: string, capacity: Load): void {
    if (this.#nodes.has(nodeId)) throw misused('node', nodeId, 'is here already');
    this.#nodes.set(nodeId, { id: nodeId, capacity, tasks: new Set() });
  }

  /** A node is gone, with all that ran on it. */
  loseNode(nodeId: string, now: number): void {
    const node = this.#nodes.get(nodeId);
    this.#nodes.delete(nodeId);
    for (const task of node?.tasks ?? []) this.#loseMember(task as Entry, nodeId, now);
  }

  /** New work. @throws bad-queue-call when its number is taken or it asks for nothing */
  submit(work: QueuedWork, now: number): void {
    const isRight = Number.isSafeInteger(work.count) && work.count >= 1 && work.wallSeconds > 0;
    if (!isRight || this.#entries.has(work.id)) throw misused('work', work.id, 'is there already, or asks for nothing');
    this.#entries.set(work.id, {
      work,
      load: work.load,
      nodes: new Set(),
      arrival: this.#arrivals,
      submittedAt: now,
      state: 'waiting',
      attempt: 0,
      interruptions: 0,
      endsBy: 0,
      refillBy: 0,
    });
    this.#arrivals += 1;
  }

  /**
   * An attempt has ended with its result.
   * @returns whether that counts: once for each piece of work, and only of the attempt that runs; a node that was given up and comes back with
   * a result is not paid beside the one that took over
   */
  finish(workId: string, attempt: number): boolean {
    const entry = this.#entries.get(workId);
    if (entry === undefined || entry.attempt !== attempt || (entry.state !== 'running' && entry.state !== 'stopping')) return false;
    this.#release(entry);
    entry.state = 'done';
    return true;
  }

  /** An attempt that was to stop has stopped: its nodes are free, and it waits at its old place. */
  stopped(workId: string, attempt: number): void {
    const entry = this.#entries.get(workId);
    if (entry?.attempt !== attempt || entry.state !== 'stopping') return;
    this.#release(entry);
    entry.state = 'waiting';
  }

  /** Forgets work that is done. @throws bad-queue-call when it is not */
  forget(workId: string): void {
    if (this.#entries.get(workId)?.state !== 'done') throw misused('work', workId, 'is not done');
    this.#entries.delete(workId);
  }

  /** Where a piece of work stands, with the nodes that it holds. @throws bad-queue-call */
  stateOf(workId: string): { state: WorkState; attempt: number; nodes: string[] } {
    const entry = this.#entries.get(workId);
    if (entry === undefined) throw misused('work', workId, 'was never submitted');
    return { state: entry.state, attempt: entry.attempt, nodes: [...entry.nodes] };
  }

  /**
   * What is to be done now; the queue takes it as done.
   * @param startsMax so many starts at most, for whoever's `fits` depends on what runs; ask again then
   */
  plan(now: number, startsMax = Number.POSITIVE_INFINITY): QueueAction[] {
    const turnOf = (entry: Entry) => (this.#isPressing(entry, now) ? 0 : 1);
    const entries = [...this.#entries.values()].sort((one, other) => turnOf(one) - turnOf(other) || one.arrival - other.arrival);
    const actions = entries.filter(({ state }) => state === 'refilling').flatMap((entry) => this.#refill(entry, now));
    let reservation: Reservation | undefined;
    let starts = 0;
    for (const entry of entries.filter(({ state }) => state === 'waiting')) {
      if (starts >= startsMax) break;
      const nodes = findPlaces([...this.#nodes.values()], { ...membersOf(entry), now, reservation });
      if (nodes !== undefined) {
        actions.push(this.#start(entry, nodes, now));
        starts += 1;
      } else reservation ??= this.#reserve(entry, now, actions);
    }
    return actions;
  }

  /** The first that waits gets the earliest time at which enough nodes are free together; those that may be interrupted give way to it. */
  #reserve(entry: Entry, now: number, actions: QueueAction[]): Reservation | undefined {
    const nodes = [...this.#nodes.values()];
    const reservation = reserveFor(nodes, { ...membersOf(entry), now });
    if (reservation === undefined || !this.#isPressing(entry, now)) return reservation;
    const soonest = now + this.#rules.noticeSeconds;
    if (reservation.from <= soonest) return reservation;
    const givesWay = (task: Task) => this.#givesWay(task as Entry, now);
    const cleared = reserveFor(nodes, {
      ...membersOf(entry),
      now,
      endOf: (task) => (givesWay(task) ? Math.min(soonest, task.endsBy) : task.endsBy),
    });
    if (cleared === undefined || cleared.from > soonest) return reservation;
    const victims = new Set(
      nodes.filter(({ id }) => cleared.nodes.has(id)).flatMap((node) => this.#victimsOn(node, { entry, now, soonest })),
    );
    for (const victim of victims) actions.push(this.#interrupt(victim, soonest));
    return cleared;
  }

  /** The youngest that give way, as many as it takes. */
  #victimsOn(node: WorkNode, given: { entry: Entry; now: number; soonest: number }): Entry[] {
    const { entry, now, soonest } = given;
    const victims = new Set<Task>();
    const candidates = [...node.tasks].filter((task) => this.#givesWay(task as Entry, now) && task.endsBy > soonest) as Entry[];
    candidates.sort((one, other) => other.arrival - one.arrival);
    const lacks = () =>
      !isWithin(
        entry.load,
        roomOf(node, (task) => task.endsBy > soonest && !victims.has(task)),
      );
    while (lacks() && candidates.length > 0) victims.add(candidates.shift() as Entry);
    return [...victims] as Entry[];
  }

  #givesWay(entry: Entry, now: number): boolean {
    return entry.state === 'running' && entry.interruptions < this.#rules.interruptionsMax && !this.#isPressing(entry, now);
  }

  #isPressing({ work, submittedAt }: Entry, now: number): boolean {
    return !work.isInterruptible || now >= submittedAt + this.#rules.patienceSeconds;
  }

  #start(entry: Entry, nodes: readonly string[], now: number): QueueAction {
    entry.state = 'running';
    entry.attempt += 1;
    entry.endsBy = now + entry.work.wallSeconds;
    this.#hold(entry, nodes);
    return { kind: 'start', workId: entry.work.id, attempt: entry.attempt, nodes };
  }

  #refill(entry: Entry, now: number): QueueAction[] {
    const { work } = entry;
    const count = work.count - entry.nodes.size;
    const nodes = findPlaces([...this.#nodes.values()], { ...membersOf(entry), count, now, besides: entry.nodes });
    if (nodes === undefined && now < entry.refillBy) return [];
    if (nodes === undefined) {
      const kept = [...entry.nodes];
      entry.state = 'stopping';
      return [{ kind: 'suspend', workId: work.id, attempt: entry.attempt, nodes: kept }];
    }
    entry.state = 'running';
    // It goes on from its last checkpoint, which may be its beginning.
    entry.endsBy = now + work.wallSeconds;
    this.#hold(entry, nodes);
    return [{ kind: 'refill', workId: work.id, attempt: entry.attempt, nodes }];
  }

  #interrupt(entry: Entry, by: number): QueueAction {
    entry.state = 'stopping';
    entry.interruptions += 1;
    entry.endsBy = Math.min(entry.endsBy, by);
    return { kind: 'interrupt', workId: entry.work.id, attempt: entry.attempt, nodes: [...entry.nodes] };
  }

  #loseMember(entry: Entry, nodeId: string, now: number): void {
    entry.nodes.delete(nodeId);
    if (entry.nodes.size > 0) {
      if (entry.state === 'running') [entry.state, entry.refillBy] = ['refilling', now + this.#rules.refillSeconds];
      return;
    }
    entry.state = 'waiting';
  }

  #hold(entry: Entry, nodes: readonly string[]): void {
    for (const id of nodes) {
      entry.nodes.add(id);
      this.#nodes.get(id)?.tasks.add(entry);
    }
  }

  #release(entry: Entry): void {
    for (const id of entry.nodes) this.#nodes.get(id)?.tasks.delete(entry);
    entry.nodes.clear();
  }
}

function membersOf({ work }: Entry) {
  return { load: work.load, count: work.count, wallSeconds: work.wallSeconds, fits: work.fits ?? (() => true) };
}

function misused(what: string, id: string, reason: string): MillraceError {
  return new MillraceError('bad-queue-call', {
    actor: 'bug',
    message: `The queue was told of ${what} ${id}, which ${reason}`,
    values: { what, id, reason },
    hint: 'This is a defect in Millrace. Please report it with the log of the node.',
  });
}
