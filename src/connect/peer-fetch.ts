import { createHash } from 'node:crypto';
import type http from 'node:http';
import type { IncomingMessage } from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { createSecureContext, type TLSSocket } from 'node:tls';
import { MillraceError } from '../errors.ts';
import { isStale, StaleConnection, sendPastStale } from './kept-connection.ts';
import { lookupPeer } from './relay-name.ts';

/** Where a peer is reached and the key that it must show. */
export interface PeerAddress {
  /** `https://host:port`; `http:` is refused when a transport key is given. */
  endpoint: string;
  /** SHA-256 of the peer's SubjectPublicKeyInfo as the chain knows it. */
  transportKey: string;
}

/** A request to a peer. Time-outs in milliseconds: to connect and get the headers, and between two chunks of the body. */
export interface PeerRequest {
  method?: string;
  headers?: Record<string, string>;
  body?: Uint8Array | string | AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
  headersTimeoutMs?: number;
  idleTimeoutMs?: number;
}

const HANDSHAKE_TIMEOUT_MS = 20_000;
/** Methods that may be sent again when nobody knows whether they arrived (RFC 9110, 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'PUT', 'DELETE']);
const agents = new Map<string, https.Agent>();

/**
 * Sends a request to a peer over TLS pinned to its key on chain, and gives a standard Response whose body streams.
 * Redirects are not followed. No certificate authority is asked: the chain is the authority. What may be sent twice is sent again when a
 * kept connection turns out to be closed.
 * @throws peer-unreachable, peer-key-mismatch, peer-timeout, bad-endpoint
 */
export async function peerFetch(peer: PeerAddress, path: string, request: PeerRequest = {}): Promise<Response> {
  const url = targetOf(peer, path);
  return await sendPastStale(() => sendOnce(peer, url, request), {
    canRepeat: canRepeat(request),
    gone: (cause) => unreachable(peer, cause),
  });
}

function canRepeat({ method = 'GET', body }: PeerRequest): boolean {
  return IDEMPOTENT.has(method) && (body === undefined || typeof body === 'string' || body instanceof Uint8Array);
}

function sendOnce(peer: PeerAddress, url: URL, request: PeerRequest): Promise<Response> {
  return new Promise((resolve, reject) => {
    request.signal?.throwIfAborted();
    const outgoing = https.request(url, {
      method: request.method ?? 'GET',
      headers: request.headers,
      agent: agentOf(peer),
      signal: request.signal,
      timeout: request.idleTimeoutMs ?? 30_000,
    });
    // A request that is destroyed before it has a connection says nothing until it gets one, so the promise is told by itself.
    const giveUp = (reason: unknown) => {
      reject(reason);
      outgoing.destroy(reason as Error);
    };
    const headersTimer = setTimeout(() => giveUp(timeoutError(peer, 'headers')), request.headersTimeoutMs ?? 30_000);
    const onAbort = () => giveUp(request.signal?.reason);
    request.signal?.addEventListener('abort', onAbort, { once: true });
    outgoing.once('close', () => request.signal?.removeEventListener('abort', onAbort));
    outgoing.on('timeout', () => outgoing.destroy(timeoutError(peer, 'idle')));
    outgoing.on('error', (cause: NodeJS.ErrnoException) => {
      clearTimeout(headersTimer);
      if (request.signal?.aborted) reject(request.signal.reason);
      else if (cause instanceof MillraceError) reject(cause);
      else reject(isStale(outgoing, cause) ? new StaleConnection('closed', { cause }) : unreachable(peer, cause));
    });
    outgoing.on('response', (incoming) => {
      clearTimeout(headersTimer);
      resolve(responseOf(incoming, outgoing, peer));
    });
    sendBody(outgoing, request.body);
  });
}

function targetOf(peer: PeerAddress, path: string): URL {
  let url: URL;
  try {
    url = new URL(path, peer.endpoint);
  } catch (cause) {
    throw new MillraceError('bad-endpoint', {
      actor: 'peer',
      message: `Got endpoint "${peer.endpoint}", expected https://host:port`,
      values: { endpoint: peer.endpoint },
      cause,
    });
  }
  if (url.protocol !== 'https:' || url.origin !== new URL(peer.endpoint).origin) {
    throw new MillraceError('bad-endpoint', {
      actor: 'peer',
      message: `Got endpoint "${peer.endpoint}", expected https://host:port`,
      values: { endpoint: peer.endpoint },
    });
  }
  return url;
}

/** One keep-alive agent per pinned key: a connection is only ever reused for the key that it showed. */
function agentOf(peer: PeerAddress): https.Agent {
  const key = `${peer.endpoint}|${peer.transportKey.toLowerCase()}`;
  let agent = agents.get(key);
  if (agent === undefined) {
    agent = new PinnedAgent(peer);
    if (agents.size > 1000) agents.clear();
    agents.set(key, agent);
  }
  return agent;
}

/** An agent for many requests at once to one peer, pinned to its key as `peerFetch` is; for callers that need Node's own streams. */
export function pinnedAgent(peer: PeerAddress, socketsMax: number): https.Agent {
  return new PinnedAgent(peer, socketsMax);
}

const SECURE_CONTEXT = createSecureContext({ minVersion: 'TLSv1.3' });

class PinnedAgent extends https.Agent {
  readonly #peer: PeerAddress;

  constructor(peer: PeerAddress, socketsMax = 64) {
    // Trust comes from the pinned key below, not from a certificate authority.
    super({
      keepAlive: true,
      maxSockets: socketsMax,
      rejectUnauthorized: false,
      // One for all connections: a burst of them would make one each.
      secureContext: SECURE_CONTEXT,
      maxCachedSessions: 0,
      lookup: lookupPeer,
    });
    this.#peer = peer;
  }

  /** Hands the socket over only after the handshake showed the pinned key, so that no byte of a request goes to a stranger. */
  override createConnection(options: https.RequestOptions, callback?: (error: Error | null, stream: TLSSocket) => void): undefined {
    const socket = super.createConnection(options) as unknown as TLSSocket;
    const fail = (error: Error) => callback?.(error, socket);
    socket.once('error', fail);
    const late = setTimeout(() => socket.destroy(timeoutError(this.#peer, 'handshake')), HANDSHAKE_TIMEOUT_MS);
    socket.once('close', () => clearTimeout(late));
    socket.once('secureConnect', () => {
      const spki = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
      const shown = spki === undefined ? 'none' : `0x${createHash('sha256').update(spki).digest('hex')}`;
      socket.off('error', fail);
      clearTimeout(late);
      if (shown === this.#peer.transportKey.toLowerCase()) return callback?.(null, socket);
      socket.destroy();
      fail(keyMismatch(this.#peer, shown));
    });
  }
}

function keyMismatch(peer: PeerAddress, shown: string): MillraceError {
  return new MillraceError('peer-key-mismatch', {
    actor: 'peer',
    message: `${peer.endpoint} showed TLS key ${shown}, the chain says ${peer.transportKey}`,
    values: { endpoint: peer.endpoint, got: shown, expected: peer.transportKey },
    hint: 'Somebody else answers at this address, or the operator has not published its new key.',
  });
}

function sendBody(outgoing: http.ClientRequest, body: PeerRequest['body']): void {
  if (body === undefined || typeof body === 'string' || body instanceof Uint8Array) {
    outgoing.end(body);
    return;
  }
  const source = Readable.from(body, { objectMode: false });
  source.on('error', (error) => outgoing.destroy(error));
  outgoing.on('close', () => source.destroy());
  source.pipe(outgoing);
}

function responseOf(incoming: IncomingMessage, outgoing: http.ClientRequest, peer: PeerAddress): Response {
  const headers = new Headers();
  for (let index = 0; index < incoming.rawHeaders.length; index += 2) {
    headers.append(incoming.rawHeaders[index] as string, incoming.rawHeaders[index + 1] as string);
  }
  const status = incoming.statusCode ?? 502;
  const empty = status === 204 || status === 304 || outgoing.method === 'HEAD';
  if (empty) incoming.resume();
  incoming.on('error', () => outgoing.destroy());
  const body = empty ? null : (Readable.toWeb(guarded(incoming, peer)) as unknown as ReadableStream<Uint8Array>);
  return new Response(body, { status, statusText: incoming.statusMessage, headers });
}

/** Turns a connection that breaks inside a body into a typed error instead of a silent end. */
function guarded(incoming: IncomingMessage, peer: PeerAddress): Readable {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of incoming) yield chunk as Uint8Array;
    } catch (cause) {
      throw cause instanceof MillraceError ? cause : unreachable(peer, cause);
    }
    if (!incoming.complete) throw unreachable(peer, undefined);
  }
  return Readable.from(chunks(), { objectMode: false });
}

function unreachable(peer: PeerAddress, cause: unknown): MillraceError {
  const reason = cause instanceof Error ? cause.message : 'the connection broke';
  return new MillraceError('peer-unreachable', {
    actor: 'peer',
    message: `${peer.endpoint} did not answer: ${reason}`,
    values: { endpoint: peer.endpoint },
    hint: 'Check that the node runs and that its endpoint on chain is right.',
    cause,
  });
}

function timeoutError(peer: PeerAddress, step: string): MillraceError {
  return new MillraceError('peer-timeout', {
    actor: 'peer',
    message: `${peer.endpoint} was silent for too long (${step})`,
    values: { endpoint: peer.endpoint, step },
  });
}
