/** One answer to a question that several miners were asked. Only of models whose answers to one question differ: see `meansSomething`. */
export interface AskedAnswer {
  /** The question; the same for all who were asked it. */
  question: string;
  uid: number;
  /** Digest of what was said. */
  digest: string;
  /** Characters of what was said. */
  length: number;
  ttftMs: number;
}

/** Miners whose answers are the same although they should not be. */
export interface CopyVerdict {
  uids: number[];
  /** Answers that were the same. */
  same: number;
  /** Those that were slower in nearly every same answer: they have passed the questions on. Empty where nobody can say. */
  copiers: number[];
}

/** Shorter answers are the same by chance. */
const LENGTH_MIN = 48;
/** So many same answers make a pair. */
const SAME_MIN = 4;
/** A coin gives 4 of 4 in one case of 16, 7 of 7 in one of 128: a sign test at 1 % needs 7, or 10 of 11. */
const SIGN_TEST: readonly { of: number; at: number }[] = [
  { of: 7, at: 7 },
  { of: 11, at: 10 },
  { of: 16, at: 14 },
];

/**
 * Whether the same answer of two miners says anything: only where the model draws its words (no determinism, no seed, not greedy). Exact models
 * give everybody the same answer; there the witness tells who has the model.
 */
export function meansSomething(
  model: { determinism: 'exact' | 'tolerant' | 'none' },
  asked: { temperature?: number; seed?: number },
): boolean {
  return model.determinism !== 'exact' && asked.seed === undefined && (asked.temperature ?? 1) > 0;
}

/** Finds pairs of miners that gave the same long answers to the same questions: one backend under two names, or one that passes questions on. */
export function findCopies(answers: readonly AskedAnswer[]): CopyVerdict[] {
  const pairs = new Map<string, { one: number; other: number; same: number; oneSlower: number }>();
  for (const group of groupBy(answers, ({ question, digest }) => `${question}|${digest}`)) {
    const long = group.filter(({ length }) => length >= LENGTH_MIN).sort((a, b) => a.uid - b.uid);
    long.forEach((one, index) => {
      for (const other of long.slice(index + 1)) {
        if (one.uid === other.uid) continue;
        const key = `${one.uid}|${other.uid}`;
        const pair = pairs.get(key) ?? { one: one.uid, other: other.uid, same: 0, oneSlower: 0 };
        pair.same += 1;
        pair.oneSlower += one.ttftMs > other.ttftMs ? 1 : 0;
        pairs.set(key, pair);
      }
    });
  }
  return [...pairs.values()]
    .filter(({ same }) => same >= SAME_MIN)
    .map(({ one, other, same, oneSlower }) => ({ uids: [one, other], same, copiers: slowerOf({ one, other, same, oneSlower }) }));
}

function slowerOf({ one, other, same, oneSlower }: { one: number; other: number; same: number; oneSlower: number }): number[] {
  const test = SIGN_TEST.findLast(({ of }) => same >= of);
  if (test === undefined) return [];
  // Of more answers than the test has, the same share must be slower.
  const needed = Math.ceil((same * test.at) / test.of);
  if (oneSlower >= needed) return [one];
  return same - oneSlower >= needed ? [other] : [];
}

function groupBy<T>(values: readonly T[], keyOf: (value: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const key = keyOf(value);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [value]);
    else group.push(value);
  }
  return [...groups.values()];
}
