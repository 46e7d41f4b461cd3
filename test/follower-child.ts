// A follower process over the `ledger` tables of follower.test.ts; follows until it is killed.
import { connectChain } from '../src/chain/client.ts';
import { createFollower, followEvents } from '../src/chain/follower.ts';
import { insertRows } from '../src/chain/follower-tables.ts';
import { readManifest } from '../src/chain/manifest.ts';
import { openDatabase } from '../src/data/index.ts';
import { silentLogger } from '../src/log.ts';

/** Every deposit as a row, and the sum per account: the sum is what a second application of an event would spoil. */
export const ledger = followEvents(['rails.Deposited'], async (sql, events) => {
  const columns = { block: 'bigint', log_index: 'integer', account: 'text', amount: 'numeric', at: 'bigint' } as const;
  const rows = events.map(({ blockNumber, logIndex, args, timestamp }) => [blockNumber, logIndex, args.account, args.amount, timestamp]);
  await insertRows(sql, { table: 'ledger_entry', columns }, rows);
  const sums = new Map<string, bigint>();
  for (const { args } of events) sums.set(args.account, (sums.get(args.account) ?? 0n) + args.amount);
  const suffix = 'on conflict (account) do update set total = ledger_total.total + excluded.total';
  await insertRows(sql, { table: 'ledger_total', columns: { account: 'text', total: 'numeric' }, suffix }, [...sums]);
});

if (process.argv[1]?.endsWith('follower-child.ts')) {
  const [rpcUrl, manifestPath, databaseUrl] = process.argv.slice(2) as [string, string, string];
  const client = await connectChain({ rpcUrl, manifest: readManifest(manifestPath) });
  const { transaction } = openDatabase(databaseUrl);
  await createFollower({ client, transaction, handlers: [ledger], name: 'child', log: silentLogger }).run(new AbortController().signal);
}
