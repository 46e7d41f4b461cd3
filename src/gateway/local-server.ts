import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** A request as it came: the path is not normalised, because signatures cover it as it was sent. */
export interface LocalRequest {
  method: string;
  /** Path as sent, still percent-encoded, without the query. */
  rawPath: string;
  /** Query as sent, without the question mark. */
  rawQuery: string;
  /** By lower-case name; repeated headers are joined by commas. */
  headers: Record<string, string>;
  /** Bytes of the body; ends with `body-cut` when the caller goes away and `body-too-slow` when it is silent. */
  body: AsyncIterable<Uint8Array>;
  signal: AbortSignal;
}

/** What is answered. A body that is iterated streams with back-pressure. */
export interface LocalAnswer {
  status: number;
  headers: Record<string, string>;
  body?: string | Uint8Array | AsyncIterable<Uint8Array>;
}

/** A running server. */
export interface LocalServer {
  host: string;
  port: number;
  /** Lets running requests end for `graceMs`, then cuts them. */
  stop(graceMs?: number): Promise<void>;
}

const CONNECTIONS_MAX = 256;
const SILENCE_MS = 60_000;
const GRACE_MS = 5000;

/**
 * Serves HTTP to programs of this machine, with limits on everything that they send. `answer` must not throw.
 * @throws port-in-use
 */
export async function startLocalServer(options: {
  host?: string;
  port: number;
  answer: (request: LocalRequest) => Promise<LocalAnswer>;
  log: Logger;
}): Promise<LocalServer> {
  const host = options.host ?? '127.0.0.1';
  const limits = { headersTimeout: 15_000, requestTimeout: 0, keepAliveTimeout: 10_000, maxHeaderSize: 32_768 };
  const server = createServer(limits, (incoming, outgoing) => {
    serve(incoming, outgoing, options.answer).catch((error: Error) => {
      options.log.debug('answer-cut', { path: incoming.url?.slice(0, 200), reason: error.message });
      outgoing.destroy();
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = SILENCE_MS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new MillraceError('port-in-use', {
          actor: 'caller',
          message: `Cannot listen on ${host}:${options.port}: ${cause.message}`,
          values: { host, port: options.port },
          hint: 'Choose another port with --port, or 0 for any.',
          cause,
        }),
      );
    });
    server.listen(options.port, host, resolve);
  });
  return {
    host,
    port: (server.address() as AddressInfo).port,
    async stop(graceMs = GRACE_MS) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearTimeout(cut);
    },
  };
}

async function serve(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  answerTo: (request: LocalRequest) => Promise<LocalAnswer>,
): Promise<void> {
  const gone = new AbortController();
  outgoing.once('close', () => gone.abort(new DOMException('the caller went away', 'AbortError')));
  const [rawPath, ...rest] = (incoming.url ?? '/').split('?');
  const headers = Object.fromEntries(
    Object.entries(incoming.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(',') : (value ?? '')]),
  );
  const answer = await answerTo({
    method: incoming.method ?? 'GET',
    rawPath: rawPath as string,
    rawQuery: rest.join('?'),
    headers,
    body: bodyOf(incoming),
    signal: gone.signal,
  });
  // An answer before the body was read ends the connection, else the rest would be read as the next request.
  if (!incoming.complete && !incoming.readableEnded) outgoing.setHeader('connection', 'close');
  outgoing.writeHead(answer.status, { 'x-content-type-options': 'nosniff', ...answer.headers });
  if (answer.body === undefined || incoming.method === 'HEAD') outgoing.end();
  else if (typeof answer.body === 'string' || answer.body instanceof Uint8Array) outgoing.end(answer.body);
  else await pipeline(answer.body, outgoing);
}

async function* bodyOf(incoming: IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of incoming) yield chunk as Uint8Array;
  } catch (cause) {
    throw bodyCut(cause);
  }
  if (!incoming.complete) throw bodyCut();
}

function bodyCut(cause?: unknown): MillraceError {
  return new MillraceError('body-cut', {
    actor: 'caller',
    message: 'The connection ended, or was silent for a minute, before the whole body had come',
    values: { silenceMs: SILENCE_MS },
    cause,
  });
}
