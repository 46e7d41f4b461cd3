import { type Hex, keccak256 } from 'viem';
import { type ChainClient, fixSeed, type Sender } from '../../chain/index.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { openCanary } from '../audit/canary.ts';
import { proveLeaf } from '../verify/commitment.ts';
import type { JobRecord, JobRecords, JobStatus } from './job-records.ts';
import { commitmentOf } from './job-states.ts';
import { type JobResult, type JobTerms, NO_RESULT } from './job-terms.ts';

/** What a provider's duties on chain stand on. */
export interface JobChainOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  records: JobRecords;
  /** Whether all contents of a job are here, and it can be done in time: only then is it opened. */
  mayOpen(jobId: Hex): boolean;
  log: Logger;
}

/** Phases of a job as the contract counts them (`IComputeJobs.Phase`). */
export const PHASE = { none: 0, running: 1, committed: 2, sealing: 3, revealing: 4, window: 5, settled: 6 } as const;

/** Jobs in one transaction: opening one costs most, and a transaction has 16.7 M gas. */
const BATCH_MAX = 32;
/** What a transaction of one kind is refused with when the job is lost for good. A renter without its money has taken it back: its order holds no room. */
const LOST: readonly string[] = [
  'terms-expired',
  'too-late',
  'bad-signature',
  'bad-terms',
  'too-few-for-class',
  'on-probation',
  'insufficient-balance',
  'insufficient-allowance',
];

type Work = 'open' | 'commit' | 'settle';

/**
 * Brings a provider's jobs to the chain and to their end: opens, commits, draws, settles, many in one transaction. Looks at the chain first, and sends
 * under keys that name the jobs, so that nothing is done twice, whenever it is killed.
 */
export async function tendJobsOnChain(options: JobChainOptions): Promise<void> {
  const { client, records } = options;
  const live = records.all().filter(({ status }) => !(['settled', 'open', 'running'] as JobStatus[]).includes(status));
  if (live.length === 0) return;
  const now = await client.now();
  const seen = await Promise.all(live.map(async (record) => ({ record, ...(await phaseOf(client, record.jobId)) })));
  for (const { record, phase, until } of seen) learn(options, record, { phase, until, now });
  const due = (is: (one: (typeof seen)[number]) => boolean) => seen.filter(is).map(({ record }) => record);
  await inBatches(
    options,
    'open',
    due(({ record, phase }) => record.status === 'agreed' && phase === PHASE.none && options.mayOpen(record.jobId)),
  );
  await inBatches(
    options,
    'commit',
    due(({ record, phase }) => record.status === 'done' && phase === PHASE.running),
  );
  for (const record of due(({ phase }) => phase === PHASE.committed)) await drawAuditors(options, record);
  for (const record of due(({ record, phase }) => phase === PHASE.window && record.canary !== undefined)) await showCanary(options, record);
  await inBatches(
    options,
    'settle',
    due(({ phase, until }) => (phase === PHASE.window || phase === PHASE.running) && until <= now),
  );
}

/** The phase of a job by now, and when it ends (protocol time). */
export async function phaseOf(client: ChainClient, jobId: Hex): Promise<{ phase: number; until: bigint }> {
  const [phase, until] = await client.read('computeJobs', 'phaseOf', [jobId]);
  return { phase, until: BigInt(until) };
}

/** What the chain knows that the record does not: a transaction of ours, or of somebody else, that was included. */
function learn({ records, log }: JobChainOptions, record: JobRecord, seen: { phase: number; until: bigint; now: bigint }): void {
  const { phase, until, now } = seen;
  const become = (status: JobStatus, more: Partial<JobRecord> = {}) => {
    Object.assign(record, { status, ...more });
    records.save(record);
    log.info('job-status', { jobId: record.jobId, status });
  };
  // What was given up while its opening was on the way is due all the same.
  const isNew = record.status === 'agreed' || (record.status === 'failed' && record.dueAt === undefined);
  if (isNew && phase === PHASE.running) become('open', { dueAt: Number(until) });
  else if (record.status === 'agreed' && phase === PHASE.none && now >= BigInt(record.terms.openUntil)) {
    become('failed', { reason: record.reason ?? 'its signatures were over before all its contents were here and it was on the chain' });
  } else if (record.status === 'done' && phase > PHASE.running && phase < PHASE.settled) become('committed');
  else if (phase === PHASE.settled || (record.status === 'failed' && phase === PHASE.none && now >= BigInt(record.terms.openUntil))) {
    become('settled');
  }
}

/** Does one kind of work for many jobs at once; where the batch is refused, for each alone, so that a bad one spoils no other. */
async function inBatches(options: JobChainOptions, work: Work, all: JobRecord[]): Promise<void> {
  for (let at = 0; at < all.length; at += BATCH_MAX) {
    const batch = all.slice(at, at + BATCH_MAX);
    try {
      await send(options, work, batch);
    } catch (error) {
      if (batch.length === 1) giveUp(options, work, batch[0] as JobRecord, toMillraceError(error));
      else
        for (const record of batch) await send(options, work, [record]).catch((one) => giveUp(options, work, record, toMillraceError(one)));
    }
  }
}

async function send({ sender, client, records }: JobChainOptions, work: Work, batch: JobRecord[]): Promise<void> {
  const terms = batch.map((record) => record.terms);
  const key = `jobs/${work}/${keccak256(batch.map(({ jobId }) => jobId.slice(2)).reduce((all, id) => `${all}${id}`, '0x') as Hex)}`;
  const contract = 'computeJobs' as const;
  if (work === 'open') {
    await sender.send({ contract, functionName: 'openJobs', args: [terms, batch.map(({ signatures }) => signatures)], key });
    for (const record of batch) {
      const { until } = await phaseOf(client, record.jobId);
      Object.assign(record, { status: 'open', dueAt: Number(until) });
    }
  } else if (work === 'commit') {
    await sender.send({ contract, functionName: 'commitResults', args: [terms, batch.map(resultOf)], key });
    for (const record of batch) record.status = 'committed';
  } else {
    const receipt = await sender.send({ contract, functionName: 'settle', args: [terms, batch.map(resultOf)], key });
    for (const record of batch) record.status = 'settled';
    for (const event of receipt.events) {
      if (event.module !== contract || event.name !== 'JobSettled') continue;
      const record = batch.find(({ jobId }) => jobId === event.args.jobId);
      if (record !== undefined) Object.assign(record, { outcome: event.args.outcome, paid: event.args.paid.toString() });
    }
  }
  for (const record of batch) records.save(record);
}

/** What a job's transactions carry as its result. */
export function resultOf({ result }: Pick<JobRecord, 'result'>): JobResult {
  return result ?? NO_RESULT;
}

/** A job that the contract will never take is over; all else is tried again at the next look. */
function giveUp({ records, log }: JobChainOptions, work: Work, record: JobRecord, error: MillraceError): void {
  const { code, message } = error;
  log.warn('job-transaction-failed', { jobId: record.jobId, work, code, reason: message });
  if (work === 'settle' || !LOST.includes(code)) return;
  Object.assign(record, { status: 'failed', reason: `${code}: ${message}`.slice(0, 500) });
  records.save(record);
}

/** Anybody may draw a job's auditors; its provider does, because it waits for its money. */
async function drawAuditors({ client, sender, log }: JobChainOptions, record: JobRecord): Promise<void> {
  try {
    const time = await client.read('computeJobs', 'seedTimeOf', [record.jobId]);
    if (!(await fixSeed(client, { sender, time }))) return;
    await sender.send({ contract: 'computeJobs', functionName: 'drawAuditors', args: [[record.terms]] });
  } catch (error) {
    const { code, message } = toMillraceError(error);
    log.debug('auditors-not-drawn', { jobId: record.jobId, code, reason: message });
  }
}

/** There is little time for it, and without it the canary is a forgery: before anything else that waits. */
async function showCanary(
  { client, sender, records, log }: JobChainOptions,
  { jobId, terms, canary, ...record }: JobRecord,
): Promise<void> {
  const { canary: isShown } = await client.read('computeJobs', 'job', [jobId]);
  const commitment = commitmentOf(records, jobId);
  if (isShown || canary === undefined || commitment === undefined) return;
  try {
    await openCanary(sender, {
      terms,
      result: resultOf(record),
      leaf: proveLeaf(commitment, canary.leaf),
      canary,
      key: `jobs/canary/${jobId}`,
    });
    log.info('canary-shown', { jobId, leaf: canary.leaf });
  } catch (error) {
    const { code, message } = toMillraceError(error);
    log.warn('canary-not-shown', { jobId, code, reason: message });
  }
}

/** The terms of a job as `JobOpened` has them for everybody. @throws job-unknown */
export async function termsOnChain(client: ChainClient, jobId: Hex): Promise<JobTerms | undefined> {
  const [opened] = await client.events({ name: 'computeJobs', event: 'JobOpened', args: { jobId } });
  return opened === undefined ? undefined : { ...opened.args.terms };
}
