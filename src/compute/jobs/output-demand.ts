import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type ChainClient, fixSeed, type Sender, unlessOvertaken } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type Artefact, StrictEngine } from '../../host/index.ts';
import { depositToRails, eventArgs, railsBalance, tokenBalance } from '../../token/index.ts';
import { lesser } from '../../units.ts';
import { allowBond } from '../audit/bonds.ts';
import { readCommittedJob, type StateSource, takeState } from '../audit/job-case.ts';
import { memberStates } from '../audit/member-states.ts';
import type { FetchContent } from '../part.ts';
import { digestRun, type JobEnd } from '../verify/canonical-output.ts';
import { hasOutputsInState, outputOfState } from '../verify/output-of-state.ts';
import type { JobCaller } from './job-api.ts';
import { PHASE } from './job-chain.ts';
import type { RunAttempt, RunJournal, RunJournals } from './run-journal.ts';

/** A job whose outputs its renter waits for. */
export interface OutputDemandOptions {
  caller: JobCaller;
  sending<Result>(use: (sender: Sender) => Promise<Result>): Promise<Result>;
  attempt: RunAttempt;
  journal: RunJournal;
  journals: RunJournals;
  /** Where outputs are put, each under its CID. */
  outputsFolder: string;
  /** How a module comes that does not lie here; undefined: only what lies here can be used. */
  fetchContent: FetchContent | undefined;
  signal: AbortSignal | undefined;
}

/** What became of a demand at one look. */
export type DemandNews =
  | { kind: 'none' }
  | { kind: 'demanded'; demandId: bigint }
  /** The operator is convicted: the job can be settled, and its price comes back. */
  | { kind: 'convicted' }
  | { kind: 'delivered'; end: JobEnd; artefacts: Artefact[] };

/** The part of a job's window after which outputs that did not come are demanded. */
const WINDOW_PARTS = 2n;
/** Answers of contracts that say that somebody else was first, or that a moment has passed or not come. */
const OVERTAKEN: ReadonlySet<string> = new Set([
  'already-drawn',
  'demand-closed',
  'demand-too-early',
  'demand-too-late',
  'too-few-members',
  'too-late',
  'wrong-phase',
]);
const NOTHING: DemandNews = { kind: 'none' };
const NO_SOURCE: StateSource = { fetch: () => Promise.reject(new RangeError('no such state here')) };

/**
 * Demands on chain what a provider keeps from its renter, and brings the demand to its end: the last state of a job, which holds its outputs (decision
 * 0031). Called at every look at a job; it does what is due and is safe to repeat and to interrupt. Demanded is once, when half of the window is over:
 * a provider that was only away has had its time.
 * @throws bond-missing when the renter has too little of the stake token for the committee, and what the sender throws
 */
export async function tendOutputDemand(
  options: OutputDemandOptions,
  seen: { phase: number; until: bigint; now: bigint },
): Promise<DemandNews> {
  const { attempt, journal } = options;
  if (attempt.demandId !== undefined) return await pushDemand(options, BigInt(attempt.demandId));
  if (journal.artefacts !== undefined || !(await isDue(options, seen))) return NOTHING;
  return (await unlessOvertaken(OVERTAKEN, () => demand(options))) ?? NOTHING;
}

async function isDue(
  { caller, attempt, journal }: OutputDemandOptions,
  seen: { phase: number; until: bigint; now: bigint },
): Promise<boolean> {
  const { phase, until, now } = seen;
  const isLate = phase === PHASE.window && now < until && until - now <= BigInt(attempt.terms.challengeSeconds) / WINDOW_PARTS;
  if (!isLate || !hasOutputsInState(journal.spec)) return false;
  const { auditors, guilty, canary } = await caller.client.read('computeJobs', 'job', [attempt.jobId]);
  // Without auditors there is no committee either; the job is reputation only.
  return auditors > 0 && !guilty && !canary;
}

async function demand({ caller, sending, attempt, journal, journals }: OutputDemandOptions): Promise<DemandNews> {
  const { client } = caller;
  const { terms, result } = await readCommittedJob(client, attempt.jobId);
  const { fee, members } = await client.read('stateDemands', 'config');
  const demandId = await sending(async (sender) => {
    // A renter's first demand has no bond.
    const amount = fee * BigInt(members);
    await depositMissing(client, sender, amount);
    await allowBond(client, { sender, court: 'stateDemands', amount });
    const key = `run/demand/${attempt.jobId}`;
    const receipt = await sender.send({ contract: 'stateDemands', functionName: 'demand', args: [terms, result, terms.segments], key });
    return eventArgs(receipt, 'stateDemands', 'StateDemanded').demandId;
  });
  attempt.demandId = demandId.toString();
  journals.save(journal);
  return { kind: 'demanded', demandId };
}

/** What the committee costs, from the wallet as far as it has it. */
async function depositMissing(client: ChainClient, sender: Sender, amount: bigint): Promise<void> {
  const token = await client.read('stateDemands', 'token');
  const account = sender.address;
  const [deposited, wallet] = await Promise.all([railsBalance(client, { token, account }), tokenBalance(client, { token, account })]);
  const missing = amount > deposited ? lesser(amount - deposited, wallet) : 0n;
  if (missing > 0n) await depositToRails(client, { sender, token, amount: missing });
}

/** Draws the committee, ends the demand when its time is over, and takes what was delivered. */
async function pushDemand(options: OutputDemandOptions, demandId: bigint): Promise<DemandNews> {
  const { caller, sending } = options;
  const { client } = caller;
  const { closed, deliverUntil, seedTime } = await client.read('stateDemands', 'demandOf', [demandId]);
  if (closed) return await outcomeOf(options, demandId);
  const now = await client.now();
  const { drawSeconds } = await client.read('stateDemands', 'config');
  const isDrawn = deliverUntil !== 0;
  if (now >= (isDrawn ? BigInt(deliverUntil) : BigInt(seedTime) + BigInt(drawSeconds))) {
    await unlessOvertaken(OVERTAKEN, () =>
      sending((sender) => sender.send({ contract: 'stateDemands', functionName: 'expire', args: [demandId] })),
    );
  } else if (!isDrawn && now >= BigInt(seedTime)) {
    await unlessOvertaken(OVERTAKEN, () =>
      sending(async (sender) => {
        if (await fixSeed(client, { sender, time: BigInt(seedTime) }))
          await sender.send({ contract: 'stateDemands', functionName: 'drawMembers', args: [demandId] });
      }),
    );
  }
  return NOTHING;
}

async function outcomeOf(options: OutputDemandOptions, demandId: bigint): Promise<DemandNews> {
  const { caller, attempt, journal } = options;
  const { guilty } = await caller.client.read('computeJobs', 'job', [attempt.jobId]);
  if (guilty) return { kind: 'convicted' };
  if (journal.artefacts !== undefined) return NOTHING;
  const [delivered] = await caller.client.events({ name: 'stateDemands', event: 'StateDelivered', args: { demandId } });
  return delivered === undefined ? NOTHING : { kind: 'delivered', ...(await takeDelivered(options, demandId)) };
}

/** The outputs in a state that was delivered, checked against all that the provider has committed to. */
async function takeDelivered(options: OutputDemandOptions, demandId: bigint): Promise<{ end: JobEnd; artefacts: Artefact[] }> {
  const { caller, attempt, journal, outputsFolder, signal = new AbortController().signal } = options;
  const { spec } = journal;
  const job = await readCommittedJob(caller.client, attempt.jobId);
  const source = memberStates(caller, { demandId, otherwise: NO_SOURCE });
  const { state } = await takeState(job, { spec }, source, { index: attempt.terms.segments, signal });
  await mkdir(outputsFolder, { recursive: true, mode: 0o700 });
  const programPath = spec.determinism === 'wasm-strict' ? await bringModule(options, signal) : undefined;
  const { end, artefacts } = await outputOfState(spec, state, {
    programPath,
    strict: () => StrictEngine.open(),
    artefactFolder: outputsFolder,
  });
  const got = await digestRun(spec, { end, artefacts, folder: outputsFolder });
  if (got === job.result.outputDigest) return { end, artefacts };
  throw new MillraceError('output-differs', {
    actor: 'peer',
    message: `The state that was delivered for job ${attempt.jobId} gives the digest ${got}, committed was ${job.result.outputDigest}`,
    values: { jobId: attempt.jobId, got },
    hint: 'Its auditors find that too, while its window is open.',
  });
}

async function bringModule({ journal, outputsFolder, fetchContent }: OutputDemandOptions, signal: AbortSignal): Promise<string> {
  const { program, limits } = journal.spec;
  const own = journal.files[program.source];
  if (own !== undefined) return own;
  const path = join(outputsFolder, '.module');
  if (fetchContent === undefined) {
    throw new MillraceError('content-missing', {
      actor: 'caller',
      message: `The module ${program.source} is not here, without which the output cannot be read out of the state`,
      values: { source: program.source },
    });
  }
  await fetchContent(program.source, path, { bytesMax: limits.diskBytes + limits.memoryBytes, signal });
  return path;
}
