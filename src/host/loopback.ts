import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import type { JobLoopback } from './executor.ts';
import { type LoopbackAnswer, type LoopbackCall, NETWORK_FD, USER_FD } from './loopback-messages.ts';

/** Where the network of a running job is entered. */
export interface LoopbackEntrance {
  /** File of its network namespace, `/proc/<pid>/ns/net`. */
  network: string;
  /** File of the user namespace that an ordinary user enters first, so as to have the right to; undefined for root. */
  user: string | undefined;
  /** Whether `network` is the job's; asked when it has been opened, for numbers of processes are used again. */
  isStill(): boolean;
}

const PROGRAM = fileURLToPath(new URL('./loopback-process.ts', import.meta.url));
/** For the start of the process and the connection together, on a machine that has much else to do. */
const PATIENCE_MS = 25_000;
/** A process that nobody asked for so long is ended; the next connection starts another. */
const IDLE_MS = 60_000;
const SAID_MAX = 500;

/**
 * Connects to ports within a job's network. A process of our own enters the network namespace of the job, and nothing else of it (`nsenter`), with
 * no right over it; it connects to the loopback there and hands the connected socket over. No byte of the job passes through it, and nothing in
 * the job can reach it: it listens nowhere.
 */
export class Loopback implements JobLoopback {
  readonly #find: () => Promise<LoopbackEntrance | undefined>;
  readonly #sockets = new Set<Socket>();
  #helper: Promise<Helper> | undefined;
  #isClosed = false;

  constructor(find: () => Promise<LoopbackEntrance | undefined>) {
    this.#find = find;
  }

  async connect(port: number): Promise<Socket> {
    if (this.#isClosed) throw closed();
    this.#helper ??= this.#enter();
    const socket = await this.#helper
      .then((helper) => helper.connect(port))
      .catch((error: unknown) => {
        throw this.#isClosed ? closed() : error;
      });
    // Whoever takes it hears of errors too.
    socket.on('error', () => {});
    if (this.#isClosed || socket.closed) {
      socket.destroy();
      throw closed();
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }

  /** The job has ended: its connections are cut. */
  close(): void {
    this.#isClosed = true;
    for (const socket of this.#sockets) socket.destroy();
    void this.#helper?.then(
      (helper) => helper.stop(),
      () => {},
    );
  }

  async #enter(): Promise<Helper> {
    const forget = () => {
      this.#helper = undefined;
    };
    try {
      const entrance = await this.#find();
      if (entrance === undefined) throw cannotEnter('its first process is not to be found');
      const helper = startHelper(entrance, forget);
      if (this.#isClosed) helper.stop();
      return helper;
    } catch (error) {
      forget();
      throw error instanceof MillraceError ? error : cannotEnter((error as Error).message, error);
    }
  }
}

/** The entrance to a container's network, as root alone; its process is known by the container's control groups. */
export function containerEntrance(container: { id: string; pid: number }): LoopbackEntrance | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const isStill = () => readFileSync(`/proc/${container.pid}/cgroup`, 'utf8').includes(container.id);
  return { network: `/proc/${container.pid}/ns/net`, user: undefined, isStill };
}

/** The process in the network while it runs. */
interface Helper {
  connect(port: number): Promise<Socket>;
  stop(): void;
}

interface Waiting {
  port: number;
  resolve: (socket: Socket) => void;
  reject: (error: MillraceError) => void;
  timer: NodeJS.Timeout;
}

function startHelper(entrance: LoopbackEntrance, onGone: () => void): Helper {
  const child = spawnWithin(entrance);
  const waiting = new Map<number, Waiting>();
  let [said, calls] = ['', 0];
  let usedMs = systemClock.nowMs();
  child.stderr?.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString('utf8')).slice(-SAID_MAX);
  });
  const settle = (id: number): Waiting | undefined => {
    const one = waiting.get(id);
    clearTimeout(one?.timer);
    waiting.delete(id);
    return one;
  };
  child.on('message', ({ id, fault }: LoopbackAnswer, socket?: Socket) => {
    const one = settle(id);
    if (one === undefined) return void socket?.destroy();
    if (socket === undefined) return one.reject(portRefused(one.port, fault ?? 'ECONNRESET'));
    socket.allowHalfOpen = true;
    socket.setNoDelay(true);
    one.resolve(socket);
  });
  const idle = setInterval(() => {
    if (waiting.size === 0 && systemClock.nowMs() - usedMs > IDLE_MS) stop();
  }, IDLE_MS / 2).unref();
  const stop = () => void child.kill('SIGKILL');
  const gone = (reason: string) => {
    clearInterval(idle);
    onGone();
    for (const id of [...waiting.keys()]) settle(id)?.reject(cannotEnter(reason));
  };
  child.once('error', (error) => gone(error.message));
  child.once('close', (code, signal) => gone(said.trim() || `the process in it ended with ${code ?? signal}`));
  return {
    stop,
    connect(port) {
      const { promise, resolve, reject } = Promise.withResolvers<Socket>();
      const id = calls++;
      usedMs = systemClock.nowMs();
      const timer = setTimeout(() => settle(id)?.reject(portRefused(port, 'ETIMEDOUT')), PATIENCE_MS);
      waiting.set(id, { port, resolve, reject, timer });
      // What cannot be sent is answered by the end of the process.
      child.send({ id, port } satisfies LoopbackCall, () => {});
      return promise;
    },
  };
}

/** Opens the namespaces, sees that they are the job's and not this machine's own, and starts the process in them. */
function spawnWithin({ network, user, isStill }: LoopbackEntrance): ChildProcess {
  const opened = [openSync(network, 'r')];
  try {
    if (user !== undefined) opened.push(openSync(user, 'r'));
    if (!isStill()) throw cannotEnter('its first process is another one by now');
    const [own, found] = [statSync('/proc/self/ns/net'), fstatSync(opened[0] as number)];
    if (own.ino === found.ino && own.dev === found.dev) throw cannotEnter('it is this machine’s own network');
    const asUser = [`--user=/proc/self/fd/${USER_FD}`, '--preserve-credentials'];
    // Root gives itself up in the program, when that is loaded: what lies in root's folders others may not read.
    const drop = user === undefined ? [] : ['--inh-caps=-all', '--bounding-set=-all'];
    return spawn(
      'nsenter',
      [
        ...[`--net=/proc/self/fd/${NETWORK_FD}`, ...(user === undefined ? [] : asUser), '--'],
        ...['setpriv', '--pdeathsig', 'KILL', '--no-new-privs', ...drop, '--'],
        ...[process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, user === undefined ? 'root' : 'user'],
      ],
      { stdio: ['ignore', 'ignore', 'pipe', 'ipc', ...opened], env: { PATH: process.env.PATH, LANG: 'C.UTF-8' }, cwd: '/' },
    );
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

function portRefused(port: number, fault: string): MillraceError {
  const why = fault === 'ECONNREFUSED' ? 'nothing listens there' : fault;
  return new MillraceError('port-refused', {
    actor: 'caller',
    message: `No connection to port ${port} within the sandbox: ${why}`,
    values: { port, fault },
    hint: 'Start what is to listen there, at 127.0.0.1, ::1 or all addresses of the sandbox, and read its log.',
  });
}

function cannotEnter(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('loopback-failed', {
    actor: 'host',
    message: `The network of a sandbox cannot be entered: ${reason}`,
    values: { reason },
    hint: 'It needs util-linux (nsenter, setpriv); in a container as root also --cap-add SYS_PTRACE.',
    cause,
  });
}

function closed(): MillraceError {
  return new MillraceError('loopback-closed', { actor: 'caller', message: 'The sandbox has ended, and its connections with it' });
}
