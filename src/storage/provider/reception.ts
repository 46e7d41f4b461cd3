import { MillraceError } from '../../errors.ts';
import type { DealRecord } from '../market/deal-records.ts';
import { cidFromHex } from '../market/terms.ts';
import type { PieceReceiver } from '../pieces/piece-receiver.ts';
import type { PieceStore } from '../pieces/piece-store.ts';

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

/** Receives the bytes of deals into the piece store, in any number of requests, each going on where the last durable byte is. */
export interface Reception {
  /** How many bytes of a deal's piece are durable. */
  offsetOf(record: DealRecord): Promise<bigint>;
  /**
   * Appends a body at `offset` and returns the new durable offset. A newer request for the same deal cuts an older one.
   * When the body breaks off, what came before is kept and durable.
   * @throws upload-offset-mismatch, upload-too-big, upload-too-slow, upload-cut, uploads-full, disk-full, no-room, bad-car, bad-block
   */
  receive(options: { record: DealRecord; offset: bigint; body: AsyncIterable<Uint8Array> }): Promise<bigint>;
  /** Verifies a piece that is there as a whole and makes it stored, indexed and served. @throws piece-mismatch, car-incomplete */
  commit(record: DealRecord): Promise<void>;
  /** Forgets what was received. */
  discard(record: DealRecord): Promise<void>;
}

/** Limits that suit home connections: 30 s of silence, 16 KiB/s, 64 MiB a request, 16 uploads at once. */
export const RECEPTION_LIMITS: ReceptionLimits = {
  idleMs: 30_000,
  bytesPerSecondMin: 16 << 10,
  requestBytesMax: 64 << 20,
  uploadsMax: 16,
};

/** Opens the reception of a provider on its store. */
export function openReception(store: PieceStore, limits: ReceptionLimits = RECEPTION_LIMITS): Reception {
  const running = new Map<bigint, { cut: AbortController; done: Promise<unknown> }>();
  const receiverOf = (record: DealRecord): Promise<PieceReceiver> => {
    const { pieceRoot, rawSize } = record.terms;
    return store.receive({ root: pieceRoot, rawSize: Number(rawSize), cid: cidFromHex(record.cid).toString() });
  };
  return {
    offsetOf: async (record) => BigInt((await receiverOf(record)).offset),
    async receive({ record, offset, body }) {
      const dealId = record.dealId as bigint;
      const older = running.get(dealId);
      if (older !== undefined) {
        older.cut.abort();
        await older.done.catch(() => {});
      }
      if (running.has(dealId) || running.size >= limits.uploadsMax) throw uploadsFull(limits.uploadsMax);
      const cut = new AbortController();
      const done = receiverOf(record).then((receiver) => receiver.append(limited(body, limits, cut.signal), { offset: Number(offset) }));
      running.set(dealId, { cut, done });
      try {
        return BigInt(await done);
      } finally {
        running.delete(dealId);
      }
    },
    async commit(record) {
      await (await receiverOf(record)).commit();
    },
    async discard(record) {
      if (store.piece(record.terms.pieceRoot) === undefined) await (await receiverOf(record)).discard();
    },
  };
}

/** A body that must keep coming: not silent for long, not slower than the least rate, not longer than the limit. */
async function* limited(body: AsyncIterable<Uint8Array>, limits: ReceptionLimits, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  const startedAt = performance.now();
  let received = 0;
  try {
    while (true) {
      const chunk = await nextChunk(chunks, limits.idleMs, signal);
      if (chunk === undefined) return;
      received += chunk.length;
      if (received > limits.requestBytesMax) throw tooBig(limits.requestBytesMax);
      yield chunk;
      if (performance.now() - startedAt > limits.idleMs + (received / limits.bytesPerSecondMin) * 1000) throw tooSlow(limits);
    }
  } finally {
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

function tooBig(limit: number): MillraceError {
  return new MillraceError('upload-too-big', {
    actor: 'caller',
    message: `The body is longer than ${limit} bytes`,
    values: { limit },
    hint: 'Send it in several requests.',
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
