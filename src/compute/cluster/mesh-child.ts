import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MillraceError } from '../../errors.ts';
import { enterNamespace, type NetNamespace } from '../../host/index.ts';
import type { MeshOrder, MeshReport, MeshSettings } from './mesh-messages.ts';

/** The process that a node keeps in the mesh of one rental. */
export interface MeshChild {
  /** Tells it the list that counts. */
  order(order: MeshOrder): void;
  /** What it last said; undefined before it said anything. */
  report(): MeshReport | undefined;
  /** Whether it runs; a node ends the membership of a machine whose mesh process died. */
  isRunning(): boolean;
  stop(): Promise<void>;
}

const START_PATIENCE_MS = 20_000;
const PROGRAM = fileURLToPath(new URL('./mesh-process.ts', import.meta.url));

/**
 * Starts it within the rental’s network, as a user that owns nothing, and waits until it answers peers.
 * @throws mesh-process-failed
 */
export async function startMeshChild(namespace: NetNamespace, settings: MeshSettings): Promise<MeshChild> {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM, JSON.stringify(settings)];
  const [command, ...args] = enterNamespace(namespace.path, ['setpriv', '--no-new-privs', '--', ...node]);
  const env = { PATH: process.env.PATH, LANG: 'C.UTF-8' };
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], env, cwd: '/' });
  let said = '';
  child.stderr?.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString('utf8')).slice(-1_000);
  });
  let isRunning = true;
  const gone = new Promise<void>((resolve) => {
    const end = () => {
      isRunning = false;
      resolve();
    };
    child.once('error', end).once('exit', end);
  });
  let latest: MeshReport | undefined;
  const ready = new Promise<void>((resolve) => {
    child.on('message', (message: MeshReport | { isReady: true }) => {
      if ('isReady' in message) resolve();
      else latest = message;
    });
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), START_PATIENCE_MS);
  await Promise.race([ready, gone]);
  clearTimeout(timer);
  if (!isRunning) throw failed(said);
  return {
    order: (order) => void (child.connected && child.send(order, () => {})),
    report: () => latest,
    isRunning: () => isRunning,
    stop: async () => {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

function failed(said: string): MillraceError {
  return new MillraceError('mesh-process-failed', {
    actor: 'host',
    message: `The process in the rental’s mesh did not start: ${said.trim()}`,
    values: { said: said.trim() },
    hint: 'It needs util-linux (nsenter, setpriv) and root.',
  });
}
