import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { StrictEngine } from '../../host/index.ts';
import { digestRun } from './canonical-output.ts';
import { badSegments } from './commitment.ts';
import { executorFor, type JobEngines, strictEngineOf } from './engines.ts';
import { concludeStrict, startStrict, TRAPPED_HASH } from './run-segments.ts';
import { replayWhole } from './whole-run.ts';
import type { JobWork, Replay } from './work.ts';

/** What is replayed. */
export interface ReplayOptions {
  /** The segment, from 0. */
  index: number;
  /**
   * The state before it, as the provider handed it over. Not for segment 0, whose state is made from the specification. For a fingerprint job:
   * the provider's fingerprint, which is its state 1.
   */
  state?: Uint8Array;
  /** The hash of the state after it, as its provider has committed to it: a whole job that says it was stopped is compared with a margin. */
  committed?: Hex;
  /** For what the replay needs on disk; removed afterwards. Default: the temporary folder. */
  folder?: string;
  signal?: AbortSignal;
}

/**
 * Runs one segment again. Its caller compares: a start hash that differs from the committed one means a wrong hand-over (or, at segment 0, a wrong
 * commitment); an end hash or output digest that differs means a wrong segment.
 * @throws bad-segments, bad-state, engine-missing, replay-undecided, strict-time-over
 */
export async function replaySegment(work: JobWork, engines: JobEngines, options: ReplayOptions): Promise<Replay> {
  const { index, state } = options;
  const { segments, determinism } = work.spec;
  if (!Number.isSafeInteger(index) || index < 0 || index >= segments) throw badSegments(`segment ${index} of ${segments}`);
  const folder = await mkdtemp(join(options.folder ?? tmpdir(), 'millrace-replay-'));
  try {
    if (determinism !== 'wasm-strict')
      return await replayWhole(work, executorFor(engines, work.spec), {
        folder,
        fingerprint: state,
        committed: options.committed,
        signal: options.signal,
      });
    if (index > 0 && state === undefined) throw badSegments(`segment ${index} needs state ${index}`);
    return await replayStrict(work, strictEngineOf(engines, work.spec), { index, state: index === 0 ? undefined : state, folder });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function replayStrict(
  work: JobWork,
  engine: StrictEngine,
  { index, state, folder }: { index: number; state: Uint8Array | undefined; folder: string },
): Promise<Replay> {
  const run = await startStrict(work, engine, state === undefined ? undefined : { state });
  try {
    const startHash = (run?.change.stateHash as Hex | undefined) ?? TRAPPED_HASH;
    const endHash = ((await run?.step(index))?.stateHash as Hex | undefined) ?? TRAPPED_HASH;
    if (index < work.spec.segments - 1) return { startHash, endHash, outputDigest: undefined };
    const outputDigest = await digestRun(work.spec, { ...(await concludeStrict(run, folder)), folder });
    return { startHash, endHash, outputDigest };
  } finally {
    await run?.close();
  }
}
