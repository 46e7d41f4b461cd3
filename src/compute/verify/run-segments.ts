import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { type Artefact, cidOfDigest, type StrictEngine, type StrictRun } from '../../host/index.ts';
import { type JobSpec, specHash } from '../spec/job-spec.ts';
import { digestRun, type JobEnd } from './canonical-output.ts';
import { commitStates } from './commitment.ts';
import { StateStore } from './state-store.ts';
import { readWholeState, runWhole } from './whole-run.ts';
import { type JobEngines, type JobWork, type SegmentRun, strictMemoryBytes, strictProgram } from './work.ts';

/** Where a run keeps what it must not lose, and how it is watched. */
export interface RunSegmentsOptions {
  /** The run's own: its states, so that a killed run goes on at its last one, and so that they can be handed over. */
  folder: string;
  /** Where the outputs are put, each under its CID. */
  artefactFolder: string;
  /** Bytes that states may take. */
  statesBytesMax?: number;
  signal?: AbortSignal;
  /** After each state that is kept. */
  onState?: (index: number) => void;
}

const STATES_BYTES_MAX = 16 * 2 ** 30;
/** The one output of a strict job. */
const STRICT_OUTPUT_PATH = 'output';

/**
 * Runs a job and keeps its states. A job of the class `wasm-strict` is cut into segments, the others are one segment. Called again after a kill
 * it goes on; called again after its end it gives the same at once.
 * @throws bad-work, bad-image, job-ended (a limit was hit that other machines may not hit), strict-time-over, states-too-large,
 * and the signal's reason
 */
export async function runSegments(work: JobWork, engines: JobEngines, options: RunSegmentsOptions): Promise<SegmentRun> {
  return work.spec.determinism === 'wasm-strict'
    ? await runStrict(work, engines.strict, options)
    : await runWhole(work, engines.executor, options);
}

/**
 * A state of a run, as it is handed to who replays the segment after it (of a fingerprint job: state 1, its fingerprint).
 * @throws state-unknown
 */
export async function readState(spec: JobSpec, folder: string, index: number): Promise<Uint8Array> {
  if (spec.determinism !== 'wasm-strict') return await readWholeState(spec, folder, index);
  const store = await openStates(spec, folder, STATES_BYTES_MAX);
  try {
    return await store.read(index);
  } finally {
    await store.close();
  }
}

async function runStrict(work: JobWork, engine: StrictEngine, options: RunSegmentsOptions): Promise<SegmentRun> {
  const { spec } = work;
  const store = await openStates(spec, options.folder, options.statesBytesMax ?? STATES_BYTES_MAX);
  const program = await strictProgram(work);
  let run: StrictRun | undefined;
  try {
    const last = store.stateHashes.length - 1;
    run = await engine.start(program, last < 0 ? undefined : { state: await store.read(last) });
    if (last < 0) await store.add(run.change);
    for (let index = Math.max(last, 0); index < spec.segments; index += 1) {
      options.signal?.throwIfAborted();
      await store.add(await run.step(index));
      options.onState?.(index + 1);
    }
    await store.sync();
    const end: JobEnd = run.change.end === 'running' ? 'exit 0' : run.change.end;
    const artefacts = [keepOutput(await run.output(), options.artefactFolder)];
    const commitment = commitStates(specHash(spec), store.stateHashes);
    const outputDigest = await digestRun(spec, { end, artefacts, folder: options.artefactFolder });
    return { commitment, outputDigest, end, artefacts, statesBytes: store.sizeBytes };
  } finally {
    await run?.close();
    await store.close();
  }
}

async function openStates(spec: JobSpec, folder: string, bytesMax: number): Promise<StateStore> {
  return await StateStore.open(join(folder, `${specHash(spec).slice(2)}.states`), { memoryBytes: strictMemoryBytes(spec), bytesMax });
}

/** Puts the output of a strict job where outputs are kept. */
export function keepOutput(bytes: Uint8Array, folder: string): Artefact {
  const cid = cidOfDigest(createHash('sha256').update(bytes).digest());
  writeFileDurably(join(folder, cid), bytes);
  return { path: STRICT_OUTPUT_PATH, cid, sizeBytes: bytes.length };
}
