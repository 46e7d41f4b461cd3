import { createHash } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { Directory, Fd, File, type Inode, OpenFile, PreopenDirectory, WASI, WASIProcExit } from '@bjorn3/browser_wasi_shim';
import type { WasmOutcome, WasmTask } from './wasm-executor.ts';

/** Errors of WASI preview 1. */
const SUCCESS = 0;
const NOT_SUPPORTED = 58;
const NO_SPACE = 51;
const ENTRY_BYTES = 1024;
const CLOCK_STEP_NS = 1_000_000n;
const TRAPPED = 134;
const PAGE_BYTES = 65_536;

type Call = (...args: never[]) => number;

const task = workerData as WasmTask;
const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object, imports: object) => { exports: { memory: { buffer: ArrayBuffer }; _start(): unknown } };
  };
};

class OutputEnded extends Error {}

/** A standard stream: what is written goes to whoever watches, up to the limit that both streams share. */
class LogStream extends Fd {
  static left = task.limits.outputBytes;
  readonly stream: 'stdout' | 'stderr';
  constructor(stream: 'stdout' | 'stderr') {
    super();
    this.stream = stream;
  }
  override fd_write(data: Uint8Array): { ret: number; nwritten: number } {
    const piece = data.slice(0, LogStream.left);
    LogStream.left -= piece.length;
    if (piece.length > 0) post({ kind: 'log', stream: this.stream, bytes: piece });
    if (piece.length < data.length) throw new OutputEnded();
    return { ret: SUCCESS, nwritten: piece.length };
  }
}

const post = (outcome: WasmOutcome) => parentPort?.postMessage(outcome);

function treeOf(files: WasmTask['input']): Map<string, Inode> {
  const root = new Map<string, Inode>();
  for (const { path, bytes } of files) {
    const parts = path.split('/');
    let folder = root;
    for (const part of parts.slice(0, -1)) {
      if (!folder.has(part)) folder.set(part, new Directory(new Map()));
      folder = (folder.get(part) as Directory).contents;
    }
    folder.set(parts.at(-1) as string, new File(bytes, { readonly: true }));
  }
  return root;
}

function filesOf(contents: Map<string, Inode>, prefix = ''): { path: string; bytes: Uint8Array }[] {
  return [...contents].flatMap(([name, inode]) => {
    if (inode instanceof Directory) return filesOf(inode.contents, `${prefix}${name}/`);
    return inode instanceof File ? [{ path: prefix + name, bytes: inode.data }] : [];
  });
}

/** Calls that answer the same in every run, and that hold what is written to the limit of the disk: bytes written in all count. */
function guard(calls: Record<string, Call>, memory: () => ArrayBuffer): Record<string, unknown> {
  let now = 0n;
  let drawn = 0;
  let left = task.limits.diskBytes;
  const view = () => new DataView(memory());
  const spend = (bytes: number) => {
    if (!(bytes >= 0 && bytes <= left)) {
      isDiskFull = true;
      return false;
    }
    left -= bytes;
    return true;
  };
  const lengthOf = (vectors: number, count: number) => {
    let sum = 0;
    for (let index = 0; index < count; index += 1) sum += view().getUint32((vectors >>> 0) + 8 * index + 4, true);
    return sum;
  };
  const original = (name: string) => calls[name] as (...args: unknown[]) => number;
  const tick = (_id: number, _precision: bigint, at: number) => {
    now += CLOCK_STEP_NS;
    view().setBigUint64(at >>> 0, now, true);
    return SUCCESS;
  };
  return {
    ...calls,
    clock_time_get: tick,
    clock_res_get: (_id: number, at: number) => {
      view().setBigUint64(at >>> 0, CLOCK_STEP_NS, true);
      return SUCCESS;
    },
    random_get: (at: number, length: number) => {
      const target = new Uint8Array(memory(), at >>> 0, length >>> 0);
      for (let offset = 0; offset < target.length; offset += 32) {
        drawn += 1;
        target.set(
          createHash('sha256')
            .update(`millrace ${drawn}`)
            .digest()
            .subarray(0, Math.min(32, target.length - offset)),
          offset,
        );
      }
      return SUCCESS;
    },
    poll_oneoff: () => NOT_SUPPORTED,
    fd_write: (fd: number, vectors: number, count: number, written: number) =>
      fd > 2 && !spend(lengthOf(vectors, count)) ? NO_SPACE : original('fd_write')(fd, vectors, count, written),
    fd_pwrite: (fd: number, vectors: number, count: number, offset: bigint, written: number) =>
      spend(Number(offset) + lengthOf(vectors, count)) ? original('fd_pwrite')(fd, vectors, count, offset, written) : NO_SPACE,
    fd_allocate: (fd: number, offset: bigint, length: bigint) =>
      spend(Number(offset) + Number(length)) ? original('fd_allocate')(fd, offset, length) : NO_SPACE,
    fd_filestat_set_size: (fd: number, size: bigint) => (spend(Number(size)) ? original('fd_filestat_set_size')(fd, size) : NO_SPACE),
    fd_seek: (fd: number, offset: bigint, whence: number, at: number) =>
      offset > 0n && !spend(Number(offset)) ? NO_SPACE : original('fd_seek')(fd, offset, whence, at),
    path_create_directory: (...args: unknown[]) => (spend(ENTRY_BYTES) ? original('path_create_directory')(...args) : NO_SPACE),
    path_open: (...args: unknown[]) => (((args[4] as number) & 1) === 0 || spend(ENTRY_BYTES) ? original('path_open')(...args) : NO_SPACE),
  };
}

let isDiskFull = false;

function runTask(): void {
  const output = new PreopenDirectory('/output', new Map<string, Inode>());
  const input = new PreopenDirectory('/input', treeOf(task.input));
  const descriptors = [new OpenFile(new File([])), new LogStream('stdout'), new LogStream('stderr'), output, input];
  const env = Object.entries(task.env).map(([name, value]) => `${name}=${value}`);
  const wasi = new WASI(task.argv, env, descriptors, { debug: false });
  let code = 0;
  let detail: string | undefined;
  let isOutputFull = false;
  let memoryBytes = 0;
  try {
    const module = new webAssembly.Module(task.module);
    let exports: { memory: { buffer: ArrayBuffer }; _start(): unknown };
    const imports = guard(wasi.wasiImport as unknown as Record<string, Call>, () => exports.memory.buffer);
    exports = new webAssembly.Instance(module, { wasi_snapshot_preview1: imports }).exports;
    try {
      code = wasi.start({ exports } as never);
    } finally {
      memoryBytes = exports.memory.buffer.byteLength;
    }
  } catch (error) {
    isOutputFull = error instanceof OutputEnded;
    code = error instanceof WASIProcExit ? error.code : TRAPPED;
    detail = (error as Error).message.slice(0, 300);
  }
  const isMemoryFull = memoryBytes + PAGE_BYTES > task.limits.memoryBytes;
  const files = isOutputFull ? [] : filesOf(output.dir.contents);
  const { user, system } = process.threadCpuUsage();
  post({ kind: 'end', code, detail, isOutputFull, isDiskFull, isMemoryFull, memoryBytes, cpuMs: (user + system) / 1000, files });
}

runTask();
