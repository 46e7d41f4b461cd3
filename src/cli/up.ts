import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { dataFolder, readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { adoptProcess, startProcess } from '../host/index.ts';
import {
  askControl,
  NETWORK_PROCESS,
  type NetworkFolder,
  type NetworkProcessOptions,
  type RunState,
  readRunState,
  type SupervisorStatus,
} from '../node/index.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { askSettings } from './provider.ts';
import { folderOf, rememberChain, settingSources } from './session.ts';

/** Options of `millrace up`. */
export interface UpOptions {
  nodes?: string;
  with?: string;
  profile?: string;
  rpcPort?: string;
  nodePort?: string;
  beacon?: string;
  detach: boolean;
}

const POLL_MS = 100;
const READY_TIMEOUT_MS = 180_000;
const QUOTA_BYTES = 10n << 30n;

/** What a network is started with where nobody has said anything, and it never ran. */
const FIRST = { nodes: 3, roles: ['storage'], rpcPort: 8545, nodePort: 9000 };

/** Starts the network as it ran last, or finds it running; says what runs where and what to try. Without --detach it stays until Ctrl-C, then stops everything. */
export async function up(context: CommandContext, options: UpOptions): Promise<void> {
  const folder = folderOf(context);
  const startedAt = performance.now();
  const last = readRunState(folder);
  const asked = askedOf(context, options, last);
  const before = await settledStatus(folder, context.signal);
  if (before === undefined) {
    noteFewer(context, asked.nodes, last);
    await startSupervisor(folder, asked);
  } else refuseOther(options, asked, last);
  await untilReady(context, folder);
  const { value: rpcUrl } = readSetting('rpcUrl', settingSources(context)) ?? {};
  if (rpcUrl !== undefined && readRunState(folder)?.rpcUrl === rpcUrl) rememberChain(folder, rpcUrl);
  const status = (await supervisorStatus(folder)) as SupervisorStatus;
  await printRunning(context, folder, status, { already: before?.phase === 'ready', seconds: (performance.now() - startedAt) / 1000 });
  if (options.detach || before?.phase === 'ready') return;
  context.output.note('Press Ctrl-C to stop everything.');
  await untilStopped(context, folder);
}

/** The supervisor's status once it is neither stopping nor staying for a moment after a failure, which is not this start's. */
async function settledStatus(folder: NetworkFolder, signal: AbortSignal): Promise<SupervisorStatus | undefined> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const status = await supervisorStatus(folder);
    const isGoing = status?.phase === 'failed' || status?.phase === 'stopping';
    if (!isGoing || performance.now() > deadline) return status;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The supervisor's status, or undefined when none answers for this folder. */
export async function supervisorStatus(folder: NetworkFolder): Promise<SupervisorStatus | undefined> {
  try {
    return (await askControl(folder.controlSocket, 'status', { timeoutMs: 5000 })) as SupervisorStatus;
  } catch (error) {
    if (error instanceof MillraceError && (error.code === 'not-running' || error.code === 'supervisor-silent')) return undefined;
    throw error;
  }
}

/** What ran is not changed by asking for something else: a network is stopped first. @throws running-otherwise */
function refuseOther(options: UpOptions, asked: NetworkProcessOptions, running: RunState | undefined): void {
  if (running === undefined || running.nodes.length === 0) return;
  const is = { nodes: String(running.nodes.length), with: rolesOf(running).sort().join(',') };
  const wanted = { nodes: String(asked.nodes), with: [...asked.roles].sort().join(',') };
  for (const flag of ['nodes', 'with'] as const) {
    if (options[flag] === undefined || is[flag] === wanted[flag]) continue;
    throw new MillraceError('running-otherwise', {
      actor: 'caller',
      message: `The network runs already, with --${flag} ${is[flag]}, not ${wanted[flag]}`,
      values: { flag, running: is[flag], asked: wanted[flag] },
      hint: `millrace down, then millrace up --${flag} ${wanted[flag]}. Nothing is lost.`,
    });
  }
}

function noteFewer({ output }: CommandContext, nodes: number, last: RunState | undefined): void {
  if (last === undefined || last.nodes.length <= nodes) return;
  output.note(
    `${last.nodes.length - nodes} of the ${last.nodes.length} nodes that ran stay stopped: what they store and serve is not there.`,
  );
}

/** A network keeps the profile that it was made with. @throws profile-fixed */
function profileOf({ profile }: UpOptions, last: RunState | undefined): string {
  if (profile === undefined || last === undefined || profile === last.profile) return profile ?? last?.profile ?? 'dev';
  throw new MillraceError('profile-fixed', {
    actor: 'caller',
    message: `This network was made with profile ${last.profile}, not ${profile}`,
    values: { profile: last.profile, asked: profile },
    hint: `Make another one: millrace --network NAME up --profile ${profile}.`,
  });
}

/** Roles in the words of `--with`. */
function rolesOf({ with: said, nodes }: RunState): string[] {
  if (said !== undefined) return [...said];
  const roles = new Set(nodes.flatMap((node) => node.roles));
  return ['storage', ...(roles.has('miner') ? ['inference'] : []), ...(roles.has('compute') ? ['compute'] : [])];
}

/** How the network ran last, else how a first one is started. */
function defaultsOf(last: RunState | undefined): typeof FIRST {
  if (last === undefined || last.nodes.length === 0) return FIRST;
  const portOf = (url: string | undefined, fallback: number) => (url === undefined ? fallback : Number(new URL(url).port) || fallback);
  return {
    nodes: last.nodes.length,
    roles: rolesOf(last),
    rpcPort: last.chainControlSocket === undefined ? FIRST.rpcPort : portOf(last.rpcUrl, FIRST.rpcPort),
    nodePort: portOf(last.nodes[0]?.endpoint, FIRST.nodePort),
  };
}

/** What the supervisor is told; checked before anything is looked at, so that a wrong option is never passed over. */
function askedOf(context: CommandContext, options: UpOptions, last: RunState | undefined): NetworkProcessOptions {
  const sources = settingSources(context);
  const usual = defaultsOf(last);
  return {
    dataFolder: dataFolder(context.flags.data),
    name: context.flags.network,
    profile: profileOf(options, last),
    nodes: wholeNumber('--nodes', options.nodes ?? String(usual.nodes), 1, 30),
    roles: options.with === undefined ? usual.roles : options.with.split(',').map((role) => role.trim()),
    rpcPort: wholeNumber('--rpc-port', options.rpcPort ?? String(usual.rpcPort), 0, 65_535),
    nodePort: wholeNumber('--node-port', options.nodePort ?? String(usual.nodePort), 0, 65_535),
    rpcUrl: readSetting('rpcUrl', sources)?.value,
    databaseUrl: readSetting('databaseUrl', sources)?.value ?? process.env.DATABASE_URL,
    quotaBytes: QUOTA_BYTES.toString(),
    ask: askSettings(sources),
    beacon: options.beacon === undefined ? undefined : parseAddress('--beacon', options.beacon),
  };
}

async function startSupervisor(folder: NetworkFolder, given: NetworkProcessOptions): Promise<void> {
  mkdirSync(folder.logs, { recursive: true, mode: 0o700 });
  // Another `up` may be about to listen on the socket too: the folder's lock decides, and the loser finds the winner running.
  await startProcess({
    name: 'supervisor',
    command: process.execPath,
    args: [NETWORK_PROCESS, '-'],
    input: JSON.stringify(given),
    env: { ...process.env },
    logFile: join(folder.logs, 'supervisor.err'),
    recordFolder: join(folder.root, 'processes'),
    readyTimeoutMs: 20_000,
  }).catch(async (error) => {
    if ((await supervisorStatus(folder)) === undefined) throw error;
  });
}

async function untilReady(context: CommandContext, folder: NetworkFolder): Promise<void> {
  const progress = context.output.progress('Starting');
  const deadline = performance.now() + READY_TIMEOUT_MS;
  try {
    for (;;) {
      context.signal.throwIfAborted();
      const status = await supervisorStatus(folder);
      if (status?.phase === 'ready') return;
      const isGone =
        status === undefined && adoptProcess({ name: 'supervisor', recordFolder: join(folder.root, 'processes') }) === undefined;
      if (isGone || status?.phase === 'failed' || performance.now() > deadline) throw startFailure(folder, status);
      progress.update(0, undefined, status?.step ?? 'supervisor');
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    progress.end();
  }
}

function startFailure(folder: NetworkFolder, status: SupervisorStatus | undefined): MillraceError {
  if (status?.error !== undefined) {
    const { code, actor, message, values, hint } = status.error;
    return new MillraceError(code, { actor: actor as 'bug', message, values: values as Record<string, string>, hint });
  }
  return new MillraceError('network-start-failed', {
    actor: 'host',
    message: `The network did not become ready (last step: ${status?.step ?? 'none'})`,
    values: { step: status?.step },
    hint: `Read ${join(folder.logs, 'supervisor.log')} or run \`millrace logs supervisor\`.`,
  });
}

async function printRunning(
  context: CommandContext,
  folder: NetworkFolder,
  status: SupervisorStatus,
  how: { already: boolean; seconds: number },
): Promise<void> {
  const state = readRunState(folder);
  const hasBeacon = status.parts.some(({ name }) => name === 'beacon');
  const beacon = hasBeacon ? (await import('../inference/index.ts')).LOCAL_BEACON_LABEL : undefined;
  const value = {
    status: 'ready',
    alreadyRunning: how.already,
    network: context.flags.network,
    profile: state?.profile,
    rpcUrl: state?.rpcUrl,
    nodes: state?.nodes ?? [],
    processes: status.parts,
    beacon,
    dataFolder: folder.root,
    readyAfterSeconds: Number(how.seconds.toFixed(1)),
  };
  context.output.result(value, () => {
    const rows = status.parts.map((part) => {
      const node = state?.nodes.find(({ index }) => part.name === `node-${index}`);
      const where = part.name === 'chain' ? (state?.rpcUrl ?? '') : (node?.endpoint ?? '');
      return [part.name, part.state, String(part.pid ?? ''), where];
    });
    const head = how.already ? 'Already running.' : `Ready after ${how.seconds.toFixed(1)} s.`;
    const warning =
      state?.profile === 'dev' ? '\nProfile dev: public keys, short periods, one trusted operator. NOT SECURE: for trying only.\n' : '';
    const early = beacon === undefined ? '' : `Beacon of the subnets: ${beacon}.\n`;
    const ownNodes =
      state?.nodes.length === 0
        ? '\nNo node runs here: this network has keys of its own. Yours: millrace provider init, millrace provider run\n'
        : '';
    return `${head} Data in ${folder.root}\n\n${table(['part', 'state', 'pid', 'where'], rows)}\n${warning}${early}${ownNodes}
Try next:
${triesOf(state)}`;
  });
}

/** Commands for a newcomer, by what the nodes here do. */
function triesOf(state: ReturnType<typeof readRunState>): string {
  const roles = new Set(state?.nodes.flatMap((node) => node.roles));
  const tries = [
    ['storage', 'put README.md --copies 2', 'store a file at two providers'],
    ['compute', 'run examples/word-count.yaml', 'run a job that others check'],
    ['miner', 'ask "Call me"', 'ask a small model'],
    ['', 'status', 'what runs, balances, the next proof'],
    ['storage', 'demo', 'see a provider lose a piece and be slashed'],
    ['', 'down', 'stop everything; nothing is lost'],
  ] as const;
  return tries
    .filter(([role]) => role === '' || roles.has(role) || state?.nodes.length === 0)
    .map(([, command, what]) => `  millrace ${command.padEnd(28)} ${what}`)
    .join('\n');
}

async function untilStopped(context: CommandContext, folder: NetworkFolder): Promise<void> {
  while (!context.signal.aborted) {
    if ((await supervisorStatus(folder)) === undefined) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  context.output.note('Stopping …');
  await askControl(folder.controlSocket, 'stop', { timeoutMs: 120_000 });
}

function wholeNumber(flag: string, text: string, least: number, greatest: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= greatest) return value;
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${flag} ${text}, expected a whole number from ${least} to ${greatest}`,
    values: { flag, got: text },
  });
}
