import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import {
  type Artefact,
  cidOfDigest,
  hashWholeState,
  type StrictChange,
  type StrictEnd,
  type StrictEngine,
  type StrictOutput,
  type StrictRun,
} from '../../host/index.ts';
import { type JobSpec, specHash } from '../spec/job-spec.ts';
import { digestRun, type JobEnd } from './canonical-output.ts';
import { commitStates } from './commitment.ts';
import { executorFor, type JobEngines, strictEngineOf } from './engines.ts';
import { StateStore } from './state-store.ts';
import { readWholeState, runWhole } from './whole-run.ts';
import { isUnfit, type JobWork, type SegmentRun, strictMemoryBytes, strictProgram } from './work.ts';

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

/** Bytes that the states of a job may take. */
export const STATES_BYTES_MAX: number = 16 * 2 ** 30;
/** The one output of a strict job. */
const STRICT_OUTPUT_PATH = 'output';
/** What a module that cannot be run is from its first state on: a job that trapped before it began. */
const TRAPPED: Omit<StrictChange, 'stateHash'> = { end: 'trap', globals: new Uint8Array(), pages: [], fuelUsed: 0n };
/** The hash of that state, and of every other that ended in a trap. */
export const TRAPPED_HASH: Hex = hashWholeState({ ...TRAPPED, pageCount: 0, pages: new Map() }) as Hex;

/**
 * Runs a job and keeps its states. A job of the class `wasm-strict` is cut into segments, the others are one segment. Called again after a kill
 * it goes on; called again after its end it gives the same at once. A limit that is reached and a program that cannot be run are results like any
 * other, without outputs: who wrote the job cannot make who runs it fail.
 * @throws strict-time-over, states-too-large, engine-missing, what an engine throws that fails itself, and the signal's reason
 */
export async function runSegments(work: JobWork, engines: JobEngines, options: RunSegmentsOptions): Promise<SegmentRun> {
  return work.spec.determinism === 'wasm-strict'
    ? await runStrict(work, strictEngineOf(engines, work.spec), options)
    : await runWhole(work, executorFor(engines, work.spec), options);
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
  let run: StrictRun | undefined;
  const stop = () => void run?.close();
  options.signal?.addEventListener('abort', stop, { once: true });
  try {
    const last = store.stateHashes.length - 1;
    const state = last < 0 ? undefined : await store.read(last);
    run = await startStrict(work, engine, state === undefined ? undefined : { state });
    if (last < 0) await store.add(run?.change ?? trapped());
    for (let index = Math.max(last, 0); index < spec.segments; index += 1) {
      options.signal?.throwIfAborted();
      await store.add((await run?.step(index)) ?? trapped());
      options.onState?.(index + 1);
    }
    await store.sync();
    const { end, artefacts } = await concludeStrict(run, options.artefactFolder);
    const commitment = commitStates(specHash(spec), store.stateHashes);
    const outputDigest = await digestRun(spec, { end, artefacts, folder: options.artefactFolder });
    return { commitment, outputDigest, end, artefacts, statesBytes: store.sizeBytes };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', stop);
    await run?.close();
    await store.close();
  }
}

/** A strict job on its way; undefined for one whose program cannot be run, which is in {@link TRAPPED_HASH} for ever. */
export async function startStrict(work: JobWork, engine: StrictEngine, from?: { state: Uint8Array }): Promise<StrictRun | undefined> {
  try {
    return await engine.start(await strictProgram(work), from);
  } catch (error) {
    if (isUnfit(error)) return undefined;
    throw error;
  }
}

/** How a strict job ended that stands at its last state, with its output; ends the run. */
export async function concludeStrict(run: StrictRun | undefined, artefactFolder: string): Promise<{ end: JobEnd; artefacts: Artefact[] }> {
  const ended = run?.change.end ?? TRAPPED.end;
  const output = (await run?.output()) ?? { bytes: new Uint8Array(), isTooLong: false };
  return { end: strictEnd(ended, output), artefacts: [keepOutput(output.bytes, artefactFolder)] };
}

function strictEnd(end: StrictEnd, { isTooLong }: StrictOutput): JobEnd {
  if (end !== 'running') return end;
  return isTooLong ? 'output' : 'exit 0';
}

function trapped(): StrictChange {
  return { ...TRAPPED, stateHash: TRAPPED_HASH };
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
