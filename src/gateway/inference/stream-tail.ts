import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import { RECEIPT_HEADER } from '../../inference/index.ts';

/**
 * Watches a stream of server-sent events go by: hashes what stands before the receipt, keeps the receipt, and holds the end back (the receipt, an
 * error, or what says that all is done), so that nobody is told of a good end before the receipt was checked, nor twice of a bad one.
 */
export interface StreamTail {
  /** What may be handed on now: all before the end, but for the beginning of a line that may be it. @throws stream-goes-on */
  feed(chunk: Buffer): Buffer;
  /** What was held back; called once, when the stream is over. */
  rest(): Buffer;
  /** Whether the stream ended with an error of the miner's own. After `rest`. */
  isError(): boolean;
  /** Base64url of the receipt; undefined when none came. After `rest`. */
  receipt(): string | undefined;
  /** SHA-256 of all bytes before the receipt. After `rest`. */
  hash(): `0x${string}`;
}

const RECEIPT_MARK = Buffer.from(`: ${RECEIPT_HEADER} `);
/** How a miner begins the event of its own failure. */
const ERROR_MARK = Buffer.from('data: {"error"');
const MARKS = [RECEIPT_MARK, ERROR_MARK, Buffer.from('data: [DONE]')];
const NEWLINE = 10;
/** A receipt, and what ends a stream. */
const HELD_BYTES_MAX = 32 << 10;
const NOTHING = Buffer.alloc(0);

/** The tail of one stream. */
export function createStreamTail(): StreamTail {
  const hash = createHash('sha256');
  const held: Buffer[] = [];
  let heldBytes = 0;
  let carry: Buffer = NOTHING;
  let receipt: string | undefined;
  let isLineStart = true;
  let isError = false;
  const hold = (data: Buffer) => {
    heldBytes += data.length;
    if (heldBytes > HELD_BYTES_MAX) throw goesOn();
    held.push(data);
  };
  return {
    feed(chunk) {
      if (held.length > 0) {
        hold(chunk);
        return NOTHING;
      }
      const data = carry.length === 0 ? chunk : Buffer.concat([carry, chunk]);
      carry = NOTHING;
      const ends = MARKS.map((mark) => markIn(data, mark, isLineStart)).filter((at) => at !== -1);
      const end = ends.length === 0 ? -1 : Math.min(...ends);
      const from = end === -1 ? partialMark(data, isLineStart) : end;
      if (end === -1) carry = data.subarray(from);
      else hold(data.subarray(end));
      const passed = data.subarray(0, from);
      if (from > 0) isLineStart = data[from - 1] === NEWLINE;
      hash.update(passed);
      return passed;
    },
    rest() {
      const left = held.length > 0 ? Buffer.concat(held) : carry;
      const at = markIn(left, RECEIPT_MARK, isLineStart);
      isError = markIn(left, ERROR_MARK, isLineStart) === 0;
      hash.update(at === -1 ? left : left.subarray(0, at));
      if (at !== -1) {
        const end = left.indexOf(NEWLINE, at);
        receipt = left.toString('latin1', at + RECEIPT_MARK.length, end === -1 ? undefined : end);
      }
      return left;
    },
    isError: () => isError,
    receipt: () => receipt,
    hash: () => `0x${hash.digest('hex')}`,
  };
}

/** Where a mark begins a line, -1 when it does not. */
function markIn(data: Buffer, mark: Buffer, isLineStart: boolean): number {
  for (let at = data.indexOf(mark); at !== -1; at = data.indexOf(mark, at + 1)) {
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
  const isPart = length > 0 && MARKS.some((mark) => length < mark.length && data.subarray(from).equals(mark.subarray(0, length)));
  return isPart ? from : data.length;
}

function goesOn(): MillraceError {
  return new MillraceError('stream-goes-on', {
    actor: 'peer',
    message: `The stream goes on for more than ${HELD_BYTES_MAX} bytes after its end`,
    values: { limit: HELD_BYTES_MAX },
  });
}
