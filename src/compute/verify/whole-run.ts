import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hex, hexToBytes } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { type Artefact, type Executor, errorOfResult, type Job } from '../../host/index.ts';
import { hostLimits, type JobSpec, specHash } from '../spec/job-spec.ts';
import { digestRun, type JobEnd } from './canonical-output.ts';
import { badSegments, commitStates } from './commitment.ts';
import { fingerprintDistancePpm, fingerprintOf, type OutputFile } from './fingerprint.ts';
import { badWork, type JobWork, type Replay, type SegmentRun } from './work.ts';

/** What a whole run leaves on disk, so that it is run once. */
interface WholeResult {
  end: JobEnd;
  artefacts: Artefact[];
  outputDigest: Hex;
}

const RESULT = 'result.json';
const FINGERPRINT = 'fingerprint';

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
  const fingerprint = spec.determinism === 'fingerprint' ? await readFile(join(folder, FINGERPRINT)) : undefined;
  const stateHash = fingerprint === undefined ? result.outputDigest : sha256(fingerprint);
  const commitment = commitStates(specHash(spec), [firstStateHash(spec), stateHash]);
  return { commitment, ...result, statesBytes: fingerprint?.length ?? 0 };
}

async function runAndKeep(
  work: JobWork,
  executor: Executor,
  { folder, artefactFolder, signal }: { folder: string; artefactFolder: string; signal?: AbortSignal },
): Promise<WholeResult> {
  const { spec } = work;
  const result = await runOnce(work, executor, { artefactFolder, signal });
  if (spec.determinism === 'fingerprint') {
    writeFileDurably(join(folder, FINGERPRINT), fingerprintOf(await readCounted(spec, result.artefacts, artefactFolder)));
  }
  writeFileDurably(join(folder, RESULT), JSON.stringify(result));
  return result;
}

/** A state of a whole run that can be handed over: only a fingerprint; all else is made from the specification. */
export async function readWholeState(spec: JobSpec, folder: string, index: number): Promise<Uint8Array> {
  if (index === 0) return new Uint8Array();
  if (index !== 1 || spec.determinism !== 'fingerprint')
    throw badSegments(`state ${index} of a ${spec.determinism} job is not handed over`);
  return await readFile(join(folder, FINGERPRINT));
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
  const { outputDigest, artefacts } = await runOnce(work, executor, { artefactFolder, signal });
  const startHash = firstStateHash(spec);
  if (spec.determinism !== 'fingerprint') return { startHash, endHash: outputDigest, outputDigest };
  if (fingerprint === undefined) throw badSegments('a fingerprint job is compared with the fingerprint of its provider');
  const own = await readCounted(spec, artefacts, artefactFolder);
  const isClose = fingerprintDistancePpm(fingerprint, own) <= spec.thresholdPpm;
  return { startHash, endHash: sha256(isClose ? fingerprint : fingerprintOf(own)), outputDigest: undefined };
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
  const outputDigest = await digestRun(spec, { end, artefacts: result.artefacts, folder: artefactFolder });
  return { end, artefacts: result.artefacts, outputDigest };
}

async function readCounted(spec: JobSpec, artefacts: readonly Artefact[], folder: string): Promise<OutputFile[]> {
  const counted = artefacts.filter(({ path }) => spec.outputs.length === 0 || spec.outputs.includes(path));
  return await Promise.all(counted.map(async ({ path, cid }) => ({ path, bytes: await readFile(join(folder, cid)) })));
}

/** State 0 of a job that is one segment: nothing but its specification. */
function firstStateHash(spec: JobSpec): Hex {
  return sha256(Buffer.concat([Buffer.from('millrace whole job state 0\0'), hexToBytes(specHash(spec))]));
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
