import { type Address, encodeFunctionData, erc20Abi } from 'viem';
import { type AnyChainEvent, type ChainClient, chainError, type ModuleName, type Receipt, type Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';

/** What every function that changes something takes: who sends, and the idempotency key (see `Sender.send`). */
export interface Sending {
  sender: Sender;
  key?: string;
}

/** Whose token an amount is in: the network's own, its stable token, that of inference or of compute, or any ERC-20 by address. */
export type TokenChoice = 'network' | 'stable' | 'inference' | 'compute' | Address;

/** The address of a token. @throws unknown-token */
export function tokenAddress(client: ChainClient, token: TokenChoice): Address {
  if (token.startsWith('0x')) return token as Address;
  const known = Object.hasOwn(client.manifest.tokens, token) ? client.manifest.tokens[token] : undefined;
  if (known !== undefined) return known.address;
  throw new MillraceError('unknown-token', {
    actor: 'caller',
    message: `The network ${client.manifest.name} has no token "${token}"`,
    values: { got: token, expected: Object.keys(client.manifest.tokens) },
  });
}

type EventOf<N extends ModuleName, E extends string> = Extract<AnyChainEvent, { module: N; name: E }>;

/** The arguments of the one event of a name that a transaction must have made. @throws event-missing */
export function eventArgs<N extends ModuleName, E extends EventOf<N, string>['name']>(
  receipt: Receipt,
  module: N,
  name: E,
): EventOf<N, E>['args'] {
  const found = receipt.events.find((event) => event.module === module && event.name === name);
  if (found !== undefined) return found.args as EventOf<N, E>['args'];
  throw new MillraceError('event-missing', {
    actor: 'chain',
    message: `Transaction ${receipt.hash} made no event ${module}.${name}`,
    values: { transaction: receipt.hash, module, event: name },
    hint: 'The contract at this address is not the one that the manifest says.',
  });
}

/**
 * What an account holds of a token, base units.
 * @throws unknown-token, chain-unreachable
 */
export function tokenBalance(client: ChainClient, options: { token: TokenChoice; account: Address }): Promise<bigint> {
  return readToken(client, tokenAddress(client, options.token), 'balanceOf', [options.account]);
}

/**
 * Lets `spender` take `amount` of a token from the sender, when it may not already. No open-ended allowance is ever given.
 * @throws unknown-token, no-funds, chain-unreachable
 */
export async function allowTokens(
  client: ChainClient,
  options: Sending & { token: TokenChoice; spender: Address; amount: bigint },
): Promise<void> {
  const { sender, spender, amount } = options;
  const token = tokenAddress(client, options.token);
  const allowed = await readToken(client, token, 'allowance', [sender.address, spender]);
  if (allowed >= amount) return;
  const data = encodeFunctionData({ abi: erc20Abi, functionName: 'approve', args: [spender, amount] });
  await sender.send({ to: token, data, key: options.key === undefined ? undefined : `${options.key}:approve` });
}

async function readToken(
  client: ChainClient,
  token: Address,
  functionName: 'allowance' | 'balanceOf',
  args: readonly Address[],
): Promise<bigint> {
  try {
    return (await client.public.readContract({ address: token, abi: erc20Abi, functionName, args } as never)) as bigint;
  } catch (error) {
    throw chainError(error, `Reading ${functionName} of token ${token}`);
  }
}
