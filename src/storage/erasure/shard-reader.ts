import { type FileHandle, open } from 'node:fs/promises';
import { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { decodeUnixfs, LEAF_BYTES, parseCid, RAW } from '../content/block.ts';
import { type ContentSource, createBlockFetcher, type FetchLimits } from '../content/block-fetcher.ts';
import { createCarScanner } from '../content/car.ts';
import { fetchNode, readFile } from '../content/content-reader.ts';

/** Random access to the payload of one shard. */
export interface ShardReader {
  /** Payload bytes. */
  readonly sizeBytes: number;
  /** The payload was checked against the shard's CID when it was opened, or is with every read; else its user checks it first. */
  readonly isVerified: boolean;
  /** Bytes [from, to), all of them. */
  read(from: number, to: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * A shard at its holders: each read fetches the blocks that hold the bytes, verified, from any of them.
 * @throws bad-cid, content-unavailable, wrong-content-kind
 */
export async function openRemoteShard(input: {
  cid: string;
  sources: ContentSource[];
  signal?: AbortSignal;
  limits?: FetchLimits;
}): Promise<ShardReader> {
  const cid = parseCid(input.cid);
  const fetcher = createBlockFetcher({ sources: input.sources, signal: input.signal, limits: input.limits });
  const node = await fetchNode(fetcher, cid);
  if (node.kind !== 'file') throw notAShard(input.cid, node.kind);
  return {
    sizeBytes: node.fileSize,
    isVerified: true,
    async read(from, to) {
      const bytes = new Uint8Array(to - from);
      let done = 0;
      for await (const chunk of readFile(fetcher, cid, { from, to })) {
        bytes.set(chunk, done);
        done += chunk.length;
      }
      if (done !== bytes.length) throw notAShard(input.cid, `file of ${from + done} bytes`);
      return bytes;
    },
    close: async () => {},
  };
}

/**
 * A shard's CAR on disk, verified as a whole when it is opened.
 * @throws bad-car, bad-block, shard-unreadable
 */
export async function openShardCar(path: string, shardCid: string): Promise<ShardReader> {
  const file = await open(path, 'r');
  try {
    const { leaves, sizeBytes } = await listLeaves(file, shardCid);
    return {
      sizeBytes,
      isVerified: true,
      async read(from, to) {
        const bytes = new Uint8Array(to - from);
        for (let at = from; at < to; ) {
          const leaf = leaves[Math.floor(at / LEAF_BYTES)] as { offset: number; bytes: number };
          const skip = at % LEAF_BYTES;
          const taken = Math.min(leaf.bytes - skip, to - at);
          await readFully(file, bytes.subarray(at - from, at - from + taken), leaf.offset + skip);
          at += taken;
        }
        return bytes;
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Where each leaf of the one UnixFS file in a CAR is, in the file's order. */
async function listLeaves(file: FileHandle, shardCid: string): Promise<{ leaves: { offset: number; bytes: number }[]; sizeBytes: number }> {
  const places = new Map<string, { offset: number; bytes: number }>();
  const nodes = new Map<string, Uint8Array>();
  const scanner = createCarScanner(({ cid, bytes, offset }) => {
    const key = cid.toString();
    if (cid.code !== RAW) nodes.set(key, Uint8Array.from(bytes));
    places.set(key, { offset, bytes: bytes.length });
  });
  for await (const chunk of file.createReadStream({ autoClose: false, start: 0, highWaterMark: 1 << 20 }))
    scanner.write(chunk as Uint8Array);
  const root = scanner.finish();
  if (root.toString() !== shardCid) throw notAShard(shardCid, `CAR of ${root}`);
  const leaves: { offset: number; bytes: number }[] = [];
  const visit = (cid: CID): void => {
    const key = cid.toString();
    const place = places.get(key);
    if (place === undefined) throw notAShard(shardCid, `CAR without block ${key}`);
    const node = nodes.get(key);
    if (node === undefined) return void leaves.push(place);
    for (const link of decodeUnixfs(cid, node).links) visit(link.cid);
  };
  visit(CID.parse(shardCid));
  if (leaves.some(({ bytes }, index) => bytes !== LEAF_BYTES && index < leaves.length - 1))
    throw notAShard(shardCid, 'file of other leaves');
  return { leaves, sizeBytes: leaves.reduce((sum, { bytes }) => sum + bytes, 0) };
}

async function readFully(file: FileHandle, target: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done);
    if (bytesRead === 0) throw notAShard('', `CAR that ends at ${position + done}`);
    done += bytesRead;
  }
}

function notAShard(cid: string, got: string): MillraceError {
  return new MillraceError('shard-unreadable', {
    actor: 'peer',
    message: `Got a ${got}, expected shard ${cid}`,
    values: { cid, got },
    hint: 'Another holder, or another shard of the same file, serves as well.',
  });
}
