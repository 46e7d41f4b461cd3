import { createHash } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type FolderLock, lockFolder } from '../../lock.ts';
import type { Engine, EnginePart, EngineRequest, EngineResult, ResultOf, RunOptions } from './engine.ts';
import type { SentError } from './kernel.ts';
import { checkRequest } from './request-limits.ts';

type Frame = { type: 'part'; part: EnginePart } | { type: 'done'; result: EngineResult } | { type: 'failed'; error: SentError };

const FRAME_BYTES_MAX = 256 << 20;
const TRIES = 4;
const PAUSE_MS = 50;

/** The holder died, or is closing down. */
const GONE = new Set(['engine-lost', 'engine-closed']);

/**
 * One engine for all processes of this user that use the same folder of models: whoever needs it first runs it and listens on a Unix socket (a
 * folder of mode 0700 is the authority), the others ask there. When the holder dies, its socket falls silent and the next request finds
 * another holder. One connection is one request; closing it is giving up.
 */
export function shareEngine(local: Engine, modelsFolder: string): Engine {
  const socketPath = socketFor(local.card.root, modelsFolder);
  let holding: { server: Server; lock: FolderLock } | undefined;
  let attempt: Promise<boolean> | undefined;
  let isServed = false;
  let isClosed = false;

  /** True when this process runs the engine. */
  const tryHold = async (): Promise<boolean> => {
    let lock: FolderLock;
    try {
      lock = lockFolder(`${socketPath}.held`);
    } catch (error) {
      if ((error as MillraceError).code === 'folder-busy') return false;
      throw error;
    }
    rmSync(socketPath, { force: true });
    const server = createServer({ allowHalfOpen: true }, (socket) => void serve(socket, local));
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socketPath, resolve));
    chmodSync(socketPath, 0o600);
    server.unref();
    holding = { server, lock };
    return true;
  };
  const isHolder = async (): Promise<boolean> => {
    if (holding !== undefined) return true;
    attempt ??= tryHold().finally(() => {
      attempt = undefined;
    });
    return attempt;
  };

  const run = async <Request extends EngineRequest>(request: Request, options: RunOptions): Promise<ResultOf<Request>> => {
    checkRequest(request, local.card);
    let hasParts = false;
    const onPart = (part: EnginePart) => {
      hasParts = true;
      options.onPart?.(part);
    };
    for (let tries = 1; ; tries += 1) {
      if (isClosed || (await isHolder())) return local.run(request, options);
      try {
        const result = (await ask(socketPath, request, { ...options, onPart })) as ResultOf<Request>;
        isServed = true;
        return result;
      } catch (error) {
        // The holder has gone, or is just coming up: look again who holds it. What has begun to arrive is not begun anew.
        if (!GONE.has((error as MillraceError).code) || hasParts || tries >= TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * tries));
      }
    }
  };

  return {
    card: local.card,
    run,
    state: () => (holding === undefined && isServed ? 'warm' : local.state()),
    async warm() {
      if (await isHolder()) await local.warm();
    },
    async close() {
      isClosed = true;
      holding?.server.close();
      await local.close();
      holding?.lock.release();
      holding = undefined;
    },
  };
}

/** Short enough for a socket's address, and this user's alone. */
function socketFor(root: string, modelsFolder: string): string {
  const uid = process.getuid?.() ?? 0;
  const folder = join(tmpdir(), `millrace-engines-${uid}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { uid: owner, mode } = lstatSync(folder);
  if (owner !== uid || (mode & 0o077) !== 0) {
    throw new MillraceError('access-denied', {
      actor: 'host',
      message: `${folder} is not this user's alone`,
      values: { path: folder, owner },
      hint: 'Delete it, or set TMPDIR to a folder of your own.',
    });
  }
  return join(folder, createHash('sha256').update(`${root}|${modelsFolder}`).digest('hex').slice(0, 24));
}

async function serve(socket: Socket, engine: Engine): Promise<void> {
  const abort = new AbortController();
  socket.on('error', () => abort.abort());
  socket.on('close', () => abort.abort());
  const tell = (frame: Frame) => void (socket.writable && socket.write(encode(frame)));
  try {
    const request = (await firstFrame(socket)) as EngineRequest;
    const result = await engine.run(request, { signal: abort.signal, onPart: (part) => tell({ type: 'part', part }) });
    tell({ type: 'done', result });
  } catch (error) {
    const { code, actor, message, values, hint } = toMillraceError(error).toJSON();
    tell({ type: 'failed', error: { code, actor, message, values: values as SentError['values'], hint } });
  } finally {
    socket.end();
  }
}

/** Sends one request to the holder. */
function ask(socketPath: string, request: EngineRequest, options: RunOptions): Promise<EngineResult> {
  const socket = connect(socketPath);
  return new Promise<EngineResult>((resolve, reject) => {
    const settle = (act: () => void) => {
      options.signal.removeEventListener('abort', giveUp);
      socket.destroy();
      act();
    };
    const giveUp = () => settle(() => reject(gaveUp()));
    options.signal.addEventListener('abort', giveUp, { once: true });
    if (options.signal.aborted) return giveUp();
    const take = (frame: Frame) => {
      if (frame.type === 'part') options.onPart?.(frame.part);
      else if (frame.type === 'done') settle(() => resolve(frame.result));
      else settle(() => reject(new MillraceError(frame.error.code, frame.error)));
    };
    socket.on('connect', () => socket.write(encode(request)));
    readFrames(socket, (value) => take(value as Frame));
    socket.on('error', () => settle(() => reject(lost())));
    socket.on('close', () => settle(() => reject(lost())));
  });
}

function firstFrame(socket: Socket): Promise<unknown> {
  return new Promise((resolve, reject) => {
    readFrames(socket, resolve);
    socket.on('close', () => reject(gaveUp()));
  });
}

/** Frames of a length (32 bits, big-endian) and a structured clone. */
function readFrames(socket: Socket, onFrame: (value: unknown) => void): void {
  let chunks: Buffer[] = [];
  let size = 0;
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    size += chunk.length;
    while (size >= 4) {
      const first = chunks[0] as Buffer;
      const length = (first.length >= 4 ? first : Buffer.concat(chunks)).readUInt32BE(0);
      if (length > FRAME_BYTES_MAX) return void socket.destroy();
      if (size < 4 + length) return;
      const whole = Buffer.concat(chunks);
      chunks = whole.length > 4 + length ? [whole.subarray(4 + length)] : [];
      size = whole.length - 4 - length;
      onFrame(deserialize(whole.subarray(4, 4 + length)));
    }
  });
}

function encode(value: unknown): Buffer {
  const body = serialize(value);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

function lost(): MillraceError {
  return new MillraceError('engine-lost', {
    actor: 'host',
    message: 'The process that ran the engine has gone',
    hint: 'Try again: another process takes over.',
  });
}

function gaveUp(): MillraceError {
  return new MillraceError('request-aborted', {
    actor: 'caller',
    message: 'The caller gave up the request',
    hint: 'Nothing has to be done.',
  });
}
