import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';
import { table } from './output.ts';

/** Every model that is served, by whom, at what price, with the evidence behind its answers. */
export async function models(context: CommandContext): Promise<void> {
  await withOwnGateway(context, {}, async ({ server }) => {
    const items = [...server.directory.all()].flatMap(({ entry, signed }) =>
      signed.offer.models.map((model) => ({ ...model, operatorId: entry.operatorId, rank: entry.rank })),
    );
    context.output.result({ items, next: null }, () => {
      if (items.length === 0) return 'No miner serves anything here. Start some with `millrace up --with inference`.';
      const rows = items.map((item) => [
        item.id,
        item.task,
        String(item.operatorId),
        item.rank.toFixed(2),
        `${formatAmount(item.inputPerMillion, TOKEN_DECIMALS)} / ${formatAmount(item.outputPerMillion, TOKEN_DECIMALS)} / ${formatAmount(item.perRequest, TOKEN_DECIMALS)}`,
        item.evidence,
      ]);
      return `Prices in tokens: a million units in, a million out, a request.\n${table(['model', 'task', 'operator', 'rank', 'price', 'evidence'], rows)}`;
    });
  });
}
