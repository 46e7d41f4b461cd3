import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { recoverAddress } from '../chain/index.ts';
import { keepReachable, type PeerServer, type RelayCandidate, relayBehind, type TransportIdentity } from '../connect/index.ts';
import { writeFileDurably } from '../durable-file.ts';
import { createPayer } from '../token/index.ts';
import { setEndpoint } from './provision.ts';
import { createRelayPurse, RELAY_DEPOSIT_PAYMENTS } from './relay-payments.ts';
import { metricLines, relayNetworkOf } from './relay-role.ts';
import { type RelayedBy, type RelaySettings, relayPriceMax } from './relay-settings.ts';
import type { Role, RoleContext } from './role.ts';

const HEARTBEAT_MS = 5000;
/** Operators whose addresses are read from the chain at a time, drawn by chance where there are more. */
const SAMPLE_MAX = 128;

/** Keeps the node reachable by others, directly or through relays; started after the node's server, to which it hands connections. @throws folder-busy, bad-amount */
export async function startReachRole(
  context: RoleContext & {
    identity: TransportIdentity;
    server: PeerServer;
    mode: Exclude<RelayedBy, 'none'>;
    directEndpoint: string | undefined;
    relay?: RelaySettings;
  },
): Promise<Role> {
  const { client, sender, operatorId, folder, identity, mode } = context;
  const { transportKey } = identity;
  const pricePerGibMax = relayPriceMax(context.relay);
  const payer =
    pricePerGibMax > 0n
      ? await createPayer({ ...context, folder: join(folder, 'spent'), depositRequests: RELAY_DEPOSIT_PAYMENTS })
      : undefined;
  const reach = keepReachable({
    ...context,
    network: relayNetworkOf(client),
    transportKey,
    accept: context.server.accept,
    heartbeatMs: HEARTBEAT_MS,
    candidates: async () => readCandidates(client, mode),
    published: async () => (await client.read('operators', 'operator', [operatorId])).endpoint,
    publish: async (endpoint) => void (await setEndpoint(client, sender, { operatorId, transportKey, endpoint })),
    recover: recoverAddress,
    pricePerGibMax,
    purse: payer === undefined ? undefined : createRelayPurse({ client, payer }),
    recordsPath: join(folder, 'relays.json'),
  });
  return {
    name: 'reach',
    fetch: () => undefined,
    metrics() {
      const { tunnels, remembered } = reach.status();
      const bytes = tunnels.reduce((sum, { bytesCarried }) => sum + bytesCarried, 0n);
      return metricLines(
        {
          millrace_reach_tunnels_count: tunnels.length,
          millrace_reach_avoided_count: remembered.filter(({ isAvoided }) => isAvoided).length,
          millrace_reach_carried_bytes: bytes,
        },
        operatorId,
      );
    },
    status: async () => ({ ...reach.status(), spent: payer?.channels().reduce((sum, { charged }) => sum + charged, 0n) }),
    drain() {},
    resume() {},
    leave: async () => ({ ...reach.status() }),
    async stop() {
      await reach.stop();
      await payer?.close();
    },
  };
}

/**
 * Where the node is reached without a relay: its endpoint on chain, remembered in its folder while the chain names one at a relay. Undefined
 * when it never had one.
 */
export async function directEndpointOf({
  client,
  operatorId,
  folder,
}: Pick<RoleContext, 'client' | 'operatorId' | 'folder'>): Promise<string | undefined> {
  const { endpoint } = await client.read('operators', 'operator', [operatorId]);
  const path = join(folder, 'direct-endpoint');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (endpoint !== '' && relayBehind(endpoint) === undefined) {
    writeFileDurably(path, endpoint);
    return endpoint;
  }
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

async function readCandidates(client: RoleContext['client'], mode: Exclude<RelayedBy, 'none'>): Promise<RelayCandidate[]> {
  const ids = mode === 'auto' ? await sampleOfOperators(client) : mode;
  const operators = await Promise.all(
    ids.map(async (id) => {
      const { endpoint, transportKey, nodeKey } = await client.read('operators', 'operator', [id]);
      return { operatorId: id, endpoint, transportKey, nodeKey };
    }),
  );
  return operators.filter(({ endpoint }) => endpoint !== '');
}

async function sampleOfOperators(client: RoleContext['client']): Promise<bigint[]> {
  const count = Number(await client.read('operators', 'operatorCount'));
  if (count <= SAMPLE_MAX) return Array.from({ length: count }, (_, index) => BigInt(index + 1));
  const drawn = new Set<number>();
  while (drawn.size < SAMPLE_MAX) drawn.add(1 + Math.floor(Math.random() * count));
  return [...drawn].map(BigInt);
}
