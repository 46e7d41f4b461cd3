import type { EmbeddingRequest, EmbeddingResult } from './engine.ts';
import type { OpenKernel } from './kernel.ts';
import { createPieceCutter } from './sentence-pieces.ts';
import { openTensorGraph, type TensorData } from './tensor-graph.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from './witness.ts';

const PIECES_MAX = 128;

/** Opens the sentence encoder. Each text is run by itself, so its vector does not depend on what was asked beside it. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const graph = await openTensorGraph('encoder', await read('encoder.onnx'));
  const cutter = createPieceCutter(await read('pieces.json'));
  return {
    async run(request, { signal }): Promise<EmbeddingResult> {
      const { texts, witness } = request as EmbeddingRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      const vectors: Float32Array[] = [];
      let tokens = 0;
      for (const text of texts) {
        // Aborts arrive between two runs only.
        await new Promise(setImmediate);
        if (signal.aborted) break;
        const pieces = cutter.cut(text).slice(0, PIECES_MAX);
        // No piece at all (an empty text): the encoder's mark for "unknown".
        const ids = BigInt64Array.from(pieces.length === 0 ? [0] : pieces, BigInt);
        const positions = Float32Array.from(ids.keys());
        const { embedding } = await graph.run(
          { ids: { data: ids, shape: [ids.length] }, positions: { data: positions, shape: [ids.length, 1] } },
          record,
        );
        vectors.push((embedding as TensorData).data as Float32Array);
        tokens += ids.length;
      }
      return {
        task: 'embedding',
        vectors,
        usage: { unit: 'tokens', input: tokens, output: 0 },
        outputDigest: digestOutputs(vectors.map((vector, at) => ({ name: String(at), shape: [vector.length], bytes: bytesOf(vector) }))),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};
