/**
 * The language model: bytes read in training and bytes written, per CPU-second (all threads), and how near the engines are to one another.
 * llama.cpp is a peer where it can be found: MILLRACE_LLAMA=FOLDER with node-llama-cpp in its node_modules.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type LanguageModel, openOnnxModel } from '../src/inference/language/language-model.ts';
import { decodeModel } from '../src/inference/language/model-file.ts';
import { createPlainModel } from '../src/inference/language/plain-model.ts';
import { createTextGenerator, WEIGHTS_PATH } from '../src/inference/language/text-generator.ts';
import { LANGUAGE_PLAN, startTraining, train } from '../src/inference/language/training.ts';

const PROMPT = Buffer.from('Call me Ishmael. Some years ago');
const WRITTEN = 192;
const STEPS = 12;
const file = decodeModel(readFileSync(WEIGHTS_PATH));

await measureTraining();
const ids = await measureModel('ONNX Runtime, cached', await openOnnxModel(file));
assert.deepEqual(await measureModel('plain TypeScript', createPlainModel(file)), ids);
for (const count of [1, 16]) await measureEngine(count);
await measureLlama(ids);

async function measureTraining(): Promise<void> {
  const state = startTraining({ ...LANGUAGE_PLAN, steps: STEPS + 2 });
  const text = Uint8Array.from({ length: 1 << 16 }, (_, at) => (at * at + at / 7) & 0x7f);
  let start = process.cpuUsage();
  await train(state, text, {
    onStep: ({ number }) => {
      if (number === 1) start = process.cpuUsage(); // the first steps find their memory
    },
  });
  report('training, one thread', (STEPS * LANGUAGE_PLAN.batch * LANGUAGE_PLAN.length) / cpuSeconds(start), 'bytes read per CPU-second');
}

async function measureModel(name: string, model: LanguageModel): Promise<number[]> {
  const written: number[] = [];
  let best = 0;
  for (let round = 0; round < 3; round += 1) {
    const reading = model.open();
    let logits = await reading.start([...PROMPT]);
    const start = process.cpuUsage();
    written.length = 0;
    while (written.length < WRITTEN) {
      written.push(logits.indexOf(logits.reduce((most, each) => Math.max(most, each))));
      logits = await reading.append(written.at(-1) as number);
    }
    best = Math.max(best, WRITTEN / cpuSeconds(start));
  }
  await model.close();
  report(`${name}, greedy`, best, 'bytes written per CPU-second');
  return written;
}

/** Requests through the engine's process; wall time, because the CPU time is another process's. */
async function measureEngine(count: number): Promise<void> {
  const engine = createTextGenerator({ limits: { concurrency: count } });
  await engine.warm();
  const startedAt = performance.now();
  const ask = (seed: number) => {
    const messages = [{ role: 'user' as const, content: [{ type: 'text' as const, text: PROMPT.toString() }] }];
    return engine.run({ task: 'chat', messages, sampling: { seed, outputTokensMax: WRITTEN } }, { signal: AbortSignal.timeout(120_000) });
  };
  await Promise.all(Array.from({ length: count }, (_, seed) => ask(seed)));
  report(`engine, ${count} at once`, (count * WRITTEN) / ((performance.now() - startedAt) / 1000), 'bytes written per second of wall time');
  await engine.close();
}

/** The part of node-llama-cpp that is used here. */
interface Llama {
  loadModel(
    options: object,
  ): Promise<{ createContext(options: object): Promise<{ getSequence(): LlamaSequence }>; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
}

async function measureLlama(expected: readonly number[]): Promise<void> {
  const folder = process.env.MILLRACE_LLAMA;
  if (folder === undefined) return void process.stdout.write('llama.cpp is left out: MILLRACE_LLAMA names no folder with node-llama-cpp\n');
  const found = createRequire(join(folder, 'x.js')).resolve('node-llama-cpp');
  const { getLlama } = (await import(pathToFileURL(found).href)) as { getLlama(options: object): Promise<Llama> };
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' });
  const model = await llama.loadModel({ modelPath: WEIGHTS_PATH, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 256, threads: 1 });
  const written: number[] = [];
  const start = process.cpuUsage();
  for await (const id of context.getSequence().evaluate([...PROMPT], { temperature: 0 })) {
    written.push(id);
    if (written.length === WRITTEN) break;
  }
  report('llama.cpp, greedy', WRITTEN / cpuSeconds(start), 'bytes written per CPU-second');
  const same = written.findIndex((id, at) => id !== expected[at]);
  process.stdout.write(`llama.cpp writes the same ${same === -1 ? WRITTEN : same} of ${WRITTEN} bytes\n`);
  await model.dispose();
  await llama.dispose();
}

function cpuSeconds(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}

function report(name: string, rate: number, unit: string): void {
  process.stdout.write(`${name.padEnd(32)} ${Math.round(rate).toString().padStart(6)} ${unit}\n`);
}
