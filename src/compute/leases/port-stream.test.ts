import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { decodeFrames, type Frame } from './frames.ts';
import { until } from './lease-fixture.ts';
import { portStream } from './port-stream.ts';

const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
after(() => server.close());

/** Both ends of a connection: what the machine has, and what the program in the rental has. */
async function pair(): Promise<{ socket: Socket; program: Socket }> {
  await (server.listening || once(server, 'listening'));
  const accepted = once(server, 'connection');
  const socket = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true });
  const [program] = (await accepted) as [Socket];
  program.on('error', () => {});
  return { socket, program };
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

async function* never(signal: AbortSignal): AsyncGenerator<Uint8Array> {
  await once(signal, 'abort');
  yield* nothing();
}

async function framesOf(stream: AsyncIterable<Uint8Array>): Promise<Frame[]> {
  const frames: Frame[] = [];
  for await (const frame of decodeFrames(stream)) frames.push(frame);
  return frames;
}

/** That a side is done is said only where the other one is not. */
const kinds = (frames: Frame[]) => frames.map(({ kind }) => kind).filter((kind) => kind !== 'closed');
const endOf = (frames: Frame[]) => Buffer.from(frames.at(-1)?.bytes ?? []).toString();

test('both sides may end first: what the other one says is still brought', async () => {
  const { signal } = new AbortController();
  const first = await pair();
  const stream = framesOf(portStream(first.socket, nothing(), signal));
  first.program.resume();
  await once(first.program, 'end');
  first.program.end('late');
  const frames = await stream;
  assert.deepEqual(kinds(frames), ['started', 'stdout', 'ended']);
  assert.equal(endOf(frames), '{"end":"done"}');

  const second = await pair();
  const release = Promise.withResolvers<void>();
  async function* later(): AsyncGenerator<Uint8Array> {
    await release.promise;
    yield Buffer.from('also late');
  }
  const other = framesOf(portStream(second.socket, later(), signal));
  second.program.end();
  const heard = once(second.program, 'data');
  release.resolve();
  assert.equal(String((await heard)[0]), 'also late');
  assert.deepEqual(kinds(await other), ['started', 'ended']);
});

test('neither side is read faster than the other one takes', async () => {
  const { socket, program } = await pair();
  const piece = Buffer.alloc(1 << 16, 'x');
  const pieces = 2_048;
  let given = 0;
  async function* flood(): AsyncGenerator<Uint8Array> {
    for (; given < pieces; given += 1) yield piece;
  }
  const caller = new AbortController();
  const stream = portStream(socket, flood(), caller.signal);
  let seen = -1;
  await until('it waits for the program', () => {
    const hasStopped = given === seen;
    seen = given;
    return hasStopped && socket.writableNeedDrain;
  });
  assert.ok(given < pieces / 2, `${given} pieces were taken of which nobody read one`);
  let bytes = 0;
  program.on('data', (some: Buffer) => {
    bytes += some.length;
  });
  await until('all of it came', () => bytes === pieces * piece.length);

  // Nobody has taken a frame of the answer yet.
  let written = 0;
  const push = () => {
    while (written < pieces && program.write(piece)) written += 1;
  };
  program.on('drain', push);
  push();
  let before = -1;
  await until('the program waits for the caller', () => {
    const hasStopped = written === before;
    before = written;
    return hasStopped;
  });
  assert.ok(written < pieces / 2, `${written} pieces were written of which nobody took one`);
  caller.abort();
  assert.equal(endOf(await framesOf(stream)), '{"end":"gone"}');
  program.destroy();
});

test('a connection on which nothing moves is cut, and so is one whose caller or program went away', async () => {
  const idle = await pair();
  const { signal } = new AbortController();
  const stop = new AbortController();
  assert.equal(endOf(await framesOf(portStream(idle.socket, never(stop.signal), signal, 50))), '{"end":"idle"}');
  stop.abort();
  idle.program.destroy();

  const left = await pair();
  const caller = new AbortController();
  const unread = portStream(left.socket, never(caller.signal), caller.signal);
  caller.abort();
  await until('it is cut though nobody read its answer', () => left.socket.destroyed);
  assert.equal(endOf(await framesOf(unread)), '{"end":"gone"}');
  left.program.destroy();

  const cut = await pair();
  const frames = framesOf(portStream(cut.socket, never(signal), signal));
  cut.program.resetAndDestroy();
  assert.equal(endOf(await frames), '{"end":"cut"}');
});
