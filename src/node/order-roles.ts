import { metricLines } from './relay-role.ts';
import type { Role, RoleContext } from './role.ts';

/** Matches the order book alone: a node needs no disk for it. */
export async function startMatcherRole(context: RoleContext): Promise<Role> {
  const { startMatcher } = await import('../storage/index.ts');
  return loneRole('matcher', startMatcher(context));
}

/** Looks after the files whose bids name this node's key as their agent. */
export async function startWatcherRole(context: RoleContext): Promise<Role> {
  const { startWatcher } = await import('../storage/index.ts');
  return loneRole('watcher', startWatcher(context));
}

/** Holds a seat among the checkers, taken at the start and given up by `leave`. */
export async function startCheckerRole(context: RoleContext): Promise<Role> {
  const { openChecker } = await import('../storage/index.ts');
  const checker = await openChecker(context);
  return {
    ...loneRole('checker', { stop: async () => {} }),
    fetch: (request) => (new URL(request.url).pathname.startsWith('/v1/checks/') ? checker.fetch(request) : undefined),
    metrics: () => metricLines({ millrace_checker_checks_total: checker.checked() }, context.operatorId),
    status: async () => ({ checked: checker.checked() }),
    async leave() {
      await checker.leave();
      return { checked: checker.checked() };
    },
  };
}

function loneRole(name: string, duty: { stop(): Promise<void> }): Role {
  return {
    name,
    fetch: () => undefined,
    metrics: () => '',
    status: async () => ({}),
    drain() {},
    resume() {},
    leave: async () => ({}),
    stop: () => duty.stop(),
  };
}
