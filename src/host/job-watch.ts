import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Collected } from './artefacts.ts';
import type { CgroupUsage } from './cgroup.ts';
import type { JobLimits, JobReason, JobResult, RunOptions } from './executor.ts';

/** The parts of a running job that are watched. */
export interface WatchedJob {
  stdout: Readable;
  stderr: Readable;
  /** Ends all its processes; called once, when a limit is hit or the caller gives up. */
  kill: () => void;
  isOutOfMemory?: () => boolean;
  isDiskFull?: () => boolean;
}

/** How its processes ended, as the engine saw it. */
export interface JobEnd {
  /** As a shell has it: 128 + n for signal n. */
  code: number;
  usage: CgroupUsage | undefined;
  isDiskFull: boolean;
  /** Takes its artefacts; not asked of a job that a limit ended. */
  collect: () => Promise<Collected>;
}

const POLL_MS = 200;
const TAIL_BYTES = 2_000;
const SIGNALS = 64;
const NOTHING: Collected = { artefacts: [], refused: undefined };
/** Which of several limits that were hit gives its name to the result; the rest stand in the detail. */
const PRECEDENCE: JobReason[] = ['cancelled', 'output-exceeded', 'memory-exceeded', 'processes-exceeded', 'disk-exceeded', 'wall-exceeded'];

/** Holds one job to its time and its output, and says in the end which limit ended it. */
export class JobWatch {
  readonly #limits: JobLimits;
  readonly #options: RunOptions;
  readonly #stop: AbortSignal;
  readonly #startMs = performance.now();
  readonly #hit = new Set<JobReason>();
  #tail: Buffer = Buffer.alloc(0);
  #outputBytes = 0;
  #kill: (() => void) | undefined;
  #timers: NodeJS.Timeout[] = [];
  #drained: Promise<unknown> = Promise.resolve();

  constructor(limits: JobLimits, options: RunOptions, stop: AbortSignal) {
    this.#limits = limits;
    this.#options = options;
    this.#stop = stop;
  }

  attend(job: WatchedJob): void {
    this.#kill = job.kill;
    const cancel = () => this.hit('cancelled');
    for (const signal of [this.#options.signal, this.#stop]) {
      if (signal?.aborted) cancel();
      signal?.addEventListener('abort', cancel, { once: true });
    }
    this.#drained = Promise.allSettled([this.#listen('stdout', job.stdout), this.#listen('stderr', job.stderr)]);
    this.#timers = [
      setTimeout(() => this.hit('wall-exceeded'), this.#limits.wallSeconds * 1000),
      setInterval(() => {
        if (job.isOutOfMemory?.()) this.hit('memory-exceeded');
        if (job.isDiskFull?.()) this.hit('disk-exceeded');
      }, POLL_MS),
    ];
  }

  /** Notes that a limit was hit, and ends the job. */
  hit(reason: JobReason): void {
    if (this.#hit.has(reason)) return;
    this.#hit.add(reason);
    this.#kill?.();
  }

  /** The end of what it printed, for errors. */
  tail(): string {
    return this.#tail.toString('utf8').trim();
  }

  end(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** The result, when all of its output has been read. */
  async conclude(end: JobEnd): Promise<JobResult> {
    const wallMs = performance.now() - this.#startMs;
    this.end();
    await this.#drained;
    const { code, usage, isDiskFull } = end;
    const hit = new Set(this.#hit);
    if (code !== 0 && (usage?.memoryKills ?? 0) > 0) hit.add('memory-exceeded');
    if (code !== 0 && (usage?.processesRefused ?? 0) > 0) hit.add('processes-exceeded');
    if (code !== 0 && isDiskFull) hit.add('disk-exceeded');
    const collected = hit.size === 0 ? await end.collect() : NOTHING;
    if (code === 0 && collected.refused !== undefined) hit.add('artefacts-refused');
    const signal = code > 128 && code <= 128 + SIGNALS ? code - 128 : undefined;
    const own: JobReason = code === 0 ? 'completed' : signal === undefined ? 'failed' : 'signalled';
    const reason = PRECEDENCE.find((each) => hit.has(each)) ?? [...hit][0] ?? own;
    const others = [...hit].filter((each) => each !== reason).map((each) => `also ${each}`);
    const details = [...others, ...(collected.refused === undefined ? [] : [collected.refused])];
    return {
      reason,
      exitCode: signal === undefined ? code : undefined,
      signal,
      usage: {
        wallMs,
        cpuMs: usage?.cpuMs,
        memoryBytesPeak: usage?.memoryBytesPeak,
        processesRefused: usage?.processesRefused,
        outputBytes: this.#outputBytes,
      },
      artefacts: collected.artefacts,
      detail: details.length === 0 ? undefined : details.join('; '),
    };
  }

  async #listen(stream: 'stdout' | 'stderr', source: Readable): Promise<void> {
    source.on('data', (bytes: Buffer) => {
      const piece = bytes.subarray(0, this.#limits.outputBytes - this.#outputBytes);
      this.#outputBytes += piece.length;
      if (piece.length > 0) {
        this.#tail = Buffer.concat([this.#tail, piece]).subarray(-TAIL_BYTES);
        this.#options.onLog?.({ stream, bytes: piece });
      }
      if (piece.length < bytes.length) this.hit('output-exceeded');
    });
    await finished(source, { writable: false });
  }
}
