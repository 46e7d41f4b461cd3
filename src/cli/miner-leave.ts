import { systemClock } from '../clock.ts';
import { leaveReceiptCourt } from '../inference/index.ts';
import { formatAmount, formatDuration, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { type ModelNodeAnswer, orNotRunning, tellModelNode } from './model-node-status.ts';
import { operatorOf } from './operator.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';

/** How often a node that leaves is asked again. */
const LOOK_AGAIN_MS = 2_000;

/**
 * A miner ends: takes no new work, leaves office at the court of receipts so that its bond comes free after a while, and claims what it earned. Waits
 * until requests are over, tabs are closed and all is claimed, and shows how far it is. Stopping it stops nothing: the node goes on, and the next call
 * goes on leaving.
 */
export async function minerLeave(context: CommandContext, { wait }: { wait: boolean }): Promise<void> {
  let answer = await tellModelNode(context, 'miner', 'leave').catch(orNotRunning);
  const isHere = answer !== undefined;
  const { client, sender, folder, manifest } = await openSender(context);
  const unit = stakeUnitOf(manifest);
  let operatorId: bigint;
  let unlocksAt: bigint | undefined;
  try {
    operatorId = await operatorOf(client, folder, { kind: 'miner' });
    unlocksAt = await leaveReceiptCourt(client, { sender, operatorId });
  } finally {
    sender.close();
  }
  for (let shown = ''; wait && answer !== undefined && isUnfinished(leavingOf(answer)); ) {
    const text = `Waiting: ${leavingText(leavingOf(answer), unit)}`;
    if (text !== shown) context.output.note(text);
    shown = text;
    await systemClock.sleep(LOOK_AGAIN_MS, context.signal);
    answer = await tellModelNode(context, 'miner', 'leave').catch(orNotRunning);
  }
  const waiting = answer === undefined ? undefined : leavingOf(answer);
  const seconds = unlocksAt === undefined ? 0 : Math.max(0, Number(unlocksAt - (await client.now())));
  const value = {
    operatorId,
    unlocksAt: unlocksAt ?? 0n,
    running: answer !== undefined,
    waiting: waiting ?? null,
    roles: answer?.roles ?? {},
  };
  context.output.result(value, () =>
    [
      `Operator ${operatorId} has left: gateways pass it over from now on, its uids stay until others take them.`,
      ...(waiting !== undefined && isUnfinished(waiting)
        ? [`Not over yet: ${leavingText(waiting, unit)}. Keep it running; millrace miner leave goes on.`]
        : waiting !== undefined
          ? ['All that it earned is claimed; it can be stopped.']
          : [
              `Its process ${isHere ? 'has ended' : 'does not run here'}: what it earned and has not claimed is claimed only while it runs (millrace miner run), before payers take it back.`,
            ]),
      unlocksAt === undefined
        ? 'It has no bond at the court of receipts. Next: millrace miner unstake AMOUNT.'
        : `${seconds === 0 ? 'Now' : `In ${formatDuration(seconds)}`}: millrace miner unlock, then millrace miner unstake AMOUNT.`,
    ].join('\n'),
  );
}

/** What keeps a miner that leaves from being done. Money in base units. */
interface MinerLeaving {
  requests: number;
  tabs: number;
  claimable: bigint;
  /** Why the last claim failed. */
  problem?: string;
}

function leavingOf({ roles }: ModelNodeAnswer): MinerLeaving {
  const {
    models = [],
    openTabs = 0,
    claimable = '0',
    problem,
  } = (roles.miner ?? {}) as {
    models?: { running: number; waiting: number }[];
    openTabs?: number;
    claimable?: string;
    problem?: string;
  };
  const requests = models.reduce((sum, model) => sum + model.running + model.waiting, 0);
  return { requests, tabs: openTabs, claimable: BigInt(claimable), ...(problem === undefined ? {} : { problem }) };
}

function isUnfinished({ requests, tabs, claimable }: MinerLeaving): boolean {
  return requests > 0 || tabs > 0 || claimable > 0n;
}

function leavingText({ requests, tabs, claimable, problem }: MinerLeaving, unit: string): string {
  return [
    ...(requests > 0 ? [`requests under way: ${requests}`] : []),
    ...(tabs > 0 ? [`tabs that close when nobody used them for a minute: ${tabs}`] : []),
    ...(claimable > 0n
      ? [`${formatAmount(claimable, TOKEN_DECIMALS)} ${unit} are being claimed${problem === undefined ? '' : ` (${problem})`}`]
      : []),
  ].join('; ');
}
