import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { type AnvilConnection, connectAnvil } from './anvil-connection.ts';

/** The anvil release whose blocks are known to replay bit for bit; another release may hash differently. */
export const ANVIL_VERSION = '1.7.1';

const START_TIMEOUT_MS = 30_000;
const CONNECT_RETRY_MS = 20;
/** Kept in memory for reads at the block before the newest; older state is not served. */
const STATES_IN_MEMORY = 64;
const ISOLATION = ['--user', '--map-current-user', '--net'];

/**
 * Runs before anvil takes the process over: a background shell waits on a pipe held by the supervisor and kills anvil
 * when the pipe breaks, so that anvil never outlives a supervisor that was killed with SIGKILL. A line on the pipe
 * dismisses the guardian.
 */
const GUARDED_START = '(read -r line <&3 || kill -9 $$) >/dev/null 2>&1 & exec 3<&-; exec "$@"';

/** A running anvil: its process and the only connection to it. */
export interface AnvilProcess {
  pid: number;
  /** True when anvil runs in a network namespace of its own, where no other process can reach its port. */
  isolated: boolean;
  connection: AnvilConnection;
  /** Resolves when the process has gone, however it went. */
  exited: Promise<void>;
  /** Kills the process at once; it holds nothing that is not in the write-ahead log. */
  kill(): Promise<void>;
}

/** What anvil is started with. `ipcPath` lies in a folder that only this user can enter. */
export interface AnvilOptions {
  ipcPath: string;
  genesisFile: string;
  cacheFolder: string;
  logFile: string;
  chainId: number;
  gasLimit: bigint;
  /** Try to start it in a network namespace of its own (default true). */
  isolate?: boolean;
}

/**
 * The path of the anvil binary: `MILLRACE_ANVIL`, else the optional dependency for this platform, else PATH.
 * @throws anvil-missing
 */
export function locateAnvil(env: NodeJS.ProcessEnv = process.env): string {
  if (env.MILLRACE_ANVIL) return env.MILLRACE_ANVIL;
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const packageName = `@foundry-rs/anvil-${process.platform}-${architecture}`;
  const candidates = (env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'anvil'));
  try {
    candidates.unshift(join(dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`)), 'bin', 'anvil'));
  } catch {
    // Not installed for this platform: PATH decides.
  }
  const found = candidates.find(isExecutable);
  if (found !== undefined) return found;
  throw new MillraceError('anvil-missing', {
    actor: 'host',
    message: `No anvil for ${process.platform} ${process.arch}: neither the package ${packageName} nor a binary on PATH`,
    values: { packageName, platform: process.platform, arch: process.arch },
    hint: `Run "npm ci", or install Foundry ${ANVIL_VERSION} and put anvil on PATH, or point MILLRACE_RPC_URL at a chain that runs elsewhere.`,
  });
}

/**
 * Starts anvil on a fresh in-memory chain that mines only when told, and connects over its Unix-domain socket.
 * @throws anvil-missing, anvil-start-failed
 */
export async function startAnvil(options: AnvilOptions): Promise<AnvilProcess> {
  const binary = locateAnvil();
  stopOrphanedAnvil(options.ipcPath);
  rmSync(options.ipcPath, { force: true });
  mkdirSync(options.cacheFolder, { recursive: true, mode: 0o700 });
  const isolated = (options.isolate ?? true) && canIsolateNetwork();
  const port = isolated ? 8545 : await freePort();
  const command = [
    ...(isolated ? ['unshare', ...ISOLATION] : []),
    ...[binary, '--quiet', '--no-mining', '--order', 'fifo', '--no-request-size-limit', '--enable-tx-gas-limit'],
    ...['--accounts', '0', '--disable-min-priority-fee', '--no-cors'],
    ...['--prune-history', String(STATES_IN_MEMORY), '--cache-path', options.cacheFolder],
    ...['--chain-id', String(options.chainId), '--gas-limit', String(options.gasLimit), '--init', options.genesisFile],
    // In its own namespace there is no loopback interface and nobody to hear: any address will do.
    ...['--host', isolated ? '0.0.0.0' : '127.0.0.1', '--port', String(port), '--ipc', options.ipcPath],
  ];
  const logFile = openSync(options.logFile, 'a', 0o600);
  const child = spawn('/bin/sh', ['-c', GUARDED_START, 'anvil', ...command], {
    stdio: ['ignore', logFile, logFile, 'pipe'],
    env: { PATH: process.env.PATH ?? '', HOME: options.cacheFolder },
  });
  closeSync(logFile);
  return await superviseAnvil(child, options, isolated);
}

async function superviseAnvil(child: ChildProcess, options: AnvilOptions, isolated: boolean): Promise<AnvilProcess> {
  const guardian = child.stdio[3] as NodeJS.WritableStream;
  guardian.on('error', () => {});
  let running = child.pid !== undefined;
  const exited = new Promise<void>((resolve) => {
    const onGone = () => {
      running = false;
      // The process id may be used again from now on: the guardian must not act on it.
      guardian.end('done\n');
      resolve();
    };
    child.once('exit', onGone);
    child.once('error', onGone);
  });
  const kill = async () => {
    if (running) child.kill('SIGKILL');
    await exited;
  };
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (running && performance.now() < deadline) {
    const connection = await connectAnvil(options.ipcPath).catch(() => undefined);
    if (connection !== undefined) {
      void exited.then(() => connection.close());
      return { pid: child.pid as number, isolated, connection, exited, kill };
    }
    await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS));
  }
  await kill();
  throw new MillraceError('anvil-start-failed', {
    actor: 'host',
    message: `anvil did not open ${options.ipcPath} (exit code ${child.exitCode})`,
    values: { exitCode: child.exitCode, logFile: options.logFile },
    hint: `Read ${options.logFile}.`,
  });
}

/**
 * Kills an anvil that a former supervisor left behind. It is told by the socket path in its arguments, which no other
 * program has, so a process id that was given to somebody else is never hit.
 */
export function stopOrphanedAnvil(ipcPath: string): void {
  for (const { pid, commandLine } of runningProcesses()) {
    if (pid === process.pid || !commandLine.includes(`--ipc ${ipcPath}`)) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It went by itself.
    }
  }
}

function runningProcesses(): { pid: number; commandLine: string }[] {
  if (process.platform === 'linux') {
    return readdirSync('/proc').flatMap((name) => {
      try {
        return /^\d+$/.test(name)
          ? [{ pid: Number(name), commandLine: readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ') }]
          : [];
      } catch {
        return [];
      }
    });
  }
  const listing = execFileSync('ps', ['-ww', '-A', '-o', 'pid=,args='], { encoding: 'utf8', timeout: 10_000, maxBuffer: 64 << 20 });
  return [...listing.matchAll(/^\s*(\d+)\s+(.*)$/gm)].map((match) => ({ pid: Number(match[1]), commandLine: match[2] as string }));
}

let networkIsolation: boolean | undefined;

/** Whether an unprivileged user may have a network namespace here (Linux with user namespaces and `unshare`). */
export function canIsolateNetwork(): boolean {
  networkIsolation ??= process.platform === 'linux' && spawnSync('unshare', [...ISOLATION, 'true'], { timeout: 5_000 }).status === 0;
  return networkIsolation;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
