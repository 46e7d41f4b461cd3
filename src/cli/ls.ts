import { type ContentRow, listContents } from '../storage/index.ts';
import { formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';

/** What this wallet stored: one line per content, with how many of its copies are alive. */
export async function ls(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const items: ContentRow[] = await listContents(session.client, signer.address);
  context.output.result({ items, next: null }, () =>
    items.length === 0
      ? 'Nothing stored yet. Next: millrace put FILE'
      : table(['cid', 'size', 'copies', 'deals'], items.map((item) => [item.cid, formatSize(item.sizeBytes), `${item.alive} of ${item.deals.length}`, item.deals.map((deal) => `${deal.dealId} ${deal.state}`).join(', ')])),
  );
}
