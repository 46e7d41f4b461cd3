import { MillraceError } from './errors.ts';

/**
 * All bytes of a body that somebody else sends, when there are not too many; at the first byte too many it is let go. The one way in which answers of
 * peers are read whole.
 * @param body none gives no bytes
 * @throws answer-too-long, and what the body throws
 */
export async function readAtMost(body: AsyncIterable<Uint8Array> | null | undefined, bytesMax: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > bytesMax) {
      throw new MillraceError('answer-too-long', {
        actor: 'peer',
        message: `The answer is longer than ${bytesMax} bytes`,
        values: { limit: bytesMax },
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
