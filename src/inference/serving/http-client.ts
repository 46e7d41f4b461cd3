import http from 'node:http';
import https from 'node:https';
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
 * not followed.
 * @throws server-unreachable, server-timeout, and the signal's reason
 */
export function sendHttp(request: OutgoingRequest): Promise<http.IncomingMessage> {
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
    outgoing.on('error', (cause) => fail(signal.aborted ? signal.reason : unreachable(url, cause)));
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
    incoming.on('close', () => reject(cutShort(new TypeError('the connection closed'))));
  });
}

/** The `data` of server-sent events, in order; other fields and comments are left out. @throws as readAll; `bytesMax` is for one event */
export async function* readEvents(incoming: http.IncomingMessage, bytesMax: number): AsyncGenerator<string> {
  let rest = '';
  incoming.setEncoding('utf8');
  try {
    for await (const chunk of incoming as unknown as AsyncIterable<string>) {
      rest += chunk;
      let from = 0;
      for (let end = rest.indexOf('\n', from); end !== -1; end = rest.indexOf('\n', from)) {
        const isCr = end > from && rest.charCodeAt(end - 1) === 13;
        const line = rest.slice(from, isCr ? end - 1 : end);
        from = end + 1;
        if (line.startsWith('data:')) yield line.charCodeAt(5) === 32 ? line.slice(6) : line.slice(5);
      }
      rest = rest.slice(from);
      if (rest.length > bytesMax) throw tooLong(bytesMax);
    }
  } catch (error) {
    throw error instanceof MillraceError ? error : cutShort(error);
  }
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

function cutShort(cause: unknown): MillraceError {
  const message = `The answer was cut short: ${(cause as Error).message}`;
  return new MillraceError('server-unreachable', { actor: 'peer', message, cause });
}
