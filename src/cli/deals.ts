import { listDeals, parseCid, showDeal } from '../storage/index.ts';
import { formatAmount, formatDuration, formatSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { type DealProofs, type DealRow, dealRows, withProofs } from './deal-rows.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSession, stakeUnitOf } from './session.ts';
import { randomnessText } from './status.ts';

/** Deals with their state, proofs and money, as the chain has them. */
export async function deals(context: CommandContext, cid: string | undefined, options: { all: boolean }): Promise<void> {
  if (cid !== undefined) parseCid(cid);
  const session = await openSession(context);
  const { client, manifest } = session;
  const found = options.all ? await everyDeal() : await listDeals(client, (await openWallet(context, session)).address);
  const items = await withProofs(
    client,
    (await dealRows(client, found)).filter((row) => cid === undefined || row.cid === cid),
  );
  const now = await client.now();
  const unit = stakeUnitOf(manifest);
  const randomness = randomnessText(manifest.randomness.source);
  context.output.result({ items, unit, profile: manifest.profile, randomness, evidence: 'proven', next: null }, () => {
    if (items.length === 0) return 'No deals.';
    const rows = items.map((item) => [
      String(item.dealId),
      String(item.operatorId),
      item.state,
      formatSize(item.rawSize),
      item.firstPeriod === 0n ? '' : `${item.firstPeriod} to ${item.endPeriod - 1n}`,
      String(item.provenPeriods),
      nextProofText(item, now),
      String(item.settledPeriods),
      formatAmount(item.paid, TOKEN_DECIMALS),
      formatAmount(item.refunded, TOKEN_DECIMALS),
      item.cid,
    ]);
    return `Proofs: profile ${manifest.profile}, randomness: ${randomness}. Proven and settled count periods: what is proven is paid when it is settled, by its provider now and then or by \`millrace deal settle\`. Money in ${unit}.\n${table(['deal', 'provider', 'state', 'size', 'periods', 'proven', 'next proof', 'settled', 'paid', 'refunded', 'cid'], rows)}`;
  });

  async function everyDeal() {
    const count = await client.read('storageMarket', 'dealCount');
    return Promise.all(Array.from({ length: Number(count) }, (_, index) => showDeal(client, BigInt(index + 1))));
  }
}

/** When the next proof of a deal is due, in words. */
function nextProofText({ state, nextProof }: Pick<DealRow, 'state'> & Pick<DealProofs, 'nextProof'>, now: bigint): string {
  if (state === 'faulty') return 'fault declared';
  if (nextProof === null) return '';
  const { from, until } = nextProof;
  return now < from ? `in ${formatDuration(Number(from - now))}` : `now, within ${formatDuration(Number(until - now))}`;
}
