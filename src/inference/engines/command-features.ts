import { HEARING_RATE_HZ } from './audio-samples.ts';
import type { TensorData, TensorGraph } from './tensor-graph.ts';
import type { WitnessRecord } from './witness.ts';

/** Spectrogram frames in one window of the speech embedding, and how far windows lie apart (of 10 ms each). */
const WINDOW_FRAMES = 76;
const WINDOW_STEP = 8;
const BANDS = 32;
const EMBEDDING = 96;
/** An utterance is described by the means of so many parts of it, and by its highest values. */
const PARTS = 4;
const SILENCE_S = 0.4;
const UTTERANCE_S_MAX = 4;
const FRAME = HEARING_RATE_HZ / 100;
/** Quieter than so much of the loudest tenth of a second is silence. */
const SILENCE_LEVEL = 0.06;

/** Numbers that describe an utterance to the head. */
export const COMMAND_FEATURES = EMBEDDING * (PARTS + 1);

/** The two graphs of Google's speech embedding. */
export interface SpeechGraphs {
  spectrogram: TensorGraph;
  embedding: TensorGraph;
}

/**
 * What the speech embedding hears in an utterance: silence around it is cut away and replaced by silence of a fixed length, then one
 * embedding every 80 ms; their means over four parts and their maxima. `heard` are the raw embeddings.
 */
export async function commandFeatures(
  graphs: SpeechGraphs,
  samples: Float32Array,
  record?: WitnessRecord,
): Promise<{ features: Float32Array; heard: TensorData }> {
  const utterance = trimSilence(samples);
  const pad = SILENCE_S * HEARING_RATE_HZ;
  const padded = new Float32Array(utterance.length + 2 * pad);
  for (let at = 0; at < utterance.length; at += 1) padded[pad + at] = 32_767 * (utterance[at] as number);
  const { output } = await graphs.spectrogram.run({ input: { data: padded, shape: [1, padded.length] } }, record);
  const bands = Float32Array.from((output as TensorData).data as Float32Array, (value) => value / 10 + 2);
  const windows = Math.max(1, Math.floor((bands.length / BANDS - WINDOW_FRAMES) / WINDOW_STEP) + 1);
  const data = new Float32Array(windows * WINDOW_FRAMES * BANDS);
  for (let window = 0; window < windows; window += 1) {
    const from = window * WINDOW_STEP * BANDS;
    data.set(bands.subarray(from, from + WINDOW_FRAMES * BANDS), window * WINDOW_FRAMES * BANDS);
  }
  const outputs = await graphs.embedding.run({ input_1: { data, shape: [windows, WINDOW_FRAMES, BANDS, 1] } }, record);
  const heard = Object.values(outputs)[0] as TensorData;
  return { features: pool(heard.data as Float32Array, windows), heard };
}

function pool(embeddings: Float32Array, windows: number): Float32Array {
  const features = new Float32Array(COMMAND_FEATURES);
  for (let value = 0; value < EMBEDDING; value += 1) {
    for (let part = 0; part < PARTS; part += 1) {
      const from = Math.floor((part * windows) / PARTS);
      const to = Math.max(from + 1, Math.floor(((part + 1) * windows) / PARTS));
      let sum = 0;
      for (let window = from; window < to; window += 1) sum += embeddings[window * EMBEDDING + value] as number;
      features[part * EMBEDDING + value] = sum / (to - from);
    }
    let most = -Infinity;
    for (let window = 0; window < windows; window += 1) most = Math.max(most, embeddings[window * EMBEDDING + value] as number);
    features[PARTS * EMBEDDING + value] = most;
  }
  return features;
}

/** From the first to the last sound, at most four seconds, as loud as it can be. */
function trimSilence(samples: Float32Array): Float32Array {
  const levels: number[] = [];
  for (let at = 0; at < samples.length; at += FRAME) {
    const frame = samples.subarray(at, at + FRAME);
    levels.push(Math.sqrt(frame.reduce((sum, value) => sum + value * value, 0) / frame.length));
  }
  const smooth = levels.map((_, at) => levels.slice(Math.max(0, at - 5), at + 5).reduce((sum, level) => sum + level, 0) / 10);
  const floor = SILENCE_LEVEL * Math.max(...smooth, 1e-6);
  const first = Math.max(
    0,
    smooth.findIndex((level) => level > floor),
  );
  const last = Math.max(
    first,
    smooth.findLastIndex((level) => level > floor),
  );
  const cut = samples.slice(first * FRAME, Math.min((last + 1) * FRAME, first * FRAME + UTTERANCE_S_MAX * HEARING_RATE_HZ));
  const peak = cut.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  return cut.map((value) => (0.5 * value) / peak);
}
