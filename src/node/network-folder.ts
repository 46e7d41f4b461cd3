import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';

/** Where one network keeps its things on this machine. Everything is below `root`, but for the control sockets. */
export interface NetworkFolder {
  root: string;
  manifest: string;
  runState: string;
  chain: string;
  postgres: string;
  logs: string;
  client: string;
  wallet: string;
  /** Folder of the n-th local node, from 1. */
  node(index: number): string;
  /** Unix-domain socket of the local supervisor; in `/run` or the temporary folder, since its path is limited to 107 bytes. */
  controlSocket: string;
}

/** What runs of a network on this machine, as the supervisor last wrote it. Ports are the actual ones. */
export interface RunState {
  version: 1;
  profile: string;
  /** Roles of the nodes in the words of `up --with`; absent in files of earlier versions. */
  with?: string[];
  rpcUrl: string;
  databaseUrl?: string;
  chainControlSocket?: string;
  nodes: { index: number; operatorId: string; endpoint: string; roles: string[] }[];
  startedAt: string;
}

/** The folder of network `name` below the data folder. */
export function networkFolder(dataFolder: string, name: string): NetworkFolder {
  if (!/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) {
    throw new MillraceError('bad-network-name', {
      actor: 'caller',
      message: `Got network name "${name}", expected 1 to 32 lower-case letters, digits and dashes`,
      values: { got: name },
    });
  }
  const root = join(dataFolder, name);
  const digest = createHash('sha256').update(root).digest('hex').slice(0, 16);
  return {
    root,
    manifest: join(root, 'network.json'),
    runState: join(root, 'run.json'),
    chain: join(root, 'chain'),
    postgres: join(root, 'postgres'),
    logs: join(root, 'logs'),
    client: join(root, 'client'),
    wallet: join(root, 'wallet.json'),
    node: (index) => join(root, 'nodes', String(index)),
    controlSocket: join(socketFolder(), `millrace-${digest}.sock`),
  };
}

/** The folder for sockets: `/run` for root, `XDG_RUNTIME_DIR`, else a private folder in the temporary folder. */
export function socketFolder(): string {
  if (process.getuid?.() === 0 && existsSync('/run')) return '/run';
  if (process.env.XDG_RUNTIME_DIR && process.env.XDG_RUNTIME_DIR.length < 60) return process.env.XDG_RUNTIME_DIR;
  const folder = join(tmpdir(), `millrace-${process.getuid?.() ?? 0}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/** The control socket of the node that keeps its things in `folder`. */
export function nodeSocket(folder: string): string {
  return join(socketFolder(), `millrace-node-${createHash('sha256').update(folder).digest('hex').slice(0, 16)}.sock`);
}

/** What runs, or undefined when nothing was ever started here. @throws bad-run-state */
export function readRunState(folder: NetworkFolder): RunState | undefined {
  if (!existsSync(folder.runState)) return undefined;
  try {
    const state = JSON.parse(readFileSync(folder.runState, 'utf8')) as RunState;
    if (state.version !== 1 || typeof state.rpcUrl !== 'string') throw new TypeError('unknown version');
    return state;
  } catch (cause) {
    throw new MillraceError('bad-run-state', {
      actor: 'host',
      message: `${folder.runState} cannot be read`,
      values: { path: folder.runState },
      hint: 'Delete the file and run `millrace up` again; nothing is lost.',
      cause,
    });
  }
}
