import type { Hex } from 'viem';
import { abis, type ChainClient, chainError } from '../../chain/index.ts';

/** What happened to a file's shards and its money, by the events of its account. Money in base units. */
export interface FileHistory {
  /** Compensation that was collected, of all slashes for this file. */
  compensation: bigint;
  /** Taken out by the owner. */
  withdrawn: bigint;
  losses: { shard: number; dealId: bigint; operatorId: bigint; transactionHash: Hex }[];
  repairs: { shard: number; dealId: bigint; operatorId: bigint; bounty: bigint; transactionHash: Hex }[];
  failedClaims: { shard: number; dealId: bigint; operatorId: bigint; transactionHash: Hex }[];
}

/** The history of a file's account, oldest first. @throws chain-unreachable */
export async function fileHistory(client: ChainClient, file: Hex): Promise<FileHistory> {
  const history: FileHistory = { compensation: 0n, withdrawn: 0n, losses: [], repairs: [], failedClaims: [] };
  const events = await client.public.getContractEvents({ address: file, abi: abis.storageFile, fromBlock: 0n }).catch((error: unknown) => {
    throw chainError(error, `Reading the events of file ${file}`);
  });
  for (const { eventName, args, transactionHash } of events) {
    const of = args as { shard: number; dealId: bigint; operatorId: bigint; bounty: bigint; amount: bigint };
    const { shard, dealId, operatorId } = of;
    if (eventName === 'CompensationCollected') history.compensation += of.amount;
    if (eventName === 'Withdrawn') history.withdrawn += of.amount;
    if (eventName === 'ShardLost') history.losses.push({ shard, dealId, operatorId, transactionHash });
    if (eventName === 'RepairFinished') history.repairs.push({ shard, dealId, operatorId, bounty: of.bounty, transactionHash });
    if (eventName === 'ClaimFailed') history.failedClaims.push({ shard, dealId, operatorId, transactionHash });
  }
  return history;
}
