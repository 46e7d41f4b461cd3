import { listRetrievers, openPeerRecords, reportedOf } from '../storage/index.ts';
import { formatAmount, formatSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { recordsPath } from './paid-sources.ts';
import { openSession, stakeUnitOf } from './session.ts';

const REPORTED_MAX = 50;

/** Who sells reads, by their signed quotes, and what this client itself saw of each; cheats last. */
export async function retrievers(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const records = openPeerRecords(recordsPath(session)).all();
  const announced = await listRetrievers(session.client, { signal: context.signal });
  const reported = await reportedOf(
    session.client,
    announced.slice(0, REPORTED_MAX).map(({ announcement }) => announcement.holder),
    context.signal,
  );
  const quotes = new Map(announced.map(({ announcement }) => [announcement.holder.toLowerCase(), announcement]));
  const seen = new Map(records.map((record) => [record.holder.toLowerCase(), record]));
  const items = [...new Set([...quotes.keys(), ...seen.keys()])]
    .map((holder) => {
      const [quote, record] = [quotes.get(holder), seen.get(holder)];
      const tried = (record?.served ?? 0) + (record?.failed ?? 0);
      return {
        holder,
        endpoint: quote?.endpoint ?? record?.endpoint ?? '',
        pricePerGib: quote?.pricePerGib ?? null,
        chunkBytes: quote?.chunkBytes ?? null,
        holdings: quote?.cids.length ?? null,
        tried,
        successRate: tried === 0 ? null : (record?.served ?? 0) / tried,
        reported: reported.get(holder) ?? null,
        cheated: record?.cheated ?? 0,
        bytes: record?.bytes ?? 0,
        paid: record?.paid ?? 0n,
        lost: record?.lost ?? 0n,
      };
    })
    .sort((left, right) => left.cheated - right.cheated || (right.successRate ?? 0.5) - (left.successRate ?? 0.5));
  const unit = stakeUnitOf(session.manifest);
  context.output.result({ items, unit, next: null }, () => {
    const rows = items.map((item) => [
      `${item.holder.slice(0, 10)}…`,
      item.endpoint,
      item.pricePerGib === null ? 'no quote' : formatAmount(item.pricePerGib, TOKEN_DECIMALS),
      item.successRate === null ? 'not tried' : `${Math.round(item.successRate * 100)} % of ${item.tried}`,
      reportedText(item.reported),
      String(item.cheated),
      formatSize(item.bytes),
      formatAmount(item.paid, TOKEN_DECIMALS),
      formatAmount(item.lost, TOKEN_DECIMALS),
    ]);
    return `Prices in ${unit} for a GiB. Success is what this client saw itself; reported is what paying clients signed.\n${table(['holder', 'endpoint', 'per GiB', 'success', 'reported', 'cheated', 'read', 'paid', 'lost'], rows)}`;
  });
}

function reportedText(reported: { served: number; failed: number; clients: number } | null): string {
  const tried = reported === null ? 0 : reported.served + reported.failed;
  return reported === null || tried === 0 ? 'nothing' : `${Math.round((reported.served / tried) * 100)} % by ${reported.clients}`;
}
