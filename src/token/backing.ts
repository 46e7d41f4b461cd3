import type { Address } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import type { Sending } from './contract-call.ts';
import { claimBackerIncome } from './income.ts';
import { backingOf } from './stake.ts';

/** An amount of one token, base units. */
export interface TokenAmount {
  token: Address;
  amount: bigint;
}

/** What a backer has with one operator. */
export interface BackerPosition {
  operatorId: bigint;
  shares: bigint;
  /** What the shares are worth now, base units of the network's token. */
  amount: bigint;
  /** The operator's own active stake, which is slashed before any backer's. */
  ownStake: bigint;
  /** What the operator keeps of its income before it is shared, basis points. */
  takeBps: number;
  /** Shared already and not fetched yet. */
  income: TokenAmount[];
}

/** All operators that an account ever backed, with what it has there now: also those that it left, whose income may still wait. @throws chain-unreachable */
export async function backerPositions(client: ChainClient, { backer }: { backer: Address }): Promise<BackerPosition[]> {
  const backed = await client.events({ name: 'stakeVault', event: 'Backed', args: { backer } });
  const operatorIds = [...new Set(backed.map(({ args }) => args.operatorId))].sort((one, other) => Number(one - other));
  return Promise.all(operatorIds.map((operatorId) => positionAt(client, operatorId, backer)));
}

async function positionAt(client: ChainClient, operatorId: bigint, backer: Address): Promise<BackerPosition> {
  const [{ shares, amount }, [ownStake], takeBps, income] = await Promise.all([
    backingOf(client, { operatorId, backer }),
    client.read('stakeVault', 'ownStake', [operatorId]),
    client.read('backerIncome', 'takeBpsOf', [operatorId]),
    waitingIncome(client, operatorId, backer),
  ]);
  return { operatorId, shares, amount, ownStake, takeBps, income };
}

async function waitingIncome(client: ChainClient, operatorId: bigint, backer: Address): Promise<TokenAmount[]> {
  const tokens = await client.read('backerIncome', 'tokens');
  const amounts = await Promise.all(tokens.map((token) => client.read('backerIncome', 'claimableOf', [operatorId, token, backer])));
  return tokens.map((token, at) => ({ token, amount: amounts[at] as bigint })).filter(({ amount }) => amount > 0n);
}

/**
 * Fetches all that waits for the sender as a backer of an operator: lets the networks share out what they hold for the operator and its backers,
 * then claims every token. @returns what was paid @throws the sender's errors
 */
export async function fetchBackerIncome(client: ChainClient, options: Sending & { operatorId: bigint }): Promise<TokenAmount[]> {
  const { sender, operatorId } = options;
  for (const contract of await unsharedIncome(client, operatorId)) {
    await sender.send({ contract, functionName: 'release', args: [operatorId] });
  }
  const paid: TokenAmount[] = [];
  for (const { token } of await waitingIncome(client, operatorId, sender.address)) {
    paid.push({ token, amount: await claimBackerIncome(client, { sender, operatorId, token }) });
  }
  return paid;
}

/** The networks of this chain that hold income of an operator which nobody has shared out yet. */
async function unsharedIncome(client: ChainClient, operatorId: bigint): Promise<('subnetEpochs' | 'computeRewards')[]> {
  const { modules } = client.manifest;
  const holders: ('subnetEpochs' | 'computeRewards')[] = [];
  if (modules.subnetEpochs !== undefined) {
    const { validator } = await client.read('subnetEpochs', 'earningsOf', [operatorId]);
    if (validator > 0n) holders.push('subnetEpochs');
  }
  if (modules.computeRewards !== undefined) {
    const amount = await client.read('computeRewards', 'releasable', [operatorId]);
    if (amount > 0n) holders.push('computeRewards');
  }
  return holders;
}
