import { dataFolder } from '../config.ts';
import { type HostFact, inspectHost } from '../host/index.ts';
import { askControl, type NodeAnswer, nodeSocket } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { ownNode } from './operator.ts';
import { folderOf } from './session.ts';

/** What this machine has and lacks, each with what it is needed for and how to mend it. */
export async function doctor(context: CommandContext): Promise<void> {
  const facts = [...(await inspectHost(dataFolder(context.flags.data))), ...(await reachFact(context))];
  const mark = { good: 'ok', limited: 'limited', missing: 'MISSING' };
  context.output.result({ items: facts, next: null }, () =>
    facts
      .map(
        (fact) =>
          `${mark[fact.state].padEnd(8)} ${fact.name}: ${fact.value}  (${fact.need})${fact.fix === undefined ? '' : `\n         ${fact.fix}`}`,
      )
      .join('\n'),
  );
}

/** Whether others reach the provider that runs here by hand, and through whom; nothing when none runs, or it leaves that to its operator. */
async function reachFact(context: CommandContext): Promise<HostFact[]> {
  const socket = nodeSocket(ownNode(folderOf(context)).folder);
  const answer = (await askControl(socket, 'status').catch(() => undefined)) as NodeAnswer | undefined;
  const reach = answer?.roles.reach as { via: string; tunnels: { relay: string; isPublished: boolean }[] } | undefined;
  if (reach === undefined) return [];
  const need = 'clients reach the provider';
  if (reach.via === 'direct') return [{ name: 'reached from outside', value: 'directly', state: 'good', need }];
  const relay = reach.tunnels.find(({ isPublished }) => isPublished)?.relay;
  if (relay === undefined) {
    const fix = 'No relay takes this node now: see `millrace provider status`, or open a port and run `millrace provider endpoint`.';
    return [{ name: 'reached from outside', value: 'no', state: 'missing', need, fix }];
  }
  const value = `through the relay of operator ${relay}, ${reach.tunnels.length} tunnels`;
  if (reach.tunnels.length > 1) return [{ name: 'reached from outside', value, state: 'good', need }];
  return [{ name: 'reached from outside', value, state: 'limited', need, fix: 'There is no second relay to move to when this one fails.' }];
}
