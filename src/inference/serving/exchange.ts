import { IncomingMessage } from 'node:http';
import { MillraceError } from '../../errors.ts';

/** A request to a model server, whatever carried it. */
export interface ServingRequest {
  method: string;
  /** Path without the query. */
  path: string;
  query: string;
  /** By lower-case name. */
  headers: Readonly<Record<string, string | undefined>>;
  body: AsyncIterable<Uint8Array>;
  /** Aborts when the caller is gone. */
  signal: AbortSignal;
}

/** What is answered; a body that is iterated streams as fast as the caller takes it. */
export interface ServingAnswer {
  status: number;
  headers: Record<string, string>;
  body: string | Uint8Array | AsyncIterable<string | Uint8Array>;
}

/** Bytes that all requests together may hold in memory. */
export interface ByteBudget {
  /** Takes some, or says that there are not so many. */
  take(bytes: number): boolean;
  give(bytes: number): void;
  readonly used: number;
}

/** A body in memory; `release` gives its bytes back to the budget. */
export interface HeldBody {
  bytes: Buffer;
  release(): void;
}

/** A budget of so many bytes. */
export function createByteBudget(bytesMax: number): ByteBudget {
  let used = 0;
  return {
    take(bytes) {
      if (used + bytes > bytesMax) return false;
      used += bytes;
      return true;
    },
    give: (bytes) => {
      used -= bytes;
    },
    get used() {
      return used;
    },
  };
}

const BODY_MS = 60_000;

/**
 * The whole body, as far as it is allowed to be long and others leave room for it. A declared length that is too long is refused unread.
 * @throws body-too-big, body-too-slow, body-cut, serving-busy
 */
export async function readBody(request: ServingRequest, limits: { bytesMax: number; budget: ByteBudget }): Promise<HeldBody> {
  const { bytesMax, budget } = limits;
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw tooBig(bytesMax);
  let held = 0;
  let size = 0;
  const chunks: Uint8Array[] = [];
  const take = (chunk: Uint8Array): void => {
    size += chunk.length;
    if (size > bytesMax) throw tooBig(bytesMax);
    // The pieces and the whole are there together for a moment.
    if (!budget.take(2 * chunk.length)) throw busy();
    held += 2 * chunk.length;
    chunks.push(chunk);
  };
  try {
    await (request.body instanceof IncomingMessage ? takeFromServer(request.body, take) : takeAll(request.body, take));
    const bytes = chunks.length === 1 ? asBuffer(chunks[0] as Uint8Array) : Buffer.concat(chunks, size);
    budget.give(held - size);
    let isHeld = true;
    return {
      bytes,
      release() {
        if (isHeld) budget.give(size);
        isHeld = false;
      },
    };
  } catch (error) {
    budget.give(held);
    if (error instanceof MillraceError) throw error;
    throw bodyError('body-cut', 'The connection ended before the whole body had come', undefined, error);
  }
}

/** By events: for a body that is there at once, an iterator costs more than reading it. */
function takeFromServer(body: IncomingMessage, take: (chunk: Uint8Array) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => end(tooSlow()), BODY_MS);
    const end = (error?: unknown) => {
      clearTimeout(late);
      body.off('data', onData);
      body.off('end', end);
      body.off('close', onClose);
      if (error === undefined) return resolve();
      body.pause();
      reject(error);
    };
    const onClose = () => end(body.complete ? undefined : new TypeError('closed'));
    const onData = (chunk: Uint8Array) => {
      try {
        take(chunk);
      } catch (error) {
        end(error);
      }
    };
    body.on('data', onData);
    body.on('end', end);
    body.on('close', onClose);
    body.on('error', () => {});
  });
}

async function takeAll(body: AsyncIterable<Uint8Array>, take: (chunk: Uint8Array) => void): Promise<void> {
  const lateMs = performance.now() + BODY_MS;
  for await (const chunk of body) {
    take(chunk);
    if (performance.now() > lateMs) throw tooSlow();
  }
}

function tooSlow(): MillraceError {
  return bodyError('body-too-slow', `The body took longer than ${BODY_MS} ms`, BODY_MS);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function tooBig(limit: number): MillraceError {
  return bodyError('body-too-big', `The body is longer than ${limit} bytes`, limit);
}

function bodyError(code: string, message: string, limit?: number, cause?: unknown): MillraceError {
  return new MillraceError(code, { actor: 'caller', message, values: { limit }, cause });
}

/** Too much is going on at once. */
function busy(): MillraceError {
  return new MillraceError('serving-busy', {
    actor: 'peer',
    message: 'Requests that are under way hold all the memory that there is for them',
    hint: 'Try again in a moment.',
  });
}
