import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { JobFolders } from '../../src/compute/jobs/job-records.ts';
import { specHash } from '../../src/compute/spec/job-spec.ts';
import { digestRun } from '../../src/compute/verify/canonical-output.ts';
import { keepOutput, runSegments } from '../../src/compute/verify/run-segments.ts';
import { StateStore } from '../../src/compute/verify/state-store.ts';
import { packWholeState } from '../../src/compute/verify/whole-state.ts';
import { type JobWork, strictMemoryBytes, strictProgram } from '../../src/compute/verify/work.ts';
import {
  type Artefact,
  decodeStrictState,
  hashWholeState,
  STATE_PAGE_BYTES,
  type StrictChange,
  type StrictEngine,
  type WasmExecutor,
} from '../../src/host/index.ts';

/**
 * Runs a strict job as a cheater does: the ends of some segments are made up (the state before them with one page of noise), and the run goes on from
 * there. The states are kept where the provider's routes serve them.
 */
export async function forgeRun(
  engine: StrictEngine,
  work: JobWork,
  { folders, wrong }: { folders: JobFolders; wrong: readonly number[] },
): Promise<{ stateHashes: Hex[]; outputDigest: Hex; end: string; artefacts: Artefact[] }> {
  const { spec } = work;
  for (const folder of [folders.run, folders.artefacts]) mkdirSync(folder, { recursive: true });
  const memoryBytes = strictMemoryBytes(spec);
  const store = await StateStore.open(join(folders.run, `${specHash(spec).slice(2)}.states`), { memoryBytes, bytesMax: 1 << 30 });
  const program = await strictProgram(work);
  let run = await engine.start(program);
  try {
    await store.add(run.change);
    for (let index = 0; index < spec.segments; index += 1) {
      if (!wrong.includes(index)) {
        await store.add(await run.step(index));
        continue;
      }
      await store.add(madeUp(await store.read(index), memoryBytes));
      await run.close();
      run = await engine.start(program, { state: await store.read(index + 1) });
    }
    const artefacts = [keepOutput((await run.output()).bytes, folders.artefacts)];
    const { stateHashes } = store;
    const end = 'exit 0';
    return { stateHashes, end, artefacts, outputDigest: await digestRun(spec, { end, artefacts, folder: folders.artefacts }) };
  } finally {
    await run.close();
    await store.close();
  }
}

/** Runs a whole job as it is, or says without a look at it that it was stopped. */
export async function claimStop(
  wasm: WasmExecutor,
  work: JobWork,
  { folders, isClaimed }: { folders: JobFolders; isClaimed: boolean },
): Promise<{ stateHashes: Hex[]; outputDigest: Hex; end: string; artefacts: Artefact[] }> {
  for (const folder of [folders.run, folders.artefacts]) mkdirSync(folder, { recursive: true });
  const claim = { end: 'stopped' as const, artefacts: [], folder: folders.artefacts };
  if (isClaimed) {
    writeFileSync(join(folders.run, 'state-1'), await packWholeState(work.spec, claim));
    writeFileSync(join(folders.run, 'result.json'), JSON.stringify({ end: claim.end, artefacts: [] }));
  }
  const engines = { strict: undefined, executors: [wasm] };
  const { commitment, ...run } = await runSegments(work, engines, { folder: folders.run, artefactFolder: folders.artefacts });
  return { ...run, stateHashes: commitment.leaves.map(({ stateHash }) => stateHash) };
}

function madeUp(before: Uint8Array, memoryBytes: number): StrictChange {
  const state = decodeStrictState(before, memoryBytes);
  const page = memoryBytes / STATE_PAGE_BYTES - 1;
  const content = randomBytes(STATE_PAGE_BYTES);
  const stateHash = hashWholeState({ ...state, pages: new Map([...state.pages, [page, content]]) });
  return { end: 'running', stateHash, globals: Uint8Array.from(state.globals), pages: [{ page, content }], fuelUsed: 0n };
}
