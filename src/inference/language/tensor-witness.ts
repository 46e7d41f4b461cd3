import { createHash } from 'node:crypto';
import type { Witness, WitnessRequest } from '../engines/engine.ts';

const TAPS = 4;

/** What the layers wrote while an answer was drawn: for each token, in order, the stream after each layer. */
export type Streams = readonly (readonly Float32Array[])[];

/**
 * The digest of four intermediate tensors of a run: the stream after a layer while a token was drawn, layers and tokens chosen by SHA-256
 * of nonce, operator and model root. Nobody can name them before the nonce is known, and another operator's digest is another one.
 * Bits of floats: it is comparable between processors of one kind.
 */
export function witnessOf(request: WitnessRequest, root: string, streams: Streams): Witness {
  const taps = Array.from({ length: TAPS }, (_, tap) => {
    const seed = createHash('sha256')
      .update(`millrace/witness/1 ${request.nonce} ${request.operator} ${root} ${tap}`.toLowerCase())
      .digest();
    const token = seed.readUInt32BE(0) % streams.length;
    const layers = streams[token] as readonly Float32Array[];
    const layer = seed.readUInt32BE(4) % layers.length;
    return { name: `token.${token}.layer.${layer}`, data: layers[layer] as Float32Array };
  });
  const hash = createHash('sha256').update(`millrace/witness/1 ${request.nonce} ${request.operator} ${root}`.toLowerCase());
  for (const { name, data } of taps) hash.update(`\n${name}\n`).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return { digest: `0x${hash.digest('hex')}`, taps: taps.map(({ name }) => name) };
}
