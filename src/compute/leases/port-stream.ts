import type { Socket } from 'node:net';
import { systemClock } from '../../clock.ts';
import { encodeFrame } from './frames.ts';
import { somethingCame } from './run-stream.ts';

/** How a connection to a port of a rental ended: both sides were done, it was cut within the rental, nothing moved for long, or the caller went away. */
export type PortEnd = 'done' | 'cut' | 'idle' | 'gone';

const PIECE_BYTES = 1 << 16;
/** A place among the few connections of a rental is given up when nothing moves on it for so long. */
const IDLE_MS = 3_600_000;
const LOOK_MS = 15_000;

/**
 * The answer to a call of a port: frames of what comes from there, `closed` when its side is done, at least one frame every fifteen seconds, and at the
 * end how it ended. What the caller sends goes to the port as it comes, and so does the end of that. Neither side is read faster than the other takes.
 * @param idleMs after which a connection on which nothing moves is cut
 */
export function portStream(
  socket: Socket,
  input: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  idleMs = IDLE_MS,
): AsyncGenerator<Uint8Array> {
  const state = { end: 'done' as PortEnd, movedAtMs: systemClock.nowMs() };
  const cut = (end: PortEnd) => {
    if (socket.destroyed) return;
    state.end = end;
    socket.destroy();
  };
  // Not in the generator: one whose caller went away before it began is never run.
  const leave = () => cut('gone');
  const watch = setInterval(
    () => {
      if (socket.destroyed) clearInterval(watch);
      else if (systemClock.nowMs() - state.movedAtMs > idleMs) cut('idle');
    },
    Math.min(idleMs, LOOK_MS),
  ).unref();
  signal.addEventListener('abort', leave, { once: true });
  socket.once('close', () => {
    clearInterval(watch);
    signal.removeEventListener('abort', leave);
  });
  socket.once('error', () => {
    state.end = 'cut';
  });
  if (signal.aborted) leave();
  void feed(socket, input, state).catch(leave);
  return framesOf(socket, state);
}

async function feed(socket: Socket, input: AsyncIterable<Uint8Array>, state: { movedAtMs: number }): Promise<void> {
  for await (const piece of input) {
    if (socket.destroyed) return;
    if (!socket.write(piece)) await new Promise<void>((resolve) => settleAtDrain(socket, resolve));
    state.movedAtMs = systemClock.nowMs();
  }
  socket.end();
}

function settleAtDrain(socket: Socket, resolve: () => void): void {
  const settle = () => {
    socket.off('drain', settle).off('close', settle);
    resolve();
  };
  if (socket.destroyed) resolve();
  else socket.once('drain', settle).once('close', settle);
}

async function* framesOf(socket: Socket, state: { end: PortEnd; movedAtMs: number }): AsyncGenerator<Uint8Array> {
  try {
    yield encodeFrame('started');
    while (!socket.readableEnded && !socket.destroyed) {
      const bytes = socket.read() as Buffer | null;
      if (bytes === null) {
        if (!(await somethingCame([socket]))) yield encodeFrame('alive');
        continue;
      }
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield encodeFrame('stdout', bytes.subarray(at, at + PIECE_BYTES));
      state.movedAtMs = systemClock.nowMs();
    }
    if (!socket.destroyed) yield encodeFrame('closed');
    while (!socket.destroyed) if (!(await somethingCame([socket]))) yield encodeFrame('alive');
    // The sandbox's end destroys it from elsewhere.
    const isWhole = socket.readableEnded && socket.writableFinished;
    yield encodeFrame('ended', JSON.stringify({ end: state.end === 'done' && !isWhole ? 'cut' : state.end }));
  } finally {
    socket.destroy();
  }
}
