import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * What keeps an engine's process in: bubblewrap (no network, a file system of the software and the model alone), a network namespace without
 * any network, or nothing beyond its limits.
 */
export type Isolation = 'bubblewrap' | 'no-network' | 'process';

const INSTALLATION = join(import.meta.dirname, '../../..');

/** Node itself maps about so much before a model is loaded (stacks, the code range of V8). */
const NODE_DATA_BYTES = 640 << 20;
const PROBE_TIMEOUT_MS = 5_000;

let known: Isolation | undefined;

/** The strictest isolation that this machine allows; tried once. */
export function findIsolation(): Isolation {
  known ??= allows('bwrap', ['--unshare-all', '--ro-bind', '/', '/', 'true'])
    ? 'bubblewrap'
    : allows('unshare', ['--user', '--net', 'true'])
      ? 'no-network'
      : 'process';
  return known;
}

function allows(program: string, args: string[]): boolean {
  return process.platform === 'linux' && spawnSync(findProgram(program), args, { timeout: PROBE_TIMEOUT_MS, stdio: 'ignore' }).status === 0;
}

/** Where a program lies on the path; its bare name when it is not there. */
function findProgram(name: string): string {
  const folders = (process.env.PATH ?? '').split(':').filter((folder) => folder.startsWith('/'));
  const isThere = (path: string) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  };
  return folders.map((folder) => join(folder, name)).find(isThere) ?? name;
}

/**
 * The command that runs Node inside the isolation, with at most `memoryBytesMax` of writable memory beyond Node's own (RLIMIT_DATA: an
 * allocation beyond it fails at once) and no core files. The environment holds nothing of ours.
 */
export function sandboxed(options: { isolation: Isolation; memoryBytesMax: number; script: string; files: readonly string[] }): {
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
} {
  const heapMib = Math.max(64, Math.floor(options.memoryBytesMax / (1 << 20)));
  const node = [process.execPath, `--max-old-space-size=${heapMib}`, '--no-warnings', options.script];
  const inside = options.isolation === 'bubblewrap' ? [findProgram('bwrap'), ...bubblewrap(options.files), '--', ...node] : node;
  const command = options.isolation === 'no-network' ? [findProgram('unshare'), '--user', '--net', '--', ...inside] : inside;
  const limitKib = Math.ceil((options.memoryBytesMax + NODE_DATA_BYTES) / 1024);
  const script = 'ulimit -c 0; ulimit -d "$1" 2>/dev/null; shift; exec "$@"';
  return {
    command: '/bin/sh',
    args: ['-c', script, 'engine', String(limitKib), ...command],
    // ONNX Runtime from 1.29 on sends telemetry unless this stands before it starts; the pinned version has none.
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent', ORT_DISABLE_TELEMETRY: '1' },
  };
}

/** Read-only: the system's libraries, this installation, Node, the model's files. */
function bubblewrap(files: readonly string[]): string[] {
  const system = ['/usr', '/lib', '/lib64', '/bin', '/etc/ld.so.cache', '/nix/store'];
  const own = [INSTALLATION, dirname(process.execPath), ...files];
  return [
    '--unshare-all',
    '--die-with-parent',
    '--proc',
    '/proc',
    '--dev',
    '/dev',
    '--tmpfs',
    '/tmp',
    ...system.flatMap((path) => ['--ro-bind-try', path, path]),
    ...own.flatMap((path) => ['--ro-bind', path, path]),
    '--chdir',
    '/tmp',
  ];
}
