import { openDatabase } from '../data/index.ts';
import { MillraceError } from '../errors.ts';
import { readLedger, readRunState } from '../node/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { dealNumber, wholeNumber } from './put.ts';
import { folderOf } from './session.ts';

/** The events that made the numbers: newest first, each with its transaction. */
export async function ledger(context: CommandContext, options: { provider?: string; deal?: string; lines: string }): Promise<void> {
  const url = readRunState(folderOf(context))?.databaseUrl;
  if (url === undefined) {
    throw new MillraceError('not-running', {
      actor: 'caller',
      message: 'No database of this network is known',
      hint: 'Start the network with `millrace up`.',
    });
  }
  const database = openDatabase(url, { connectionsMax: 1 });
  try {
    const items = await readLedger(database, {
      operatorId: options.provider === undefined ? undefined : dealNumber(options.provider),
      dealId: options.deal === undefined ? undefined : dealNumber(options.deal),
      limit: wholeNumber('--lines', options.lines),
    });
    context.output.result({ items, next: null }, () =>
      table(
        ['block', 'time', 'what', 'provider', 'deal', 'amount', 'transaction'],
        items.map((row) => [
          String(row.blockNumber),
          new Date(Number(row.time) * 1000).toISOString().slice(0, 19),
          row.kind,
          String(row.operatorId ?? ''),
          String(row.dealId ?? ''),
          row.amount === 0n ? '' : formatAmount(row.amount, TOKEN_DECIMALS),
          row.transactionHash,
        ]),
      ),
    );
  } finally {
    await database.close();
  }
}
