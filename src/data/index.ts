export type { Database, DatabaseOptions, Queryable, QueryResult, TransactionOptions } from './database.ts';
export { openDatabase } from './database.ts';
export type { Migration, ModuleMigrations } from './migrations.ts';
export { migrate } from './migrations.ts';
export type { Postgres, PostgresOptions } from './postgres.ts';
export { startPostgres, stopPostgres } from './postgres.ts';
