import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import { formatSize } from '../units.ts';

/** One thing that this machine has or lacks, for `doctor`. */
export interface HostFact {
  name: string;
  /** What was found, for people. */
  value: string;
  /** `good`; `limited`: works with less; `missing`: what needs it does not work. */
  state: 'good' | 'limited' | 'missing';
  /** What it is needed for. */
  need: string;
  /** What to do about it; absent when it is good. */
  fix?: string;
}

const NODE_MAJOR_MIN = 24;
const CORES_MIN = 2;
const MEMORY_BYTES_MIN = 2 * 2 ** 30;
const DISK_BYTES_MIN = 5 * 2 ** 30;
const PROBE_TIMEOUT_MS = 5_000;

const run = promisify(execFile);

/** Free bytes for an ordinary user on the file system that holds `path`; the path itself need not exist yet. */
export async function freeDiskBytes(path: string): Promise<bigint> {
  let existing = resolve(path);
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  const { bavail, bsize } = await statfs(existing, { bigint: true });
  return bavail * bsize;
}

/** What this machine has, as seen from the data folder at `path`. Probes run other programs, each for at most five seconds. */
export async function inspectHost(path: string): Promise<HostFact[]> {
  return await Promise.all([
    nodeFact(),
    platformFact(),
    coresFact(),
    memoryFact(),
    diskFact(path),
    namespaceFact(),
    sandboxFact(),
    dockerFact(),
  ]);
}

function nodeFact(): HostFact {
  const fact = { name: 'node', value: process.version, need: 'everything' };
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN) return { ...fact, state: 'good' };
  return { ...fact, state: 'missing', fix: `Run "npm ci" for the pinned Node, or install Node ${NODE_MAJOR_MIN} or newer.` };
}

function platformFact(): HostFact {
  const fact = { name: 'platform', value: `${process.platform} ${process.arch}`, need: 'everything' };
  if (process.platform === 'linux' && process.arch === 'x64') return { ...fact, state: 'good' };
  return {
    ...fact,
    state: 'limited',
    fix: 'Only Linux x64 is tested. Elsewhere install Foundry and PostgreSQL yourself where the packages lack them.',
  };
}

function coresFact(): HostFact {
  const cores = availableParallelism();
  const fact = { name: 'cores', value: String(cores), need: 'a whole network on one machine' };
  return cores >= CORES_MIN
    ? { ...fact, state: 'good' }
    : { ...fact, state: 'limited', fix: `Give this machine ${CORES_MIN} cores; with one it is slow.` };
}

function memoryFact(): HostFact {
  const constrained = process.constrainedMemory();
  const bytes = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
  const fact = { name: 'memory', value: formatSize(bytes), need: 'a whole network on one machine' };
  if (bytes >= MEMORY_BYTES_MIN) return { ...fact, state: 'good' };
  return { ...fact, state: 'limited', fix: `Give it ${formatSize(MEMORY_BYTES_MIN)}, or run fewer nodes (--nodes 1).` };
}

async function diskFact(path: string): Promise<HostFact> {
  const bytes = await freeDiskBytes(path);
  const fact = { name: 'disk', value: `${formatSize(bytes)} free at ${path}`, need: 'stored pieces, chain and database' };
  if (bytes >= DISK_BYTES_MIN) return { ...fact, state: 'good' };
  return { ...fact, state: 'limited', fix: `Free ${formatSize(DISK_BYTES_MIN)}, or choose another place with --data or MILLRACE_HOME.` };
}

async function namespaceFact(): Promise<HostFact> {
  const works = await succeeds('unshare', ['--user', '--map-current-user', '--net', 'true']);
  const fact = {
    name: 'user namespaces',
    value: works ? 'available' : 'not available',
    need: 'keeping anvil from other local users, PostgreSQL as root, sandboxes',
  };
  if (works) return { ...fact, state: 'good' };
  return {
    ...fact,
    state: 'limited',
    fix:
      process.platform === 'linux'
        ? 'Install util-linux and allow them: sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0. Until then share this machine with nobody.'
        : 'They exist on Linux only. Share this machine with nobody whom you do not trust.',
  };
}

async function sandboxFact(): Promise<HostFact> {
  const version = await output('bwrap', ['--version']);
  const fact = { name: 'bubblewrap', need: 'compute jobs in a sandbox' };
  if (version !== undefined) return { ...fact, value: version, state: 'good' };
  return { ...fact, value: 'not installed', state: 'missing', fix: 'apt-get install bubblewrap (only to sell computing).' };
}

async function dockerFact(): Promise<HostFact> {
  const fact = { name: 'docker', need: 'machines of clusters' };
  const server = await output('docker', ['version', '--format', '{{.Server.Version}}']);
  if (server !== undefined && server !== '') return { ...fact, value: server, state: 'good' };
  const isInstalled = (await output('docker', ['--version'])) !== undefined;
  const fix = isInstalled
    ? 'Start its daemon, and put your user into the group docker.'
    : 'Install Docker or Podman (only to take part in clusters).';
  return { ...fact, value: isInstalled ? 'installed, no daemon answers' : 'not installed', state: 'missing', fix };
}

async function succeeds(command: string, args: string[]): Promise<boolean> {
  return (await output(command, args)) !== undefined;
}

async function output(command: string, args: string[]): Promise<string | undefined> {
  try {
    return (await run(command, args, { timeout: PROBE_TIMEOUT_MS, maxBuffer: 1 << 20 })).stdout.trim();
  } catch {
    return undefined;
  }
}
