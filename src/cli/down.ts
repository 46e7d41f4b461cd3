import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { stopPostgres } from '../data/index.ts';
import { MillraceError } from '../errors.ts';
import { adoptProcess } from '../host/index.ts';
import { askControl, type NetworkFolder } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { folderOf } from './session.ts';
import { supervisorStatus } from './up.ts';

const STOP_TIMEOUT_MS = 120_000;

/** Stops everything of the network on this machine, also what a killed supervisor left. Stopping what does not run is no error. */
export async function down(context: CommandContext): Promise<void> {
  const folder = folderOf(context);
  // First, while there is a chain that it may still tell something.
  const hadAgent = await stopRecorded('rent-agent', join(folder.root, 'processes'));
  const wasRunning = await stopEverything(folder);
  const ofAgent = hadAgent ? ' The agent of your rentals has stopped too; `millrace rentals` starts it again.' : '';
  context.output.result({ stopped: wasRunning, rentAgentStopped: hadAgent }, () =>
    wasRunning ? `Stopped. Nothing is lost; \`millrace up\` goes on.${ofAgent}` : `Nothing was running.${ofAgent}`,
  );
}

/** Restarts one part, or all. */
export async function restart(context: CommandContext, part: string | undefined): Promise<void> {
  const folder = folderOf(context);
  await askControl(folder.controlSocket, 'restart', { arguments: { part }, timeoutMs: STOP_TIMEOUT_MS });
  const status = await supervisorStatus(folder);
  context.output.result({ restarted: part ?? 'all', processes: status?.parts }, () => `Restarted ${part ?? 'everything'}.`);
}

/** Stops the network and deletes its folder, after asking. */
export async function reset(context: CommandContext, options: { yes: boolean }): Promise<void> {
  const folder = folderOf(context);
  if (!options.yes && !(await isConfirmed(`Delete ${folder.root} with all keys, files and chain data in it? Type yes: `))) {
    throw new MillraceError('not-confirmed', {
      actor: 'caller',
      message: 'Nothing was deleted',
      hint: 'Add --yes to delete without being asked.',
    });
  }
  await stopEverything(folder);
  const existed = existsSync(folder.root);
  rmSync(folder.root, { recursive: true, force: true });
  context.output.result({ deleted: existed, folder: folder.root }, () =>
    existed ? `Deleted ${folder.root}.` : 'There was nothing to delete.',
  );
}

async function stopEverything(folder: NetworkFolder): Promise<boolean> {
  const recordFolder = join(folder.root, 'processes');
  const supervisor = adoptProcess({ name: 'supervisor', recordFolder });
  let wasRunning = supervisor !== undefined;
  if ((await supervisorStatus(folder)) !== undefined) {
    wasRunning = true;
    await askControl(folder.controlSocket, 'stop', { timeoutMs: STOP_TIMEOUT_MS }).catch(() => {});
  }
  await supervisor?.stop();
  // A supervisor that was killed leaves its children: nodes first, the chain and the database last.
  for (let index = 1; existsSync(folder.node(index)); index += 1)
    wasRunning = (await stopRecorded(`node-${index}`, recordFolder)) || wasRunning;
  for (const name of ['rent-agent', 'follower', 'beacon', 'chain']) wasRunning = (await stopRecorded(name, recordFolder)) || wasRunning;
  if (existsSync(folder.postgres)) wasRunning = (await stopPostgres({ folder: folder.postgres })) || wasRunning;
  return wasRunning;
}

async function stopRecorded(name: string, recordFolder: string): Promise<boolean> {
  const left = adoptProcess({ name, recordFolder });
  await left?.stop();
  return left !== undefined;
}

async function isConfirmed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await lines.question(question)).trim() === 'yes';
  } finally {
    lines.close();
  }
}
