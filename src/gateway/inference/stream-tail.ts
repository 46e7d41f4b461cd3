import { createHash } from 'node:crypto';
import { RECEIPT_HEADER } from '../../inference/index.ts';

/** Watches a stream of server-sent events go by: hashes what stands before the receipt, and keeps the receipt. */
export interface StreamTail {
  /** What may be handed on now: all, but for the beginning of a line that may become the receipt. */
  feed(chunk: Buffer): Buffer;
  /** The rest, at the end of the stream. */
  rest(): Buffer;
  /** Base64url of the receipt; undefined when none came. */
  receipt(): string | undefined;
  /** SHA-256 of all bytes before the receipt. */
  hash(): `0x${string}`;
}

const MARK = Buffer.from(`: ${RECEIPT_HEADER} `);
const NEWLINE = 10;
const RECEIPT_BYTES_MAX = 8192;
const NOTHING = Buffer.alloc(0);

/** The tail of one stream. */
export function createStreamTail(): StreamTail {
  const hash = createHash('sha256');
  let carry: Buffer = NOTHING;
  let receipt: Buffer | undefined;
  let isLineStart = true;
  return {
    feed(chunk) {
      const data = carry.length === 0 ? chunk : Buffer.concat([carry, chunk]);
      carry = NOTHING;
      if (receipt !== undefined) {
        if (receipt.length < RECEIPT_BYTES_MAX) receipt = Buffer.concat([receipt, data]);
        return data;
      }
      const at = markIn(data, isLineStart);
      if (at !== -1) {
        hash.update(data.subarray(0, at));
        receipt = data.subarray(at + MARK.length);
        return data;
      }
      const from = partialMark(data, isLineStart);
      carry = data.subarray(from);
      const passed = data.subarray(0, from);
      if (from > 0) isLineStart = data[from - 1] === NEWLINE;
      hash.update(passed);
      return passed;
    },
    rest() {
      const left = carry;
      if (receipt === undefined) hash.update(left);
      carry = NOTHING;
      return left;
    },
    receipt() {
      if (receipt === undefined) return undefined;
      const end = receipt.indexOf(NEWLINE);
      return receipt.toString('latin1', 0, end === -1 ? undefined : end);
    },
    hash: () => `0x${hash.digest('hex')}`,
  };
}

/** Where the mark begins a line, -1 when it does not. */
function markIn(data: Buffer, isLineStart: boolean): number {
  for (let at = data.indexOf(MARK); at !== -1; at = data.indexOf(MARK, at + 1)) {
    if (at === 0 ? isLineStart : data[at - 1] === NEWLINE) return at;
  }
  return -1;
}

/** Where the beginning of a mark stands at the end of the data; the data's length when there is none. */
function partialMark(data: Buffer, isLineStart: boolean): number {
  const newline = data.lastIndexOf(NEWLINE);
  if (newline === -1 && !isLineStart) return data.length;
  const from = newline + 1;
  const length = data.length - from;
  const isPart = length > 0 && length < MARK.length && data.subarray(from).equals(MARK.subarray(0, length));
  return isPart ? from : data.length;
}
