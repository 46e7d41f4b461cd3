/**
 * The follower as a process of its own: chain events become rows of the ledger, and reorganised blocks are undone. One argument `-`: its
 * options as JSON on standard input. SIGTERM and SIGINT stop it between two transactions.
 */
import { readFileSync } from 'node:fs';
import { connectChain, createFollower, followerMigrations, readManifest } from '../chain/index.ts';
import { migrate, openDatabase } from '../data/index.ts';
import { exitCodeOf, toMillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import { ledgerHandler, ledgerMigrations } from './ledger.ts';

/** The options of the follower process. */
export interface FollowerProcessOptions {
  manifestPath: string;
  rpcUrl: string;
  databaseUrl: string;
  logFile?: string;
}

async function main(): Promise<void> {
  const options = JSON.parse(readFileSync(0, 'utf8')) as FollowerProcessOptions;
  const log = createLogger({ role: 'follower', file: options.logFile });
  const client = await connectChain({ rpcUrl: options.rpcUrl, manifest: readManifest(options.manifestPath) });
  const database = openDatabase(options.databaseUrl, { connectionsMax: 2 });
  await migrate(database, followerMigrations);
  await migrate(database, ledgerMigrations);
  const follower = createFollower({
    client,
    transaction: (run) => database.transaction(run),
    handlers: [ledgerHandler],
    name: 'ledger',
    log,
  });
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stopping.abort());
  process.stdout.write(`${JSON.stringify({ ready: true, pid: process.pid })}\n`);
  await follower.run(stopping.signal);
  await database.close();
}

main()
  .then(() => process.exit(0))
  .catch((error) => {
    process.stderr.write(`${JSON.stringify(toMillraceError(error))}\n`);
    process.exit(exitCodeOf(error));
  });
