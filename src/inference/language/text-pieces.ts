import type { TokenLogprob } from '../engines/engine.ts';

/** Text that may be given out, with the tokens that it stands for. */
export interface TextPiece {
  text: string;
  tokens: number;
  logprobs: TokenLogprob[];
}

/** Bytes on their way to text. */
export interface TextPieces {
  /** Takes one byte; gives what may be given out by now, and whether a stop text has come. */
  take(byte: number, logprob?: TokenLogprob): { piece: TextPiece | undefined; isStopped: boolean };
  /** What is left at the end: held-back text, and the tokens of a character that was never finished. */
  end(): TextPiece | undefined;
}

const PIECE_LENGTH = 12;

/**
 * Cuts a stream of bytes into pieces of text: never within a UTF-8 character (bytes that are none become U+FFFD), never a character of what
 * may still become a stop text, and whole words where they are short. A stop text itself is not given out; its tokens are counted.
 */
export function createTextPieces(stop: readonly string[]): TextPieces {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let held: TextPiece[] = [];
  let unread = { tokens: 0, logprobs: [] as TokenLogprob[] };

  const giveOut = (count: number): TextPiece | undefined => {
    const parts = held.slice(0, count);
    held = held.slice(count);
    return parts.length === 0 ? undefined : joined(parts);
  };
  return {
    take(byte, logprob) {
      unread.tokens += 1;
      if (logprob !== undefined) unread.logprobs.push(logprob);
      const text = decoder.decode(Uint8Array.of(byte), { stream: true });
      if (text === '') return { piece: undefined, isStopped: false };
      held.push({ text, ...unread });
      unread = { tokens: 0, logprobs: [] };
      const whole = joined(held);
      const found = stop.map((each) => whole.text.indexOf(each)).filter((at) => at >= 0);
      if (found.length > 0) {
        held = [];
        return { piece: { ...whole, text: whole.text.slice(0, Math.min(...found)) }, isStopped: true };
      }
      const free = whole.text.length - openLength(whole.text, stop);
      const isDue = free >= PIECE_LENGTH || /\s/.test(text);
      return { piece: isDue ? giveOut(partsWithin(held, free)) : undefined, isStopped: false };
    },
    end() {
      const rest = giveOut(held.length);
      if (unread.tokens === 0) return rest;
      const cut = { text: '', ...unread };
      return rest === undefined ? cut : joined([rest, cut]);
    },
  };
}

/** How much of a text's end is the beginning of a stop text. */
function openLength(text: string, stop: readonly string[]): number {
  return Math.max(0, ...stop.map((each) => longestOverlap(text, each)));
}

function longestOverlap(text: string, stop: string): number {
  for (let length = Math.min(stop.length - 1, text.length); length > 0; length -= 1)
    if (text.endsWith(stop.slice(0, length))) return length;
  return 0;
}

/** How many of the first parts lie within a length of text. */
function partsWithin(parts: readonly TextPiece[], length: number): number {
  let end = 0;
  const beyond = parts.findIndex(({ text }) => {
    end += text.length;
    return end > length;
  });
  return beyond === -1 ? parts.length : beyond;
}

function joined(parts: readonly TextPiece[]): TextPiece {
  return {
    text: parts.map(({ text }) => text).join(''),
    tokens: parts.reduce((sum, { tokens }) => sum + tokens, 0),
    logprobs: parts.flatMap(({ logprobs }) => logprobs),
  };
}
