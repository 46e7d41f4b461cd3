/** Jobs that reach a limit, or that cannot be run: their end is a result that everybody comes to; who only says so is found out. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Hex } from 'viem';
import { buildModule } from '../../../tools/examples.ts';
import { type Executor, type JobReason, StrictEngine, WasmExecutor } from '../../host/index.ts';
import { type JobSpec, runtimeOf } from '../spec/job-spec.ts';
import type { JobEngines } from './engines.ts';
import { replaySegment } from './replay-segment.ts';
import { readState, runSegments, TRAPPED_HASH } from './run-segments.ts';
import { packWholeState } from './whole-state.ts';
import type { JobWork } from './work.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-limits-test-'));
const strict = await StrictEngine.open();
const wasm = new WasmExecutor({ imageFolder: join(folder, 'modules') });
const engines: JobEngines = { strict, executors: [wasm] };
after(async () => {
  await wasm.close();
  rmSync(folder, { recursive: true, force: true });
});

const LIMITS = { memoryBytes: 4 << 20, milliCpus: 1000, processes: 1, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 1000 };
let count = 0;

function workOf(module: Uint8Array, determinism: JobSpec['determinism'], more: Partial<JobSpec> = {}): JobWork & { place: string } {
  count += 1;
  const place = join(folder, String(count));
  mkdirSync(place);
  const programPath = join(place, 'program');
  writeFileSync(programPath, module);
  const spec: JobSpec = {
    format: 'millrace-job/1',
    runtime: runtimeOf('module', determinism),
    program: { kind: 'module', source: `sha256:${createHash('sha256').update(module).digest('hex')}` },
    argv: ['module'],
    env: {},
    inputs: [],
    outputs: [],
    seed: '0',
    limits: LIMITS,
    determinism,
    segments: determinism === 'wasm-strict' ? 2 : 1,
    canonicaliser: 'bytes',
    thresholdPpm: 0,
    ...more,
  };
  return { spec, programPath, inputFolder: undefined, place };
}

const run = (work: JobWork & { place: string }, by: JobEngines = engines) =>
  runSegments(work, by, { folder: join(work.place, 'run'), artefactFolder: join(work.place, 'outputs') });

const strictModule = (segment: string, output = '(i64.const 4)') =>
  buildModule(
    'strict',
    `(module (memory 1)
      (func (export "allocate") (param i32) (result i32) (i32.const 0))
      (func (export "begin") (param i32 i32 i32))
      (func (export "segment") (param i32) ${segment})
      (func (export "output") (result i64) ${output}))`,
  );

/** A module for the engine without segments; its one function is called once. */
const wasiModule = (body: string) =>
  buildModule(
    'wasi',
    `(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 8) "\\10\\00\\00\\00\\04\\00\\00\\00mill")
      (func (export "_start") ${body}))`,
  );

test('a strict job that runs out of instructions, traps, writes too much or cannot be run ends so for everybody', async () => {
  const cases: [module: Uint8Array, end: string][] = [
    [await strictModule('(if (i32.eq (local.get 0) (i32.const 1)) (then (loop $on (br $on))))'), 'fuel'],
    [await strictModule('(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))'), 'trap'],
    [await strictModule('', '(i64.const 1001)'), 'output'],
    [Buffer.from('no module'), 'trap'],
    [await strictModule(''), 'exit 0'],
  ];
  for (const [module, end] of cases) {
    const work = workOf(module, 'wasm-strict', { limits: { ...LIMITS, wallSeconds: 10 } });
    const { commitment, outputDigest, ...done } = await run(work);
    assert.equal(done.end, end);
    if (end !== 'exit 0')
      assert.deepEqual(
        done.artefacts.map(({ sizeBytes }) => sizeBytes),
        [0],
      );
    for (let index = 0; index < work.spec.segments; index += 1) {
      const state = await readState(work.spec, join(work.place, 'run'), index);
      const replay = await replaySegment(work, engines, { index, ...(index > 0 && { state }), folder });
      assert.deepEqual(
        [replay.startHash, replay.endHash],
        [commitment.leaves[index]?.stateHash, commitment.leaves[index + 1]?.stateHash],
        end,
      );
      if (index === work.spec.segments - 1) assert.equal(replay.outputDigest, outputDigest, end);
    }
    if (end === 'trap') assert.equal(commitment.leaves.at(-1)?.stateHash, TRAPPED_HASH);
  }
});

test('a whole job that reaches a limit, or cannot be run, ends so for everybody, and says which limit it was', async () => {
  const cases: [module: Uint8Array, end: string, reason: RegExp | undefined, wallSeconds?: number][] = [
    [await wasiModule('(loop $on (br $on))'), 'stopped', /^wall-exceeded/, 1],
    [
      await wasiModule('(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable'),
      'stopped',
      /^memory-exceeded/,
    ],
    [
      await wasiModule('(loop $on (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))) (br $on))'),
      'stopped',
      /^output-exceeded/,
    ],
    [await wasiModule('unreachable'), 'stopped', /^signalled/],
    [Buffer.from('no module'), 'unfit', /./],
    [await wasiModule(''), 'exit 0', undefined],
  ];
  for (const [module, end, reason, wallSeconds = LIMITS.wallSeconds] of cases) {
    const work = workOf(module, 'exact-output', { limits: { ...LIMITS, wallSeconds } });
    const { commitment, outputDigest, ...done } = await run(work);
    assert.equal(done.end, end);
    if (reason === undefined) assert.equal(done.reason, undefined);
    else assert.match(String(done.reason), reason);
    assert.deepEqual(done.artefacts, []);
    const committed = commitment.leaves[1]?.stateHash as Hex;
    const replay = await replaySegment(work, engines, { index: 0, committed, folder });
    assert.deepEqual([replay.endHash, replay.outputDigest], [committed, outputDigest], end);
  }
});

/** An engine whose jobs end as it is told, after as much time and memory; `seen` are the limits that it was given. */
function scripted(ends: { reason: JobReason; wallMs?: number; memoryBytesPeak?: number }[]): Executor & { seen: number[] } {
  const seen: number[] = [];
  return {
    seen,
    engine: 'wasm',
    inspect: () => Promise.reject(new RangeError('not asked')),
    importImage: async () => `sha256:${'0'.repeat(64)}`,
    async run({ limits }) {
      const {
        reason,
        wallMs = 1,
        memoryBytesPeak = 1,
      } = ends[Math.min(seen.push(limits.memoryBytes), ends.length) - 1] as (typeof ends)[0];
      const usage = { wallMs, cpuMs: wallMs, memoryBytesPeak, processesRefused: 0, outputBytes: 0 };
      return { reason, exitCode: 0, signal: undefined, usage, artefacts: [], detail: undefined };
    },
    close: async () => {},
  };
}

test('who says stopped of a job that ends far from its limits is found out; near them two machines may differ', async () => {
  const work = workOf(new Uint8Array(), 'exact-output');
  const hashOf = async (end: 'stopped' | 'exit 0') =>
    `0x${createHash('sha256')
      .update(await packWholeState(work.spec, { end, artefacts: [], folder }))
      .digest('hex')}` as Hex;
  const [stopped, done] = [await hashOf('stopped'), await hashOf('exit 0')];
  const endOf = async (committed: Hex, ...ends: Parameters<typeof scripted>[0]) => {
    const executor = scripted(ends);
    const { endHash } = await replaySegment(work, { strict, executors: [executor] }, { index: 0, committed, folder });
    return { endHash, runs: executor.seen };
  };
  const completed = { reason: 'completed' } as const;
  assert.equal((await endOf(stopped, completed)).endHash, done, 'it was not stopped');
  assert.equal((await endOf(stopped, { reason: 'wall-exceeded' })).endHash, stopped);
  assert.equal((await endOf(stopped, { ...completed, wallMs: 31_000 })).endHash, stopped, 'half of the time is near the limit');
  assert.equal((await endOf(stopped, { ...completed, memoryBytesPeak: LIMITS.memoryBytes * 0.95 })).endHash, stopped);

  const { memoryBytes } = LIMITS;
  assert.deepEqual(await endOf(done, completed), { endHash: done, runs: [memoryBytes] });
  const spare = await endOf(done, { reason: 'memory-exceeded' }, completed);
  assert.deepEqual(spare, { endHash: done, runs: [memoryBytes, memoryBytes * 1.25] }, 'a little more memory is no forgery');
  assert.equal((await endOf(done, { reason: 'memory-exceeded' })).endHash, stopped, 'what needs much more was made up');
  await assert.rejects(endOf(done, { reason: 'wall-exceeded' }), { code: 'replay-undecided' });
});

test('a signal that no limit explains is believed when it comes twice', async () => {
  const work = workOf(new Uint8Array(), 'exact-output');
  const once = scripted([{ reason: 'signalled' }, { reason: 'completed' }]);
  assert.equal((await run(work, { strict, executors: [once] })).end, 'exit 0');
  const twice = scripted([{ reason: 'signalled' }]);
  const again = workOf(new Uint8Array(), 'exact-output');
  assert.deepEqual([(await run(again, { strict, executors: [twice] })).end, twice.seen.length], ['stopped', 2]);
});
