import { mkdir, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { asDiskError, syncFolder } from './durable-file.ts';

/** Limits of one upload request. */
export interface ReceptionLimits {
  /** Longest silence between two chunks of a body. */
  idleMs: number;
  /** Slowest average over one request; slower ones are cut, what came is kept. */
  bytesPerSecondMin: number;
  /** Greatest body of one request. */
  requestBytesMax: number;
  /** Uploads that run at the same time. */
  uploadsMax: number;
}

/** Receives the bytes of deals, in any number of requests, each going on where the last durable byte is. */
export interface Reception {
  /** How many bytes of a deal are durable. */
  offsetOf(dealId: bigint): Promise<bigint>;
  /**
   * Appends a body at `offset` and returns the new durable offset. A newer request for the same deal cuts an older one.
   * When the body breaks off, what came before is kept and durable.
   * @throws upload-offset-mismatch, upload-too-big, upload-too-slow, upload-cut, uploads-full, disk-full
   */
  receive(options: { dealId: bigint; sizeBytes: bigint; offset: bigint; body: AsyncIterable<Uint8Array> }): Promise<bigint>;
  pathOf(dealId: bigint): string;
  /** Forgets what was received. */
  remove(dealId: bigint): Promise<void>;
}

/** Limits that suit home connections: 30 s of silence, 16 KiB/s, 64 MiB a request, 16 uploads at once. */
export const RECEPTION_LIMITS: ReceptionLimits = {
  idleMs: 30_000,
  bytesPerSecondMin: 16 << 10,
  requestBytesMax: 64 << 20,
  uploadsMax: 16,
};

/** Opens the folder of half-received pieces. */
export async function openReception(folder: string, limits: ReceptionLimits = RECEPTION_LIMITS): Promise<Reception> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const running = new Map<bigint, { cut: AbortController; done: Promise<unknown> }>();
  const pathOf = (dealId: bigint) => join(folder, `${dealId}.part`);
  const offsetOf = async (dealId: bigint) => {
    try {
      return BigInt((await stat(pathOf(dealId))).size);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0n;
      throw error;
    }
  };
  return {
    offsetOf,
    pathOf,
    async receive({ dealId, sizeBytes, offset, body }) {
      const older = running.get(dealId);
      if (older !== undefined) {
        older.cut.abort();
        await older.done.catch(() => {});
      }
      if (running.has(dealId) || running.size >= limits.uploadsMax) throw uploadsFull(limits.uploadsMax);
      const cut = new AbortController();
      const done = (async () => {
        const durable = await offsetOf(dealId);
        if (durable !== offset) throw offsetMismatch(dealId, offset, durable);
        return append({ path: pathOf(dealId), offset, sizeBytes, body, limits, signal: cut.signal });
      })();
      running.set(dealId, { cut, done });
      try {
        return await done;
      } finally {
        running.delete(dealId);
      }
    },
    async remove(dealId) {
      await rm(pathOf(dealId), { force: true });
      await syncFolder(folder);
    },
  };
}

async function append(options: {
  path: string;
  offset: bigint;
  sizeBytes: bigint;
  body: AsyncIterable<Uint8Array>;
  limits: ReceptionLimits;
  signal: AbortSignal;
}): Promise<bigint> {
  const { path, offset, sizeBytes, body, limits, signal } = options;
  const file = await open(path, 'a', 0o600);
  const chunks = body[Symbol.asyncIterator]();
  const startedAt = performance.now();
  let at = offset;
  try {
    while (true) {
      const next = await nextChunk(chunks, limits.idleMs, signal);
      if (next === undefined) break;
      const received = Number(at - offset) + next.length;
      if (at + BigInt(next.length) > sizeBytes) throw tooBig(sizeBytes);
      if (received > limits.requestBytesMax) throw tooBig(offset + BigInt(limits.requestBytesMax));
      await file.writeFile(next);
      at += BigInt(next.length);
      if (performance.now() - startedAt > limits.idleMs + (received / limits.bytesPerSecondMin) * 1000) throw tooSlow(limits);
    }
    return at;
  } catch (error) {
    throw asDiskError(error, path);
  } finally {
    // Also after an error: the bytes that came are whole and can be built upon, but only once they are durable.
    await file.sync().finally(() => file.close());
    if (offset === 0n) await syncFolder(dirname(path));
    chunks.return?.().catch(() => {});
  }
}

/** The next chunk, undefined at the end; rejects when it takes too long, when the peer goes away or when we are cut. */
async function nextChunk(chunks: AsyncIterator<Uint8Array>, idleMs: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const cut = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(uploadCut(`no byte came for ${idleMs} ms`)), idleMs);
    onAbort = () => reject(uploadCut('a newer request took over'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    const next = chunks.next().catch((cause: unknown) => {
      throw uploadCut('the connection broke', cause);
    });
    const { done, value } = await Promise.race([next, cut]);
    return done === true ? undefined : value;
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

function offsetMismatch(dealId: bigint, got: bigint, expected: bigint): MillraceError {
  return new MillraceError('upload-offset-mismatch', {
    actor: 'caller',
    message: `Got upload offset ${got} for deal ${dealId}, expected ${expected}`,
    values: { dealId, got, expected },
    hint: 'Ask for the offset with HEAD and go on there.',
  });
}

function tooBig(limit: bigint): MillraceError {
  return new MillraceError('upload-too-big', {
    actor: 'caller',
    message: `The body goes beyond byte ${limit}`,
    values: { limit },
    hint: 'Send no more than the agreed size, in requests within the limit of the provider.',
  });
}

function tooSlow(limits: ReceptionLimits): MillraceError {
  return new MillraceError('upload-too-slow', {
    actor: 'caller',
    message: `The body came slower than ${limits.bytesPerSecondMin} bytes per second`,
    values: { bytesPerSecondMin: limits.bytesPerSecondMin },
    hint: 'What came is kept. Go on in smaller requests.',
  });
}

function uploadCut(why: string, cause?: unknown): MillraceError {
  return new MillraceError('upload-cut', {
    actor: 'caller',
    message: `The upload broke off: ${why}`,
    hint: 'What came is kept. Ask for the offset with HEAD and go on there.',
    cause,
  });
}

function uploadsFull(limit: number): MillraceError {
  return new MillraceError('uploads-full', {
    actor: 'caller',
    message: `The provider receives ${limit} uploads already`,
    values: { limit },
    hint: 'Try again in a moment.',
  });
}
