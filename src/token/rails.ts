import type { Address } from 'viem';
import type { ChainClient, ModuleName, Receipt } from '../chain/index.ts';
import { allowTokens, eventArgs, type Sending, type TokenChoice, tokenAddress, tokenBalance } from './contract-call.ts';

/** A rail; amounts in base units of its token, times in seconds of protocol time. */
export interface RailState {
  railId: bigint;
  payer: Address;
  /** Operator that is paid; its beneficiary gets the money. */
  operatorId: bigint;
  token: Address;
  /** Contract that says which time was proven. */
  meter: Address;
  /** Paid for `intervalSeconds` of proven time. */
  amount: bigint;
  intervalSeconds: number;
  lockupSeconds: number;
  /** 0: not begun. */
  start: bigint;
  /** When it ends as things stand: its end, or when the escrow is empty. 0: not begun. */
  end: bigint;
  /** Every second before is paid or returned. */
  settledTo: bigint;
  provenSeconds: bigint;
  escrow: bigint;
  paid: bigint;
  refunded: bigint;
  closed: boolean;
}

/** Puts tokens into an account at the rails (the sender's when absent). Approves the amount first when needed. */
export async function depositToRails(
  client: ChainClient,
  options: Sending & { token: TokenChoice; amount: bigint; account?: Address },
): Promise<Receipt> {
  const { sender, key, amount, account = sender.address } = options;
  const token = tokenAddress(client, options.token);
  await allowTokens(client, { sender, key, token, spender: client.address('rails'), amount });
  return sender.send({ contract: 'rails', functionName: 'deposit', args: [token, account, amount], key });
}

/**
 * Takes free money (not escrow) out of the sender's account at the rails.
 * @throws insufficient-balance, zero-amount, unknown-token, and the sender's errors
 */
export function withdrawFromRails(
  client: ChainClient,
  options: Sending & { token: TokenChoice; amount: bigint; to?: Address },
): Promise<Receipt> {
  const { sender, key, amount, to = sender.address } = options;
  return sender.send({ contract: 'rails', functionName: 'withdraw', args: [tokenAddress(client, options.token), amount, to], key });
}

/**
 * Takes all that the sender has at the rails in a token: a beneficiary's earnings, a payer's refunds. Nothing to take is no error.
 * @returns the amount
 * @throws unknown-token, and the sender's errors
 */
export async function withdrawEarnings(client: ChainClient, options: Sending & { token: TokenChoice; to?: Address }): Promise<bigint> {
  const amount = await railsBalance(client, { token: options.token, account: options.sender.address });
  if (amount !== 0n) await withdrawFromRails(client, { ...options, amount });
  return amount;
}

/**
 * Lets a module open rails from the sender's account up to `allowance` in all. It replaces an earlier allowance.
 * @throws unknown-module, unknown-token, and the sender's errors
 */
export function approveMeter(
  client: ChainClient,
  options: Sending & { meter: ModuleName | Address; token: TokenChoice; allowance: bigint },
): Promise<Receipt> {
  const { sender, key, meter, allowance } = options;
  return sender.send({
    contract: 'rails',
    functionName: 'approve',
    args: [meterAddress(client, meter), tokenAddress(client, options.token), allowance],
    key,
  });
}

/** What a module may still take from a payer's account. @throws unknown-module, unknown-token, chain-unreachable */
export function meterAllowance(
  client: ChainClient,
  options: { payer: Address; meter: ModuleName | Address; token: TokenChoice },
): Promise<bigint> {
  return client.read('rails', 'allowanceOf', [options.payer, meterAddress(client, options.meter), tokenAddress(client, options.token)]);
}

/** An account's free money at the rails, base units. @throws unknown-token, chain-unreachable */
export function railsBalance(client: ChainClient, options: { token: TokenChoice; account: Address }): Promise<bigint> {
  return client.read('rails', 'balanceOf', [tokenAddress(client, options.token), options.account]);
}

/** A rail now. @throws unknown-rail, chain-unreachable */
export async function railOf(client: ChainClient, options: { railId: bigint }): Promise<RailState> {
  const args = [options.railId] as const;
  const [rail, end] = await Promise.all([client.read('rails', 'rail', args), client.read('rails', 'endOf', args)]);
  return {
    railId: options.railId,
    payer: rail.payer,
    operatorId: rail.payee,
    token: rail.token,
    meter: rail.meter,
    amount: rail.amount,
    intervalSeconds: rail.interval,
    lockupSeconds: rail.lockup,
    start: rail.start,
    end,
    settledTo: rail.settledTo,
    provenSeconds: rail.provenSeconds,
    escrow: rail.escrow,
    paid: rail.paid,
    refunded: rail.refunded,
    closed: rail.closed,
  };
}

/**
 * Pays for proven time and returns the money of unproven time, as far as the meter is sure. Anyone may, any number of times.
 * @returns what this settlement paid and returned; zeros when there was nothing to settle
 * @throws unknown-rail, meter-out-of-range, and the sender's errors
 */
export async function settleRail(options: Sending & { railId: bigint }): Promise<{ paid: bigint; refunded: bigint }> {
  const { sender, key, railId } = options;
  const receipt = await sender.send({ contract: 'rails', functionName: 'settle', args: [railId], key });
  const settled = receipt.events.find((event) => event.module === 'rails' && event.name === 'RailSettled');
  if (settled === undefined) return { paid: 0n, refunded: 0n };
  const { paid, refunded } = eventArgs(receipt, 'rails', 'RailSettled');
  return { paid, refunded };
}

/** The payer adds escrow from the own account at the rails. @throws not-payer, rail-is-closed, insufficient-balance, and the sender's errors */
export function topUpRail(options: Sending & { railId: bigint; amount: bigint }): Promise<Receipt> {
  const { sender, key, railId, amount } = options;
  return sender.send({ contract: 'rails', functionName: 'topUp', args: [railId, amount, 0n], key });
}

/** The payer takes back escrow beyond the lock-up of an open-ended rail. @throws escrow-too-small, not-payer, bad-interval, and the sender's errors */
export function reduceRail(options: Sending & { railId: bigint; amount: bigint }): Promise<Receipt> {
  const { sender, key, railId, amount } = options;
  return sender.send({ contract: 'rails', functionName: 'reduce', args: [railId, amount], key });
}

/**
 * What the rails hold and what they owe (balances and escrows) in a token. Equal but for tokens sent without a call.
 * @throws unknown-token, chain-unreachable
 */
export async function railsBooks(client: ChainClient, options: { token: TokenChoice }): Promise<{ held: bigint; owed: bigint }> {
  const token = tokenAddress(client, options.token);
  const [held, owed] = await Promise.all([
    tokenBalance(client, { token, account: client.address('rails') }),
    client.read('rails', 'obligationsOf', [token]),
  ]);
  return { held, owed };
}

function meterAddress(client: ChainClient, meter: ModuleName | Address): Address {
  return meter.startsWith('0x') ? (meter as Address) : client.address(meter as ModuleName);
}
