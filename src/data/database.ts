import { Kysely, PostgresDialect } from 'kysely';
import { Pool, type PoolClient, types } from 'pg';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { databaseError, isRetryable } from './database-errors.ts';

/** Rows of a query. `int8` and whole `numeric` values are bigint; `bytea` is a Buffer; timestamps are Dates. */
export interface QueryResult<Row> {
  rows: Row[];
  /** Rows read or changed. */
  rowCount: number;
}

/** Anything that runs SQL with `$1` parameters: the database itself, or one transaction of it. */
export interface Queryable {
  query<Row = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<QueryResult<Row>>;
  /** The same connection through the kysely query builder, typed by the caller's tables. */
  kysely<Tables>(): Kysely<Tables>;
}

/** How a transaction sees others. `serializable` by default: as if transactions ran one after another. */
export interface TransactionOptions {
  isolation?: 'serializable' | 'repeatable read' | 'read committed';
  /** Longest single statement inside, when it must differ from the pool's. */
  statementTimeoutMs?: number;
}

/** A pool of connections to one PostgreSQL database. */
export interface Database extends Queryable {
  /**
   * Runs `run` in one transaction and commits; a throw rolls everything back. On a conflict it is run again from the
   * start (at most 10 times), so `run` must have no effect outside the transaction. After a lost connection it is not
   * run again: whether the commit arrived is then unknown, and the caller must look.
   * @throws database-busy, database-unavailable, database-timeout, database-refused, database-query-failed, disk-full
   */
  transaction<T>(run: (transaction: Queryable) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /** Waits for running queries, then closes every connection. */
  close(): Promise<void>;
}

/** Limits of the pool; the defaults suit a node beside an embedded server. */
export interface DatabaseOptions {
  connectionsMax?: number;
  connectTimeoutMs?: number;
  /** Longest single statement. */
  statementTimeoutMs?: number;
  /** Longest wait for a lock that another transaction holds. */
  lockTimeoutMs?: number;
  clock?: Clock;
}

const ATTEMPTS_MAX = 10;
const INT8 = 20;
const NUMERIC = 1700;

/**
 * Opens a database by its URL (embedded or `DATABASE_URL`, the same SQL). Connects on first use; every wait has a limit.
 * @throws database-url-bad
 */
export function openDatabase(url: string, options: DatabaseOptions = {}): Database {
  refuseBadUrl(url);
  const statementTimeoutMs = options.statementTimeoutMs ?? 30_000;
  const pool = new Pool({
    connectionString: url,
    application_name: 'millrace',
    max: options.connectionsMax ?? 8,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 10_000,
    idleTimeoutMillis: 30_000,
    allowExitOnIdle: true,
    keepAlive: true,
    statement_timeout: statementTimeoutMs,
    query_timeout: answerTimeoutMs(statementTimeoutMs),
    lock_timeout: options.lockTimeoutMs ?? 15_000,
    idle_in_transaction_session_timeout: 60_000,
    types: { getTypeParser: parserFor },
  });
  pool.on('error', () => undefined); // an idle connection broke: the pool drops it, the next query opens another
  const clock = options.clock ?? systemClock;
  return {
    query: (sql, params) => runQuery(pool, sql, params),
    kysely: <Tables>() => new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }),
    transaction: (run, limits = {}) => transact({ pool, clock, ...limits }, run),
    close: () => pool.end(),
  };
}

interface TransactionPlace extends TransactionOptions {
  pool: Pool;
  clock: Clock;
}

async function transact<T>(place: TransactionPlace, run: (transaction: Queryable) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attemptTransaction(place, run);
    } catch (error) {
      if (!isRetryable(error) || attempt === ATTEMPTS_MAX) throw error;
      await place.clock.sleep(Math.random() * 2 ** Math.min(attempt, 7) * 5);
    }
  }
}

async function attemptTransaction<T>(place: TransactionPlace, run: (transaction: Queryable) => Promise<T>): Promise<T> {
  const { pool, isolation = 'serializable', statementTimeoutMs } = place;
  const client = await connect(pool);
  let broken: Error | undefined;
  try {
    await runQuery(client, `begin isolation level ${isolation}`);
    if (statementTimeoutMs !== undefined) await runQuery(client, `set local statement_timeout = ${Math.trunc(statementTimeoutMs)}`);
    const result = await run(boundTo(client, statementTimeoutMs));
    await runQuery(client, 'commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch((failure: Error) => {
      broken = failure; // the connection is of no more use; the server rolls back by itself
    });
    throw databaseError(error);
  } finally {
    client.release(broken);
  }
}

async function connect(pool: Pool): Promise<PoolClient> {
  try {
    const client = await pool.connect();
    if (client.listenerCount('error') === 0) client.on('error', () => undefined); // the query under way reports it
    return client;
  } catch (error) {
    throw databaseError(error);
  }
}

function boundTo(client: PoolClient, statementTimeoutMs: number | undefined): Queryable {
  const timeoutMs = statementTimeoutMs === undefined ? undefined : answerTimeoutMs(statementTimeoutMs);
  return {
    query: (sql, params) => runQuery(client, sql, params, timeoutMs),
    kysely: <Tables>() => new Kysely<Tables>({ dialect: new PostgresDialect({ pool: poolOfOne(client) }) }),
  };
}

/** Kysely asks a pool for connections; inside a transaction there is one, and it is released by the transaction. */
function poolOfOne(client: PoolClient) {
  return { connect: async () => ({ query: client.query.bind(client), release: () => undefined }) as never, end: async () => undefined };
}

async function runQuery<Row>(
  target: Pool | PoolClient,
  sql: string,
  params: readonly unknown[] = [],
  timeoutMs?: number,
): Promise<QueryResult<Row>> {
  try {
    const query = { text: sql, values: params as unknown[], ...(timeoutMs === undefined ? {} : { query_timeout: timeoutMs }) };
    const { rows, rowCount } = await target.query(query);
    return { rows: rows as Row[], rowCount: rowCount ?? 0 };
  } catch (error) {
    throw databaseError(error);
  }
}

/** The server's own limit answers first, unless the connection is dead. */
function answerTimeoutMs(statementTimeoutMs: number): number {
  return statementTimeoutMs + 5_000;
}

/** Chain integers must never pass through a floating-point number or an ambiguous string. */
function parserFor(oid: number, format?: 'text' | 'binary') {
  if (format !== 'binary' && (oid === INT8 || oid === NUMERIC)) return parseWhole;
  return types.getTypeParser(oid as never, format as never);
}

function parseWhole(text: string): bigint | string {
  return /^-?\d+$/.test(text) ? BigInt(text) : text;
}

function refuseBadUrl(url: string): void {
  const protocol = URL.canParse(url) ? new URL(url).protocol : '';
  if (protocol === 'postgres:' || protocol === 'postgresql:') return;
  throw new MillraceError('database-url-bad', {
    actor: 'caller',
    message: `Got a database URL that does not begin with postgres:// or postgresql:// (${protocol === '' ? 'not a URL' : protocol})`,
    hint: 'For example DATABASE_URL=postgres://user:password@127.0.0.1:5432/millrace',
  });
}
