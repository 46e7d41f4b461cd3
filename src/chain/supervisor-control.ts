import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type Actor, MillraceError, toMillraceError } from '../errors.ts';

/** What the owner of the data folder may ask of a running chain. There is no road to these by RPC. */
export type ControlCommand = { command: 'status' } | { command: 'warp'; seconds: number } | { command: 'snapshot' } | { command: 'stop' };

/** What every command answers with: the chain after it was carried out. */
export interface ChainStatus {
  chainId: number;
  rpcUrl: string;
  height: number;
  hash: `0x${string}`;
  /** Protocol time: the newest block's timestamp, seconds. */
  timestamp: number;
  warpOffsetSeconds: number;
  pid: number;
  anvilPid: number;
  /** Whether anvil runs where no other process can reach its port. */
  isolated: boolean;
}

const LINE_BYTES_MAX = 4_096;
const TIMEOUT_MS = 120_000;

/** Answers commands on a Unix-domain socket that only this user can open: the file's mode is the authority. */
export function serveControl(path: string, handle: (command: ControlCommand) => Promise<ChainStatus>): Promise<Server> {
  rmSync(path, { force: true });
  const server = createServer((socket) => void answer(socket, handle));
  server.maxConnections = 16;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      chmodSync(path, 0o600);
      resolve(server);
    });
  });
}

async function answer(socket: Socket, handle: (command: ControlCommand) => Promise<ChainStatus>): Promise<void> {
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  let text = '';
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    if (text.includes('\n')) break;
    if (text.length > LINE_BYTES_MAX) return void socket.destroy();
  }
  try {
    socket.end(`${JSON.stringify({ result: await handle(parseCommand(text)) })}\n`);
  } catch (error) {
    socket.end(`${JSON.stringify({ error: toMillraceError(error) })}\n`);
  }
}

function parseCommand(text: string): ControlCommand {
  try {
    const parsed = JSON.parse(text) as ControlCommand;
    if (['status', 'warp', 'snapshot', 'stop'].includes(parsed.command)) return parsed;
  } catch {
    // Not JSON: the same answer.
  }
  throw new MillraceError('bad-command', {
    actor: 'caller',
    message: `Got ${text.trim().slice(0, 100)}, expected status, warp, snapshot or stop`,
  });
}

/**
 * Sends one command to the chain whose control socket is at `path`.
 * @throws chain-not-running, and what the command throws (bad-warp, snapshot-failed, chain-stopped)
 */
export function controlChain(path: string, command: ControlCommand): Promise<ChainStatus> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const fail = (cause?: unknown) => {
      socket.destroy();
      reject(
        new MillraceError('chain-not-running', {
          actor: 'caller',
          message: `No chain answers at ${path}`,
          values: { path },
          hint: 'Start it with "millrace up".',
          cause,
        }),
      );
    };
    socket.setTimeout(TIMEOUT_MS, () => fail());
    socket.once('error', fail);
    socket.once('connect', () => socket.write(`${JSON.stringify(command)}\n`));
    const lines = createInterface({ input: socket });
    lines.on('error', fail);
    lines.once('line', (line) => {
      socket.destroy();
      const reply = JSON.parse(line) as { result?: ChainStatus; error?: ErrorReply };
      if (reply.result !== undefined) resolve(reply.result);
      else reject(errorOf(reply.error));
    });
    socket.once('close', () => fail());
  });
}

interface ErrorReply {
  code: string;
  actor: Actor;
  message: string;
  values: Record<string, string>;
  hint?: string;
}

function errorOf(reply: ErrorReply | undefined): MillraceError {
  if (reply === undefined) return new MillraceError('unexpected', { actor: 'bug', message: 'The chain gave an empty answer' });
  return new MillraceError(reply.code, reply);
}
