import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildModule } from '../../tools/examples.ts';
import { type StrictChange, StrictEngine, type StrictLimits, type StrictRun } from './strict-engine.ts';
import { decodeStrictState, encodeStrictState, hashWholeState, STATE_PAGE_BYTES, type StrictState } from './strict-state.ts';

const MEMORY_BYTES = 4 * 65_536;
const LIMITS: StrictLimits = { memoryBytes: MEMORY_BYTES, fuelPerSegment: 1_000_000n, wallSeconds: 20, outputBytes: 65_536 };
/** What every module of these tests has besides its own: room for the input at 0, and an output that is the first 1,024 bytes. */
const FRAME = `
  (func (export "allocate") (param i32) (result i32) (i32.const 0))
  (func (export "output") (result i64) (i64.const 1024))`;

const engine = await StrictEngine.open();

function moduleOf(parts: { memory?: string; begin?: string; segment?: string; more?: string }): string {
  return `(module ${parts.memory ?? '(memory 1)'} ${parts.more ?? ''} ${FRAME}
    (func (export "begin") (param i32 i32 i32) ${parts.begin ?? ''})
    (func (export "segment") (param i32) ${parts.segment ?? ''}))`;
}

async function start(text: string, input: Uint8Array = new Uint8Array(), limits = LIMITS): Promise<StrictRun> {
  return await engine.start({ module: await buildModule('test', text), input, segments: 4, limits });
}

/** Runs one segment and gives the state after it with the first 1,024 bytes of memory. */
async function runOnce(text: string, input?: Uint8Array): Promise<{ change: StrictChange; output: Uint8Array }> {
  const run = await start(text, input);
  const change = await run.step(0);
  return { change, output: (await run.output()).bytes };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test('whatever arithmetic makes of what is no number has the same bits, alone and in vectors', async () => {
  const cases = [
    '(f64.sqrt (f64.const -1))',
    '(f64.div (f64.const 0) (f64.const 0))',
    '(f64.neg (f64.neg (f64.sub (f64.const inf) (f64.const inf))))',
    '(f64.add (f64.const nan:0x123456789) (f64.const 1))',
    '(f64.add (f64.const -nan:0x4000000000001) (f64.const nan:0x2))',
    '(f64.max (f64.const -nan:0x7) (f64.const 3))',
    '(f64.nearest (f64.const -nan:0x7))',
    '(f64.promote_f32 (f32.const -nan:0x7))',
    '(f64.promote_f32 (f32.demote_f64 (f64.const -nan:0x123456789)))',
    '(f64x2.extract_lane 1 (f64x2.mul (v128.const f64x2 1 -nan:0x7) (v128.const f64x2 1 1)))',
    '(f64.promote_f32 (f32x4.extract_lane 3 (f32x4.sqrt (v128.const f32x4 1 1 1 -1))))',
    '(f64.mul (f64.add (f64.const -nan:0x9) (f64.const 1)) (f64.const 2))',
  ];
  const { output } = await runOnce(
    moduleOf({ segment: cases.map((each, index) => `(f64.store (i32.const ${8 * index}) ${each})`).join('') }),
  );
  for (const index of cases.keys()) assert.equal(hex(output.subarray(8 * index, 8 * index + 8)), '000000000000f87f', cases[index]);
});

test('bits that are only moved stay as they are, those of signalling NaNs too', async () => {
  const cases = [
    ['(f64.const -nan:0x123)', 'fff0000000000123'],
    ['(f64.neg (f64.const nan:0x123))', 'fff0000000000123'],
    ['(f64.abs (f64.const -nan:0x123))', '7ff0000000000123'],
    ['(f64.copysign (f64.const nan:0x123) (f64.const -1))', 'fff0000000000123'],
    ['(f64.load (i32.const 512))', 'fff3456789abcdef'],
    ['(select (f64.const nan:0x123) (f64.const 0) (i32.const 1))', '7ff0000000000123'],
    ['(f64.reinterpret_i64 (i64.const 0xfff0000000000123))', 'fff0000000000123'],
  ] as const;
  const { output } = await runOnce(
    moduleOf({
      more: '(data (i32.const 512) "\\ef\\cd\\ab\\89\\67\\45\\f3\\ff")',
      segment: cases.map(([each], index) => `(f64.store (i32.const ${8 * index}) ${each})`).join(''),
    }),
  );
  for (const [index, [text, due]] of cases.entries()) assert.equal(hex(output.slice(8 * index, 8 * index + 8).reverse()), due, text);
});

test('the code that is written again calculates as JavaScript does, bit for bit', async () => {
  const operations = ['add', 'sub', 'mul', 'div', 'min', 'max'] as const;
  const segment = operations
    .map((name, index) => `(f64.store (i32.const ${16 + 8 * index}) (f64.${name} (f64.load (i32.const 0)) (f64.load (i32.const 8))))`)
    .concat('(f64.store (i32.const 64) (f64.sqrt (f64.mul (f64.load (i32.const 0)) (f64.add (f64.load (i32.const 8)) (f64.const 1)))))')
    .join('');
  const text = moduleOf({ segment });
  const due = (a: number, b: number) => [a + b, a - b, a * b, a / b, Math.min(a, b), Math.max(a, b), Math.sqrt(a * (b + 1))];
  const double = fc.oneof(fc.double(), fc.constantFrom(0, -0, Number.NaN, Infinity, -Infinity, Number.MIN_VALUE, Number.MAX_VALUE));
  await fc.assert(
    fc.asyncProperty(double, double, async (a, b) => {
      const { output } = await runOnce(text, new Uint8Array(Float64Array.of(a, b).buffer));
      const found = [...new BigUint64Array(output.slice(16, 72).buffer)];
      assert.deepEqual(
        found,
        due(a, b).map((value) => (Number.isNaN(value) ? 0x7ff8000000000000n : new BigUint64Array(Float64Array.of(value).buffer)[0])),
      );
    }),
    { numRuns: 6 },
  );
});

const ALL_FEATURES = {
  threads: true,
  tail_call: true,
  multi_memory: true,
  extended_const: true,
  relaxed_simd: true,
  memory64: true,
  exceptions: true,
};

test('a module that could do otherwise elsewhere, or hide what it knows, is refused', async () => {
  const refused: [Parameters<typeof moduleOf>[0], RegExp][] = [
    [{ memory: '(import "env" "now" (func (result i64))) (memory 1)' }, /imports nothing/],
    [{ memory: '(memory 1) (memory 1)' }, /one memory/],
    [{ memory: '' }, /one memory/],
    [{ memory: '(memory 5)' }, /begins with 5 pages; its limits allow 4/],
    [{ memory: '(memory 1 2 shared)' }, /shared/],
    [{ memory: '(memory i64 1)' }, /64 bits/],
    [{ more: '(func (drop (i32.atomic.load (i32.const 0))))' }, /not strict/],
    [{ more: '(func (drop (f32x4.relaxed_madd (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0))))' }, /relaxed/],
    [{ more: '(table 1 funcref) (func (table.set (i32.const 0) (ref.null func)))' }, /not strict/],
    [{ more: '(table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))' }, /not strict/],
    [{ more: '(table 1 externref)' }, /something else than functions/],
    [{ more: '(data "x")' }, /passive/],
    [{ more: '(data $d "x") (func (data.drop $d))' }, /drops segments/],
    [{ more: '(tag)' }, /section 13/],
    [{ more: '(func (return_call 0 (i32.const 1)) (unreachable))' }, /not strict/],
    [{ more: '(global (mut v128) (v128.const i64x2 0 0))' }, /v128, which cannot be kept/],
    [{ more: '(global (mut f64) (f64.const nan:0x1))' }, /begins as no number/],
    [{ more: '(global (mut funcref) (ref.null func))' }, /of the type 0x70/],
    [{ more: '(global i32 (i32.add (i32.const 1) (i32.const 2)))' }, /more than one constant/],
    [{ more: '(func (result i32 i32) (i32.const 1) (i32.const 2))' }, /more than one result/],
    [{ more: '(func (param externref))' }, /of the type 0x6f/],
  ];
  for (const [parts, message] of refused) {
    const text = moduleOf(parts).replace(/return_call 0.*?unreachable\)/, 'return_call $done)');
    const named = text.includes('$done') ? text.replace('(module', '(module (func $done)') : text;
    const module = await buildModule('test', named, ALL_FEATURES);
    const begun = engine.start({ module, input: new Uint8Array(), segments: 1, limits: LIMITS });
    await assert.rejects(begun, { code: 'bad-image', message }, JSON.stringify(parts));
  }
  const without = (await buildModule('test', moduleOf({}))).map((byte) => byte);
  const renamed = Buffer.from(Buffer.from(without).toString('latin1').replace('segment', 'segmenz'), 'latin1');
  await assert.rejects(
    engine.start({ module: renamed, input: new Uint8Array(), segments: 1, limits: LIMITS }),
    /does not export the function segment/,
  );
});

test('code cannot reach what the engine adds to it: its globals, its locals, the place behind its last block', async () => {
  const good = Buffer.from(
    await buildModule(
      'test',
      moduleOf({
        segment: '(local i32) (local.set 1 (i32.const 5)) (block (br 1)) (global.set 0 (i32.const 7))',
        more: '(global (mut i32) (i32.const 0))',
      }),
    ),
  );
  const swap = (from: number[], to: number[]) => {
    const at = good.indexOf(Uint8Array.from(from));
    assert.notEqual(at, -1);
    return Buffer.concat([good.subarray(0, at), Uint8Array.from(to), good.subarray(at + from.length)]);
  };
  const attempts: [Buffer, RegExp][] = [
    [swap([0x41, 7, 0x24, 0], [0x41, 7, 0x24, 2]), /local or global that is not there/],
    [swap([0x41, 5, 0x21, 1], [0x41, 5, 0x21, 2]), /local or global that is not there/],
    [swap([0x0c, 1], [0x0c, 2]), /branch leads out/],
  ];
  for (const [module, message] of attempts) {
    await assert.rejects(engine.start({ module, input: new Uint8Array(), segments: 1, limits: LIMITS }), { code: 'bad-image', message });
  }
});

test('a module that never ends, or moves too much, ends without fuel, always at the same instruction', async () => {
  const counting = '(loop (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (br 0))';
  for (const segment of [counting, '(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))']) {
    const { change, output } = await runOnce(moduleOf({ segment }));
    assert.deepEqual([change.end, change.fuelUsed, change.pages.length, output.length], ['fuel', LIMITS.fuelPerSegment, 0, 0]);
  }
});

test('calls without end trap long before the stack of the machine does, also with the largest frames', async () => {
  const locals = Array.from({ length: 9_000 }, () => 'v128').join(' ');
  const deep = [
    '(func $deep (param i32) (call $deep (local.get 0)))',
    `(func $deep (param i32) (local ${locals}) (call $deep (local.get 0)))`,
  ];
  for (const more of deep) {
    const { change } = await runOnce(moduleOf({ more, segment: '(call $deep (i32.const 1))' }));
    assert.equal(change.end, 'depth');
  }
  const fair =
    '(func $sum (param i32) (result i32) (if (result i32) (local.get 0) (then (return (i32.add (local.get 0) (call $sum (i32.sub (local.get 0) (i32.const 1)))))) (else (i32.const 0))))';
  const { change, output } = await runOnce(moduleOf({ more: fair, segment: '(i32.store (i32.const 0) (call $sum (i32.const 20000)))' }));
  assert.equal(change.end, 'running');
  assert.equal(new DataView(output.buffer).getUint32(0, true), 200_010_000);
});

test('a trap ends the job for ever in one state without memory, and its output is empty', async () => {
  const run = await start(
    moduleOf({ segment: '(i32.store (i32.const 0) (i32.div_u (i32.const 1) (i32.eq (local.get 0) (i32.const 0))))' }),
  );
  const first = await run.step(0);
  const second = await run.step(1);
  const third = await run.step(2);
  assert.deepEqual([first.end, second.end, third.end], ['running', 'trap', 'trap']);
  assert.equal(third.stateHash, second.stateHash);
  assert.deepEqual(await run.output(), { bytes: new Uint8Array(), isTooLong: false });
  const elsewhere = await runOnce(moduleOf({ segment: '(unreachable)' }));
  assert.equal(elsewhere.change.stateHash, second.stateHash);
});

test('memory has one size: growing it fails, and what is beyond it traps', async () => {
  const { output } = await runOnce(
    moduleOf({
      memory: '(memory 1 100)',
      segment: '(i32.store (i32.const 0) (memory.grow (i32.const 1))) (i32.store (i32.const 4) (memory.size))',
    }),
  );
  assert.deepEqual([...new Int32Array(output.slice(0, 8).buffer)], [-1, 4]);
  const { change } = await runOnce(moduleOf({ segment: `(i32.store8 (i32.const ${MEMORY_BYTES}) (i32.const 1))` }));
  assert.equal(change.end, 'trap');
});

const WALK = moduleOf({
  more: `(global $f (mut f64) (f64.const 1)) (global $g (mut i64) (i64.const -5)) (global $h (mut f32) (f32.const 0.1)) (global $i (mut i32) (i32.const 9))
    (table 2 funcref) (elem (i32.const 0) $one $two)
    (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
    (func $start (i32.store (i32.const 2000) (i32.const 77))) (start $start)`,
  segment: `(global.set $f (f64.sqrt (f64.sub (global.get $f) (f64.const 3)))) (global.set $h (f32.div (global.get $h) (f32.const 3)))
    (global.set $g (i64.mul (global.get $g) (i64.const 6364136223846793005)))
    (global.set $i (i32.add (global.get $i) (call_indirect (result i32) (i32.and (local.get 0) (i32.const 1)))))
    (i64.store (i32.wrap_i64 (i64.and (global.get $g) (i64.const 0x3fff8))) (global.get $g))
    (f64.store (i32.const 8) (global.get $f))`,
});

test('a segment that begins with a state that was handed over ends as in the run from the beginning', async () => {
  const run = await start(WALK);
  const state: StrictState = { end: 'running', globals: new Uint8Array(), pageCount: MEMORY_BYTES / STATE_PAGE_BYTES, pages: new Map() };
  const keep = ({ globals, pages }: StrictChange) => {
    state.globals = globals;
    for (const { page, content } of pages) content === undefined ? state.pages.delete(page) : state.pages.set(page, content);
  };
  keep(run.change);
  const module = await buildModule('test', WALK);
  for (let index = 0; index < 4; index += 1) {
    assert.equal(hashWholeState(state), run.change.stateHash);
    const handedOver = encodeStrictState(state);
    assert.deepEqual(encodeStrictState(decodeStrictState(handedOver, MEMORY_BYTES)), handedOver);
    const replay = await engine.start({ module, input: new Uint8Array(), segments: 4, limits: LIMITS }, { state: handedOver });
    assert.equal(replay.change.stateHash, run.change.stateHash);
    const [again, first] = [await replay.step(index), await run.step(index)];
    await replay.close();
    assert.equal(again.stateHash, first.stateHash);
    keep(first);
  }
  await run.close();
});

test('bytes that are no state are refused, and a changed bit is another state', async () => {
  const run = await start(WALK);
  const pages = new Map(run.change.pages.flatMap(({ page, content }) => (content === undefined ? [] : [[page, content] as const])));
  await run.close();
  const good = encodeStrictState({ end: 'running', globals: run.change.globals, pageCount: MEMORY_BYTES / STATE_PAGE_BYTES, pages });
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ change;
      let hash = '';
      try {
        hash = hashWholeState(decodeStrictState(bad, MEMORY_BYTES));
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'bad-state');
      }
      assert.notEqual(hash, run.change.stateHash);
    }),
  );
  for (const bytes of [good.subarray(0, 10), good.subarray(0, -1), Buffer.concat([good, good]), Buffer.from('MRST')]) {
    assert.throws(() => decodeStrictState(bytes, MEMORY_BYTES), { code: 'bad-state' });
  }
});

test('a segment that this machine does not finish in time is nobody\u2019s fault and no state', async () => {
  const text = moduleOf({ segment: '(loop (br 0))' });
  const begun = async () => await (await start(text, new Uint8Array(), { ...LIMITS, fuelPerSegment: 2n ** 61n, wallSeconds: 1 })).step(0);
  await assert.rejects(begun(), { code: 'strict-time-over', actor: 'host' });
});

test('an engine whose known answer differs neither runs nor judges', async () => {
  const wrong = ['0x00', '0x01', '0x02'];
  await assert.rejects(StrictEngine.open({ knownAnswer: wrong }), { code: 'strict-engine-unfit', actor: 'host' });
  await assert.rejects(StrictEngine.open({ knownAnswer: [] }), { code: 'strict-engine-unfit' });
});

test('the known answer is the same from the first compiler, from the optimising one, and without newer instructions of the processor', () => {
  const program = join(import.meta.dirname, 'strict-engine.ts');
  for (const flags of [['--liftoff-only'], ['--no-liftoff'], ['--no-enable-fma3', '--no-enable-avx']]) {
    const code = `import { StrictEngine } from ${JSON.stringify(program)}; await StrictEngine.open(); console.log('fit');`;
    assert.equal(
      execFileSync(process.execPath, [...flags, '--input-type=module', '-e', code], { encoding: 'utf8' }),
      'fit\n',
      flags.join(' '),
    );
  }
});
