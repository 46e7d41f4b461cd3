/**
 * Writes the language model: `sh tools/node.sh src/inference/language/export-model.ts [--weights FILE.safetensors] [--folder FOLDER]`.
 * With the weights of a training run it writes the GGUF file that is committed; without, it reads that one. Either way it writes the same
 * model as ONNX beside it, and says the SHA-256 of both.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeFileDurably } from '../../durable-file.ts';
import { decodeModel, encodeModel } from './model-file.ts';
import { generationGraph } from './model-graph.ts';
import { LANGUAGE_MODEL } from './model-shape.ts';
import { decodeTensors } from './safetensors.ts';
import { WEIGHTS_PATH } from './text-generator.ts';

const { values } = parseArgs({ options: { weights: { type: 'string' }, folder: { type: 'string', default: dirname(WEIGHTS_PATH) } } });
const gguf =
  values.weights === undefined
    ? readFileSync(WEIGHTS_PATH)
    : encodeModel({ shape: LANGUAGE_MODEL, weights: decodeTensors(readFileSync(values.weights)).tensors });
const { shape, weights } = decodeModel(gguf);
mkdirSync(values.folder, { recursive: true });
write('moby-dick.gguf', gguf);
write('moby-dick.onnx', generationGraph(shape, weights));

function write(name: string, bytes: Uint8Array): void {
  const path = join(values.folder, name);
  writeFileDurably(path, bytes, { mode: 0o644 });
  process.stdout.write(`${createHash('sha256').update(bytes).digest('hex')}  ${path} (${bytes.length} bytes)\n`);
}
