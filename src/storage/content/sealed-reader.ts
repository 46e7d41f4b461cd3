import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import type { BlockFetcher } from './block-fetcher.ts';
import { readFile } from './content-reader.ts';
import type { ShareKeyPair } from './key-wrap.ts';
import { decodeManifest, manifestHeadBytes, type SealedManifest } from './manifest-sealed.ts';
import { type Container, fileKeyFor, isSealed, openContainer, parseHeader, SEALED_HEADER_BYTES_MAX } from './seal.ts';

/** What may open sealed content: share keys (of the wallet, or any), or the file key itself. */
export interface Keys {
  shareKeys?: ShareKeyPair[];
  fileKey?: Uint8Array;
}

/** A sealed content whose manifest has been read. */
export interface SealedContent {
  manifest: SealedManifest;
  fileKey: Uint8Array;
  /** Plaintext bytes of the files, counted from the first byte after the manifest. */
  read(from: number, to: number): AsyncGenerator<Uint8Array>;
}

/** The first bytes of a file, enough for the header of a container. */
export async function readStart(fetcher: BlockFetcher, cid: CID): Promise<Uint8Array> {
  return collect(readFile(fetcher, cid, { from: 0, to: SEALED_HEADER_BYTES_MAX }));
}

/**
 * Opens sealed content: header, key, commitment, manifest. Undefined when the content is not sealed.
 * @throws no-key, wrong-file-key, container-damaged, container-version-unknown, bad-manifest, content-unavailable
 */
export async function openSealed(input: {
  fetcher: BlockFetcher;
  cid: CID;
  size: number;
  start: Uint8Array;
  keys: Keys;
}): Promise<SealedContent | undefined> {
  const { fetcher, cid, size, start, keys } = input;
  if (!isSealed(start)) return undefined;
  const header = parseHeader(start);
  let fileKey = keys.fileKey;
  for (const key of keys.shareKeys ?? []) fileKey ??= await fileKeyFor(header, key);
  if (fileKey === undefined) throw noKey(cid);
  const container = openContainer({ header, fileKey, sealedBytes: size });
  const head = await collect(readPlain(fetcher, cid, container, 0, Math.min(4, container.plainBytes)));
  const headBytes = manifestHeadBytes(head);
  if (headBytes > container.plainBytes) manifestHeadBytes(new Uint8Array());
  const manifest = decodeManifest(await collect(readPlain(fetcher, cid, container, 0, headBytes)), container.plainBytes);
  return { manifest, fileKey, read: (from, to) => readPlain(fetcher, cid, container, headBytes + from, headBytes + to) };
}

/** Plaintext `from` to `to` (exclusive) of a container, opening only the chunks that hold it. */
async function* readPlain(fetcher: BlockFetcher, cid: CID, container: Container, from: number, to: number): AsyncGenerator<Uint8Array> {
  if (from >= to) return;
  const per = container.chunkPlainBytes;
  const [first, last] = [Math.floor(from / per), Math.floor((to - 1) / per)];
  const span = { from: container.rangeOf(first).start, to: container.rangeOf(last).end };
  let index = first;
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  for await (const bytes of readFile(fetcher, cid, span)) {
    pending.push(bytes);
    pendingBytes += bytes.length;
    for (;;) {
      const { start, end } = container.rangeOf(index);
      if (index > last || pendingBytes < end - start) break;
      const joined = pending.length === 1 ? (pending[0] as Uint8Array) : Buffer.concat(pending, pendingBytes);
      const plain = container.open(index, joined.subarray(0, end - start));
      pending = [joined.subarray(end - start)];
      pendingBytes -= end - start;
      yield plain.subarray(Math.max(0, from - index * per), Math.min(plain.length, to - index * per));
      index += 1;
    }
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function noKey(cid: CID): MillraceError {
  return new MillraceError('no-key', {
    actor: 'caller',
    message: `Content ${cid} is sealed, and none of your keys opens it`,
    values: { cid: cid.toString() },
    hint: 'Use the wallet that stored it, or ask its owner for a grant: `millrace share CID --to KEY`.',
  });
}
