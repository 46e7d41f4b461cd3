import { filesOfClient, listDeals } from '../storage/index.ts';
import { formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { type DealRow, dealRows } from './deal-rows.ts';
import { fileRow } from './file.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';

/** What this wallet stored: one line per content of direct deals, with how many of its copies are alive, and one per file of the order book, with its health. */
export async function ls(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const rows = await dealRows(session.client, await listDeals(session.client, signer.address));
  const byCid = new Map<string, DealRow[]>();
  for (const row of rows) byCid.set(row.cid, [...(byCid.get(row.cid) ?? []), row]);
  const items = [...byCid].map(([cid, deals]) => ({
    cid,
    sizeBytes: (deals[0] as DealRow).rawSize,
    copies: deals.filter((deal) => deal.state === 'active').length,
    deals: deals.map(({ dealId, operatorId, state }) => ({ dealId, operatorId, state })),
  }));
  const files = (await filesOfClient(session.client, signer.address)).map(fileRow);
  context.output.result({ items, files, next: null }, () => {
    if (items.length + files.length === 0) return 'Nothing stored yet. Next: millrace put FILE';
    const fileRows = files.map(({ cid, bidId, shardSize, needed, health }) => [
      cid,
      formatSize(shardSize * BigInt(needed)),
      `bid ${bidId}`,
      health,
    ]);
    const ofFiles = fileRows.length === 0 ? [] : [table(['cid', 'size', 'order', 'health'], fileRows)];
    const ofDeals =
      items.length === 0
        ? []
        : [
            table(
              ['cid', 'size', 'copies', 'deals'],
              items.map((item) => [
                item.cid,
                formatSize(item.sizeBytes),
                String(item.copies),
                item.deals.map((deal) => `${deal.dealId} ${deal.state}`).join(', '),
              ]),
            ),
          ];
    return [...ofDeals, ...ofFiles].join('\n\n');
  });
}
