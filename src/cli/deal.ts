import { extendDeal as extend } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { dealNumber, wholeNumber } from './put.ts';
import { openSender } from './sending.ts';

/** Ends one of your deals at the next period, for the fee of the profile. */
export async function endDeal(context: CommandContext, deal: string): Promise<void> {
  await act(context, deal, 'endEarly', 'ends with this period');
}

/** Pays what was proven, returns what was not, takes fees. */
export async function settleDeal(context: CommandContext, deal: string): Promise<void> {
  await act(context, deal, 'settle', 'is settled');
}

/** Prolongs a deal; the provider signs too. */
export async function extendDeal(context: CommandContext, deal: string, options: { periods: string }): Promise<void> {
  const opened = await openSender(context);
  try {
    const result = await extend({ client: opened.client, signer: opened.signer, sender: opened.sender, dealId: dealNumber(deal), periods: wholeNumber('--periods', options.periods), signal: context.signal });
    context.output.result(result, () => `Deal ${deal} now runs until period ${result.endPeriod}.`);
  } finally {
    opened.sender.close();
  }
}

async function act(context: CommandContext, deal: string, functionName: 'endEarly' | 'settle', outcome: string): Promise<void> {
  const opened = await openSender(context);
  try {
    const receipt = await opened.sender.send({ contract: 'storageMarket', functionName, args: [dealNumber(deal)] });
    context.output.result({ dealId: dealNumber(deal), transaction: receipt.hash }, () => `Deal ${deal} ${outcome} (${receipt.hash}).`);
  } finally {
    opened.sender.close();
  }
}
