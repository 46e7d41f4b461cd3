import type { OcrRequest, OcrResult, TextLine } from './engine.ts';
import { decodeImage, type PixelImage, type Size } from './image-pixels.ts';
import type { OpenKernel } from './kernel.ts';
import { openTensorGraph, type TensorData, type TensorGraph } from './tensor-graph.ts';
import { cornersOf, cutOut, findTextBoxes, inReadingOrder, type TextBox } from './text-boxes.ts';
import { bytesOf, createWitnessRecord, digestOutputs, type WitnessRecord } from './witness.ts';

/** The finder reads text of 10 to 100 pixels best: small images are made larger, large ones smaller. */
const SHORT_SIDE_MIN = 736;
const LONG_SIDE_MAX = 1536;
const STEP = 32;
const FINDER_MEANS = [0.406, 0.456, 0.485]; // blue, green, red, as it was trained
const FINDER_DEVIATIONS = [0.225, 0.224, 0.229];
const LINE_HEIGHT = 48;
const LINE_WIDTH_MIN = 320;
const LINE_WIDTH_MAX = 3_200;
const TURN_WIDTH = 192;
const TURN_SCORE_MIN = 0.9;
const TALL = 1.5;
const LINE_SCORE_MIN = 0.5;

interface Graphs {
  find: TensorGraph;
  turn: TensorGraph;
  read: TensorGraph;
  characters: string[];
}

/** Opens the three graphs of PP-OCRv4: find boxes of text, turn those that stand on their heads, read each. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const graphs: Graphs = {
    find: await openTensorGraph('find', await read('find.onnx')),
    turn: await openTensorGraph('turn', await read('turn.onnx')),
    read: await openTensorGraph('read', await read('read.onnx')),
    // The first output means "nothing here", the last a space.
    characters: [
      '',
      ...Buffer.from(await read('characters.txt'))
        .toString('utf8')
        .trimEnd()
        .split(/\r?\n/),
      ' ',
    ],
  };
  return {
    async run(request, { signal }): Promise<OcrResult> {
      const { image, witness } = request as OcrRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      const pixels = await decodeImage(image, { fit: workingSize, kernel: 'cubic' });
      const { original } = pixels;
      const outputs: { name: string; shape: readonly number[]; bytes: Uint8Array }[] = [];
      const keep = (name: string, { data, shape }: TensorData) => void outputs.push({ name, shape, bytes: bytesOf(data) });
      const map = first(await graphs.find.run({ x: planes(pixels, pixels.width, FINDER_MEANS, FINDER_DEVIATIONS) }, record));
      keep('map', map);
      const rows = inReadingOrder(findTextBoxes(map.data as Float32Array, pixels));
      const scale = { x: original.width / pixels.width, y: original.height / pixels.height };
      const lines: TextLine[][] = [];
      for (const row of rows) {
        const read: TextLine[] = [];
        for (const box of row) {
          if (signal.aborted) break;
          const line = await readLine(graphs, { pixels, box, record, keep });
          if (line.score < LINE_SCORE_MIN || line.text.trim() === '') continue;
          read.push({ ...line, corners: cornersOf(box).map(({ x, y }) => ({ x: x * scale.x, y: y * scale.y })) });
        }
        if (read.length > 0) lines.push(read);
      }
      return {
        task: 'ocr',
        ...original,
        text: lines.map((row) => row.map(({ text }) => text).join(' ')).join('\n'),
        lines: lines.flat(),
        usage: { unit: 'images', input: 1, output: 0 },
        outputDigest: digestOutputs(outputs),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};

function workingSize({ width, height }: Size): Size {
  const scale = Math.min(Math.max(1, SHORT_SIDE_MIN / Math.min(width, height)), LONG_SIDE_MAX / Math.max(width, height));
  const whole = (length: number) => Math.max(STEP, Math.round((length * scale) / STEP) * STEP);
  return { width: whole(width), height: whole(height) };
}

async function readLine(
  graphs: Graphs,
  {
    pixels,
    box,
    record,
    keep,
  }: { pixels: PixelImage; box: TextBox; record: WitnessRecord | undefined; keep: (name: string, tensor: TensorData) => void },
): Promise<{ text: string; score: number }> {
  // Text that runs down the page is read from its side.
  const isTall = box.height >= TALL * box.width;
  const level = isTall ? { ...box, along: { x: box.along.y, y: -box.along.x }, width: box.height, height: box.width } : box;
  const width = Math.min(LINE_WIDTH_MAX, Math.max(1, Math.ceil((LINE_HEIGHT * level.width) / level.height)));
  const line = cutOut(pixels, level, { width, height: LINE_HEIGHT });
  const small = width <= TURN_WIDTH ? line : cutOut(pixels, level, { width: TURN_WIDTH, height: LINE_HEIGHT });
  const turned = first(await graphs.turn.run({ x: planes(small, TURN_WIDTH) }, record));
  keep('turn', turned);
  if ((turned.data[1] as number) > TURN_SCORE_MIN) reverse(line);
  const chances = first(await graphs.read.run({ x: planes(line, Math.max(LINE_WIDTH_MIN, width)) }, record));
  keep('read', chances);
  return decode(chances, graphs.characters);
}

/** Planes of blue, green, red, padded with zeros on the right to a width. */
function planes(
  { rgb, width, height }: PixelImage,
  padded: number,
  means: readonly number[] = [0.5, 0.5, 0.5],
  deviations: readonly number[] = [0.5, 0.5, 0.5],
): TensorData {
  const data = new Float32Array(3 * padded * height);
  for (let plane = 0; plane < 3; plane += 1) {
    const [mean, deviation] = [means[plane] as number, deviations[plane] as number];
    for (let row = 0; row < height; row += 1) {
      const target = (plane * height + row) * padded;
      const source = 3 * row * width + 2 - plane;
      for (let column = 0; column < width; column += 1)
        data[target + column] = ((rgb[source + 3 * column] as number) / 255 - mean) / deviation;
    }
  }
  return { data, shape: [1, 3, height, padded] };
}

/** Turns an image by 180 degrees, in place. */
function reverse({ rgb }: PixelImage): void {
  rgb.reverse();
  for (let at = 0; at < rgb.length; at += 3) [rgb[at], rgb[at + 2]] = [rgb[at + 2] as number, rgb[at] as number];
}

/** Greedy decoding (connectionist temporal classification, Graves et al. 2006): repeats fall together, "nothing" falls away. */
function decode({ data, shape }: TensorData, characters: readonly string[]): { text: string; score: number } {
  const [, steps = 0, classes = 0] = shape;
  let text = '';
  let sum = 0;
  let counted = 0;
  let previous = 0;
  for (let step = 0; step < steps; step += 1) {
    let best = 0;
    for (let at = 1; at < classes; at += 1) if ((data[step * classes + at] as number) > (data[step * classes + best] as number)) best = at;
    if (best !== 0 && best !== previous) {
      text += characters[best] ?? '';
      sum += data[step * classes + best] as number;
      counted += 1;
    }
    previous = best;
  }
  return { text, score: counted === 0 ? 0 : sum / counted };
}

function first(outputs: Record<string, TensorData>): TensorData {
  return Object.values(outputs)[0] as TensorData;
}
