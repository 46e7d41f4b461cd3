import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { StrictEngine } from '../../host/index.ts';
import { digestRun } from './canonical-output.ts';
import { badSegments } from './commitment.ts';
import { keepOutput } from './run-segments.ts';
import { replayWhole } from './whole-run.ts';
import { type JobEngines, type JobWork, type Replay, strictProgram } from './work.ts';

/** What is replayed. */
export interface ReplayOptions {
  /** The segment, from 0. */
  index: number;
  /**
   * The state before it, as the provider handed it over. Not for segment 0, whose state is made from the specification. For a fingerprint job:
   * the provider's fingerprint, which is its state 1.
   */
  state?: Uint8Array;
  /** For what the replay needs on disk; removed afterwards. Default: the temporary folder. */
  folder?: string;
  signal?: AbortSignal;
}

/**
 * Runs one segment again. Its caller compares: a start hash that differs from the committed one means a wrong hand-over (or, at segment 0, a wrong
 * commitment); an end hash or output digest that differs means a wrong segment.
 * @throws bad-segments, bad-state, bad-work, bad-image, job-ended, strict-time-over
 */
export async function replaySegment(work: JobWork, engines: JobEngines, options: ReplayOptions): Promise<Replay> {
  const { index, state } = options;
  const { segments, determinism } = work.spec;
  if (!Number.isSafeInteger(index) || index < 0 || index >= segments) throw badSegments(`segment ${index} of ${segments}`);
  const folder = await mkdtemp(join(options.folder ?? tmpdir(), 'millrace-replay-'));
  try {
    if (determinism !== 'wasm-strict')
      return await replayWhole(work, engines.executor, { folder, fingerprint: state, signal: options.signal });
    if (index > 0 && state === undefined) throw badSegments(`segment ${index} needs state ${index}`);
    return await replayStrict(work, engines.strict, { index, state: index === 0 ? undefined : state, folder });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function replayStrict(
  work: JobWork,
  engine: StrictEngine,
  { index, state, folder }: { index: number; state: Uint8Array | undefined; folder: string },
): Promise<Replay> {
  const run = await engine.start(await strictProgram(work), state === undefined ? undefined : { state });
  try {
    const startHash = run.change.stateHash as Hex;
    const { stateHash, end } = await run.step(index);
    if (index < work.spec.segments - 1) return { startHash, endHash: stateHash as Hex, outputDigest: undefined };
    const artefacts = [keepOutput(await run.output(), folder)];
    const outputDigest = await digestRun(work.spec, { end: end === 'running' ? 'exit 0' : end, artefacts, folder });
    return { startHash, endHash: stateHash as Hex, outputDigest };
  } finally {
    await run.close();
  }
}
