import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startRenterAgent } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { startProcess } from '../host/index.ts';
import { type FolderLock, lockFolder } from '../lock.ts';
import { createLogger } from '../log.ts';
import type { CommandContext } from './context.ts';
import { untilStopped } from './running.ts';
import { openWallet } from './secrets.ts';
import { withSender } from './sending.ts';
import { openSession, type Session } from './session.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

/** Speaks for the wallet's rentals until none is left, or Ctrl-C. */
export async function rentAgent(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const lock = lockAgent(session);
  try {
    const signer = await openWallet(context, session);
    const log = createLogger({ role: 'rent-agent', level: context.flags.logLevel, file: join(session.folder.logs, 'rent-agent.log') });
    const agent = await startRenterAgent({
      client: session.client,
      signer,
      folder: agentFolder(session),
      log,
      // The wallet is for commands too: it is held only while something is sent.
      withSender: (work) => withSender(context, session, signer, work),
    });
    context.output.note(`Speaking for the rentals of ${signer.address}. Press Ctrl-C to stop.`);
    await Promise.race([agent.idle, untilStopped(context)]);
    const left = agent.followed();
    await agent.stop();
    context.output.result({ followed: left }, () => (left.length === 0 ? 'No rental is left.' : `Stopped; ${left.length} rentals go on.`));
  } finally {
    lock.release();
  }
}

/** Sees that an agent runs for this wallet, and starts one in the background where none does. A wallet with a typed password cannot have one. */
export async function ensureRentAgent(context: CommandContext, session: Session): Promise<{ isRunning: boolean }> {
  try {
    lockAgent(session).release();
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'rent-agent-runs') return { isRunning: true };
    throw error;
  }
  if (existsSync(session.folder.wallet) && !process.env.MILLRACE_PASSWORD_FILE) return { isRunning: false };
  const { data, network, rpcUrl, logLevel } = context.flags;
  const flags = [
    ...(data === undefined ? [] : ['--data', data]),
    '--network',
    network,
    '--log-level',
    logLevel,
    ...(rpcUrl === undefined ? [] : ['--rpc-url', rpcUrl]),
  ];
  // On record among the processes of the network on this machine, so that what stops them finds it.
  const started = startProcess({
    name: 'rent-agent',
    command: process.execPath,
    args: [...process.execArgv, MAIN, ...flags, 'rent-agent'],
    env: process.env,
    logFile: join(session.folder.logs, 'rent-agent.out'),
    recordFolder: join(session.folder.root, 'processes'),
  });
  return {
    isRunning: await started.then(
      () => true,
      () => false,
    ),
  };
}

function agentFolder({ folder }: Session): string {
  return join(folder.client, 'rent-agent');
}

function lockAgent(session: Session): FolderLock {
  try {
    return lockFolder(agentFolder(session));
  } catch (cause) {
    if (!(cause instanceof MillraceError) || cause.code !== 'folder-busy') throw cause;
    throw new MillraceError('rent-agent-runs', {
      actor: 'caller',
      message: 'An agent speaks for this wallet’s rentals already',
      values: { holderPid: cause.values.holderPid },
      hint: 'See `millrace rentals`.',
      cause,
    });
  }
}
