/** What a miner counted, and what is counted again. */
export interface Count {
  /** Units of output that the receipt claims. */
  claimed: number;
  /** The text that was answered. */
  text: string;
  /** Counts the tokens of a text as the model's declared tokenizer does; undefined where nobody here has it. */
  count: ((text: string) => number) | undefined;
}

/** A token that ends the text, or begins it, is not in the text. */
const MARKS = 4;
/** Cut elsewhere, a text can have some more tokens than when it is cut at once: one in fifty. */
const SLACK_DIVISOR = 50;

/**
 * How many units too many a receipt claims; 0 where the count holds. Without the tokenizer a token is taken to have a byte at least, which
 * convicts only what is impossible.
 */
export function inflationOf({ claimed, text, count }: Count): number {
  const counted = count?.(text) ?? Buffer.byteLength(text);
  const allowed = counted + Math.floor(counted / SLACK_DIVISOR) + MARKS;
  return Math.max(0, claimed - allowed);
}
