import { RECEIPT_HEADER } from '../inference/index.ts';
import { firstModel } from './ask.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';

const SHOWN = 4;

/** Turns texts into vectors; with `--json` the whole vectors, else how near each text is to the first (cosine). */
export async function embed(context: CommandContext, texts: string[], options: { model?: string; replay?: boolean }): Promise<void> {
  await withOwnGateway(context, options, async ({ send, account, told, server }) => {
    const body = JSON.stringify({ model: options.model ?? firstModel(server, 'embedding'), input: texts });
    const response = await send('/v1/embeddings', { body, type: 'application/json' });
    const { data } = (await response.json()) as { data: { embedding: number[] }[] };
    const bill = await account(response.headers.get(RECEIPT_HEADER));
    const vectors = data.map(({ embedding }) => embedding);
    context.output.result({ vectors, dimensions: vectors[0]?.length ?? 0, ...bill }, () => {
      const first = vectors[0] as number[];
      const lines = vectors.map(
        (vector, at) =>
          `${cosine(first, vector).toFixed(3)}  ${texts[at]}   [${vector
            .slice(0, SHOWN)
            .map((part) => part.toFixed(3))
            .join(', ')}, … ${vector.length} numbers]`,
      );
      return `${lines.join('\n')}\n\n${told(bill)}`;
    });
  });
}

function cosine(left: readonly number[], right: readonly number[]): number {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, part, at) => sum + part * (b[at] as number), 0);
  return dot(left, right) / (Math.sqrt(dot(left, left)) * Math.sqrt(dot(right, right)) || 1);
}
