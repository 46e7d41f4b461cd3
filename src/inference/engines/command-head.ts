import { MillraceError } from '../../errors.ts';

/** The trained part of the command recogniser as it lies in the file: two dense layers, whole numbers with one scale a row. */
export interface CommandHeadFile {
  /** Commands; what comes after the last of them is "none of these". */
  labels: string[];
  /** Subtracted from the features, and what the rest is divided by. */
  mean: number[];
  deviation: number[];
  layers: { inputs: number; outputs: number; scales: number[]; bias: number[]; weights: string }[];
}

/** Probabilities of the commands, and last of none of them. */
export type CommandHead = (features: Float32Array) => Float64Array;

/**
 * Reads a head; weights are signed bytes in base64, times their row's scale. Plain double arithmetic: the same bits everywhere.
 * @throws bad-model
 */
export function readCommandHead(bytes: Uint8Array): { labels: string[]; classify: CommandHead } {
  const { labels, mean, deviation, layers } = JSON.parse(Buffer.from(bytes).toString('utf8')) as CommandHeadFile;
  const dense = layers.map((layer) => ({ ...layer, weights: new Int8Array(Buffer.from(layer.weights, 'base64')) }));
  const isSound =
    dense.every(({ weights, inputs, outputs }) => weights.length === inputs * outputs) && dense.at(-1)?.outputs === labels.length + 1;
  if (!isSound) {
    throw new MillraceError('bad-model', {
      actor: 'peer',
      message: 'The head of the command recogniser has layers of the wrong size',
      values: { format: 'command-head', reason: 'sizes' },
      hint: 'Delete the folder of models in the data folder; they are made anew.',
    });
  }
  const classify: CommandHead = (features) => {
    let values = Float64Array.from(features, (value, at) => (value - (mean[at] as number)) / (deviation[at] as number));
    for (const [depth, { inputs, outputs, scales, bias, weights }] of dense.entries()) {
      const next = new Float64Array(outputs);
      for (let row = 0; row < outputs; row += 1) {
        let sum = 0;
        for (let at = 0; at < inputs; at += 1) sum += (weights[row * inputs + at] as number) * (values[at] as number);
        next[row] = sum * (scales[row] as number) + (bias[row] as number);
      }
      values = depth < dense.length - 1 ? next.map((value) => Math.max(0, value)) : next;
    }
    const most = Math.max(...values);
    const powers = values.map((value) => Math.exp(value - most));
    const total = powers.reduce((sum, value) => sum + value, 0);
    return powers.map((value) => value / total);
  };
  return { labels, classify };
}
