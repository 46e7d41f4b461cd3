import type { Address } from 'viem';
import type { ChainClient, Receipt } from '../chain/index.ts';
import { allowTokens, eventArgs, type Sending, tokenBalance } from './contract-call.ts';

/** An operator's stake; all amounts in base units of the network's token. */
export interface OperatorStake {
  operatorId: bigint;
  /** The operator's own: `exiting` can still be slashed, but backs nothing new. */
  own: { active: bigint; exiting: bigint };
  backers: { active: bigint; exiting: bigint; activeShares: bigint; generation: bigint };
  /** Held by modules for obligations. */
  locked: bigint;
  /** Own active and the capped part of backers' active: what locks may reach. */
  slashable: bigint;
  /** What new obligations may still lock. */
  available: bigint;
  /** Open disputes; while there are any, no exit is paid. */
  disputes: bigint;
  /** Who votes with this stake. The votes are own active plus backers' active. */
  votes: { holder: Address; units: bigint };
}

/** What a backer has with one operator. */
export interface Backing {
  shares: bigint;
  /** What the shares are worth now, base units. */
  amount: bigint;
}

/**
 * Adds own stake to an operator (from anyone: it becomes the owner's). Approves the amount first when needed.
 * @throws zero-amount, unknown-operator, erc20-insufficient-balance, and the sender's errors
 */
export async function depositStake(client: ChainClient, options: Sending & { operatorId: bigint; amount: bigint }): Promise<Receipt> {
  const { sender, key, operatorId, amount } = options;
  await allowTokens(client, { sender, key, token: 'network', spender: client.address('stakeVault'), amount });
  return sender.send({ contract: 'stakeVault', functionName: 'deposit', args: [operatorId, amount], key });
}

/**
 * Backs an operator with the sender's tokens; they share its slashes after its own stake. Approves the amount first when needed.
 * @returns the shares bought
 * @throws zero-amount, unknown-operator, erc20-insufficient-balance, and the sender's errors
 */
export async function backOperator(client: ChainClient, options: Sending & { operatorId: bigint; amount: bigint }): Promise<bigint> {
  const { sender, key, operatorId, amount } = options;
  await allowTokens(client, { sender, key, token: 'network', spender: client.address('stakeVault'), amount });
  const receipt = await sender.send({ contract: 'stakeVault', functionName: 'back', args: [operatorId, amount], key });
  return eventArgs(receipt, 'stakeVault', 'Backed').shares;
}

/** An operator's stake now. @throws unknown-operator, chain-unreachable */
export async function stakeOf(client: ChainClient, options: { operatorId: bigint; blockNumber?: bigint }): Promise<OperatorStake> {
  const args = [options.operatorId] as const;
  // One block for all reads: numbers of different blocks would not fit each other.
  const blockNumber = options.blockNumber ?? (await client.public.getBlockNumber({ cacheTime: 0 }));
  const at = { blockNumber };
  const [own, pool, locked, slashable, available, disputes, votes] = await Promise.all([
    client.read('stakeVault', 'ownStake', args, at),
    client.read('stakeVault', 'pool', args, at),
    client.read('stakeVault', 'lockedOf', args, at),
    client.read('stakeVault', 'slashableOf', args, at),
    client.read('stakeVault', 'availableOf', args, at),
    client.read('stakeVault', 'disputesOf', args, at),
    client.read('stakeVault', 'votesOfOperator', args, at),
    client.read('operators', 'ownerOf', args, at), // refuses an operator that does not exist
  ]);
  return {
    operatorId: options.operatorId,
    own: { active: own[0], exiting: own[1] },
    backers: { active: pool.activeAssets, exiting: pool.exitingAssets, activeShares: pool.activeShares, generation: pool.generation },
    locked,
    slashable,
    available,
    disputes,
    votes: { holder: votes[0], units: votes[1] },
  };
}

/** What a backer has with an operator, without what is on its way out. @throws chain-unreachable */
export async function backingOf(client: ChainClient, options: { operatorId: bigint; backer: Address }): Promise<Backing> {
  const args = [options.operatorId, options.backer] as const;
  const [shares, amount] = await Promise.all([client.read('stakeVault', 'sharesOf', args), client.read('stakeVault', 'backedBy', args)]);
  return { shares, amount };
}

/** What slashes have credited to an account (compensation and rewards), base units. @throws chain-unreachable */
export function claimable(client: ChainClient, options: { account: Address }): Promise<bigint> {
  return client.read('stakeVault', 'claimableOf', [options.account]);
}

/** Pays out what slashes have credited to the sender. @returns the amount @throws zero-amount, and the sender's errors */
export async function claim(options: Sending & { to?: Address }): Promise<bigint> {
  const { sender, key, to = sender.address } = options;
  const receipt = await sender.send({ contract: 'stakeVault', functionName: 'claim', args: [to], key });
  return eventArgs(receipt, 'stakeVault', 'Claimed').amount;
}

/** Moves an operator's votes to its present owner; anyone may, and only a change of owner makes it needed. */
export function syncVotes(options: Sending & { operatorId: bigint }): Promise<Receipt> {
  const { sender, key, operatorId } = options;
  return sender.send({ contract: 'stakeVault', functionName: 'syncVotes', args: [operatorId], key });
}

/**
 * What the vault holds and what it owes, base units of the network's token. They are equal but for tokens that somebody sent to it
 * without a call. @throws chain-unreachable
 */
export async function vaultBooks(client: ChainClient): Promise<{ held: bigint; owed: bigint }> {
  const [held, owed] = await Promise.all([
    tokenBalance(client, { token: 'network', account: client.address('stakeVault') }),
    client.read('stakeVault', 'obligations'),
  ]);
  return { held, owed };
}
