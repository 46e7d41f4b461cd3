import { appendFileSync, mkdirSync, rmSync } from 'node:fs';
import type { Hex } from 'viem';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type Executor, holdImage, type Job, type RunOptions, type StrictEngine } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import { type Canary, canaryCommitment } from '../audit/canary.ts';
import type { Capacity, Resources } from '../capacity.ts';
import type { FetchContent } from '../part.ts';
import type { MachineState } from '../schedule/machine-turn.ts';
import { type JobSpec, specHash } from '../spec/job-spec.ts';
import type { Commitment } from '../verify/commitment.ts';
import { executorFor, type JobEngines } from '../verify/engines.ts';
import { runSegments } from '../verify/run-segments.ts';
import { workSeconds } from '../verify/work.ts';
import { missingContents, prepareContents } from './job-contents.ts';
import type { JobFolders, JobRecord, JobRecords } from './job-records.ts';
import { keepStateHashes } from './job-states.ts';
import { type DueWork, inOrder, withTurn } from './machine-plan.ts';

/** What runs jobs. */
export interface JobRunsOptions {
  records: JobRecords;
  capacity: Capacity;
  executors: readonly Executor[];
  /** Undefined where this machine does not calculate as all do. */
  strict: StrictEngine | undefined;
  fetchContent: FetchContent;
  /** What is kept to commit a result in, seconds. */
  commitSeconds: number;
  log: Logger;
  /** Called when a job's status has changed. */
  onChange(): void;
}

/** The runs of a provider. */
export interface JobRuns {
  /** Starts what can be started, oldest first; ends what is too late at protocol time `now`, seconds. */
  look(now: number): void;
  /** Segments that a running job has kept. */
  segmentsOf(jobId: Hex): number | undefined;
  running(): number;
  /** What the machine has and does now. */
  machine(): MachineState;
  /** Jobs that are on chain and do not run yet, in the order in which they are due, less the time to commit. */
  waiting(): (DueWork & { record: JobRecord })[];
  /** Ends all runs where they are; they go on at the next start. */
  stop(): Promise<void>;
}

/** A strict module's memory is held twice: as it is, and as it was at the last state. */
const STRICT_MEMORY_TIMES = 2;
const RETRY_MS = [1_000, 5_000, 15_000];

interface JobRun {
  promise: Promise<void>;
  ending: AbortController;
  segments: number;
  dueAt: number;
  resources: Resources;
  /** Protocol time at which its time limit ends it, about. */
  endsBy: number;
}

/**
 * Runs jobs as far as there is room, in the order in which they are due; a later one passes only where it does not delay the first one that waits, and
 * makes none late that would be in time without it (the plan by which jobs are taken, job-room.ts). A run that was ended by a kill goes on at its last state, or begins again where it has none.
 */
export function createJobRuns(options: JobRunsOptions): JobRuns {
  const { records, capacity, log } = options;
  const underWay = new Map<Hex, JobRun>();
  const notBefore = new Map<Hex, { atMs: number; attempts: number }>();
  const stopping = new AbortController();

  const start = (record: JobRecord, now: number) => {
    const spec = records.spec(record.jobId);
    const resources = resourcesOf(spec);
    const reservation = capacity.reserve(`job ${record.jobId}`, resources);
    if (reservation === undefined) return; // no processes are left, which alone are not planned
    const ending = new AbortController();
    const dueAt = record.dueAt ?? Number.POSITIVE_INFINITY;
    const run: JobRun = { ending, segments: 0, dueAt, resources, endsBy: now + workSeconds(spec), promise: Promise.resolve() };
    underWay.set(record.jobId, run);
    run.promise = runJob(options, { record, spec, signal: AbortSignal.any([stopping.signal, ending.signal]), progress: run })
      .catch((error) => pause(record, error))
      .finally(() => {
        underWay.delete(record.jobId);
        reservation.release();
        options.onChange();
      });
  };
  const pause = (record: JobRecord, error: unknown) => {
    if (stopping.signal.aborted) return;
    const attempts = (notBefore.get(record.jobId)?.attempts ?? 0) + 1;
    const waitMs = RETRY_MS[Math.min(attempts, RETRY_MS.length) - 1] as number;
    notBefore.set(record.jobId, { atMs: performance.now() + waitMs, attempts });
    const { code, message } = toMillraceError(error);
    record.reason = `${code}: ${message}`.slice(0, 500);
    records.save(record);
    log.warn('job-run-failed', { jobId: record.jobId, code, reason: message, attempts });
  };
  const machine = () => ({ total: capacity.total, free: capacity.free(), running: [...underWay.values()] });
  const waiting = () => {
    const idle = records.all().filter(({ jobId, status }) => (status === 'open' || status === 'running') && !underWay.has(jobId));
    return inOrder(
      idle.map((record) => {
        const spec = records.spec(record.jobId);
        const dueAt = (record.dueAt ?? Number.POSITIVE_INFINITY) - options.commitSeconds;
        return { record, resources: resourcesOf(spec), wallSeconds: workSeconds(spec), dueAt };
      }),
    );
  };
  return {
    machine,
    waiting,
    look(now) {
      for (const [, { dueAt, ending }] of underWay) if (now >= dueAt) ending.abort(tooLate(dueAt));
      for (const { record } of waiting()) if (now >= (record.dueAt ?? now + 1)) fail(options, record, tooLate(record.dueAt as number));
      const ready = waiting()
        .filter(({ record: { jobId, handed } }) => missingContents(handed, records.folders(jobId)).length === 0)
        .filter(({ record: { jobId } }) => performance.now() >= (notBefore.get(jobId)?.atMs ?? 0));
      for (const { record } of withTurn(ready, machine(), now)) start(record, now);
    },
    segmentsOf: (jobId) => underWay.get(jobId)?.segments,
    running: () => underWay.size,
    async stop() {
      stopping.abort(new MillraceError('node-stopping', { actor: 'host', message: 'The node stops' }));
      await Promise.allSettled([...underWay.values()].map(({ promise }) => promise));
    },
  };
}

/** What a job takes of the machine. */
export function resourcesOf({ limits, determinism }: JobSpec): Resources {
  return {
    cpus: determinism === 'wasm-strict' ? Math.max(1, limits.milliCpus / 1000) : limits.milliCpus / 1000,
    memoryBytes: limits.memoryBytes * (determinism === 'wasm-strict' ? STRICT_MEMORY_TIMES : 1),
    diskBytes: limits.diskBytes,
    processes: limits.processes,
  };
}

async function runJob(
  options: JobRunsOptions,
  run: { record: JobRecord; spec: JobSpec; signal: AbortSignal; progress: { segments: number } },
): Promise<void> {
  const { records, log } = options;
  const { record, spec, signal, progress } = run;
  const folders = records.folders(record.jobId);
  if (record.status !== 'running') {
    record.status = 'running';
    records.save(record);
  }
  log.info('job-started', { jobId: record.jobId, program: spec.program.kind, determinism: spec.determinism });
  try {
    const ready = await prepareContents({ spec, handed: record.handed, folders }, { fetchContent: options.fetchContent, signal });
    for (const folder of [folders.run, folders.artefacts]) mkdirSync(folder, { recursive: true, mode: 0o700 });
    const done = await runSegments({ spec, ...ready }, enginesFor(options, spec, folders), {
      folder: folders.run,
      artefactFolder: folders.artefacts,
      signal,
      onState: (index) => {
        progress.segments = index;
      },
    });
    const { outputDigest, end, artefacts, reason } = done;
    const commitment = record.canary === undefined ? done.commitment : withCanary(spec, done.commitment, record.canary);
    keepStateHashes(folders, commitment);
    Object.assign(record, { status: 'done', result: { root: commitment.root, outputDigest }, end, artefacts, reason });
    records.save(record);
    log.info('job-done', { jobId: record.jobId, end, segments: spec.segments });
  } catch (error) {
    // The work itself is at fault, or it is too late: running it once more changes nothing.
    if (error instanceof MillraceError && error.actor === 'caller') return fail(options, record, error);
    throw error;
  }
}

function withCanary(spec: JobSpec, { leaves }: Commitment, canary: Canary): Commitment {
  return canaryCommitment(
    specHash(spec),
    leaves.map(({ stateHash }) => stateHash),
    canary,
  );
}

function fail({ records, log, onChange }: JobRunsOptions, record: JobRecord, error: MillraceError): void {
  record.status = 'failed';
  record.reason = `${error.code}: ${error.message}`.slice(0, 500);
  records.save(record);
  log.warn('job-failed', { jobId: record.jobId, code: error.code, reason: error.message });
  onChange();
}

/** The engines for a job; what it prints is kept beside its outputs. */
function enginesFor({ executors, strict }: JobRunsOptions, spec: JobSpec, folders: JobFolders): JobEngines {
  if (spec.determinism === 'wasm-strict') return { executors, strict };
  const executor = executorFor({ executors }, spec);
  rmSync(folders.log, { force: true });
  let written = 0;
  const keep = (bytes: Uint8Array) => {
    if (written < spec.limits.outputBytes) appendFileSync(folders.log, bytes, { mode: 0o600 });
    written += bytes.length;
  };
  const logged: Executor = {
    engine: executor.engine,
    inspect: () => executor.inspect(),
    importImage: (path) => executor.importImage(path),
    holdImage: (path) => holdImage(executor, path),
    run: (job: Job, given?: RunOptions) => executor.run(job, { ...given, onLog: ({ bytes }) => keep(bytes) }),
    close: async () => {},
  };
  return { executors: [logged], strict };
}

function tooLate(dueAt: number): MillraceError {
  return new MillraceError('job-too-late', {
    actor: 'caller',
    message: `Its result was due at ${dueAt}`,
    values: { dueAt },
    hint: 'Its renter gets the money back; it may run elsewhere.',
  });
}
