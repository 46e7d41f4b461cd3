import { createReadStream } from 'node:fs';
import type { Signer } from '../../chain/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { fetchUploadOffset, type ProviderPeer, sendChunk } from './provider-api.ts';
import type { StorageDomain } from './signed-messages.ts';

/** One upload: a file to the provider of a deal. */
export interface UploadOptions {
  peer: ProviderPeer;
  domain: StorageDomain;
  signer: Signer;
  dealId: bigint;
  path: string;
  sizeBytes: bigint;
  /** Bytes per request; after each the provider has made them durable. */
  chunkBytes?: number;
  /** How long the durable offset may stand still before the provider counts as stalled. */
  stallMs?: number;
  onProgress?: (offset: bigint) => void;
  signal?: AbortSignal;
  clock?: Clock;
}

const CHUNK_BYTES = 16 << 20;
const STALL_MS = 60_000;
const RETRY_MS = 500;
const RETRY_MS_MAX = 8_000;
/** Answers after which trying again is of no use. */
const FINAL_CODES = new Set([
  'not-the-client',
  'wrong-market',
  'deal-unknown',
  'deal-not-receiving',
  'upload-too-big',
  'peer-key-mismatch',
  'bad-endpoint',
  'disk-full',
  'peer-answer-bad',
]);

/**
 * Sends a file to a provider, going on from its durable offset; broken connections are taken up again as long as the
 * offset moves now and then.
 * @throws upload-stalled when no byte became durable for `stallMs`; the provider's refusal when it is final
 */
export async function uploadPiece(options: UploadOptions): Promise<void> {
  const clock = options.clock ?? systemClock;
  const stallMs = options.stallMs ?? STALL_MS;
  let offset = -1n;
  let movedAt = clock.nowMs();
  let waitMs = RETRY_MS;
  const advance = (durable: bigint) => {
    if (durable > offset) {
      movedAt = clock.nowMs();
      waitMs = RETRY_MS;
    }
    offset = durable;
    options.onProgress?.(offset);
  };
  while (true) {
    const deadline = AbortSignal.timeout(Math.max(1, Math.ceil(movedAt + stallMs - clock.nowMs())));
    const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
    try {
      advance(await fetchUploadOffset({ ...options, signal }));
      while (offset < options.sizeBytes) advance(await sendNext(options, offset));
      return;
    } catch (error) {
      if (options.signal?.aborted === true) throw options.signal.reason;
      const isTimeout = error instanceof DOMException && error.name === 'TimeoutError';
      if (!isTimeout && (!(error instanceof MillraceError) || FINAL_CODES.has(error.code))) throw error;
      if (clock.nowMs() - movedAt >= stallMs) throw stalled(options, offset, stallMs, error);
      await clock.sleep(Math.min(waitMs, Math.max(1, movedAt + stallMs - clock.nowMs())), options.signal);
      waitMs = Math.min(RETRY_MS_MAX, waitMs * 2);
    }
  }
}

async function sendNext(options: UploadOptions, offset: bigint): Promise<bigint> {
  const rest = options.sizeBytes - offset;
  const sizeBytes = Math.min(options.chunkBytes ?? CHUNK_BYTES, Number(rest));
  const start = Number(offset);
  const body = createReadStream(options.path, { start, end: start + sizeBytes - 1, highWaterMark: 256 << 10 });
  const idleTimeoutMs = options.stallMs ?? STALL_MS;
  const deadline = AbortSignal.timeout(idleTimeoutMs + Math.ceil(sizeBytes / 16));
  const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
  const durable = await sendChunk({ ...options, offset, sizeBytes, body, idleTimeoutMs, signal });
  if (durable === offset + BigInt(sizeBytes)) return durable;
  throw new MillraceError('peer-answer-bad', {
    actor: 'peer',
    message: `Operator ${options.peer.operatorId} took ${sizeBytes} bytes at ${offset} and answered offset ${durable}`,
    values: { operatorId: options.peer.operatorId, offset, sizeBytes, durable },
    hint: 'Take another provider.',
  });
}

function stalled(options: UploadOptions, offset: bigint, stallMs: number, cause: unknown): MillraceError {
  return new MillraceError('upload-stalled', {
    actor: 'peer',
    message: `Operator ${options.peer.operatorId} took no byte for ${Math.round(stallMs / 1000)} s, at ${offset < 0n ? 0n : offset} of ${options.sizeBytes}`,
    values: { operatorId: options.peer.operatorId, dealId: options.dealId, offset, sizeBytes: options.sizeBytes, stallMs },
    hint: 'Another provider is taken for this copy.',
    cause,
  });
}
