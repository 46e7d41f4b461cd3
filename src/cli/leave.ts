import { join } from 'node:path';
import { systemClock } from '../clock.ts';
import { adoptProcess } from '../host/index.ts';
import { requestExit, stakeOf } from '../token/index.ts';
import { formatAmount, lesser, TOKEN_DECIMALS } from '../units.ts';
import { type ComputeAnswer, tellComputeNode } from './compute-node.ts';
import type { CommandContext } from './context.ts';
import { COMPUTE_PROCESS } from './join-compute.ts';
import { operatorOf } from './operator.ts';
import { openSender } from './sending.ts';
import { folderOf } from './session.ts';

/** Options of `millrace leave`. */
export interface LeaveOptions {
  keepStake: boolean;
}

const LOOK_AGAIN_MS = 2_000;
/** Numbers by which a part of a node says that something still runs. */
const UNFINISHED = /^(?:waiting|running|open|agreed|done|committed|active|leases|reservations)$/;

/**
 * Takes this machine out of the computing: no new work at once; waits until what runs has ended and is settled; stops the node; asks for the free
 * stake, which is paid after the delay. Can be interrupted and repeated.
 */
export async function leave(context: CommandContext, options: LeaveOptions): Promise<void> {
  const folder = folderOf(context);
  const isHere = await endWork(context, folder);
  const running = adoptProcess({ name: COMPUTE_PROCESS, recordFolder: join(folder.root, 'processes') });
  await running?.stop();
  const { client, sender } = await openSender(context);
  try {
    const operatorId = await operatorOf(client, folder, { kind: 'compute' });
    const { slashable, locked, own } = await stakeOf(client, { operatorId });
    const amount = lesser(own.active, slashable > locked ? slashable - locked : 0n);
    const ticket = options.keepStake || amount === 0n ? undefined : await requestExit({ sender, operatorId, amount });
    const after = await stakeOf(client, { operatorId });
    const left = after.own.active;
    context.output.result(
      { operatorId, stopped: running !== undefined, unstaked: ticket?.amount ?? 0n, withdrawableFrom: ticket?.withdrawableFrom, left },
      () =>
        [
          `Operator ${operatorId} computes no more here.`,
          ...(isHere && running === undefined
            ? ['Its process was not started in the background: end it with Ctrl-C, or docker stop.']
            : []),
          ...(ticket === undefined
            ? []
            : [
                `${formatAmount(ticket.amount, TOKEN_DECIMALS)} leaves its stake; from ${new Date(Number(ticket.withdrawableFrom) * 1000).toISOString().slice(0, 19)}Z: millrace compute withdraw`,
              ]),
          ...(left > 0n && !options.keepStake
            ? [`${formatAmount(left, TOKEN_DECIMALS)} stays: it still stands behind work. Repeat the command later.`]
            : []),
        ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

/** Until nothing runs any more; whether a node was there at all. */
async function endWork(context: CommandContext, folder: ReturnType<typeof folderOf>): Promise<boolean> {
  let shown = '';
  for (;;) {
    const answer = await tellComputeNode(folder, 'leave').catch((error) => {
      if ((error as { code?: string }).code === 'compute-node-not-running') return undefined;
      throw error;
    });
    const left = answer === undefined ? [] : unfinished(answer);
    if (left.length === 0) return answer !== undefined;
    const text = `Waiting for ${left.join(', ')}.`;
    if (text !== shown) context.output.note(text);
    shown = text;
    await systemClock.sleep(LOOK_AGAIN_MS, context.signal);
  }
}

/** What the parts of a node say that still runs, each with its number. */
function unfinished({ roles }: ComputeAnswer): string[] {
  const counts = (name: string, value: unknown): [string, number][] =>
    name === 'leases' && Array.isArray(value) && value.length > 0
      ? [[name, value.length]]
      : typeof value === 'object' && value !== null
        ? Object.entries(value).flatMap(([key, each]) => counts(key, each))
        : UNFINISHED.test(name) && Number(value) > 0
          ? [[name, Number(value)]]
          : [];
  return Object.values(roles)
    .flatMap((parts) => Object.entries(parts))
    .flatMap(([part, numbers]) => counts(part, numbers).map(([name, count]) => `${part}: ${count} ${name}`));
}
