import type { ChainClient } from '../chain/index.ts';
import { listPowers } from '../chain/index.ts';
import { relayBehind } from '../connect/index.ts';
import { readRunState } from '../node/index.ts';
import { hasRewards, rewardRecordOf } from '../storage/index.ts';
import { formatAmount, formatDuration, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { folderOf, openSession } from './session.ts';
import { supervisorStatus } from './up.ts';

/** One provider's standing, as the chain has it. */
export interface ProviderRow {
  operatorId: bigint;
  endpoint: string;
  /** The endpoint of the relay through which it is reached; null when it is reached directly. */
  relay: string | null;
  pieces: number;
  leaves: bigint;
  own: bigint;
  locked: bigint;
  provenThrough: bigint;
  missesInRow: number;
  failed: boolean;
  /** Granted as rewards for its proofs ever; see `millrace rewards`. */
  rewards: bigint;
}

/** What runs, the chain, the providers and the next proof; with --powers every power over the network and its holder. */
export async function status(context: CommandContext, options: { powers: boolean }): Promise<void> {
  const session = await openSession(context);
  const { client, manifest } = session;
  if (options.powers) return showPowers(context, client);
  const [now, supervisor, providers] = await Promise.all([client.now(), supervisorStatus(folderOf(context)), providerRows(client)]);
  const proof = await nextProof(client, now);
  const value = {
    network: manifest.name,
    profile: manifest.profile,
    notSecure: manifest.notSecure,
    randomness: randomnessText(manifest.randomness.source),
    chainId: manifest.chainId,
    rpcUrl: session.rpcUrl,
    time: now,
    period: proof.period,
    nextSeedInSeconds: proof.seedInSeconds,
    periodEndsInSeconds: proof.endsInSeconds,
    processes: supervisor?.parts ?? [],
    nodes: readRunState(session.folder)?.nodes ?? [],
    providers: providers.map((row) => ({ ...row, evidence: 'proven' })),
  };
  context.output.result(value, () =>
    [
      `${manifest.name} on chain ${manifest.chainId}, profile ${manifest.profile}${manifest.notSecure ? ' (NOT SECURE: for trying only)' : ''}, randomness: ${value.randomness}`,
      `time ${new Date(Number(now) * 1000).toISOString()}, period ${proof.period}, next seed in ${formatDuration(proof.seedInSeconds)}, period ends in ${formatDuration(proof.endsInSeconds)}`,
      '',
      table(
        ['part', 'state', 'pid', 'restarts'],
        value.processes.map((part) => [part.name, part.state, String(part.pid ?? ''), String(part.restarts)]),
      ),
      '',
      table(
        ['provider', 'endpoint', 'pieces', 'stake', 'locked', 'rewards', 'standing'],
        providers.map((row) => [
          String(row.operatorId),
          reachText(row),
          String(row.pieces),
          formatAmount(row.own, TOKEN_DECIMALS),
          formatAmount(row.locked, TOKEN_DECIMALS),
          formatAmount(row.rewards, TOKEN_DECIMALS),
          standingText(row, proof.period),
        ]),
      ),
    ].join('\n'),
  );
}

/** Where a provider is reached, in words. */
export function reachText({ endpoint, relay }: Pick<ProviderRow, 'endpoint' | 'relay'>): string {
  if (endpoint === '') return 'not reached yet';
  return relay === null ? endpoint : `behind relay ${relay}`;
}

/** How a provider stands, in words. */
export function standingText(row: ProviderRow, period: bigint): string {
  if (row.failed) return 'FAILED: its deals have ended';
  if (row.leaves === 0n) return 'no data yet';
  if (row.missesInRow > 0) return `missed ${row.missesInRow} in a row`;
  return row.provenThrough > period
    ? 'proven this period'
    : `proven through period ${row.provenThrough === 0n ? 'none yet' : row.provenThrough - 1n}`;
}

/** All operators with their storage standing. */
export async function providerRows(client: ChainClient): Promise<ProviderRow[]> {
  const count = await client.read('operators', 'operatorCount');
  const ids = Array.from({ length: Number(count) }, (_, index) => BigInt(index + 1));
  const rewardsNow = async (operatorId: bigint) => (hasRewards(client) ? (await rewardRecordOf(client, operatorId)).earned : 0n);
  return Promise.all(
    ids.map(async (operatorId) => {
      const [operator, piecesTable, standing, [own], locked, rewards] = await Promise.all([
        client.read('operators', 'operator', [operatorId]),
        client.read('possession', 'table', [operatorId]),
        client.read('possession', 'standing', [operatorId]),
        client.read('stakeVault', 'ownStake', [operatorId]),
        client.read('stakeVault', 'lockedOf', [operatorId]),
        rewardsNow(operatorId),
      ]);
      return {
        operatorId,
        endpoint: operator.endpoint,
        relay: relayBehind(operator.endpoint) ?? null,
        pieces: piecesTable.slots,
        leaves: piecesTable.leaves,
        own,
        locked,
        provenThrough: standing.provenThrough,
        missesInRow: standing.missesInRow,
        failed: standing.restartedAt < standing.failedAt,
        rewards,
      };
    }),
  );
}

/** The running period, and how far its seed and its end are. */
export async function nextProof(
  client: ChainClient,
  now: bigint,
): Promise<{ period: bigint; seedInSeconds: number; endsInSeconds: number }> {
  const period = await client.read('possession', 'periodAt', [now]);
  const [seedTime, end] = await Promise.all([
    client.read('possession', 'seedTime', [period]),
    client.read('possession', 'periodStart', [period + 1n]),
  ]);
  const nextSeed = seedTime > now ? seedTime : await client.read('possession', 'seedTime', [period + 1n]);
  return { period, seedInSeconds: Number(nextSeed - now), endsInSeconds: Number(end - now) };
}

/** How the randomness is to be read. */
export function randomnessText(source: string): string {
  return source === 'trusted-operator' ? 'trusted operator' : source === 'beacon' ? 'declared beacon' : 'prevRandao of the chain';
}

async function showPowers(context: CommandContext, client: ChainClient): Promise<void> {
  const items = await listPowers(client);
  context.output.result({ items, next: null }, () =>
    table(
      ['power', 'holder', 'kind'],
      items.map((item) => [item.power, item.holderName ?? item.holder ?? '', item.holderKind]),
    ),
  );
}
