import { encode as encodePb } from '@ipld/dag-pb';
import { UnixFS } from 'ipfs-unixfs';
import type { InProgressImportResult, WritableStorage } from 'ipfs-unixfs-importer';
import type { CID } from 'multiformats/cid';
import { CID as CidClass } from 'multiformats/cid';
import { create as createDigest } from 'multiformats/hashes/digest';
import { cidOf, DAG_PB, linksOf, RAW } from './block.ts';

/** What a folder's DAG needs to know of each entry: a file's root and size of all its blocks, or an empty folder. */
export interface FolderEntry {
  path: string;
  root: CID | undefined;
  dagBytes: number;
}

/** A step of the depth-first walk of a folder's DAG: one of its own blocks, or all blocks of the file of an entry. */
export type FolderStep = { cid: CID; block: Uint8Array } | { entry: number };

/**
 * Builds the directories (sharded when large, profile `unixfs-v1-2025`) over file roots, and gives the depth-first walk
 * from the root. The walk's shape and the blocks' sizes depend on names and sizes only, not on the roots' hashes.
 */
export async function buildFolder(entries: FolderEntry[]): Promise<{ root: CID; steps: FolderStep[] }> {
  const blocks = new Map<string, Uint8Array>();
  const store = {
    put: async (cid: CID, block: Uint8Array) => {
      blocks.set(cid.toString(), block);
      return cid;
    },
  } as unknown as WritableStorage;
  const dagBuilder = async function* (): AsyncGenerator<() => Promise<InProgressImportResult>> {
    for (const entry of entries) yield async () => importResult(entry, store);
  };
  const { importer } = await import('ipfs-unixfs-importer');
  let root: CID | undefined;
  const source = entries.map(({ path }) => ({ path, content: new Uint8Array() }));
  for await (const result of importer(source, store, { profile: 'unixfs-v1-2025', wrapWithDirectory: true, dagBuilder })) root = result.cid;

  const byRoot = new Map<string, number[]>();
  entries.forEach((entry, index) => {
    if (entry.root === undefined) return;
    const key = entry.root.toString();
    const same = byRoot.get(key);
    if (same === undefined) byRoot.set(key, [index]);
    else same.push(index);
  });
  const steps: FolderStep[] = [];
  const walk = (cid: CID): void => {
    const key = cid.toString();
    const block = blocks.get(key);
    if (block === undefined) return void steps.push({ entry: byRoot.get(key)?.shift() as number });
    steps.push({ cid, block });
    for (const link of linksOf(cid, block)) walk(link);
  };
  walk(root as CID);
  return { root: root as CID, steps };
}

/** A CID that stands for an entry whose hash is not known yet; as long as a real one and different for each entry. */
export function placeholderCid(index: number): CID {
  const digest = new Uint8Array(32);
  new DataView(digest.buffer).setUint32(0, index + 1);
  return CidClass.createV1(RAW, createDigest(0x12, digest));
}

async function importResult(entry: FolderEntry, store: WritableStorage): Promise<InProgressImportResult> {
  if (entry.root !== undefined) {
    return {
      cid: entry.root,
      size: BigInt(entry.dagBytes),
      path: entry.path,
      originalPath: entry.path,
      unixfs: new UnixFS({ type: 'file' }),
    };
  }
  const block = encodePb({ Data: new UnixFS({ type: 'directory' }).marshal(), Links: [] });
  const cid = cidOf(DAG_PB, block);
  await store.put(cid, block);
  return { cid, size: BigInt(block.length), path: entry.path, originalPath: entry.path, unixfs: new UnixFS({ type: 'directory' }) };
}
