import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import type { ServingAnswer } from './exchange.ts';

const STATUS_OF_CODE: Record<string, number> = {
  'body-too-big': 413,
  'text-too-long': 413,
  'body-too-slow': 408,
  'body-cut': 400,
  'unknown-model': 404,
  'no-such-path': 404,
  'receipt-unknown': 404,
  'method-not-allowed': 405,
  'payment-required': 402,
  'tab-unknown': 402,
  'tab-exhausted': 402,
  'price-above-limit': 402,
  'key-unknown': 401,
  'key-expired': 401,
  'key-budget-spent': 429,
  'key-rate-exceeded': 429,
  'model-not-allowed': 403,
  'foreign-page': 403,
  'idempotency-key-reused': 422,
  'idempotent-request-running': 409,
  'queue-full': 429,
  'payer-busy': 429,
  'engine-busy': 503,
  'serving-busy': 503,
  'receiver-busy': 503,
  'model-unavailable': 503,
  'no-miner': 503,
  'gateway-cannot-pay': 503,
  'engine-timeout': 504,
  'backend-timeout': 504,
  'request-aborted': 499,
  'engine-failed': 500,
  'engine-memory': 500,
};
/** Codes that OpenAI's clients know, for ours. */
const OPENAI_CODES: Record<string, string> = {
  'unknown-model': 'model_not_found',
  'text-too-long': 'context_length_exceeded',
  'key-unknown': 'invalid_api_key',
  'key-budget-spent': 'insufficient_quota',
  'unsupported-parameter': 'unsupported_parameter',
};
const TYPE_OF_STATUS: Record<number, string> = {
  401: 'authentication_error',
  402: 'payment_required',
  403: 'permission_error',
  404: 'invalid_request_error',
  429: 'rate_limit_error',
};

/** The HTTP status of an error of serving. */
export function statusOf(error: MillraceError): number {
  return STATUS_OF_CODE[error.code] ?? httpStatusOf(error);
}

/** An error as OpenAI's `error` object, with our code, values and hint besides. Defects say nothing of what is inside. */
export function errorObject(error: MillraceError): Record<string, unknown> {
  const { code, actor, message, values, hint } = error.toJSON();
  const status = statusOf(error);
  const isInner = actor === 'bug' || actor === 'host';
  const type = TYPE_OF_STATUS[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error');
  return {
    error: {
      message: isInner ? 'Something went wrong inside this node' : message,
      type,
      param: typeof values.parameter === 'string' ? values.parameter : null,
      code: OPENAI_CODES[code] ?? code,
      millrace: { code, actor, ...(isInner ? {} : { values, hint }) },
    },
  };
}

/** The answer to a request that failed; `Retry-After` where waiting helps. */
export function failureAnswer(thrown: unknown, headers: Record<string, string> = {}): ServingAnswer {
  const error = toMillraceError(thrown);
  const status = statusOf(error);
  const retry: Record<string, string> =
    status === 429 || status === 503 ? { 'retry-after': String(error.values.retryAfterSeconds ?? 1) } : {};
  return {
    status,
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store', ...retry, ...headers },
    body: JSON.stringify(errorObject(error)),
  };
}

/** A field of a request that is not as it should be. */
export function badRequest(parameter: string, got: unknown, expected: string): MillraceError {
  const shown = typeof got === 'object' && got !== null ? (Array.isArray(got) ? 'a list' : 'an object') : String(got).slice(0, 80);
  return new MillraceError('bad-request', {
    actor: 'caller',
    message: `Got ${shown} as ${parameter}, expected ${expected}`,
    values: { parameter, got: shown, expected },
  });
}

/** Something that the model behind this name cannot do. */
export function unsupported(parameter: string, reason: string): MillraceError {
  return new MillraceError('unsupported-parameter', {
    actor: 'caller',
    message: reason,
    values: { parameter },
    hint: 'Leave the parameter out, or choose a model that has it.',
  });
}
