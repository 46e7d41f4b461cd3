import type { TransportIdentity } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { startAuditorRole } from './auditor-role.ts';
import { startComputeRole } from './compute-role.ts';
import type { ComputeSettings } from './compute-settings.ts';
import type { InferenceSettings } from './inference-settings.ts';
import { startJurorRole } from './juror-role.ts';
import { startMinerRole } from './miner-role.ts';
import { startCheckerRole, startMatcherRole, startWatcherRole } from './order-roles.ts';
import { metricLines, startRelayRole } from './relay-role.ts';
import type { RelaySettings } from './relay-settings.ts';
import { type RetrieverSettings, startRetrieverRole } from './retriever-role.ts';
import type { Role, RoleContext } from './role.ts';
import { type AskSettings, storagePolicy } from './storage-policy.ts';
import { startValidatorRole } from './validator-role.ts';

/** What `startRole` gives a role besides its context. */
export type RoleStart = RoleContext & {
  quotaBytes: bigint;
  ask?: AskSettings;
  relay?: RelaySettings;
  retriever?: RetrieverSettings;
  inference?: InferenceSettings;
  compute?: ComputeSettings;
  /** The network's folder on this machine. */
  dataFolder: string;
  /** Where others reach the node, when the chain does not say it. */
  endpoint?: string;
  identity: TransportIdentity;
};

const POLL_MS = 500;

const ROLES: Record<string, (context: RoleStart) => Promise<Role>> = {
  storage: startStorageRole,
  relay: startRelayRole,
  matcher: startMatcherRole,
  checker: startCheckerRole,
  watcher: startWatcherRole,
  retriever: startRetrieverRole,
  miner: startMinerRole,
  validator: startValidatorRole,
  juror: startJurorRole,
  compute: startComputeRole,
  auditor: startAuditorRole,
};

/** Whether a role works with a key that belongs to no operator. */
export function needsNoOperator(role: string): boolean {
  return role === 'retriever';
}

/** Starts a role by its name. @throws unknown-role */
export async function startRole(name: string, context: RoleStart): Promise<Role> {
  const start = Object.hasOwn(ROLES, name) ? ROLES[name] : undefined;
  if (start !== undefined) return start(context);
  throw new MillraceError('unknown-role', {
    actor: 'caller',
    message: `There is no role "${name}"`,
    values: { role: name },
    hint: `Known: ${Object.keys(ROLES).join(', ')}.`,
  });
}

async function startStorageRole(context: RoleStart): Promise<Role> {
  const { startStorageProvider } = await import('../storage/index.ts');
  const provider = await startStorageProvider({ ...context, policy: storagePolicy(context), pollMs: POLL_MS });
  return {
    name: 'storage',
    fetch(request) {
      const { pathname } = new URL(request.url);
      return /^\/(v1\/storage|ipfs|piece)\//.test(pathname) ? provider.fetch(request) : undefined;
    },
    async metrics() {
      return metricLines({ ...(await provider.metrics()) }, context.operatorId);
    },
    status: async () => ({ ...(await provider.status()) }),
    drain: () => provider.drain(),
    resume: () => provider.resume(),
    leave: async () => ({ ...(await provider.leave()), ...(await provider.status()) }),
    stop: () => provider.stop(),
  };
}
