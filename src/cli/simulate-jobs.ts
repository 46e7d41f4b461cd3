import {
  type GroupOutcome,
  measureStakes,
  SIMULATION_DEFAULTS,
  type SimulationOutcome,
  type SimulationSettings,
  type StakeRow,
  simulateJobs,
} from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';

/** The options of `millrace simulate jobs`, as typed. */
export interface SimulateJobsOptions {
  honest: string;
  forgers: string;
  skippers: string;
  share: string;
  jobs: string;
  segments: string;
  samples: string;
  auditors: string;
  probation: string;
  colluding: string;
  newCheaters?: boolean;
  seed: string;
  stakes?: boolean;
  stakeJobs: string;
}

/**
 * Runs jobs of honest and cheating providers through the real commitments, draws and comparisons, and prints who was found; or the stakes at which
 * cheating stops paying, beside the formula.
 * @throws bad-option
 */
export async function showSimulatedJobs({ output }: CommandContext, options: SimulateJobsOptions): Promise<void> {
  const settings = readSettings(options);
  if (options.stakes) {
    const jobs = readWhole('--stake-jobs', options.stakeJobs, 1, 100_000);
    const items = measureStakes({ ...settings, jobs });
    output.result({ settings: { ...settings, jobs }, items, next: null }, () => stakeTable(items, settings));
    return;
  }
  const outcome = simulateJobs(settings);
  output.result({ settings, ...outcome }, () => outcomeTable(outcome, settings));
}

function readSettings(options: SimulateJobsOptions): SimulationSettings {
  const segments = readWhole('--segments', options.segments, 1, 4096);
  return {
    ...SIMULATION_DEFAULTS,
    seed: readWhole('--seed', options.seed, 0, 2 ** 32),
    honest: readWhole('--honest', options.honest, 0, 10_000),
    forgers: readWhole('--forgers', options.forgers, 0, 10_000),
    skippers: readWhole('--skippers', options.skippers, 0, 10_000),
    skippedShare: readShare('--share', options.share),
    jobsEach: readWhole('--jobs', options.jobs, 1, 10_000),
    segments,
    samples: readWhole('--samples', options.samples, 1, segments),
    auditors: readWhole('--auditors', options.auditors, 1, 8),
    probationJobs: readWhole('--probation', options.probation, 0, 10_000),
    colludingShare: readShare('--colluding', options.colluding),
    areCheatersTrusted: options.newCheaters !== true,
  };
}

function outcomeTable(
  { groups, jobs, falseSlashes, overhead, probationOverhead }: SimulationOutcome,
  { seed, samples, segments, areCheatersTrusted }: SimulationSettings,
): string {
  const row = (group: GroupOutcome) => [
    group.kind,
    String(group.providers),
    String(group.jobs),
    String(group.cheats),
    String(group.found),
    String(group.slashed),
    group.cheats === 0 ? '' : percent(group.slashed / group.cheats),
    `${group.providersSlashed} of ${group.providers}`,
    String(group.cheatsUntilSlashMax),
  ];
  const head = [
    'provider',
    'how many',
    'jobs',
    'cheated',
    'found',
    'slashed',
    'slashed of cheated',
    'providers slashed',
    'cheats before, at most',
  ];
  return [
    `Seed ${seed}; ${jobs} jobs of ${segments} segments, ${samples} of them replayed by each auditor. ${areCheatersTrusted ? 'Every cheater was honest until its probation was over.' : 'Cheaters are new: they wait until their probation is over, and after each slash again.'}`,
    table(head, groups.map(row)),
    `Slashes of honest work: ${falseSlashes}. Audits: ${percent(overhead)} of the work itself after probation, ${percent(probationOverhead)} during it.`,
  ].join('\n');
}

function stakeTable(rows: readonly StakeRow[], { samples, auditors, segments }: SimulationSettings): string {
  const number = (value: number) => (Number.isFinite(value) ? value.toFixed(2) : 'none');
  const head = ['colluding seats', 'share made up', 'found', 'slashed', 'stake, measured', 'stake, formula', 'bound 1 / (1 - b)'];
  const cells = rows.map((row) => [
    percent(row.colludingShare),
    percent(row.skippedShare),
    percent(row.found),
    percent(row.slashed),
    number(row.breakEven),
    number(row.formula),
    number(row.bound),
  ]);
  return [
    `The stake, in costs of one job, from which on cheating loses: ${auditors} auditors, ${samples} of ${segments} segments each.`,
    table(head, cells),
    'Formula: share / ((1 - b) (1 - (1 - share)^k)) for one auditor. Measured also has the jury, whose colluding seats acquit.',
  ].join('\n');
}

const percent = (share: number) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

function readWhole(flag: string, got: string, least: number, greatest: number): number {
  const value = Number(got);
  if (/^\d{1,10}$/.test(got) && value >= least && value <= greatest) return value;
  throw badOption(flag, got, `a whole number from ${least} to ${greatest}`);
}

function readShare(flag: string, got: string): number {
  const value = Number(got);
  if (/^\d{1,2}(\.\d{1,6})?$/.test(got) && value <= 1) return value;
  throw badOption(flag, got, 'a share from 0 to 1');
}

function badOption(flag: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${got.slice(0, 40)} for ${flag}, expected ${expected}`,
    values: { flag, got: got.slice(0, 40), expected },
  });
}
