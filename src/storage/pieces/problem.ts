import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';

/** HTTP statuses that say more than who can act. */
const STATUS_OF_CODE: Record<string, number> = {
  'deal-refused': 409,
  'deal-unknown': 404,
  'not-found': 404,
  'not-the-client': 403,
  'signature-missing': 401,
  'signature-malformed': 401,
  'signature-expired': 401,
  'signature-wrong': 401,
  'signature-replayed': 401,
  'upload-offset-mismatch': 409,
  'upload-too-big': 413,
  'body-too-big': 413,
  'bad-car': 422,
  'bad-block': 422,
  'car-too-many-blocks': 422,
  'car-incomplete': 422,
  'piece-mismatch': 422,
  'upload-too-slow': 408,
  'upload-cut': 408,
  'body-too-slow': 408,
  'uploads-full': 503,
  'deal-not-receiving': 409,
  'method-not-allowed': 405,
  'not-acceptable': 406,
  'range-not-satisfiable': 416,
  'piece-unknown': 404,
  'piece-damaged': 500,
};

/** Faults of this machine: their texts name its paths. */
const OWN_FAULTS: ReadonlySet<string> = new Set(['disk-full', 'access-denied', 'file-damaged']);

/**
 * An error as `application/problem+json` (RFC 9457) with the fields of every Millrace error. Defects are answered without
 * their message: what went wrong inside is nobody's business but the log's.
 */
export function problemResponse(error: unknown): Response {
  const known = toMillraceError(error);
  const status = STATUS_OF_CODE[known.code] ?? httpStatusOf(known);
  const { code, actor, message, values, hint } = known.toJSON();
  const isInner = known.actor === 'bug' || OWN_FAULTS.has(known.code);
  const detail = isInner ? { title: 'Something went wrong inside this node' } : { title: message, detail: message, values, hint };
  const body = JSON.stringify({ type: `urn:millrace:error:${code}`, status, code, actor, ...detail });
  return new Response(body, { status, headers: { 'content-type': 'application/problem+json' } });
}

/**
 * A JSON body of bounded size that arrives in bounded time.
 * @throws body-too-big, body-too-slow, bad-json
 */
export async function readJsonBody(request: Request, limits: { bytesMax: number; timeoutMs: number }): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  const reader = request.body?.getReader();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(bodyError('body-too-slow', `The body took longer than ${limits.timeoutMs} ms`, limits.timeoutMs)),
      limits.timeoutMs,
    );
  });
  try {
    while (reader !== undefined) {
      const { done, value } = await Promise.race([reader.read(), late]);
      if (done) break;
      sizeBytes += value.length;
      if (sizeBytes > limits.bytesMax) throw bodyError('body-too-big', `The body is longer than ${limits.bytesMax} bytes`, limits.bytesMax);
      chunks.push(value);
    }
  } finally {
    clearTimeout(timer);
    reader?.cancel().catch(() => {});
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    throw new MillraceError('bad-json', { actor: 'caller', message: 'The body is not JSON', values: { sizeBytes }, cause });
  }
}

function bodyError(code: string, message: string, limit: number): MillraceError {
  return new MillraceError(code, { actor: 'caller', message, values: { limit } });
}
