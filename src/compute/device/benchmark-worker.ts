import { parentPort, workerData } from 'node:worker_threads';

/** What a worker is told: the module, how often, and how long at least. */
export interface BenchmarkTask {
  module: Uint8Array;
  milliseconds: number;
}

/** How long its fastest segment took: what the core can do when nothing else is on it. */
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
  for (let startedAt = performance.now(); startedAt < endsAt; startedAt = performance.now()) {
    segment(1);
    answer.millisecondsBest = Math.min(answer.millisecondsBest, performance.now() - startedAt);
  }
  parentPort?.postMessage(answer);
});
parentPort?.postMessage('ready');
