import { MillraceError } from '../errors.ts';
import { type PutEvent, put as putContent, shareKeyOfWallet } from '../storage/index.ts';
import { formatAmount, formatSize, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import type { Progress } from './output.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';
import { rememberName } from './stored-names.ts';

/** Options of `millrace put`. */
export interface PutCommandOptions {
  copies: string;
  periods?: string;
  public: boolean;
  distinct: boolean;
  maxPrice?: string;
  /** By the order book. */
  market: boolean;
  durability?: string;
  bidPrice?: string;
  repairBelow?: string;
  distinctNetworks: boolean;
  regionMax?: string;
  collateral?: string;
  agent?: string;
}

/** Proof periods that a file is stored for when nothing is said. */
export const PERIODS_DEFAULT = 288;

/** Stores a file or folder at several providers and waits until each copy is proven on chain. Run again after an interruption, it goes on. */
export async function put(context: CommandContext, path: string, options: PutCommandOptions): Promise<void> {
  if (options.market || options.durability !== undefined) return (await import('./put-file.ts')).putByMarket(context, path, options);
  const opened = await openSender(context);
  const { output } = context;
  const progress = output.progress('');
  const unit = stakeUnitOf(opened.manifest);
  try {
    const readers = options.public ? [] : [(await shareKeyOfWallet(opened.signer)).publicKey];
    const startedAt = performance.now();
    const result = await putContent({
      client: opened.client,
      signer: opened.signer,
      sender: opened.sender,
      folder: opened.folder.client,
      source: path === '-' ? { stream: process.stdin, name: 'stdin' } : { path },
      copies: wholeNumber('--copies', options.copies),
      periods: options.periods === undefined ? PERIODS_DEFAULT : wholeNumber('--periods', options.periods),
      public: options.public,
      distinct: options.distinct,
      recipients: readers,
      maxTotal: options.maxPrice === undefined ? undefined : parseAmount(options.maxPrice, TOKEN_DECIMALS),
      onEvent: (event) => showEvent(event, progress, output.note, unit),
      log: opened.log,
      signal: context.signal,
    });
    progress.end();
    rememberName(opened.folder.client, result.cid, path);
    const seconds = Number(((performance.now() - startedAt) / 1000).toFixed(1));
    output.result(
      {
        ...result,
        unit,
        seconds,
        profile: opened.manifest.profile,
        evidence: 'proven',
        distinctness: options.distinct ? 'each copy under its own key' : 'not proven',
      },
      () =>
        [
          `Stored ${formatSize(result.sizeBytes)}${result.isSealed ? ', encrypted' : ', public'}, in ${result.deals.length} copies after ${seconds} s.${options.distinct ? '' : ' Distinctness not proven.'}`,
          ...result.deals.map(
            (deal) =>
              `  deal ${deal.dealId} at provider ${deal.operatorId} (${deal.endpoint}), ${formatAmount(deal.pricePerPeriod, TOKEN_DECIMALS)} ${unit} a period${deal.isActive ? ', first proof on chain' : ''}`,
          ),
          `${result.cid}`,
          `Next: millrace get ${result.cid} -o copy`,
        ].join('\n'),
    );
  } finally {
    progress.end();
    opened.sender.close();
  }
}

function showEvent(event: PutEvent, progress: Progress, note: (text: string) => void, unit: string): void {
  switch (event.kind) {
    case 'build':
      return progress.update(
        event.progress.doneBytes,
        event.progress.totalBytes,
        event.progress.step === 'import' ? 'reading' : 'committing',
      );
    case 'built':
      progress.end();
      return note(`Content ${event.cid}, ${formatSize(event.sizeBytes)}`);
    case 'priced':
      return note(
        `Price ${formatAmount(event.total, TOKEN_DECIMALS)} ${unit} in all, at providers ${event.offers.map((offer) => offer.operatorId).join(', ')}`,
      );
    case 'copy':
      if (event.step === 'uploading')
        return progress.update(
          Number(event.offset ?? 0n),
          Number(event.sizeBytes ?? 0n),
          `copy ${event.copy + 1} to provider ${event.operatorId}`,
        );
      progress.end();
      return note(
        `Copy ${event.copy + 1}: ${event.step} at provider ${event.operatorId}${event.dealId === undefined ? '' : ` (deal ${event.dealId})`}`,
      );
    case 'provider-failed':
      progress.end();
      return note(`Provider ${event.operatorId} failed (${event.code}): ${event.message}; another one takes copy ${event.copy + 1}.`);
  }
}

/** A whole number of at least 1. @throws bad-option */
export function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${flag} ${text}, expected a whole number of at least 1`,
    values: { flag, got: text },
  });
}

/** The number of a deal. @throws bad-option */
export function dealNumber(text: string): bigint {
  if (/^\d{1,18}$/.test(text)) return BigInt(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got deal "${text}", expected its number`,
    values: { got: text },
    hint: 'See `millrace deals`.',
  });
}
