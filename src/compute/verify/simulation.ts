import { type SimulatedJob, simulateJob } from './simulation-job.ts';
import { type SimulationRandom, simulationRandom } from './simulation-random.ts';

/** A simulated network of jobs. Costs are in parts of what one job costs to run. */
export interface SimulationSettings {
  /** The same seed gives the same run. */
  seed: number;
  /** Jobs of each provider, one after another. */
  jobsEach: number;
  /** Segments of a job (T), and how many each auditor replays of an operator that is no longer on probation (k). */
  segments: number;
  samples: number;
  auditors: number;
  /** Jobs of a new operator that are replayed whole, and as many after a slash. */
  probationJobs: number;
  /** Providers of each kind. */
  honest: number;
  forgers: number;
  skippers: number;
  /** Share of its segments that a skipper makes up. */
  skippedShare: number;
  /** Share of seats, of auditors and jurors, that collude with every cheater. */
  colludingShare: number;
  /** Votes of the last jury that can be asked for. */
  juryVotes: number;
  /** Whether a provider that was slashed leaves. */
  leavesWhenSlashed: boolean;
  /**
   * Whether every cheated job is one of an operator that was honest until its probation was over, which is the best that a cheater can do: its
   * honest jobs are not counted, and who was slashed comes back as another such operator. Else cheaters are new, wait, cheat, and wait again.
   */
  areCheatersTrusted: boolean;
}

/** What came of one kind of provider. */
export interface GroupOutcome {
  kind: SimulatedJob['kind'];
  providers: number;
  jobs: number;
  /** Jobs with made-up segments; those that an auditor found; those that the jury then slashed. */
  cheats: number;
  found: number;
  slashed: number;
  /** Providers that were slashed at least once. */
  providersSlashed: number;
  /** Jobs with made-up segments before a provider's first slash, at most. */
  cheatsUntilSlashMax: number;
  /** What was saved by not running segments, in jobs' costs. */
  saved: number;
  /** What was earned for cheated jobs that nobody slashed, in jobs. */
  cheatsPaid: number;
}

/** What came of a simulation. */
export interface SimulationOutcome {
  groups: GroupOutcome[];
  jobs: number;
  /** Slashes of work that was right. */
  falseSlashes: number;
  /** Segments that auditors replayed, per segment that providers were to run: of jobs on probation, and of the others. */
  probationOverhead: number;
  overhead: number;
}

/** The settings whose goals issue 4 of the compute network names: 1,000 jobs, a tenth of them by cheaters. */
export const SIMULATION_DEFAULTS: SimulationSettings = {
  seed: 1,
  jobsEach: 50,
  segments: 100,
  samples: 2,
  auditors: 1,
  probationJobs: 10,
  honest: 18,
  forgers: 1,
  skippers: 1,
  skippedShare: 0.1,
  colludingShare: 0,
  juryVotes: 15,
  leavesWhenSlashed: false,
  areCheatersTrusted: true,
};

/**
 * Runs a network of jobs by the real rules: commitments, draws and comparison of leaves are the product's; only the engine is a hash, and the jury a
 * draw of votes.
 */
export function simulateJobs(settings: SimulationSettings): SimulationOutcome {
  const random = simulationRandom(settings.seed);
  const replayed = { probation: 0, other: 0 };
  const run = { probation: 0, other: 0 };
  let falseSlashes = 0;
  const group = (kind: SimulatedJob['kind'], count: number): GroupOutcome => {
    const outcome = emptyGroup(kind, count);
    for (let provider = 0; provider < count; provider += 1) {
      const seen = simulateProvider(settings, { kind, random });
      for (const { isOnProbation, replayedSegments } of seen.jobs) {
        const where = isOnProbation ? 'probation' : 'other';
        replayed[where] += replayedSegments;
        run[where] += settings.segments;
      }
      falseSlashes += seen.jobs.filter((job) => job.isSlashed && job.madeUp === 0).length;
      add(outcome, seen.jobs, settings);
    }
    return outcome;
  };
  const groups = [group('honest', settings.honest), group('forger', settings.forgers), group('skipper', settings.skippers)];
  const jobs = groups.reduce((sum, one) => sum + one.jobs, 0);
  const share = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);
  return {
    groups,
    jobs,
    falseSlashes,
    probationOverhead: share(replayed.probation, run.probation),
    overhead: share(replayed.other, run.other),
  };
}

/** A job as it went. */
interface DoneJob {
  madeUp: number;
  isOnProbation: boolean;
  replayedSegments: number;
  isFound: boolean;
  isSlashed: boolean;
}

function simulateProvider(
  settings: SimulationSettings,
  { kind, random }: { kind: SimulatedJob['kind']; random: SimulationRandom },
): { jobs: DoneJob[] } {
  const jobs: DoneJob[] = [];
  const isTrusted = kind !== 'honest' && settings.areCheatersTrusted;
  let probation = isTrusted ? 0 : settings.probationJobs;
  for (let count = 0; count < settings.jobsEach; count += 1) {
    const isOnProbation = probation > 0;
    const cheats = kind !== 'honest' && !isOnProbation;
    const job: SimulatedJob = { kind: cheats ? kind : 'honest', isOnProbation, id: random.word() };
    const { madeUp, replayedSegments, accusedSegments } = simulateJob(settings, job, random);
    const isFound = accusedSegments.length > 0;
    const isSlashed = isFound && juryConvicts(settings, { isGuilty: madeUp > 0, random });
    jobs.push({ madeUp, isOnProbation, replayedSegments, isFound, isSlashed });
    probation = isSlashed && !isTrusted ? settings.probationJobs : Math.max(0, probation - 1);
    if (isSlashed && settings.leavesWhenSlashed) break;
  }
  return { jobs };
}

/** More than half of the last jury's votes; colluding seats vote for the provider, the others replay the segment. */
function juryConvicts(
  { juryVotes, colludingShare }: SimulationSettings,
  { isGuilty, random }: { isGuilty: boolean; random: SimulationRandom },
): boolean {
  let votes = 0;
  for (let vote = 0; vote < juryVotes; vote += 1) if (random.fraction() >= colludingShare && isGuilty) votes += 1;
  return votes * 2 > juryVotes;
}

function emptyGroup(kind: SimulatedJob['kind'], providers: number): GroupOutcome {
  return {
    kind,
    providers,
    jobs: 0,
    cheats: 0,
    found: 0,
    slashed: 0,
    providersSlashed: 0,
    cheatsUntilSlashMax: 0,
    saved: 0,
    cheatsPaid: 0,
  };
}

function add(outcome: GroupOutcome, jobs: readonly DoneJob[], { segments }: SimulationSettings): void {
  const cheats = jobs.filter(({ madeUp }) => madeUp > 0);
  const first = cheats.findIndex(({ isSlashed }) => isSlashed);
  outcome.jobs += jobs.length;
  outcome.cheats += cheats.length;
  outcome.found += cheats.filter(({ isFound }) => isFound).length;
  outcome.slashed += cheats.filter(({ isSlashed }) => isSlashed).length;
  outcome.providersSlashed += first < 0 ? 0 : 1;
  outcome.cheatsUntilSlashMax = Math.max(outcome.cheatsUntilSlashMax, first < 0 ? cheats.length : first + 1);
  outcome.saved += cheats.reduce((sum, { madeUp }) => sum + madeUp / segments, 0);
  outcome.cheatsPaid += cheats.filter(({ isSlashed }) => !isSlashed).length;
}
