import { MillraceError } from '../../errors.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../../units.ts';
import type { SubnetRules } from './subnet-rules.ts';

/** A rule of a subnet for people: how it is written, within which bounds (those of SubnetRules.sol), and what it does. */
export interface RuleText {
  name: keyof SubnetRules;
  /** `share`: of 65,535, also as a percentage; `millionths` likewise; `amount`: tokens; `choice`: one of the words; `flag`: true or false. */
  kind: 'share' | 'millionths' | 'count' | 'amount' | 'choice' | 'flag';
  least: number;
  most: number;
  choices?: readonly string[];
  meaning: string;
}

const U16 = 65_535;
const MILLION = 1_000_000;
/** 2^96 - 1 base units. */
const STAKE_MAX = (1n << 96n) - 1n;
/** Beyond the delay until a row is opened: an epoch to be judged in, and its settlement. */
const IMMUNITY_BEYOND_DELAY = 3;

const share = (name: keyof SubnetRules, [least, most]: [number, number], meaning: string): RuleText => ({
  name,
  kind: 'share',
  least,
  most,
  meaning,
});
const count = (name: keyof SubnetRules, [least, most]: [number, number], meaning: string): RuleText => ({
  name,
  kind: 'count',
  least,
  most,
  meaning,
});
const choice = (name: keyof SubnetRules, choices: readonly string[], meaning: string): RuleText => ({
  name,
  kind: 'choice',
  least: 0,
  most: choices.length - 1,
  choices,
  meaning,
});

/** Every rule that a subnet's owner may set; decision 0021. */
export const RULE_TEXTS: readonly RuleText[] = [
  choice('mode', ['yuma2', 'yuma3', 'yuma3-liquid'], 'which bonds an epoch makes'),
  choice('consensusMode', ['previous', 'current', 'auto'], 'which consensus tells whether a validator was early (liquid alpha)'),
  share('kappa', [26_214, 39_321], 'share of stake that must stand behind a weight'),
  share('bondsPenalty', [0, U16], 'how far weights above consensus are clipped before they make bonds'),
  {
    name: 'bondsMovingAverage',
    kind: 'millionths',
    least: 0,
    most: MILLION,
    meaning: 'share of the old bond that stays in each epoch',
  },
  share('alphaLow', [1, U16], 'slowest speed of a bond (liquid alpha); at most alphaHigh'),
  share('alphaHigh', [1, U16], 'fastest speed of a bond (liquid alpha)'),
  count('alphaSteepness', [0, 2_000], 'slope between the two speeds, hundredths'),
  count('stakeCapPercentile', [0, 99], 'stakes above this percentile count as that one; 0: off'),
  count('maxValidators', [1, 64], 'how many uids may hold a permit'),
  count('bondRowCap', [1, 64], 'bonds kept of a row, the largest'),
  count('revealDelayEpochs', [1, 4], 'epochs from a commit to its opening'),
  count('immunityEpochs', [0, 1_000], 'for how many epochs a new uid is not pruned; at least revealDelayEpochs + 3'),
  { name: 'optimistic', kind: 'flag', least: 0, most: 1, meaning: 'settled by a bonded proposer instead of directly' },
  { name: 'stakeThreshold', kind: 'amount', least: 0, most: Number.POSITIVE_INFINITY, meaning: 'stake below this judges nothing' },
];

/** A rule's value as people write it. */
export function ruleValueText(text: RuleText, rules: SubnetRules): string {
  const value = rules[text.name];
  if (text.kind === 'amount') return formatAmount(value as bigint, TOKEN_DECIMALS);
  if (text.kind === 'share') return `${value} (${(((value as number) * 100) / U16).toFixed(1)}%)`;
  if (text.kind === 'millionths') return `${value} (${(((value as number) * 100) / MILLION).toFixed(2)}%)`;
  return String(value);
}

/**
 * Rules with some of them changed, each as `name=value`: `kappa=50%`, `maxValidators=32`, `mode=yuma3`, `optimistic=true`, `stakeThreshold=1000`.
 * @throws bad-rule, bad-amount; with the bounds
 */
export function withRules(rules: SubnetRules, changes: readonly string[]): SubnetRules {
  const changed = { ...rules } as Record<keyof SubnetRules, unknown>;
  for (const change of changes) {
    const at = change.indexOf('=');
    const text = RULE_TEXTS.find(({ name }) => name === change.slice(0, at));
    if (at < 1 || text === undefined) throw unknownRule(change);
    changed[text.name] = ruleValue(text, change.slice(at + 1));
  }
  const result = changed as unknown as SubnetRules;
  const needed = result.revealDelayEpochs + IMMUNITY_BEYOND_DELAY;
  if (result.immunityEpochs < needed) throw badRule('immunityEpochs', String(result.immunityEpochs), `at least ${needed} with this delay`);
  if (result.alphaLow > result.alphaHigh) throw badRule('alphaLow', String(result.alphaLow), `at most alphaHigh, ${result.alphaHigh}`);
  return result;
}

function ruleValue(text: RuleText, given: string): unknown {
  const { name, kind, least, most, choices } = text;
  if (kind === 'flag') {
    if (given === 'true' || given === 'false') return given === 'true';
    throw badRule(name, given, 'true or false');
  }
  if (choices !== undefined) {
    if (choices.includes(given)) return given;
    throw badRule(name, given, choices.join(', '));
  }
  if (kind === 'amount') {
    const amount = parseAmount(given, TOKEN_DECIMALS);
    if (amount <= STAKE_MAX) return amount;
    throw badRule(name, given, `at most ${formatAmount(STAKE_MAX, TOKEN_DECIMALS)}`);
  }
  const percent = kind === 'count' ? null : /^(\d{1,3}(?:\.\d{1,4})?)%$/.exec(given);
  const whole = kind === 'share' ? U16 : MILLION;
  const value = percent !== null ? Math.round((Number(percent[1]) * whole) / 100) : /^\d{1,7}$/.test(given) ? Number(given) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw badRule(name, given, boundsText(text));
}

/** The bounds of a rule in words. */
export function boundsText({ kind, least, most, choices }: RuleText): string {
  if (choices !== undefined) return choices.join(' | ');
  if (kind === 'flag') return 'true | false';
  if (kind === 'amount') return 'tokens';
  const whole = kind === 'share' ? U16 : MILLION;
  const inPercent = (value: number) => `${((value * 100) / whole).toFixed(1).replace(/\.0$/, '')}%`;
  return kind === 'count' ? `${least} to ${most}` : `${least} to ${most} (${inPercent(least)} to ${inPercent(most)})`;
}

function badRule(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-rule', {
    actor: 'caller',
    message: `Got ${name}=${got.slice(0, 40)}, expected ${expected}`,
    values: { rule: name, got: got.slice(0, 40), expected },
    hint: 'All rules with their bounds: millrace subnet rules.',
  });
}

function unknownRule(change: string): MillraceError {
  return new MillraceError('bad-rule', {
    actor: 'caller',
    message: `Got "${change.slice(0, 60)}", expected name=value`,
    values: { got: change.slice(0, 60), expected: RULE_TEXTS.map(({ name }) => name) },
    hint: 'All rules with their bounds: millrace subnet rules.',
  });
}
