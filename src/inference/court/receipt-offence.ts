import type { InferenceReceipt } from '../serving/receipt.ts';

/** What the court of receipts convicts of on the spot. */
export type ReceiptOffence = 'units-above-limit' | 'price-above-voucher' | 'contradiction';

/** What one receipt alone convicts its signer of, by the rule of `ReceiptCourt.reportExcess`. */
export function excessOf({ inputs, outputs }: InferenceReceipt): Exclude<ReceiptOffence, 'contradiction'> | undefined {
  if (outputs.units > inputs.outputUnitsMax) return 'units-above-limit';
  return outputs.price > inputs.voucher ? 'price-above-voucher' : undefined;
}

/**
 * What a receipt says of its request, by the rule of `ReceiptDigest.claimHash`: two of one miner with one id and two of these exclude one another.
 * Times and how the answer ended are left out, since an honest miner may word them twice.
 */
export function claimOf({ subject, inputs, outputs }: InferenceReceipt): string {
  const { requestHash, units, outputUnitsMax, channelId, voucher } = inputs;
  const { responseHash, outputDigest, unit, price } = outputs;
  return [subject.modelRoot, requestHash, units, outputUnitsMax, channelId, voucher, responseHash, outputDigest, unit, outputs.units, price]
    .join('|')
    .toLowerCase();
}
