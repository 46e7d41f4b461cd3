import { type Address, encodeAbiParameters, type Hex, isAddressEqual } from 'viem';
import { type ChainClient, chainError, X402_CHANNELS, X402_DEPOSIT_COLLECTOR } from '../chain/index.ts';
import { allowTokens, type Sending } from './contract-call.ts';
import type { ChannelConfig, SignedVoucher } from './voucher.ts';

/** What the chain has of a channel; amounts in base units, times in seconds. */
export interface ChannelState {
  /** All that was deposited and not given back, claimed or not. */
  balance: bigint;
  totalClaimed: bigint;
  /** A withdrawal that the payer asked for. */
  withdrawal: { amount: bigint; initiatedAt: number } | undefined;
}

/** A claim of a channel's voucher: `total` of at most the voucher's maximum. */
export interface ChannelClaim {
  config: ChannelConfig;
  voucher: SignedVoucher;
  total: bigint;
}

/** What the chain has of a channel. @throws chain-unreachable */
export async function readChannel(client: ChainClient, channelId: Hex): Promise<ChannelState> {
  const [[balance, totalClaimed], [amount, initiatedAt]] = await Promise.all([
    client.read('channels', 'channels', [channelId]),
    client.read('channels', 'pendingWithdrawals', [channelId]),
  ]);
  return { balance, totalClaimed, withdrawal: initiatedAt === 0 ? undefined : { amount, initiatedAt } };
}

/** Puts money of the sender, who is the channel's payer, into a channel. @throws no-funds, withdraw-delay-out-of-range, chain-unreachable */
export async function depositIntoChannel(
  client: ChainClient,
  options: Sending & { config: ChannelConfig; amount: bigint },
): Promise<{ transaction: Hex }> {
  const { sender, key, config, amount } = options;
  const contract = client.address('channels');
  await allowTokens(client, { sender, key, token: config.token, spender: contract, amount });
  const { hash } = await sender.send({ contract: 'channels', functionName: 'deposit', args: [config, amount, contract, '0x'], key });
  return { transaction: hash };
}

/** Sends a deposit that the payer authorized by ERC-3009 (the authorization names its collector: the stock one where there is one). */
export async function depositAuthorized(
  options: Sending & {
    client: ChainClient;
    config: ChannelConfig;
    deposit: { amount: bigint; validAfter: bigint; validBefore: bigint; salt: bigint; signature: Hex };
  },
): Promise<{ transaction: Hex }> {
  const { client, sender, key, config, deposit } = options;
  const contract = client.address('channels');
  const data = encodeAbiParameters(
    [{ type: 'uint256' }, { type: 'uint256' }, { type: 'uint256' }, { type: 'bytes' }],
    [deposit.validAfter, deposit.validBefore, deposit.salt, deposit.signature],
  );
  const args = [config, deposit.amount, depositCollector(contract), data] as const;
  const { hash } = await sender.send({ contract: 'channels', functionName: 'deposit', args, key });
  return { transaction: hash };
}

/** To whom the payer of a gasless deposit authorizes its transfer (ERC-3009 `to`). */
export function depositCollector(contract: Address): Address {
  return isAddressEqual(contract, X402_CHANNELS) ? X402_DEPOSIT_COLLECTOR : contract;
}

/** Claims as the contract takes them. */
export function claimRows(claims: readonly ChannelClaim[]) {
  return claims.map(({ config, voucher, total }) => ({
    voucher: { channel: config, maxClaimableAmount: voucher.maxClaimableAmount },
    signature: voucher.signature,
    totalClaimed: total,
  }));
}

/** Claims channels, and pays out what the receiver of the first has in its token. The sender is of every channel's receiver side. */
export async function claimChannels(
  options: Sending & { claims: readonly ChannelClaim[] },
): Promise<{ transaction: Hex; gasUsed: bigint }> {
  const { sender, key, claims } = options;
  const args = [claimRows(claims)] as const;
  const { hash, gasUsed } = await sender.send({ contract: 'channels', functionName: 'claimAndSettle', args, key });
  return { transaction: hash, gasUsed };
}

/**
 * Asks for all that is unclaimed of a channel; it may be fetched at `finalizeAfter` (protocol time), and until then the receiver may
 * claim. `undefined` when nothing is left.
 * @throws withdrawal-pending, not-channel-payer, chain-unreachable
 */
export async function requestChannelWithdrawal(
  client: ChainClient,
  options: Sending & { config: ChannelConfig; channelId: Hex },
): Promise<{ finalizeAfter: bigint } | undefined> {
  const { sender, key, config, channelId } = options;
  const before = await readChannel(client, channelId);
  if (before.withdrawal !== undefined) return { finalizeAfter: BigInt(before.withdrawal.initiatedAt + config.withdrawDelay) };
  const available = before.balance - before.totalClaimed;
  if (available === 0n) return undefined;
  await sender.send({ contract: 'channels', functionName: 'initiateWithdraw', args: [config, available], key });
  const after = await readChannel(client, channelId);
  return { finalizeAfter: BigInt((after.withdrawal?.initiatedAt ?? 0) + config.withdrawDelay) };
}

/** Fetches what was asked for. @throws no-withdrawal-pending, withdraw-delay-not-elapsed, chain-unreachable */
export async function finishChannelWithdrawal(options: Sending & { config: ChannelConfig }): Promise<{ transaction: Hex }> {
  const { sender, key, config } = options;
  const { hash } = await sender.send({ contract: 'channels', functionName: 'finalizeWithdraw', args: [config], key });
  return { transaction: hash };
}

const tokenDomainAbi = [
  {
    type: 'function',
    name: 'eip712Domain',
    inputs: [],
    outputs: [
      { type: 'bytes1' },
      { type: 'string' },
      { type: 'string' },
      { type: 'uint256' },
      { type: 'address' },
      { type: 'bytes32' },
      { type: 'uint256[]' },
    ],
    stateMutability: 'view',
  },
  { type: 'function', name: 'name', inputs: [], outputs: [{ type: 'string' }], stateMutability: 'view' },
  { type: 'function', name: 'version', inputs: [], outputs: [{ type: 'string' }], stateMutability: 'view' },
] as const;

/** A token's EIP-712 name and version (ERC-5267, else `name()` and `version()` as USDC has them); `undefined` when it has none. */
export async function readTokenDomain(client: ChainClient, token: Address): Promise<{ name: string; version: string } | undefined> {
  const read = (functionName: 'eip712Domain' | 'name' | 'version') =>
    client.public.readContract({ address: token, abi: tokenDomainAbi, functionName }).catch((error) => {
      const failure = chainError(error, `Reading the signing domain of token ${token}`);
      if (failure.code === 'chain-unreachable') throw failure;
      return undefined;
    });
  const domain = (await read('eip712Domain')) as readonly [string, string, string] | undefined;
  if (domain !== undefined) return { name: domain[1], version: domain[2] };
  const [name, version] = (await Promise.all([read('name'), read('version')])) as [string | undefined, string | undefined];
  return name === undefined || version === undefined ? undefined : { name, version };
}
