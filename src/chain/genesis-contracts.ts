import { readFileSync } from 'node:fs';
import { type Address, getContractAddress, type Hex, isAddressEqual, type PublicClient, pad, toHex } from 'viem';
import { isOurCode } from './build.ts';
import { abis } from './contracts.generated.ts';
import { EMISSION_NONCE } from './deploy-plan.ts';
import { chainError } from './errors.ts';

/** Where x402 v2 `batch-settlement` stands on every chain: stock clients have these addresses compiled in (npm `@x402/evm` 2.27). */
export const X402_CHANNELS: Address = '0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003';
/** The stock client's payees of ERC-3009 deposits, likewise. */
export const X402_DEPOSIT_COLLECTOR: Address = '0x4020806089470a89826cB9fB1f4059150b550004';

/** What the payment channels of a genesis block must know of the network that is still to be deployed. */
export interface GenesisChannels {
  /** Deploys the network with its first transactions: the token's address follows from that. */
  deployer: Address;
  /** As in the profile. */
  feeBps: number;
}

interface GenesisCode {
  contract: string;
  /** For each immutable, in the order of declaration, the places (bytes) where its 32-byte word stands. */
  immutables: number[][];
  runtime: Hex;
}

/** The contracts of a genesis block with their runtime code: payment channels and the stock client's collector of deposits. */
export function genesisContracts({ deployer, feeBps }: GenesisChannels): { address: Address; code: Hex }[] {
  const emission = getContractAddress({ from: deployer, nonce: EMISSION_NONCE });
  // The emission's constructor creates the token, as its first contract.
  const token = getContractAddress({ from: emission, nonce: 1n });
  const codes = JSON.parse(readFileSync(new URL('./genesis-code.generated.json', import.meta.url), 'utf8')) as Record<string, GenesisCode>;
  return [
    { address: X402_CHANNELS, code: fillImmutables(codes.channels as GenesisCode, [token, toHex(feeBps)]) },
    { address: X402_DEPOSIT_COLLECTOR, code: fillImmutables(codes.depositCollector as GenesisCode, [X402_CHANNELS]) },
  ];
}

/**
 * The address of payment channels that stand in the genesis block for this network, or `undefined` where there are none: other chains, and
 * an embedded one whose deployer had sent something before.
 * @throws chain-unreachable
 */
export async function findGenesisChannels(
  transport: PublicClient,
  expected: { feeToken: Address; feeBps: number },
): Promise<Address | undefined> {
  const address = X402_CHANNELS;
  try {
    const code = await transport.getCode({ address });
    if (code === undefined || !isOurCode('channels', code)) return undefined;
    const read = (functionName: 'feeToken' | 'feeBps') => transport.readContract({ address, abi: abis.channels, functionName });
    const [feeToken, feeBps] = await Promise.all([read('feeToken'), read('feeBps')]);
    return isAddressEqual(feeToken as Address, expected.feeToken) && feeBps === BigInt(expected.feeBps) ? address : undefined;
  } catch (error) {
    throw chainError(error, 'Looking for payment channels in the genesis block');
  }
}

function fillImmutables({ runtime, immutables }: GenesisCode, values: readonly Hex[]): Hex {
  const code = Buffer.from(runtime.slice(2), 'hex');
  for (const [index, places] of immutables.entries()) {
    const word = Buffer.from(pad(values[index] as Hex, { size: 32 }).slice(2), 'hex');
    for (const place of places) code.set(word, place);
  }
  return `0x${code.toString('hex')}`;
}
