import { type DealReport, reportDeals } from '../storage/index.ts';
import { formatAmount, formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';
import { randomnessText } from './status.ts';

/** Deals with their state, proofs and money, as the chain has them. */
export async function deals(context: CommandContext, cid: string | undefined, options: { all: boolean }): Promise<void> {
  const session = await openSession(context);
  const { client, manifest } = session;
  const account = options.all ? undefined : (await openWallet(context, session)).address;
  const items: DealReport[] = await reportDeals(client, { account, cid });
  const unit = manifest.tokens.network?.symbol ?? 'tokens';
  const randomness = randomnessText(manifest.randomness.source);
  context.output.result({ items, unit, profile: manifest.profile, randomness, evidence: 'proven', next: null }, () => {
    if (items.length === 0) return 'No deals.';
    const rows = items.map((item) => [
      String(item.dealId),
      String(item.operatorId),
      item.state,
      formatSize(item.rawSize),
      item.firstPeriod === 0n ? '' : `${item.firstPeriod} to ${item.endPeriod}`,
      String(item.provenPeriods),
      formatAmount(item.paid, 18),
      formatAmount(item.refunded, 18),
      item.cid,
    ]);
    return `Proofs: profile ${manifest.profile}, randomness: ${randomness}. Money in ${unit}.\n${table(['deal', 'provider', 'state', 'size', 'periods', 'proven', 'paid', 'refunded', 'cid'], rows)}`;
  });
}
