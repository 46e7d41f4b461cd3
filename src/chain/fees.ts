import type { PublicClient } from 'viem';

/** EIP-1559 fees, or a legacy gas price where the chain has no base fee. Wei per gas. */
export type Fees = { maxFeePerGas: bigint; maxPriorityFeePerGas: bigint } | { gasPrice: bigint };

/**
 * Fees for a transaction that should be in one of the next blocks: twice the base fee, and the chain's suggested tip.
 * @param tipless on the embedded chain: fee recipients there are random addresses, and a tip would create an account per block
 */
export async function chooseFees(client: PublicClient, tipless: boolean): Promise<Fees> {
  const block = await client.getBlock({ blockTag: 'latest' });
  if (block.baseFeePerGas === null) return { gasPrice: await client.getGasPrice() };
  const tip = tipless ? 0n : BigInt(await client.request({ method: 'eth_maxPriorityFeePerGas' }).catch(() => '0x3b9aca00' as const));
  return { maxFeePerGas: 2n * block.baseFeePerGas + tip, maxPriorityFeePerGas: tip };
}

/** Fees with which nodes accept a replacement (at least 12.5 % more, rounded up), and no less than what is asked now. */
export function bumpFees(old: Fees, now: Fees): Fees {
  if ('gasPrice' in old || 'gasPrice' in now) return { gasPrice: larger(raised(perGas(old)), perGas(now)) };
  const maxPriorityFeePerGas = larger(raised(old.maxPriorityFeePerGas), now.maxPriorityFeePerGas);
  return { maxFeePerGas: larger(raised(old.maxFeePerGas), now.maxFeePerGas, maxPriorityFeePerGas), maxPriorityFeePerGas };
}

/** The most that a unit of gas may cost under these fees, in wei. */
export function perGas(fees: Fees): bigint {
  return 'gasPrice' in fees ? fees.gasPrice : fees.maxFeePerGas;
}

/** The fees of a signed transaction. */
export function feesOf(transaction: { maxFeePerGas?: bigint; maxPriorityFeePerGas?: bigint; gasPrice?: bigint }): Fees {
  const { maxFeePerGas, maxPriorityFeePerGas = 0n, gasPrice = 0n } = transaction;
  return maxFeePerGas === undefined ? { gasPrice } : { maxFeePerGas, maxPriorityFeePerGas };
}

/** The same fees, but no more than a limit (wei per gas). */
export function limitFees(fees: Fees, limit: bigint): Fees {
  if (perGas(fees) <= limit) return fees;
  if ('gasPrice' in fees) return { gasPrice: limit };
  return { maxFeePerGas: limit, maxPriorityFeePerGas: fees.maxPriorityFeePerGas > limit ? limit : fees.maxPriorityFeePerGas };
}

function raised(value: bigint): bigint {
  return (value * 9n + 7n) / 8n + 1n;
}

function larger(first: bigint, ...others: bigint[]): bigint {
  let most = first;
  for (const value of others) if (value > most) most = value;
  return most;
}
