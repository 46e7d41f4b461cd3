import type { Address } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import { eventArgs, type Sending } from './contract-call.ts';

/** Stake on its way out. Until it is paid, slashes take the same part of it as of the stake that stays. */
export interface StakeExit {
  exitId: bigint;
  operatorId: bigint;
  /** Who will be paid: the backer, or the operator's owner of that moment. */
  who: Address;
  /** What it would pay now, base units. */
  amount: bigint;
  /** Protocol time in seconds; a longer delay set later counts too. */
  withdrawableFrom: bigint;
}

/** What a request to leave was given. */
export type ExitTicket = Pick<StakeExit, 'exitId' | 'amount' | 'withdrawableFrom'>;

/**
 * The owner takes own stake out; only unlocked stake may leave.
 * @throws not-operator-owner, insufficient-unlocked, own-stake-too-small, zero-amount, and the sender's errors
 */
export async function requestExit(options: Sending & { operatorId: bigint; amount: bigint }): Promise<ExitTicket> {
  const { sender, key, operatorId, amount } = options;
  const receipt = await sender.send({ contract: 'stakeVault', functionName: 'requestExit', args: [operatorId, amount], key });
  return ticketOf(eventArgs(receipt, 'stakeVault', 'ExitRequested'));
}

/**
 * A backer takes shares out; only unlocked stake may leave.
 * @throws insufficient-unlocked, pool-depleted, zero-amount, and the sender's errors
 */
export async function requestBackerExit(options: Sending & { operatorId: bigint; shares: bigint }): Promise<ExitTicket> {
  const { sender, key, operatorId, shares } = options;
  const receipt = await sender.send({ contract: 'stakeVault', functionName: 'requestBackerExit', args: [operatorId, shares], key });
  return ticketOf(eventArgs(receipt, 'stakeVault', 'ExitRequested'));
}

/**
 * Pays an exit to whom it belongs; anyone may, once its time has come and no dispute is open.
 * @returns the amount paid, which slashes since the request have lowered
 * @throws exit-too-early, release-frozen, unknown-exit, and the sender's errors
 */
export async function finishExit(options: Sending & { exitId: bigint }): Promise<bigint> {
  const { sender, key, exitId } = options;
  const receipt = await sender.send({ contract: 'stakeVault', functionName: 'finishExit', args: [exitId], key });
  return eventArgs(receipt, 'stakeVault', 'ExitFinished').amount;
}

/** Exits that are not paid yet, oldest first: of one operator, of one requester, or all. @throws chain-unreachable */
export async function pendingExits(client: ChainClient, options: { operatorId?: bigint; requester?: Address } = {}): Promise<StakeExit[]> {
  const requests = await client.events({
    name: 'stakeVault',
    event: 'ExitRequested',
    args: {
      ...(options.operatorId === undefined ? {} : { operatorId: options.operatorId }),
      ...(options.requester === undefined ? {} : { who: options.requester }),
    },
  });
  const exits = await Promise.all(requests.map((request) => readExit(client, request.args.exitId)));
  return exits.filter((exit) => exit !== undefined);
}

async function readExit(client: ChainClient, exitId: bigint): Promise<StakeExit | undefined> {
  const [who, operatorId, amount, withdrawableFrom] = await client.read('stakeVault', 'exitOf', [exitId]);
  return BigInt(who) === 0n ? undefined : { exitId, operatorId, who, amount, withdrawableFrom };
}

function ticketOf(args: { exitId: bigint; amount: bigint; withdrawableFrom: bigint }): ExitTicket {
  return { exitId: args.exitId, amount: args.amount, withdrawableFrom: args.withdrawableFrom };
}
