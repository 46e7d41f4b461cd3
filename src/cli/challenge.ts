import { challengeDeal, showDeal } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { dealNumber } from './put.ts';
import { openSender } from './sending.ts';

const POLL_MS = 1000;

/**
 * Makes a provider prove one of your deals, and waits for the outcome: proven, or, after the deadline, ended with your compensation.
 */
export async function challenge(context: CommandContext, deal: string): Promise<void> {
  const opened = await openSender(context);
  const { client, sender } = opened;
  const dealId = dealNumber(deal);
  try {
    const { deadline, bond } = await challengeDeal({ client, sender, dealId });
    context.output.note(
      `Deal ${deal} is challenged; the provider has until ${new Date(Number(deadline) * 1000).toISOString()} of chain time.`,
    );
    for (;;) {
      context.signal.throwIfAborted();
      const now = await showDeal(client, dealId);
      if (now.challengedAt === 0n && now.state !== 'terminated') {
        return context.output.result(
          { dealId, outcome: 'proven', bond, evidence: 'proven' },
          () => `Deal ${deal}: the provider proved that it holds the piece, and keeps the bond.`,
        );
      }
      if (now.state !== 'terminated' && (await client.now()) > deadline)
        await sender.send({ contract: 'storageMarket', functionName: 'terminate', args: [dealId] });
      else if (now.state !== 'terminated') await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      else
        return context.output.result(
          { dealId, outcome: 'terminated', bond },
          () => `Deal ${deal}: no proof before the deadline. It is ended; the slash compensates you (millrace wallet show).`,
        );
    }
  } finally {
    sender.close();
  }
}
