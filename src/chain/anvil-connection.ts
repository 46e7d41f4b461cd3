import { connect, type Socket } from 'node:net';
import { MillraceError } from '../errors.ts';

/** A request to anvil over its private socket. */
export interface AnvilConnection {
  /**
   * The result of one JSON-RPC call. Calls in flight together are executed in any order: await where order matters.
   * @throws anvil-refused with anvil's own code and message in `values`, anvil-gone, anvil-timeout
   */
  request(method: string, params?: readonly unknown[], timeoutMs?: number): Promise<unknown>;
  close(): void;
}

interface PendingCall {
  resolve(result: unknown): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

interface AnvilReply {
  id: number | null;
  result?: unknown;
  error?: { code: number; message: string; data?: unknown };
}

const REQUEST_TIMEOUT_MS = 60_000;

/** Connects to anvil's Unix-domain socket; answers are one JSON object a line, in any order. */
export function connectAnvil(path: string): Promise<AnvilConnection> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(connectionOver(socket));
    });
  });
}

function connectionOver(socket: Socket): AnvilConnection {
  const pending = new Map<number, PendingCall>();
  let nextId = 1;
  let chunks: Buffer[] = [];
  const settle = (line: string) => {
    const reply = JSON.parse(line) as AnvilReply;
    const call = reply.id === null ? undefined : pending.get(reply.id);
    if (call === undefined || reply.id === null) return;
    pending.delete(reply.id);
    clearTimeout(call.timer);
    if (reply.error === undefined) call.resolve(reply.result);
    else call.reject(anvilRefused(reply.error));
  };
  const abandon = () => {
    for (const call of pending.values()) {
      clearTimeout(call.timer);
      call.reject(new MillraceError('anvil-gone', { actor: 'chain', message: 'anvil closed its socket' }));
    }
    pending.clear();
  };
  socket.on('data', (chunk) => {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      chunks.push(chunk.subarray(start, end));
      settle(Buffer.concat(chunks).toString('utf8'));
      chunks = [];
      start = end + 1;
    }
    if (start < chunk.length) chunks.push(chunk.subarray(start));
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', abandon);
  return {
    request(method, params = [], timeoutMs = REQUEST_TIMEOUT_MS) {
      return new Promise((resolve, reject) => {
        if (socket.destroyed) return reject(new MillraceError('anvil-gone', { actor: 'chain', message: 'anvil is not running' }));
        const id = nextId++;
        const timer = setTimeout(() => {
          pending.delete(id);
          reject(
            new MillraceError('anvil-timeout', {
              actor: 'chain',
              message: `anvil did not answer ${method} in ${timeoutMs} ms`,
              values: { method, timeoutMs },
            }),
          );
        }, timeoutMs);
        pending.set(id, { resolve, reject, timer });
        socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
      });
    },
    close: () => socket.destroy(),
  };
}

function anvilRefused(error: { code: number; message: string; data?: unknown }): MillraceError {
  const data = error.data === undefined ? undefined : JSON.stringify(error.data);
  return new MillraceError('anvil-refused', {
    actor: 'chain',
    message: error.message,
    values: { rpcCode: error.code, ...(data === undefined ? {} : { data }) },
  });
}
