import { existsSync, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Address } from 'viem';
import { EMBEDDED_CHAIN_ID, loadProfile, readManifest } from '../chain/index.ts';
import { openDatabase, startPostgres } from '../data/index.ts';
import { writeFileDurably } from '../durable-file.ts';
import { type ErrorDetail, MillraceError } from '../errors.ts';
import { adoptProcess, lockFolder, startProcess } from '../host/index.ts';
import type { Logger } from '../log.ts';
import type { BeaconProcessOptions } from './beacon-process.ts';
import type { FollowerProcessOptions } from './follower-process.ts';
import type { NetworkFolder, RunState } from './network-folder.ts';
import type { NodeProcessOptions } from './node-process.ts';
import { type KeptPart, keepRunning, type RunningPart } from './part.ts';
import { developmentIndex, type LocalOperator, prepareNetwork } from './prepare.ts';
import { localComputeSettings } from './prepare-compute.ts';
import { nodeModels } from './prepare-inference.ts';
import type { AskSettings } from './storage-policy.ts';

/** How a network is run on this machine. */
export interface NetworkOptions {
  folder: NetworkFolder;
  name: string;
  profile: string;
  nodes: number;
  roles: string[];
  /** First ports tried. */
  rpcPort: number;
  nodePort: number;
  /** An external chain and database instead of the embedded ones. */
  rpcUrl?: string;
  databaseUrl?: string;
  quotaBytes: bigint;
  /** What the local nodes ask for; defaults for what is absent. */
  ask?: AskSettings;
  /** The randomness beacon of an external chain. */
  beacon?: Address;
  log: Logger;
  onStep(step: { step: string; detail?: string }): void;
}

/** A network that runs on this machine: its supervised parts in the order of their start. */
export interface LocalNetwork {
  parts: readonly KeptPart[];
  state: RunState;
  stop(): Promise<void>;
}

const CHAIN_PROCESS = fileURLToPath(new URL('../chain/supervisor-process.ts', import.meta.url));
const NODE_PROCESS = fileURLToPath(new URL('./node-process.ts', import.meta.url));
const BEACON_PROCESS = fileURLToPath(new URL('./beacon-process.ts', import.meta.url));
const FOLLOWER_PROCESS = fileURLToPath(new URL('./follower-process.ts', import.meta.url));
const READY_TIMEOUT_MS = 60_000;
const PORT_ATTEMPTS = 3;
const GENESIS_WEI = 10n ** 22n;
/** Development accounts that hold gas from the first block: faucet, client, and three keys for each of 30 nodes. */
const GENESIS_ACCOUNTS = 100;

/**
 * Starts everything (PostgreSQL and chain, then contracts, then follower and nodes), going on with whatever is there: a part that still
 * runs is adopted, the contracts are deployed once, operators are registered once. Each part is kept running from then on.
 * @throws folder-busy and the errors of the parts
 */
export async function startNetwork(options: NetworkOptions): Promise<LocalNetwork> {
  const { folder, onStep } = options;
  if (options.rpcUrl === undefined && existsSync(folder.manifest) && !existsSync(folder.chain)) throw chainElsewhere(options);
  mkdirSync(folder.root, { recursive: true, mode: 0o700 });
  const lock = lockFolder(folder.root);
  const parts: KeptPart[] = [];
  const stopAll = async () => {
    for (const part of parts.splice(0).reverse()) await part.stop();
    lock.release();
  };
  try {
    const [database, chain] = await both(startDatabase(options, parts), startChain(options, parts));
    onStep({ step: 'contracts', detail: existsSync(folder.manifest) ? 'checking' : 'deploying' });
    const operators = await prepareOperators(options, chain.rpcUrl);
    onStep({ step: 'follower and nodes', detail: String(operators.length) });
    if (hasInference(options.roles) && operators.length > 0) parts.push(await keepBeacon(options, chain.rpcUrl));
    const follower = keepFollower(options, chain.rpcUrl, database).then((part) => parts.push(part));
    await both(
      follower,
      keepNodes(options, chain.rpcUrl, operators).then((nodes) => parts.push(...nodes)),
    );
    const state: RunState = {
      version: 1,
      profile: readManifest(folder.manifest).profile,
      with: options.roles,
      rpcUrl: chain.rpcUrl,
      databaseUrl: database,
      chainControlSocket: chain.controlPath,
      nodes: operators.map(({ index, operatorId, endpoint }) => ({
        index,
        operatorId: operatorId.toString(),
        endpoint,
        roles: rolesOf(options.roles),
      })),
      startedAt: new Date().toISOString(),
    };
    writeFileDurably(folder.runState, `${JSON.stringify(state, null, 2)}\n`);
    return { parts, state, stop: stopAll };
  } catch (error) {
    await stopAll();
    throw error;
  }
}

function chainElsewhere({ name, folder }: NetworkOptions): MillraceError {
  const { chainId } = readManifest(folder.manifest);
  return new MillraceError('no-rpc-url', {
    actor: 'caller',
    message: `The network ${name} is on chain ${chainId}, which does not run on this machine`,
    values: { network: name, chainId },
    hint: 'Give --rpc-url or set MILLRACE_RPC_URL.',
  });
}

/** Waits for both also when one fails, so that nothing is left behind that is just starting. */
async function both<One, Other>(one: Promise<One>, other: Promise<Other>): Promise<[One, Other]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}

async function startDatabase(options: NetworkOptions, parts: KeptPart[]): Promise<string> {
  if (options.databaseUrl !== undefined) return usable(options.databaseUrl);
  options.onStep({ step: 'database' });
  let url = '';
  const start = async (): Promise<RunningPart> => {
    const postgres = await startPostgres({ folder: options.folder.postgres, log: options.log });
    url = postgres.url;
    return postgres;
  };
  parts.push(await keepRunning({ name: 'database', start, log: options.log, logFile: join(options.folder.postgres, 'postgres.log') }));
  return url;
}

/** The address of a database that lets us in: found out before anything is put on a chain. */
async function usable(url: string): Promise<string> {
  const database = openDatabase(url, { connectionsMax: 1 });
  await database.query('select 1').finally(() => database.close());
  return url;
}

async function startChain(options: NetworkOptions, parts: KeptPart[]): Promise<{ rpcUrl: string; controlPath?: string }> {
  if (options.rpcUrl !== undefined) return { rpcUrl: options.rpcUrl };
  options.onStep({ step: 'chain' });
  let rpcPort = options.rpcPort === 0 ? 0 : await freePort(options.rpcPort);
  const found = { rpcUrl: '', controlPath: '' };
  const accounts = Array.from({ length: GENESIS_ACCOUNTS }, (_, index) => ({
    address: developmentIndex(index, options.profile).address,
    balance: GENESIS_WEI.toString(),
  }));
  const { feeBps } = (await loadProfile(options.profile)).channels;
  const start = () =>
    spawnPart(
      options,
      'chain',
      CHAIN_PROCESS,
      {
        folder: options.folder.chain,
        chainId: EMBEDDED_CHAIN_ID,
        rpcPort,
        accounts,
        channels: { deployer: developmentIndex(0, options.profile).address, feeBps },
        pausesWhileDown: true,
        logFile: join(options.folder.logs, 'chain.log'),
      },
      (ready) => {
        found.rpcUrl = String(ready.rpcUrl);
        found.controlPath = String(ready.controlPath);
        // A chain that is started again keeps its address.
        rpcPort = Number(new URL(found.rpcUrl).port);
      },
    );
  for (let attempt = 1; ; attempt += 1) {
    try {
      parts.push(await keepRunning({ name: 'chain', start, log: options.log, logFile: join(options.folder.logs, 'chain.log') }));
      return found;
    } catch (error) {
      if ((error as MillraceError).code !== 'port-in-use' || attempt === PORT_ATTEMPTS) throw error;
      // Another program took the port in the meantime.
      rpcPort = await freePort(rpcPort + 1);
    }
  }
}

async function prepareOperators(options: NetworkOptions, rpcUrl: string): Promise<LocalOperator[]> {
  const ports = await freePorts(options.nodePort, options.nodes, previousNodePorts(options.folder));
  return prepareNetwork({ ...options, rpcUrl, embedded: options.rpcUrl === undefined, ports, ...wantedOf(options.roles) });
}

/** Starts the nodes; when another program took a port in the meantime, they are published and started at other ports. */
async function keepNodes(options: NetworkOptions, rpcUrl: string, operators: LocalOperator[]): Promise<KeptPart[]> {
  for (let attempt = 1; ; attempt += 1) {
    const starts = await Promise.allSettled(operators.map((operator) => keepNode(options, rpcUrl, operator)));
    const started = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
    const failure = starts.find((start) => start.status === 'rejected')?.reason as MillraceError | undefined;
    if (failure === undefined) return started;
    await Promise.all(started.map((part) => part.stop()));
    if (failure.code !== 'port-in-use' || attempt === PORT_ATTEMPTS) throw failure;
    operators.splice(0, operators.length, ...(await prepareOperators(options, rpcUrl)));
  }
}

function keepFollower(options: NetworkOptions, rpcUrl: string, databaseUrl: string): Promise<KeptPart> {
  const given: FollowerProcessOptions = {
    manifestPath: options.folder.manifest,
    rpcUrl,
    databaseUrl,
    logFile: join(options.folder.logs, 'follower.log'),
  };
  return keepRunning({
    name: 'follower',
    log: options.log,
    logFile: given.logFile,
    start: () => spawnPart(options, 'follower', FOLLOWER_PROCESS, given),
  });
}

/** The beacon to which a development network's subnets seal their commits. */
function keepBeacon(options: NetworkOptions, rpcUrl: string): Promise<KeptPart> {
  const { folder, log } = options;
  const logFile = join(folder.logs, 'beacon.log');
  const given: BeaconProcessOptions = { networkRoot: folder.root, manifestPath: folder.manifest, rpcUrl, logFile };
  return keepRunning({ name: 'beacon', log, logFile, start: () => spawnPart(options, 'beacon', BEACON_PROCESS, given) });
}

function keepNode(options: NetworkOptions, rpcUrl: string, operator: LocalOperator): Promise<KeptPart> {
  const name = `node-${operator.index}`;
  const given: NodeProcessOptions = {
    name,
    folder: options.folder.node(operator.index),
    manifestPath: options.folder.manifest,
    rpcUrl,
    roles: rolesOf(options.roles),
    dataFolder: options.folder.root,
    inference: hasInference(options.roles) ? nodeModels(operator.index, options.nodes) : undefined,
    compute: options.roles.includes('compute') ? localComputeSettings(options.nodes) : undefined,
    port: operator.port,
    quotaBytes: options.quotaBytes.toString(),
    ask: options.ask,
    key: operator.key,
    logFile: join(options.folder.logs, `${name}.log`),
  };
  return keepRunning({ name, log: options.log, logFile: given.logFile, start: () => spawnPart(options, name, NODE_PROCESS, given) });
}

/** Words that stand for all the roles that make a network: of models, of jobs and leases. */
const ROLES_OF_NETWORK: Record<string, string[]> = { inference: ['miner', 'validator'], compute: ['compute', 'auditor', 'juror'] };

function rolesOf(asked: readonly string[]): string[] {
  return [...new Set(asked.flatMap((role) => ROLES_OF_NETWORK[role] ?? [role]))];
}

function wantedOf(asked: readonly string[]): { withInference: boolean; withCompute: boolean } {
  return { withInference: hasInference(asked), withCompute: asked.includes('compute') };
}

function hasInference(asked: readonly string[]): boolean {
  return asked.includes('inference');
}

/** Starts a part's process, or adopts the one that an earlier supervisor left. Options go by argument; they hold no secrets but the database's URL, which goes by standard input. */
async function spawnPart(
  options: NetworkOptions,
  name: string,
  program: string,
  given: object,
  onReady: (ready: Record<string, unknown>) => void = () => {},
): Promise<RunningPart> {
  const recordFolder = join(options.folder.root, 'processes');
  const adopted = adoptProcess({ name, recordFolder });
  if (adopted?.ready !== undefined) {
    onReady(adopted.ready);
    return adopted;
  }
  await adopted?.stop();
  const started = await startProcess({
    name,
    command: process.execPath,
    args: [program, '-'],
    input: JSON.stringify(given),
    env: {
      PATH: process.env.PATH,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      HOME: process.env.HOME,
      LANG: process.env.LANG,
      XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR,
      TMPDIR: process.env.TMPDIR,
    },
    logFile: join(options.folder.logs, `${name}.err`),
    recordFolder,
    readyTimeoutMs: READY_TIMEOUT_MS,
  }).catch((error) => {
    throw childError(error as MillraceError);
  });
  onReady(started.ready ?? {});
  return started;
}

/** The error that a process printed before it ended, instead of the bare fact that it ended. */
function childError(error: MillraceError): MillraceError {
  const lines = String(error.values.logTail ?? '').split('\n');
  try {
    const { code, ...detail } = JSON.parse(lines.at(-1) ?? '') as { code: string } & ErrorDetail;
    if (typeof code === 'string') return new MillraceError(code, { ...detail, cause: error });
  } catch {
    // It said nothing that can be read.
  }
  return error;
}

function previousNodePorts(folder: NetworkFolder): Map<number, number> {
  const ports = new Map<number, number>();
  for (let index = 1; existsSync(folder.node(index)); index += 1) {
    const record = adoptProcess({ name: `node-${index}`, recordFolder: join(folder.root, 'processes') });
    if (typeof record?.ready?.port === 'number') ports.set(index, record.ready.port);
  }
  return ports;
}

/** A port for each node: that of a node that still runs, else free ones from `first` on. */
async function freePorts(first: number, count: number, taken: ReadonlyMap<number, number>): Promise<number[]> {
  const ports: number[] = [];
  let next = first;
  for (let index = 1; index <= count; index += 1) {
    const running = taken.get(index);
    if (running !== undefined) {
      ports.push(running);
      continue;
    }
    do {
      next = first === 0 ? 0 : await freePort(next);
      if (first !== 0 && !ports.includes(next)) break;
      if (first === 0) next = await freePort(0);
    } while (ports.includes(next));
    ports.push(next);
    next += 1;
  }
  return ports;
}

/** The first free port on 127.0.0.1 from `first` on; any free one for 0. */
async function freePort(first: number): Promise<number> {
  for (let port = first; port < 65_536; port += 1) {
    const found = await new Promise<number | undefined>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(undefined));
      server.listen(port, '127.0.0.1', () => {
        const address = server.address() as { port: number };
        server.close(() => resolve(address.port));
      });
    });
    if (found !== undefined) return found;
  }
  return 0;
}
