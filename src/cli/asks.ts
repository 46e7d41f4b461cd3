import { surveyOffers } from '../storage/index.ts';
import { formatAmount, formatSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession, stakeUnitOf } from './session.ts';

/** The asks of all providers that answer, their signatures checked, and who is silent. */
export async function asks(context: CommandContext): Promise<void> {
  const { client, log, manifest } = await openSession(context);
  const { offers, silent } = await surveyOffers({ client, log, signal: context.signal });
  const unit = stakeUnitOf(manifest);
  context.output.result({ items: offers, silent, unit, next: null }, () => {
    const rows = offers.map(({ operatorId, ask, freeBytes, acceptsDeals, region }) => [
      String(operatorId),
      region,
      formatAmount(ask.pricePerGibPeriod, TOKEN_DECIMALS),
      formatAmount(ask.minPricePerPeriod, TOKEN_DECIMALS),
      `${formatSize(ask.minSizeBytes)} to ${formatSize(ask.maxSizeBytes)}`,
      `${ask.minPeriods} to ${ask.maxPeriods}`,
      `${ask.collateralBps / 100} %`,
      acceptsDeals ? formatSize(freeBytes) : 'not accepting',
    ]);
    const quiet = silent.length === 0 ? '' : `\nSilent: ${silent.map((item) => `${item.operatorId} (${item.code})`).join(', ')}`;
    return `Prices in ${unit} a period.\n${table(['provider', 'region', 'per GiB', 'at least', 'size', 'periods', 'collateral', 'free'], rows)}${quiet}`;
  });
}
