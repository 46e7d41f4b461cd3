import { MillraceError, toMillraceError } from '../../errors.ts';
import { LEAF_BYTES } from '../content/block.ts';
import type { ByteReader } from '../content/source-tree.ts';
import { type CodeShape, checkCode, createReedSolomon, tooFewShards } from './reed-solomon.ts';
import { shardCidOf } from './shard-car.ts';
import { FILE_SHARDS_MAX } from './shard-layout.ts';
import type { ShardReader } from './shard-reader.ts';

/** A shard that somebody offers: its place in the code, the CID that it must have, and how it is read. */
export interface OfferedShard {
  index: number;
  cid: string;
  reader: ShardReader;
}

/** A shard that could not be used, and why. */
export interface UnusableShard {
  index: number;
  code: string;
  message: string;
}

/** Shards of one file, read together: what is missing or fails is computed from the others. */
export interface ShardSet extends CodeShape {
  readonly shardBytes: number;
  readonly unusable: readonly UnusableShard[];
  /**
   * Bytes [from, to) of the wanted shards, each read directly where that works, else computed from any k others.
   * @throws too-few-shards
   */
  read(wanted: readonly number[], from: number, to: number): Promise<Uint8Array[]>;
}

/**
 * Opens a set of at least k shards. Shards of another length or, when their reader does not verify them itself, of another
 * CID are left out; a shard that fails a read is not asked again.
 * @throws bad-erasure-code, too-few-shards
 */
export async function openShardSet(input: { code: CodeShape; shards: readonly OfferedShard[]; signal?: AbortSignal }): Promise<ShardSet> {
  const { signal } = input;
  const { k, n } = checkCode(input.code, FILE_SHARDS_MAX);
  const code = createReedSolomon({ k, n });
  const usable = new Map<number, ShardReader>();
  const unusable: UnusableShard[] = [];
  const refuse = (index: number, error: unknown) => {
    signal?.throwIfAborted();
    if (!usable.delete(index)) return;
    const { code, message } = toMillraceError(error);
    unusable.push({ index, code, message });
  };
  const needed = () =>
    tooFewShards(
      k,
      [...usable.keys()],
      unusable.map(({ index, message }) => `shard ${index}: ${message}`),
    );
  const shardBytes = commonSize(input.shards);
  for (const { index, cid, reader } of input.shards) {
    if (index >= n || usable.has(index)) continue;
    usable.set(index, reader);
    try {
      if (reader.sizeBytes !== shardBytes) throw wrongShard(cid, `${reader.sizeBytes} bytes`, `${shardBytes} bytes`);
      if (!reader.isVerified) await verifyShard(cid, reader, signal);
    } catch (error) {
      refuse(index, error);
    }
  }
  if (usable.size < k) throw needed();

  /** Tries to read the given shards; those that fail are left out from now on. */
  const attempt = async (indices: readonly number[], from: number, to: number, into: Map<number, Uint8Array>) => {
    const read = async (index: number) => {
      try {
        const bytes = await (usable.get(index) as ShardReader).read(from, to);
        if (bytes.length !== to - from) throw wrongShard(String(index), `${bytes.length} bytes`, `${to - from} bytes`);
        into.set(index, bytes);
      } catch (error) {
        refuse(index, error);
      }
    };
    await Promise.all(indices.filter((index) => usable.has(index) && !into.has(index)).map(read));
  };

  return {
    k,
    n,
    shardBytes,
    unusable,
    async read(wanted, from, to) {
      signal?.throwIfAborted();
      const parts = new Map<number, Uint8Array>();
      await attempt(wanted, from, to, parts);
      const missing = wanted.filter((index) => !parts.has(index));
      if (missing.length > 0) {
        while (parts.size < k) {
          const others = [...usable.keys()].filter((index) => !parts.has(index)).sort((a, b) => a - b);
          if (parts.size + others.length < k) throw needed();
          await attempt(others.slice(0, k - parts.size), from, to, parts);
        }
        const given = [...parts.keys()].sort((a, b) => a - b).slice(0, k);
        const outputs = missing.map(() => new Uint8Array(to - from));
        code.recoder(given, missing)(
          given.map((index) => parts.get(index) as Uint8Array),
          outputs,
        );
        for (const [at, index] of missing.entries()) parts.set(index, outputs[at] as Uint8Array);
      }
      return wanted.map((index) => parts.get(index) as Uint8Array);
    },
  };
}

/** The length that most of the shards have. */
function commonSize(shards: readonly OfferedShard[]): number {
  const counts = new Map<number, number>();
  for (const { reader } of shards) counts.set(reader.sizeBytes, (counts.get(reader.sizeBytes) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 0;
}

async function verifyShard(cid: string, reader: ShardReader, signal: AbortSignal | undefined): Promise<void> {
  const got = await shardCidOf(
    reader.sizeBytes,
    inOrder(reader.sizeBytes, (from, to) => reader.read(from, to), signal),
  );
  if (got.toString() !== cid) throw wrongShard(cid, got.toString(), cid);
}

/** Reads what `read` gives at any place from the start to the end. */
export function inOrder(
  sizeBytes: number,
  read: (from: number, to: number) => Promise<Uint8Array>,
  signal?: AbortSignal,
  onBytes: (done: number) => void = () => {},
): ByteReader {
  let position = 0;
  return {
    async fill(target) {
      for (let done = 0; done < target.length; ) {
        signal?.throwIfAborted();
        const bytes = Math.min(LEAF_BYTES, target.length - done, sizeBytes - position);
        target.set(await read(position, position + bytes), done);
        done += bytes;
        position += bytes;
        onBytes(position);
      }
    },
    close: async () => {},
  };
}

function wrongShard(cid: string, got: string, expected: string): MillraceError {
  return new MillraceError('wrong-shard', {
    actor: 'peer',
    message: `Shard ${cid}: got ${got}, expected ${expected}`,
    values: { cid, got, expected },
  });
}
