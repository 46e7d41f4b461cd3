/** Who can mend an error. It decides retry, HTTP status and exit code. */
export type Actor = 'caller' | 'peer' | 'chain' | 'host' | 'bug';

/** A value that may stand in an error: printable, no secrets. */
export type ErrorValue = string | number | bigint | boolean | null | undefined | readonly string[];

/** What an error says: kebab-case code (the contract), who can act, the values seen and the next step. */
export interface ErrorDetail {
  actor: Actor;
  message: string;
  values?: Record<string, ErrorValue>;
  hint?: string;
  cause?: unknown;
}

/**
 * The one error class of Millrace. `code` is stable and documented in `docs/errors.md`; `message` says what
 * happened with which values; `hint` says what to do next.
 */
export class MillraceError extends Error {
  readonly code: string;
  readonly actor: Actor;
  readonly values: Record<string, ErrorValue>;
  readonly hint: string | undefined;

  constructor(code: string, detail: ErrorDetail) {
    super(detail.message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = 'MillraceError';
    this.code = code;
    this.actor = detail.actor;
    this.values = detail.values ?? {};
    this.hint = detail.hint;
  }

  /** The error as one JSON object: `{code, actor, message, values, hint}`; bigints become decimal strings. */
  toJSON(): { code: string; actor: Actor; message: string; values: Record<string, unknown>; hint: string | undefined } {
    const values = Object.fromEntries(
      Object.entries(this.values).map(([key, value]) => [key, typeof value === 'bigint' ? value.toString() : value]),
    );
    return { code: this.code, actor: this.actor, message: this.message, values, hint: this.hint };
  }
}

const EXIT_CODES: Record<Actor, number> = { bug: 1, caller: 2, peer: 3, chain: 4, host: 5 };
const HTTP_STATUSES: Record<Actor, number> = { bug: 500, caller: 400, peer: 502, chain: 503, host: 507 };

/** The process exit code for an error: 1 bug, 2 caller, 3 peer, 4 chain, 5 host. */
export function exitCodeOf(error: unknown): number {
  return EXIT_CODES[toMillraceError(error).actor];
}

/** The HTTP status for an error by who can act; a route may choose a more exact one. */
export function httpStatusOf(error: unknown): number {
  return HTTP_STATUSES[toMillraceError(error).actor];
}

/**
 * Wraps anything thrown as a MillraceError once; a MillraceError passes unchanged, a full disk or a refused access becomes an error of the
 * host, a chain that does not answer one of the chain, the rest become `unexpected`.
 */
export function toMillraceError(error: unknown): MillraceError {
  if (error instanceof MillraceError) return error;
  const fault = hostFault(error) ?? chainFault(error);
  if (fault !== undefined) return fault;
  const message = error instanceof Error ? error.message : String(error);
  return new MillraceError('unexpected', {
    actor: 'bug',
    message: `Unexpected error: ${message}`,
    hint: 'This is a defect in Millrace. Please report it with the log of the command.',
    cause: error,
  });
}

const CAUSES_MAX = 12;

/** An error and what it says it came of, nearest first; no more than a dozen, since a stranger's chain of causes may be a ring. */
export function* causesOf(error: unknown): Generator<object> {
  for (let step = error, depth = 0; step !== null && typeof step === 'object' && depth < CAUSES_MAX; depth += 1) {
    yield step;
    step = (step as { cause?: unknown }).cause;
  }
}

const SILENT_CHAIN: ReadonlySet<string | undefined> = new Set(['HttpRequestError', 'TimeoutError', 'SocketClosedError']);

/** A question to the chain that nobody answered, asked without more words: viem's errors name themselves. */
function chainFault(error: unknown): MillraceError | undefined {
  for (const step of causesOf(error)) {
    const { name, shortMessage } = step as { name?: string; shortMessage?: unknown };
    if (SILENT_CHAIN.has(name) && typeof shortMessage === 'string') {
      return new MillraceError('chain-unreachable', {
        actor: 'chain',
        message: `The chain does not answer (${shortMessage.slice(0, 200)})`,
        hint: 'Check that the chain runs and the RPC address is right; "millrace status" shows both.',
        cause: error,
      });
    }
  }
  return undefined;
}

/** What the operating system refused for reasons that only the owner of the machine can mend. */
function hostFault(error: unknown): MillraceError | undefined {
  const { code, syscall, path, message } = (error ?? {}) as NodeJS.ErrnoException;
  if (syscall === undefined) return undefined;
  const values = { path, syscall, reason: code };
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new MillraceError('disk-full', {
      actor: 'host',
      message: `No space is left on the disk: ${message}`,
      values,
      hint: 'Free some space and try again; nothing that was acknowledged is lost.',
      cause: error,
    });
  }
  if (code !== 'EACCES' && code !== 'EPERM' && code !== 'EROFS') return undefined;
  return new MillraceError('access-denied', {
    actor: 'host',
    message: `This user may not do that: ${message}`,
    values,
    hint: 'Check the owner and the permissions of the path, or choose another folder with --data.',
    cause: error,
  });
}
