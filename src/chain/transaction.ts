import {
  type Abi,
  type Address,
  encodeAbiParameters,
  encodeFunctionData,
  type Hex,
  keccak256,
  type PublicClient,
  parseTransaction,
} from 'viem';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ChainClient } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { chainError, revertDataOf, revertError } from './errors.ts';
import type { RawLog } from './event-decoder.ts';
import type { Fees } from './fees.ts';
import type { PlainCall } from './sender-journal.ts';
import type { Signer } from './signer.ts';

/** A receipt as JSON-RPC gives it. */
export interface RpcReceipt {
  transactionHash: Hex;
  blockNumber: Hex;
  blockHash: Hex;
  gasUsed: Hex;
  status: Hex;
  contractAddress: Address | null;
  logs: RawLog[];
}

/** A signed transaction. */
export interface SignedTransaction {
  hash: Hex;
  raw: Hex;
}

const GAS_MARGIN_PERCENT = 25n;
/** A checkpoint that was rewritten when it was simulated may be a new one a second later: four words of storage more. */
const GAS_MARGIN_STORAGE = 100_000n;
const GAS_LIMIT_MAX = 16_777_216n; // EIP-7825

/** The call data of a module's function. @throws bad-call, unknown-module */
export function encodeModuleCall(
  client: Pick<ChainClient, 'address'>,
  call: { contract: ModuleName; functionName: string; args: readonly unknown[]; value?: bigint },
): PlainCall {
  const to = client.address(call.contract);
  try {
    const data = encodeFunctionData({ abi: abis[call.contract] as unknown as Abi, functionName: call.functionName, args: call.args });
    return { to, data, value: call.value ?? 0n };
  } catch (error) {
    throw new MillraceError('bad-call', {
      actor: 'bug',
      message: `The arguments of ${call.contract}.${call.functionName} do not fit its ABI: ${(error as Error).message.split('\n')[0]}`,
      values: { contract: call.contract, functionName: call.functionName },
      cause: error,
    });
  }
}

/** What identifies a call: keccak256 of target, data and value. */
export function callHashOf({ to, data, value }: PlainCall): Hex {
  const place = to === null ? '0x' : (to.toLowerCase() as Hex);
  return keccak256(encodeAbiParameters([{ type: 'bytes' }, { type: 'bytes' }, { type: 'uint256' }], [place, data, value]));
}

/**
 * Gas for a call with a margin; the estimate is also the simulation, so that a call that would be reverted costs nothing.
 * @throws the contract's error code, no-funds, chain-unreachable
 */
export async function estimateGas(
  client: PublicClient,
  { from, call, blockTag, doing }: { from: Address; call: PlainCall; blockTag: 'latest' | 'pending'; doing: string },
): Promise<bigint> {
  const request = { account: from, to: call.to, data: call.data, value: call.value };
  try {
    const gas = await client.estimateGas({ ...request, blockTag } as never);
    const padded = gas + (gas * GAS_MARGIN_PERCENT) / 100n + (call.data === '0x' ? 0n : GAS_MARGIN_STORAGE);
    if (padded <= GAS_LIMIT_MAX) return padded;
    return gas > GAS_LIMIT_MAX ? gas : GAS_LIMIT_MAX;
  } catch (error) {
    // Some nodes give the reason only for a call.
    if (revertDataOf(error) === '0x') await client.call(request as never).catch((reason) => Promise.reject(chainError(reason, doing)));
    throw chainError(error, doing, { address: from });
  }
}

/** Signs a call. */
export async function signCall(
  signer: Signer,
  call: PlainCall,
  { chainId, nonce, gas, fees }: { chainId: number; nonce: number; gas: bigint; fees: Fees },
): Promise<SignedTransaction> {
  const type = 'gasPrice' in fees ? 'legacy' : 'eip1559';
  const transaction = { type, chainId, to: call.to ?? undefined, data: call.data, value: call.value, nonce, gas, ...fees };
  const raw = await signer.account.signTransaction(transaction as Parameters<typeof signer.account.signTransaction>[0]);
  return { hash: keccak256(raw), raw };
}

/** What became of a broadcast: in a pool, perhaps in a pool, refused for its nonce, or refused for good (then it is in no pool). */
export type BroadcastOutcome = 'accepted' | 'unknown' | 'nonce-too-low' | MillraceError;

/** Broadcasts a signed transaction; never throws. */
export async function broadcast(client: PublicClient, { hash, raw }: SignedTransaction, log: Logger): Promise<BroadcastOutcome> {
  try {
    await client.request({ method: 'eth_sendRawTransaction', params: [raw] }, { retryCount: 0 });
    return 'accepted';
  } catch (error) {
    const message = String((error as { details?: string }).details ?? (error as Error).message);
    if (/already known|already imported|known transaction|already exists/i.test(message)) return 'accepted';
    const refused = chainError(error, 'Broadcasting a transaction', { hash });
    if (refused.code === 'chain-unreachable') {
      log.warn('broadcast-unanswered', { hash, reason: refused.message });
      return 'unknown';
    }
    // An earlier try may have arrived although its answer did not.
    const seen = await client.request({ method: 'eth_getTransactionByHash', params: [hash] }).catch(() => null);
    if (seen !== null) return 'accepted';
    return /nonce (is )?too low|nonce has already been used|old nonce/i.test(message) ? 'nonce-too-low' : refused;
  }
}

/** The receipt of the first of these transactions that is in a block; `null` when none is. */
export async function findReceipt(client: PublicClient, hashes: readonly Hex[]): Promise<RpcReceipt | null> {
  for (const hash of hashes) {
    const receipt = await client.request({ method: 'eth_getTransactionReceipt', params: [hash] });
    if (receipt !== null && receipt.blockNumber !== null) return receipt as unknown as RpcReceipt;
  }
  return null;
}

/** Why a mined transaction was reverted, found by running it again on the state after it. */
export async function revertReason(client: PublicClient, from: Address, raw: Hex, receipt: RpcReceipt): Promise<MillraceError> {
  const { to, data, value, gas = 0n } = parseTransaction(raw);
  if (BigInt(receipt.gasUsed) * 64n >= gas * 63n) return outOfGas(receipt, gas);
  const context = { doing: `Transaction ${receipt.transactionHash}`, values: { hash: receipt.transactionHash } };
  for (const block of [{ blockNumber: BigInt(receipt.blockNumber) }, { blockTag: 'latest' as const }]) {
    try {
      await client.call({ account: from, to, data, value, ...block } as never);
    } catch (error) {
      const reason = revertDataOf(error);
      if (reason !== undefined && reason !== '0x') return revertError(reason, { ...context, cause: error });
    }
  }
  return revertError('0x', context);
}

/** EIP-150 keeps 1/64 from inner calls, so a call that ran dry may leave that much. */
function outOfGas(receipt: RpcReceipt, gas: bigint): MillraceError {
  return new MillraceError('out-of-gas', {
    actor: 'caller',
    message: `Transaction ${receipt.transactionHash} used up its ${gas} gas: the state changed after it was simulated`,
    values: { hash: receipt.transactionHash, gas },
    hint: 'Send it again; it had no effect.',
  });
}
