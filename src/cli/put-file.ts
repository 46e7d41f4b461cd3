import { MillraceError } from '../errors.ts';
import {
  type BidWishes,
  type FilePutEvent,
  type FilePutResult,
  parseDurability,
  putFile,
  renderDurability,
  shareKeyOfWallet,
} from '../storage/index.ts';
import { formatAmount, formatSize, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import type { Progress } from './output.ts';
import { PERIODS_DEFAULT, type PutCommandOptions, wholeNumber } from './put.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';
import { rememberName } from './stored-names.ts';

/** Stores a file by the order book, cut into shards or as copies, and waits until each shard is proven. Run again after an interruption, it goes on. */
export async function putByMarket(context: CommandContext, path: string, options: PutCommandOptions): Promise<void> {
  if (path === '-') throw badOption('path', path, 'a file or folder: a stream cannot be cut into shards again after an interruption');
  if (options.distinct) throw badOption('--distinct', 'true', 'no --distinct: shards differ anyway');
  const { durability, copies } = options;
  const wish = durability === undefined ? { k: 1, n: wholeNumber('--copies', copies) } : parseDurability(durability);
  const shape = 'nines' in wish ? wish : { needed: wish.k, count: wish.n };
  const opened = await openSender(context);
  const { output } = context;
  const progress = output.progress('');
  const unit = stakeUnitOf(opened.manifest);
  try {
    const recipients = options.public ? [] : [(await shareKeyOfWallet(opened.signer)).publicKey];
    const startedAt = performance.now();
    const result = await putFile({
      client: opened.client,
      signer: opened.signer,
      sender: opened.sender,
      folder: opened.folder.client,
      source: { path },
      shape,
      periods: options.periods === undefined ? PERIODS_DEFAULT : wholeNumber('--periods', options.periods),
      public: options.public,
      recipients,
      wishes: wishesOf(options),
      maxTotal: options.maxPrice === undefined ? undefined : parseAmount(options.maxPrice, TOKEN_DECIMALS),
      onEvent: (event) => showEvent(event, progress, output.note, unit),
      log: opened.log,
      signal: context.signal,
    });
    progress.end();
    rememberName(opened.folder.client, result.cid, path);
    const seconds = Number(((performance.now() - startedAt) / 1000).toFixed(1));
    output.result({ ...result, unit, seconds, profile: opened.manifest.profile, evidence: 'proven' }, () =>
      resultText(result, seconds, unit),
    );
  } finally {
    progress.end();
    opened.sender.close();
  }
}

function wishesOf(options: PutCommandOptions): BidWishes {
  return {
    maxPrice: options.bidPrice === undefined ? undefined : parseAmount(options.bidPrice, TOKEN_DECIMALS),
    repairBelow: options.repairBelow === undefined ? undefined : wholeNumber('--repair-below', options.repairBelow),
    agent: options.agent === undefined ? undefined : parseAddress('--agent', options.agent),
    distinctNetworks: options.distinctNetworks,
    regionMax: options.regionMax === undefined ? undefined : wholeNumber('--region-max', options.regionMax),
    collateralPerGiB: options.collateral === undefined ? undefined : parseAmount(options.collateral, TOKEN_DECIMALS),
  };
}

function resultText(result: FilePutResult, seconds: number, unit: string): string {
  const placed = result.count - result.failed.length;
  return [
    `Stored ${formatSize(result.sizeBytes)}${result.isSealed ? ', encrypted' : ', public'}: ${placed} of ${result.count} shards after ${seconds} s; any ${result.needed} give it back.`,
    `  bid ${result.bidId}, account ${result.file}, ${formatAmount(result.price, TOKEN_DECIMALS)} ${unit} per GiB and period`,
    ...result.shards
      .filter(({ shard }) => !result.failed.some((failed) => failed.shard === shard))
      .map(
        ({ shard, dealId, operatorId, isActive }) =>
          `  shard ${shard}: deal ${dealId} at provider ${operatorId}${isActive ? ', first proof on chain' : ''}`,
      ),
    ...result.failed.map(({ shard, operatorId, code }) => `  shard ${shard}: provider ${operatorId} failed (${code}); it will be repaired`),
    result.cid,
    `Next: millrace get ${result.cid} -o copy`,
  ].join('\n');
}

function showEvent(event: FilePutEvent, progress: Progress, note: (text: string) => void, unit: string): void {
  switch (event.kind) {
    case 'durability':
      progress.end();
      return note(renderDurability(event.view, { symbol: unit, decimals: TOKEN_DECIMALS }).join('\n'));
    case 'build':
    case 'shards':
      return progress.update(event.progress.doneBytes, event.progress.totalBytes, event.progress.step);
    case 'staged':
      progress.end();
      return note(
        `Content ${event.cid}, ${formatSize(event.sizeBytes)}; ${event.shape.count} shards of ${formatSize(event.shardSize)}, any ${event.shape.needed} give it back`,
      );
    case 'priced': {
      const { cost, order, fitting, lastPrice } = event.quote;
      const amount = (value: bigint) => formatAmount(value, TOKEN_DECIMALS);
      const last = lastPrice === undefined ? 'no batch has cleared yet' : `last price ${amount(lastPrice)}`;
      note(`At most ${amount(order.maxPrice)} ${unit} per GiB and period (${fitting} asks fit; ${last}).`);
      return note(
        `At most ${amount(cost.total)} ${unit} in all: price ${amount(cost.price)}, network fee ${amount(cost.fee)}, bonds ${amount(cost.bonds)}, matcher ${amount(cost.tip)}, reserve for repairs ${amount(cost.reserve)}, challenges ${amount(cost.challenges)}. What is not used comes back.`,
      );
    }
    case 'posted':
      return note(`Bid ${event.bidId} is on the book; the file's account is ${event.file}`);
    case 'waiting':
      return progress.update(
        0,
        undefined,
        `batch ${event.clock.open} ${event.clock.phase}, closes in ${event.clock.closesAt - event.now} s`,
      );
    case 'filled':
      progress.end();
      return note(
        `Filled at ${formatAmount(event.price, TOKEN_DECIMALS)} ${unit} per GiB and period by providers ${event.operatorIds.join(', ')}`,
      );
    case 'shard':
      if (event.step === 'uploading')
        return progress.update(Number(event.offset ?? 0n), Number(event.sizeBytes ?? 0n), `shard ${event.shard}`);
      progress.end();
      return note(`Shard ${event.shard}: ${event.step} at provider ${event.operatorId} (deal ${event.dealId})`);
    case 'shard-failed':
      progress.end();
      return note(`Shard ${event.shard}: provider ${event.operatorId} failed (${event.code}): ${event.message}`);
  }
}

function badOption(flag: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', { actor: 'caller', message: `Got ${flag} ${got}, expected ${expected}`, values: { flag, got } });
}
