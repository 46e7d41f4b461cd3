import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { MillraceError } from '../errors.ts';
import type { DockerOptions, Executor, KubernetesOptions, SwarmOptions } from '../host/index.ts';
import { badComputeSetting, type ComputeSettings, computeSettings, imageBytesOf, wholeOf } from './compute-settings.ts';

const run = promisify(execFile);

/** Engines that a node's owner may choose for images and rentals. Modules run in WebAssembly beside any of them. */
export const COMPUTE_ENGINES = ['bubblewrap', 'docker', 'gvisor', 'swarm', 'kubernetes'] as const;

/** One of them. */
export type ComputeEngine = (typeof COMPUTE_ENGINES)[number];

const HOLD_TIMEOUT_MS = 30_000;
const PROCESSES_MAX = 1 << 20;

/** The engine that the owner chose. @throws bad-compute-setting */
export function chosenEngine(given: ComputeSettings | undefined): ComputeEngine {
  const { computeEngine, jobCommands } = computeSettings(given);
  const engine = COMPUTE_ENGINES.find((each) => each === computeEngine);
  if (engine === undefined) throw badComputeSetting('computeEngine', computeEngine, `one of ${COMPUTE_ENGINES.join(', ')}`);
  if (jobCommands === 'yes' && engine !== 'bubblewrap') {
    throw badComputeSetting('jobCommands', jobCommands, `no: the engine ${engine} has no software of this machine to run`);
  }
  return engine;
}

/** Whether rentals can live in what the owner chose: the others have no pipes between a rental and its node. */
export function holdsRentals(given: ComputeSettings | undefined): boolean {
  const engine = chosenEngine(given);
  return engine === 'bubblewrap' || (engine === 'docker' && computeSettings(given).leaseImage !== '');
}

/**
 * The engines of a node, that of images first, then WebAssembly. Only the chosen one: where it cannot hold strangers' work to its limits, that work is
 * refused, and not put into another engine. No socket of an engine is opened unless the owner chose that engine.
 * @throws bad-compute-setting
 */
export async function openEngines(given: ComputeSettings | undefined, dataFolder: string): Promise<Executor[]> {
  const { WasmExecutor } = await import('../host/index.ts');
  const imageBytesMax = imageBytesOf(given);
  return [await openEngine(given, dataFolder), new WasmExecutor({ imageFolder: join(dataFolder, 'modules'), imageBytesMax })];
}

async function openEngine(given: ComputeSettings | undefined, dataFolder: string): Promise<Executor> {
  const host = await import('../host/index.ts');
  const engine = chosenEngine(given);
  const imageBytesMax = imageBytesOf(given);
  if (engine === 'bubblewrap') return new host.SandboxExecutor({ imageFolder: join(dataFolder, 'images'), imageBytesMax });
  if (engine === 'swarm') return await host.openSwarmExecutor(swarmOptions(given));
  if (engine === 'kubernetes') return await host.openKubernetesExecutor(kubernetesOptions(given));
  const images = { imageFolder: join(dataFolder, 'engine-images'), imageBytesMax };
  return await host.openDockerExecutor({ ...dockerOptions(given), ...images, ...(engine === 'gvisor' ? { runtime: 'runsc' } : {}) });
}

/** Where Docker's or Podman's engine answers; its usual place where the owner names none. */
export function dockerOptions(given: ComputeSettings | undefined): DockerOptions {
  const [socketPath, second] = socketsOf(given);
  if (second !== undefined) throw badComputeSetting('engineSocket', computeSettings(given).engineSocket, 'one path');
  return socketPath === undefined ? {} : { socketPath };
}

function swarmOptions(given: ComputeSettings | undefined): SwarmOptions {
  const { engineHold } = computeSettings(given);
  const sockets = socketsOf(given);
  if (sockets.length === 0)
    throw badComputeSetting('engineSocket', '', 'the paths of the farm’s engines, a manager’s first, with commas between');
  return {
    sockets,
    sharedFolder: needed('engineFolder', given, 'a folder that lies at the same path on all machines of the farm'),
    ...(engineHold === '' ? {} : { holdFolder: (path: string, sizeBytes: number) => holdBy(engineHold, path, sizeBytes) }),
  };
}

function kubernetesOptions(given: ComputeSettings | undefined): KubernetesOptions {
  const { kubernetesAuthority, kubernetesProcesses } = computeSettings(given);
  return {
    server: needed('kubernetesServer', given, 'https://host:port of the API'),
    token: readFile('kubernetesToken', needed('kubernetesToken', given, 'a file with a service account’s token')).trim(),
    ...(kubernetesAuthority === '' ? {} : { certificateAuthority: readFile('kubernetesAuthority', kubernetesAuthority) }),
    namespace: needed('kubernetesNamespace', given, 'the namespace of the jobs'),
    repository: needed('kubernetesRepository', given, 'the repository of the images'),
    claim: needed('kubernetesClaim', given, 'a claim for a volume that many machines may write to'),
    sharedFolder: needed('engineFolder', given, 'where this node sees the claim’s files'),
    ...(kubernetesProcesses === ''
      ? {}
      : { enforced: { networkPolicies: true, processesMax: wholeOf('kubernetesProcesses', given, PROCESSES_MAX) } }),
  };
}

/** The owner's program gives a folder of the shared place a hard size, or refuses: `PROGRAM hold FOLDER BYTES`, `PROGRAM release FOLDER`. */
async function holdBy(program: string, path: string, sizeBytes: number): Promise<() => Promise<void>> {
  await run(program, ['hold', path, String(sizeBytes)], { timeout: HOLD_TIMEOUT_MS }).catch((cause: Error) => {
    throw new MillraceError('folder-not-held', {
      actor: 'host',
      message: `${program} gave ${path} no hard size: ${cause.message.slice(0, 300)}`,
      values: { program, path, sizeBytes },
      hint: 'See the setting engineHold in docs/operators.md.',
      cause,
    });
  });
  return async () => void (await run(program, ['release', path], { timeout: HOLD_TIMEOUT_MS }));
}

function socketsOf(given: ComputeSettings | undefined): string[] {
  return computeSettings(given)
    .engineSocket.split(',')
    .map((path) => path.trim().replace(/^unix:\/\//, ''))
    .filter((path) => path !== '');
}

type SettingName = keyof ReturnType<typeof computeSettings>;

function needed(name: SettingName, given: ComputeSettings | undefined, what: string): string {
  const value = computeSettings(given)[name];
  if (value !== '') return value;
  throw badComputeSetting(name, '', `${what}, which the engine ${computeSettings(given).computeEngine} needs`);
}

function readFile(name: SettingName, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw badComputeSetting(name, path, `a file that can be read (${(cause as Error).message})`);
  }
}
