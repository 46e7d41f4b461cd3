import { MillraceError } from '../../errors.ts';
import { integers, openGraph } from './graph-session.ts';
import { lossGraph } from './model-graph.ts';
import type { ModelShape, Weights } from './model-shape.ts';
import { weightInputs } from './training.ts';

/**
 * The mean loss in nats per byte over a text, read window by window from its start: each byte but the first of a window is predicted from
 * those before it in the window. The rest that fills no batch of windows is left out. `windows` bounds the work.
 * @throws text-too-short
 */
export async function lossOf(
  shape: ModelShape,
  weights: Weights,
  text: Uint8Array,
  options: { batch?: number; length?: number; windowsMax?: number } = {},
): Promise<number> {
  const { batch = 8, length = shape.context, windowsMax = Number.POSITIVE_INFINITY } = options;
  const rounds = Math.floor(Math.min(windowsMax, (text.length - 1) / length) / batch);
  if (rounds < 1) {
    throw new MillraceError('text-too-short', {
      actor: 'caller',
      message: `Got ${text.length} bytes, expected at least ${batch * length + 1}: one batch of ${batch} windows of ${length} and a byte`,
      values: { bytes: text.length, least: batch * length + 1 },
    });
  }
  const session = await openGraph(lossGraph(shape, batch, length));
  const inputs = weightInputs(shape, weights);
  try {
    let total = 0;
    for (let round = 0; round < rounds; round += 1) {
      const start = round * batch * length;
      const read = (shift: number) => integers(text.subarray(start + shift, start + shift + batch * length), [batch, length]);
      const { loss } = await session.run({ ...inputs, ids: read(0), targets: read(1) });
      total += Number(loss?.data[0]);
    }
    return total / rounds;
  } finally {
    await session.close();
  }
}
