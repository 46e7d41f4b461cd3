import { type Hex, keccak256, stringToHex } from 'viem';
import { type ChainClient, isSignedBy, type Signer } from '../../chain/index.ts';
import { networkName } from './partner-calls.ts';

/** Who measured whom: the seat of the device in an hour, and the operator that asked. */
export interface ReceiptOf {
  hour: number;
  seat: number;
  askerId: bigint;
}

/**
 * What a device's node signs for a partner that has checked its challenge. Nobody else can make it and it names the partner, so who has not asked, and
 * copies what others report, does not have it.
 */
export function receiptDigest(client: ChainClient, { hour, seat, askerId }: ReceiptOf): Hex {
  return keccak256(stringToHex(`millrace health receipt\n${networkName(client)}\n${hour}\n${seat}\n${askerId}`));
}

/** The receipt of the node whose key signs. */
export function signReceipt(client: ChainClient, signer: Pick<Signer, 'signDigest'>, of: ReceiptOf): Promise<Hex> {
  return signer.signDigest(receiptDigest(client, of));
}

/** Whether it is the receipt of a device whose node has this key. */
export function isReceipt(client: ChainClient, of: ReceiptOf, { nodeKey, receipt }: { nodeKey: Hex; receipt: Hex }): boolean {
  return isSignedBy(nodeKey, receiptDigest(client, of), receipt);
}

/** What a report says of a receipt, 16 bits that are never 0: who has none guesses it once in 65,535 times. */
export function receiptTag(receipt: Hex): number {
  return 1 + (Number(BigInt(keccak256(receipt)) >> 192n) % 0xffff);
}
