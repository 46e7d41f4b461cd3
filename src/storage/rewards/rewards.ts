import type { Address, Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';

/** What an account has earned in rewards; base units of the network's token. */
export interface RewardAccount {
  account: Address;
  /** Granted ever. */
  earned: bigint;
  /** Of it, vested ever, paid out or not. */
  vested: bigint;
  /** Paid out. */
  claimed: bigint;
  /** Vested and not paid out: what `claimRewards` pays now. */
  claimable: bigint;
  /** Not vested yet. */
  vesting: bigint;
}

/** An operator's record of proofs as the rewards see it. */
export interface RewardRecord {
  operatorId: bigint;
  beneficiary: Address;
  /** Share of a reward that its proofs earn now, basis points. */
  reliabilityBps: number;
  /** Periods proven in a row. */
  streak: number;
  /** Granted for its proofs ever. */
  earned: bigint;
  /** Burnt fees that fall on each period now. */
  feesPerPeriod: bigint;
}

/** One event behind an account's rewards. */
export interface RewardEvent {
  kind: 'storage' | 'retrieval' | 'cut' | 'claim';
  amount: bigint;
  /** Burnt fees that it was earned by; 0 for claims. */
  fees: bigint;
  operatorId: bigint | null;
  period: bigint | null;
  blockNumber: bigint;
  transactionHash: Hex;
}

/** Whether the network has rewards: one that was deployed by an earlier version has none. */
export function hasRewards(client: ChainClient): boolean {
  return client.manifest.modules.rewards !== undefined;
}

/** What an account has earned, all of it at one block. @throws unknown-module, chain-unreachable */
export async function rewardsOf(client: ChainClient, account: Address): Promise<RewardAccount> {
  const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
  const at = { blockNumber: toBlock };
  const [owed, claimable, claims] = await Promise.all([
    client.read('rewards', 'owedTo', [account], at),
    client.read('rewards', 'vestedOf', [account], at),
    client.events({ name: 'rewards', event: 'RewardClaimed', args: { account }, toBlock }),
  ]);
  const claimed = claims.reduce((sum, { args }) => sum + args.amount, 0n);
  return { account, earned: owed + claimed, vested: claimable + claimed, claimed, claimable, vesting: owed - claimable };
}

/** How an operator's proofs are rewarded now. @throws unknown-operator, unknown-module, chain-unreachable */
export async function rewardRecordOf(client: ChainClient, operatorId: bigint): Promise<RewardRecord> {
  const [beneficiary, reliabilityBps, record] = await Promise.all([
    client.read('operators', 'beneficiaryOf', [operatorId]),
    client.read('rewards', 'reliabilityBps', [operatorId]),
    client.read('rewards', 'recordOf', [operatorId]),
  ]);
  const { streak, earned, ratePerPeriod } = record;
  return { operatorId, beneficiary, reliabilityBps, streak, earned, feesPerPeriod: ratePerPeriod };
}

/** The events that an account's rewards are the sum of, newest first. @throws too-many-events, unknown-module, chain-unreachable */
export async function rewardEvents(client: ChainClient, account: Address, limit: number): Promise<RewardEvent[]> {
  const args = { account };
  const [points, retrievals, cuts, claims] = await Promise.all([
    client.events({ name: 'rewards', event: 'PointsAdded', args }),
    client.events({ name: 'rewards', event: 'RetrievalRewarded', args }),
    client.events({ name: 'rewards', event: 'RewardCut', args }),
    client.events({ name: 'rewards', event: 'RewardClaimed', args }),
  ]);
  const none = { fees: 0n, operatorId: null, period: null };
  const place = ({ blockNumber, transactionHash }: { blockNumber: bigint; transactionHash: Hex }) => ({ blockNumber, transactionHash });
  const events: RewardEvent[] = [
    ...points.map(({ args: { reward, fees, operatorId, period }, ...at }) => {
      return { kind: 'storage' as const, amount: reward, fees, operatorId, period, ...place(at) };
    }),
    ...retrievals.map(({ args: { reward, fees }, ...at }) => ({ ...none, kind: 'retrieval' as const, amount: reward, fees, ...place(at) })),
    ...cuts.map(({ args: { earned, granted }, ...at }) => ({ ...none, kind: 'cut' as const, amount: earned - granted, ...place(at) })),
    ...claims.map(({ args: { amount }, ...at }) => ({ ...none, kind: 'claim' as const, amount, ...place(at) })),
  ];
  return events.sort((one, other) => Number(other.blockNumber - one.blockNumber)).slice(0, limit);
}

/**
 * Pays out what has vested of the sender's rewards.
 * @throws nothing-vested, and the sender's errors
 */
export async function claimRewards(sender: Sender, to: Address = sender.address): Promise<{ amount: bigint; transaction: Hex }> {
  const receipt = await sender.send({ contract: 'rewards', functionName: 'claim', args: [to] });
  const event = receipt.events.find(({ module, name }) => module === 'rewards' && name === 'RewardClaimed');
  if (event === undefined) {
    throw new MillraceError('event-missing', {
      actor: 'chain',
      message: `Transaction ${receipt.hash} claimed rewards, but its receipt does not say how much`,
      values: { transaction: receipt.hash },
    });
  }
  return { amount: (event.args as { amount: bigint }).amount, transaction: receipt.hash };
}

/**
 * Rewards what a receiver's settlements of payment channels have burnt since the last time; sends nothing when that is nothing or the
 * network has no rewards. For whoever claims channels: call it after a settlement in the network's token. Anyone may.
 * @returns the transaction, or undefined
 * @throws the sender's errors
 */
export async function rewardRetrieval(options: { client: ChainClient; sender: Sender; receiver: Address }): Promise<Hex | undefined> {
  const { client, sender, receiver } = options;
  if (!hasRewards(client) || client.manifest.modules.channels === undefined) return undefined;
  const [burnt, { retrievalShareBps }, rewarded] = await Promise.all([
    client.read('channels', 'feesBurntOf', [receiver]),
    client.read('rewards', 'config'),
    client.events({ name: 'rewards', event: 'RetrievalRewarded', args: { account: receiver } }),
  ]);
  const counted = rewarded.reduce((sum, { args }) => sum + args.fees, 0n);
  if (((burnt - counted) * BigInt(retrievalShareBps)) / 10_000n === 0n) return undefined;
  const { hash } = await sender.send({ contract: 'rewards', functionName: 'rewardRetrieval', args: [receiver] });
  return hash;
}
