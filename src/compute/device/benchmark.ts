import { randomUUID } from 'node:crypto';
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { encodeStrictInput, StrictEngine } from '../../host/index.ts';
import { BENCHMARK_MODULE, BENCHMARK_STEPS } from './benchmark-module.ts';
import type { BenchmarkAnswer, BenchmarkTask } from './benchmark-worker.ts';

/** What a machine scores, whole numbers, more is better. */
export interface DeviceScores {
  /** Million steps of the benchmark's module a second on one core, as plain WebAssembly: the best of some segments, by the core's own time. */
  singleCore: number;
  /** The same on all cores at once, each core's best added up. */
  allCores: number;
  /** MiB copied a second by one core, from memory to memory. */
  memoryMibPerSecond: number;
  /** MiB written a second to the data folder, until they are durable. */
  diskMibPerSecond: number;
  /** Small writes a second to the data folder, each made durable. */
  diskSyncsPerSecond: number;
  /** Million steps a second on one core as a strict job, counted and canonical; 0: this machine must not run strict jobs. */
  strict: number;
}

/** How a machine is measured. */
export interface BenchmarkOptions {
  /** A folder on the disk that jobs will use; what is written there is removed. */
  folder: string;
  cores: number;
  /** Memory that may be used. */
  memoryBytes: number;
  /** How long each measurement takes at least (default 300). All of them together take under 15 times this, and a second. */
  milliseconds?: number;
  /** Told which measurement begins. */
  onProgress?: (what: string) => void;
}

const MILLISECONDS = 300;
const MIB = 1 << 20;
const COPY_BYTES = 64 * MIB;
const WRITE_BYTES_MAX = 256 * MIB;
const PAGE_BYTES = 4096;
const WORKERS_MAX = 256;
const WORKER_SECONDS_MAX = 60;
const STRICT_MEMORY_BYTES = 2 * 65_536;
const STRICT_FUEL = 1_000_000_000n;

/**
 * Measures a machine. The figures are of this moment: other work on the machine lowers them, and the network's own challenges decide what they
 * are worth (decision 0029).
 * @throws benchmark-failed, and the file system's errors
 */
export async function benchmarkDevice(options: BenchmarkOptions): Promise<DeviceScores> {
  const { folder, cores, memoryBytes, milliseconds = MILLISECONDS, onProgress = () => undefined } = options;
  const measure = async (what: string, act: () => Promise<number>) => {
    onProgress(what);
    return Math.floor(await act());
  };
  return {
    singleCore: await measure('one core', async () => await runCores(1, milliseconds)),
    allCores: await measure(`${cores} cores`, async () => await runCores(Math.min(cores, WORKERS_MAX), milliseconds)),
    memoryMibPerSecond: await measure('memory', async () => copyMemory(milliseconds, memoryBytes)),
    diskMibPerSecond: await measure('disk', async () => await writeDisk(folder, { milliseconds, blockBytes: MIB, isEachDurable: false })),
    diskSyncsPerSecond: await measure(
      'durable writes',
      async () => ((await writeDisk(folder, { milliseconds, blockBytes: PAGE_BYTES, isEachDurable: true })) * MIB) / PAGE_BYTES,
    ),
    strict: await measure('strict WebAssembly', async () => await runStrict(milliseconds)),
  };
}

/** Million steps a second of so many workers together, all started at the same moment. */
async function runCores(count: number, milliseconds: number): Promise<number> {
  const task: BenchmarkTask = { module: BENCHMARK_MODULE, milliseconds };
  const workers = Array.from(
    { length: count },
    () =>
      new Worker(join(import.meta.dirname, 'benchmark-worker.ts'), {
        workerData: task,
        env: {},
        resourceLimits: { maxOldGenerationSizeMb: 32 },
      }),
  );
  try {
    await Promise.all(workers.map(answerOf));
    const answers = workers.map(answerOf);
    for (const worker of workers) worker.postMessage('go');
    const rates = (await Promise.all(answers)).map((answer) => BENCHMARK_STEPS / ((answer as BenchmarkAnswer).millisecondsBest * 1000));
    return rates.reduce((sum, rate) => sum + rate, 0);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

async function answerOf(worker: Worker): Promise<unknown> {
  const signal = AbortSignal.timeout(WORKER_SECONDS_MAX * 1000);
  return await new Promise((resolve, reject) => {
    const fail = (reason: string) => reject(failed(reason));
    worker.once('message', resolve);
    worker.once('error', (error) => fail(error.message));
    worker.once('exit', () => fail('its worker ended'));
    signal.addEventListener('abort', () => fail(`it did not end within ${WORKER_SECONDS_MAX} s`), { once: true });
  });
}

async function copyMemory(milliseconds: number, memoryBytes: number): Promise<number> {
  const bytes = Math.max(MIB, Math.min(COPY_BYTES, Math.floor(memoryBytes / 16)));
  const [source, target] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)];
  const startedAt = performance.now();
  let copied = 0;
  while (performance.now() - startedAt < milliseconds) {
    target.set(source);
    copied += bytes;
    await systemClock.sleep(0);
  }
  return copied / MIB / ((performance.now() - startedAt) / 1000);
}

/** MiB a second. */
async function writeDisk(folder: string, how: { milliseconds: number; blockBytes: number; isEachDurable: boolean }): Promise<number> {
  const { milliseconds, blockBytes, isEachDurable } = how;
  await mkdir(folder, { recursive: true });
  const path = join(folder, `benchmark-${randomUUID()}`);
  const file = await open(path, 'wx');
  try {
    const block = Buffer.alloc(blockBytes, 'millrace');
    const startedAt = performance.now();
    let written = 0;
    while (performance.now() - startedAt < milliseconds && written < WRITE_BYTES_MAX) {
      await file.write(block);
      if (isEachDurable) await file.sync();
      written += blockBytes;
    }
    await file.sync();
    return written / MIB / ((performance.now() - startedAt) / 1000);
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

/** Zero for a machine that does not calculate as all do: that is a fact about it, not a failure. */
async function runStrict(milliseconds: number): Promise<number> {
  const engine = await StrictEngine.open().catch((error: unknown) => {
    if (error instanceof MillraceError && error.code === 'strict-engine-unfit') return undefined;
    throw error;
  });
  if (engine === undefined) return 0;
  const run = await engine.start({
    module: BENCHMARK_MODULE,
    input: encodeStrictInput({ argv: [], seed: new Uint8Array(8), files: [] }),
    segments: 1000,
    limits: { memoryBytes: STRICT_MEMORY_BYTES, fuelPerSegment: STRICT_FUEL, wallSeconds: WORKER_SECONDS_MAX, outputBytes: 0 },
  });
  try {
    await run.step(0);
    const endsAt = performance.now() + milliseconds;
    let best = Number.POSITIVE_INFINITY;
    let index = 1;
    for (let startedAt = performance.now(); startedAt < endsAt; startedAt = performance.now()) {
      const { end } = await run.step(index);
      if (end !== 'running') throw failed(`the strict job ended with ${end}`);
      best = Math.min(best, performance.now() - startedAt);
      index += 1;
    }
    return BENCHMARK_STEPS / (best * 1000);
  } finally {
    await run.close();
  }
}

function failed(reason: string): MillraceError {
  return new MillraceError('benchmark-failed', {
    actor: 'host',
    message: `This machine could not be measured: ${reason}`,
    values: { reason },
    hint: 'Free memory and disk, and try again; "millrace doctor" says what the machine lacks.',
  });
}
