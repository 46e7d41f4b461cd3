import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import { MillraceError } from '../../errors.ts';
import { decodeFrames } from './frames.ts';
import type { PortEnd } from './port-stream.ts';

/** Calls a port of a rental: sends these bytes as they come, and gives the answer once the machine is connected. */
type CallPort = (bytes: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<Response>;

const ENDS: Readonly<Record<PortEnd, string | undefined>> = {
  done: undefined,
  cut: 'it was cut within the rental',
  idle: 'nothing moved on it for long',
  gone: 'the machine took this side for gone',
};

/**
 * Joins a connection of this machine with the call of a port until both sides of it have ended (see `RentalClient.joinPort`).
 * @throws port-cut, bad-frame, and what the call throws
 */
export async function joinConnection(connection: Duplex, signal: AbortSignal | undefined, call: CallPort): Promise<void> {
  const left = new AbortController();
  const leave = () => {
    if (!connection.readableEnded || !connection.writableFinished) left.abort(cut('this side was closed'));
  };
  connection.once('close', leave);
  // Read from the first byte only when somebody takes it: a call that is refused can be made again.
  const accepted = Promise.withResolvers<boolean>();
  const bytes = async function* () {
    if (await accepted.promise) yield* connection.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
  };
  try {
    const response = await call(bytes(), signal === undefined ? left.signal : AbortSignal.any([signal, left.signal]));
    accepted.resolve(true);
    const end = await copyFrames(response, connection);
    if (end !== 'done') throw cut(ENDS[end] ?? 'the machine stopped answering');
    connection.end();
    await finished(connection, { readable: false });
  } finally {
    accepted.resolve(false);
    connection.off('close', leave);
  }
}

/** Writes what comes from the port, to the very end of the answer, so that the next call may use its connection. */
async function copyFrames(response: Response, connection: Duplex): Promise<PortEnd> {
  let end: PortEnd | undefined;
  for await (const { kind, bytes } of decodeFrames(response.body as unknown as AsyncIterable<Uint8Array>)) {
    if (kind === 'stdout') await write(connection, bytes);
    if (kind === 'closed') connection.end();
    if (kind === 'ended') end = /^\{"end":"(done|cut|idle|gone)"\}$/.exec(Buffer.from(bytes).toString('utf8'))?.[1] as PortEnd | undefined;
  }
  return end ?? 'cut';
}

async function write(connection: Duplex, bytes: Uint8Array): Promise<void> {
  if (connection.destroyed) throw cut('this side was closed');
  if (connection.write(bytes)) return;
  await new Promise<void>((resolve) => {
    const settle = () => {
      connection.off('drain', settle).off('close', settle);
      resolve();
    };
    connection.once('drain', settle).once('close', settle);
  });
}

function cut(reason: string): MillraceError {
  return new MillraceError('port-cut', {
    actor: 'peer',
    message: `The connection to the rental’s port ended before its time: ${reason}`,
    values: { reason },
    hint: 'The program there closed it or ended, or the sandbox was made anew; connect again.',
  });
}
