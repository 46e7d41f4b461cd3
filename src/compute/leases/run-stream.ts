import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { encodeFrame } from './frames.ts';
import type { WorkspaceRun } from './workspace.ts';

const ALIVE_MS = 15_000;
const PIECE_BYTES = 1 << 16;
const HANG_UP_MS = 5_000;

/**
 * The answer to a command while it runs: frames of both streams as they come, at least one every fifteen seconds, and at the end how it ended.
 * The rest of the request is its standard input. When the caller goes away, the command is hung up, and killed soon after.
 */
export function runStream(run: WorkspaceRun, input: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  let isOver = false;
  const hangUp = () => {
    if (isOver) return;
    void run.signal('HUP').catch(() => {});
    setTimeout(() => void (isOver || run.signal('KILL').catch(() => {})), HANG_UP_MS).unref();
  };
  // Not in the generator: one whose caller went away before it began is never run.
  signal.addEventListener('abort', hangUp, { once: true });
  if (signal.aborted) hangUp();
  void feed(run, input).catch(hangUp);
  void run.ended.then(() => {
    isOver = true;
    signal.removeEventListener('abort', hangUp);
  });
  return framesOf(run, hangUp);
}

async function* framesOf(run: WorkspaceRun, hangUp: () => void): AsyncGenerator<Uint8Array> {
  try {
    yield encodeFrame('started', run.id);
    yield* mergeStreams(run);
    const exitCode = await run.ended;
    yield encodeFrame('ended', JSON.stringify({ exitCode: exitCode ?? null }));
  } finally {
    hangUp();
    for (const stream of [run.stdout, run.stderr]) stream.destroy();
  }
}

async function feed(run: WorkspaceRun, input: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const piece of input) await run.stdin.write(piece);
  run.stdin.end();
}

/** Pieces of both streams in the order in which they come; a stream is read only as fast as the caller takes them. */
async function* mergeStreams({ stdout, stderr }: WorkspaceRun): AsyncGenerator<Uint8Array> {
  const open = new Map<'stdout' | 'stderr', Readable>([
    ['stdout', stdout],
    ['stderr', stderr],
  ]);
  while (open.size > 0) {
    let isIdle = true;
    for (const [kind, stream] of open) {
      const bytes = stream.read() as Buffer | null;
      if (bytes !== null) {
        isIdle = false;
        for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield encodeFrame(kind, bytes.subarray(at, at + PIECE_BYTES));
      } else if (stream.readableEnded || stream.destroyed) open.delete(kind);
    }
    if (isIdle && open.size > 0 && !(await somethingCame([...open.values()]))) yield encodeFrame('alive');
  }
}

/** Waits for a stream to have something, or to end; false when nothing came for long, and the caller is to be told that all is well. */
export async function somethingCame(streams: readonly Readable[]): Promise<boolean> {
  const wait = new AbortController();
  const timer = setTimeout(() => wait.abort(), ALIVE_MS);
  const events = streams.flatMap((stream) => ['readable', 'end', 'close'].map((event) => once(stream, event, { signal: wait.signal })));
  try {
    await Promise.race(events.map((event) => event.catch(() => undefined)));
    return !wait.signal.aborted;
  } finally {
    clearTimeout(timer);
    wait.abort();
  }
}
