import { existsSync } from 'node:fs';
import { openKeystore } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import {
  COMPUTE_DEFAULTS,
  type ComputeSettings,
  type NetworkFolder,
  nodeSocket,
  type RunningNode,
  relayedBy,
  startNode,
} from '../node/index.ts';
import { railsBalance, withdrawEarnings } from '../token/index.ts';
import { formatAmount } from '../units.ts';
import type { CommandContext } from './context.ts';
import { noNodeKey, ownNode } from './operator.ts';
import { toJson } from './output.ts';
import { askRunning, givenSettings, listenAddress, untilStopped } from './running.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';
import { folderOf, openSession, type Session, settingSources } from './session.ts';

/** Flags of a compute node of one's own; each may also be a setting in the environment or in `config.json`. */
export interface ComputeNodeOptions {
  listen?: string;
  relay?: string;
  cpus?: string;
  memory?: string;
  disk?: string;
  priceCpu?: string;
  priceMemory?: string;
}

/** The settings of a node by the short names that its flags have. */
const FLAGS = {
  cpus: 'computeCpus',
  memory: 'computeMemory',
  disk: 'computeDisk',
  priceCpu: 'jobPriceCpu',
  priceMemory: 'jobPriceMemory',
} as const satisfies Partial<Record<keyof ComputeNodeOptions, keyof typeof COMPUTE_DEFAULTS>>;
const COMPUTE_LISTEN = '127.0.0.1:9500';

/** Runs the own compute node in the foreground until Ctrl-C or SIGTERM. */
export async function computeRun(context: CommandContext, options: ComputeNodeOptions): Promise<void> {
  const session = await openSession(context);
  const node = await startComputeNode(context, session, options);
  context.output.result(
    { ready: true, operatorId: node.operatorId, host: node.host, port: node.port },
    () => `Operator ${node.operatorId} computes on ${node.host}:${node.port}. Press Ctrl-C to stop.`,
  );
  await untilStopped(context);
  await node.stop();
}

/** Starts the own compute node in this process. @throws no-node-key, and what the node's roles throw */
export async function startComputeNode(context: CommandContext, session: Session, options: ComputeNodeOptions): Promise<RunningNode> {
  const sources = { ...settingSources(context), flags: { computeListen: options.listen, relay: options.relay } };
  const { host, port } = listenAddress(readSetting('computeListen', sources)?.value ?? COMPUTE_LISTEN);
  const own = ownNode(session.folder, 'compute');
  if (!existsSync(own.keystore)) throw noNodeKey(own.folder, 'compute');
  return await startNode({
    folder: own.folder,
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer: await openKeystore({ path: own.keystore, password: await askPassword('Password of the node key: ') }),
    roles: ['compute'],
    compute: computeSettingsOf(context, options),
    dataFolder: session.folder.root,
    relayedBy: relayedBy(readSetting('relay', sources)?.value ?? 'none'),
    host,
    port,
    quotaBytes: 0n,
    controlSocket: nodeSocket(own.folder),
    log: createLogger({ role: 'compute', level: context.flags.logLevel }),
  });
}

/** What is set for the own compute node, by flags, environment and `config.json`. */
export function computeSettingsOf(context: CommandContext, options: ComputeNodeOptions): ComputeSettings {
  const flags = Object.fromEntries(Object.entries(FLAGS).map(([short, name]) => [name, options[short as keyof ComputeNodeOptions]]));
  return givenSettings(Object.keys(COMPUTE_DEFAULTS), { ...settingSources(context), flags });
}

/** Asks the running node, or tells it to take no new work or to take work again. @throws compute-node-not-running */
export async function computeTell(context: CommandContext, command: 'status' | 'drain' | 'resume' | 'leave'): Promise<void> {
  const answer = await tellComputeNode(folderOf(context), command);
  context.output.result(answer, () =>
    [
      `Operator ${answer.operatorId} computes here${answer.draining ? ' and takes no new work (millrace compute resume)' : ''}.`,
      ...Object.entries(answer.roles).flatMap(([role, parts]) =>
        Object.entries(parts).map(([part, numbers]) => `${role}.${part}  ${toJson(numbers)}`),
      ),
    ].join('\n'),
  );
}

/** What jobs and leases have brought to the wallet at the rails, in each token; `withdraw` takes it. */
export async function computeEarnings(context: CommandContext, options: { withdraw: boolean }): Promise<void> {
  const { client, sender, manifest } = await openSender(context);
  try {
    const tokens = ['stable', 'compute'] as const;
    const rows: { token: string; amount: bigint; decimals: number; unit: string }[] = [];
    for (const token of tokens) {
      const { symbol: unit = token, decimals = 18 } = manifest.tokens[token] ?? {};
      const amount = options.withdraw
        ? await withdrawEarnings(client, { sender, token })
        : await railsBalance(client, { token, account: sender.address });
      rows.push({ token, amount, decimals, unit });
    }
    const text = rows.map(({ amount, decimals, unit }) => `${formatAmount(amount, decimals)} ${unit}`).join(', ');
    context.output.result({ address: sender.address, withdrawn: options.withdraw, items: rows, next: null }, () =>
      options.withdraw ? `Withdrawn: ${text}.` : `At the rails: ${text}. To take it: millrace compute earnings --withdraw`,
    );
  } finally {
    sender.close();
  }
}

/** What a compute node answers; whole numbers of the chain are decimal strings. */
export interface ComputeAnswer {
  operatorId: string;
  draining: boolean;
  roles: Record<string, Record<string, Record<string, unknown>>>;
}

const TELL_TIMEOUT_MS = 600_000;

/** Tells the own compute node something over its socket. @throws compute-node-not-running */
export async function tellComputeNode(folder: NetworkFolder, command: 'status' | 'drain' | 'resume' | 'leave'): Promise<ComputeAnswer> {
  const own = ownNode(folder, 'compute');
  return (await askRunning(nodeSocket(own.folder), command, {
    timeoutMs: TELL_TIMEOUT_MS,
    notRunning: (cause) =>
      new MillraceError('compute-node-not-running', {
        actor: 'caller',
        message: 'No compute node of this network runs on this machine',
        values: { folder: own.folder },
        hint: 'Join with `millrace join network.json --compute`, start it with `millrace compute run`; a node that `up` started is seen by `millrace node status OPERATOR`.',
        cause,
      }),
  })) as ComputeAnswer;
}
