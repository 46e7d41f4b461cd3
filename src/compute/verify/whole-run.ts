import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hex, hexToBytes } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { type Artefact, type Executor, holdImage, type ImageHold, type Job, type JobResult, type JobUsage } from '../../host/index.ts';
import { hostLimits, type JobSpec, specHash } from '../spec/job-spec.ts';
import { describeRun, type JobEnd } from './canonical-output.ts';
import { badSegments, commitStates } from './commitment.ts';
import { fingerprintDistancePpm, fingerprintOf, type OutputFile } from './fingerprint.ts';
import { packWholeState } from './whole-state.ts';
import { badWork, isUnfit, type JobWork, type Replay, type SegmentRun } from './work.ts';

/** What a whole run leaves on disk, so that it is run once. */
interface WholeResult {
  end: JobEnd;
  /** Which limit or fault, for people. */
  reason?: string;
  artefacts: Artefact[];
}

/** A run with what it took, where its program was run at all. */
interface WholeRun extends WholeResult {
  usage?: JobUsage;
}

const RESULT = 'result.json';
const REASON_LENGTH_MAX = 300;
/** State 1: a fingerprint, or what is compared of the outputs, with them. */
const STATE = 'state-1';
const STATE_0 = 'millrace whole job state 0\0';
/** How much longer a replay waits than the job's time limit: the time of two machines is not the same. */
const PATIENCE_TIMES = 2;
/** From these parts of time and memory on a job may have been stopped on another machine. */
const NEAR_TIME = 0.5;
const NEAR_MEMORY = 0.9;
/** What a job is given once more, in percent of its limits, that is stopped here and was not stopped there. */
const SPARE_PERCENT = 125;

/** Runs a job that is one segment: state 0 is its specification, state 1 its outputs, or their fingerprint. */
export async function runWhole(
  work: JobWork,
  executor: Executor,
  options: { folder: string; artefactFolder: string; signal?: AbortSignal; onState?: (index: number) => void },
): Promise<SegmentRun> {
  const { spec } = work;
  if (spec.segments !== 1) throw badWork(`it has ${spec.segments} segments; only wasm-strict jobs can have more than one`);
  const { folder } = options;
  const result = (await readResult(folder)) ?? (await runAndKeep(work, executor, options));
  options.onState?.(1);
  const state = await readFile(join(folder, STATE));
  const commitment = commitStates(specHash(spec), [sha256(firstState(spec)), sha256(state)]);
  const outputDigest = sha256(await describeRun(spec, { ...result, folder: options.artefactFolder }));
  return { commitment, ...result, outputDigest, statesBytes: state.length };
}

async function runAndKeep(
  work: JobWork,
  executor: Executor,
  { folder, artefactFolder, signal }: { folder: string; artefactFolder: string; signal?: AbortSignal },
): Promise<WholeResult> {
  const { usage: _, ...result } = await runToEnd(work, executor, { artefactFolder, signal });
  writeFileDurably(join(folder, STATE), await lastState(work.spec, result, artefactFolder));
  writeFileDurably(join(folder, RESULT), JSON.stringify(result));
  return result;
}

/** A state of a whole run, as it is handed over: what its hash is of. @throws bad-segments */
export async function readWholeState(spec: JobSpec, folder: string, index: number): Promise<Uint8Array> {
  if (index === 0) return firstState(spec);
  if (index !== 1) throw badSegments(`state ${index} of a job that is one segment`);
  return await readFile(join(folder, STATE));
}

/**
 * Runs a whole job again. Limits are compared with a margin (decision 0031), because two machines do not take the same time and memory: that the
 * provider's run was stopped stands where it is stopped here too, or comes near a limit; outputs stand where a run with a quarter more of everything
 * gives them. Of a fingerprint job the end hash is the committed one when the given fingerprint is within the specification's threshold of the own
 * one, else that of the own one.
 * @throws replay-undecided where this machine alone is too slow
 */
export async function replayWhole(
  work: JobWork,
  executor: Executor,
  options: { folder: string; fingerprint?: Uint8Array; committed?: Hex; signal?: AbortSignal },
): Promise<Replay> {
  const { spec } = work;
  const startHash = sha256(firstState(spec));
  const artefactFolder = join(options.folder, 'artefacts');
  const stop: WholeResult = { end: 'stopped', artefacts: [] };
  const stopped = sha256(await lastState(spec, stop, artefactFolder));
  const isSaidStopped = options.committed === stopped;
  const run = await runAgain(work, executor, { artefactFolder, isSaidStopped, signal: options.signal });
  if (isSaidStopped && (run.end === 'stopped' || isNearLimit(run, spec))) {
    return { startHash, endHash: stopped, outputDigest: sha256(await describeRun(spec, { ...stop, folder: artefactFolder })) };
  }
  const own = await lastState(spec, run, artefactFolder);
  const outputDigest = sha256(await describeRun(spec, { ...run, folder: artefactFolder }));
  if (spec.determinism !== 'fingerprint' || !isExit(run.end)) return { startHash, endHash: sha256(own), outputDigest };
  const { fingerprint } = options;
  if (fingerprint === undefined) throw badSegments('a fingerprint job is compared with the fingerprint of its provider');
  const isClose = fingerprintDistancePpm(fingerprint, await readCounted(spec, run.artefacts, artefactFolder)) <= spec.thresholdPpm;
  return { startHash, endHash: sha256(isClose ? fingerprint : own), outputDigest: undefined };
}

/** Once, with patience; what was not stopped elsewhere is run with more of everything before it counts as stopped. */
async function runAgain(
  work: JobWork,
  executor: Executor,
  { artefactFolder, isSaidStopped, signal }: { artefactFolder: string; isSaidStopped: boolean; signal: AbortSignal | undefined },
): Promise<WholeRun> {
  const { limits } = work.spec;
  if (isSaidStopped) return await runOnce(work, executor, { artefactFolder, signal });
  const wallSeconds = PATIENCE_TIMES * limits.wallSeconds;
  const first = await runOnce(work, executor, { artefactFolder, signal, limits: { ...limits, wallSeconds } });
  if (first.end !== 'stopped') return first;
  const more = (value: number) => Math.ceil((value * SPARE_PERCENT) / 100);
  const { memoryBytes, diskBytes, processes } = limits;
  const spare = { ...limits, wallSeconds, memoryBytes: more(memoryBytes), diskBytes: more(diskBytes), processes: more(processes) };
  const second = await runOnce(work, executor, { artefactFolder, signal, limits: spare });
  if (second.end === 'stopped' && second.reason?.startsWith('wall-exceeded') === true) throw undecided(wallSeconds);
  return second;
}

function isNearLimit({ usage }: WholeRun, { limits }: JobSpec): boolean {
  if (usage === undefined) return false;
  return usage.wallMs >= NEAR_TIME * limits.wallSeconds * 1000 || (usage.memoryBytesPeak ?? 0) >= NEAR_MEMORY * limits.memoryBytes;
}

/**
 * Runs a job to its end, whatever that is: what a limit or a signal ended, or what cannot be run at all, has an end of its own and no outputs. A signal
 * that no limit explains may have come from the machine; then it is run once more.
 */
async function runToEnd(work: JobWork, executor: Executor, options: { artefactFolder: string; signal?: AbortSignal }): Promise<WholeRun> {
  const run = await runOnce(work, executor, options);
  return run.reason?.startsWith('signalled') === true ? await runOnce(work, executor, options) : run;
}

async function runOnce(
  work: JobWork,
  executor: Executor,
  { artefactFolder, signal, limits = work.spec.limits }: { artefactFolder: string; signal?: AbortSignal; limits?: JobSpec['limits'] },
): Promise<WholeRun> {
  const { spec, programPath, inputFolder } = work;
  let image: ImageHold | undefined;
  try {
    if (programPath !== undefined) image = await holdImage(executor, programPath);
    const job: Job = { argv: spec.argv, env: spec.env, limits: hostLimits(limits), trust: 'foreign', artefactFolder };
    const given = {
      ...job,
      ...(image === undefined ? {} : { image: image.digest }),
      ...(inputFolder === undefined ? {} : { inputFolder }),
    };
    return endOf(await executor.run(given, { signal }), signal);
  } catch (error) {
    if (!isUnfit(error)) throw error;
    return { end: 'unfit', artefacts: [], reason: (error as Error).message.slice(0, REASON_LENGTH_MAX) };
  } finally {
    await image?.release();
  }
}

function endOf({ reason, exitCode, detail, artefacts, usage }: JobResult, signal: AbortSignal | undefined): WholeRun {
  if (reason === 'cancelled') {
    signal?.throwIfAborted();
    throw new MillraceError('node-stopping', { actor: 'host', message: 'The engine was closed while the job ran' });
  }
  if (reason === 'completed' || reason === 'failed') return { end: `exit ${exitCode ?? 0}`, artefacts, usage };
  return {
    end: 'stopped',
    artefacts: [],
    usage,
    reason: `${reason}${detail === undefined ? '' : `: ${detail}`}`.slice(0, REASON_LENGTH_MAX),
  };
}

function isExit(end: JobEnd): boolean {
  return end.startsWith('exit ');
}

async function lastState(spec: JobSpec, result: WholeResult, folder: string): Promise<Uint8Array> {
  if (spec.determinism === 'fingerprint' && isExit(result.end)) return fingerprintOf(await readCounted(spec, result.artefacts, folder));
  return spec.determinism === 'exact-output'
    ? await packWholeState(spec, { ...result, folder })
    : await describeRun(spec, { ...result, folder });
}

async function readCounted(spec: JobSpec, artefacts: readonly Artefact[], folder: string): Promise<OutputFile[]> {
  const counted = artefacts.filter(({ path }) => spec.outputs.length === 0 || spec.outputs.includes(path));
  return await Promise.all(counted.map(async ({ path, cid }) => ({ path, bytes: await readFile(join(folder, cid)) })));
}

/** State 0 of a job that is one segment: nothing but its specification. */
function firstState(spec: JobSpec): Uint8Array {
  return Buffer.concat([Buffer.from(STATE_0), hexToBytes(specHash(spec))]);
}

async function readResult(folder: string): Promise<WholeResult | undefined> {
  try {
    return JSON.parse(await readFile(join(folder, RESULT), 'utf8')) as WholeResult;
  } catch {
    return undefined;
  }
}

function sha256(bytes: Uint8Array): Hex {
  return `0x${createHash('sha256').update(bytes).digest('hex')}`;
}

function undecided(wallSeconds: number): MillraceError {
  return new MillraceError('replay-undecided', {
    actor: 'host',
    message: `A whole job was not ready within ${wallSeconds} s here, twice its time limit`,
    values: { wallSeconds },
    hint: 'Nothing is decided by it: this machine is too slow for the job, or has too much else to do.',
  });
}
