import http from 'node:http';
import https from 'node:https';
import { isStale, StaleConnection, sendPastStale } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';

/** A request to a server that may be slow, dead or hostile. Time-outs in milliseconds. */
export interface OutgoingRequest {
  url: URL;
  method: string;
  headers: Record<string, string | number>;
  body?: string | Uint8Array;
  /** Keeps connections; default: one for each kind of URL. */
  agent?: http.Agent | https.Agent;
  signal: AbortSignal;
  /** To connect and get the headers of the answer. */
  headersTimeoutMs: number;
  /** Between two pieces of the body. */
  idleTimeoutMs: number;
}

const plainAgent = new http.Agent({ keepAlive: true, maxSockets: 1024, maxFreeSockets: 256 });
const secureAgent = new https.Agent({ keepAlive: true, maxSockets: 1024, maxFreeSockets: 256 });

/**
 * Sends a request and gives the answer as soon as its headers are there. Its body ends with an error when it stops coming. Redirects are
 * not followed. A kept connection that the server closed in the meantime is no answer: the request is sent again, on another one.
 * @throws server-unreachable, server-timeout, and the signal's reason
 */
export function sendHttp(request: OutgoingRequest): Promise<http.IncomingMessage> {
  return sendPastStale(() => sendOnce(request), { canRepeat: true, gone: (cause) => unreachable(request.url, cause) });
}

function sendOnce(request: OutgoingRequest): Promise<http.IncomingMessage> {
  const { url, signal } = request;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const isSecure = url.protocol === 'https:';
    const outgoing = (isSecure ? https : http).request(url, {
      method: request.method,
      headers: request.headers,
      agent: request.agent ?? (isSecure ? secureAgent : plainAgent),
    });
    const fail = (error: unknown) => {
      reject(error);
      outgoing.destroy();
    };
    const onAbort = () => fail(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setTimeout(() => fail(timeout(url, request.headersTimeoutMs)), request.headersTimeoutMs);
    outgoing.once('close', () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    });
    outgoing.on('error', (cause: NodeJS.ErrnoException) => {
      fail(signal.aborted ? signal.reason : isStale(outgoing, cause) ? new StaleConnection('closed', { cause }) : unreachable(url, cause));
    });
    outgoing.once('response', (incoming) => {
      clearTimeout(timer);
      incoming.setTimeout(request.idleTimeoutMs, () => incoming.destroy(timeout(url, request.idleTimeoutMs)));
      resolve(incoming);
    });
    outgoing.end(request.body);
  });
}

/** The whole body of an answer. @throws answer-too-long, server-unreachable, server-timeout */
export function readAll(incoming: http.IncomingMessage, bytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    incoming.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > bytesMax) incoming.destroy(tooLong(bytesMax));
      else chunks.push(chunk);
    });
    incoming.on('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size)));
    incoming.on('error', (error) => reject(error instanceof MillraceError ? error : cutShort(error)));
    incoming.on('close', () => {
      if (!incoming.readableEnded) reject(connectionClosed());
    });
  });
}

/**
 * Gives `onData` the `data` of each server-sent event as it comes; other fields and comments are left out. Stops at `[DONE]`.
 * @throws as readAll, and what `onData` throws; `bytesMax` is for one event
 */
export function eachEvent(incoming: http.IncomingMessage, bytesMax: number, onData: (data: string) => void): Promise<void> {
  let rest = '';
  const take = (chunk: string): boolean => {
    rest = rest === '' ? chunk : rest + chunk;
    let from = 0;
    for (let end = rest.indexOf('\n'); end !== -1; end = rest.indexOf('\n', from)) {
      const line = rest.slice(from, end > from && rest.charCodeAt(end - 1) === 13 ? end - 1 : end);
      from = end + 1;
      if (!line.startsWith('data:')) continue;
      const data = line.charCodeAt(5) === 32 ? line.slice(6) : line.slice(5);
      if (data === '[DONE]') return true;
      onData(data);
    }
    rest = rest.slice(from);
    if (rest.length > bytesMax) throw tooLong(bytesMax);
    return false;
  };
  return new Promise((resolve, reject) => {
    let isOver = false;
    incoming.setEncoding('utf8');
    incoming.on('data', (chunk: string) => {
      if (isOver) return;
      try {
        isOver = take(chunk);
        if (isOver) resolve();
      } catch (error) {
        isOver = true;
        reject(error);
        incoming.destroy();
      }
    });
    incoming.on('end', () => resolve());
    incoming.on('error', (error) => reject(error instanceof MillraceError ? error : cutShort(error)));
    incoming.on('close', () => {
      if (!incoming.readableEnded) reject(connectionClosed());
    });
  });
}

/** A body as it comes, all that is there at a time; the sender is held back while much of it waits. */
export interface ChunkQueue {
  /** What has come; undefined at the end. @throws server-unreachable, server-timeout */
  take(): Promise<Buffer | undefined>;
}

const QUEUE_BYTES_MAX = 256 << 10;

/** The body of an answer as a queue: cheaper than an iterator, and pieces that wait together are handed on together. */
export function createChunkQueue(incoming: http.IncomingMessage): ChunkQueue {
  let chunks: Buffer[] = [];
  let held = 0;
  let isOver = false;
  let failure: unknown;
  let wake: (() => void) | undefined;
  const rouse = () => {
    const waiting = wake;
    wake = undefined;
    waiting?.();
  };
  const end = (error?: unknown) => {
    if (isOver) return;
    isOver = true;
    failure = error;
    rouse();
  };
  incoming.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    held += chunk.length;
    if (held > QUEUE_BYTES_MAX) incoming.pause();
    rouse();
  });
  incoming.on('end', () => end());
  incoming.on('error', (error) => end(error instanceof MillraceError ? error : cutShort(error)));
  incoming.on('close', () => {
    if (!isOver) end(connectionClosed());
  });
  return {
    async take() {
      if (chunks.length === 0 && !isOver) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (chunks.length === 0) {
        if (failure !== undefined) throw failure;
        return undefined;
      }
      const taken = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, held);
      chunks = [];
      held = 0;
      if (incoming.isPaused()) incoming.resume();
      return taken;
    },
  };
}

function unreachable(url: URL, cause: unknown): MillraceError {
  return new MillraceError('server-unreachable', {
    actor: 'peer',
    message: `${url.origin} did not answer: ${(cause as Error).message}`,
    values: { origin: url.origin },
    cause,
  });
}

function timeout(url: URL, limitMs: number): MillraceError {
  return new MillraceError('server-timeout', {
    actor: 'peer',
    message: `${url.origin} was silent for ${limitMs} ms`,
    values: { origin: url.origin, limitMs },
  });
}

function tooLong(limit: number): MillraceError {
  return new MillraceError('answer-too-long', { actor: 'peer', message: `The answer is longer than ${limit} bytes`, values: { limit } });
}

function connectionClosed(): MillraceError {
  return cutShort(new TypeError('the connection closed'));
}

function cutShort(cause: unknown): MillraceError {
  const message = `The answer was cut short: ${(cause as Error).message}`;
  return new MillraceError('server-unreachable', { actor: 'peer', message, cause });
}
