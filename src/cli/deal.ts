import { endDeal as end, expireDeal as expire, extendDeal as extend, settleDeal as settle } from '../storage/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { dealNumber, wholeNumber } from './put.ts';
import { openSender } from './sending.ts';

/** Ends one of your deals with the running period, for the fee of the profile. */
export async function endDeal(context: CommandContext, deal: string): Promise<void> {
  await act(context, async ({ client, sender }) => {
    const result = await end({ client, sender, dealId: dealNumber(deal) });
    context.output.result(result, () => `Deal ${deal} ends before period ${result.endPeriod}.`);
  });
}

/** Closes a deal that never became active: the escrow comes back, both sides lose their bond. Anyone may. */
export async function expireDeal(context: CommandContext, deal: string): Promise<void> {
  await act(context, async ({ client, sender }) => {
    const result = await expire({ client, sender, dealId: dealNumber(deal) });
    context.output.result(result, () => `Deal ${deal} is closed; the escrow is back in your rails account, less the bond.`);
  });
}

/** Pays what was proven, returns what was not, takes fees. Anyone may. */
export async function settleDeal(context: CommandContext, deal: string): Promise<void> {
  await act(context, async ({ client, sender }) => {
    const result = await settle({ client, sender, dealId: dealNumber(deal) });
    context.output.result(
      result,
      () =>
        `Deal ${deal}: ${formatAmount(result.paid, TOKEN_DECIMALS)} paid, ${formatAmount(result.refunded, TOKEN_DECIMALS)} refunded so far.`,
    );
  });
}

/** Prolongs a deal; the provider signs too. */
export async function extendDeal(context: CommandContext, deal: string, options: { periods: string }): Promise<void> {
  await act(context, async ({ client, signer, sender }) => {
    const result = await extend({
      client,
      signer,
      sender,
      dealId: dealNumber(deal),
      periods: wholeNumber('--periods', options.periods),
      signal: context.signal,
    });
    context.output.result(result, () => `Deal ${deal} now runs until period ${result.endPeriod - 1n}.`);
  });
}

async function act(context: CommandContext, work: (opened: Awaited<ReturnType<typeof openSender>>) => Promise<void>): Promise<void> {
  const opened = await openSender(context);
  try {
    await work(opened);
  } finally {
    opened.sender.close();
  }
}
