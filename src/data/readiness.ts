import { Client, DatabaseError } from 'pg';
import { databaseError } from './database-errors.ts';

const DUPLICATE_DATABASE = '42P04';

/**
 * True when the server at `url` takes our password and serves exactly this cluster; false while it is starting,
 * recovering, or somebody else's.
 */
export async function knock(url: string, cluster: string): Promise<boolean> {
  const seen = await ask<{ folder: string }>(url, "select current_setting('data_directory') as folder").catch(() => []);
  return seen[0]?.folder === cluster;
}

/** Makes a database when the server has none of that name. Safe to run twice at once. */
export async function ensureDatabase(url: string, name: string): Promise<void> {
  const found = await ask(url, 'select 1 from pg_database where datname = $1', [name]);
  if (found.length > 0) return;
  await ask(url, `create database "${name}"`).catch((error: unknown) => {
    if (!(error instanceof DatabaseError && error.code === DUPLICATE_DATABASE)) throw databaseError(error);
  });
}

async function ask<Row>(url: string, sql: string, params: unknown[] = []): Promise<Row[]> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000, query_timeout: 20_000 });
  client.on('error', () => undefined); // the failed query reports it
  try {
    await client.connect();
    return (await client.query(sql, params)).rows as Row[];
  } finally {
    await client.end().catch(() => undefined);
  }
}
