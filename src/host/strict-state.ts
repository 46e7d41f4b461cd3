import { createHash, hash } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import { VALUE_TYPES } from './strict-instructions.ts';

/** How a strict job stands: going on, or ended for ever because it trapped, ran out of fuel, or called too deep. */
export const STRICT_ENDS = ['running', 'trap', 'fuel', 'depth'] as const;
/** One of them. */
export type StrictEnd = (typeof STRICT_ENDS)[number];

/** All that a strict job is between two segments. A job that ended has neither globals nor pages. */
export interface StrictState {
  end: StrictEnd;
  /** Nine bytes for each mutable global: its type, then its value in eight bytes, little end first. */
  globals: Uint8Array;
  /** Size of its memory in pages. */
  pageCount: number;
  /** Pages that are not all zero, by number. */
  pages: Map<number, Uint8Array>;
}

/** Bytes of a page of state: what is compared, hashed and kept as a whole. */
export const STATE_PAGE_BYTES = 4096;
/** Bytes of one global of a state. */
export const GLOBAL_BYTES = 9;
const HASH_BYTES = 32;
const MAGIC = 'MRST';
const HEADER_BYTES = 4 + 1 + 4 + 4 + 4;
const GLOBALS_MAX = 100_000;
const ZERO_PAGE = Buffer.alloc(STATE_PAGE_BYTES);
const ZERO_PAGE_HASH = hash('sha256', ZERO_PAGE, 'buffer');

/** SHA-256 of one page. */
export function hashPage(page: Uint8Array): Uint8Array {
  return hash('sha256', page, 'buffer');
}

/** Whether a page is all zero. */
export function isZeroPage(page: Uint8Array): boolean {
  return ZERO_PAGE.equals(page);
}

/** The hashes of a memory of so many pages that are all zero. */
export function zeroPageHashes(pageCount: number): Buffer {
  const hashes = Buffer.alloc(pageCount * HASH_BYTES);
  for (let page = 0; page < pageCount; page += 1) hashes.set(ZERO_PAGE_HASH, page * HASH_BYTES);
  return hashes;
}

/**
 * The hash of a state: `SHA-256("millrace strict state 1" ‖ 0 ‖ end ‖ uint32 pages ‖ uint32 globals ‖ globals ‖ SHA-256 of each page)`, numbers
 * little end first. From the hashes of its pages, so that only changed ones are hashed again.
 */
export function hashStrictState(parts: { end: StrictEnd; globals: Uint8Array; pageHashes: Uint8Array }): string {
  const { end, globals, pageHashes } = parts;
  const header = Buffer.alloc(9);
  header.writeUInt8(STRICT_ENDS.indexOf(end), 0);
  header.writeUInt32LE(pageHashes.length / HASH_BYTES, 1);
  header.writeUInt32LE(globals.length / GLOBAL_BYTES, 5);
  const hash = createHash('sha256').update('millrace strict state 1\0').update(header).update(globals).update(pageHashes);
  return `0x${hash.digest('hex')}`;
}

/** The hash of a whole state. */
export function hashWholeState(state: StrictState): string {
  const pageHashes = zeroPageHashes(state.pageCount);
  for (const [page, bytes] of state.pages) pageHashes.set(hashPage(bytes), page * HASH_BYTES);
  return hashStrictState({ end: state.end, globals: state.globals, pageHashes });
}

/** A state as one string of bytes, the same for the same state; what a provider hands to who replays the next segment. */
export function encodeStrictState(state: StrictState): Uint8Array {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 'latin1');
  header.writeUInt8(STRICT_ENDS.indexOf(state.end), 4);
  header.writeUInt32LE(state.pageCount, 5);
  header.writeUInt32LE(state.globals.length / GLOBAL_BYTES, 9);
  header.writeUInt32LE(state.pages.size, 13);
  const pages = [...state.pages].sort(([one], [other]) => one - other);
  return Buffer.concat([header, state.globals, ...pages.flatMap(([page, bytes]) => [pageNumber(page), bytes])]);
}

/**
 * A state from its bytes, whoever they come from.
 * @param memoryBytes what the job's memory has; another size is refused.
 * @throws bad-state
 */
export function decodeStrictState(bytes: Uint8Array, memoryBytes: number): StrictState {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.length < HEADER_BYTES || view.toString('latin1', 0, 4) !== MAGIC) throw badState('it does not begin as a state does');
  const end = STRICT_ENDS[view.readUInt8(4)];
  const [pageCount, globals, count] = [view.readUInt32LE(5), view.readUInt32LE(9), view.readUInt32LE(13)];
  const due = end === 'running' ? memoryBytes / STATE_PAGE_BYTES : 0;
  if (end === undefined || pageCount !== due) throw badState(`it has ${pageCount} pages of memory, ${due} are due`);
  if (globals > GLOBALS_MAX || count > pageCount) throw badState(`it has ${globals} globals and ${count} pages that are not zero`);
  const pagesAt = HEADER_BYTES + globals * GLOBAL_BYTES;
  if (view.length !== pagesAt + count * (4 + STATE_PAGE_BYTES)) throw badState(`it has ${view.length} bytes, which is not what it states`);
  const pages = new Map<number, Uint8Array>();
  let least = 0;
  for (let at = pagesAt; at < view.length; at += 4 + STATE_PAGE_BYTES) {
    const page = view.readUInt32LE(at);
    const content = view.subarray(at + 4, at + 4 + STATE_PAGE_BYTES);
    if (page < least || page >= pageCount || isZeroPage(content))
      throw badState(`page ${page} is out of order, outside of memory, or all zero`);
    least = page + 1;
    pages.set(page, content);
  }
  return { end, globals: view.subarray(HEADER_BYTES, pagesAt), pageCount, pages };
}

/**
 * Refuses a state whose globals are not those of a module, in number and type.
 * @throws bad-state
 */
export function checkGlobals({ end, globals }: StrictState, types: readonly (keyof typeof VALUE_TYPES)[]): void {
  const due = end === 'running' ? types : [];
  const isDue = due.every((type, order) => globals[order * GLOBAL_BYTES] === VALUE_TYPES[type]);
  if (globals.length !== due.length * GLOBAL_BYTES || !isDue)
    throw badState(`it has ${globals.length / GLOBAL_BYTES} globals, not those of the module`);
}

function pageNumber(page: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(page);
  return bytes;
}

/** Bytes that are no state of that job. */
export function badState(reason: string): MillraceError {
  return new MillraceError('bad-state', {
    actor: 'peer',
    message: `These bytes are no state of the job: ${reason}`,
    values: { reason },
    hint: 'Fetch the state again; a provider that does not deliver it can be made to on chain.',
  });
}
