import { CID } from 'multiformats/cid';
import { type Hex, hexToBytes } from 'viem';
import { MillraceError } from '../errors.ts';
import { actOnFile, type FileAction, type FileHistory, fileHistory, filesOfContent, parseCid, type StoredFile } from '../storage/index.ts';
import { formatAmount, formatSize, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSender } from './sending.ts';
import { openSession, stakeUnitOf } from './session.ts';

/** Options of `millrace file`; at most one of them. */
export interface FileCommandOptions {
  withdraw?: string;
  reserve?: string;
  challenges?: string;
  challenge?: string;
  end?: string;
  cancel?: boolean;
}

/** A file of the order book: each of its shards with provider and deal, its health, and its money, newest first; after an action, as it is then. */
export async function file(context: CommandContext, cid: string, options: FileCommandOptions): Promise<void> {
  const action = actionOf(options);
  if (action !== undefined) await act(context, cid, action);
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
  const unit = stakeUnitOf(manifest);
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
    `  price of a shard ${formatAmount(item.pricePerPeriod, TOKEN_DECIMALS)} ${unit} a period until period ${item.endPeriod}; reserve ${formatAmount(item.reserve, TOKEN_DECIMALS)}, challenges ${formatAmount(item.challengeBudget, TOKEN_DECIMALS)}, free ${formatAmount(item.free, TOKEN_DECIMALS)}`,
    `  ${item.losses.length} shards were lost, ${item.repairs.length} repaired; compensation ${formatAmount(item.compensation, TOKEN_DECIMALS)} ${unit}`,
    table(['shard', 'state', 'provider', 'deal', 'repair', 'cid'], rows),
  ].join('\n');
}

function textOf(cid: Hex): string {
  return CID.decode(hexToBytes(cid)).toString();
}

function actionOf({ withdraw, reserve, challenges, challenge, end, cancel }: FileCommandOptions): FileAction | undefined {
  const actions: FileAction[] = [];
  if (withdraw !== undefined) actions.push({ do: 'withdraw', amount: withdraw === 'all' ? 'all' : parseAmount(withdraw, TOKEN_DECIMALS) });
  if (reserve !== undefined) actions.push({ do: 'reserve', amount: parseAmount(reserve, TOKEN_DECIMALS) });
  if (challenges !== undefined) actions.push({ do: 'challenges', amount: parseAmount(challenges, TOKEN_DECIMALS) });
  if (challenge !== undefined) actions.push({ do: 'challenge', shard: shardNumber('--challenge', challenge) });
  if (end !== undefined) actions.push({ do: 'end', shard: shardNumber('--end', end) });
  if (cancel === true) actions.push({ do: 'cancel' });
  if (actions.length <= 1) return actions[0];
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${actions.length} things to do with the file, expected at most one`,
  });
}

function shardNumber(flag: string, text: string): number {
  if (/^\d{1,2}$/.test(text)) return Number(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${flag} ${text}, expected the number of a shard`,
    values: { flag, got: text },
    hint: 'See `millrace file`.',
  });
}

/** Does it with the newest of the wallet's own files about the content. */
async function act(context: CommandContext, cid: string, action: FileAction): Promise<void> {
  const { client, sender } = await openSender(context);
  try {
    const files = await filesOfContent(client, parseCid(cid).bytes);
    const own = files.find((entry) => entry.client.toLowerCase() === sender.address.toLowerCase()) ?? files[0];
    if (own !== undefined) await actOnFile({ client, sender, file: own, action });
  } finally {
    sender.close();
  }
}
