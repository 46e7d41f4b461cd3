import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { CAR_HEADER_BYTES, createCarScanner, encodeCarHeader, encodeSectionPrefix, sectionBytes } from '../content/car.ts';
import { asDiskError, syncFolder } from '../content/durable-file.ts';
import { type PieceInfo, pieceOf } from '../content/piece.ts';
import { buildFolder } from '../content/unixfs-folder.ts';

/** The most objects of one pack: its directory is built in memory. */
export const PACK_OBJECTS_MAX = 10_000;
const COPY_BYTES = 1 << 20;

/** An object that was built as a content of its own: its CAR, and the sum of its blocks for the directory. */
export interface PackInput {
  cid: string;
  carPath: string;
  carSize: number;
}

/** Where an object is in a pack: the CAR sections of all its blocks. With a header before them they are the object's own CAR. */
export interface PackedObject {
  cid: string;
  offset: number;
  length: number;
}

/** Many objects as one content: one CAR, which is one piece. */
export interface Pack {
  /** Root of a UnixFS directory that holds each object under its own CID. */
  cid: string;
  carPath: string;
  carSize: number;
  piece: PieceInfo;
  /** Sorted by CID. */
  objects: PackedObject[];
}

/**
 * Packs objects into one CAR: the directory's blocks and, depth first, each object's own blocks unchanged, so that every
 * holder of the pack serves each object by its own CID. The same objects give the same pack, in whatever order they come.
 * Memory grows with the number of objects only. The CAR is at its place when it is complete and durable.
 * @throws pack-too-large, empty-content, disk-full
 */
export async function packObjects(input: { objects: readonly PackInput[]; folder: string; signal?: AbortSignal }): Promise<Pack> {
  const { folder, signal } = input;
  const objects = [...new Map(input.objects.map((object) => [object.cid, object])).values()].sort((a, b) => (a.cid < b.cid ? -1 : 1));
  if (objects.length === 0 || objects.length > PACK_OBJECTS_MAX) throw wrongCount(objects.length);
  const unfinished = join(folder, 'unfinished.car');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  try {
    const entries: { path: string; root: CID; dagBytes: number }[] = [];
    for (const object of objects) entries.push({ path: object.cid, root: CID.parse(object.cid), dagBytes: await verifiedBytes(object) });
    const { root, steps } = await buildFolder(entries);
    const file = await open(unfinished, 'w', 0o600);
    const packed: PackedObject[] = [];
    let position = CAR_HEADER_BYTES;
    try {
      await file.write(encodeCarHeader(root), 0, CAR_HEADER_BYTES, 0);
      for (const step of steps) {
        signal?.throwIfAborted();
        if ('block' in step) {
          await file.writev([encodeSectionPrefix(step.cid, step.block.length), step.block], position);
          position += sectionBytes(step.block.length);
        } else {
          const object = objects[step.entry] as PackInput;
          const length = await copySections(object, file, position);
          packed.push({ cid: object.cid, offset: position, length });
          position += length;
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
    const piece = await pieceOf(createReadStream(unfinished, { highWaterMark: COPY_BYTES, signal }));
    const carPath = join(folder, `${root}.car`);
    await rename(unfinished, carPath);
    await syncFolder(folder);
    return { cid: root.toString(), carPath, carSize: position, piece, objects: packed.sort((a, b) => (a.cid < b.cid ? -1 : 1)) };
  } catch (error) {
    await rm(unfinished, { force: true });
    throw asDiskError(error, folder);
  }
}

/** An object's own CAR from its range of a pack, every block verified and nothing missing at its end. @throws bad-car, bad-block */
export function unpackObject(cid: string, range: Uint8Array): Uint8Array {
  const car = Buffer.concat([encodeCarHeader(CID.parse(cid)), range]);
  let first: CID | undefined;
  const scanner = createCarScanner((block) => {
    first ??= CID.decode(Uint8Array.from(block.cid.bytes));
  });
  scanner.write(car);
  scanner.finish();
  if (first?.toString() === cid) return car;
  throw new MillraceError('bad-car', {
    actor: 'peer',
    message: `The range begins with block ${first ?? 'none'}, expected object ${cid}`,
    values: { got: first?.toString(), cid },
  });
}

/** Bytes of all blocks of an object's CAR, each verified. */
async function verifiedBytes({ cid, carPath, carSize }: PackInput): Promise<number> {
  let blockBytes = 0;
  let carBytes = 0;
  const scanner = createCarScanner(({ bytes }) => {
    blockBytes += bytes.length;
  });
  for await (const chunk of createReadStream(carPath, { highWaterMark: COPY_BYTES })) {
    scanner.write(chunk as Uint8Array);
    carBytes += (chunk as Uint8Array).length;
  }
  const root = scanner.finish().toString();
  if (root !== cid || carBytes !== carSize)
    throw wrongObject(carPath, `${carBytes} bytes with root ${root}`, `${carSize} bytes with root ${cid}`);
  return blockBytes;
}

/** Copies what follows the header of an object's CAR; gives the number of bytes. */
async function copySections({ carPath, carSize }: PackInput, target: FileHandle, position: number): Promise<number> {
  let at = CAR_HEADER_BYTES;
  for await (const chunk of createReadStream(carPath, { start: CAR_HEADER_BYTES, highWaterMark: COPY_BYTES })) {
    const bytes = chunk as Uint8Array;
    await target.writev([bytes], position + at - CAR_HEADER_BYTES);
    at += bytes.length;
  }
  if (at !== carSize) throw wrongObject(carPath, `${at} bytes`, `${carSize} bytes`);
  return carSize - CAR_HEADER_BYTES;
}

function wrongObject(path: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-car', {
    actor: 'host',
    message: `${path}: got ${got}, expected ${expected}`,
    values: { path, got, expected },
  });
}

function wrongCount(count: number): MillraceError {
  return new MillraceError('pack-too-large', {
    actor: 'caller',
    message: `Got ${count} objects, expected 1 to ${PACK_OBJECTS_MAX}`,
    values: { count, limit: PACK_OBJECTS_MAX },
    hint: 'Make several packs.',
  });
}
