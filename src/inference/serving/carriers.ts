import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { MillraceError } from '../../errors.ts';
import type { ServingAnswer, ServingRequest } from './exchange.ts';

/** Answers a request; never throws. */
export type AnswerRequest = (request: ServingRequest) => Promise<ServingAnswer>;

/** Why a request ends when its connection does. One object for all: the default reason is an exception with a stack of its own each time. */
const CONNECTION_OVER = new MillraceError('request-aborted', { actor: 'caller', message: 'The connection of the caller is over' });
/** Takes a slow reader's connection for dead. */
const DRAIN_MS = 60_000;
const DISCARD_MS = 2_000;
const DISCARDED_BYTES_MAX = 16 << 20;

/** Carries requests of a Node HTTP server. */
export function listenerOf(answer: AnswerRequest): RequestListener {
  return (incoming, outgoing) => {
    carry(incoming, outgoing, answer).catch(() => outgoing.destroy());
  };
}

async function carry(incoming: IncomingMessage, outgoing: ServerResponse, answer: AnswerRequest): Promise<void> {
  const gone = new AbortController();
  outgoing.once('close', () => gone.abort(CONNECTION_OVER));
  const url = incoming.url ?? '/';
  const at = url.indexOf('?');
  const answered = await answer({
    method: incoming.method ?? 'GET',
    path: at === -1 ? url : url.slice(0, at),
    query: at === -1 ? '' : url.slice(at + 1),
    headers: incoming.headers as Record<string, string | undefined>,
    body: incoming,
    signal: gone.signal,
  });
  // An answer before the body was read ends the connection, else the rest would be read as the next request.
  const isEarly = !incoming.complete;
  if (isEarly) outgoing.setHeader('connection', 'close');
  if (typeof answered.body === 'string' || answered.body instanceof Uint8Array) {
    outgoing.writeHead(answered.status, { ...answered.headers, 'content-length': Buffer.byteLength(answered.body) });
    if (isEarly && answered.body.length > 0) {
      outgoing.write(answered.body);
      await discard(incoming);
      outgoing.end();
    } else outgoing.end(incoming.method === 'HEAD' ? undefined : answered.body);
    return;
  }
  outgoing.writeHead(answered.status, answered.headers);
  for await (const chunk of answered.body) {
    if (gone.signal.aborted) break;
    if (!outgoing.write(chunk)) await drained(outgoing);
  }
  outgoing.end();
}

/** Reads on for a moment: a connection that is closed with bytes unread is reset, and its caller would never see the answer. */
function discard(incoming: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let bytes = 0;
    const done = () => {
      clearTimeout(timer);
      incoming.off('data', count);
      resolve();
    };
    const count = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > DISCARDED_BYTES_MAX) done();
    };
    const timer = setTimeout(done, DISCARD_MS);
    incoming.on('data', count);
    incoming.once('end', done);
    incoming.once('close', done);
    incoming.resume();
  });
}

/** Waits until the caller has taken what was written; one that takes nothing for a minute is cut. */
function drained(outgoing: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      outgoing.off('drain', done);
      outgoing.off('close', done);
      resolve();
    };
    const timer = setTimeout(() => {
      outgoing.destroy();
      done();
    }, DRAIN_MS);
    outgoing.once('drain', done);
    outgoing.once('close', done);
  });
}

/** Carries requests of a server that speaks in standard `Request` and `Response`, such as a node's peer server. */
export function fetchOf(answer: AnswerRequest): (request: Request) => Promise<Response> {
  return async (request) => {
    const gone = new AbortController();
    request.signal.addEventListener('abort', () => gone.abort(CONNECTION_OVER), { once: true });
    const { pathname, search } = new URL(request.url);
    const answered = await answer({
      method: request.method,
      path: pathname,
      query: search.slice(1),
      headers: Object.fromEntries(request.headers),
      body: (request.body ?? []) as unknown as AsyncIterable<Uint8Array>,
      signal: gone.signal,
    });
    const { status, headers, body } = answered;
    if (typeof body === 'string' || body instanceof Uint8Array) {
      const isEmpty = status === 204 || status === 304 || request.method === 'HEAD';
      return new Response(isEmpty ? null : (body as Uint8Array<ArrayBuffer>), { status, headers });
    }
    return new Response(streamOf(body, gone), { status, headers });
  };
}

function streamOf(body: AsyncIterable<string | Uint8Array>, gone: AbortController): ReadableStream<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await iterator.next();
        if (done === true) {
          gone.abort(CONNECTION_OVER);
          return controller.close();
        }
        controller.enqueue(typeof value === 'string' ? Buffer.from(value) : value);
      },
      async cancel() {
        gone.abort(CONNECTION_OVER);
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}
