import type { Address } from 'viem';
import type { ChainClient, Receipt } from '../chain/index.ts';
import { allowTokens, eventArgs, type Sending, type TokenChoice, tokenAddress } from './contract-call.ts';

/** Which operator's income, in which token (`network`, `stable`, `inference`, or an address). */
export interface IncomeChoice {
  operatorId: bigint;
  token: TokenChoice;
}

/** What can be claimed of an operator's income now, base units, and the share in basis points that the operator keeps before it is split. */
export interface Income {
  backer: bigint;
  operator: bigint;
  takeBps: number;
}

/** What a backer and the operator can claim. @throws unknown-token, chain-unreachable */
export async function readIncome(client: ChainClient, options: IncomeChoice & { backer: Address }): Promise<Income> {
  const { operatorId, backer } = options;
  const token = tokenAddress(client, options.token);
  const [ofBacker, operator, takeBps] = await Promise.all([
    client.read('backerIncome', 'claimableOf', [operatorId, token, backer]),
    client.read('backerIncome', 'operatorClaimable', [operatorId, token]),
    client.read('backerIncome', 'takeBpsOf', [operatorId]),
  ]);
  return { backer: ofBacker, operator, takeBps };
}

/**
 * Gives income to an operator and its backers, from the sender's tokens. Approves the amount first when needed.
 * @throws zero-amount, unknown-token, unknown-operator, and the sender's errors
 */
export async function distributeIncome(client: ChainClient, options: Sending & IncomeChoice & { amount: bigint }): Promise<Receipt> {
  const { sender, key, operatorId, token, amount } = options;
  await allowTokens(client, { sender, key, token, spender: client.address('backerIncome'), amount });
  const args = [operatorId, tokenAddress(client, token), amount] as const;
  return sender.send({ contract: 'backerIncome', functionName: 'distribute', args, key });
}

/** Pays the sender's part as a backer to itself. @returns base units. @throws nothing-to-claim */
export async function claimBackerIncome(client: ChainClient, options: Sending & IncomeChoice): Promise<bigint> {
  const { sender, key, operatorId } = options;
  const args = [operatorId, tokenAddress(client, options.token), sender.address] as const;
  return eventArgs(await sender.send({ contract: 'backerIncome', functionName: 'claim', args, key }), 'backerIncome', 'IncomeClaimed')
    .amount;
}

/** Pays an operator's part to its beneficiary; anybody may send it. @returns base units. @throws nothing-to-claim */
export async function claimOperatorIncome(client: ChainClient, options: Sending & IncomeChoice): Promise<bigint> {
  const { sender, key, operatorId } = options;
  const args = [operatorId, tokenAddress(client, options.token)] as const;
  const receipt = await sender.send({ contract: 'backerIncome', functionName: 'claimOperator', args, key });
  return eventArgs(receipt, 'backerIncome', 'IncomeClaimed').amount;
}

/** The operator's owner says what it will keep, basis points; it holds after a delay. @throws take-too-high, not-operator-owner */
export async function proposeTake(options: Sending & { operatorId: bigint; takeBps: number }): Promise<Receipt> {
  const { sender, key, operatorId, takeBps } = options;
  return sender.send({ contract: 'backerIncome', functionName: 'proposeTake', args: [operatorId, takeBps], key });
}
