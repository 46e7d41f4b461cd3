import { randomBytes } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type FolderLock, lockFolder } from '../../lock.ts';
import { type Logger, silentLogger } from '../../log.ts';
import type { Canary } from '../audit/canary.ts';
import type { FetchContent } from '../part.ts';
import { encodeJobSpec, type JobSpec, specHash } from '../spec/job-spec.ts';
import type { DeviceNeeds } from '../spec/needs.ts';
import { chooseProvider, jobPeerOf, surveyProviders } from './choose-provider.ts';
import { type FollowEvent, followAttempt, type JobEnding, type Sending } from './follow-job.ts';
import { fetchProgress, type JobCaller, type JobPeer, sendContent, sendOrder } from './job-api.ts';
import { PHASE, phaseOf } from './job-chain.ts';
import { costOf, orderToJson } from './job-desk.ts';
import type { PriceToken } from './job-offer.ts';
import { jobDomainOf, jobIdOf, requireTermsSignature, termsToJson } from './job-terms.ts';
import { openRunJournals, type RunAttempt, type RunJournal, type RunJournals } from './run-journal.ts';
import { composeTerms, fundJob, unfundJob } from './run-terms.ts';
import { boxKeyOf } from './sealed-box.ts';

/** What happens during a run, for progress and logs. */
export type RunEvent =
  | { kind: 'resumed'; runId: string; jobId?: string }
  | { kind: 'surveyed'; providers: number }
  | { kind: 'chosen'; operatorId: bigint; price: bigint; auditFee: bigint; jobId: string }
  | { kind: 'provider-failed'; operatorId: bigint; code: string; message: string }
  | FollowEvent;

/** A run as it is asked for. */
export interface RunJobOptions {
  client: ChainClient;
  signer: Signer;
  sending: Sending;
  /** The renter's own data folder: journals and outputs are kept in `jobs` below it. */
  folder: string;
  name: string;
  spec: JobSpec;
  needs: DeviceNeeds;
  token: PriceToken;
  /** The most for the run, base units, without audits and fees. */
  priceMax?: bigint;
  lowerable: boolean;
  auditors: number;
  samples: number;
  /** Contents of the specification that lie on this machine; all others are in the network. */
  files: Record<string, string>;
  /** Where the outputs go; undefined: they stay in the data folder. */
  outputFolder?: string;
  /** Ends with the outputs instead of the settlement: what was not audited yet is `reputation only`. */
  untilOutput?: boolean;
  /** Makes the job a canary for its auditors. */
  canary?: Canary;
  /** The most that it may cost in all, audits and fees too, base units. */
  costMax?: bigint;
  /** How a module comes that does not lie here, to read withheld outputs out of a demanded state. */
  fetchContent?: FetchContent;
  /** Providers tried one after another. */
  attemptsMax?: number;
  onEvent?: (event: RunEvent) => void;
  log?: Logger;
  signal?: AbortSignal;
}

/** What came of a run. */
export interface RunResult extends JobEnding {
  runId: string;
  operatorId: bigint;
  attempts: number;
}

const ATTEMPTS_MAX = 4;
const TURN_POLL_MS = 200;

interface Run {
  options: RunJobOptions;
  journals: RunJournals;
  journal: RunJournal;
  caller: JobCaller;
  emit(event: RunEvent): void;
}

/**
 * Has a job run: chooses a provider, agrees, pays ahead into the contract, hands contents over sealed, follows, fetches and checks the outputs, waits
 * for audits and settlement. What is done is in a journal, so the same call after an interruption goes on where it was; a provider that fails is
 * replaced, after the contract has given the money back.
 * @throws no-job-provider, no-funds, job-too-dear, job-not-done, and the signal's reason
 */
export async function runJob(options: RunJobOptions): Promise<RunResult> {
  const journals = openRunJournals(join(options.folder, 'jobs'));
  const emit = options.onEvent ?? (() => {});
  const known = unfinishedRun(journals, { account: options.signer.address, spec: options.spec });
  const journal = known ?? newJournal(options);
  if (known === undefined) journals.save(journal);
  else emit({ kind: 'resumed', runId: known.runId, jobId: liveAttempt(known)?.jobId });
  const caller = { client: options.client, signer: options.signer, key: await boxKeyOf(options.signer) };
  const run: Run = { options, journals, journal, caller, emit };
  for (let tried = 0; tried < (options.attemptsMax ?? ATTEMPTS_MAX); tried += 1) {
    const turn = await takeTurn(options);
    let attempt: RunAttempt;
    let peer: JobPeer;
    try {
      attempt = liveAttempt(journal) ?? (await beginAttempt(run));
      peer = await jobPeerOf(options.client, attempt.terms.operatorId);
      await placeOrder(run, attempt, peer);
    } finally {
      turn.release();
    }
    if (attempt.failure !== undefined) continue;
    try {
      const ending = await followAttempt({ ...run, attempt, peer, log: options.log ?? silentLogger, ...followOptions(options) });
      return { ...ending, runId: journal.runId, operatorId: attempt.terms.operatorId, attempts: journal.attempts.length };
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof MillraceError) || error.actor !== 'peer' || error.code === 'output-withheld') throw error;
      await endAttempt(run, attempt, error);
    }
  }
  throw notDone(journal);
}

function followOptions({ sending, outputFolder, untilOutput, fetchContent, signal, folder }: RunJobOptions) {
  return { sending, outputFolder, untilOutput: untilOutput === true, fetchContent, signal, keptFolder: join(folder, 'jobs') };
}

/** A run of the same work by the same account that was not finished: the one with which {@link runJob} would go on. */
export function unfinishedRun(journals: RunJournals, { account, spec }: { account: string; spec: JobSpec }): RunJournal | undefined {
  const hash = specHash(spec);
  return journals.all().findLast((one) => one.finishedAt === undefined && one.account === account && specHash(one.spec) === hash);
}

function newJournal({ name, signer, spec, files, outputFolder }: RunJobOptions): RunJournal {
  return {
    runId: randomBytes(10).toString('hex'),
    name,
    account: signer.address,
    spec,
    files,
    attempts: [],
    startedAt: new Date().toISOString(),
    ...(outputFolder === undefined ? {} : { outputFolder }),
  };
}

function liveAttempt(journal: RunJournal): RunAttempt | undefined {
  return journal.attempts.findLast(({ failure }) => failure === undefined);
}

/** Chooses a provider and signs; nothing is sent before the journal has it. */
async function beginAttempt(run: Run): Promise<RunAttempt> {
  const { options, journal, journals, emit } = run;
  const { client, signer, spec, token } = options;
  const candidates = await surveyProviders(client, { log: options.log ?? silentLogger, signal: options.signal });
  emit({ kind: 'surveyed', providers: candidates.length });
  const { candidate, price } = chooseProvider(candidates, {
    spec,
    needs: options.needs,
    token,
    priceMax: options.priceMax,
    now: Number(await client.now()),
    excluded: new Set(journal.attempts.map(({ terms }) => terms.operatorId)),
  });
  const { lowerable, auditors, samples, canary } = options;
  const terms = await composeTerms(client, {
    spec,
    offer: candidate.offer,
    renter: signer.address,
    token,
    price,
    lowerable,
    auditors,
    samples,
    canarySalt: canary?.salt,
    handedBytes: Object.values(journal.files).reduce((sum, path) => sum + statSync(path).size, 0),
  });
  const cost = costOf(client, terms);
  if (cost > (options.costMax ?? cost)) throw tooDear(cost, options.costMax as bigint);
  await options.sending((sender) => fundJob(client, sender, terms));
  const jobId = jobIdOf(jobDomainOf(client), terms);
  const signature = await signer.signDigest(jobId);
  const attempt: RunAttempt = { jobId, terms, signature, boxKey: candidate.offer.boxKey, ...(canary === undefined ? {} : { canary }) };
  journal.attempts.push(attempt);
  journals.save(journal);
  emit({ kind: 'chosen', operatorId: terms.operatorId, price, auditFee: terms.auditFee, jobId });
  return attempt;
}

/**
 * One order at a time from one account, until it is on chain: what the contract is allowed to take is one job's. Others wait.
 * @throws the signal's reason
 */
async function takeTurn({ folder, signal }: RunJobOptions): Promise<FolderLock> {
  for (;;) {
    try {
      return lockFolder(join(folder, 'jobs', 'ordering'));
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'folder-busy') throw error;
      await systemClock.sleep(TURN_POLL_MS, signal);
    }
  }
}

/** Brings an order, and waits until it is on chain, or never will be. A provider that fails at it is noted: the next look finds nothing on chain. */
async function placeOrder(run: Run, attempt: RunAttempt, peer: JobPeer): Promise<void> {
  const { client, signal } = run.options;
  const { jobId, terms } = attempt;
  try {
    await bringOrder(run, attempt, peer);
    while ((await phaseOf(client, jobId)).phase === PHASE.none && (await client.now()) < BigInt(terms.openUntil)) {
      if ((await fetchProgress(run.caller, peer, jobId, signal)).status === 'failed') return;
      await systemClock.sleep(client.pollIntervalMs(), signal);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof MillraceError) || error.actor !== 'peer') throw error;
    await endAttempt(run, attempt, error);
  }
}

/**
 * Brings order and contents to the provider, as long as the order is good; on chain already, only what is missing.
 * @throws order-not-taken when the provider refuses or does not answer in time, and the signal's reason
 */
async function bringOrder(run: Run, attempt: RunAttempt, peer: JobPeer): Promise<void> {
  const { options, journal, caller } = run;
  const { client, signal } = options;
  const { jobId, terms, signature, boxKey } = attempt;
  if ((await phaseOf(client, jobId)).phase !== PHASE.none) return await handOver(run, attempt, peer).catch(() => {});
  const handed = Object.keys(journal.files);
  const order = orderToJson({
    terms: termsToJson(terms),
    signature,
    spec: encodeJobSpec(journal.spec),
    renterBox: caller.key.publicKey,
    handed,
    ...(attempt.canary === undefined ? {} : { canary: attempt.canary }),
  });
  const given = await sendOrder(peer, order, { boxKey, signal });
  requireTermsSignature({ domain: jobDomainOf(client), terms, signer: peer.nodeKey, signature: given });
  await handOver(run, attempt, peer);
}

/** A provider that takes them slowly has them until the signatures are over; after that they are of no use. */
async function handOver({ journal, caller, options, emit }: Run, { jobId, boxKey, terms }: RunAttempt, peer: JobPeer): Promise<void> {
  for (const [source, path] of Object.entries(journal.files)) {
    emit({ kind: 'handing-over', jobId, source });
    const totalMs = (terms.openUntil - Number(await options.client.now())) * 1000;
    await sendContent(caller, peer, { jobId, source, boxKey, bytes: createReadStream(path), totalMs, signal: options.signal });
  }
}

/** Takes note of a failure and, where the job never came on chain, takes the money's allowance back. */
async function endAttempt(run: Run, attempt: RunAttempt, error: MillraceError): Promise<void> {
  const { options, journal, journals, emit } = run;
  const { phase: before } = await phaseOf(options.client, attempt.jobId);
  if (before === PHASE.none) await options.sending((sender) => unfundJob(options.client, sender, attempt.terms));
  const { phase } = await phaseOf(options.client, attempt.jobId);
  // Opened meanwhile: then it is followed to its end, whatever its provider says.
  if (phase !== PHASE.none && phase !== PHASE.settled) return;
  attempt.failure = `${error.code}: ${error.message}`.slice(0, 500);
  journals.save(journal);
  emit({ kind: 'provider-failed', operatorId: attempt.terms.operatorId, code: error.code, message: error.message });
  options.log?.warn('provider-failed', { jobId: attempt.jobId, code: error.code, reason: toMillraceError(error).message });
}

function tooDear(cost: bigint, costMax: bigint): MillraceError {
  return new MillraceError('job-too-dear', {
    actor: 'caller',
    message: `The job costs ${cost} base units with audits and fees, more than the ${costMax} that it may cost`,
    values: { cost, costMax },
    hint: 'Nothing was ordered.',
  });
}

function notDone({ runId, attempts }: RunJournal): MillraceError {
  const last = attempts.at(-1)?.failure;
  return new MillraceError('job-not-done', {
    actor: 'peer',
    message: `${attempts.length} providers were tried, none gave a result that stands${last === undefined ? '' : `; the last: ${last}`}`,
    values: { runId, attempts: attempts.map(({ terms, failure }) => `${terms.operatorId}: ${failure ?? 'unfinished'}`) },
    hint: 'The money is back in your account at the rails (`millrace wallet withdraw` takes it out); the same command tries again.',
  });
}
