import { decodeAudio, HEARING_RATE_HZ } from './audio-samples.ts';
import type { ActivityRequest, ActivityResult } from './engine.ts';
import type { OpenKernel } from './kernel.ts';
import { openTensorGraph, type TensorData } from './tensor-graph.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from './witness.ts';

const FRAME = 512;
/** Samples of the frame before that each frame is given once more. */
const CONTEXT = 64;
const FRAME_MS = (1000 * FRAME) / HEARING_RATE_HZ;
const THRESHOLD = 0.5;
/** Speech goes on until the probability falls so far below the threshold. */
const HYSTERESIS = 0.15;
const SPEECH_MS_MIN = 250;
const SILENCE_MS_MIN = 100;
const PADDING_MS = 30;

/** Opens the detector of speech (Silero VAD 5): one probability for each 32 ms, then segments by the authors' rule. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const graph = await openTensorGraph('activity', await read('activity.onnx'));
  return {
    async run(request, { signal }): Promise<ActivityResult> {
      const { audio, thresholdMin = THRESHOLD, witness } = request as ActivityRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      const samples = await decodeAudio(audio);
      const frames = Math.ceil(samples.length / FRAME);
      const chances = new Float32Array(frames);
      let state: TensorData = { data: new Float32Array(256), shape: [2, 1, 128] };
      const sr: TensorData = { data: BigInt64Array.of(BigInt(HEARING_RATE_HZ)), shape: [] };
      for (let frame = 0; frame < frames && !signal.aborted; frame += 1) {
        const data = new Float32Array(CONTEXT + FRAME);
        const from = frame * FRAME - CONTEXT;
        data.set(samples.subarray(Math.max(0, from), (frame + 1) * FRAME), Math.max(0, -from));
        const outputs = await graph.run({ input: { data, shape: [1, CONTEXT + FRAME] }, state, sr }, record);
        chances[frame] = (outputs.output as TensorData).data[0] as number;
        state = outputs.stateN as TensorData;
      }
      const durationMs = Math.round((1000 * samples.length) / HEARING_RATE_HZ);
      return {
        task: 'activity',
        durationMs,
        segments: segmentsOf(chances, thresholdMin, durationMs),
        probabilityMax: chances.reduce((most, each) => Math.max(most, each), 0),
        usage: { unit: 'milliseconds', input: durationMs, output: 0 },
        outputDigest: digestOutputs([{ name: 'chances', shape: [frames], bytes: bytesOf(chances) }]),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};

/** Stretches of speech: begun above the threshold, ended by enough silence, widened a little, and long enough. */
function segmentsOf(chances: Float32Array, threshold: number, durationMs: number): { startMs: number; endMs: number }[] {
  const segments: { startMs: number; endMs: number }[] = [];
  let startMs: number | undefined;
  let silentSinceMs: number | undefined;
  const end = (endMs: number) => {
    if (startMs !== undefined && endMs - startMs >= SPEECH_MS_MIN) {
      segments.push({
        startMs: Math.max(0, Math.round(startMs - PADDING_MS)),
        endMs: Math.min(durationMs, Math.round(endMs + PADDING_MS)),
      });
    }
    startMs = undefined;
    silentSinceMs = undefined;
  };
  for (const [frame, chance] of chances.entries()) {
    const nowMs = frame * FRAME_MS;
    if (chance >= threshold) {
      startMs ??= nowMs;
      silentSinceMs = undefined;
    } else if (startMs !== undefined && chance < threshold - HYSTERESIS) {
      silentSinceMs ??= nowMs;
      if (nowMs - silentSinceMs >= SILENCE_MS_MIN) end(silentSinceMs);
    }
  }
  end(silentSinceMs ?? durationMs);
  return segments;
}
