import { DatabaseError } from 'pg';
import { MillraceError } from '../errors.ts';

/** Serialisation failure and deadlock: the same transaction run again may succeed. */
const RETRYABLE = new Set(['40001', '40P01']);
/** The server ends or refuses connections: starting, stopping, crashed, too many clients. */
const UNAVAILABLE = /^(08...|57P0[1235]|53300)$/;
const TIMED_OUT = new Set(['57014', '55P03', '25P03']);
const SOCKET_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN']);
const LOST_CONNECTION = /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error/;

/** True for a conflict between transactions that running the same transaction again may resolve. */
export function isRetryable(error: unknown): boolean {
  const cause = error instanceof MillraceError ? error.cause : error;
  return cause instanceof DatabaseError && RETRYABLE.has(cause.code ?? '');
}

/**
 * What the driver threw as a MillraceError: `database-unavailable`, `disk-full`, `database-timeout`,
 * `database-refused` (login, rights), `database-busy` (conflict) or `database-query-failed` with `values.sqlstate` and
 * `values.constraint`. Query parameters never appear in it. A MillraceError passes unchanged.
 */
export function databaseError(error: unknown): unknown {
  if (error instanceof MillraceError || !(error instanceof Error)) return error;
  const code = (error as { code?: string }).code ?? '';
  if (error instanceof DatabaseError) return fromServer(error, code);
  if (SOCKET_CODES.has(code) || LOST_CONNECTION.test(error.message)) return unavailable(error, code);
  if (/Query read timeout/.test(error.message)) return timedOut(error, code);
  return error;
}

function fromServer(error: DatabaseError, sqlstate: string): MillraceError {
  const seen = { sqlstate, constraint: error.constraint, table: error.table };
  if (RETRYABLE.has(sqlstate)) {
    return new MillraceError('database-busy', {
      actor: 'host',
      message: `Transactions conflict: ${error.message}`,
      values: seen,
      hint: 'Try again.',
      cause: error,
    });
  }
  if (UNAVAILABLE.test(sqlstate)) return unavailable(error, sqlstate);
  if (TIMED_OUT.has(sqlstate)) return timedOut(error, sqlstate);
  if (sqlstate === '53100') {
    return new MillraceError('disk-full', {
      actor: 'host',
      message: `The database's disk is full: ${error.message}`,
      values: seen,
      hint: 'Free some space; nothing that was acknowledged is lost.',
      cause: error,
    });
  }
  if (sqlstate.startsWith('28') || sqlstate === '3D000' || sqlstate === '42501') {
    return new MillraceError('database-refused', {
      actor: 'caller',
      message: `The database refuses this user: ${error.message}`,
      values: seen,
      hint: 'Check user, password, database name and rights of DATABASE_URL.',
      cause: error,
    });
  }
  return new MillraceError('database-query-failed', {
    actor: 'bug',
    message: `Query failed: ${error.message}`,
    values: seen,
    cause: error,
  });
}

function unavailable(cause: Error, code: string): MillraceError {
  return new MillraceError('database-unavailable', {
    actor: 'host',
    message: `The database cannot be reached: ${cause.message}`,
    values: { code },
    hint: "Check that it runs: 'millrace status', or the server behind DATABASE_URL.",
    cause,
  });
}

function timedOut(cause: Error, code: string): MillraceError {
  return new MillraceError('database-timeout', {
    actor: 'host',
    message: `The database took too long: ${cause.message}`,
    values: { code },
    hint: 'The machine is overloaded, or another process holds a lock; try again.',
    cause,
  });
}
