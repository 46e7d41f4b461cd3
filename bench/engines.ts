/**
 * The embedded engines: how good, how fast, how large. Quality is measured on real inputs: photographs and a photographed page in `test/media`,
 * more photographs and recorded speech of Debian packages where they are installed (python3-skimage, pocketsphinx-testdata), and voices that the
 * command recogniser was not trained with (Flite's `slt`; espeak-ng where it is installed). CPU time is that of the engine's own process.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { EngineRequest, ResultOf } from '../src/inference/engines/engine.ts';
import { type EngineProcess, startEngineProcess } from '../src/inference/engines/engine-process.ts';
import { findIsolation } from '../src/inference/engines/engine-sandbox.ts';
import { cardOf } from '../src/inference/engines/model-card.ts';
import { fetchModel } from '../src/inference/engines/model-store.ts';
import { EMBEDDED_MODELS, type ModelEntry } from '../src/inference/engines/models.ts';
import { encodeWav, similarity, wordsRight } from '../src/inference/engines/quality.cases.ts';

const ROUNDS = 5;
const CLOCK_TICKS = 100;
const SKIMAGE = '/usr/lib/python3/dist-packages/skimage/data';
const RECORDINGS = '/usr/share/pocketsphinx/test/data/librivox/*.wav';
const folder = mkdtempSync(join(tmpdir(), 'millrace-bench-engines-'));
const media = join(import.meta.dirname, '../test/media');
const print = (line: string) => process.stdout.write(`${line}\n`);

/** Seconds of processor time that a process has used, and the most memory that it held, in MiB. */
function usageOf(pid: number): { cpuMs: number; rssMib: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  const rss = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return { cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / CLOCK_TICKS, rssMib: Math.round(Number(rss) / 1024) };
}

interface Bench {
  ask<Request extends EngineRequest>(request: Request): Promise<ResultOf<Request>>;
  child: EngineProcess;
}

async function open(id: string): Promise<Bench> {
  const entry = EMBEDDED_MODELS.find((each) => each.id === id) as ModelEntry;
  const before = performance.now();
  const files = await fetchModel(entry, { folder });
  const fetchMs = performance.now() - before;
  const kernel = join(import.meta.dirname, '../src/inference/engines', `${entry.task}-kernel.ts`);
  const child = await startEngineProcess(
    { card: cardOf(entry), kernel, files: async () => files },
    { isolation: 'process', memoryBytesMax: 2 << 30, loadTimeoutMs: 120_000 },
  );
  const sizeMib = (files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / (1 << 20)).toFixed(1);
  const { cpuMs, rssMib } = usageOf(child.pid);
  print(
    `${id}: ${sizeMib} MiB; unpacked and converted in ${fetchMs.toFixed(0)} ms; started with ${cpuMs.toFixed(0)} ms of CPU, ${rssMib} MiB of memory`,
  );
  return { child, ask: async (request) => (await child.run(request, {}).result) as ResultOf<typeof request> };
}

/** The processor time of one request, mean of a few after the first. */
async function measure(bench: Bench, what: string, request: EngineRequest): Promise<void> {
  const first = usageOf(bench.child.pid).cpuMs;
  const { outputDigest } = await bench.ask(request);
  const before = usageOf(bench.child.pid).cpuMs;
  let wallMs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = performance.now();
    assert.equal((await bench.ask(request)).outputDigest, outputDigest, `${what}: another answer to the same request`);
    wallMs = Math.min(wallMs, performance.now() - start);
  }
  const { cpuMs, rssMib } = usageOf(bench.child.pid);
  const mean = (cpuMs - before) / ROUNDS;
  print(
    `  ${what}: ${mean.toFixed(0)} ms of CPU (first ${(before - first).toFixed(0)}), best ${wallMs.toFixed(0)} ms; memory at most ${rssMib} MiB; same bits ${ROUNDS + 1} times`,
  );
}

async function detection(): Promise<void> {
  const bench = await open('ssdlite-coco');
  const expected: Record<string, string> = {
    chelsea: 'cat',
    coffee: 'cup, dining table',
    astronaut: 'person',
    motorcycle_left: 'motorcycle',
  };
  const own = ['chelsea.jpg', 'coffee.jpg', 'astronaut.jpg'].map((name) => join(media, name));
  const photos = [...own, ...Object.keys(expected).map((name) => join(SKIMAGE, `${name}.png`))].filter((path) => existsSync(path));
  for (const path of photos) {
    const { objects, classes } = await bench.ask({ task: 'detection', image: readFileSync(path) });
    const found = (objects.length > 0 ? objects : classes.slice(0, 1)).map(({ label, score }) => `${label} ${score.toFixed(2)}`);
    print(`  ${basename(path)}: ${found.join(', ')} (there: ${expected[basename(path).replace(/\..*/, '')]})`);
  }
  await measure(bench, 'one photograph of 451 x 300', { task: 'detection', image: readFileSync(join(media, 'chelsea.jpg')) });
  bench.child.kill(await ended());
}

async function reading(): Promise<void> {
  const bench = await open('ppocr-v4');
  const image = readFileSync(join(media, 'page.png'));
  const { text } = await bench.ask({ task: 'ocr', image });
  print(`  photographed page: ${(100 * wordsRight(text)).toFixed(1)} % of 51 words right`);
  await measure(bench, 'that page, 7 lines', { task: 'ocr', image });
  bench.child.kill(await ended());
}

async function embedding(): Promise<void> {
  const bench = await open('use-lite-en');
  const texts = [
    'The generator failed last night.',
    'The power unit broke down yesterday evening.',
    'I would like a slice of chocolate cake.',
  ];
  const { vectors } = await bench.ask({ task: 'embedding', texts });
  const [one, near, far] = vectors as [Float32Array, Float32Array, Float32Array];
  print(
    `  cosine: failed generator and broken power unit ${similarity(one, near).toFixed(2)}, and chocolate cake ${similarity(one, far).toFixed(2)}`,
  );
  await measure(bench, '100 sentences', { task: 'embedding', texts: Array.from({ length: 100 }, (_, at) => `${texts[at % 3]} ${at}`) });
  bench.child.kill(await ended());
}

/** WAV of a text by espeak-ng; undefined where it is not installed. */
function espeak(text: string, voice: string): Uint8Array | undefined {
  const { status, stdout } = spawnSync('espeak-ng', ['-v', voice, '--stdout', text], { maxBuffer: 1 << 26 });
  return status === 0 ? new Uint8Array(stdout) : undefined;
}

async function voices(): Promise<void> {
  const speaker = await open('flite');
  const say = async (text: string, voice: string, speed = 1) => {
    const { samples, sampleRateHz } = await speaker.ask({ task: 'speech', text, voice, speed });
    return encodeWav(samples, sampleRateHz);
  };
  const sentence = 'The pump in the second house has been running for three days.';
  await measure(speaker, 'a sentence of 3 seconds', { task: 'speech', text: sentence, voice: 'slt' });

  const activity = await open('silero-vad-v5');
  const spoken = await activity.ask({ task: 'activity', audio: await say(sentence, 'slt') });
  print(`  Flite: ${JSON.stringify(spoken.segments)} of ${spoken.durationMs} ms`);
  for (const path of globSync(RECORDINGS)) {
    const { segments, durationMs } = await activity.ask({ task: 'activity', audio: readFileSync(path) });
    const speechMs = segments.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
    print(`  ${basename(path)} (a person reading): speech ${((100 * speechMs) / durationMs).toFixed(0)} % of ${durationMs} ms`);
  }
  await measure(activity, 'that sentence', { task: 'activity', audio: await say(sentence, 'slt') });
  activity.child.kill(await ended());

  const commands = await open('commands-en');
  const labels = EMBEDDED_MODELS.find(({ id }) => id === 'commands-en')?.labels ?? [];
  const score = async (name: string, clips: { label: string; audio: Uint8Array | undefined }[]) => {
    let right = 0;
    let heard = 0;
    for (const { label, audio } of clips) {
      if (audio === undefined) continue;
      heard += 1;
      const { command, scores } = await commands.ask({ task: 'command', audio });
      if (command === label) right += 1;
      else print(`    "${label}" was taken for ${command === undefined ? `none (best: "${scores[0]?.label}")` : `"${command}"`}`);
    }
    print(
      heard === 0 ? `  ${name}: not installed` : `  ${name}: ${right} of ${heard} commands right (${((100 * right) / heard).toFixed(1)} %)`,
    );
  };
  const unseen = labels.flatMap((label) => [0.9, 1, 1.1, 1.25].map(async (speed) => ({ label, audio: await say(label, 'slt', speed) })));
  await score('unseen voice slt at four speeds', await Promise.all(unseen));
  const espeakVoices = ['en-us', 'en-gb', 'en-us+f3', 'en-gb+m3'];
  await score(
    'espeak-ng, four voices',
    labels.flatMap((label) => espeakVoices.map((voice) => ({ label, audio: espeak(label, voice) }))),
  );
  await measure(commands, 'one command', { task: 'command', audio: await say(labels[0] as string, 'slt') });
  commands.child.kill(await ended());
  speaker.child.kill(await ended());
}

/** Whose work is done. */
async function ended() {
  const { MillraceError } = await import('../src/errors.ts');
  return new MillraceError('engine-closed', { actor: 'host', message: 'The measurement is over' });
}

try {
  print(`isolation on this machine: ${findIsolation()}`);
  await detection();
  await reading();
  await embedding();
  await voices();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
