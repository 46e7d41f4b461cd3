import { parentPort, workerData } from 'node:worker_threads';

/** What a worker is told: the module, how often, and how long at least. */
export interface BenchmarkTask {
  module: Uint8Array;
  milliseconds: number;
}

/** How long its fastest segment took, of the core's own time: other work on the machine does not count. */
export interface BenchmarkAnswer {
  millisecondsBest: number;
}

const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object, imports: object) => { exports: { segment(index: number): void } };
  };
};

const task = workerData as BenchmarkTask;
const { segment } = new webAssembly.Instance(new webAssembly.Module(task.module), {}).exports;
segment(0); // Compiled by the better compiler from here on.
parentPort?.once('message', () => {
  const endsAt = performance.now() + task.milliseconds;
  const answer: BenchmarkAnswer = { millisecondsBest: Number.POSITIVE_INFINITY };
  do {
    const before = cpuMs();
    segment(1);
    answer.millisecondsBest = Math.min(answer.millisecondsBest, cpuMs() - before);
  } while (performance.now() < endsAt);
  parentPort?.postMessage(answer);
});
parentPort?.postMessage('ready');

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
