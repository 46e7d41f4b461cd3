import { MillraceError } from '../errors.ts';
import { askControl, type NodeCommand, nodeSocket } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { ownNode } from './operator.ts';
import { toJson } from './output.ts';
import { wholeNumber } from './put.ts';
import { folderOf } from './session.ts';

/** Which node of this machine is told: the n-th of `millrace up`, else the one of `millrace provider run`. */
export interface NodeChoice {
  node?: string;
}

/** What a node answers, as it comes over the socket: whole numbers of the chain are decimal strings. */
interface Answer {
  operatorId: string;
  draining: boolean;
  roles: Record<string, { deals?: Record<string, number>; dealsLeft?: string[] } & Record<string, unknown>>;
}

/** Each deal that is left costs a seed, a proof and a transaction. */
const LEAVE_TIMEOUT_MS = 1_800_000;
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

/** The running node takes no new deals and leaves those that run at once, for the leaving fee; challenged ones stay. */
export async function providerLeave(context: CommandContext, options: NodeChoice): Promise<void> {
  const answer = await tell(context, options, 'leave');
  const left = Object.values(answer.roles).flatMap((role) => role.dealsLeft ?? []);
  // The node's own records follow when it has taken the deals out of its table.
  const stay = running(answer) - left.length;
  context.output.result({ ...shown(answer), dealsLeft: left, running: stay }, () =>
    [
      `Operator ${answer.operatorId} left ${left.length} deals${left.length === 0 ? '' : ` (${left.join(', ')})`}, ${stay} stay.`,
      stay === 0
        ? 'Keep the node running for a period more: it takes the deals out of its table, which frees their collateral (millrace provider show). Then: millrace provider unstake AMOUNT, and after the delay millrace provider withdraw'
        : 'Deals under way or challenged cannot be left now: run millrace provider leave again later.',
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
  try {
    return (await askControl(nodeSocket(node), command, { timeoutMs: command === 'leave' ? LEAVE_TIMEOUT_MS : undefined })) as Answer;
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'not-running') throw error;
    throw new MillraceError('node-not-running', {
      actor: 'caller',
      message:
        options.node === undefined ? 'No provider of your own runs on this machine' : `Node ${options.node} does not run on this machine`,
      values: { folder: node },
      hint:
        options.node === undefined
          ? 'Start it with `millrace provider run`; for a node of `millrace up` add --node NUMBER.'
          : 'See `millrace status`.',
      cause: error,
    });
  }
}

function shown(answer: Answer): Record<string, unknown> {
  return { operatorId: answer.operatorId, draining: answer.draining, running: running(answer), roles: answer.roles };
}

/** Deals that are not over. */
function running(answer: Answer): number {
  const counts = Object.values(answer.roles).map(({ deals = {} }) => UNDER_WAY.reduce((sum, status) => sum + (deals[status] ?? 0), 0));
  return counts.reduce((sum, count) => sum + count, 0);
}

function runningText(answer: Answer): string {
  const count = running(answer);
  return `${count} ${count === 1 ? 'deal runs' : 'deals run'}.`;
}
