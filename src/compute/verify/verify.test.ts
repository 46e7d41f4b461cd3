import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { buildExamples } from '../../../tools/examples.ts';
import { type Executor, type Job, StrictEngine, WasmExecutor } from '../../host/index.ts';
import { wasmModule } from '../../host/wasm-programs.cases.ts';
import { type JobSpec, runtimeOf } from '../spec/job-spec.ts';
import { canonicalise } from './canonical-output.ts';
import type { JobEngines } from './engines.ts';
import { replaySegment } from './replay-segment.ts';
import { readState, runSegments } from './run-segments.ts';
import { simulationRandom } from './simulation-random.ts';
import { stateHashOf } from './state-hash.ts';
import { type JobWork, strictMemoryBytes } from './work.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-verify-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const MODULE = join(import.meta.dirname, '../../../examples/word-count/word-count.wasm');
const TEXT = 'The mill grinds.\nThe mill-race leads water to the mill; water, 2 wheels and a Mühle.\n';
const strict = await StrictEngine.open();
const engines: JobEngines = { strict, executors: [] };

const SPEC: JobSpec = {
  format: 'millrace-job/1',
  runtime: runtimeOf('module', 'wasm-strict'),
  program: { kind: 'module', source: `sha256:${createHash('sha256').update(readFileSync(MODULE)).digest('hex')}` },
  argv: ['module'],
  env: {},
  inputs: [],
  outputs: [],
  seed: '3',
  limits: { memoryBytes: 4 << 20, milliCpus: 1000, processes: 1, diskBytes: 1 << 20, wallSeconds: 20, outputBytes: 65_536 },
  determinism: 'wasm-strict',
  segments: 6,
  canonicaliser: 'bytes',
  thresholdPpm: 0,
};

function workOf(name: string, spec: Partial<JobSpec> = {}, files: Record<string, string> = { 'b/text': TEXT, a: 'water' }): JobWork {
  const inputFolder = join(folder, name, 'input');
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(inputFolder, path, '..'), { recursive: true });
    writeFileSync(join(inputFolder, path), content);
  }
  return { spec: { ...SPEC, ...spec }, programPath: MODULE, inputFolder };
}

const placeOf = (name: string) => ({ folder: join(folder, name, 'run'), artefactFolder: join(folder, name, 'outputs') });

test('the committed modules of the examples are what their sources give', async () => {
  for (const { path, bytes } of await buildExamples())
    assert.ok(readFileSync(path).equals(bytes), `${path}: run sh tools/node.sh tools/examples.ts`);
});

test('words are counted as JavaScript counts them, in any number of segments', async () => {
  const words = `water\n${TEXT}`.toLowerCase().match(/[a-z0-9\u0080-\uffff]+/g) ?? [];
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const due = [...counts].sort(([, one], [, other]) => other - one).slice(0, 20);
  for (const segments of [1, 7]) {
    const [work, place] = [workOf(`words-${segments}`, { segments }), placeOf(`words-${segments}`)];
    const { artefacts, end, commitment } = await runSegments(work, engines, place);
    const lines = readFileSync(join(place.artefactFolder, artefacts[0]?.cid as string), 'utf8').split('\n');
    assert.deepEqual(lines.slice(0, 4), [
      'lines 2',
      `words ${words.length}`,
      `bytes ${Buffer.byteLength(`water${TEXT}`)}`,
      `distinct ${counts.size}`,
    ]);
    assert.deepEqual(
      lines.slice(4, -1),
      due.map(([word, count]) => `${count} ${word}`),
    );
    assert.deepEqual([end, commitment.leaves.length], ['exit 0', segments + 1]);
  }
});

test('every segment replays alone to what was committed to, and the last one gives the output digest', async () => {
  const [work, place] = [workOf('replay'), placeOf('replay')];
  const { commitment, outputDigest } = await runSegments(work, engines, place);
  for (let index = 0; index < work.spec.segments; index += 1) {
    const state = await readState(work.spec, place.folder, index);
    assert.equal(stateHashOf('wasm-strict', state, strictMemoryBytes(work.spec)), commitment.leaves[index]?.stateHash);
    const replay = await replaySegment(work, engines, { index, ...(index > 0 && { state }), folder });
    assert.equal(replay.startHash, commitment.leaves[index]?.stateHash);
    assert.equal(replay.endHash, commitment.leaves[index + 1]?.stateHash);
    assert.equal(replay.outputDigest, index === work.spec.segments - 1 ? outputDigest : undefined);
  }
  assert.ok(
    readdirSync(folder).every((name) => !name.startsWith('millrace-replay-')),
    'a replay leaves nothing',
  );
});

test('training in strict code finds the weights, and anybody comes to the same ones to the last bit', async () => {
  const random = simulationRandom(8);
  const due = [0.5, -0.25, 0.75, 0.125];
  const rows = Array.from({ length: 60 }, () => {
    const features = [random.fraction() - 0.5, random.fraction() - 0.5, random.fraction() - 0.5];
    return [...features, features.reduce((sum, value, index) => sum + value * (due[index] as number), due[3] as number)];
  });
  const inputFolder = join(folder, 'fit', 'input');
  mkdirSync(inputFolder, { recursive: true });
  writeFileSync(join(inputFolder, 'rows'), Buffer.from(Float32Array.from(rows.flat()).buffer));
  const programPath = join(import.meta.dirname, '../../../examples/linear-fit/linear-fit.wasm');
  const work = { spec: { ...SPEC, argv: ['module', '3'], segments: 60 }, programPath, inputFolder };
  const place = placeOf('fit');
  const { artefacts, commitment } = await runSegments(work, engines, place);
  const weights = new Float32Array(Uint8Array.from(readFileSync(join(place.artefactFolder, artefacts[0]?.cid as string))).buffer);
  assert.deepEqual(
    [...weights].map((weight) => Math.round(weight * 1000) / 1000),
    due,
  );
  const replay = await replaySegment(work, engines, { index: 40, state: await readState(work.spec, place.folder, 40) });
  assert.equal(replay.endHash, commitment.leaves[41]?.stateHash);
});

test('another input, seed, argument or module is another job from its first state on', async () => {
  const first = async (name: string, spec: Partial<JobSpec>, files?: Record<string, string>) =>
    (await replaySegment(workOf(name, spec, files), engines, { index: 0 })).startHash;
  const same = await first('same', {});
  assert.equal(await first('again', {}), same);
  const changes: [string, Partial<JobSpec>, Record<string, string>?][] = [
    ['seed', { seed: '4' }],
    ['argument', { argv: ['module', 'x'] }],
    ['input', {}, { 'b/text': `${TEXT}!`, a: 'water' }],
    ['path', {}, { 'c/text': TEXT, a: 'water' }],
    ['memory', { limits: { ...SPEC.limits, memoryBytes: 5 << 20 } }],
  ];
  for (const [name, spec, files] of changes) {
    assert.notEqual(await first(name, spec, files), same, name);
  }
});

test('a run that is killed anywhere goes on at its last whole state and comes to the same commitment', async () => {
  const [work, place] = [workOf('killed'), placeOf('killed')];
  const { commitment } = await runSegments(work, engines, place);
  const [name] = readdirSync(place.folder).filter((each) => each.endsWith('.states')) as [string];
  const { size } = statSync(join(place.folder, name, 'states'));
  const at = fc.sample(fc.integer({ min: 0, max: size - 1 }), { numRuns: 4, seed: 11 });
  for (const bytes of [...at, 5, size - 1]) {
    const again = { folder: join(folder, `killed-${bytes}`), artefactFolder: place.artefactFolder };
    cpSync(place.folder, again.folder, { recursive: true });
    truncateSync(join(again.folder, name, 'states'), bytes);
    let states = 0;
    const resumed = await runSegments(work, engines, {
      ...again,
      onState: () => {
        states += 1;
      },
    });
    assert.equal(resumed.commitment.root, commitment.root);
    assert.ok(states > 0 && states <= work.spec.segments);
  }
});

test('a run ends when it is told to, and when its states grow beyond their limit', async () => {
  const stopping = new AbortController();
  stopping.abort(new RangeError('stopped'));
  await assert.rejects(runSegments(workOf('stopped'), engines, { ...placeOf('stopped'), signal: stopping.signal }), /stopped/);
  await assert.rejects(runSegments(workOf('large'), engines, { ...placeOf('large'), statesBytesMax: 9_000 }), { code: 'states-too-large' });
  await assert.rejects(replaySegment(workOf('x'), engines, { index: 6 }), { code: 'bad-segments' });
  await assert.rejects(replaySegment(workOf('x'), engines, { index: 2 }), { code: 'bad-segments' });
  await assert.rejects(replaySegment(workOf('x'), engines, { index: 2, state: Buffer.from('noise') }), { code: 'bad-state' });
});

/** An engine that writes what it is told to, as a container would. */
function writer(outputs: () => Record<string, Uint8Array>): Executor {
  return {
    engine: 'wasm',
    inspect: () => Promise.reject(new RangeError('not asked')),
    importImage: async () => `sha256:${'0'.repeat(64)}`,
    async run(job: Job) {
      const target = job.artefactFolder as string;
      mkdirSync(target, { recursive: true });
      const artefacts = Object.entries(outputs()).map(([path, bytes]) => {
        const cid = createHash('sha256').update(bytes).digest('hex');
        writeFileSync(join(target, cid), bytes);
        return { path, cid, sizeBytes: bytes.length };
      });
      const usage = { wallMs: 1, cpuMs: 1, memoryBytesPeak: 1, processesRefused: 0, outputBytes: 0 };
      return { reason: 'completed', exitCode: 0, signal: undefined, usage, artefacts, detail: undefined };
    },
    close: async () => {},
  };
}

test('a whole job is compared as its specification says: lines in any order are the same, another word is not', async () => {
  const [work, place] = [
    workOf('lines', { determinism: 'exact-output', segments: 1, canonicaliser: 'lines', outputs: ['out'] }),
    placeOf('lines'),
  ];
  const write = (text: string) => ({
    strict,
    executors: [writer(() => ({ out: Buffer.from(text), log: Buffer.from(String(Math.random())) }))],
  });
  const run = await runSegments(work, write('b\na  \n'), place);
  const replay = async (engine: JobEngines) => await replaySegment(work, engine, { index: 0 });
  assert.equal((await replay(write('a\r\nb\n\n'))).endHash, run.commitment.leaves[1]?.stateHash);
  assert.equal((await replay(write('a\nb'))).outputDigest, run.outputDigest);
  assert.notEqual((await replay(write('a\nc\n'))).endHash, run.commitment.leaves[1]?.stateHash);
  for (const index of [0, 1]) {
    const state = await readState(work.spec, place.folder, index);
    assert.equal(stateHashOf('exact-output', state, 0), run.commitment.leaves[index]?.stateHash);
  }
});

test('a real engine runs a whole job again to the same digest, and a job that fails is committed to as stopped; no program stays', async () => {
  const executor = new WasmExecutor({ imageFolder: join(folder, 'images'), imageBytesMax: 0 });
  const programPath = join(folder, 'trap.wasm');
  writeFileSync(programPath, wasmModule([0x00]));
  const work = { ...workOf('real', { determinism: 'exact-output', segments: 1 }), programPath };
  const stopped = await runSegments(work, { strict, executors: [executor] }, placeOf('real-stopped'));
  assert.equal(stopped.end, 'stopped', 'a trap is a result, without outputs');
  writeFileSync(programPath, wasmModule([]));
  const good = await runSegments(work, { strict, executors: [executor] }, placeOf('real'));
  assert.equal((await replaySegment(work, { strict, executors: [executor] }, { index: 0 })).outputDigest, good.outputDigest);
  assert.deepEqual(readdirSync(join(folder, 'images')), ['.temporary']);
  await executor.close();
});

test('canonical forms are reached in one step, and JSON does not depend on the order of its keys', () => {
  fc.assert(
    fc.property(fc.string(), fc.constantFrom('text', 'lines', 'json', 'bytes'), (text, rule) => {
      const once = canonicalise(rule, Buffer.from(text));
      assert.deepEqual(Buffer.from(canonicalise(rule, once)), Buffer.from(once));
    }),
  );
  const canonical = (text: string) => Buffer.from(canonicalise('json', Buffer.from(text))).toString();
  assert.equal(canonical('{"b": [1, 2.50], "a": null}'), canonical('{"a":null,\n"b":[1,2.5]}'));
  assert.notEqual(canonical('{"a": [1, 2]}'), canonical('{"a": [2, 1]}'));
});
