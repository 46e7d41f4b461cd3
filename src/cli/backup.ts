import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { readManifest } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { folderOf } from './session.ts';
import { supervisorStatus } from './up.ts';

/** Copies all that this machine keeps of the network (keys, chain, database, pieces) to a new folder. The network must be down. */
export async function exportData(context: CommandContext, target: string): Promise<void> {
  const folder = folderOf(context);
  await requireDown(context);
  if (!existsSync(folder.root))
    throw new MillraceError('no-network', { actor: 'caller', message: `There is no network "${context.flags.network}" in ${folder.root}` });
  requireEmpty(target);
  copyFolder(folder.root, target);
  context.output.result(
    { from: folder.root, to: resolve(target) },
    () => `Copied ${folder.root} to ${resolve(target)}. It holds keys: keep it as safe as the original.`,
  );
}

/** Takes over a folder that `millrace export` made. Nothing that is here is overwritten. */
export async function importData(context: CommandContext, source: string): Promise<void> {
  const folder = folderOf(context);
  await requireDown(context);
  const manifest = readManifest(`${source}/network.json`);
  requireEmpty(folder.root);
  copyFolder(source, folder.root);
  // Processes and ports belong to the machine that the copy was made on.
  for (const name of ['processes', 'run.json']) rmSync(`${folder.root}/${name}`, { recursive: true, force: true });
  context.output.result(
    { network: manifest.name, folder: folder.root },
    () => `The network ${manifest.name} is in ${folder.root}. Next: millrace up`,
  );
}

async function requireDown(context: CommandContext): Promise<void> {
  if ((await supervisorStatus(folderOf(context))) === undefined) return;
  throw new MillraceError('still-running', {
    actor: 'caller',
    message: `The network "${context.flags.network}" is running`,
    hint: 'Stop it first with `millrace down`.',
  });
}

function requireEmpty(path: string): void {
  if (!existsSync(path) || readdirSync(path).length === 0) return;
  throw new MillraceError('folder-not-empty', {
    actor: 'caller',
    message: `${path} exists and is not empty`,
    values: { path },
    hint: 'Choose another folder; nothing is overwritten.',
  });
}

/** `cp -Rp`, since modes must stay as they are: PostgreSQL refuses folders that others can open, and keys must stay private. */
function copyFolder(from: string, to: string): void {
  mkdirSync(to, { recursive: true, mode: 0o700 });
  const { status, stderr } = spawnSync('cp', ['-Rp', `${resolve(from)}/.`, resolve(to)], { encoding: 'utf8' });
  if (status === 0) return;
  throw new MillraceError('copy-failed', {
    actor: 'host',
    message: `Copying ${from} to ${to} failed: ${stderr.trim().split('\n').at(-1) ?? ''}`,
    values: { from, to },
    hint: 'Free some disk, delete what was copied, and try again.',
  });
}
