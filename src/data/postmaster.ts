import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { identifyProcess, isRunning, type ProcessIdentity, signalProcess } from '../process-identity.ts';

/** A PostgreSQL server found by the `postmaster.pid` of its cluster. */
export interface Postmaster extends ProcessIdentity {
  port: number;
}

/**
 * The living server of a cluster, else undefined. A pid file alone proves nothing after a reboot: the process must
 * also carry the cluster's folder on its command line, as every server started by `startPostgres` does.
 */
export function findPostmaster(cluster: string): Postmaster | undefined {
  const lines = readPidFile(cluster);
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (!Number.isSafeInteger(pid) || pid <= 1 || !Number.isSafeInteger(port)) return undefined;
  const identity = identifyProcess(pid);
  return identity !== undefined && commandLine(pid).includes(cluster) ? { ...identity, port } : undefined;
}

/** True when the pid file names a living process which is not this cluster's server: PostgreSQL would refuse to start. */
export function isPidFileMisleading(cluster: string): boolean {
  const pid = Number(readPidFile(cluster)[0]);
  return Number.isSafeInteger(pid) && pid > 1 && identifyProcess(pid) !== undefined && findPostmaster(cluster) === undefined;
}

/**
 * Stops a server: fast shutdown (SIGINT; SIGTERM would wait for every client), after 20 s immediate (SIGQUIT), after
 * 5 s more SIGKILL. Nothing committed is lost by any of the three. Signals go to the very process that was found.
 */
export async function stopPostmaster(postmaster: ProcessIdentity, clock: Clock): Promise<void> {
  for (const [signal, patienceMs] of [
    ['SIGINT', 20_000],
    ['SIGQUIT', 5_000],
    ['SIGKILL', 5_000],
  ] as const) {
    if (!signalProcess(postmaster, signal)) return;
    const deadlineMs = clock.nowMs() + patienceMs;
    while (isRunning(postmaster) && clock.nowMs() < deadlineMs) await clock.sleep(20);
  }
}

function readPidFile(cluster: string): string[] {
  try {
    return readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n');
  } catch {
    return [];
  }
}

function commandLine(pid: number): string {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    return execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8', timeout: 5_000 });
  } catch {
    return '';
  }
}
