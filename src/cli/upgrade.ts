import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MillraceError } from '../errors.ts';
import { adoptProcess, startProcess } from '../host/index.ts';
import type { CommandContext } from './context.ts';
import { COMPUTE_PROCESS } from './join-compute.ts';
import { folderOf } from './session.ts';

const GIT_TIMEOUT_MS = 120_000;
const INSTALL_TIMEOUT_MS = 1_800_000;
const READY_MS = 120_000;
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const run = promisify(execFile);

/**
 * Brings this clone forward to what its upstream has, installs the parts that it wants, and starts the node in the background again with its own
 * arguments. Refuses where files were changed here: nothing is merged, nothing is lost. Jobs that run are taken up again by the new process.
 * @throws upgrade-failed
 */
export async function upgrade(context: CommandContext, root: string = ROOT): Promise<void> {
  if (!existsSync(join(root, '.git'))) {
    throw upgradeFailed(`${root} is no git clone`, 'In a container: build the image again (docs/container.md). Else: git clone it.');
  }
  const git = async (...args: string[]) => (await act('git', ['-C', root, ...args], GIT_TIMEOUT_MS)).trim();
  const changed = await git('status', '--porcelain', '--untracked-files=no');
  if (changed !== '')
    throw upgradeFailed(
      `files were changed here: ${changed.split('\n').slice(0, 3).join(', ')}`,
      'Put the changes away (git stash), then repeat the command.',
    );
  const before = await git('rev-parse', 'HEAD');
  context.output.note('Fetching …');
  await git('fetch', '--quiet');
  await git('merge', '--ff-only', '--quiet', '@{upstream}');
  const after = await git('rev-parse', 'HEAD');
  if (before !== after) {
    context.output.note('Installing …');
    await act(join(root, 'millrace'), ['version'], INSTALL_TIMEOUT_MS);
  }
  const restarted = before === after ? undefined : await restart(context);
  context.output.result({ before, after, upgraded: before !== after, restarted: restarted !== undefined }, () =>
    before === after
      ? `This is the newest version (${after.slice(0, 12)}).`
      : `Upgraded from ${before.slice(0, 12)} to ${after.slice(0, 12)}.${restarted === undefined ? ' No node runs in the background here.' : ` The node runs again (process ${restarted}).`}`,
  );
}

/** Ends the node in the background and starts it with the arguments that it has; undefined when there is none. */
async function restart(context: CommandContext): Promise<number | undefined> {
  const folder = folderOf(context);
  const recordFolder = join(folder.root, 'processes');
  const running = adoptProcess({ name: COMPUTE_PROCESS, recordFolder });
  if (running === undefined) return undefined;
  const [command = process.execPath, ...args] = readFileSync(`/proc/${running.pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  await running.stop();
  const started = await startProcess({
    name: COMPUTE_PROCESS,
    command,
    args,
    env: { ...process.env },
    logFile: join(folder.logs, 'compute.log'),
    recordFolder,
    readyTimeoutMs: READY_MS,
  });
  return started.pid;
}

async function act(command: string, args: readonly string[], timeout: number): Promise<string> {
  try {
    return (await run(command, [...args], { timeout, maxBuffer: 16 << 20, env: { ...process.env, GIT_TERMINAL_PROMPT: '0' } })).stdout;
  } catch (cause) {
    const { stderr = '', message } = cause as { stderr?: string; message: string };
    const lines = (stderr.trim() || message).split('\n').filter((line) => line.trim() !== '');
    const told = lines.find((line) => /^(?:fatal|error):/.test(line)) ?? lines.at(-1) ?? message;
    throw upgradeFailed(told, 'Mend that, then repeat the command; what runs was not touched.', cause);
  }
}

function upgradeFailed(reason: string, hint: string, cause?: unknown): MillraceError {
  return new MillraceError('upgrade-failed', { actor: 'host', message: `Not upgraded: ${reason}`, values: { reason }, hint, cause });
}
