import { decode as decodeCbor } from 'cborg';
import { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { BLOCK_BYTES_MAX, CID_BYTES, isBlockOf, isIdentity } from './block.ts';

/** Bytes of the header of a CARv1 with one CIDv1 root, its length prefix included. */
export const CAR_HEADER_BYTES = 59;
const HEADER_BYTES_MAX = 4096;
const SECTION_CID_BYTES_MAX = 128;

/** One verified block of a CAR: its CID, its bytes (valid only during the call) and where its bytes start in the CAR. */
export interface CarBlock {
  cid: CID;
  bytes: Uint8Array;
  offset: number;
}

/** Takes the bytes of a CARv1 as they come and calls back for every block, verified against its CID. */
export interface CarScanner {
  readonly root: CID | undefined;
  /** @throws bad-car, bad-block */
  write(chunk: Uint8Array): void;
  /** @throws bad-car when the CAR ends in the middle of a section */
  finish(): CID;
}

/** The header of a CARv1 with exactly one root, with its length prefix. */
export function encodeCarHeader(root: CID): Uint8Array {
  const length = root.bytes.length;
  const header = Buffer.alloc(CAR_HEADER_BYTES - CID_BYTES + length);
  Buffer.from([header.length - 1, 0xa2, 0x65, ...Buffer.from('roots'), 0x81, 0xd8, 0x2a, 0x58, length + 1, 0]).copy(header);
  header.set(root.bytes, 14);
  Buffer.from([0x67, ...Buffer.from('version'), 1]).copy(header, 14 + length);
  return header;
}

/** What precedes a block's bytes in a CAR: the varint of the section's length, and the CID. */
export function encodeSectionPrefix(cid: CID, blockBytes: number): Uint8Array {
  const prefix = Buffer.alloc(sectionBytes(blockBytes, cid.bytes.length) - blockBytes);
  let rest = blockBytes + cid.bytes.length;
  let at = 0;
  for (; rest >= 0x80; at += 1) {
    prefix[at] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  prefix[at] = rest;
  prefix.set(cid.bytes, at + 1);
  return prefix;
}

/** Bytes of a CAR section: length prefix, CID and block. */
export function sectionBytes(blockBytes: number, cidBytes = CID_BYTES): number {
  const length = blockBytes + cidBytes;
  let varintBytes = 1;
  for (let rest = length; rest >= 0x80; rest = Math.floor(rest / 128)) varintBytes += 1;
  return varintBytes + length;
}

/**
 * Scans a CARv1 from a stranger: one root, header at most 4 KiB, blocks at most 2 MiB, every block verified. Memory is
 * bounded by one block.
 * @throws bad-car, bad-block
 */
export function createCarScanner(onBlock: (block: CarBlock) => void): CarScanner {
  let root: CID | undefined;
  let position = 0; // in the CAR, of the first byte not yet consumed
  let held = Buffer.alloc(64 << 10);
  let heldBytes = 0;

  /** Consumes whole sections from the bytes at hand; returns how many bytes were consumed. */
  const consume = (bytes: Uint8Array): number => {
    let at = 0;
    while (true) {
      const prefix = readVarint(bytes, at, position + at);
      if (prefix === undefined) return at;
      const limit = root === undefined ? HEADER_BYTES_MAX : BLOCK_BYTES_MAX + SECTION_CID_BYTES_MAX;
      if (prefix.value > limit || prefix.value === 0) throw badCar(position + at, `a section of ${prefix.value} bytes, limit ${limit}`);
      const start = at + prefix.bytes;
      if (bytes.length - start < prefix.value) return at;
      const section = bytes.subarray(start, start + prefix.value);
      if (root === undefined) root = decodeHeader(section);
      else readBlock(section, position + start);
      at = start + prefix.value;
    }
  };

  const readBlock = (section: Uint8Array, offset: number): void => {
    let cid: CID;
    let bytes: Uint8Array;
    try {
      [cid, bytes] = CID.decodeFirst(section);
    } catch (cause) {
      throw badCar(offset, `no CID: ${(cause as Error).message}`, cause);
    }
    if (bytes.length > BLOCK_BYTES_MAX) throw badCar(offset, `a block of ${bytes.length} bytes, limit ${BLOCK_BYTES_MAX}`);
    if (!isBlockOf(cid, bytes)) throw wrongBlock(cid);
    if (!isIdentity(cid)) onBlock({ cid, bytes, offset: offset + section.length - bytes.length });
  };

  return {
    get root() {
      return root;
    },
    write(chunk) {
      let rest = chunk;
      while (rest.length > 0) {
        if (heldBytes === 0) {
          const used = consume(rest);
          position += used;
          rest = rest.subarray(used);
          if (rest.length === 0) return;
          if (held.length < rest.length) held = Buffer.alloc(rest.length);
          held.set(rest);
          heldBytes = rest.length;
          return;
        }
        // A section is cut in two: take just what completes it.
        const need = Math.max(1, neededBytes(held.subarray(0, heldBytes)) - heldBytes);
        const taken = Math.min(need, rest.length);
        if (held.length < heldBytes + taken) {
          const larger = Buffer.alloc(Math.max(heldBytes + need, held.length * 2));
          held.copy(larger, 0, 0, heldBytes);
          held = larger;
        }
        held.set(rest.subarray(0, taken), heldBytes);
        heldBytes += taken;
        rest = rest.subarray(taken);
        const used = consume(held.subarray(0, heldBytes));
        position += used;
        if (used > 0) {
          held.copyWithin(0, used, heldBytes);
          heldBytes -= used;
        }
      }
    },
    finish() {
      if (heldBytes > 0) throw badCar(position, `${heldBytes} bytes of an unfinished section`);
      if (root === undefined) throw badCar(0, 'no header');
      return root;
    },
  };
}

/** Bytes of the section that starts in `bytes`, as far as its length prefix can be read; never more than a section may have. */
function neededBytes(bytes: Uint8Array): number {
  const prefix = readVarint(bytes, 0, 0);
  if (prefix === undefined) return bytes.length + 1;
  return Math.min(prefix.bytes + prefix.value, BLOCK_BYTES_MAX + SECTION_CID_BYTES_MAX + 8);
}

function readVarint(bytes: Uint8Array, at: number, position: number): { value: number; bytes: number } | undefined {
  let value = 0;
  for (let i = 0; i < 5; i += 1) {
    const byte = bytes[at + i];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, bytes: i + 1 };
  }
  throw badCar(position, 'a length prefix of more than 5 bytes');
}

function decodeHeader(bytes: Uint8Array): CID {
  const tags: ((decode: () => unknown) => unknown)[] = [];
  tags[42] = (decode) => CID.decode((decode() as Uint8Array).subarray(1));
  let header: { version?: unknown; roots?: unknown };
  try {
    header = decodeCbor(bytes, { tags, rejectDuplicateMapKeys: true }) as typeof header;
  } catch (cause) {
    throw badCar(0, `no header: ${(cause as Error).message}`, cause);
  }
  const roots = header?.roots;
  const root = Array.isArray(roots) && roots.length === 1 ? CID.asCID(roots[0]) : null;
  if (header?.version !== 1 || root === null) throw badCar(0, 'a header that is not version 1 with one root');
  return root;
}

function badCar(offset: number, what: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-car', {
    actor: 'peer',
    message: `Not a CAR: got ${what} at byte ${offset}`,
    values: { offset, what },
    hint: 'Send a CARv1 with one root and blocks of at most 2 MiB.',
    cause,
  });
}

function wrongBlock(cid: CID): MillraceError {
  return new MillraceError('bad-block', {
    actor: 'peer',
    message: `The bytes of block ${cid} do not have its hash`,
    values: { cid: cid.toString() },
  });
}
