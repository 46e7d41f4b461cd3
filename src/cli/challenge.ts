import { challengeDeal } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { dealNumber } from './put.ts';
import { openSender } from './sending.ts';

/** Makes a provider prove one of your deals now, and waits for the outcome. */
export async function challenge(context: CommandContext, deal: string): Promise<void> {
  const opened = await openSender(context);
  try {
    const outcome = await challengeDeal({ client: opened.client, sender: opened.sender, dealId: dealNumber(deal), signal: context.signal });
    context.output.result(outcome, () =>
      outcome.answered
        ? `Deal ${deal}: the provider proved that it holds the piece (transaction ${outcome.transaction}). The bond goes to it.`
        : `Deal ${deal}: no answer before the deadline; the deal is ended, you are compensated (transaction ${outcome.transaction}).`,
    );
  } finally {
    opened.sender.close();
  }
}
