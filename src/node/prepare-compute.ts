import { type Address, encodeFunctionData, erc20Abi } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { tokenBalance } from '../token/index.ts';
import type { ComputeSettings } from './compute-settings.ts';

const CLIENT_STABLE = 10_000n * 10n ** 6n;
const CLIENT_COMPUTE = 10_000n * 10n ** 18n;

/** What every node of a development network is told: it shares the machine, and runs commands, because every renter is its owner. */
export function localComputeSettings(nodes: number): ComputeSettings {
  return { computeNodesHere: String(nodes), jobCommands: 'yes' };
}

/** Gives the development client what jobs and leases are paid in: the worthless stable token, and the compute network's own. */
export async function prepareCompute(client: ChainClient, { faucet, renter }: { faucet: Sender; renter: Address }): Promise<void> {
  const stable = await tokenBalance(client, { token: 'stable', account: renter });
  if (stable < CLIENT_STABLE) await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [renter, CLIENT_STABLE - stable] });
  const native = await tokenBalance(client, { token: 'compute', account: renter });
  if (native >= CLIENT_COMPUTE) return;
  const data = encodeFunctionData({ abi: erc20Abi, functionName: 'transfer', args: [renter, CLIENT_COMPUTE - native] });
  await faucet.send({ to: client.address('computeToken'), data });
}
