import { existsSync } from 'node:fs';
import { keystoreAddress } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import {
  hasReceiptCourt,
  MISSING_MODELS,
  openEngineSet,
  readReceiptBond,
  textProgram,
  uidsOfOperator,
  unlockReceiptBond,
} from '../inference/index.ts';
import { type NodeCommand, nodeSocket } from '../node/index.ts';
import { stakeOf } from '../token/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import type { ModelNodeKind } from './model-node.ts';
import { unbondedText } from './model-node-run.ts';
import { operatorOf, ownNode } from './operator.ts';
import { table, toJson } from './output.ts';
import { askRunning } from './running.ts';
import { openSender } from './sending.ts';
import { folderOf, openSession, stakeUnitOf } from './session.ts';

const U16 = 65_535;

/** What a node answers, as it comes over the socket: whole numbers of the chain are decimal strings. */
export interface ModelNodeAnswer {
  operatorId: string;
  draining: boolean;
  roles: Record<string, Record<string, unknown>>;
}

/** A miner or validator of one's own: what the running node says, and what the chain says of its operator. */
export async function modelNodeStatus(context: CommandContext, kind: ModelNodeKind): Promise<void> {
  const { client, folder, manifest } = await openSession(context);
  const operatorId = await operatorOf(client, folder, { kind });
  const key = keystoreAddress(ownNode(folder, kind).keystore);
  const [running, stake, uids, bond, waiting, operator] = await Promise.all([
    tellModelNode(context, kind, 'status').catch(orNotRunning),
    stakeOf(client, { operatorId }),
    uidsOfOperator(client, operatorId),
    kind === 'miner' && hasReceiptCourt(client) ? readReceiptBond(client, { operatorId, key }) : undefined,
    client.read('subnetEpochs', 'earningsOf', [operatorId]),
    client.read('operators', 'operator', [operatorId]),
  ]);
  const unit = stakeUnitOf(manifest);
  const value = {
    operatorId,
    running: running !== undefined,
    draining: running?.draining ?? false,
    endpoint: operator.endpoint,
    nodeKey: key,
    stake: stake.own.active,
    backed: stake.backers.active,
    locked: stake.locked,
    bond: bond ?? null,
    uids,
    rewardsWaiting: waiting,
    roles: running?.roles ?? {},
    unit,
  };
  context.output.result(value, () =>
    [
      `Operator ${operatorId} ${running === undefined ? `does not run here (millrace ${kind} run)` : running.draining ? `runs and takes no new work (millrace ${kind} resume)` : 'runs'}${operator.endpoint === '' ? '' : `, reached at ${operator.endpoint}`}.`,
      `Stake ${formatAmount(value.stake, TOKEN_DECIMALS)} ${unit}, backed with ${formatAmount(value.backed, TOKEN_DECIMALS)}, locked ${formatAmount(value.locked, TOKEN_DECIMALS)}.`,
      ...(bond === undefined || bond.isBonded ? [] : [unbondedText(bond)]),
      uids.length === 0 ? `No uid: millrace ${kind} init --subnet NUMBER` : uidTable(uids),
      `Rewards that wait: ${formatAmount(waiting.miner, TOKEN_DECIMALS)} as a miner, ${formatAmount(waiting.validator, TOKEN_DECIMALS)} as a validator (inference token; millrace subnet income).`,
      ...Object.entries(value.roles).flatMap(([role, numbers]) => [
        '',
        `As ${role}:`,
        ...Object.entries(numbers).map((one) => factText(one, unit)),
      ]),
    ].join('\n'),
  );
}

/** What a role says of itself: lists as tables, money in tokens. */
function factText([name, value]: [name: string, value: unknown], unit: string): string {
  if (name === 'earned') return `${name}  ${formatAmount(BigInt(String(value)), TOKEN_DECIMALS)} ${unit}`;
  if (!isRows(value)) return `${name}  ${typeof value === 'object' ? toJson(value) : value}`;
  const columns = Object.keys(value[0] ?? {});
  return `${name}\n${table(
    columns,
    value.map((row) => columns.map((column) => String(row[column] ?? ''))),
  )}`;
}

function isRows(value: unknown): value is Record<string, unknown>[] {
  return Array.isArray(value) && value.length > 0 && value.every((row) => typeof row === 'object' && row !== null);
}

function uidTable(uids: Awaited<ReturnType<typeof uidsOfOperator>>): string {
  const rows = uids.map(({ subnetId, kind, uid, hasPermit, incentive, dividends }) => [
    String(subnetId),
    kind,
    String(uid),
    hasPermit ? 'yes' : 'no',
    (incentive / U16).toFixed(4),
    (dividends / U16).toFixed(4),
  ]);
  return table(['subnet', 'task', 'uid', 'permit', 'incentive', 'dividends'], rows);
}

/** The running node takes no new work, also after a restart, or takes it again. */
export async function modelNodeTell(context: CommandContext, kind: ModelNodeKind, command: 'drain' | 'resume'): Promise<void> {
  const { operatorId, draining, roles } = await tellModelNode(context, kind, command);
  context.output.result({ operatorId, draining, roles }, () =>
    draining
      ? `Operator ${operatorId} takes no new work; what it took on goes on to its end. Again: millrace ${kind} resume`
      : `Operator ${operatorId} takes work again.`,
  );
}

/** The bond of a miner that left, whose delay is over, is free stake again. */
export async function minerUnlock(context: CommandContext): Promise<void> {
  const { client, sender, folder } = await openSender(context);
  try {
    const operatorId = await operatorOf(client, folder, { kind: 'miner' });
    await unlockReceiptBond({ sender, operatorId });
    const { own, locked } = await stakeOf(client, { operatorId });
    const free = own.active > locked ? own.active - locked : 0n;
    context.output.result(
      { operatorId, free },
      () => `The bond of operator ${operatorId} is free; ${formatAmount(free, TOKEN_DECIMALS)} can be taken out (millrace miner unstake).`,
    );
  } finally {
    sender.close();
  }
}

/** Models that a miner can embed, with what each of them cannot do. */
export async function minerModels(context: CommandContext): Promise<void> {
  const items = embeddedCards();
  context.output.result({ items, missing: MISSING_MODELS, next: null }, () => modelsText());
}

/** Every embedded model in words: what it is for, its licence, and what it cannot do; and what none of them does, and why. */
export function modelsText(): string {
  const embedded = embeddedCards().map(({ id, task, licence, limits }) =>
    [`${id} (${task}; ${licence})`, ...limits.map((limit) => `  - ${limit}`)].join('\n'),
  );
  const missing = MISSING_MODELS.map(({ task, path, why }) =>
    [`No embedded model for ${task} (${path}): miner run --backend URL --backend-model ${task}:NAME`, `  - ${why}`].join('\n'),
  );
  return [...embedded, ...missing].join('\n');
}

function embeddedCards(): ReturnType<ReturnType<typeof openEngineSet>['cards']> {
  return openEngineSet({ dataFolder: '.', programs: [textProgram()] }).cards();
}

/** For a node that may be away: undefined where none runs here. */
export function orNotRunning(error: unknown): undefined {
  if (error instanceof MillraceError && error.code === 'node-not-running') return undefined;
  throw error;
}

/** Tells the own running node something, over its control socket. @throws node-not-running */
export async function tellModelNode(context: CommandContext, kind: ModelNodeKind, command: NodeCommand): Promise<ModelNodeAnswer> {
  const own = ownNode(folderOf(context), kind);
  const notRunning = (cause: MillraceError) =>
    new MillraceError('node-not-running', {
      actor: 'caller',
      message: `No ${kind} of your own runs on this machine`,
      values: { folder: own.folder },
      hint: existsSync(own.keystore) ? `Start it with \`millrace ${kind} run\`.` : `Make one with \`millrace ${kind} init\`.`,
      cause,
    });
  return (await askRunning(nodeSocket(own.folder), command, { notRunning })) as ModelNodeAnswer;
}
