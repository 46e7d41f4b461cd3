import { MillraceError } from '../../errors.ts';

/** A dense layer: whole numbers with one scale a row. */
export interface CommandLayer {
  inputs: number;
  outputs: number;
  scales: number[];
  bias: number[];
  /** Signed bytes in base64, row by row. */
  weights: string;
}

/** The trained part of the command recogniser as it lies in the file: several small networks, whose probabilities are averaged. */
export interface CommandHeadFile {
  /** Commands; what comes after the last of them is "none of these". */
  labels: string[];
  /** Subtracted from the features, and what the rest is divided by. */
  mean: number[];
  deviation: number[];
  members: CommandLayer[][];
}

/** Probabilities of the commands, and last of none of them. */
export type CommandHead = (features: Float32Array) => Float64Array;

/**
 * Reads a head. Plain double arithmetic: the same bits everywhere.
 * @throws bad-model
 */
export function readCommandHead(bytes: Uint8Array): { labels: string[]; classify: CommandHead } {
  const { labels, mean, deviation, members } = JSON.parse(Buffer.from(bytes).toString('utf8')) as CommandHeadFile;
  const networks = members.map((layers) => layers.map(readLayer));
  const isSound = networks.length > 0 && networks.every((layers) => layers.at(-1)?.outputs === labels.length + 1);
  if (!isSound) throw badHead();
  const classify: CommandHead = (features) => {
    const input = Float64Array.from(features, (value, at) => (value - (mean[at] as number)) / (deviation[at] as number));
    const chances = networks.map((layers) => run(layers, input));
    return (chances[0] as Float64Array).map((_, at) => chances.reduce((sum, each) => sum + (each[at] as number), 0) / chances.length);
  };
  return { labels, classify };
}

type Dense = Omit<CommandLayer, 'weights'> & { weights: Int8Array };

function readLayer(layer: CommandLayer): Dense {
  const weights = new Int8Array(Buffer.from(layer.weights, 'base64'));
  if (weights.length !== layer.inputs * layer.outputs) throw badHead();
  return { ...layer, weights };
}

function run(layers: readonly Dense[], input: Float64Array): Float64Array {
  let values = input;
  for (const [depth, { inputs, outputs, scales, bias, weights }] of layers.entries()) {
    const next = new Float64Array(outputs);
    for (let row = 0; row < outputs; row += 1) {
      let sum = 0;
      for (let at = 0; at < inputs; at += 1) sum += (weights[row * inputs + at] as number) * (values[at] as number);
      next[row] = sum * (scales[row] as number) + (bias[row] as number);
    }
    values = depth < layers.length - 1 ? next.map((value) => Math.max(0, value)) : next;
  }
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map((value) => value / total);
}

function badHead(): MillraceError {
  return new MillraceError('bad-model', {
    actor: 'peer',
    message: 'The head of the command recogniser has layers of the wrong size',
    values: { format: 'command-head', reason: 'sizes' },
    hint: 'Delete the folder of models in the data folder; they are made anew.',
  });
}
