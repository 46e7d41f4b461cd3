import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Load } from './node-load.ts';
import type { QueuedCommand } from './queue-document.ts';
import type { QueueResults, WorkResult } from './queue-results.ts';
import { type QueueAction, type QueueRules, WorkQueue } from './work-queue.ts';

/** One command on one machine. */
export interface QueueMember {
  work: QueuedCommand;
  attempt: number;
  rank: number;
  /** What it leaves goes here. */
  folder: string;
}

/** A machine on which work runs. */
export interface QueueMachine {
  readonly id: string;
  readonly capacity: Load;
  /** Whether it answers now. */
  isUp(): Promise<boolean>;
  /**
   * Runs a member to its end.
   * @returns its exit code
   * @throws work-refused when it can be run nowhere; sandbox-ended when what it ran in ended under it, and all else there with it; anything else
   * means that the machine is lost
   */
  run(member: QueueMember, signal: AbortSignal): Promise<number>;
}

/** What happens, for whoever watches. */
export interface QueueEvent {
  event: 'machine-joined' | 'machine-lost' | 'work-started' | 'work-moved' | 'work-interrupted' | 'work-ended';
  machine?: string;
  work?: string;
  attempt?: number;
  machines?: readonly string[];
  result?: WorkResult;
}

/** What a queue is run with. */
export interface QueueRunOptions {
  work: readonly QueuedCommand[];
  results: QueueResults;
  /** The machines that there are now; asked again and again: others may join, those that are gone are lost. */
  machines: () => Promise<readonly QueueMachine[]>;
  onEvent?: (event: QueueEvent) => void;
  clock?: Clock;
  /** Between looks at the machines. */
  lookMs?: number;
  /** How long nothing may run while work waits. */
  patienceMs?: number;
  rules?: Partial<QueueRules>;
}

/** Where a queue stands. */
export interface QueueCounts {
  done: number;
  failed: number;
  running: number;
  waiting: number;
}

interface Attempt {
  work: QueuedCommand;
  number: number;
  startedMs: number;
  /** By rank: which machine, and how to stop it there. */
  members: Map<number, { machine: string; stop: AbortController; over: Promise<void> }>;
  exitCodes: Map<number, number>;
  verdict: Pick<WorkResult, 'reason' | 'detail'> | undefined;
  timer: NodeJS.Timeout | undefined;
}

const RULES: QueueRules = { noticeSeconds: 10, refillSeconds: 60, interruptionsMax: 3, patienceSeconds: 3600 };
const LOOK_MS = 2_000;
const SILENT_LOOKS = 3;
const PATIENCE_MS = 600_000;
const ATTEMPTS_MAX = 50;
/** After so many sandboxes that ended under it, work has a machine to itself: what else runs there is not to be lost for it. */
const TOGETHER_MAX = 2;
/** So many that ended under it alone, and it has failed. */
const ALONE_MAX = 3;

/**
 * Runs a queue over machines that come and go. Each piece of work has one result, that of the attempt which ran when it ended: a machine that was
 * lost and comes back with an end has none. Who runs it again with the same results goes on where it broke off.
 */
export class QueueRun {
  readonly #options: QueueRunOptions;
  readonly #clock: Clock;
  readonly #queue: WorkQueue;
  readonly #machines = new Map<string, { machine: QueueMachine; silentLooks: number }>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #results = new Map<string, WorkResult>();
  readonly #stopping = new Set<Promise<unknown>>();
  /** Sandboxes that ended under a piece of work: with others in them, and with it alone. */
  readonly #broken = new Map<string, { together: number; alone: number }>();
  #wake = () => {};
  #busyAtMs: number;

  /** @throws queue-folder-taken */
  constructor(options: QueueRunOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#queue = new WorkQueue({ ...RULES, ...options.rules });
    this.#busyAtMs = this.#clock.nowMs();
    for (const work of options.work) {
      const result = options.results.find(work);
      if (result !== undefined) this.#results.set(work.id, result);
      else this.#queue.submit({ ...queued(work), fits: (machine) => this.#fits(work.id, machine) }, this.#now());
    }
  }

  counts(): QueueCounts {
    const results = [...this.#results.values()];
    const done = results.filter(({ isDone }) => isDone).length;
    const running = this.#attempts.size;
    return { done, failed: results.length - done, running, waiting: this.#options.work.length - results.length - running };
  }

  /**
   * Runs until all work has its result.
   * @returns the results in the order of the work
   * @throws queue-stuck when nothing could run for long, and the signal's reason; what has a result by then keeps it
   */
  async run(signal: AbortSignal): Promise<WorkResult[]> {
    const over = new AbortController();
    const watching = this.#watch(AbortSignal.any([signal, over.signal]));
    try {
      while (this.#results.size < this.#options.work.length) {
        signal.throwIfAborted();
        this.#plan();
        if (this.#attempts.size > 0) this.#busyAtMs = this.#clock.nowMs();
        if (this.#clock.nowMs() - this.#busyAtMs > (this.#options.patienceMs ?? PATIENCE_MS)) throw this.#stuck();
        await this.#nap(signal);
      }
      return this.#options.work.map(({ id }) => this.#results.get(id) as WorkResult);
    } finally {
      over.abort();
      await watching;
      for (const attempt of this.#attempts.values()) this.#halt(attempt);
      await Promise.allSettled(this.#stopping);
      for (const { work, number } of this.#attempts.values()) this.#options.results.drop(work, number);
    }
  }

  /** Where somebody is to have a machine alone, one after another: who fits depends on who runs. */
  #plan(): void {
    const startsMax = [...this.#broken.keys()].some((id) => this.#isSuspect(id)) ? 1 : Number.POSITIVE_INFINITY;
    for (;;) {
      const actions = this.#queue.plan(this.#now(), startsMax);
      for (const action of actions) this.#act(action);
      if (!Number.isFinite(startsMax) || !actions.some(({ kind }) => kind === 'start')) return;
    }
  }

  /** Machines that answer join; those that are silent for some looks, or are no longer named, are lost. */
  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const named = await this.#options.machines().catch(() => undefined);
      const ids = new Set(named?.map(({ id }) => id));
      if (named !== undefined) for (const id of [...this.#machines.keys()].filter((each) => !ids.has(each))) this.#lose(id);
      const asked = [...(named ?? []), ...(named === undefined ? [...this.#machines.values()].map(({ machine }) => machine) : [])];
      await Promise.all(asked.map((machine) => this.#look(machine)));
      this.#wake();
      await this.#clock.sleep(this.#options.lookMs ?? LOOK_MS, signal).catch(() => undefined);
    }
  }

  async #look(machine: QueueMachine): Promise<void> {
    const isUp = await machine.isUp().catch(() => false);
    const known = this.#machines.get(machine.id);
    if (known === undefined) {
      if (!isUp) return;
      this.#machines.set(machine.id, { machine, silentLooks: 0 });
      this.#queue.addNode(machine.id, machine.capacity);
      return this.#say({ event: 'machine-joined', machine: machine.id });
    }
    known.silentLooks = isUp ? 0 : known.silentLooks + 1;
    if (known.silentLooks >= SILENT_LOOKS) this.#lose(machine.id);
  }

  #lose(id: string): void {
    if (!this.#machines.delete(id)) return;
    this.#queue.loseNode(id, this.#now());
    for (const attempt of [...this.#attempts.values()]) {
      for (const [rank, member] of attempt.members) {
        if (member.machine !== id) continue;
        attempt.members.delete(rank);
        attempt.exitCodes.delete(rank);
        this.#stop(member);
      }
      if (attempt.members.size === 0) this.#forget(attempt);
    }
    this.#say({ event: 'machine-lost', machine: id });
    this.#wake();
  }

  /** Who is suspected of ending sandboxes is alone in one. */
  #fits(workId: string, machine: string): boolean {
    const others = this.#workOn(machine).filter(({ work }) => work.id !== workId);
    return this.#isSuspect(workId) ? others.length === 0 : !others.some(({ work }) => this.#isSuspect(work.id));
  }

  #isSuspect(workId: string): boolean {
    return (this.#broken.get(workId)?.together ?? 0) >= TOGETHER_MAX;
  }

  #workOn(machine: string): Attempt[] {
    return [...this.#attempts.values()].filter(({ members }) => [...members.values()].some((member) => member.machine === machine));
  }

  #blame(machine: string): void {
    const attempts = this.#workOn(machine);
    for (const attempt of attempts) {
      const { id } = attempt.work;
      const counted = this.#broken.get(id) ?? { together: 0, alone: 0 };
      if (attempts.length === 1) [counted.together, counted.alone] = [TOGETHER_MAX, counted.alone + 1];
      else counted.together += 1;
      this.#broken.set(id, counted);
      if (counted.alone < ALONE_MAX) continue;
      attempt.verdict = {
        reason: 'attempts',
        detail: `its sandbox ended ${ALONE_MAX} times with nothing else in it: for want of memory, more likely than not`,
      };
      this.#settle(attempt);
    }
  }

  #act({ kind, workId, attempt: number, nodes }: QueueAction): void {
    if (kind === 'start') return this.#begin(workId, number, nodes);
    const attempt = this.#attempts.get(workId);
    if (attempt === undefined) return;
    if (kind === 'refill') {
      const ranks = Array.from({ length: attempt.work.machines }, (_, rank) => rank).filter((rank) => !attempt.members.has(rank));
      for (const [index, node] of nodes.entries()) this.#startMember(attempt, ranks[index] as number, node);
      this.#limit(attempt);
      this.#say({ event: 'work-moved', work: workId, attempt: number, machines: nodes });
      return this.#settle(attempt);
    }
    const members = [...attempt.members.values()];
    this.#forget(attempt);
    for (const member of members) this.#stop(member);
    const stopped = Promise.allSettled(members.map(({ over }) => over)).then(() => {
      this.#queue.stopped(workId, number);
      this.#wake();
    });
    this.#stopping.add(stopped);
    this.#say({ event: 'work-interrupted', work: workId, attempt: number });
  }

  #begin(workId: string, number: number, nodes: readonly string[]): void {
    const work = this.#options.work.find(({ id }) => id === workId) as QueuedCommand;
    const attempt: Attempt = {
      ...{ work, number, startedMs: this.#clock.nowMs(), members: new Map(), exitCodes: new Map() },
      ...{ verdict: undefined, timer: undefined },
    };
    this.#attempts.set(workId, attempt);
    if (number > ATTEMPTS_MAX) {
      attempt.verdict = { reason: 'attempts', detail: `it was begun ${ATTEMPTS_MAX} times, and its machines were lost each time` };
      return this.#settle(attempt);
    }
    for (const [rank, node] of nodes.entries()) this.#startMember(attempt, rank, node);
    this.#limit(attempt);
    this.#say({ event: 'work-started', work: workId, attempt: number, machines: nodes });
  }

  #startMember(attempt: Attempt, rank: number, machineId: string): void {
    const { machine } = this.#machines.get(machineId) as { machine: QueueMachine };
    const stop = new AbortController();
    const folder = this.#options.results.begin(attempt.work, attempt.number, rank);
    const isCurrent = () => attempt.members.get(rank)?.stop === stop && this.#attempts.get(attempt.work.id) === attempt;
    const over = machine.run({ work: attempt.work, attempt: attempt.number, rank, folder }, stop.signal).then(
      (exitCode) => {
        if (!isCurrent()) return;
        attempt.exitCodes.set(rank, exitCode);
        this.#settle(attempt);
      },
      (error: unknown) => {
        if (!isCurrent() || stop.signal.aborted) return;
        const { code, message } = toMillraceError(error);
        if (code === 'sandbox-ended') this.#blame(machineId);
        if (code !== 'work-refused') return this.#lose(machineId);
        attempt.verdict = { reason: 'refused', detail: message.slice(0, 300) };
        this.#settle(attempt);
      },
    );
    attempt.members.set(rank, { machine: machineId, stop, over });
  }

  /** Its time begins, anew where a member does. */
  #limit(attempt: Attempt): void {
    clearTimeout(attempt.timer);
    attempt.timer = setTimeout(() => {
      attempt.verdict ??= { reason: 'time', detail: `it ran for ${attempt.work.wallSeconds} s` };
      this.#settle(attempt);
    }, attempt.work.wallSeconds * 1000);
  }

  /** Gives an attempt its result as soon as it has one and the queue takes it: one that waits for a machine has none yet. */
  #settle(attempt: Attempt): void {
    const { work, number, exitCodes, verdict } = attempt;
    const failed = [...exitCodes.values()].find((code) => code !== 0);
    const isOver = verdict !== undefined || failed !== undefined || exitCodes.size === work.machines;
    if (!isOver || this.#attempts.get(work.id) !== attempt || !this.#queue.finish(work.id, number)) return;
    const isDone = verdict === undefined && failed === undefined;
    const result: WorkResult = {
      id: work.id,
      digest: work.digest,
      isDone,
      ...(isDone ? {} : (verdict ?? { reason: 'exit' })),
      exitCodes: [...exitCodes].sort(([one], [other]) => one - other).map(([, code]) => code),
      attempt: number,
      machines: [...attempt.members].sort(([one], [other]) => one - other).map(([, { machine }]) => machine),
      seconds: Math.round((this.#clock.nowMs() - attempt.startedMs) / 100) / 10,
    };
    this.#queue.forget(work.id);
    this.#halt(attempt);
    this.#attempts.delete(work.id);
    this.#broken.delete(work.id);
    this.#options.results.keep(work, result);
    this.#results.set(work.id, result);
    this.#say({ event: 'work-ended', work: work.id, attempt: number, result });
    this.#wake();
  }

  #halt(attempt: Attempt): void {
    clearTimeout(attempt.timer);
    for (const member of attempt.members.values()) this.#stop(member);
  }

  #stop({ stop, over }: { stop: AbortController; over: Promise<void> }): void {
    stop.abort();
    this.#stopping.add(over);
    void over.then(() => this.#stopping.delete(over));
  }

  #forget(attempt: Attempt): void {
    clearTimeout(attempt.timer);
    this.#attempts.delete(attempt.work.id);
    this.#options.results.drop(attempt.work, attempt.number);
  }

  #say(event: QueueEvent): void {
    this.#options.onEvent?.(event);
  }

  #now(): number {
    return this.#clock.nowMs() / 1000;
  }

  async #nap(signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await this.#clock.sleep(1_000, AbortSignal.any([signal, woken.signal])).catch(() => undefined);
  }

  #stuck(): MillraceError {
    const { waiting } = this.counts();
    const machines = [...this.#machines.values()].map(({ machine }) => machine);
    const most = Math.max(0, ...machines.map(({ capacity }) => capacity.milliCpus));
    return new MillraceError('queue-stuck', {
      actor: 'caller',
      message: `${waiting} pieces of work wait, and nothing could run for long: ${machines.length} machines answer, the largest with ${most / 1000} cores to give`,
      values: { waiting, machines: machines.length, milliCpusMost: most },
      hint: 'Rent more or larger machines (millrace rent, millrace offers), or ask for less; the same command goes on.',
    });
  }
}

function queued({ id, load, machines, wallSeconds, isInterruptible }: QueuedCommand) {
  return { id, load, count: machines, wallSeconds, isInterruptible };
}
