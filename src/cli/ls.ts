import { filesOfClient, listDeals } from '../storage/index.ts';
import { formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { type DealRow, dealRows } from './deal-rows.ts';
import { fileRow } from './file.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';
import { readNames } from './stored-names.ts';

/** What this wallet stored: one line per content of direct deals, with how many of its copies are alive, and one per file of the order book, with its health. Names and times are known for what was stored from this machine. */
export async function ls(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const names = readNames(session.folder.client);
  const named = <Item extends { cid: string }>(item: Item) => ({
    ...item,
    name: names.get(item.cid)?.name ?? null,
    storedAt: names.get(item.cid)?.at ?? null,
  });
  const rows = await dealRows(session.client, await listDeals(session.client, signer.address));
  const byCid = new Map<string, DealRow[]>();
  for (const row of rows) byCid.set(row.cid, [...(byCid.get(row.cid) ?? []), row]);
  const items = [...byCid].map(([cid, deals]) =>
    named({
      cid,
      sizeBytes: (deals[0] as DealRow).rawSize,
      copies: deals.filter((deal) => deal.state === 'active').length,
      deals: deals.map(({ dealId, operatorId, state }) => ({ dealId, operatorId, state })),
    }),
  );
  const files = (await filesOfClient(session.client, signer.address)).map((file) => named(fileRow(file)));
  context.output.result({ items, files, next: null }, () => {
    if (items.length + files.length === 0) return 'Nothing stored yet. Next: millrace put FILE';
    const fileRows = files.map(({ cid, name, storedAt, bidId, shardSize, needed, health }) => [
      cid,
      name ?? '',
      dayOf(storedAt),
      formatSize(shardSize * BigInt(needed)),
      `bid ${bidId}`,
      health,
    ]);
    const ofFiles = fileRows.length === 0 ? [] : [table(['cid', 'name', 'stored', 'size', 'order', 'health'], fileRows)];
    const ofDeals =
      items.length === 0
        ? []
        : [
            table(
              ['cid', 'name', 'stored', 'size', 'copies', 'deals'],
              items.map((item) => [
                item.cid,
                item.name ?? '',
                dayOf(item.storedAt),
                formatSize(item.sizeBytes),
                String(item.copies),
                item.deals.map((deal) => `${deal.dealId} ${deal.state}`).join(', '),
              ]),
            ),
          ];
    return [...ofDeals, ...ofFiles].join('\n\n');
  });
}

/** `2026-11-23 17:04`, in UTC. */
function dayOf(at: string | null): string {
  return at === null ? '' : at.slice(0, 16).replace('T', ' ');
}
