import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../errors.ts';
import { type NodeCommand, nodeSocket } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { ownNode } from './operator.ts';
import { toJson } from './output.ts';
import { wholeNumber } from './put.ts';
import { askRunning } from './running.ts';
import { folderOf } from './session.ts';

/** Which node of this machine is told: the n-th of `millrace up`, else the one of `millrace provider run`. */
export interface NodeChoice {
  node?: string;
}

/** What a node answers, as it comes over the socket: whole numbers of the chain are decimal strings. */
interface Answer {
  operatorId: string;
  draining: boolean;
  roles: Record<string, { deals?: Record<string, number> } & Partial<Leaving> & Record<string, unknown>>;
}

/** What a role says after `leave`. */
interface Leaving {
  dealsLeft: string[];
  handovers: { dealId: string; bidId: string; shard: number; state: 'offered' | 'claimed'; claimOperatorId: string }[];
  waiting: string[];
  staying: string[];
}

/** Each deal that is left costs a seed, a proof and a transaction. */
const LEAVE_TIMEOUT_MS = 1_800_000;
/** How often the node is asked again while shards wait for their next holders. */
const LOOK_AGAIN_MS = 3_000;
const UNDER_WAY = ['opening', 'receiving', 'checking', 'stored', 'acknowledged', 'active'];

/** The running node takes no new deals, also after a restart; those that run go on to their end, proven and paid. */
export async function providerDrain(context: CommandContext, options: NodeChoice): Promise<void> {
  const answer = await tell(context, options, 'drain');
  context.output.result(
    shown(answer),
    () => `Operator ${answer.operatorId} takes no new deals. ${runningText(answer)} Take deals again: millrace provider resume`,
  );
}

/** The running node takes deals again. */
export async function providerResume(context: CommandContext, options: NodeChoice): Promise<void> {
  const answer = await tell(context, options, 'resume');
  context.output.result(shown(answer), () => `Operator ${answer.operatorId} takes deals again. ${runningText(answer)}`);
}

/**
 * The running node takes no new deals and leaves those that run, for the leaving fee; challenged ones stay. Shards of files are served
 * until somebody else has proven them: the command waits for that unless it is told not to, and shows how far it is. Stopping it stops
 * nothing: the node goes on holding them, and the next call goes on leaving.
 */
export async function providerLeave(context: CommandContext, options: NodeChoice & { wait: boolean }): Promise<void> {
  const dealsLeft: string[] = [];
  let shownBefore = '';
  for (;;) {
    const answer = await tell(context, options, 'leave');
    const now = leavingOf(answer);
    dealsLeft.push(...now.dealsLeft);
    if (!options.wait || (now.handovers.length === 0 && now.waiting.length === 0)) return printLeft(context, answer, { ...now, dealsLeft });
    const text = handoverText(now);
    if (text !== shownBefore) context.output.note(text);
    shownBefore = text;
    await sleep(LOOK_AGAIN_MS);
  }
}

function leavingOf(answer: Answer): Leaving {
  const roles = Object.values(answer.roles);
  const all = <Key extends keyof Leaving>(key: Key) => roles.flatMap((role) => (role[key] ?? []) as Leaving[Key][number][]);
  return { dealsLeft: all('dealsLeft'), handovers: all('handovers'), waiting: all('waiting'), staying: all('staying') } as Leaving;
}

function handoverText({ handovers, waiting }: Leaving): string {
  const shards = handovers.map(({ bidId, shard, state, claimOperatorId }) => {
    return `shard ${shard} of file ${bidId} ${state === 'offered' ? 'is offered' : `goes to operator ${claimOperatorId}`}`;
  });
  const files = waiting.length === 0 ? [] : [`${waiting.length} deals wait until their files are whole`];
  return [...shards, ...files].join('; ');
}

function printLeft(context: CommandContext, answer: Answer, leaving: Leaving): void {
  const { dealsLeft, handovers, waiting, staying } = leaving;
  const stay = staying.length + waiting.length + running(answer) - activeOf(answer);
  context.output.result({ ...shown(answer), ...leaving, running: stay }, () =>
    [
      `Operator ${answer.operatorId} left ${dealsLeft.length} deals${dealsLeft.length === 0 ? '' : ` (${dealsLeft.join(', ')})`}, ${stay} stay.`,
      ...(handovers.length + waiting.length === 0
        ? []
        : [`${handoverText(leaving)}. Keep the node running: millrace provider leave goes on.`]),
      stay === 0
        ? 'Keep the node running for a period more: it takes the deals out of its table, which frees their collateral (millrace provider show). Then: millrace provider unstake AMOUNT, and after the delay millrace provider withdraw'
        : 'Deals that are under way, challenged or unproven, and shards that their file cannot do without, cannot be left now: run millrace provider leave again later.',
    ].join('\n'),
  );
}

/** What the running node says of itself. */
export async function providerStatus(context: CommandContext, options: NodeChoice): Promise<void> {
  const answer = await tell(context, options, 'status');
  context.output.result(shown(answer), () =>
    [
      `Operator ${answer.operatorId}${answer.draining ? ', takes no new deals (millrace provider resume)' : ''}`,
      ...Object.entries(answer.roles).flatMap(([role, numbers]) =>
        Object.entries(numbers).map(([name, value]) => `${role}.${name}  ${typeof value === 'object' ? toJson(value) : value}`),
      ),
    ].join('\n'),
  );
}

async function tell(context: CommandContext, options: NodeChoice, command: NodeCommand): Promise<Answer> {
  const folder = folderOf(context);
  const node = options.node === undefined ? ownNode(folder).folder : folder.node(wholeNumber('--node', options.node));
  const timeoutMs = command === 'leave' ? LEAVE_TIMEOUT_MS : undefined;
  const notRunning = (cause: MillraceError) =>
    new MillraceError('node-not-running', {
      actor: 'caller',
      message:
        options.node === undefined ? 'No provider of your own runs on this machine' : `Node ${options.node} does not run on this machine`,
      values: { folder: node },
      hint:
        options.node === undefined
          ? 'Start it with `millrace provider run`; for a node of `millrace up` add --node NUMBER.'
          : 'See `millrace status`.',
      cause,
    });
  return (await askRunning(nodeSocket(node), command, { timeoutMs, notRunning })) as Answer;
}

function shown(answer: Answer): Record<string, unknown> {
  return { operatorId: answer.operatorId, draining: answer.draining, running: running(answer), roles: answer.roles };
}

/** Deals that are not over. */
function running(answer: Answer): number {
  const counts = Object.values(answer.roles).map(({ deals = {} }) => UNDER_WAY.reduce((sum, status) => sum + (deals[status] ?? 0), 0));
  return counts.reduce((sum, count) => sum + count, 0);
}

function activeOf(answer: Answer): number {
  return Object.values(answer.roles).reduce((sum, { deals = {} }) => sum + (deals.active ?? 0), 0);
}

function runningText(answer: Answer): string {
  const count = running(answer);
  return `${count} ${count === 1 ? 'deal runs' : 'deals run'}.`;
}
