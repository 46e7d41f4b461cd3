import { open } from 'node:fs/promises';
import type { CID } from 'multiformats/cid';
import { CAR_HEADER_BYTES, encodeCarHeader } from '../content/car.ts';
import type { ByteReader } from '../content/source-tree.ts';
import { buildFile, planFile } from '../content/unixfs-file.ts';

/** Writes a shard's payload as a UnixFS file in a CAR, durable when it returns; gives the shard's root CID. */
export async function writeShardCar(input: { path: string; shardBytes: number; reader: ByteReader }): Promise<CID> {
  const { path, shardBytes, reader } = input;
  const file = await open(path, 'w', 0o600);
  try {
    const sink = {
      put: async (position: number, prefix: Uint8Array, block: Uint8Array) => void (await file.writev([prefix, block], position)),
    };
    const { cid } = await buildFile({ plan: planFile(shardBytes), reader, position: CAR_HEADER_BYTES, sink, onLeaf: () => {} });
    await file.write(encodeCarHeader(cid), 0, CAR_HEADER_BYTES, 0);
    await file.sync();
    return cid;
  } finally {
    await file.close();
  }
}

/** The root CID that a shard's payload has as a UnixFS file; nothing is written. */
export async function shardCidOf(shardBytes: number, reader: ByteReader): Promise<CID> {
  const sink = { put: async () => {} };
  return (await buildFile({ plan: planFile(shardBytes), reader, position: 0, sink, onLeaf: () => {} })).cid;
}
