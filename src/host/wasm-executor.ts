import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, lstat, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { cidOfDigest } from './artefacts.ts';
import {
  type Artefact,
  badImage,
  badJob,
  checkJob,
  type Executor,
  type ExecutorReport,
  type ImageHold,
  imageUnknown,
  type Job,
  type JobLimits,
  type JobReason,
  type JobResult,
  type RunOptions,
  sandboxFailed,
} from './executor.ts';
import { freeDiskBytes } from './facts.ts';
import { digestOf } from './image-store.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import { type ImageSource, TemporaryImages } from './temporary-images.ts';
import { limitModule } from './wasm-module.ts';

/** What the worker of a task is given. */
export interface WasmTask {
  module: Uint8Array;
  argv: string[];
  env: Record<string, string>;
  input: { path: string; bytes: Uint8Array<ArrayBuffer> }[];
  limits: JobLimits;
}

/** What the worker of a task tells. */
export type WasmOutcome =
  | { kind: 'log'; stream: 'stdout' | 'stderr'; bytes: Uint8Array }
  | {
      kind: 'end';
      code: number;
      detail: string | undefined;
      isOutputFull: boolean;
      isDiskFull: boolean;
      isMemoryFull: boolean;
      memoryBytes: number;
      cpuMs: number;
      files: { path: string; bytes: Uint8Array }[];
    };

type WasmEnd = Extract<WasmOutcome, { kind: 'end' }>;

const MODULE_BYTES_MAX = 64 << 20;
const MEMORY_BYTES_MAX = 2 ** 32;
const INPUT_FILES_MAX = 10_000;
const DEPTH_MAX = 32;
const SIGNAL_BASE = 128;
/** What JavaScript around the module may take: its own objects, not the module's memory. */
const HEAP_MIB = 64;
const NAME = /^[^\p{Cc}\\/]{1,255}$/u;

/**
 * Small tasks as WebAssembly with WASI preview 1, in memory alone: no file, clock, randomness, network or process of the machine exists for
 * them, and the same module with the same input gives the same output in every run. A worker per task, which `terminate` ends in the middle
 * of any loop. What keeps the module in is V8; who does not want to rely on that gives foreign tasks to another engine.
 */
export class WasmExecutor implements Executor {
  readonly engine = 'wasm';
  readonly #folder: string;
  readonly #temporary: TemporaryImages;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();

  /** @param options.imageBytesMax for modules that came for a time, as `SandboxOptions` has it for images */
  constructor(options: { imageFolder: string; imageBytesMax?: number }) {
    this.#folder = options.imageFolder;
    const place = {
      has: async (digest: string) =>
        await access(this.#path(digest)).then(
          () => true,
          () => false,
        ),
      discard: async (digest: string) => {
        await rm(this.#path(digest), { force: true });
        return true;
      },
      freeBytes: async () => Number(await freeDiskBytes(this.#folder)),
    };
    this.#temporary = new TemporaryImages({ folder: join(this.#folder, '.temporary'), place, bytesMax: options.imageBytesMax });
  }

  async inspect(): Promise<ExecutorReport> {
    for (const name of await readdir(this.#folder).catch(() => []))
      if (ownerIsGone(name)) await rm(join(this.#folder, name), { force: true });
    await this.#temporary.sweep().catch(() => undefined);
    return {
      engine: this.engine,
      version: `V8 ${process.versions.v8}`,
      takesForeign: true,
      missing: [],
      isolation: [
        'a linear memory with a maximum, files in memory, no call into this machine',
        'one thread at most; it ends when its time is over',
        'the clock and randomness are functions of the task',
      ],
    };
  }

  async importImage(path: string): Promise<string> {
    const source = await this.#sourceOf(path);
    await this.#temporary.keep(source);
    return source.digest;
  }

  async holdImage(path: string): Promise<ImageHold> {
    return await this.#temporary.hold(await this.#sourceOf(path));
  }

  async checkImage(path: string): Promise<void> {
    await this.#temporary.check(await (await this.#sourceOf(path)).measure());
  }

  temporaryImages(): Promise<{ images: number; bytes: number }> {
    return this.#temporary.held();
  }

  async #sourceOf(path: string): Promise<ImageSource> {
    if ((await lstat(path)).size > MODULE_BYTES_MAX) throw badImage(`it has more than ${MODULE_BYTES_MAX} bytes`);
    const bytes = await readFile(path);
    limitModule(bytes, MEMORY_BYTES_MAX);
    const digest = await digestOf(path);
    return { digest, measure: async () => bytes.length, place: async () => await this.#keepModule(digest, bytes) };
  }

  async #keepModule(digest: string, bytes: Uint8Array): Promise<void> {
    await mkdir(this.#folder, { recursive: true });
    const unfinished = join(this.#folder, `${ownerTag()}-${randomUUID()}`);
    await writeFile(unfinished, bytes, { flush: true });
    await rename(unfinished, this.#path(digest));
  }

  async #read(image: string): Promise<Uint8Array> {
    const use = await this.#temporary.use(image);
    if (use === undefined) throw imageUnknown(image, this.engine);
    return await readFile(this.#path(image)).finally(use.release);
  }

  async run(job: Job, options: RunOptions = {}): Promise<JobResult> {
    checkJob(job);
    if (job.image === undefined) throw badJob('a WASM task names its module as image');
    if (job.limits.cpus < 1) throw badJob('a WASM task takes one processor; limits.cpus must be 1');
    const bytes = await this.#read(job.image);
    const task: WasmTask = {
      module: limitModule(bytes, Math.min(job.limits.memoryBytes, MEMORY_BYTES_MAX)),
      argv: [...job.argv],
      env: { ...job.env },
      input: job.inputFolder === undefined ? [] : await readInput(job.inputFolder, job.limits.memoryBytes),
      limits: job.limits,
    };
    const running = this.#run(task, job, options);
    this.#running.add(running);
    return await running.finally(() => this.#running.delete(running));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running);
    await this.#temporary.close();
  }

  async #run(task: WasmTask, job: Job, options: RunOptions): Promise<JobResult> {
    const startMs = performance.now();
    const worker = new Worker(join(import.meta.dirname, 'wasm-worker.ts'), {
      workerData: task,
      env: {},
      stdin: false,
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB, maxYoungGenerationSizeMb: 16 },
    });
    let [outputBytes, reason, end, fault] = [0, undefined as JobReason | undefined, undefined as WasmEnd | undefined, ''];
    const stop = (why: JobReason) => {
      reason ??= why;
      void worker.terminate();
    };
    const cancel = () => stop('cancelled');
    const signals = [options.signal, this.#stop.signal].filter((signal) => signal !== undefined);
    for (const signal of signals) signal.addEventListener('abort', cancel, { once: true });
    if (signals.some((signal) => signal.aborted)) cancel();
    const timer = setTimeout(() => stop('wall-exceeded'), job.limits.wallSeconds * 1000);
    worker.on('message', (outcome: WasmOutcome) => {
      if (outcome.kind === 'end') end = outcome;
      else {
        outputBytes += outcome.bytes.length;
        options.onLog?.({ stream: outcome.stream, bytes: outcome.bytes });
      }
    });
    worker.on('error', (error) => {
      fault = (error as Error).message;
    });
    await new Promise((resolve) => worker.once('exit', resolve));
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', cancel);
    const measured = { wallMs: performance.now() - startMs, outputBytes };
    if (reason === undefined && end === undefined) {
      if (!/memory/i.test(fault)) throw sandboxFailed(this.engine, fault || 'its worker ended early');
      reason = 'memory-exceeded';
    }
    return await conclude(job, { end, reason, ...measured });
  }

  #path(digest: string): string {
    return join(this.#folder, `${digest.replace('sha256:', '')}.wasm`);
  }
}

interface WasmParts {
  end: WasmEnd | undefined;
  reason: JobReason | undefined;
  wallMs: number;
  outputBytes: number;
}

async function conclude(job: Job, { end, reason, wallMs, outputBytes }: WasmParts): Promise<JobResult> {
  const usage = { wallMs, outputBytes, cpuMs: end?.cpuMs, memoryBytesPeak: end?.memoryBytes, processesRefused: 0 };
  if (end === undefined || reason !== undefined) {
    return { reason: reason ?? 'cancelled', exitCode: undefined, signal: 9, usage, artefacts: [], detail: undefined };
  }
  const { code, detail } = end;
  const refused = end.files.find(({ path }) => !path.split('/').every((part) => NAME.test(part) && part !== '..' && part !== '.'));
  const limit: [boolean, JobReason][] = [
    [end.isOutputFull, 'output-exceeded'],
    [code !== 0 && end.isMemoryFull, 'memory-exceeded'],
    [code !== 0 && end.isDiskFull, 'disk-exceeded'],
    [code === 0 && refused !== undefined, 'artefacts-refused'],
    [code > SIGNAL_BASE, 'signalled'],
    [code !== 0, 'failed'],
  ];
  const found = limit.find(([holds]) => holds)?.[1] ?? 'completed';
  const signal = code > SIGNAL_BASE ? code - SIGNAL_BASE : undefined;
  const isOwnEnd = ['completed', 'failed', 'signalled'].includes(found);
  const artefacts = isOwnEnd && job.artefactFolder !== undefined ? await keepFiles(end.files, job.artefactFolder) : [];
  const said = refused === undefined ? detail : `the name ${JSON.stringify(refused.path.slice(0, 120))} is not plain UTF-8`;
  return { reason: found, exitCode: signal === undefined ? code : undefined, signal, usage, artefacts, detail: said };
}

async function keepFiles(files: readonly { path: string; bytes: Uint8Array }[], target: string): Promise<Artefact[]> {
  await mkdir(target, { recursive: true });
  const artefacts: Artefact[] = [];
  for (const { path, bytes } of [...files].sort((one, other) => (one.path < other.path ? -1 : 1))) {
    const cid = cidOfDigest(createHash('sha256').update(bytes).digest());
    const temporary = join(target, `.${randomUUID()}`);
    await writeFile(temporary, bytes, { flush: true });
    await rename(temporary, join(target, cid));
    artefacts.push({ path, cid, sizeBytes: bytes.length });
  }
  return artefacts;
}

/** Plain files of the input folder, never through links, up to the limit of memory. */
async function readInput(folder: string, bytesMax: number, prefix = '', depth = 1): Promise<WasmTask['input']> {
  const found: WasmTask['input'] = [];
  let bytes = 0;
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && depth < DEPTH_MAX) found.push(...(await readInput(path, bytesMax, `${prefix}${entry.name}/`, depth + 1)));
    if (!entry.isFile()) continue;
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      if ((await file.stat()).size > bytesMax) throw badJob(`the input has more than ${bytesMax} bytes`);
      found.push({ path: prefix + entry.name, bytes: new Uint8Array(await file.readFile()) });
    } finally {
      await file.close();
    }
  }
  for (const each of found) bytes += each.bytes.length;
  if (bytes > bytesMax || found.length > INPUT_FILES_MAX)
    throw badJob(`the input has more than ${bytesMax} bytes or ${INPUT_FILES_MAX} files`);
  return found;
}
