import { SIMULATION_DEFAULTS, type SimulationSettings, simulateJobs } from './simulation.ts';

/** At which stake cheating stops paying, measured and by formula; in parts of what a job costs to run. */
export interface StakeRow {
  /** Share of seats that collude. */
  colludingShare: number;
  /** Share of its segments that the cheater makes up. */
  skippedShare: number;
  /** Share of its cheated jobs that were found, and that were slashed. */
  found: number;
  slashed: number;
  /** The stake at which what was saved equals what was slashed; infinite where nothing was. */
  breakEven: number;
  /** What compute.md 3.2 asks for: share / ((1 - b) (1 - (1 - share)^k)), and its bound 1 / (1 - b) for every share. */
  formula: number;
  bound: number;
}

/**
 * Measures the stakes at which cheating stops paying, for shares of colluding seats from 0 to 0.4 and cheaters that make up 1 %, 10 %, half and all of
 * their segments. `jobs`: cheated jobs behind each row.
 */
export function measureStakes(settings: Partial<SimulationSettings> & { jobs: number }): StakeRow[] {
  const { jobs, ...changes } = settings;
  const rows: StakeRow[] = [];
  for (const colludingShare of [0, 0.1, 0.2, 0.3, 0.4]) {
    for (const skippedShare of [0.01, 0.1, 0.5, 1]) {
      const run = { ...SIMULATION_DEFAULTS, ...changes, colludingShare, skippedShare };
      rows.push(measureRow({ ...run, honest: 0, forgers: 0, skippers: 1, jobsEach: jobs, probationJobs: 0 }));
    }
  }
  return rows;
}

function measureRow(settings: SimulationSettings): StakeRow {
  const { colludingShare, skippedShare, samples, auditors } = settings;
  const skippers = simulateJobs(settings).groups.find(({ kind }) => kind === 'skipper');
  const { cheats = 0, found = 0, slashed = 0, saved = 0 } = skippers ?? {};
  // Every auditor draws its own segments; a cheat passes when each of them colludes or draws none of the made-up ones.
  const passes = (colludingShare + (1 - colludingShare) * (1 - skippedShare) ** samples) ** auditors;
  return {
    colludingShare,
    skippedShare,
    found: cheats === 0 ? 0 : found / cheats,
    slashed: cheats === 0 ? 0 : slashed / cheats,
    breakEven: slashed === 0 ? Number.POSITIVE_INFINITY : saved / slashed,
    formula: skippedShare / (1 - passes),
    bound: 1 / (1 - colludingShare),
  };
}
