import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { identifyProcess, isRunning, type ProcessIdentity, signalProcess } from '../process-identity.ts';

/** A process that outlives its starter, and that a later starter finds again by its record. */
export interface SupervisedProcess {
  name: string;
  pid: number;
  identity: ProcessIdentity;
  /** The JSON object that it printed when it was ready; undefined when none was asked for. */
  ready: Record<string, unknown> | undefined;
  /** Resolves when it has gone, with its exit code where that can be known (a child of ours that was not killed). */
  exited: Promise<number | undefined>;
  /** SIGTERM, ten seconds, SIGKILL; then its record is removed. */
  stop(): Promise<void>;
}

/** What is started, and where its traces lie. */
export interface StartProcessOptions {
  name: string;
  command: string;
  args: readonly string[];
  /** Given to the process whole; nothing of our own environment is added. */
  env: NodeJS.ProcessEnv;
  cwd?: string;
  /** Standard error, and standard output when no ready line is expected, are appended to it. */
  logFile: string;
  /** Where `<name>.json` says which process this is. */
  recordFolder: string;
  /** Wait for one line of JSON on standard output, at most so long. */
  readyTimeoutMs?: number;
  /** Written to standard input, which is then closed; never put secrets into `args`, where every user sees them. */
  input?: string;
  clock?: Clock;
}

interface ProcessRecord {
  identity: ProcessIdentity;
  ready?: Record<string, unknown>;
}

const STOP_GRACE_MS = 10_000;
const POLL_MS = 100;
const LOG_TAIL_BYTES = 2_000;

/**
 * Starts a process in a group of its own and records it durably before anything waits for it.
 * @throws process-start-failed with the end of its log
 */
export async function startProcess(options: StartProcessOptions): Promise<SupervisedProcess> {
  const { name, logFile, recordFolder, readyTimeoutMs } = options;
  mkdirSync(dirname(logFile), { recursive: true, mode: 0o700 });
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(options.command, [...options.args], {
    cwd: options.cwd,
    env: options.env,
    detached: true,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', readyTimeoutMs === undefined ? log : 'pipe', log],
  });
  closeSync(log);
  const exited = new Promise<number | undefined>((resolve) => {
    child.once('exit', (code) => resolve(code ?? undefined));
    child.once('error', () => resolve(undefined));
  });
  const identity = child.pid === undefined ? undefined : identifyProcess(child.pid);
  if (identity === undefined) throw await startFailed(options, exited);
  writeRecord(recordFolder, name, { identity });
  child.stdin?.on('error', () => {});
  child.stdin?.end(options.input);
  const supervised = superviseProcess({ name, identity, exited, recordFolder, ready: undefined, clock: options.clock });
  if (readyTimeoutMs !== undefined) {
    const ready = await readReadyLine(child, exited, readyTimeoutMs);
    if (ready === undefined) {
      await supervised.stop();
      throw await startFailed(options, exited);
    }
    writeRecord(recordFolder, name, { identity, ready });
    supervised.ready = ready;
  }
  // The starter may end while it runs.
  child.unref();
  return supervised;
}

/** Takes over a process that an earlier starter left running; undefined when there is no such process any more. */
export function adoptProcess(options: { name: string; recordFolder: string; clock?: Clock }): SupervisedProcess | undefined {
  const { name, recordFolder, clock } = options;
  const record = readRecord(recordFolder, name);
  if (record === undefined) return undefined;
  if (!isRunning(record.identity)) {
    removeRecord(recordFolder, name);
    return undefined;
  }
  const { identity, ready } = record;
  return superviseProcess({ name, identity, ready, recordFolder, exited: untilGone(identity, clock ?? systemClock), clock });
}

/** SIGTERM, `graceMs`, then SIGKILL to its whole group; resolves when it has gone. A process that has gone is left alone. */
export async function stopProcess(identity: ProcessIdentity, options: { graceMs?: number; clock?: Clock } = {}): Promise<void> {
  const clock = options.clock ?? systemClock;
  const deadlineMs = clock.nowMs() + (options.graceMs ?? STOP_GRACE_MS);
  signalProcess(identity, 'SIGTERM');
  while (isRunning(identity)) {
    if (clock.nowMs() >= deadlineMs) signalProcess(identity, 'SIGKILL', true);
    await clock.sleep(POLL_MS / 4);
  }
}

function superviseProcess(parts: {
  name: string;
  identity: ProcessIdentity;
  ready: Record<string, unknown> | undefined;
  exited: Promise<number | undefined>;
  recordFolder: string;
  clock: Clock | undefined;
}): SupervisedProcess {
  const { name, identity, ready, exited, recordFolder, clock } = parts;
  return {
    name,
    pid: identity.pid,
    identity,
    ready,
    exited,
    async stop() {
      await stopProcess(identity, { clock });
      const record = readRecord(recordFolder, name);
      if (record?.identity.pid === identity.pid && record.identity.startTime === identity.startTime) removeRecord(recordFolder, name);
    },
  };
}

/** Not a child of ours: nobody tells us when it goes. */
async function untilGone(identity: ProcessIdentity, clock: Clock): Promise<undefined> {
  while (isRunning(identity)) await clock.sleep(POLL_MS);
}

function readReadyLine(child: ChildProcess, exited: Promise<unknown>, timeoutMs: number): Promise<Record<string, unknown> | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), timeoutMs);
    const output = child.stdout as NodeJS.ReadableStream & { unref?(): void };
    const settle = (ready: Record<string, unknown> | undefined) => {
      clearTimeout(timer);
      output.unref?.();
      resolve(ready);
    };
    createInterface({ input: output }).on('line', (line) => {
      try {
        settle(JSON.parse(line) as Record<string, unknown>);
      } catch {
        // Not the ready line.
      }
    });
    void exited.then(() => settle(undefined));
  });
}

async function startFailed(options: StartProcessOptions, exited: Promise<number | undefined>): Promise<MillraceError> {
  const exitCode = await exited;
  let logTail = '';
  try {
    logTail = readFileSync(options.logFile, 'utf8').slice(-LOG_TAIL_BYTES).trim();
  } catch {
    // No log: the exit code has to do.
  }
  return new MillraceError('process-start-failed', {
    actor: 'host',
    message: `${options.name} did not become ready (exit code ${exitCode ?? 'none'})`,
    values: { name: options.name, command: options.command, exitCode, logFile: options.logFile, logTail },
    hint: `Read ${options.logFile}.`,
  });
}

function recordPath(folder: string, name: string): string {
  return join(folder, `${name}.json`);
}

function writeRecord(folder: string, name: string, record: ProcessRecord): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const temporary = `${recordPath(folder, name)}.tmp`;
  const file = openSync(temporary, 'w', 0o600);
  try {
    writeSync(file, JSON.stringify(record));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, recordPath(folder, name));
}

function readRecord(folder: string, name: string): ProcessRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(recordPath(folder, name), 'utf8')) as ProcessRecord;
    return typeof record.identity?.pid === 'number' && typeof record.identity.startTime === 'string' ? record : undefined;
  } catch {
    return undefined;
  }
}

function removeRecord(folder: string, name: string): void {
  rmSync(recordPath(folder, name), { force: true });
}
