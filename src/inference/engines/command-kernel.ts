import { decodeAudio, HEARING_RATE_HZ } from './audio-samples.ts';
import { commandFeatures } from './command-features.ts';
import { readCommandHead } from './command-head.ts';
import type { CommandRequest, CommandResult } from './engine.ts';
import type { OpenKernel } from './kernel.ts';
import { openTensorGraph } from './tensor-graph.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from './witness.ts';

/** A command is only taken for heard from this probability on, and when it is likelier than "none of these". */
const CHANCE_MIN = 0.35;

/** Opens the command recogniser: Google's speech embedding, and the head that this project trained. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const graphs = {
    spectrogram: await openTensorGraph('spectrogram', await read('spectrogram.onnx')),
    embedding: await openTensorGraph('embedding', await read('embedding.onnx')),
  };
  const { labels, classify } = readCommandHead(await read('head.json'));
  return {
    async run(request): Promise<CommandResult> {
      const { audio, witness } = request as CommandRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      const samples = await decodeAudio(audio);
      const { features, heard } = await commandFeatures(graphs, samples, record);
      const chances = classify(features);
      const scores = labels.map((label, at) => ({ label, score: chances[at] as number })).sort((one, other) => other.score - one.score);
      const best = scores[0];
      return {
        task: 'command',
        command: best !== undefined && best.score >= Math.max(CHANCE_MIN, chances[labels.length] as number) ? best.label : undefined,
        scores,
        usage: { unit: 'milliseconds', input: Math.round((1000 * samples.length) / HEARING_RATE_HZ), output: 0 },
        outputDigest: digestOutputs([
          { name: 'heard', shape: heard.shape, bytes: bytesOf(heard.data) },
          { name: 'chances', shape: [chances.length], bytes: bytesOf(chances) },
        ]),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};
