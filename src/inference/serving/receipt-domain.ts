import type { ChainClient, ReceiptDomain } from '../../chain/index.ts';

/** What inference receipts of a network are bound to: its chain, and the contract that would judge them. @throws unknown-module */
export function inferenceReceiptDomain(client: ChainClient): ReceiptDomain {
  return { chainId: client.chainId, verifyingContract: client.address('receiptCourt') };
}
