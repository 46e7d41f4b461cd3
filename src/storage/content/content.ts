import { createWriteStream } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { CID } from 'multiformats/cid';
import { CAR_HEADER_BYTES, encodeCarHeader, encodeSectionPrefix, sectionBytes } from './car.ts';
import { createPieceHasher } from './commp.ts';
import { asDiskError, readJsonFile, syncFolder, writeDurably } from './durable-file.ts';
import { encodeManifest } from './manifest-sealed.ts';
import { describePiece, type PieceInfo } from './piece.ts';
import { type Container, createHeader, newFileKey, openContainer } from './seal.ts';
import { type ByteReader, emptyContent, openConcatenation, openEntry, type SourceTree, scanSource } from './source-tree.ts';
import { type BlockSink, buildFile, planFile } from './unixfs-file.ts';
import { buildFolder, type FolderStep, placeholderCid } from './unixfs-folder.ts';

/** How far building is: first the source is read, sealed and written as a CAR, then the CAR's piece is computed. */
export interface ContentProgress {
  step: 'import' | 'commit';
  doneBytes: number;
  totalBytes: number;
}

/** What to store, where to work, and for whom it is sealed. */
export interface ContentInput {
  /** A file or folder, or a stream (standard input), which becomes a file called `name`. */
  source: { path: string; skipSpecial?: boolean } | { stream: AsyncIterable<Uint8Array>; name?: string };
  /** Private to one content: the CAR and the file key are kept here until the caller deletes it. */
  workFolder: string;
  /** Not sealed: anyone who knows the CID can read it. */
  public?: boolean;
  /** X25519 public keys that the file key is wrapped to and kept with the content: the owner's wallet first. */
  recipients?: Uint8Array[];
  onProgress?: (progress: ContentProgress) => void;
  signal?: AbortSignal;
}

/** A content ready to be stored: one CAR, which is one piece. */
export interface BuiltContent {
  /** The root CID as text. */
  cid: string;
  carPath: string;
  carSize: number;
  piece: PieceInfo;
  isSealed: boolean;
  /** The key of the sealed content; absent when public. Secret. */
  fileKey?: Uint8Array;
  /** Bytes and number of the files, before sealing. */
  plainSize: number;
  entries: number;
  /** The work folder held this content already, complete; nothing was read again. */
  isReused: boolean;
}

/** Chunks whose plaintext is read in one go. */
const CHUNKS_AT_ONCE = 4;

interface Layout {
  build(sink: BlockSink, onBytes: (bytes: number) => void): Promise<CID>;
  carSize: number;
  totalBytes: number;
}

/**
 * Source to CAR (version 1, depth-first, 1 MiB raw leaves) to root CID and piece, in constant memory. Public content gives
 * the same bytes on every machine. Sealed content gets a new key each time it is built; when building was completed before
 * and the source has not changed, the finished CAR is used again: a key never seals two different contents.
 * @throws source-missing, source-unreadable, source-changed, unsupported-entry, too-many-entries, empty-content, disk-full
 */
export async function buildContent(input: ContentInput): Promise<BuiltContent> {
  const { workFolder, source } = input;
  await mkdir(workFolder, { recursive: true, mode: 0o700 });
  const spool = join(workFolder, 'spool');
  try {
    const tree = 'stream' in source ? await spoolStream(source, spool, input.signal) : await scanSource(source.path, source);
    const readers = input.public === true ? 'public' : (input.recipients ?? []).map((key) => Buffer.from(key).toString('hex')).join(' ');
    const fingerprint = 'stream' in source ? undefined : `${tree.fingerprint} ${readers}`;
    const finished = await finishedContent(workFolder, fingerprint);
    return finished ?? (await build(input, tree, fingerprint));
  } catch (error) {
    throw asDiskError(error, workFolder);
  } finally {
    await rm(spool, { force: true });
  }
}

async function build(input: ContentInput, tree: SourceTree, fingerprint: string | undefined): Promise<BuiltContent> {
  const { workFolder, signal, onProgress } = input;
  const fileKey = input.public === true ? undefined : newFileKey();
  const layout = fileKey === undefined ? await publicLayout(tree) : await sealedLayout(tree, fileKey, input.recipients ?? []);
  const unfinished = join(workFolder, 'unfinished.car');
  const file = await open(unfinished, 'w+', 0o600);
  let cid: CID;
  let piece: PieceInfo;
  try {
    let doneBytes = 0;
    cid = await layout.build(positionedSink(file), (bytes) => {
      signal?.throwIfAborted();
      doneBytes += bytes;
      onProgress?.({ step: 'import', doneBytes, totalBytes: layout.totalBytes });
    });
    await file.write(encodeCarHeader(cid), 0, CAR_HEADER_BYTES, 0);
    piece = await commit(file, layout.carSize, (done) => {
      signal?.throwIfAborted();
      onProgress?.({ step: 'commit', doneBytes: done, totalBytes: layout.carSize });
    });
    await file.sync();
  } finally {
    await file.close();
  }
  const content: BuiltContent = {
    cid: cid.toString(),
    carPath: join(workFolder, `${cid}.car`),
    carSize: layout.carSize,
    piece,
    isSealed: fileKey !== undefined,
    fileKey,
    plainSize: tree.totalBytes,
    entries: tree.entries.length,
    isReused: false,
  };
  await rename(unfinished, content.carPath);
  await syncFolder(workFolder);
  const record = { ...content, version: 1, fingerprint, fileKey: fileKey && Buffer.from(fileKey).toString('hex') };
  await writeDurably(join(workFolder, 'content.json'), `${JSON.stringify(record)}\n`);
  return content;
}

/** The content that a work folder holds complete, or undefined when there is none or the source has changed since. */
async function finishedContent(workFolder: string, fingerprint: string | undefined): Promise<BuiltContent | undefined> {
  if (fingerprint === undefined) return undefined;
  const record = (await readJsonFile(join(workFolder, 'content.json'))) as
    | (BuiltContent & { version: number; fingerprint: string })
    | undefined;
  if (record?.version !== 1 || record.fingerprint !== fingerprint) return undefined;
  const carPath = join(workFolder, `${record.cid}.car`);
  const size = await stat(carPath).then(
    (stats) => stats.size,
    () => -1,
  );
  if (size !== record.carSize) return undefined;
  const { version: _version, fingerprint: _fingerprint, fileKey, ...rest } = record;
  const key = fileKey === undefined ? undefined : Buffer.from(fileKey as unknown as string, 'hex');
  return { ...rest, carPath, fileKey: key, isReused: true };
}

/** One UnixFS file that is the sealed container: header, then chunks of the manifest and all files. */
async function sealedLayout(tree: SourceTree, fileKey: Uint8Array, recipients: Uint8Array[]): Promise<Layout> {
  const manifest = encodeManifest(tree);
  const header = await createHeader({ fileKey, recipients });
  const container = openContainer({ header, fileKey, plainBytes: manifest.length + tree.totalBytes });
  const plan = planFile(container.sealedBytes);
  return {
    carSize: CAR_HEADER_BYTES + plan.carBytes,
    totalBytes: container.sealedBytes,
    async build(sink, onLeaf) {
      const plain = openConcatenation(manifest, tree);
      try {
        return (await buildFile({ plan, reader: sealingReader(container, plain), position: CAR_HEADER_BYTES, sink, onLeaf })).cid;
      } finally {
        await plain.close();
      }
    },
  };
}

/** The bytes of a container, sealed as they are asked for. */
function sealingReader(container: Container, plain: ByteReader): ByteReader {
  const per = container.chunkPlainBytes;
  const buffer = new Uint8Array(per * CHUNKS_AT_ONCE);
  let unsealed = buffer.subarray(0, 0);
  let ready: Uint8Array[] = [container.header.bytes];
  let index = 0;
  return {
    async fill(target) {
      for (let done = 0; done < target.length; ) {
        const [first] = ready;
        if (first === undefined) {
          if (unsealed.length === 0) {
            unsealed = buffer.subarray(0, Math.min(buffer.length, container.plainBytes - index * per));
            await plain.fill(unsealed);
          }
          ready = container.seal(index, unsealed.subarray(0, per));
          unsealed = unsealed.subarray(per);
          index += 1;
          continue;
        }
        const bytes = Math.min(first.length, target.length - done);
        target.set(first.subarray(0, bytes), done);
        if (bytes === first.length) ready.shift();
        else ready[0] = first.subarray(bytes);
        done += bytes;
      }
    },
    close: () => plain.close(),
  };
}

/** Plain UnixFS: a file, or a folder whose walk is planned with placeholder roots, then built with the real ones. */
async function publicLayout(tree: SourceTree): Promise<Layout> {
  const plans = tree.entries.map((entry) => (entry.isFolder ? undefined : planFile(entry.size)));
  const planned =
    tree.kind === 'file'
      ? [{ entry: 0 }]
      : (
          await buildFolder(
            tree.entries.map(({ path }, i) => ({ path, root: plans[i] && placeholderCid(i), dagBytes: plans[i]?.dagBytes ?? 0 })),
          )
        ).steps;
  const bytesOf = (step: FolderStep) => ('block' in step ? sectionBytes(step.block.length) : (plans[step.entry]?.carBytes ?? 0));
  return {
    carSize: planned.reduce((sum, step) => sum + bytesOf(step), CAR_HEADER_BYTES),
    totalBytes: tree.totalBytes,
    async build(sink, onLeaf) {
      const roots: CID[] = [];
      let position = CAR_HEADER_BYTES;
      for (const step of planned) {
        if ('entry' in step) roots[step.entry] = await buildEntry(tree, step.entry, position, sink, onLeaf);
        position += bytesOf(step);
      }
      if (tree.kind === 'file') return roots[0] as CID;
      const entries = tree.entries.map(({ path }, i) => ({ path, root: roots[i], dagBytes: plans[i]?.dagBytes ?? 0 }));
      const { root, steps } = await buildFolder(entries);
      position = CAR_HEADER_BYTES;
      for (const step of steps) {
        if ('block' in step) await sink.put(position, encodeSectionPrefix(step.cid, step.block.length), step.block);
        position += bytesOf(step);
      }
      return root;
    },
  };
}

async function buildEntry(
  tree: SourceTree,
  index: number,
  position: number,
  sink: BlockSink,
  onLeaf: (bytes: number) => void,
): Promise<CID> {
  const entry = tree.entries[index] as SourceTree['entries'][number];
  const reader = await openEntry(entry);
  try {
    return (await buildFile({ plan: planFile(entry.size), reader, position, sink, onLeaf })).cid;
  } finally {
    await reader.close();
  }
}

/** Writes blocks at their places; small neighbours are gathered into one write. */
function positionedSink(file: FileHandle): BlockSink {
  return {
    async put(position, prefix, block) {
      await file.writev([prefix, block], position);
    },
  };
}

/** The piece of a finished CAR, reading ahead while hashing. */
async function commit(file: FileHandle, size: number, onBytes: (done: number) => void): Promise<PieceInfo> {
  const hasher = createPieceHasher();
  const buffers = [Buffer.alloc(1 << 20), Buffer.alloc(1 << 20)] as const;
  let reading = file.read(buffers[0], 0, buffers[0].length, 0);
  for (let done = 0, turn = 0; done < size; turn = 1 - turn) {
    const { bytesRead, buffer } = await reading;
    if (bytesRead === 0) break;
    done += bytesRead;
    const next = turn === 0 ? buffers[1] : buffers[0];
    reading = file.read(next, 0, next.length, done);
    hasher.write(buffer.subarray(0, bytesRead));
    onBytes(done);
  }
  await reading;
  return describePiece(hasher.finish());
}

/** Keeps a stream in a private file, because the layout needs the size. */
async function spoolStream(
  source: { stream: AsyncIterable<Uint8Array>; name?: string },
  path: string,
  signal?: AbortSignal,
): Promise<SourceTree> {
  await pipeline(source.stream, createWriteStream(path, { mode: 0o600 }), { signal });
  const { size } = await stat(path);
  const name = source.name ?? 'stdin';
  if (size === 0) throw emptyContent(name);
  const entry = { path: name, file: path, size, mode: 0o644, isFolder: false };
  return { kind: 'file', name, entries: [entry], totalBytes: size, fingerprint: '' };
}
