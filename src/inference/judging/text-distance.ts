/** Millionths: every share in judging is a whole number of them, so that two validators reckon the same. */
export const WHOLE = 1_000_000;

/** Longest texts that are compared to the end; of longer ones the beginning counts. */
const COMPARED_MAX = 2048;
const READ_MAX = 65_536;

/** The least number of insertions, deletions and replacements that turn one list into the other (Levenshtein), in memory of one list. */
export function editDistance<T>(one: readonly T[], other: readonly T[]): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let from = 1; from <= one.length; from += 1) {
    const next = [from];
    for (let to = 1; to <= other.length; to += 1) {
      const replaced = (row[to - 1] as number) + (one[from - 1] === other[to - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[to] as number) + 1, (next[to - 1] as number) + 1));
    }
    row = next;
  }
  return row[other.length] as number;
}

/** How alike two texts are by characters, case and spacing left aside, in millionths: 1,000,000 is the same. */
export function textLikeness(one: string, other: string): number {
  return likeness([...plain(one)].slice(0, COMPARED_MAX), [...plain(other)].slice(0, COMPARED_MAX));
}

/** How alike two texts are by words: 1 less the word error rate, at least 0, in millionths. */
export function wordLikeness(heard: string, said: string): number {
  const [got, wanted] = [words(heard), words(said)];
  if (wanted.length === 0) return got.length === 0 ? WHOLE : 0;
  const wrong = Math.min(wanted.length, editDistance(got, wanted));
  return Math.floor(((wanted.length - wrong) * WHOLE) / wanted.length);
}

function likeness<T>(one: readonly T[], other: readonly T[]): number {
  const length = Math.max(one.length, other.length);
  return length === 0 ? WHOLE : Math.floor(((length - editDistance(one, other)) * WHOLE) / length);
}

function plain(text: string): string {
  return text.slice(0, READ_MAX).normalize('NFKC').toLowerCase().replace(/\s+/g, ' ').trim();
}

function words(text: string): string[] {
  return plain(text)
    .replace(/[^\p{L}\p{N}' ]+/gu, ' ')
    .split(' ')
    .filter((word) => word !== '')
    .slice(0, COMPARED_MAX);
}
