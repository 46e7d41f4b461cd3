import type { Address } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';

/** What stands behind a miner's receipts at the court. Money in base units of the network's token. */
export interface ReceiptBond {
  /** In office, with the whole bond locked, and this key bound: what gateways ask before they pay. */
  isBonded: boolean;
  /** What a miner has to lock. */
  needed: bigint;
  locked: bigint;
  /** The key whose receipts convict; undefined while none was ever bound. */
  key: Address | undefined;
  /** When the bond of one who left can be had back, seconds; undefined in office. */
  unlocksAt: bigint | undefined;
  openCases: number;
}

/** Whether a network has a court of receipts: older ones have none, and there nobody needs a bond. */
export function hasReceiptCourt(client: ChainClient): boolean {
  return Object.hasOwn(client.manifest.modules, 'receiptCourt');
}

/** An operator's bond, as it is with this node key. @throws unknown-module, chain-unreachable */
export async function readReceiptBond(client: ChainClient, options: { operatorId: bigint; key: Address }): Promise<ReceiptBond> {
  const { operatorId, key } = options;
  const [isBonded, config, locked, miner] = await Promise.all([
    client.read('receiptCourt', 'isBonded', [operatorId, key]),
    client.read('receiptCourt', 'config'),
    client.read('stakeVault', 'lockedOfModule', [operatorId, client.address('receiptCourt')]),
    client.read('receiptCourt', 'miner', [operatorId]),
  ]);
  return {
    isBonded,
    needed: config.bond,
    locked,
    key: BigInt(miner.key) === 0n ? undefined : miner.key,
    unlocksAt: miner.unlocksAt === 0 ? undefined : BigInt(miner.unlocksAt),
    openCases: miner.openCases,
  };
}

/**
 * Sees to it that a miner is bonded: the node key, which `sender` holds, locks the bond or what is missing of it, and binds itself. Does nothing
 * when it is bonded, when the network has no court, or when the miner has left office and `returns` is not set.
 * @returns what there was to do
 * @throws insufficient-unlocked when the operator's free stake (or what its key may promise) is less than the bond, and the sender's errors
 */
export async function ensureReceiptBond(
  client: ChainClient,
  options: { sender: Sender; operatorId: bigint; returns?: boolean },
): Promise<'done' | 'nothing' | 'left'> {
  const { sender, operatorId, returns = false } = options;
  if (!hasReceiptCourt(client)) return 'nothing';
  const { isBonded, unlocksAt } = await readReceiptBond(client, { operatorId, key: sender.address });
  if (isBonded) return 'nothing';
  if (unlocksAt !== undefined && !returns) return 'left';
  await sender.send({ contract: 'receiptCourt', functionName: 'enrol', args: [operatorId] });
  return 'done';
}

/**
 * A miner leaves office: its receipts convict it for a while yet, then the bond can be had back. Can be repeated.
 * @returns from when on, seconds; undefined where there is no court or it never was in office
 * @throws no-operator
 */
export async function leaveReceiptCourt(client: ChainClient, options: { sender: Sender; operatorId: bigint }): Promise<bigint | undefined> {
  const { sender, operatorId } = options;
  if (!hasReceiptCourt(client)) return undefined;
  const { key, unlocksAt } = await client.read('receiptCourt', 'miner', [operatorId]);
  if (BigInt(key) === 0n) return undefined;
  if (unlocksAt !== 0) return BigInt(unlocksAt);
  await sender.send({ contract: 'receiptCourt', functionName: 'leave', args: [operatorId] });
  return BigInt((await client.read('receiptCourt', 'miner', [operatorId])).unlocksAt);
}

/** Anybody: frees the bond of a miner that left, whose delay is over. @throws not-left, still-locked, cases-open */
export async function unlockReceiptBond(options: { sender: Sender; operatorId: bigint }): Promise<void> {
  await options.sender.send({ contract: 'receiptCourt', functionName: 'unlock', args: [options.operatorId] });
}
