import { createHash } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { Database, Queryable } from './database.ts';

/** One step of a module's tables. Once released, its text never changes: write the next number instead. */
export interface Migration {
  /** 1, 2, 3 … without gaps. */
  number: number;
  /** One or several statements; they run inside one transaction. */
  sql: string;
}

/** The tables of one module: its name (a folder of `src`, kebab-case) and all its steps, first to last. */
export interface ModuleMigrations {
  module: string;
  migrations: readonly Migration[];
}

interface AppliedMigration {
  number: number;
  checksum: string;
}

/** One lock for all modules of all processes; any fixed number does. */
const LOCK = 7_455_724;
const PATIENCE_MS = 600_000;

/**
 * Brings a module's tables up to date, forward only, all pending steps or none, one process at a time. Returns the
 * numbers that were applied now. A database that has steps which this code does not know is refused untouched.
 * @throws database-version-newer, migration-changed, migration-numbers-bad, and what `Database.transaction` throws
 */
export async function migrate(database: Database, { module, migrations }: ModuleMigrations): Promise<number[]> {
  refuseBadNumbers(module, migrations);
  // Read committed: the rows must be read after the lock is won, not as they were when waiting began.
  return database.transaction((transaction) => apply(transaction, { module, migrations }), {
    isolation: 'read committed',
    statementTimeoutMs: PATIENCE_MS,
  });
}

async function apply(transaction: Queryable, { module, migrations }: ModuleMigrations): Promise<number[]> {
  await transaction.query(`set local lock_timeout = ${PATIENCE_MS}`);
  await transaction.query('select pg_advisory_xact_lock($1)', [LOCK]);
  await transaction.query(
    `create table if not exists millrace_migrations (
       module text not null, number integer not null, checksum text not null,
       applied_at timestamptz not null default now(), primary key (module, number))`,
  );
  const { rows } = await transaction.query<AppliedMigration>(
    'select number, checksum from millrace_migrations where module = $1 order by number',
    [module],
  );
  refuseNewer(module, rows, migrations.length);
  refuseChanged(module, rows, migrations);
  const pending = migrations.slice(rows.length);
  for (const { number, sql } of pending) {
    await transaction.query(sql);
    await transaction.query('insert into millrace_migrations (module, number, checksum) values ($1, $2, $3)', [
      module,
      number,
      checksum(sql),
    ]);
  }
  return pending.map(({ number }) => number);
}

function checksum(sql: string): string {
  return createHash('sha256').update(sql).digest('hex');
}

function refuseBadNumbers(module: string, migrations: readonly Migration[]): void {
  const wrong = migrations.findIndex(({ number }, index) => number !== index + 1);
  if (wrong === -1) return;
  throw new MillraceError('migration-numbers-bad', {
    actor: 'bug',
    message: `Got migration ${migrations[wrong]?.number} of module ${module}, expected ${wrong + 1}`,
    values: { module, got: migrations[wrong]?.number, expected: wrong + 1 },
  });
}

function refuseNewer(module: string, applied: readonly AppliedMigration[], known: number): void {
  const newest = applied.at(-1)?.number ?? 0;
  if (newest <= known) return;
  throw new MillraceError('database-version-newer', {
    actor: 'caller',
    message: `The database is at version ${newest} of ${module}; this Millrace knows ${known}`,
    values: { module, got: newest, expected: known },
    hint: 'Run the newer Millrace that wrote it, or use another data folder. Nothing was changed.',
  });
}

function refuseChanged(module: string, applied: readonly AppliedMigration[], migrations: readonly Migration[]): void {
  const changed = applied.find((row, index) => row.checksum !== checksum(migrations[index]?.sql ?? ''));
  if (changed === undefined) return;
  throw new MillraceError('migration-changed', {
    actor: 'bug',
    message: `Migration ${changed.number} of ${module} differs from the one that this database was built with`,
    values: { module, number: changed.number },
    hint: 'A released migration must not be edited; put it back and add a new number.',
  });
}
