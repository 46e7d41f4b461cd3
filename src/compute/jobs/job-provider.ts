import { join } from 'node:path';
import type { Hex } from 'viem';
import { createReplayGuard } from '../../connect/index.ts';
import type { Executor } from '../../host/index.ts';
import { openCaseAgent } from '../audit/case-agent.ts';
import { openDeliverer } from '../audit/deliverer.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import type { DeterminismClass, JobSpec, ProgramKind } from '../spec/job-spec.ts';
import { startTending, type Tending } from '../tending.ts';
import { enginesForStrangers, executorFor, openStrictEngine, strictEngineOf } from '../verify/engines.ts';
import { readState } from '../verify/run-segments.ts';
import { isUnfit } from '../verify/work.ts';
import { tendJobsOnChain } from './job-chain.ts';
import { createTurns } from './job-desk.ts';
import { createJobGathering } from './job-gathering.ts';
import { JOB_ENGINE_NAMES, type JobOffer, type SignedOffer, signOffer } from './job-offer.ts';
import { JOB_STATUSES, type JobRecord, type JobRecords, openJobRecords } from './job-records.ts';
import { createJobRoom } from './job-room.ts';
import { answerJobs } from './job-routes.ts';
import { createJobRuns, type JobRuns } from './job-runs.ts';
import { commitmentOf } from './job-states.ts';
import { jobDomainOf } from './job-terms.ts';
import { boxKeyOf } from './sealed-box.ts';

/** What a provider of jobs asks for and takes; the rest follows from its machine. */
export interface JobPolicy extends Pick<JobOffer, 'prices' | 'collateral' | 'wallSecondsMax' | 'spareSeconds'> {
  /** Whether software of this machine may be run for strangers (`command` jobs): only where all renters are known. */
  takesCommands: boolean;
  /** Whether it makes canaries with renters that ask for it: only where this node is always awake to show them in time. */
  takesCanaries: boolean;
  /** Jobs that may wait or run at one time. */
  jobsMax: number;
  /** How long a settled job's outputs are kept, seconds of chain time. */
  keepSeconds: number;
}

/** What the part that runs jobs is started with. */
export interface JobProviderOptions extends ComputeContext {
  policy: JobPolicy;
  /** Milliseconds between looks at the chain (default 500). */
  pollMs?: number;
}

/** The part, and what a role makes of its parts. */
export interface JobProvider extends ComputePart {
  /** Its jobs, newest last. */
  jobs(): readonly JobRecord[];
}

const POLL_MS = 500;
const OFFER_SECONDS = 600;
/** An offer is signed anew when less than this is left of it. */
const OFFER_RENEW_SECONDS = 300;
/** Of what is spare, the part that is kept to commit a result in; the rest is there to wait for room. */
const COMMIT_PARTS = 2;

/**
 * Starts the provider's side of jobs: offers, takes signed terms, fetches or is handed contents, runs, commits, serves states and outputs to who may
 * have them, settles. What was taken on is on disk; after a kill it goes on.
 * @throws job-record-broken, unknown-module
 */
export async function startJobProvider(options: JobProviderOptions): Promise<JobProvider> {
  const { client, signer, operatorId, log, policy } = options;
  const records = openJobRecords(join(options.folder, 'jobs'));
  const [key, strict] = await Promise.all([boxKeyOf(signer), openStrictEngine(log, 'strict jobs are not on offer')]);
  const executors = await enginesForStrangers(options.executors, log);
  let isDraining = false;
  let tending: Tending | undefined;
  const nudge = () => tending?.nudge();
  const checkProgram = async (spec: JobSpec, path: string) => await checkImageOf(executors, spec, path);
  const gathering = createJobGathering({ ...options, records, checkProgram, onChange: nudge });
  const commitSeconds = Math.ceil(policy.spareSeconds / COMMIT_PARTS);
  const runs = createJobRuns({ ...options, records, executors, strict, commitSeconds, onChange: nudge });
  const room = createJobRoom({ records, runs, isReady: gathering.isReady, commitSeconds });
  const capable = whatRuns(policy, { executors: executors.map(({ engine }) => engine), isStrict: strict !== undefined });
  // What devices are promised when this part starts, jobs do not get.
  const { cpus, memoryBytes, diskBytes } = options.capacity.free();
  const offerUntil = (expiry: number): JobOffer => {
    const { prices, collateral, wallSecondsMax, spareSeconds } = policy;
    return {
      operatorId,
      boxKey: key.publicKey,
      prices,
      collateral,
      wallSecondsMax,
      spareSeconds,
      ...capable,
      cpus,
      memoryBytes,
      diskBytes,
      expiry,
    };
  };
  let signed: SignedOffer | undefined;
  const signedOffer = async () => {
    const now = Number(await client.now());
    if (signed === undefined || signed.offer.expiry - now < OFFER_RENEW_SECONDS) {
      signed = await signOffer(jobDomainOf(client), signer, offerUntil(now + OFFER_SECONDS));
    }
    return signed;
  };
  const requireEngine = (spec: JobSpec) =>
    void (spec.determinism === 'wasm-strict' ? strictEngineOf({ strict }, spec) : executorFor({ executors }, spec));
  const { takesCanaries } = policy;
  const desk = {
    takesCanaries,
    requireEngine,
    client,
    signer,
    operatorId,
    records,
    jobsMax: policy.jobsMax,
    room,
    inTurn: createTurns(),
    offer: () => offerUntil(0),
  };
  const isTaking = () => !isDraining && capable.programs.length > 0;
  const routes = { client, desk, runs, key, guard: createReplayGuard(), signedOffer, isTaking, nudge };
  const cases = openCaseAgent({ ...options, commitmentOf: (jobId) => commitmentOf(records, jobId) });
  const stateOf = (jobId: Hex, leaf: number) => readState(records.spec(jobId), records.folders(jobId).run, leaf);
  const deliverer = openDeliverer({ ...options, commitmentOf: (jobId) => commitmentOf(records, jobId), stateOf });
  const look = async () => {
    gathering.look();
    const openable = room.openable(Number(await client.now()));
    await tendJobsOnChain({ ...options, records, mayOpen: (jobId) => openable.has(jobId) });
    await cases.tend();
    await deliverer.tend();
    const now = Number(await client.now());
    runs.look(now);
    forgetOld(records, { now, keepSeconds: policy.keepSeconds });
  };
  tending = startTending(look, { pollMs: options.pollMs ?? POLL_MS, log, failed: 'jobs-not-tended' });
  log.info('job-provider-started', { operatorId, jobs: records.all().length, programs: capable.programs.join(',') });
  return {
    jobs: () => records.all(),
    fetch: (request) => answerJobs(routes, request),
    metrics: () => metricsOf(records, runs, executors),
    status: async () => ({ accepting: isTaking(), running: runs.running(), jobs: countsOf(records), ...capable }),
    drain() {
      isDraining = true;
    },
    resume() {
      isDraining = false;
    },
    async leave() {
      isDraining = true;
      return { unfinished: records.all().filter(({ status }) => status !== 'settled').length };
    },
    async stop() {
      isDraining = true;
      await Promise.all([tending?.stop(), runs.stop(), gathering.stop()]);
    },
  };
}

function whatRuns(
  { takesCommands }: JobPolicy,
  { executors, isStrict }: { executors: readonly string[]; isStrict: boolean },
): Pick<JobOffer, 'programs' | 'classes' | 'engine'> {
  const engine = JOB_ENGINE_NAMES.find((name) => executors.some((each) => each === name)) ?? 'none';
  const programs: ProgramKind[] = [];
  if (isStrict || executors.includes('wasm')) programs.push('module');
  if (engine !== 'none') programs.push('image');
  if (takesCommands && executors.includes('bubblewrap')) programs.push('command');
  const classes: DeterminismClass[] = executors.length > 0 ? ['exact-output', 'fingerprint', 'none'] : [];
  return { programs, classes: isStrict ? ['wasm-strict', ...classes] : classes, engine };
}

/** What settled jobs left goes after a time; the receipt's hash stays on chain. */
function forgetOld(records: JobRecords, { now, keepSeconds }: { now: number; keepSeconds: number }): void {
  for (const record of records.all()) {
    if (record.status === 'settled' && now > record.terms.openUntil + record.terms.runSeconds + keepSeconds) records.remove(record.jobId);
  }
}

function countsOf(records: JobRecords): Record<string, number> {
  const counts = Object.fromEntries(JOB_STATUSES.map((status) => [status, 0]));
  for (const { status } of records.all()) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** A program that is none at all is a result, and paid; one that is too large for this machine is not run here. @throws image-over-bound */
async function checkImageOf(executors: readonly Executor[], spec: JobSpec, path: string): Promise<void> {
  if (spec.determinism === 'wasm-strict') return;
  await executorFor({ executors }, spec)
    .checkImage?.(path)
    .catch((error) => {
      if (!isUnfit(error)) throw error;
    });
}

async function metricsOf(records: JobRecords, runs: JobRuns, executors: readonly Executor[]): Promise<string> {
  const counts = Object.entries(countsOf(records)).map(([status, count]) => `millrace_compute_jobs_count{status="${status}"} ${count}\n`);
  const images = await Promise.all(
    executors.map(async (executor) => {
      const held = await executor.temporaryImages?.();
      return held === undefined ? '' : `millrace_compute_temporary_images_bytes{engine="${executor.engine}"} ${held.bytes}\n`;
    }),
  );
  return `${counts.join('')}millrace_compute_jobs_running_count ${runs.running()}\n${images.join('')}`;
}
