import { MillraceError } from '../errors.ts';
import type { Role, RoleContext } from './role.ts';

const ONE_TOKEN = 10n ** 18n;
const GIB = 1n << 30n;

/** What `startRole` gives a role besides its context. */
export type RoleStart = RoleContext & { quotaBytes: bigint };

const ROLES: Record<string, (context: RoleStart) => Promise<Role>> = { storage: startStorageRole };

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
  const provider = await startStorageProvider({
    ...context,
    policy: {
      quotaBytes: context.quotaBytes,
      openDealsMax: 256,
      openDealsPerClientMax: 64,
      askLifetimeSeconds: 3600,
      offerSecondsMin: 30,
      offerSecondsMax: 7200,
      ask: {
        pricePerGibPeriod: ONE_TOKEN / 100n,
        minPricePerPeriod: ONE_TOKEN / 1_000_000n,
        minSizeBytes: 127n,
        maxSizeBytes: 32n * GIB,
        minPeriods: 1,
        maxPeriods: 100_000,
        collateralBps: 5_000,
        minCollateral: ONE_TOKEN / 10n,
        bond: ONE_TOKEN / 100n,
      },
    },
    pollMs: 500,
  });
  return {
    name: 'storage',
    fetch(request) {
      const { pathname } = new URL(request.url);
      return /^\/(v1\/storage|ipfs|piece)\//.test(pathname) ? provider.fetch(request) : undefined;
    },
    async metrics() {
      const values = await provider.metrics();
      return Object.entries(values)
        .map(
          ([name, value]) =>
            `# TYPE ${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}\n${name}{operator="${context.operatorId}"} ${value}\n`,
        )
        .join('');
    },
    stop: () => provider.stop(),
  };
}
