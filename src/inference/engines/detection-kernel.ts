import { COCO_NAMES } from './coco-labels.ts';
import type { DetectedObject, DetectionRequest, DetectionResult } from './engine.ts';
import { decodeImage } from './image-pixels.ts';
import type { OpenKernel } from './kernel.ts';
import { openTensorGraph, type TensorData } from './tensor-graph.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from './witness.ts';

const SIDE = 300;
const CLASS_COUNT = 90;
const OVERLAP_MAX = 0.5;
const SCORE_MIN = 0.5;
const OBJECTS_MAX = 20;
const CLASSES_GIVEN = 5;

/** Opens the detector: photographs in, objects with labels, scores and boxes out, and the best labels of the whole image. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const graph = await openTensorGraph('detector', await read('detector.onnx'));
  return {
    async run(request): Promise<DetectionResult> {
      const { image, witness, scoreMin = SCORE_MIN, objectsMax = OBJECTS_MAX } = request as DetectionRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      const { rgb, original } = await decodeImage(image, { fit: () => ({ width: SIDE, height: SIDE }), kernel: 'linear' });
      const { scores, boxes } = (await graph.run({ image: inputOf(rgb) }, record)) as { scores: TensorData; boxes: TensorData };
      const candidates = candidatesOf(scores.data as Float32Array, boxes.data as Float32Array);
      return {
        task: 'detection',
        ...original,
        objects: pickObjects(candidates, { scoreMin, objectsMax }).map((each) => inPixels(each, original)),
        classes: bestClasses(candidates),
        usage: { unit: 'images', input: 1, output: 0 },
        outputDigest: digestOutputs(
          Object.entries({ scores, boxes }).map(([name, { data, shape }]) => ({ name, shape, bytes: bytesOf(data) })),
        ),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};

/** RGB bytes as the graph wants them: planes of numbers from -1 to 1. */
function inputOf(rgb: Uint8Array): TensorData {
  const plane = SIDE * SIDE;
  const data = new Float32Array(3 * plane);
  for (let pixel = 0; pixel < plane; pixel += 1) {
    for (let colour = 0; colour < 3; colour += 1) data[colour * plane + pixel] = (rgb[3 * pixel + colour] as number) / 127.5 - 1;
  }
  return { data, shape: [1, 3, SIDE, SIDE] };
}

interface Candidate {
  label: string;
  score: number;
  /** Top, left, bottom, right as parts of the image. */
  edges: readonly [number, number, number, number];
}

/** The best class of each anchor, best first; what has no name in COCO is never meant. */
function candidatesOf(scores: Float32Array, boxes: Float32Array): Candidate[] {
  const found: Candidate[] = [];
  for (let anchor = 0; anchor * CLASS_COUNT < scores.length; anchor += 1) {
    let best = 0;
    for (let at = 1; at < CLASS_COUNT; at += 1) {
      if ((scores[anchor * CLASS_COUNT + at] as number) > (scores[anchor * CLASS_COUNT + best] as number)) best = at;
    }
    const label = COCO_NAMES[best];
    const score = scores[anchor * CLASS_COUNT + best] as number;
    if (label === undefined || score < 0.01) continue;
    const edges = Array.from(boxes.subarray(4 * anchor, 4 * anchor + 4), (edge) => Math.min(1, Math.max(0, edge)));
    found.push({ label, score, edges: edges as [number, number, number, number] & number[] });
  }
  return found.sort((one, other) => other.score - one.score);
}

/** Greedy suppression: of boxes that cover one another by more than half, the best one stays. */
function pickObjects(candidates: readonly Candidate[], options: { scoreMin: number; objectsMax: number }): Candidate[] {
  const picked: Candidate[] = [];
  for (const candidate of candidates) {
    if (candidate.score < options.scoreMin || picked.length >= options.objectsMax) break;
    if (picked.every((other) => overlap(candidate.edges, other.edges) <= OVERLAP_MAX)) picked.push(candidate);
  }
  return picked;
}

function overlap(one: Candidate['edges'], other: Candidate['edges']): number {
  const height = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const width = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (height <= 0 || width <= 0) return 0;
  const area = (edges: Candidate['edges']) => (edges[2] - edges[0]) * (edges[3] - edges[1]);
  return (height * width) / (area(one) + area(other) - height * width);
}

function bestClasses(candidates: readonly Candidate[]): { label: string; score: number }[] {
  const best = new Map<string, number>();
  for (const { label, score } of candidates) if (!best.has(label)) best.set(label, score);
  return [...best].slice(0, CLASSES_GIVEN).map(([label, score]) => ({ label, score }));
}

function inPixels({ label, score, edges }: Candidate, { width, height }: { width: number; height: number }): DetectedObject {
  const [top, left, bottom, right] = edges;
  return { label, score, box: { x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height } };
}
