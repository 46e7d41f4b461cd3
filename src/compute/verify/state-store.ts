import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { encodeStrictState, STATE_PAGE_BYTES, STRICT_ENDS, type StrictChange, type StrictState } from '../../host/index.ts';

/** What is kept of one state: where its record lies, and which pages the segment before it changed. */
interface KeptState {
  stateHash: Hex;
  end: StrictState['end'];
  globals: Uint8Array;
  /** Place of the content in the file, for each changed page; -1: all zero. */
  pages: Map<number, number>;
}

const MAGIC = 0x5453524d;
/** Magic, checksum, bytes of the record behind this head. */
const HEAD_BYTES = 12;
const FIXED_BYTES = 32 + 1 + 4 + 4;
const ENTRY_BYTES = 5;
/** Between two calls that force the states to the disk: what is lost with the machine is run again. */
const SYNC_BYTES = 64 << 20;

/**
 * The states of one run in one file: of each only what the segment before it changed, so that a state costs the pages that were written. A
 * record that a crash cut off is dropped at the next opening.
 */
export class StateStore {
  readonly #file: FileHandle;
  readonly #pageCount: number;
  readonly #bytesMax: number;
  readonly #states: KeptState[] = [];
  #sizeBytes = 0;
  #unsyncedBytes = 0;

  private constructor(file: FileHandle, options: { memoryBytes: number; bytesMax: number }) {
    this.#file = file;
    this.#pageCount = options.memoryBytes / STATE_PAGE_BYTES;
    this.#bytesMax = options.bytesMax;
  }

  /** Opens `<folder>/states`, which is made where it is not there. */
  static async open(folder: string, options: { memoryBytes: number; bytesMax: number }): Promise<StateStore> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(join(folder, 'states'), 'a+', 0o600);
    const store = new StateStore(file, options);
    await store.#load();
    return store;
  }

  /** Hashes of the states that are kept, state 0 first. */
  get stateHashes(): Hex[] {
    return this.#states.map(({ stateHash }) => stateHash);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /**
   * Keeps the next state.
   * @throws states-too-large
   */
  async add(change: StrictChange): Promise<void> {
    const { end, globals, stateHash, pages } = change;
    const fixed = Buffer.alloc(FIXED_BYTES);
    fixed.set(Buffer.from(stateHash.slice(2), 'hex'));
    fixed.writeUInt8(STRICT_ENDS.indexOf(end), 32);
    fixed.writeUInt32LE(globals.length, 33);
    fixed.writeUInt32LE(pages.length, 37);
    const entries = Buffer.alloc(pages.length * ENTRY_BYTES);
    for (const [order, { page, content }] of pages.entries()) {
      entries.writeUInt32LE(page, order * ENTRY_BYTES);
      entries.writeUInt8(content === undefined ? 0 : 1, order * ENTRY_BYTES + 4);
    }
    const body = Buffer.concat([fixed, globals, entries, ...pages.flatMap(({ content }) => (content === undefined ? [] : [content]))]);
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(MAGIC, 0);
    head.writeUInt32LE(crc32(body), 4);
    head.writeUInt32LE(body.length, 8);
    if (this.#sizeBytes + HEAD_BYTES + body.length > this.#bytesMax) throw tooLarge(this.#states.length, this.#bytesMax);
    await this.#file.appendFile(Buffer.concat([head, body]));
    this.#remember(body, this.#sizeBytes + HEAD_BYTES);
    this.#sizeBytes += HEAD_BYTES + body.length;
    this.#unsyncedBytes += HEAD_BYTES + body.length;
    if (this.#unsyncedBytes > SYNC_BYTES) await this.sync();
  }

  /** Forces all to the disk; before anything is said about these states on chain. */
  async sync(): Promise<void> {
    await this.#file.sync();
    this.#unsyncedBytes = 0;
  }

  /**
   * A state as it is handed over (`encodeStrictState`).
   * @throws state-unknown
   */
  async read(index: number): Promise<Uint8Array> {
    const state = this.#states[index];
    if (state === undefined) throw stateUnknown(index, this.#states.length);
    if (state.end !== 'running') return encodeStrictState({ end: state.end, globals: new Uint8Array(), pageCount: 0, pages: new Map() });
    const places = new Map<number, number>();
    for (let at = index; at >= 0; at -= 1) {
      for (const [page, place] of this.#states[at]?.pages ?? []) if (!places.has(page)) places.set(page, place);
    }
    const pages = new Map<number, Uint8Array>();
    for (const [page, place] of places) {
      if (place < 0) continue;
      const content = Buffer.alloc(STATE_PAGE_BYTES);
      await this.#file.read(content, 0, STATE_PAGE_BYTES, place);
      pages.set(page, content);
    }
    return encodeStrictState({ end: 'running', globals: state.globals, pageCount: this.#pageCount, pages });
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #load(): Promise<void> {
    const { size } = await this.#file.stat();
    const head = Buffer.alloc(HEAD_BYTES);
    let at = 0;
    while (at + HEAD_BYTES <= size) {
      await this.#file.read(head, 0, HEAD_BYTES, at);
      const bytes = head.readUInt32LE(8);
      if (head.readUInt32LE(0) !== MAGIC || at + HEAD_BYTES + bytes > size) break;
      const body = Buffer.alloc(bytes);
      await this.#file.read(body, 0, bytes, at + HEAD_BYTES);
      if (crc32(body) !== head.readUInt32LE(4)) break;
      this.#remember(body, at + HEAD_BYTES);
      at += HEAD_BYTES + bytes;
    }
    if (at < size) await this.#file.truncate(at);
    this.#sizeBytes = at;
  }

  #remember(body: Buffer, bodyAt: number): void {
    const globalsBytes = body.readUInt32LE(33);
    const count = body.readUInt32LE(37);
    const entriesAt = FIXED_BYTES + globalsBytes;
    const pages = new Map<number, number>();
    let place = bodyAt + entriesAt + count * ENTRY_BYTES;
    for (let order = 0; order < count; order += 1) {
      const at = entriesAt + order * ENTRY_BYTES;
      const isZero = body.readUInt8(at + 4) === 0;
      pages.set(body.readUInt32LE(at), isZero ? -1 : place);
      if (!isZero) place += STATE_PAGE_BYTES;
    }
    this.#states.push({
      stateHash: `0x${body.toString('hex', 0, 32)}`,
      end: STRICT_ENDS[body.readUInt8(32)] ?? 'trap',
      globals: Uint8Array.from(body.subarray(FIXED_BYTES, entriesAt)),
      pages,
    });
  }
}

function tooLarge(states: number, bytesMax: number): MillraceError {
  return new MillraceError('states-too-large', {
    actor: 'caller',
    message: `The first ${states} states of the job need more than ${bytesMax} bytes`,
    values: { states, bytesMax },
    hint: 'Cut the job into fewer segments, or let each change less of its memory.',
  });
}

function stateUnknown(index: number, count: number): MillraceError {
  return new MillraceError('state-unknown', {
    actor: 'caller',
    message: `State ${index} is not kept; there are ${count}`,
    values: { index, count },
    hint: 'Ask for a state of a job that this node has run.',
  });
}
