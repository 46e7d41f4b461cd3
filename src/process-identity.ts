import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/**
 * One process, for all time: process ids are used again, so the id alone may later mean a stranger. `startTime` is opaque:
 * on Linux boot id and clock ticks since boot, elsewhere what `ps` prints.
 */
export interface ProcessIdentity {
  pid: number;
  startTime: string;
}

const PS_TIMEOUT_MS = 5_000;
/** In /proc/<pid>/stat, counted behind the command's closing parenthesis: state and start time (proc(5), fields 3 and 22). */
const STATE_FIELD = 0;
const START_TIME_FIELD = 19;

/** The identity of the process that has this id now; undefined when there is none, or only its unreaped remains. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  if (!Number.isSafeInteger(pid) || pid < 1) return undefined;
  const startTime = process.platform === 'linux' ? startTimeByProc(pid) : startTimeByPs(pid);
  return startTime === undefined ? undefined : { pid, startTime };
}

/** Whether that very process is still running. */
export function isRunning(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startTime === identity.startTime;
}

/**
 * Sends a signal to that very process, or with `group` to its process group; gives false when it is gone. Between check and signal an
 * id could in theory change hands; the window is microseconds, and ids are given out in a round.
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals, group = false): boolean {
  if (!isRunning(identity)) return false;
  try {
    process.kill(group ? -identity.pid : identity.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    // It leads no group: then it alone is meant.
    return group ? signalProcess(identity, signal) : false;
  }
}

function startTimeByProc(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command in parentheses may hold anything, parentheses too.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[STATE_FIELD] === 'Z' || fields[STATE_FIELD] === 'X') return undefined;
    return `${bootId()}:${fields[START_TIME_FIELD]}`;
  } catch {
    return undefined;
  }
}

let cachedBootId: string | undefined;

function bootId(): string {
  cachedBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return cachedBootId;
}

function startTimeByPs(pid: number): string | undefined {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      timeout: PS_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    }).trim();
    const match = /^(\S+)\s+(.+)$/.exec(line);
    return match === null || match[1]?.startsWith('Z') ? undefined : match[2];
  } catch {
    return undefined;
  }
}
