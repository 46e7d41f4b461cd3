import { CID } from 'multiformats/cid';
import { type Hex, hexToBytes } from 'viem';
import { MillraceError } from '../errors.ts';
import { type FileHistory, fileHistory, filesOfContent, parseCid, type StoredFile } from '../storage/index.ts';
import { formatAmount, formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession } from './session.ts';

/** A file of the order book: each of its shards with provider and deal, its health, and its money. Newest first. */
export async function file(context: CommandContext, cid: string): Promise<void> {
  const { client, manifest } = await openSession(context);
  const files = await filesOfContent(client, parseCid(cid).bytes);
  if (files.length === 0) {
    throw new MillraceError('no-file', {
      actor: 'caller',
      message: `No bid of the order book is about ${cid}`,
      values: { cid },
      hint: 'See `millrace ls`; contents of direct deals are in `millrace deals`.',
    });
  }
  const unit = manifest.tokens.network?.symbol ?? 'tokens';
  const items = await Promise.all(files.map(async (entry) => ({ ...fileRow(entry), ...(await fileHistory(client, entry.file)) })));
  context.output.result({ items, unit, profile: manifest.profile, next: null }, () =>
    items.map((item) => fileText(item, unit)).join('\n\n'),
  );
}

/** A file as people and programs see it: CIDs as text, deals by their state. */
export function fileRow(entry: StoredFile) {
  const { cid, shards, ...rest } = entry;
  return {
    ...rest,
    cid: textOf(cid),
    health: healthText(entry),
    shards: shards.map(({ index, state, dealId, operatorId, claimDealId, claimOperatorId, deal, operator, cid: shardCid }) => ({
      shard: index,
      cid: textOf(shardCid),
      state,
      dealId,
      operatorId,
      deal: deal?.state ?? 'none',
      endpoint: operator?.endpoint ?? '',
      claimDealId,
      claimOperatorId,
    })),
  };
}

/** "14 of 14 healthy, any 10 are enough", and how many are to be repaired. */
export function healthText({ filled, healthy, count, needed, jobs }: StoredFile): string {
  if (!filled) return 'waits for a batch';
  return `${healthy} of ${count} healthy, any ${needed} are enough${jobs === 0 ? '' : `, ${jobs} to repair`}`;
}

function fileText(item: ReturnType<typeof fileRow> & FileHistory, unit: string): string {
  const rows = item.shards.map((shard) => [
    String(shard.shard),
    shard.state,
    shard.operatorId === 0n ? '' : String(shard.operatorId),
    shard.dealId === 0n ? '' : `${shard.dealId} ${shard.deal}`,
    shard.claimDealId === 0n ? '' : `by ${shard.claimOperatorId}, deal ${shard.claimDealId}`,
    shard.cid,
  ]);
  return [
    `${item.cid}: ${item.health}`,
    `  bid ${item.bidId}, account ${item.file}, ${item.count} shards of ${formatSize(item.shardSize)}, repaired below ${item.repairBelow}`,
    `  price of a shard ${formatAmount(item.pricePerPeriod, 18)} ${unit} a period until period ${item.endPeriod}; reserve ${formatAmount(item.reserve, 18)}, challenges ${formatAmount(item.challengeBudget, 18)}, free ${formatAmount(item.free, 18)}`,
    `  ${item.losses.length} shards were lost, ${item.repairs.length} repaired; compensation ${formatAmount(item.compensation, 18)} ${unit}`,
    table(['shard', 'state', 'provider', 'deal', 'repair', 'cid'], rows),
  ].join('\n');
}

function textOf(cid: Hex): string {
  return CID.decode(hexToBytes(cid)).toString();
}
