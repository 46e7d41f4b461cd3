import { type Address, encodeFunctionData, erc20Abi } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { tokenBalance } from '../token/index.ts';
import type { ComputeSettings } from './compute-settings.ts';

const CLIENT_STABLE = 10_000n * 10n ** 6n;
/** For the probers whom a node asks where a renter is silent. */
const NODE_STABLE = 10n * 10n ** 6n;
const CLIENT_COMPUTE = 10_000n * 10n ** 18n;

/** What every node of a development network is told: it shares the machine, and runs commands, because every renter is its owner. */
export function localComputeSettings(nodes: number): ComputeSettings {
  return { computeNodesHere: String(nodes), jobCommands: 'yes', jobCanaries: 'yes' };
}

/**
 * Gives the development client what jobs and leases are paid in: the worthless stable token, and the compute network's own; and each node some of
 * the stable one, from which it pays probers.
 */
export async function prepareCompute(
  client: ChainClient,
  { faucet, renter, nodeKeys }: { faucet: Sender; renter: Address; nodeKeys: readonly Address[] },
): Promise<void> {
  await topUpStable(client, faucet, renter, CLIENT_STABLE);
  for (const nodeKey of nodeKeys) await topUpStable(client, faucet, nodeKey, NODE_STABLE);
  const native = await tokenBalance(client, { token: 'compute', account: renter });
  if (native >= CLIENT_COMPUTE) return;
  const data = encodeFunctionData({ abi: erc20Abi, functionName: 'transfer', args: [renter, CLIENT_COMPUTE - native] });
  await faucet.send({ to: client.address('computeToken'), data });
}

async function topUpStable(client: ChainClient, faucet: Sender, account: Address, wanted: bigint): Promise<void> {
  const held = await tokenBalance(client, { token: 'stable', account });
  if (held < wanted) await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [account, wanted - held] });
}
