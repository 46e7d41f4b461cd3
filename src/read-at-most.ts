import { MillraceError } from './errors.ts';

/** Bytes that somebody else sends. */
type Body = AsyncIterable<Uint8Array> | null | undefined;

/**
 * All bytes of a body that somebody else sends, when there are not too many; at the first byte too many it is let go. The one way in which answers of
 * peers are read whole.
 * @param body none gives no bytes
 * @throws answer-too-long, and what the body throws
 */
export async function readAtMost(body: Body, bytesMax: number): Promise<Buffer> {
  const bytes = await readUpTo(body, bytesMax);
  if (bytes !== undefined) return bytes;
  throw new MillraceError('answer-too-long', {
    actor: 'peer',
    message: `The answer is longer than ${bytesMax} bytes`,
    values: { limit: bytesMax },
  });
}

/**
 * All bytes of a request's body, as {@link readAtMost} reads an answer's.
 * @throws body-too-big, and what the body throws
 */
export async function readRequest({ body }: { readonly body: Body }, bytesMax: number): Promise<Buffer> {
  const bytes = await readUpTo(body, bytesMax);
  if (bytes !== undefined) return bytes;
  throw new MillraceError('body-too-big', {
    actor: 'caller',
    message: `The body is longer than ${bytesMax} bytes`,
    values: { limit: bytesMax },
    hint: 'Send less at once.',
  });
}

/** Undefined when there are more. */
async function readUpTo(body: Body, bytesMax: number): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
