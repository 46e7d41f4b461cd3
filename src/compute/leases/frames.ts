import { MillraceError } from '../../errors.ts';

/** What the answer to a command, or to the call of a port, is made of: a kind, the length of what follows (4 bytes, big end first), and so many bytes. */
export interface Frame {
  kind: FrameKind;
  bytes: Uint8Array;
}

/**
 * `started` carries the run's id, `ended` a JSON object, `alive` nothing: it is sent while there is nothing to say. Of a port, `stdout` is what comes from
 * there, and `closed` says that no more of it will.
 */
export type FrameKind = keyof typeof KINDS;

const KINDS = { alive: 0, stdout: 1, stderr: 2, started: 3, ended: 4, closed: 5 } as const;
const NAMES = Object.fromEntries(Object.entries(KINDS).map(([name, number]) => [number, name])) as Record<number, FrameKind>;
const HEAD_BYTES = 5;
const FRAME_BYTES_MAX = 1 << 20;

/** One frame as it goes over the wire. */
export function encodeFrame(kind: FrameKind, bytes: Uint8Array | string = ''): Uint8Array {
  const body = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(KINDS[kind], 0);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** The frames of a stream. @throws bad-frame when it is cut, or a frame is of no kind or longer than 1 MiB */
export async function* decodeFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  let held: Buffer = Buffer.alloc(0);
  for await (const piece of source) {
    held = held.length === 0 ? Buffer.from(piece) : Buffer.concat([held, piece]);
    while (held.length >= HEAD_BYTES) {
      const kind = NAMES[held.readUInt8(0)];
      const length = held.readUInt32BE(1);
      if (kind === undefined || length > FRAME_BYTES_MAX) throw badFrame(kind === undefined ? 'is of no known kind' : 'is too long');
      if (held.length < HEAD_BYTES + length) break;
      yield { kind, bytes: held.subarray(HEAD_BYTES, HEAD_BYTES + length) };
      held = held.subarray(HEAD_BYTES + length);
    }
  }
  if (held.length > 0) throw badFrame('is cut off');
}

function badFrame(reason: string): MillraceError {
  return new MillraceError('bad-frame', {
    actor: 'peer',
    message: `The machine’s answer cannot be read: a frame ${reason}`,
    values: { reason },
    hint: 'The connection was cut, or the machine runs another version of Millrace; try again.',
  });
}
