import type { Artefact, StrictEngine } from '../../host/index.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import type { JobEnd } from './canonical-output.ts';
import { badSegments } from './commitment.ts';
import { concludeStrict, keepOutput, startStrict } from './run-segments.ts';
import { unpackWholeState } from './whole-state.ts';

/** What is needed to read the outputs of a job out of its last state. */
export interface StateReader {
  /** Of a strict job, whose module says where in its memory the output is. */
  programPath: string | undefined;
  strict(): Promise<StrictEngine>;
  /** Where the outputs are put, each under its CID. */
  artefactFolder: string;
}

/** Whether the last state of a job of a class holds its outputs. */
export function hasOutputsInState({ determinism }: Pick<JobSpec, 'determinism'>): boolean {
  return determinism === 'wasm-strict' || determinism === 'exact-output';
}

/**
 * The outputs of a job, from its last state; of a whole job as its canonicaliser leaves them. That the state is the committed one, and the outputs are
 * what was committed to, is the caller's to check.
 * @throws bad-segments where the state holds none, bad-state, strict-engine-unfit
 */
export async function outputOfState(
  spec: JobSpec,
  state: Uint8Array,
  { programPath, strict, artefactFolder }: StateReader,
): Promise<{ end: JobEnd; artefacts: Artefact[] }> {
  if (spec.determinism === 'wasm-strict') {
    const run = await startStrict({ spec, programPath, inputFolder: undefined }, await strict(), { state });
    try {
      return await concludeStrict(run, artefactFolder);
    } finally {
      await run?.close();
    }
  }
  const { end, outputs } = unpackWholeState(state);
  if (outputs === undefined) throw badSegments('its outputs are too large for a state');
  return { end, artefacts: outputs.map(({ path, bytes }) => ({ ...keepOutput(bytes, artefactFolder), path })) };
}
