import { join } from 'node:path';
import type { Hex } from 'viem';
import type { ChainClient, EvidenceClass, Sender } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Artefact } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { FetchContent } from '../part.ts';
import { type Beside, createBeside } from './beside.ts';
import { fetchOutputs, placeOutputs } from './fetch-outputs.ts';
import { fetchProgress, fetchReceipt, type JobCaller, type JobPeer, type JobProgress } from './job-api.ts';
import { PHASE, phaseOf } from './job-chain.ts';
import { costOf } from './job-desk.ts';
import { jobReceiptCodec, makeJobReceipt, OUTCOMES, outputCidOf, type SignedJobReceipt } from './job-receipt.ts';
import { type JobResult, NO_RESULT } from './job-terms.ts';
import { tendOutputDemand } from './output-demand.ts';
import type { RunAttempt, RunJournal, RunJournals } from './run-journal.ts';
import { tendCanary } from './show-canary.ts';

/** Where a job stands, as it is shown. */
export type FollowEvent =
  | { kind: 'handing-over'; jobId: Hex; source: string }
  | { kind: 'progress'; jobId: Hex; phase: number; segments: number; of: number; until: bigint }
  | { kind: 'provider-silent'; jobId: Hex; code: string }
  | { kind: 'outputs'; jobId: Hex; outputCid: string; files: number }
  | { kind: 'outputs-demanded'; jobId: Hex; demandId: bigint }
  | { kind: 'outputs-not-demanded'; jobId: Hex; code: string; message: string };

/** How a job ended, or stands when its outputs were enough. */
export interface JobEnding {
  jobId: Hex;
  /** `exit 0`, `exit 1`, …, or an end without outputs: `trap`, `fuel`, `depth`, `output`, `stopped`, `unfit`. */
  end: string;
  /** Which limit or fault it was, in the provider's words; undefined where there is nothing to say. */
  endReason: string | undefined;
  artefacts: Artefact[];
  outputCid: string;
  /** Where the outputs lie: under their CIDs, or at their paths where a folder was asked for. */
  outputFolder: string;
  /** What may be claimed now. */
  evidence: EvidenceClass;
  isSettled: boolean;
  receipt: SignedJobReceipt | undefined;
  /** What it did cost in all, base units; before the settlement what it costs at most. */
  cost: bigint;
  token: Hex;
}

/** Lends the renter's sender for a moment: a run takes long, and other commands use the same wallet meanwhile. */
export type Sending = <Result>(use: (sender: Sender) => Promise<Result>) => Promise<Result>;

/** An attempt that is on its way. */
export interface FollowOptions {
  caller: JobCaller;
  sending: Sending;
  peer: JobPeer;
  attempt: RunAttempt;
  journal: RunJournal;
  journals: RunJournals;
  /** Where outputs are kept under their CIDs. */
  keptFolder: string;
  outputFolder: string | undefined;
  untilOutput: boolean;
  /** How a module comes that does not lie here, to read outputs out of a demanded state. */
  fetchContent: FetchContent | undefined;
  log: Logger;
  signal: AbortSignal | undefined;
  emit(event: FollowEvent): void;
}

/** A provider settles itself; the renter does it when it has not for so long. */
const SETTLE_PATIENCE_MS = 10_000;
const OUTPUT_PATIENCE_MS = 60_000;
const REASON_LENGTH_MAX = 300;

/**
 * Follows one job from its order to its end. What the provider says is shown; what counts is what the chain says. A job without a result is settled
 * as late, so that its money comes back. No answer of the provider is waited for beyond a moment: who drips is followed as who is silent.
 * @throws job-without-result (values.outcome: not-opened, late, guilty, not-audited): the money is back, another provider may be tried;
 *   output-withheld; the signal's reason
 */
export async function followAttempt(options: FollowOptions): Promise<JobEnding> {
  const over = new AbortController();
  const signal = options.signal === undefined ? over.signal : AbortSignal.any([options.signal, over.signal]);
  const beside = createBeside();
  try {
    return await follow({ ...options, signal }, beside);
  } finally {
    over.abort();
    await beside.ended();
  }
}

async function follow(options: FollowOptions, beside: Beside): Promise<JobEnding> {
  const { client } = options.caller;
  const { jobId, terms } = options.attempt;
  const said = new Set<string>();
  let windowOverMs: number | undefined;
  let settledMs: number | undefined;
  let progress: JobProgress | undefined;
  for (;;) {
    options.signal?.throwIfAborted();
    const [{ phase, until }, now] = [await phaseOf(client, jobId), await client.now()];
    const isFetching = beside.isUnderWay('outputs');
    await beside.go('progress', async () => {
      progress = await askProgress(options);
    });
    options.emit({ kind: 'progress', jobId, phase, segments: progress?.segments ?? 0, of: terms.segments, until });
    if (phase === PHASE.none && (now >= BigInt(terms.openUntil) || progress?.status === 'failed'))
      throw failed(options, 'not-opened', progress);
    if (phase === PHASE.running && now >= until) await settle(options, NO_RESULT);
    if (phase >= PHASE.committed) {
      await beside.go('outputs', () => takeOutputs(options, progress));
      if (options.untilOutput && options.journal.artefacts !== undefined) return await endingOf(options, { isSettled: false });
    }
    if (options.attempt.canary !== undefined) await beside.go('canary', () => showCanary(options, phase));
    if (phase === PHASE.window || (phase === PHASE.settled && options.attempt.demandId !== undefined)) {
      const isConvicted = await demandOutputs(options, { phase, until, now, said });
      if (isConvicted && phase === PHASE.window) await settle(options, await resultOnChain(client, jobId));
    }
    if (phase === PHASE.window && now >= until) {
      windowOverMs ??= systemClock.nowMs();
      if (systemClock.nowMs() - windowOverMs > SETTLE_PATIENCE_MS) await settle(options, await resultOnChain(client, jobId));
    }
    if (phase === PHASE.settled) {
      const outcome = await outcomeOf(client, jobId);
      if (outcome !== 'right' && outcome !== 'canary') throw failed(options, outcome.replace(' ', '-'), progress);
      if (options.journal.artefacts !== undefined) return await endingOf(options, { isSettled: true });
      settledMs ??= systemClock.nowMs();
      // What is still coming may take its time, once.
      if (!isFetching && systemClock.nowMs() - settledMs > OUTPUT_PATIENCE_MS) throw withheld(jobId);
    }
    await systemClock.sleep(client.pollIntervalMs(), options.signal);
  }
}

async function askProgress({ caller, peer, attempt, signal, emit }: FollowOptions): Promise<JobProgress | undefined> {
  try {
    return await fetchProgress(caller, peer, attempt.jobId, signal);
  } catch (error) {
    signal?.throwIfAborted();
    emit({ kind: 'provider-silent', jobId: attempt.jobId, code: toMillraceError(error).code });
    return undefined;
  }
}

/** Fetches and checks outputs once they are to be had; what fails is tried again at the next look. */
async function takeOutputs(options: FollowOptions, progress: JobProgress | undefined): Promise<void> {
  const { journal, attempt, caller, peer, log, signal } = options;
  if (journal.artefacts !== undefined || progress?.end === undefined) return;
  const { jobId } = attempt;
  const { end, artefacts } = progress;
  const folder = outputsFolderOf(options);
  try {
    const { outputDigest } = await resultOnChain(caller.client, jobId);
    await fetchOutputs(caller, peer, { jobId, spec: journal.spec, end, artefacts, outputDigest }, { folder, signal });
    await keepOutputs(options, { artefacts, end, endReason: progress.reason?.slice(0, REASON_LENGTH_MAX) });
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof MillraceError && error.actor !== 'peer') throw error;
    log.warn('outputs-not-fetched', { jobId, reason: toMillraceError(error).message });
  }
}

/** A canary is shown by its provider too; what fails is tried again at the next look. */
async function showCanary(options: FollowOptions, phase: number): Promise<void> {
  const { caller, attempt, signal, log } = options;
  try {
    await tendCanary(options, { phase, result: await resultOnChain(caller.client, attempt.jobId) });
  } catch (error) {
    signal?.throwIfAborted();
    log.warn('canary-not-tended', { jobId: attempt.jobId, reason: toMillraceError(error).message });
  }
}

/** Outputs that were checked: to where the renter wants them, and into the journal. */
async function keepOutputs(options: FollowOptions, got: Pick<RunJournal, 'artefacts' | 'end' | 'endReason'>): Promise<void> {
  const { journal, journals, attempt, outputFolder } = options;
  const { artefacts = [] } = got;
  if (journal.artefacts !== undefined) return;
  if (outputFolder !== undefined) await placeOutputs(artefacts, { from: outputsFolderOf(options), to: outputFolder });
  Object.assign(journal, got);
  journals.save(journal);
  options.emit({ kind: 'outputs', jobId: attempt.jobId, outputCid: outputCidOf(journal.spec, artefacts), files: artefacts.length });
}

function outputsFolderOf({ keptFolder, journal }: FollowOptions): string {
  return join(keptFolder, `${journal.runId}-outputs`);
}

/**
 * Demands on chain what the provider keeps back, and follows the demand to its end.
 * @returns whether the provider was convicted of it
 */
async function demandOutputs(
  options: FollowOptions,
  { said, ...seen }: { phase: number; until: bigint; now: bigint; said: Set<string> },
): Promise<boolean> {
  const { jobId } = options.attempt;
  try {
    const news = await tendOutputDemand({ ...options, outputsFolder: outputsFolderOf(options) }, seen);
    if (news.kind === 'demanded') options.emit({ kind: 'outputs-demanded', jobId, demandId: news.demandId });
    else if (news.kind === 'delivered') await keepOutputs(options, { artefacts: news.artefacts, end: news.end });
    return news.kind === 'convicted';
  } catch (error) {
    options.signal?.throwIfAborted();
    const { code, message } = toMillraceError(error);
    if (said.has(code)) return false;
    said.add(code);
    options.log.warn('outputs-not-demanded', { jobId, code, reason: message });
    options.emit({ kind: 'outputs-not-demanded', jobId, code, message });
    return false;
  }
}

/** Anybody may settle; a job that somebody else has settled meanwhile is settled. */
async function settle({ sending, attempt, caller }: FollowOptions, result: JobResult): Promise<void> {
  const { terms, jobId } = attempt;
  try {
    const args = [[terms], [result]] as const;
    await sending((sender) => sender.send({ contract: 'computeJobs', functionName: 'settle', args, key: `run/settle/${jobId}` }));
  } catch (error) {
    if ((await phaseOf(caller.client, jobId)).phase !== PHASE.settled) throw error;
  }
}

async function endingOf(options: FollowOptions, { isSettled }: { isSettled: boolean }): Promise<JobEnding> {
  const { journal, journals, attempt, caller } = options;
  const { jobId, terms } = attempt;
  const { end, artefacts = [], spec } = journal;
  const receipt = isSettled ? await receiptOf(options) : undefined;
  const cost = isSettled ? await costOnChain(caller.client, attempt) : costOf(caller.client, terms);
  if (isSettled) {
    const text =
      receipt === undefined ? undefined : JSON.stringify(receipt, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
    Object.assign(journal, { receipt: text, cost: cost.toString(), finishedAt: new Date().toISOString() });
    journals.save(journal);
  }
  return {
    jobId,
    end: end ?? '',
    endReason: journal.endReason,
    artefacts,
    outputCid: outputCidOf(spec, artefacts),
    outputFolder: options.outputFolder ?? outputsFolderOf(options),
    evidence: receipt?.receipt.evidence ?? 'reputation only',
    isSettled,
    receipt,
    cost,
    token: terms.token,
  };
}

/** The receipt as the chain and the outputs give it, with the provider's signature where it signs the same. */
async function receiptOf({ caller, peer, attempt, journal, signal, log }: FollowOptions): Promise<SignedJobReceipt> {
  const { jobId, terms } = attempt;
  const { spec, end = '', artefacts = [] } = journal;
  const receipt = await makeJobReceipt(caller.client, { jobId, terms, spec, end, artefacts });
  try {
    const { signature } = await fetchReceipt(caller, peer, jobId, signal);
    if (jobReceiptCodec(caller.client).isSignedBy(receipt.subject.nodeKey, receipt, signature)) return { receipt, signature };
    log.warn('receipt-differs', { jobId });
  } catch (error) {
    signal?.throwIfAborted();
    log.warn('receipt-not-signed', { jobId, reason: toMillraceError(error).message });
  }
  return { receipt, signature: undefined };
}

/** What the job took at its opening, less what came back at its settlement. */
async function costOnChain(client: ChainClient, { jobId, terms }: RunAttempt): Promise<bigint> {
  const [[settled], stable] = await Promise.all([
    client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } }),
    client.events({ name: 'computeJobs', event: 'StableFeeReturned', args: { leaseId: BigInt(jobId) } }),
  ]);
  const returned = stable.reduce((sum, { args }) => sum + args.amount, settled?.args.returned ?? 0n);
  return costOf(client, terms) - returned;
}

async function resultOnChain(client: ChainClient, jobId: Hex): Promise<JobResult> {
  const [committed] = await client.events({ name: 'computeJobs', event: 'ResultCommitted', args: { jobId } });
  return committed === undefined ? NO_RESULT : { ...committed.args.result };
}

async function outcomeOf(client: ChainClient, jobId: Hex): Promise<(typeof OUTCOMES)[number]> {
  const [settled] = await client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } });
  return OUTCOMES[settled?.args.outcome ?? 0] ?? 'none';
}

function failed({ attempt }: FollowOptions, what: string, progress: JobProgress | undefined): MillraceError {
  const { jobId, terms } = attempt;
  const said = progress?.reason === undefined ? '' : `; its provider said: ${progress.reason.slice(0, 300)}`;
  return new MillraceError('job-without-result', {
    actor: 'peer',
    message: `Job ${jobId} of operator ${terms.operatorId} ended without a result that stands (${what})${said}`,
    values: { jobId, operatorId: terms.operatorId, outcome: what },
    hint: 'Its price is back in your account at the rails: `millrace wallet withdraw` takes it out.',
  });
}

function withheld(jobId: Hex): MillraceError {
  return new MillraceError('output-withheld', {
    actor: 'peer',
    message: `Job ${jobId} was settled, but its provider does not hand its outputs out`,
    values: { jobId },
    hint: 'Run the same command again later. Outputs are demanded on chain where a job is audited as wasm-strict or exact-output.',
  });
}
