/**
 * The language model's loss on the text that was held out: `sh tools/node.sh src/inference/language/measure-loss.ts [--text FILE]`.
 * Windows of the whole context, one after another, each byte predicted from those before it in its window.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { fetchCorpus, splitCorpus } from './corpus.ts';
import { lossOf } from './held-out-loss.ts';
import { decodeModel } from './model-file.ts';
import { WEIGHTS_PATH } from './text-generator.ts';

const { values } = parseArgs({ options: { text: { type: 'string' } } });
const { training, heldOut } = splitCorpus(values.text === undefined ? await fetchCorpus() : readFileSync(values.text));
const { shape, weights } = decodeModel(readFileSync(WEIGHTS_PATH));
for (const [name, text] of [
  ['held out', heldOut],
  ['trained on, as much', training.subarray(0, heldOut.length)],
] as const) {
  const loss = await lossOf(shape, weights, text);
  process.stdout.write(`${name}: ${loss.toFixed(4)} nats/byte, ${(loss / Math.LN2).toFixed(3)} bits/byte\n`);
}
