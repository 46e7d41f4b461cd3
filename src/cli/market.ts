import { openBookView, readBookRules, readPrices } from '../storage/index.ts';
import { formatAmount, formatSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession, stakeUnitOf } from './session.ts';

const PRICES_SHOWN = 20;

/** The order book as the chain has it now, where the clock of the batches stands, and the public series of prices. */
export async function market(context: CommandContext): Promise<void> {
  const { client, manifest } = await openSession(context);
  const rules = await readBookRules(client);
  const view = openBookView(client);
  await view.refresh();
  const [clock, now, prices] = [await view.clock(), await client.now(), await readPrices(client)];
  const asks = view.asks().sort((left, right) => (left.minPrice < right.minPrice ? -1 : 1));
  const bids = view.bids().map(({ shards: _shards, ...bid }) => bid);
  bids.sort((left, right) => (left.maxPrice > right.maxPrice ? -1 : 1));
  const unit = stakeUnitOf(manifest);
  context.output.result({ clock, now, rules, asks, bids, prices, unit, next: null }, () => {
    const amount = (value: bigint) => formatAmount(value, TOKEN_DECIMALS);
    const askRows = asks.map((ask) => [
      String(ask.askId),
      String(ask.operatorId),
      amount(ask.minPrice),
      amount(ask.collateralPerGiB),
      formatSize(ask.freeBytes),
      String(ask.freeDeals),
      `${ask.minPeriods} to ${ask.maxPeriods}`,
    ]);
    const bidRows = bids.map((bid) => [
      String(bid.bidId),
      amount(bid.maxPrice),
      amount(bid.collateralPerGiB),
      `${bid.needed} of ${bid.count}`,
      formatSize(bid.shardSize),
      String(bid.periods),
    ]);
    const priceRows = prices
      .slice(-PRICES_SHOWN)
      .map(({ batch, price, sizeBytes, bids: filled, submitter }) => [
        String(batch),
        amount(price),
        formatSize(sizeBytes),
        String(filled.length),
        submitter,
      ]);
    return [
      `Batch ${clock.open} collects orders and closes in ${clock.closesAt - now} s; batch ${clock.closed} is ${clock.phase}. Prices in ${unit} per GiB and period.`,
      section('Asks', ['ask', 'provider', 'price', 'collateral', 'free', 'shards', 'periods'], askRows),
      section('Bids', ['bid', 'price', 'collateral', 'needed', 'shard', 'periods'], bidRows),
      section('Prices of past batches', ['batch', 'price', 'size', 'bids', 'matched by'], priceRows),
    ].join('\n\n');
  });
}

function section(title: string, header: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? `${title}: none` : `${title}\n${table(header, rows)}`;
}
