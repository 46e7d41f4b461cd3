/**
 * The local supervisor as a process: starts a network and keeps it running until it is told to stop. `millrace up` starts it and
 * talks to it over the control socket. One argument `-`: its options as JSON on standard input.
 */
import { readFileSync } from 'node:fs';
import type { Address } from 'viem';
import { controlChain } from '../chain/index.ts';
import { exitCodeOf, MillraceError, toMillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import { startControlServer } from './control.ts';
import { type LocalNetwork, startNetwork } from './network.ts';
import { networkFolder } from './network-folder.ts';
import type { AskSettings } from './storage-policy.ts';

/** The options of the supervisor process. */
export interface NetworkProcessOptions {
  dataFolder: string;
  name: string;
  profile: string;
  nodes: number;
  roles: string[];
  rpcPort: number;
  nodePort: number;
  rpcUrl?: string;
  databaseUrl?: string;
  quotaBytes: string;
  ask?: AskSettings;
  beacon?: Address;
}

/** What `status` answers over the control socket. */
export interface SupervisorStatus {
  phase: 'starting' | 'ready' | 'stopping' | 'failed';
  step: string;
  pid: number;
  parts: { name: string; state: string; pid: number | undefined; restarts: number }[];
  error?: { code: string; actor: string; message: string; values?: Record<string, unknown>; hint?: string };
}

async function main(): Promise<void> {
  const options = JSON.parse(readFileSync(0, 'utf8')) as NetworkProcessOptions;
  const folder = networkFolder(options.dataFolder, options.name);
  const log = createLogger({ role: 'supervisor', file: `${folder.logs}/supervisor.log` });
  const status: SupervisorStatus = { phase: 'starting', step: 'supervisor', pid: process.pid, parts: [] };
  let network: LocalNetwork | undefined;
  const stopped = Promise.withResolvers<void>();
  const stop = async () => {
    if (status.phase === 'stopping') return stopped.promise;
    status.phase = 'stopping';
    await network?.stop();
    log.info('stopped');
    stopped.resolve();
  };
  const statusNow = (): SupervisorStatus => ({
    ...status,
    parts: (network?.parts ?? []).map((part) => ({ name: part.name, state: part.state(), pid: part.pid(), restarts: part.restarts() })),
  });
  const control = await startControlServer(folder.controlSocket, async ({ command, arguments: given }) => {
    if (command === 'status') return statusNow();
    if (command === 'stop') return void (await stop());
    if (command === 'restart') return void (await restartParts(network, given.part as string | undefined));
    if (command === 'warp') return warp(network, Number(given.seconds));
    throw new MillraceError('unknown-command', {
      actor: 'caller',
      message: `The supervisor does not know "${command}"`,
      values: { command },
    });
  });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void stop());
  process.stdout.write(`${JSON.stringify({ ready: true, controlSocket: folder.controlSocket })}\n`);
  try {
    network = await startNetwork({
      ...options,
      folder,
      quotaBytes: BigInt(options.quotaBytes),
      log,
      onStep: ({ step, detail }) => {
        status.step = detail === undefined ? step : `${step} (${detail})`;
        log.info('step', { step, detail });
      },
    });
    if (status.phase === 'starting') status.phase = 'ready';
    else await network.stop();
    log.info('ready', { parts: network.parts.length });
    await stopped.promise;
  } catch (error) {
    status.phase = 'failed';
    status.error = toMillraceError(error).toJSON();
    log.error('failed', { code: status.error.code, message: status.error.message });
    process.exitCode = exitCodeOf(error);
    // Stays for a moment so that `up` can fetch the reason.
    await new Promise((resolve) => setTimeout(resolve, 3000));
  }
  await control.stop();
  process.exit();
}

async function restartParts(network: LocalNetwork | undefined, name: string | undefined): Promise<void> {
  const chosen = (network?.parts ?? []).filter((part) => name === undefined || part.name === name);
  if (chosen.length === 0) {
    throw new MillraceError('unknown-part', {
      actor: 'caller',
      message: `There is no part "${name}"`,
      values: { part: name },
      hint: `Known: ${(network?.parts ?? []).map((part) => part.name).join(', ')}.`,
    });
  }
  for (const part of chosen) await part.restart();
}

async function warp(network: LocalNetwork | undefined, seconds: number): Promise<unknown> {
  const socket = network?.state.chainControlSocket;
  if (socket === undefined) {
    throw new MillraceError('warp-needs-embedded-chain', { actor: 'caller', message: 'Only the embedded chain’s time can be moved' });
  }
  return controlChain(socket, { command: 'warp', seconds });
}

main().catch((error) => {
  process.stderr.write(`${JSON.stringify(toMillraceError(error))}\n`);
  process.exit(exitCodeOf(error));
});
