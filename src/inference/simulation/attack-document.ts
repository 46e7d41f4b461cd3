import { type AttackOutcome, simulateAttacks } from './attacks.ts';
import { type CabalOutcome, simulateCabal } from './cabal-map.ts';
import { BONDS_SETTINGS, simulateCopying } from './copying.ts';

/** One line of the comparison of bonds settings: dividends per unit of stake. */
export interface CopyingRow {
  setting: string;
  eager: number;
  /** Of a copier that is 0, 1, 2 and 4 epochs late. */
  copiers: readonly number[];
}

/** One point of the cabals' map. */
export interface CabalPoint extends CabalOutcome {
  cabalStake: number;
  honestUtility: number;
  noise: number;
}

const COPY_LAGS = [0, 1, 2, 4];
const SMALL_MAP = { stakes: [10, 20, 30, 40, 45, 49], utilities: [100, 90, 80, 75, 70, 60], noises: [0.4] };
const FULL_MAP = {
  stakes: Array.from({ length: 40 }, (_, place) => 10 + place),
  utilities: [100, 95, 90, 85, 80, 75, 70, 65, 60],
  noises: [0, 0.2, 0.4],
};
const VALIDATORS = 16;
const MINERS = 32;

/** Every bonds setting against copiers of several delays. */
export function compareBondsSettings(): CopyingRow[] {
  return BONDS_SETTINGS.map(({ name, parameters }) => ({
    setting: name,
    eager: simulateCopying(parameters, 1).eager,
    copiers: COPY_LAGS.map((lag) => simulateCopying(parameters, lag).copier),
  }));
}

/** What honest validators and miners keep against cabals of 10 to 49 % of stake; `full`: every percent, and three noises. */
export function mapCabals(seed: number, full: boolean): CabalPoint[] {
  const { stakes, utilities, noises } = full ? FULL_MAP : SMALL_MAP;
  return noises.flatMap((noise) =>
    utilities.flatMap((utility) =>
      stakes.map((stake) => {
        const one = { cabalStake: stake / 100, honestUtility: utility / 100, noise };
        return { ...one, ...simulateCabal({ ...one, validators: VALIDATORS, miners: MINERS, seed }) };
      }),
    ),
  );
}

/** The page docs/inference-attacks.md, as Markdown. */
export function writeAttackDocument(seed: number): string {
  return `# Attacks on a subnet, and what they earn

Written by \`./millrace simulate subnet --document --seed ${seed} > docs/inference-attacks.md\`; a test compares. Every number comes out of the real \`epoch\` (decision 0019), the function that the contract repeats. \`millrace simulate subnet --help\` shows how to run any other population.

## Attacks
"Without" is the same attack with the defence switched off, where it can be.

${attackTable(simulateAttacks(seed))}

## Cabals
${MINERS} miners and ${VALIDATORS} validators are split between honest ones and a cabal by stake. Honest validators put the part "utility" of their weight on honest miners: 100 % where the cabal's miners are worth nothing, 70 % where these really do 30 % of the work. Weights are off by 0.4 of their mean. The cabal puts half to all of its weight on its own miners, whichever hurts most. A cell is what honest validators and miners keep of the emission, in percent, and in brackets the loss against their stake where there is one.

${cabalTable(mapCabals(seed, false))}

**What it says.** Honest stake keeps at least its share up to a cabal of 40 % wherever honest validators rate the cabal's miners at no more than half of its share of stake (at a cabal of 40 %: utility of 80 % and more; tested at noises 0, 0.2 and 0.4), and up to 49 % where these are worth nothing. Brackets at the left are no theft: a cabal of 10 % whose miners do 30 % of the work earns more than 10 %. Brackets at the right are: what honest validators grant the cabal's miners, the cabal multiplies by its own bonds. A bonds penalty above 0 lowers that and takes it from finders: at utility 75 % and a cabal of 40 %, penalty 0 leaves ${keep(0)} %, a half ${keep(32_767)} %, the whole ${keep(65_535)} %; the finder's dividends per stake are ${finder(0)}, ${finder(32_767)} and ${finder(65_535)}. From half of stake on a cabal decides everything. A kappa above a half protects less, not more: at 0.55 a cabal of 49 % has a veto. \`millrace simulate subnet --cabals --full\` prints every percent from 10 to 49 for nine utilities and three noises.

## Copying, by the rule of bonds
The best of two miners changes every ten epochs. An eager validator (10 % of stake) moves at once, a big one (80 %) an epoch later, a copier (10 %) so many epochs after that. Numbers are dividends per unit of stake: 1 is one's share.

${copyingTable(compareBondsSettings())}

Without commit and reveal a copier is 0 epochs late and loses next to nothing under any rule: commit and reveal is needed, bonds alone do not do it. With it he is late by the reveal period. The default is the setting that pays the finder well above 1 and the copier least at one and two epochs. Yuma 2 without penalty pays late copiers *more* than finders.

## What no rule of consensus prevents
Half of stake decides. Validators who are idle, but agree, earn as much as those who work: that copying pays less than judging rests on miners changing. Names multiply pay wherever weights ignore how much was served. One person with many small validators passes the percentile cap.
`;

  function keep(bondsPenalty: number): string {
    const one = { cabalStake: 0.4, honestUtility: 0.75, noise: 0.4, validators: VALIDATORS, miners: MINERS, seed };
    return percent(simulateCabal({ ...one, parameters: { bondsPenalty } }).honestShare);
  }
}

/** Attacks as a table in Markdown. */
export function attackTable(outcomes: readonly AttackOutcome[]): string {
  return markdownTable(
    ['attack', 'measured', 'without', 'with', 'promised at most', 'held', 'by'],
    outcomes.map(({ attack, measure, undefended, defended, limit, defence }) => [
      attack,
      measure,
      undefended === null ? '' : undefended.toFixed(3),
      defended.toFixed(3),
      limit === null ? '' : String(limit),
      limit === null ? '' : defended <= limit ? 'yes' : '**no**',
      defence,
    ]),
  );
}

/** The cabals' map as tables in Markdown, one for each noise: a row for a utility, a column for a cabal. */
export function cabalTable(points: readonly CabalPoint[]): string {
  const distinct = (values: readonly number[]) => [...new Set(values)];
  const stakes = distinct(points.map(({ cabalStake }) => cabalStake));
  return distinct(points.map(({ noise }) => noise))
    .map((noise) => {
      const rows = distinct(points.map(({ honestUtility }) => honestUtility)).map((utility) => [
        `${percent(utility, 0)} %`,
        ...stakes.map((stake) => {
          const point = points.find((one) => one.noise === noise && one.honestUtility === utility && one.cabalStake === stake);
          if (point === undefined) return '';
          return `${percent(point.honestShare)}${point.loss > 0.0005 ? ` (${percent(point.loss)})` : ''}`;
        }),
      ]);
      return `Noise ${noise}:\n\n${markdownTable(['utility', ...stakes.map((stake) => `cabal ${percent(stake, 0)} %`)], rows)}`;
    })
    .join('\n\n');
}

/** The comparison of bonds settings as a table in Markdown. */
export function copyingTable(rows: readonly CopyingRow[]): string {
  return markdownTable(
    ['rule', 'eager', ...COPY_LAGS.map((lag) => `copier ${lag} late`)],
    rows.map(({ setting, eager, copiers }) => [setting, eager.toFixed(3), ...copiers.map((copier) => copier.toFixed(3))]),
  );
}

function finder(bondsPenalty: number): string {
  return simulateCopying({ bondsPenalty }, 1).eager.toFixed(2);
}

function percent(share: number, digits = 1): string {
  return (share * 100).toFixed(digits);
}

function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}
