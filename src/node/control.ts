import { chmodSync, existsSync, rmSync } from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { MillraceError, toMillraceError } from '../errors.ts';

/** Answers one control request; may report progress while it works. */
export type ControlHandler = (
  request: { command: string; arguments: Record<string, unknown> },
  progress: (event: Record<string, unknown>) => void,
) => Promise<unknown>;

/** A running control server. */
export interface ControlServer {
  stop(): Promise<void>;
}

const LINE_BYTES_MAX = 65_536;

/**
 * Serves local control on a Unix-domain socket, mode 0600: who may open the file may command the network. One JSON line
 * in (`{command, arguments}`), then NDJSON out: any number of `{progress}`, then `{result}` or `{error}`.
 * @throws already-running when another live process serves this socket
 */
export async function startControlServer(path: string, handle: ControlHandler): Promise<ControlServer> {
  if (existsSync(path)) {
    if (await answers(path)) {
      throw new MillraceError('already-running', {
        actor: 'caller',
        message: `A supervisor already serves ${path}`,
        values: { path },
        hint: 'See `millrace status`.',
      });
    }
    rmSync(path, { force: true });
  }
  const server = net.createServer((socket) => serveOne(socket, handle));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const previous = process.umask(0o177);
    server.listen(path, () => resolve());
    process.umask(previous);
  });
  chmodSync(path, 0o600);
  return {
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        rmSync(path, { force: true });
      }),
  };
}

function serveOne(socket: net.Socket, handle: ControlHandler): void {
  let received = '';
  const write = (value: unknown) =>
    socket.writable && socket.write(`${JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? item.toString() : item))}\n`);
  socket.on('error', () => socket.destroy());
  socket.setTimeout(10_000, () => received.includes('\n') || socket.destroy());
  socket.on('data', (chunk) => {
    if (received.includes('\n')) return;
    received += chunk.toString('utf8');
    if (received.length > LINE_BYTES_MAX) return void socket.destroy();
    if (!received.includes('\n')) return;
    answerLine(received.slice(0, received.indexOf('\n')), handle, (event) => write({ progress: event }))
      .then((result) => write({ result: result ?? null }))
      .catch((error) => write({ error: toMillraceError(error) }))
      .finally(() => socket.end());
  });
}

async function answerLine(line: string, handle: ControlHandler, progress: (event: Record<string, unknown>) => void): Promise<unknown> {
  const request = JSON.parse(line) as { command?: unknown; arguments?: unknown };
  if (typeof request.command !== 'string') {
    throw new MillraceError('bad-control-request', { actor: 'caller', message: 'A control request needs a command' });
  }
  return handle({ command: request.command, arguments: (request.arguments ?? {}) as Record<string, unknown> }, progress);
}

/**
 * Sends one command to the supervisor and gives its result.
 * @throws not-running when nobody serves the socket, supervisor-silent; the supervisor's own error otherwise
 */
export function askControl(
  path: string,
  command: string,
  options: { arguments?: Record<string, unknown>; onProgress?: (event: Record<string, unknown>) => void; timeoutMs?: number } = {},
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path, () => socket.write(`${JSON.stringify({ command, arguments: options.arguments ?? {} })}\n`));
    const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), options.timeoutMs ?? 30_000);
    const notRunning = (cause?: unknown) =>
      new MillraceError('not-running', {
        actor: 'caller',
        message: 'The network is not running on this machine',
        values: { socket: path },
        hint: 'Start it with `millrace up`.',
        cause,
      });
    const silent = (cause: unknown) =>
      new MillraceError('supervisor-silent', {
        actor: 'host',
        message: `The supervisor did not answer "${command}"`,
        values: { socket: path, command },
        hint: 'The machine may be overloaded, or the supervisor is stopping. Try again.',
        cause,
      });
    let settled = false;
    socket.on('error', (cause: NodeJS.ErrnoException) => reject(cause.code === undefined ? silent(cause) : notRunning(cause)));
    socket.on('close', () => {
      clearTimeout(timer);
      if (!settled) reject(silent(undefined));
    });
    const lines = createInterface({ input: socket });
    lines.on('error', () => {});
    lines.on('line', (line) => {
      const message = JSON.parse(line) as {
        progress?: Record<string, unknown>;
        result?: unknown;
        error?: { code: string; actor: 'bug'; message: string; values?: Record<string, string>; hint?: string };
      };
      if (message.progress !== undefined) return options.onProgress?.(message.progress);
      settled = true;
      if (message.error === undefined) resolve(message.result);
      else reject(new MillraceError(message.error.code, message.error));
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
