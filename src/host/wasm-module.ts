import { badImage } from './executor.ts';

const MAGIC = 0x6d736100;
const VERSION = 1;
const HEADER_BYTES = 8;
const SECTION = { import: 2, table: 4, memory: 5, tag: 13 };
const IMPORTED = { function: 0, table: 1, memory: 2, global: 3, tag: 4 };
const HAS_MAXIMUM = 1;
const PAGE_BYTES = 65_536;
const TABLE_ENTRIES_MAX = 100_000;
const REFERENCE_TYPES = [0x70, 0x6f];

/**
 * A module whose memory and table cannot grow beyond the limits: the maxima of its sections are rewritten before it is compiled (WebAssembly
 * core specification, 5.4 and 5.5). Only preview 1 of WASI may be imported; memories and tables of its own must be its only ones.
 * @throws bad-image
 */
export function limitModule(bytes: Uint8Array, memoryBytesMax: number): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) {
    throw badImage('it is no WebAssembly module');
  }
  const parts: Uint8Array[] = [bytes.subarray(0, HEADER_BYTES)];
  let memories = 0;
  const reader = new ModuleReader(bytes, HEADER_BYTES);
  while (!reader.isAtEnd()) {
    const id = reader.byte();
    const body = reader.take(reader.number());
    if (id === SECTION.import) checkImports(new ModuleReader(body, 0));
    if (id === SECTION.memory) memories += 1;
    const pages = Math.floor(memoryBytesMax / PAGE_BYTES);
    const limited =
      id === SECTION.memory
        ? rewriteLimits(body, { most: pages, what: 'memory', typeBytes: 0 })
        : id === SECTION.table
          ? rewriteLimits(body, { most: TABLE_ENTRIES_MAX, what: 'table', typeBytes: 1 })
          : body;
    parts.push(Uint8Array.of(id), encodeNumber(limited.length), limited);
  }
  if (memories !== 1) throw badImage(`it has ${memories} memories of its own; one is due`);
  return Buffer.concat(parts);
}

function rewriteLimits(body: Uint8Array, rule: { most: number; what: string; typeBytes: number }): Uint8Array {
  const { most, what, typeBytes } = rule;
  const reader = new ModuleReader(body, 0);
  const count = reader.number();
  if (count > 1) throw badImage(`it has ${count} entries in its ${what} section; at most one is taken`);
  if (count === 0) return body;
  const type = reader.take(typeBytes);
  if (typeBytes > 0 && !REFERENCE_TYPES.includes(type[0] as number)) throw badImage(`its ${what} is of an unknown type`);
  const flags = reader.byte();
  if (flags > HAS_MAXIMUM) throw badImage(`its ${what} is shared or of 64 bits`);
  const least = reader.number();
  const stated = flags === HAS_MAXIMUM ? reader.number() : most;
  if (least > most) throw badImage(`its ${what} begins with ${least} units; allowed are ${most}`);
  if (!reader.isAtEnd()) throw badImage(`its ${what} section is malformed`);
  return Buffer.concat([Uint8Array.of(1), type, Uint8Array.of(HAS_MAXIMUM), encodeNumber(least), encodeNumber(Math.min(stated, most))]);
}

function checkImports(reader: ModuleReader): void {
  for (let left = reader.number(); left > 0; left -= 1) {
    const from = Buffer.from(reader.take(reader.number())).toString('utf8');
    const name = Buffer.from(reader.take(reader.number())).toString('utf8');
    const kind = reader.byte();
    if (kind !== IMPORTED.function || from !== 'wasi_snapshot_preview1') {
      throw badImage(
        `it wants ${JSON.stringify(`${from}.${name}`.slice(0, 120))} of its host; there are only the functions of wasi_snapshot_preview1`,
      );
    }
    reader.number();
  }
}

/** Reads bytes and unsigned LEB128 numbers, never beyond the end. */
export class ModuleReader {
  readonly #bytes: Uint8Array;
  #at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get position(): number {
    return this.#at;
  }

  isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw badImage('the module is cut off');
    this.#at += 1;
    return value;
  }

  number(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw badImage('a number of the module has no end');
  }

  peek(): number {
    const value = this.byte();
    this.#at -= 1;
    return value;
  }

  /** The bytes from an earlier position up to here. */
  since(position: number): Uint8Array {
    return this.#bytes.subarray(position, this.#at);
  }

  take(count: number): Uint8Array {
    if (this.#at + count > this.#bytes.length) throw badImage('the module is cut off');
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }
}

/** A number as unsigned LEB128. */
export function encodeNumber(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return Uint8Array.from([...bytes, left]);
    bytes.push((left % 128) | 0x80);
  }
}
