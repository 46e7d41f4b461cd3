/**
 * What verification costs: strict code beside the same module as it was written, a state by the size of memory and by what changed, a whole run with its
 * states, the replay of one segment, a commitment. Processor time where the work is in this process, else the best of the wall times.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { type JobSpec, runtimeOf } from '../src/compute/spec/job-spec.ts';
import { commitStates, isLeafOf, proveLeaf } from '../src/compute/verify/commitment.ts';
import type { JobEngines } from '../src/compute/verify/engines.ts';
import { replaySegment } from '../src/compute/verify/replay-segment.ts';
import { readState, runSegments } from '../src/compute/verify/run-segments.ts';
import { encodeStrictInput, StrictEngine } from '../src/host/index.ts';
import { makeStrict } from '../src/host/strict-module.ts';
import { buildModule } from '../tools/examples.ts';

const ROUNDS = 7;
const MEMORY_BYTES = 64 << 20;
const print = (line: string) => process.stdout.write(`${line}\n`);
const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'millrace-bench-verify-'));
const text = Buffer.from(readFileSync(join(root, 'README.md'), 'utf8').repeat(200));

interface Exports {
  memory: { buffer: ArrayBuffer };
  fuel?: { value: bigint };
  depth?: { value: number };
  allocate(bytes: number): number;
  begin(pointer: number, bytes: number, segments: number): void;
  segment(index: number): void;
}
const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: { Module: new (bytes: Uint8Array) => object; Instance: new (module: object) => { exports: Exports } };
};

/** A matrix product of 256 x 256 numbers a segment: every instruction that counts is a float one. Scalar, and four numbers at once. */
const product = (inner: string) => `(module (memory (export "memory") 512)
  (func (export "allocate") (param i32) (result i32) (i32.const 1048576))
  (func (export "output") (result i64) (i64.const 0))
  (func (export "begin") (param i32 i32 i32) (local $at i32)
    (loop $fill
      (f32.store (local.get $at) (f32.div (f32.convert_i32_s (i32.sub (i32.rem_u (local.get $at) (i32.const 1009)) (i32.const 500))) (f32.const 499)))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $fill (i32.lt_u (local.get $at) (i32.const 524288)))))
  (func (export "segment") (param i32) (local $row i32) (local $column i32) (local $k i32) (local $sum f32) (local $sums v128)
    (loop $rows (local.set $column (i32.const 0))
      (loop $columns (local.set $k (i32.const 0)) (local.set $sum (f32.const 0)) (local.set $sums (v128.const f32x4 0 0 0 0))
        (loop $terms ${inner} (br_if $terms (i32.lt_u (local.get $k) (i32.const 256))))
        (br_if $columns (i32.lt_u (local.get $column) (i32.const 256))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br_if $rows (i32.lt_u (local.get $row) (i32.const 256))))))`;
const LEFT = '(i32.shl (i32.add (i32.shl (local.get $row) (i32.const 8)) (local.get $k)) (i32.const 2))';
const RIGHT = '(i32.shl (i32.add (i32.shl (local.get $k) (i32.const 8)) (local.get $column)) (i32.const 2))';
const STORE = (operation: string, value: string, step: number) => `
  (if (i32.eq (local.get $k) (i32.const 255)) (then (${operation} offset=524288
    (i32.shl (i32.add (i32.shl (local.get $row) (i32.const 8)) (local.get $column)) (i32.const 2)) (local.get ${value}))))
  (local.set $k (i32.add (local.get $k) (i32.const 1)))
  (if (i32.eq (local.get $k) (i32.const 256)) (then (local.set $column (i32.add (local.get $column) (i32.const ${step})))))`;
const SCALAR = `(local.set $sum (f32.add (local.get $sum) (f32.mul (f32.load ${LEFT}) (f32.load offset=262144 ${RIGHT}))))${STORE('f32.store', '$sum', 1)}`;
const VECTOR = `(local.set $sums (f32x4.add (local.get $sums) (f32x4.mul (f32x4.splat (f32.load ${LEFT})) (v128.load offset=262144 ${RIGHT}))))${STORE('v128.store', '$sums', 4)}`;

/** The best of several rounds, each on what `prepare` makes. */
function cpuMsOf<Ready>(work: (ready: Ready) => void, prepare: () => Ready): number {
  const times = Array.from({ length: ROUNDS }, () => {
    const ready = prepare();
    const before = process.threadCpuUsage();
    work(ready);
    const { user, system } = process.threadCpuUsage(before);
    return (user + system) / 1000;
  });
  return Math.min(...times);
}

function compareCode(name: string, module: Uint8Array, input: Uint8Array): void {
  const time = (bytes: Uint8Array) => {
    const compiled = new webAssembly.Module(bytes);
    const grant = ({ fuel, depth }: Exports) => {
      if (fuel !== undefined) fuel.value = 2n ** 60n;
      if (depth !== undefined) depth.value = 1 << 20;
    };
    const prepare = () => {
      const { exports } = new webAssembly.Instance(compiled);
      grant(exports);
      const pointer = exports.allocate(input.length);
      new Uint8Array(exports.memory.buffer).set(input, pointer);
      exports.begin(pointer, input.length, 1);
      grant(exports);
      return exports;
    };
    return cpuMsOf((exports) => exports.segment(0), prepare);
  };
  const strict = makeStrict(module, MEMORY_BYTES).bytes;
  const [plainMs, strictMs] = [time(module), time(strict)];
  print(
    `${name}: ${plainMs.toFixed(1)} ms of CPU as written, ${strictMs.toFixed(1)} ms strict; ratio ${(strictMs / plainMs).toFixed(2)}; ${module.length} bytes of code become ${strict.length}`,
  );
}

async function showCode(): Promise<void> {
  const source = readFileSync(join(root, 'examples/word-count/word-count.wat'), 'utf8').replace(
    '(memory 4)',
    '(memory (export "memory") 512)',
  );
  const input = encodeStrictInput({ argv: ['module'], seed: new Uint8Array(8), files: [{ path: 'text', bytes: text }] });
  compareCode(`word count of ${(text.length / 1e6).toFixed(1)} MB`, await buildModule('word-count', source), input);
  compareCode('matrix product, one number at a time', await buildModule('scalar', product(SCALAR)), new Uint8Array());
  compareCode('matrix product, four at a time', await buildModule('vector', product(VECTOR)), new Uint8Array());
}

/** States of a module that writes to so many pages in each segment. */
async function showStates(engine: StrictEngine): Promise<void> {
  const module = await buildModule(
    'pages',
    `(module (memory 1)
      (func (export "allocate") (param i32) (result i32) (i32.const 0))
      (func (export "output") (result i64) (i64.const 0))
      (func (export "begin") (param i32 i32 i32) (global.set $pages (i32.load (local.get 0))))
      (global $pages (mut i32) (i32.const 0))
      (func (export "segment") (param $index i32) (local $page i32)
        (loop $write
          (i32.store (i32.shl (local.get $page) (i32.const 12)) (i32.add (local.get $index) (local.get $page)))
          (local.set $page (i32.add (local.get $page) (i32.const 1)))
          (br_if $write (i32.lt_u (local.get $page) (global.get $pages))))))`,
  );
  for (const [mebibytes, pages] of [
    [4, 4],
    [64, 4],
    [64, 1_000],
    [256, 4],
  ] as const) {
    const limits = { memoryBytes: mebibytes << 20, fuelPerSegment: 10_000_000n, wallSeconds: 60, outputBytes: 0 };
    const run = await engine.start({ module, input: Uint8Array.from(Buffer.from(Uint32Array.of(pages).buffer)), segments: 99, limits });
    const times: number[] = [];
    for (let index = 1; index <= 20; index += 1) {
      const start = performance.now();
      await run.step(index);
      times.push(performance.now() - start);
    }
    await run.close();
    print(
      `a state of ${mebibytes} MiB of which a segment changed ${pages} pages: best ${Math.min(...times).toFixed(2)} ms, ${((pages * 4101) / 1024).toFixed(0)} KiB kept`,
    );
  }
}

async function showRun(strict: StrictEngine): Promise<void> {
  const engines: JobEngines = { strict, executors: [] };
  const inputFolder = join(folder, 'input');
  mkdirSync(inputFolder);
  writeFileSync(join(inputFolder, 'text'), text);
  const programPath = join(root, 'examples/word-count/word-count.wasm');
  const time = async (segments: number) => {
    const spec = specOf(segments);
    const work = { spec, programPath, inputFolder };
    const place = join(folder, String(segments));
    const start = performance.now();
    const run = await runSegments(work, engines, { folder: place, artefactFolder: join(place, 'outputs') });
    const wholeMs = performance.now() - start;
    const index = segments >> 1;
    const state = segments === 1 ? undefined : await readState(spec, place, index);
    const replayStart = performance.now();
    const replay = await replaySegment(work, engines, { index, ...(state && { state }) });
    if (replay.endHash !== run.commitment.leaves[index + 1]?.stateHash) throw new Error('the replay differs');
    const replayMs = performance.now() - replayStart;
    print(
      `word count in ${segments} segments: ${wholeMs.toFixed(0)} ms with its states (${(run.statesBytes / 1e6).toFixed(1)} MB kept); one segment again: ${replayMs.toFixed(0)} ms (its worker, module and a state of ${((state?.length ?? 0) / 1e6).toFixed(1)} MB are most of it)`,
    );
  };
  for (const segments of [1, 16, 128]) await time(segments);
}

function specOf(segments: number): JobSpec {
  return {
    format: 'millrace-job/1',
    runtime: runtimeOf('module', 'wasm-strict'),
    program: { kind: 'module', source: `sha256:${'0'.repeat(64)}` },
    argv: ['module'],
    env: {},
    inputs: [],
    outputs: [],
    seed: '1',
    limits: { memoryBytes: MEMORY_BYTES, milliCpus: 1000, processes: 1, diskBytes: 1 << 20, wallSeconds: 600, outputBytes: 65_536 },
    determinism: 'wasm-strict',
    segments,
    canonicaliser: 'bytes',
    thresholdPpm: 0,
  };
}

function showCommitments(): void {
  const hash: Hex = `0x${'5a'.repeat(32)}`;
  for (const segments of [16, 1024]) {
    const states = Array.from({ length: segments + 1 }, () => hash);
    const commitment = commitStates(hash, states);
    const leaf = proveLeaf(commitment, segments >> 1);
    // The clock of processor time is too coarse for one small tree.
    const times = Math.ceil(4096 / segments);
    const makeMs =
      cpuMsOf(
        () => {
          for (let round = 0; round < times; round += 1) commitStates(hash, states);
        },
        () => {},
      ) / times;
    const checkMs = cpuMsOf(
      () => {
        for (let round = 0; round < 100; round += 1) isLeafOf(commitment.root, segments, leaf);
      },
      () => {},
    );
    print(
      `a commitment to ${segments} segments: ${(makeMs * 1000).toFixed(0)} µs of CPU; a leaf checked: ${((checkMs * 1000) / 100).toFixed(0)} µs`,
    );
  }
}

try {
  await showCode();
  const start = performance.now();
  const engine = await StrictEngine.open();
  print(`the engine, with its known-answer test: ${(performance.now() - start).toFixed(0)} ms`);
  await showStates(engine);
  await showRun(engine);
  showCommitments();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
