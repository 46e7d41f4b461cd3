import { readFile } from 'node:fs/promises';
import { MillraceError, toMillraceError } from '../errors.ts';
import {
  attackTable,
  cabalTable,
  compareBondsSettings,
  copyingTable,
  DEFAULT_EPOCH_PARAMETERS,
  type EpochParameters,
  groupsOf,
  mapCabals,
  type PopulationGroups,
  readGroups,
  type SimulationRun,
  simulateAttacks,
  simulatePopulation,
  writeAttackDocument,
} from '../inference/index.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';

const U16 = 65_535;

/** The options of `millrace simulate subnet`, as typed. */
export interface SimulateOptions {
  validators: string;
  noise: string;
  miners: string;
  churn: string;
  cheats: string;
  cheatQuality: string;
  copiers: string;
  copyLag: string;
  cabal: string;
  cabalValidators: string;
  cabalMiners: string;
  cabalWeight: string;
  silent: string;
  epochs: string;
  seed: string;
  mode: string;
  speed: string;
  penalty: string;
  consensus: string;
  kappa: string;
  population?: string;
  attacks?: boolean;
  cabals?: boolean;
  copying?: boolean;
  full?: boolean;
  document?: boolean;
}

/**
 * Runs a population through the real consensus function and prints who earned what; or one of the standard tables.
 * @throws bad-option, bad-population, bad-epoch-input
 */
export async function simulate(context: CommandContext, options: SimulateOptions): Promise<void> {
  const { output } = context;
  const seed = readNumber('--seed', options.seed);
  if (options.document) {
    const markdown = writeAttackDocument(seed);
    output.result({ seed, markdown }, () => markdown.trimEnd());
  } else if (options.attacks) {
    const items = simulateAttacks(seed);
    output.result({ seed, items, next: null }, () => attackTable(items));
  } else if (options.cabals) {
    const items = mapCabals(seed, options.full ?? false);
    output.result({ seed, items, next: null }, () => cabalTable(items));
  } else if (options.copying) {
    const items = compareBondsSettings();
    output.result({ items, next: null }, () => copyingTable(items));
  } else {
    const groups = options.population === undefined ? readPopulation(options) : await readPopulationFile(options.population);
    showPopulation(context, groups, { epochs: readNumber('--epochs', options.epochs), seed, parameters: readParameters(options) });
  }
}

function showPopulation({ output }: CommandContext, population: PopulationGroups, run: SimulationRun): void {
  const items = simulatePopulation(population, run);
  const percent = (share: number) => `${(share * 100).toFixed(2)} %`;
  const ratio = (part: number, whole: number) => (whole === 0 ? '' : (part / whole).toFixed(3));
  const validatorShare = items.reduce((total, item) => total + item.validatorShare, 0);
  const best = Math.max(0, ...items.map((item) => item.minerShare / Math.max(1, item.miners)));
  const warmUp = Math.floor(run.epochs / 8);
  const rows = items.map((item) => [
    item.group,
    String(item.validators),
    percent(item.stakeShare),
    String(item.miners),
    percent(item.minerShare),
    percent(item.validatorShare),
    ratio(item.validatorShare / Math.max(validatorShare, Number.MIN_VALUE), item.stakeShare),
    item.miners === 0 ? '' : ratio(item.minerShare / item.miners, best),
  ]);
  output.result({ population, run, items, next: null }, () =>
    [
      `Seed ${run.seed}; the first ${warmUp} of ${run.epochs} epochs are not counted. Shares are of what miners and validators earn together.`,
      table(['group', 'validators', 'stake', 'miners', 'as miners', 'as validators', 'dividends per stake', 'a miner, best group 1'], rows),
    ].join('\n'),
  );
}

function readPopulation(options: SimulateOptions): PopulationGroups {
  const number = (flag: string, value: string) => readNumber(flag, value);
  return groupsOf({
    honestValidators: number('--validators', options.validators),
    noise: number('--noise', options.noise),
    honestMiners: number('--miners', options.miners),
    churn: number('--churn', options.churn),
    cheats: number('--cheats', options.cheats),
    cheatQuality: number('--cheat-quality', options.cheatQuality),
    copierStake: number('--copiers', options.copiers),
    copyLag: number('--copy-lag', options.copyLag),
    cabalStake: number('--cabal', options.cabal),
    cabalValidators: number('--cabal-validators', options.cabalValidators),
    cabalMiners: number('--cabal-miners', options.cabalMiners),
    cabalWeight: number('--cabal-weight', options.cabalWeight),
    silentStake: number('--silent', options.silent),
  });
}

/** Groups as a JSON file names them. */
async function readPopulationFile(path: string): Promise<PopulationGroups> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw toMillraceError(error).code === 'access-denied' ? error : badOption('--population', path, 'a file that can be read');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw badOption('--population', path, 'a file of JSON');
  }
  return readGroups(value);
}

function readParameters(options: SimulateOptions): EpochParameters {
  const [low, high] = options.speed.split(',').map((part) => readShare('--speed', part));
  if (low === undefined || high === undefined) throw badOption('--speed', options.speed, 'two shares, such as 0.1,0.3');
  return {
    ...DEFAULT_EPOCH_PARAMETERS,
    mode: readChoice('--mode', options.mode, ['yuma2', 'yuma3', 'yuma3-liquid']),
    consensusMode: readChoice('--consensus', options.consensus, ['previous', 'current', 'auto']),
    kappa: readShare('--kappa', options.kappa),
    bondsPenalty: readShare('--penalty', options.penalty),
    // Without liquid alpha the slower speed is that of all bonds.
    bondsMovingAverage: Math.round((1 - low / U16) * 1_000_000),
    alphaLow: low,
    alphaHigh: high,
    bondRowCap: 0,
  };
}

/** A share of 0 to 1 as u16. */
function readShare(flag: string, text: string): number {
  const value = readNumber(flag, text);
  if (value < 0 || value > 1) throw badOption(flag, text, 'a share from 0 to 1');
  return Math.floor(value * U16);
}

function readChoice<T extends string>(flag: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw badOption(flag, text, `one of ${choices.join(', ')}`);
  return found;
}

function readNumber(flag: string, text: string): number {
  const value = /^\d{1,10}(\.\d{1,10})?$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(value)) throw badOption(flag, text, 'a number such as 8 or 0.25');
  return value;
}

function badOption(flag: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${flag} ${got.slice(0, 40)}, expected ${expected}`,
    values: { flag, got: got.slice(0, 40), expected },
    hint: 'Run `millrace simulate subnet --help` for the options and examples.',
  });
}
