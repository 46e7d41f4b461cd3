import http, { type IncomingMessage, type RequestListener } from 'node:http';
import https from 'node:https';
import net, { type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { getRequestListener, type Http2Bindings, type HttpBindings } from '@hono/node-server';
import { MillraceError } from '../errors.ts';
import { readClientHello } from './client-hello.ts';
import type { TransportIdentity } from './transport-identity.ts';

/** A running peer server. */
export interface PeerServer {
  host: string;
  port: number;
  /** Serves a TLS connection that came by another way than the port: a stream of a tunnel. Plain HTTP is not spoken there. */
  accept(connection: Duplex): void;
  /** Stops taking connections, lets running requests end for `graceMs` (default 5,000), then cuts them. */
  stop(graceMs?: number): Promise<void>;
}

/** What a peer server needs. `fetch` answers both TLS and plain requests; `port` 0 takes a free one. */
export interface PeerServerOptions {
  host?: string;
  port: number;
  identity: TransportIdentity;
  fetch: (request: Request) => Response | Promise<Response>;
  /** Takes connections that are for others, as a relay does; none when absent. */
  door?: PeerDoor;
  /** Greatest number of connections at once (default 512); more are closed at once. */
  connectionsMax?: number;
  /** What a body that is awaited must bring in so long (default 4 KiB in 15 s); when it fails twice in a row its connection is cut. */
  bodyRate?: { bytes: number; everyMs: number };
}

/** Who takes TLS connections that ask for another name than the server's own. */
export interface PeerDoor {
  /** Takes a connection of which nothing is consumed and which asks for `name` (SNI); false when it is none of its own. */
  take(name: string, connection: Socket): boolean;
}

const CONNECTIONS_MAX = 512;
const TLS_HANDSHAKE_BYTE = 0x16;
const FIRST_BYTE_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 60_000;
/** Of all connections, so many at most from one address; proxies of this machine (127.0.0.1, ::1) bring everybody's. */
const ONE_ADDRESS_SHARE = 3 / 4;
const BODY_RATE = { bytes: 4096, everyMs: 15_000 };
const LIMITS = {
  headersTimeout: 15_000,
  requestTimeout: 0,
  keepAliveTimeout: 10_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 16_384,
};

/**
 * Serves one port that speaks TLS (for nodes, which pin the key) and plain HTTP (for content-addressed public reads
 * by foreign tools), told apart by the first byte. A request's body may take as long as bytes keep coming, 4 KiB in 15 seconds at least; a
 * connection that is silent for a minute is cut. Callers with bodies must limit them themselves. One address takes three quarters of the
 * connections at most.
 * @throws port-in-use
 */
export async function startPeerServer(options: PeerServerOptions): Promise<PeerServer> {
  const host = options.host ?? '127.0.0.1';
  const sockets = new Set<Duplex>();
  const fetch = (request: Request, { incoming }: HttpBindings | Http2Bindings) => {
    incomingOf.set(request, incoming as IncomingMessage);
    return options.fetch(request);
  };
  const listener = getRequestListener(fetch, { overrideGlobalObjects: false }) as RequestListener;
  const plain = http.createServer(LIMITS, listener);
  const secure = https.createServer(
    { ...LIMITS, key: options.identity.keyPem, cert: options.identity.certificatePem, minVersion: 'TLSv1.3' },
    listener,
  );
  const front = net.createServer({ pauseOnConnect: false, noDelay: true }, (socket) =>
    routeByFirstByte(socket, { sockets, plain, secure, door: options.door }),
  );
  const connectionsMax = options.connectionsMax ?? CONNECTIONS_MAX;
  front.maxConnections = connectionsMax;
  front.prependListener('connection', limitPerAddress(Math.ceil(connectionsMax * ONE_ADDRESS_SHARE)));
  for (const server of [plain, secure]) {
    server.on('clientError', refuseGarbage);
    server.prependListener('request', (request) => cutSlowBody(request, options.bodyRate ?? BODY_RATE));
    // Node enforces headersTimeout only from this event on, and these two never listen by themselves.
    server.emit('listening');
  }
  await listen(front, options.port, host);
  return {
    host,
    port: (front.address() as AddressInfo).port,
    accept(connection) {
      sockets.add(connection);
      connection.on('close', () => sockets.delete(connection));
      connection.on('error', () => connection.destroy());
      secure.emit('connection', connection);
    },
    async stop(graceMs = 5000) {
      const closed = new Promise<void>((resolve) => front.close(() => resolve()));
      plain.closeIdleConnections();
      secure.closeIdleConnections();
      const cut = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(cut);
    },
  };
}

/** Requests that a server answers, as Node has them, by the request that was handed on. */
const incomingOf = new WeakMap<Request, IncomingMessage>();
const slowBodies = new WeakSet<IncomingMessage>();

/**
 * Lets the body of a request come as slowly as its sender likes, such as what a person types. For senders that have proven who they are: a stranger
 * holds a connection open by it.
 */
export function permitSlowBody(request: Request): void {
  const incoming = incomingOf.get(request);
  if (incoming !== undefined) slowBodies.add(incoming);
}

/** Cuts connections of an address that has `most` already, so that no single one shuts others out. */
function limitPerAddress(most: number): (socket: Socket) => void {
  const counts = new Map<string, number>();
  return (socket) => {
    const address = socket.remoteAddress ?? '';
    if (address === '127.0.0.1' || address === '::1' || address === '::ffff:127.0.0.1') return;
    const count = (counts.get(address) ?? 0) + 1;
    if (count > most) return void socket.destroy();
    counts.set(address, count);
    socket.once('close', () => {
      const left = (counts.get(address) as number) - 1;
      if (left === 0) counts.delete(address);
      else counts.set(address, left);
    });
  };
}

/** Cuts a connection whose body drips while the server waits for it, twice in a row; a body that the server is slow to take is not cut. */
function cutSlowBody(request: IncomingMessage, rate: { bytes: number; everyMs: number }): void {
  let seenBytes = request.socket.bytesRead;
  let wasSlow = false;
  const timer = setInterval(() => {
    if (request.complete || slowBodies.has(request)) return clearInterval(timer);
    const { bytesRead } = request.socket;
    const isSlow = bytesRead - seenBytes < rate.bytes && request.readableLength === 0;
    if (isSlow && wasSlow) request.socket.destroy();
    seenBytes = bytesRead;
    wasSlow = isSlow;
  }, rate.everyMs);
  timer.unref();
  request.once('close', () => clearInterval(timer));
}

interface Routes {
  sockets: Set<Duplex>;
  plain: http.Server;
  secure: https.Server;
  door: PeerDoor | undefined;
}

function routeByFirstByte(socket: Socket, { sockets, plain, secure, door }: Routes): void {
  sockets.add(socket);
  socket.on('close', () => sockets.delete(socket));
  socket.on('error', () => socket.destroy());
  socket.setTimeout(FIRST_BYTE_TIMEOUT_MS, () => socket.destroy());
  const late = setTimeout(() => socket.destroy(), FIRST_BYTE_TIMEOUT_MS);
  socket.once('close', () => clearTimeout(late));
  let seen: Buffer = Buffer.alloc(0);
  const route = () => {
    const bytes = socket.read() as Buffer | null;
    if (bytes === null) {
      socket.destroy();
      return;
    }
    seen = seen.length === 0 ? bytes : Buffer.concat([seen, bytes]);
    const isTls = seen[0] === TLS_HANDSHAKE_BYTE;
    const hello = isTls && door !== undefined ? readClientHello(seen) : 'garbage';
    if (hello === 'incomplete') {
      socket.once('readable', route);
      return;
    }
    clearTimeout(late);
    socket.unshift(seen);
    if (typeof hello === 'object' && hello.serverName !== undefined && door?.take(hello.serverName, socket) === true) return;
    socket.setTimeout(IDLE_TIMEOUT_MS, () => socket.destroy());
    (isTls ? secure : plain).emit('connection', socket);
  };
  socket.once('readable', route);
}

/** Answers what is no HTTP request, as far as the other side still listens, and closes. */
function refuseGarbage(error: NodeJS.ErrnoException, socket: Duplex): void {
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request';
  if (!socket.writable) return void socket.destroy();
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}

function listen(server: net.Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === 'EADDRINUSE' || cause.code === 'EACCES';
      reject(
        new MillraceError(taken ? 'port-in-use' : 'listen-failed', {
          actor: taken ? 'caller' : 'host',
          message: `Cannot listen on ${host}:${port}: ${cause.message}`,
          values: { host, port },
          hint: 'Choose another port, or 0 for any free one.',
          cause,
        }),
      );
    });
    server.listen(port, host, resolve);
  });
}
