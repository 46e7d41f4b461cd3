import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type ControlServer, startControlServer } from './control.ts';
import type { Role } from './role.ts';

/** What a running node is told over its control socket. */
export type NodeCommand = 'status' | 'drain' | 'resume' | 'leave';

/** What a node answers: whether it takes new work, each role's own numbers, and after `leave` what each role left. */
export interface NodeAnswer {
  operatorId: bigint;
  draining: boolean;
  roles: Record<string, Record<string, unknown>>;
}

/** Whether the node in this folder was told to take no new work; it stays so over restarts. */
export function isDraining(folder: string): boolean {
  return existsSync(join(folder, 'draining'));
}

/** Lets whoever may open the socket tell a running node to take no new work, to take work again, or to leave what it took on. */
export function startNodeControl(options: {
  path: string;
  folder: string;
  operatorId: bigint;
  roles: readonly Role[];
  log: Logger;
}): Promise<ControlServer> {
  const { path, folder, operatorId, roles, log } = options;
  const drain = () => {
    writeFileSync(join(folder, 'draining'), 'This node takes no new work (millrace provider resume).\n', { mode: 0o600, flush: true });
    for (const role of roles) role.drain();
  };
  const resume = () => {
    rmSync(join(folder, 'draining'), { force: true });
    for (const role of roles) role.resume();
  };
  const answer = async (ask: (role: Role) => Promise<Record<string, unknown>>): Promise<NodeAnswer> => ({
    operatorId,
    draining: isDraining(folder),
    roles: Object.fromEntries(await Promise.all(roles.map(async (role) => [role.name, await ask(role)] as const))),
  });
  return startControlServer(path, async ({ command }) => {
    log.info('told', { command });
    if (command === 'drain') drain();
    else if (command === 'resume') resume();
    else if (command === 'leave') {
      drain();
      return answer((role) => role.leave());
    } else if (command !== 'status') {
      throw new MillraceError('unknown-command', { actor: 'caller', message: `The node does not know "${command}"`, values: { command } });
    }
    return answer((role) => role.status());
  });
}
