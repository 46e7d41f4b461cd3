import { parentPort, workerData } from 'node:worker_threads';
import type { StrictAnswer, StrictOutput, StrictQuestion, StrictTask } from './strict-engine.ts';
import { VALUE_TYPES } from './strict-instructions.ts';
import {
  decodeStrictState,
  GLOBAL_BYTES,
  hashPage,
  hashStrictState,
  isZeroPage,
  STATE_PAGE_BYTES,
  type StrictEnd,
  zeroPageHashes,
} from './strict-state.ts';

type GlobalValue = { value: number | bigint };
interface Exports {
  memory: { buffer: ArrayBuffer };
  fuel: { value: bigint };
  depth: { value: number };
  start?: () => void;
  allocate(bytes: number): number;
  begin(pointer: number, bytes: number, segments: number): void;
  segment(index: number): void;
  output(): bigint;
}

/** Units of depth; a unit is at most 16 bytes of stack, and the worker has twice as much. */
const DEPTH = 1 << 20;
const HASH_BYTES = 32;
const CHUNK_BYTES = 1 << 20;
const NO_NUMBER = { f32: 0x7fc00000n, f64: 0x7ff8000000000000n };

const task = workerData as StrictTask;
const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object, imports: object) => { exports: Exports };
    RuntimeError: new () => Error;
  };
};

const { exports } = new webAssembly.Instance(new webAssembly.Module(task.module), {});
const memory = Buffer.from(exports.memory.buffer);
const globals = task.globals.map((_, order) => (exports as unknown as Record<string, GlobalValue>)[`global${order}`] as GlobalValue);
/** The memory as it was at the last state, and the hash of each of its pages. */
const before = Buffer.alloc(memory.length);
const pageHashes = zeroPageHashes(memory.length / STATE_PAGE_BYTES);
let end: StrictEnd = 'running';

/** Calls into the module with full fuel and depth; how it ended, and what it took. */
function call<T>(run: () => T): { result: T | undefined; fuelUsed: bigint } {
  exports.fuel.value = task.fuel;
  exports.depth.value = DEPTH;
  let result: T | undefined;
  try {
    result = run();
  } catch (error) {
    if (!(error instanceof webAssembly.RuntimeError)) throw error;
    end = exports.fuel.value < 0n ? 'fuel' : exports.depth.value < 0 ? 'depth' : 'trap';
  }
  const left = exports.fuel.value < 0n ? 0n : exports.fuel.value;
  return { result, fuelUsed: task.fuel - left };
}

function begin(input: Uint8Array, segments: number): bigint {
  let fuelUsed = 0n;
  const next = <T>(run: () => T): T | undefined => {
    if (end !== 'running') return undefined;
    const called = call(run);
    fuelUsed += called.fuelUsed;
    return called.result;
  };
  if (exports.start !== undefined) next(exports.start);
  const pointer = (next(() => exports.allocate(input.length)) ?? 0) >>> 0;
  if (end === 'running' && pointer + input.length > memory.length) end = 'trap';
  if (end === 'running') memory.set(input, pointer);
  next(() => exports.begin(pointer, input.length, segments));
  return fuelUsed;
}

function restore(bytes: Uint8Array): void {
  const state = decodeStrictState(bytes, memory.length);
  end = state.end;
  if (end !== 'running') return;
  memory.fill(0);
  for (const [page, content] of state.pages) memory.set(content, page * STATE_PAGE_BYTES);
  const view = new DataView(state.globals.buffer, state.globals.byteOffset, state.globals.byteLength);
  for (const [order, type] of task.globals.entries()) {
    const at = order * GLOBAL_BYTES + 1;
    const global = globals[order] as GlobalValue;
    if (type === 'i32') global.value = view.getInt32(at, true);
    else if (type === 'i64') global.value = view.getBigInt64(at, true);
    else global.value = type === 'f32' ? view.getFloat32(at, true) : view.getFloat64(at, true);
  }
}

function readGlobals(): Uint8Array {
  const bytes = Buffer.alloc(globals.length * GLOBAL_BYTES);
  for (const [order, type] of task.globals.entries()) {
    const at = order * GLOBAL_BYTES + 1;
    const { value } = globals[order] as GlobalValue;
    bytes.writeUInt8(VALUE_TYPES[type], at - 1);
    if (type === 'i32') bytes.writeInt32LE(value as number, at);
    else if (type === 'i64') bytes.writeBigInt64LE(value as bigint, at);
    else if (Number.isNaN(value)) bytes.writeBigUInt64LE(NO_NUMBER[type], at);
    else if (type === 'f32') bytes.writeFloatLE(value as number, at);
    else bytes.writeDoubleLE(value as number, at);
  }
  return bytes;
}

/** Pages that differ from the last state; remembers them. */
function takeChanges(): number[] {
  const changed: number[] = [];
  for (let from = 0; from < memory.length; from += CHUNK_BYTES) {
    const to = Math.min(from + CHUNK_BYTES, memory.length);
    if (memory.compare(before, from, to, from, to) === 0) continue;
    for (let at = from; at < to; at += STATE_PAGE_BYTES) {
      if (memory.compare(before, at, at + STATE_PAGE_BYTES, at, at + STATE_PAGE_BYTES) !== 0) changed.push(at / STATE_PAGE_BYTES);
    }
  }
  for (const page of changed) {
    const content = memory.subarray(page * STATE_PAGE_BYTES, (page + 1) * STATE_PAGE_BYTES);
    before.set(content, page * STATE_PAGE_BYTES);
    pageHashes.set(hashPage(content), page * HASH_BYTES);
  }
  return changed;
}

function tell(fuelUsed: bigint): StrictAnswer {
  if (end !== 'running') {
    const nothing = new Uint8Array();
    const stateHash = hashStrictState({ end, globals: nothing, pageHashes: nothing });
    return { kind: 'state', change: { end, globals: nothing, stateHash, fuelUsed, pages: [] } };
  }
  const stateGlobals = readGlobals();
  const pages = takeChanges().map((page) => {
    const content = Uint8Array.from(before.subarray(page * STATE_PAGE_BYTES, (page + 1) * STATE_PAGE_BYTES));
    return { page, content: isZeroPage(content) ? undefined : content };
  });
  const stateHash = hashStrictState({ end, globals: stateGlobals, pageHashes });
  return { kind: 'state', change: { end, globals: stateGlobals, stateHash, fuelUsed, pages } };
}

function readOutput(bytesMax: number): StrictOutput {
  const nothing = { bytes: new Uint8Array(), isTooLong: false };
  if (end !== 'running') return nothing;
  const place = BigInt.asUintN(64, call(() => exports.output()).result ?? 0n);
  const [pointer, length] = [Number(place >> 32n), Number(place & 0xffffffffn)];
  if (pointer + length > memory.length) return nothing;
  return length > bytesMax
    ? { ...nothing, isTooLong: true }
    : { ...nothing, bytes: Uint8Array.from(memory.subarray(pointer, pointer + length)) };
}

function answer(question: StrictQuestion): StrictAnswer {
  if (question.kind === 'begin') return tell(begin(question.input, question.segments));
  if (question.kind === 'segment') return tell(end === 'running' ? call(() => exports.segment(question.index)).fuelUsed : 0n);
  if (question.kind === 'output') return { kind: 'output', ...readOutput(question.bytesMax) };
  restore(question.state);
  return tell(0n);
}

parentPort?.on('message', (question: StrictQuestion) => parentPort?.postMessage(answer(question)));
