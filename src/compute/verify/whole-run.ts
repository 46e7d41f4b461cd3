import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hex, hexToBytes } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { type Artefact, type Executor, errorOfResult, type Job } from '../../host/index.ts';
import { hostLimits, type JobSpec, specHash } from '../spec/job-spec.ts';
import { describeRun, type JobEnd } from './canonical-output.ts';
import { badSegments, commitStates } from './commitment.ts';
import { fingerprintDistancePpm, fingerprintOf, type OutputFile } from './fingerprint.ts';
import { badWork, type JobWork, type Replay, type SegmentRun } from './work.ts';

/** What a whole run leaves on disk, so that it is run once. */
interface WholeResult {
  end: JobEnd;
  artefacts: Artefact[];
}

const RESULT = 'result.json';
/** State 1: a fingerprint, or what is compared of the outputs. */
const STATE = 'state-1';
const STATE_0 = 'millrace whole job state 0\0';

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
  const result = await runOnce(work, executor, { artefactFolder, signal });
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
 * Runs a whole job again. Of a fingerprint job the end hash is the committed one when the given fingerprint is within the specification's threshold
 * of the own one, else that of the own one.
 */
export async function replayWhole(
  work: JobWork,
  executor: Executor,
  { folder, fingerprint, signal }: { folder: string; fingerprint: Uint8Array | undefined; signal: AbortSignal | undefined },
): Promise<Replay> {
  const { spec } = work;
  const artefactFolder = join(folder, 'artefacts');
  const result = await runOnce(work, executor, { artefactFolder, signal });
  const startHash = sha256(firstState(spec));
  const own = await lastState(spec, result, artefactFolder);
  if (spec.determinism !== 'fingerprint') return { startHash, endHash: sha256(own), outputDigest: sha256(own) };
  if (fingerprint === undefined) throw badSegments('a fingerprint job is compared with the fingerprint of its provider');
  const isClose = fingerprintDistancePpm(fingerprint, await readCounted(spec, result.artefacts, artefactFolder)) <= spec.thresholdPpm;
  return { startHash, endHash: sha256(isClose ? fingerprint : own), outputDigest: undefined };
}

async function runOnce(
  work: JobWork,
  executor: Executor,
  { artefactFolder, signal }: { artefactFolder: string; signal?: AbortSignal },
): Promise<WholeResult> {
  const { spec, programPath, inputFolder } = work;
  const image = programPath === undefined ? undefined : await executor.importImage(programPath);
  const job: Job = { argv: spec.argv, env: spec.env, limits: hostLimits(spec.limits), trust: 'foreign', artefactFolder };
  const result = await executor.run(
    { ...job, ...(image === undefined ? {} : { image }), ...(inputFolder === undefined ? {} : { inputFolder }) },
    { signal },
  );
  if (result.reason === 'cancelled') signal?.throwIfAborted();
  const error = result.reason === 'failed' ? undefined : errorOfResult(result);
  if (error !== undefined) throw error;
  const end: JobEnd = `exit ${result.exitCode ?? 0}`;
  return { end, artefacts: result.artefacts };
}

async function lastState(spec: JobSpec, result: WholeResult, folder: string): Promise<Uint8Array> {
  if (spec.determinism === 'fingerprint') return fingerprintOf(await readCounted(spec, result.artefacts, folder));
  return await describeRun(spec, { ...result, folder });
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
