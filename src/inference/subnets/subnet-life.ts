import type { Address } from 'viem';
import type { ChainClient, Receipt } from '../../chain/index.ts';
import { eventArgs, type Sending } from '../../token/index.ts';
import { fromChainRules, type SubnetRules } from './subnet-rules.ts';

/** The rules that hold from a subnet's next epoch on, with every change that was made so far. @throws unknown-subnet */
export async function readNextRules(client: ChainClient, subnetId: bigint): Promise<{ fromEpoch: bigint; rules: SubnetRules }> {
  const fromEpoch = (await client.read('subnets', 'epochAt', [subnetId, await client.now()])) + 1n;
  return { fromEpoch, rules: fromChainRules(await client.read('subnets', 'hyperparametersAt', [subnetId, fromEpoch])) };
}

/** Ends a subnet: its owner at any time, anybody when no epoch of it was settled for long. @throws not-idle, subnet-is-dissolved */
export async function dissolveSubnet({ sender, key, subnetId }: Sending & { subnetId: bigint }): Promise<Receipt> {
  return sender.send({ contract: 'subnets', functionName: 'dissolve', args: [subnetId], key });
}

/** Anybody: gives the lock of a dissolved subnet back to its creator. @returns base units @throws lock-not-due, zero-amount */
export async function returnSubnetLock({ sender, key, subnetId }: Sending & { subnetId: bigint }): Promise<bigint> {
  const receipt = await sender.send({ contract: 'subnets', functionName: 'returnLock', args: [subnetId], key });
  return eventArgs(receipt, 'subnets', 'LockReturned').amount;
}

/** The owner proposes another, who has to accept. @throws not-subnet-owner */
export async function proposeSubnetOwner({
  sender,
  key,
  subnetId,
  proposed,
}: Sending & { subnetId: bigint; proposed: Address }): Promise<Receipt> {
  return sender.send({ contract: 'subnets', functionName: 'proposeOwner', args: [subnetId, proposed], key });
}

/** The proposed owner accepts. @throws not-proposed-owner */
export async function acceptSubnetOwner({ sender, key, subnetId }: Sending & { subnetId: bigint }): Promise<Receipt> {
  return sender.send({ contract: 'subnets', functionName: 'acceptOwner', args: [subnetId], key });
}

/** What waits for an operator as a miner and as a validator, and for an account as an owner or proposer. Base units of the inference token. */
export interface WaitingRewards {
  miner: bigint;
  validator: bigint;
  account: bigint;
}

/** Rewards of final epochs that nobody has fetched yet. @throws chain-unreachable */
export async function readWaitingRewards(
  client: ChainClient,
  { operatorId, account }: { operatorId: bigint; account: Address },
): Promise<WaitingRewards> {
  const [{ miner, validator }, owed] = await Promise.all([
    client.read('subnetEpochs', 'earningsOf', [operatorId]),
    client.read('subnetEpochs', 'owedTo', [account]),
  ]);
  return { miner, validator, account: owed };
}

/**
 * Fetches all that waits: a miner's earnings go to the operator's beneficiary, a validator's are shared with its backers, an account's own go to
 * itself. @returns what was fetched
 */
export async function fetchRewards(client: ChainClient, { sender, operatorId }: Sending & { operatorId: bigint }): Promise<WaitingRewards> {
  const waiting = await readWaitingRewards(client, { operatorId, account: sender.address });
  const call = { contract: 'subnetEpochs' } as const;
  if (waiting.miner > 0n) await sender.send({ ...call, functionName: 'payMiner', args: [operatorId] });
  if (waiting.validator > 0n) await sender.send({ ...call, functionName: 'release', args: [operatorId] });
  if (waiting.account > 0n) await sender.send({ ...call, functionName: 'claim', args: [sender.address] });
  return waiting;
}
