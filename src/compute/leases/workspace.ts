import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { type Executor, errorOfResult, type JobLimits, type JobLoopback, type JobResult } from '../../host/index.ts';
import { AGENT_SCRIPT, INSIDE, quoteWord } from './workspace-agent.ts';
import { makePipes, type PipeReader, type PipeWriter, readPipe, writePipe } from './workspace-pipe.ts';

/** A command that a renter runs in its workspace. */
export interface WorkspaceCommand {
  argv: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Where it begins; default the workspace's `/tmp`. */
  cwd?: string;
  /** With a terminal of its own; needs the program `script` in the workspace. */
  tty?: boolean;
}

/** A command that runs. */
export interface WorkspaceRun {
  readonly id: string;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly stdin: PipeWriter;
  /** Sends a signal (`TERM`, `INT`, `KILL`, …) to the command and what it started. */
  signal(name: string): Promise<void>;
  /** Exit code as a shell has it: 128 + n for signal n; undefined when the workspace ended before it. */
  readonly ended: Promise<number | undefined>;
}

/** The sandbox of one lease: it lives as long as the lease, and commands come and go in it. */
export interface Workspace {
  /** Resolves when the sandbox is no more, with how it ended. */
  readonly ended: Promise<JobResult | MillraceError>;
  /** @throws workspace-ended, workspace-busy, bad-command */
  run(command: WorkspaceCommand): Promise<WorkspaceRun>;
  /**
   * Connects to a TCP port at which one of its commands listens; either side may end first.
   * @throws port-refused, ports-unsupported, workspace-ended
   */
  connect(port: number): Promise<Socket>;
  /** Whether its agent answers in time. */
  answers(timeoutMs: number): Promise<boolean>;
  /** Ends everything in it and removes what it left. */
  close(): Promise<void>;
}

const RUNS_MAX = 32;
const COMMAND_BYTES_MAX = 64 << 10;
const START_PATIENCE_MS = 30_000;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const SIGNALS = /^(HUP|INT|QUIT|KILL|TERM|USR1|USR2|STOP|CONT|WINCH|ALRM)$/;

/**
 * Starts a sandbox for a renter: all its commands share one folder to write (`/tmp`, kept in memory by the default engine), one set of
 * limits, one process namespace. It has no network.
 * @param options.folder a folder of this workspace alone; removed at the end
 * @throws foreign-job-refused, image-unknown, sandbox-failed, pipe-failed, workspace-ended when it does not start
 */
export async function openWorkspace(options: {
  executor: Executor;
  image?: string;
  limits: Omit<JobLimits, 'outputBytes'>;
  folder: string;
}): Promise<Workspace> {
  const { executor, folder, limits, image } = options;
  const at = (...names: string[]) => join(folder, ...names);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(at('runs'), { recursive: true });
  // Others than this user must pass: as root the job is another user.
  for (const path of [folder, at('runs')]) chmodSync(path, 0o755);
  writeFileSync(at('agent'), AGENT_SCRIPT, { mode: 0o644 });
  await makePipes([at('control'), at('pong')]);
  const control = writePipe(at('control'));
  const pong = readPipe(at('pong'));
  const stop = new AbortController();
  const runs = new Set<RunState>();
  let isOver = false;
  let loopback: JobLoopback | undefined;
  const onLoopback = (given: JobLoopback) => {
    loopback = given;
  };
  const job = { image, argv: ['/bin/sh', `${INSIDE}/agent`], inputFolder: folder, limits: { ...limits, outputBytes: 1 << 20 } };
  const ended = executor.run({ ...job, trust: 'foreign' }, { signal: stop.signal, onLoopback }).then(
    (result) => result,
    (error: MillraceError) => error,
  );
  const swept = ended.then(() => {
    isOver = true;
    control.end();
    pong.destroy();
    for (const each of runs) each.lose();
    rmSync(folder, { recursive: true, force: true });
  });
  const tell = (line: string) => control.write(Buffer.from(`${line}\n`));
  const workspace: Workspace = {
    ended,
    async run(command) {
      if (isOver) throw workspaceEnded();
      if (runs.size >= RUNS_MAX) throw workspaceBusy();
      const text = commandText(command);
      const id = randomBytes(8).toString('hex');
      const state = await openRun(at('runs', id), text);
      runs.add(state);
      const over = state.ended.then(async (code) => {
        runs.delete(state);
        rmSync(at('runs', id), { recursive: true, force: true });
        return code;
      });
      if (isOver) state.lose();
      await tell(`start ${id}`);
      return {
        id,
        stdout: state.out.stream,
        stderr: state.err.stream,
        stdin: state.stdin,
        ended: over,
        async signal(name) {
          if (!SIGNALS.test(name)) throw badCommand(`"${name.slice(0, 20)}" is no signal`);
          const pid = await state.started;
          if (pid !== undefined) await tell(`signal ${pid} ${name}`);
        },
      };
    },
    async connect(port) {
      if (isOver) throw workspaceEnded();
      if (loopback === undefined) throw portsUnsupported(executor.engine);
      return await loopback.connect(port).catch((cause: MillraceError) => {
        if (cause.code === 'loopback-failed') throw portsUnsupported(executor.engine, cause);
        throw cause.code === 'loopback-closed' ? workspaceEnded() : cause;
      });
    },
    answers: (timeoutMs) => answers(tell, pong, timeoutMs, () => isOver),
    async close() {
      stop.abort();
      await swept;
    },
  };
  if (await workspace.answers(START_PATIENCE_MS)) return workspace;
  await workspace.close();
  const result = await ended;
  throw result instanceof Error ? result : (errorOfResult(result) ?? workspaceEnded());
}

async function answers(
  tell: (line: string) => Promise<void>,
  pong: PipeReader,
  timeoutMs: number,
  isOver: () => boolean,
): Promise<boolean> {
  const nonce = randomBytes(8).toString('hex');
  const deadlineMs = systemClock.nowMs() + timeoutMs;
  let text = '';
  const listen = (bytes: Buffer) => {
    text = (text + bytes.toString('latin1')).slice(-1024);
  };
  pong.stream.on('data', listen);
  try {
    void tell(`ping ${nonce}`);
    for (;;) {
      if (text.includes(nonce)) return true;
      if (isOver() || systemClock.nowMs() > deadlineMs) return false;
      await systemClock.sleep(5);
    }
  } finally {
    pong.stream.off('data', listen);
  }
}

interface RunState {
  out: PipeReader;
  err: PipeReader;
  stdin: PipeWriter;
  started: Promise<number | undefined>;
  ended: Promise<number | undefined>;
  lose(): void;
}

async function openRun(folder: string, text: string): Promise<RunState> {
  const at = (name: string) => join(folder, name);
  mkdirSync(folder);
  chmodSync(folder, 0o755);
  writeFileSync(at('command'), text, { mode: 0o644 });
  await makePipes(['in', 'out', 'err', 'end'].map(at));
  const [out, err, end] = [readPipe(at('out')), readPipe(at('err')), readPipe(at('end'))];
  const input = writePipe(at('in'));
  const started = Promise.withResolvers<number | undefined>();
  const ended = Promise.withResolvers<number | undefined>();
  let said = '';
  const conclude = (code: number | undefined) => {
    started.resolve(undefined);
    ended.resolve(code);
    input.end();
    end.destroy();
  };
  // Only now has the command opened its side of the pipes: none may end before.
  void started.promise.then(() => {
    out.release();
    err.release();
  });
  const stdin: PipeWriter = { write: input.write, end: () => void started.promise.then(input.end) };
  end.stream.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString('latin1')).slice(-1024);
    const pid = /^started ([0-9]{1,9})$/m.exec(said)?.[1];
    const code = /^ended ([0-9]{1,3})$/m.exec(said)?.[1];
    if (pid !== undefined) started.resolve(Number(pid));
    if (code !== undefined) conclude(Number(code));
  });
  return { out, err, stdin, started: started.promise, ended: ended.promise, lose: () => conclude(undefined) };
}

function commandText({ argv, env = {}, cwd, tty }: WorkspaceCommand): string {
  if (argv.length === 0 || argv[0] === '') throw badCommand('it names no program');
  const badName = Object.keys(env).find((name) => !NAME.test(name));
  if (badName !== undefined) throw badCommand(`the environment holds the name ${JSON.stringify(badName.slice(0, 80))}`);
  const words = argv.map(quoteWord).join(' ');
  const lines = [
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quoteWord(value)}`),
    ...(cwd === undefined ? [] : [`cd -- ${quoteWord(cwd)} || exit 126`]),
    tty === true ? `exec script -qefc ${quoteWord(`exec ${words}`)} /dev/null` : `exec ${words}`,
  ];
  const text = `${lines.join('\n')}\n`;
  if (text.includes('\0') || Buffer.byteLength(text) > COMMAND_BYTES_MAX) {
    throw badCommand(`it holds a zero byte or has more than ${COMMAND_BYTES_MAX} bytes`);
  }
  return text;
}

function badCommand(reason: string): MillraceError {
  return new MillraceError('bad-command', {
    actor: 'caller',
    message: `The command cannot be run: ${reason}`,
    values: { reason },
    hint: 'Give a program and its arguments; put long texts into a file with `millrace cp`.',
  });
}

/** The sandbox of a rental is not running. */
export function workspaceEnded(): MillraceError {
  return new MillraceError('workspace-ended', {
    actor: 'peer',
    message: 'The rental’s sandbox is not running',
    hint: 'It is started anew within seconds unless the lease is over; see `millrace rentals`.',
  });
}

function portsUnsupported(engine: string, cause?: MillraceError): MillraceError {
  return new MillraceError('ports-unsupported', {
    actor: 'caller',
    message: `The machine of this rental, whose engine is ${engine}, cannot reach the ports in it`,
    values: { engine },
    hint: 'Use millrace exec and cp, or rent a machine with the engine bubblewrap (millrace offers); the log of the node says what it lacks.',
    cause,
  });
}

function workspaceBusy(): MillraceError {
  return new MillraceError('workspace-busy', {
    actor: 'caller',
    message: `${RUNS_MAX} commands run in this rental already`,
    values: { limit: RUNS_MAX },
    hint: 'Wait until one has ended.',
  });
}
