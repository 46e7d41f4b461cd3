/** How a connection ends that the other side had closed already. */
const STALE: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);
/** So many kept connections may turn out closed before the other side counts as gone. */
const STALE_MAX = 8;

/** A kept connection was closed before anything of an answer came; `cause` says how. */
export class StaleConnection extends Error {}

/** Whether a request failed because the connection that it was given had been kept, and was closed meanwhile. */
export function isStale(request: { reusedSocket: boolean }, cause: NodeJS.ErrnoException): boolean {
  return request.reusedSocket && STALE.has(cause.code);
}

/**
 * Sends again, on another connection, while kept ones turn out to be closed.
 * @param options.canRepeat false where nobody may send it twice: then the first closed connection is the end
 * @throws what `send` throws; for a closed connection that is not tried again, what `gone` makes of its cause
 */
export async function sendPastStale<Answer>(
  send: () => Promise<Answer>,
  { canRepeat, gone }: { canRepeat: boolean; gone: (cause: unknown) => Error },
): Promise<Answer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof StaleConnection)) throw error;
      if (attempt === STALE_MAX || !canRepeat) throw gone(error.cause);
    }
  }
}
