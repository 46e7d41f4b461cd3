import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Answers one call; throws an error with `code` in its values' `rpcCode` or any MillraceError. */
export type RpcHandler = (method: string, params: unknown[]) => Promise<unknown>;

/** Where the JSON-RPC server listens and whom it answers. */
export interface RpcServerOptions {
  host: string;
  /** 0 takes any free port. */
  port: number;
  /** Names besides the loopback ones that a client may use in `Host` (DNS rebinding). */
  allowedHosts?: readonly string[];
  /** Web origins that a browser may call from; none by default. */
  allowedOrigins?: readonly string[];
  handle: RpcHandler;
  log: Logger;
}

/** A listening JSON-RPC server. */
export interface RpcServer {
  port: number;
  close(): Promise<void>;
}

/** The largest request body, bytes. */
export const BODY_BYTES_MAX = 5 << 20;
/** The longest JSON-RPC batch. */
export const BATCH_MAX = 1_000;
const CONNECTIONS_MAX = 4096;
const CALLS_IN_FLIGHT_MAX = 2_000;
/** What all request bodies that are being read or answered may hold together, bytes. */
const BODIES_BYTES_MAX = 64 << 20;
/** No method of Ethereum's JSON-RPC nests deeper; anvil answers nothing at all beyond 128 levels. */
const DEPTH_MAX = 32;

/** JSON-RPC error codes (specification 2.0, section 5.1, and EIP-1474). */
export const RPC_CODES = { parse: -32700, invalidRequest: -32600, methodNotFound: -32601, invalidParams: -32602, server: -32000 } as const;

/** What is being worked on now, over all connections. */
interface Flow {
  calls: number;
  bodyBytes: number;
}

interface RpcReply {
  jsonrpc: '2.0';
  id: unknown;
  result?: unknown;
  error?: { code: number; message: string; data?: unknown };
}

/**
 * Serves JSON-RPC 2.0 over HTTP POST with batches. The calls of a batch run in their order.
 * @throws port-in-use
 */
export async function createRpcServer(options: RpcServerOptions): Promise<RpcServer> {
  const flow: Flow = { calls: 0, bodyBytes: 0 };
  const server = createServer((request, response) => {
    answer(request, response, options, flow).catch((error: Error) => {
      options.log.warn('request-failed', { reason: error.message });
      response.destroy();
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.keepAliveTimeout = 65_000;
  // A client that does not take its answer.
  server.timeout = 120_000;
  await listen(server, options);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, { host, port }: RpcServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === 'EADDRINUSE';
      reject(
        new MillraceError(taken ? 'port-in-use' : 'listen-failed', {
          actor: taken ? 'caller' : 'host',
          message: taken ? `Port ${port} on ${host} is taken` : `Cannot listen on ${host}:${port}: ${cause.message}`,
          values: { host, port },
          hint: 'Choose another port, or 0 for any free one.',
          cause,
        }),
      );
    });
    server.listen(port, host, () => resolve());
  });
}

async function answer(request: IncomingMessage, response: ServerResponse, options: RpcServerOptions, flow: Flow) {
  const origin = request.headers.origin;
  const originAllowed = origin === undefined || (options.allowedOrigins ?? []).includes(origin);
  if (!hostAllowed(request.headers.host, options)) return refuse(response, 403, 'this host name is not served (DNS rebinding)');
  if (!originAllowed) return refuse(response, 403, `web pages of ${origin} may not use this chain`);
  if (origin !== undefined) {
    response.setHeader('access-control-allow-origin', origin);
    response.setHeader('access-control-allow-headers', 'content-type');
    response.setHeader('vary', 'origin');
  }
  if (request.method === 'OPTIONS') return void response.writeHead(204).end();
  if (request.method !== 'POST') return refuse(response, 405, 'JSON-RPC by HTTP POST');
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) return refuse(response, 415, 'expected application/json');
  const taken = { bytes: 0 };
  try {
    const body = await readBody(request, flow, taken);
    if (body === 'too-big') return refuse(response, 413, `the body is larger than ${BODY_BYTES_MAX} bytes`);
    if (body === 'busy') return refuse(response, 503, 'too many large requests at once; try again');
    await answerBody(body.text, response, options, flow);
  } finally {
    flow.bodyBytes -= taken.bytes;
  }
}

async function answerBody(body: string, response: ServerResponse, options: RpcServerOptions, flow: Flow): Promise<void> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return send(response, 400, failure(null, RPC_CODES.parse, 'the body is not JSON'));
  }
  const calls = Array.isArray(parsed) ? parsed : [parsed];
  if (calls.length === 0 || calls.length > BATCH_MAX) {
    return send(response, 200, failure(null, RPC_CODES.invalidRequest, `got a batch of ${calls.length}, expected 1 to ${BATCH_MAX}`));
  }
  if (flow.calls + calls.length > CALLS_IN_FLIGHT_MAX) return refuse(response, 503, 'too many calls in flight; try again');
  flow.calls += calls.length;
  try {
    const replies: RpcReply[] = [];
    for (const call of calls) {
      const reply = await answerCall(call, options);
      if (reply !== undefined) replies.push(reply);
    }
    if (replies.length === 0) return void response.writeHead(204).end();
    send(response, 200, Array.isArray(parsed) ? replies : replies[0]);
  } finally {
    flow.calls -= calls.length;
  }
}

/** The reply to one call; undefined for a notification, which is carried out but not answered. */
async function answerCall(call: unknown, options: RpcServerOptions): Promise<RpcReply | undefined> {
  const { jsonrpc, id, method, params } = (typeof call === 'object' && call !== null ? call : {}) as Record<string, unknown>;
  const isId = id === undefined || id === null || typeof id === 'string' || typeof id === 'number';
  if (jsonrpc !== '2.0' || typeof method !== 'string' || !isId) {
    return failure(isId ? (id ?? null) : null, RPC_CODES.invalidRequest, 'expected {jsonrpc: "2.0", id, method, params}');
  }
  if (params !== undefined && !Array.isArray(params)) return failure(id, RPC_CODES.invalidParams, 'expected params as an array');
  if (!isPlain(params))
    return failure(id, RPC_CODES.invalidParams, `expected params of well-formed strings, nested at most ${DEPTH_MAX} levels deep`);
  try {
    const result = await options.handle(method, (params as unknown[] | undefined) ?? []);
    return id === undefined ? undefined : { jsonrpc: '2.0', id, result: result ?? null };
  } catch (error) {
    if (id === undefined) return undefined;
    if (!(error instanceof MillraceError)) {
      options.log.error('rpc-defect', { method, reason: (error as Error).message });
      return failure(id, RPC_CODES.server, 'internal error');
    }
    const code = typeof error.values.rpcCode === 'number' ? error.values.rpcCode : RPC_CODES.server;
    const data = typeof error.values.data === 'string' ? JSON.parse(error.values.data) : undefined;
    return failure(id, code, error.message, data);
  }
}

/** Only addresses and names that cannot be pointed here by somebody's DNS, or that were configured. */
function hostAllowed(header: string | undefined, options: RpcServerOptions): boolean {
  if (header === undefined) return false;
  const name = header.replace(/:\d+$/, '').toLowerCase();
  const isAddress = isIP(name.replace(/^\[|\]$/g, '')) !== 0;
  return isAddress || name === 'localhost' || name === options.host.toLowerCase() || (options.allowedHosts ?? []).includes(name);
}

/** True for values that anvil's reader takes: not too deep, and no half surrogate pairs in strings. Level by level, without recursion. */
function isPlain(value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > DEPTH_MAX) return false;
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item === 'string' && !item.isWellFormed()) return false;
      if (typeof item !== 'object' || item === null) continue;
      if (!Array.isArray(item) && !Object.keys(item).every((key) => key.isWellFormed())) return false;
      for (const child of Object.values(item)) next.push(child);
    }
    level = next;
  }
  return true;
}

async function readBody(request: IncomingMessage, flow: Flow, taken: { bytes: number }): Promise<{ text: string } | 'too-big' | 'busy'> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) {
    taken.bytes += chunk.length;
    flow.bodyBytes += chunk.length;
    if (taken.bytes > BODY_BYTES_MAX) return 'too-big';
    if (flow.bodyBytes > BODIES_BYTES_MAX) return 'busy';
    chunks.push(chunk);
  }
  return { text: Buffer.concat(chunks).toString('utf8') };
}

function failure(id: unknown, code: number, message: string, data?: unknown): RpcReply {
  return { jsonrpc: '2.0', id: id ?? null, error: { code, message, ...(data === undefined ? {} : { data }) } };
}

function send(response: ServerResponse, status: number, body: unknown) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }).end(text);
}

function refuse(response: ServerResponse, status: number, reason: string) {
  response.setHeader('connection', 'close');
  send(response, status, failure(null, RPC_CODES.invalidRequest, reason));
}
