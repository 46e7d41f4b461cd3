import { randomBytes } from 'node:crypto';
import { bytesToHex, type Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type RunJobOptions, type RunResult, runJob } from './run-job.ts';

/** How canaries are made. */
export interface CanaryAgentOptions extends Omit<RunJobOptions, 'canary' | 'costMax' | 'onEvent'> {
  /** What all of them may cost together, base units of the token; what comes back of one is there for the next. */
  budget: bigint;
  /** Seconds from one to the next in the mean; the gaps are exponential, so that the next is never more likely than before. */
  meanSeconds: number;
  /** Ends after so many. */
  countMax?: number;
  onCanary?: (canary: CanaryOutcome) => void;
}

/** What a canary showed. */
export interface CanaryOutcome {
  jobId: Hex;
  /** It was shown in time; else it was a forgery to the network. */
  isShown: boolean;
  /** Auditors that found nothing where there was something, and lost stake. */
  missed: bigint[];
  /** Auditors that saw it. */
  seen: bigint[];
  cost: bigint;
}

/** What an agent did. */
export interface CanaryReport {
  canaries: CanaryOutcome[];
  spent: bigint;
  /** Why it ended. */
  why: 'count' | 'budget' | 'stopped';
}

const SEED_BYTES = 8;

/**
 * Makes canaries until its budget is spent: jobs like the renter's own, at times and of leaves that nobody can foresee, with one state that is none. Their
 * provider plays along (`takesCanaries`) and shows them after the audit; auditors that did not look lose stake, half of it to this renter.
 * @throws what `runJob` throws but job-too-dear, which ends it
 */
export async function runCanaries(options: CanaryAgentOptions): Promise<CanaryReport> {
  const { budget, meanSeconds, countMax = Number.POSITIVE_INFINITY, signal, onCanary, ...run } = options;
  const report: CanaryReport = { canaries: [], spent: 0n, why: 'count' };
  while (report.canaries.length < countMax) {
    try {
      await systemClock.sleep(-Math.log(1 - unitRandom()) * meanSeconds * 1000, signal);
      const result = await makeCanary({ ...run, signal }, budget - report.spent);
      const outcome = await readOutcome(options.client, result);
      report.canaries.push(outcome);
      report.spent += outcome.cost;
      onCanary?.(outcome);
    } catch (error) {
      if (signal?.aborted) return { ...report, why: 'stopped' };
      if (toMillraceError(error).code === 'job-too-dear') return { ...report, why: 'budget' };
      throw error;
    }
  }
  return report;
}

/** Another seed makes it another job; which leaf is wrong nobody but its makers knows. */
async function makeCanary(run: Omit<RunJobOptions, 'onEvent'>, costMax: bigint): Promise<RunResult> {
  const { spec } = run;
  if (run.auditors === 0 || (spec.determinism !== 'wasm-strict' && spec.determinism !== 'exact-output'))
    throw notForCanaries(spec.determinism);
  const seed = String(randomBytes(SEED_BYTES).readBigUInt64LE());
  const leaf = 1 + Math.floor(unitRandom() * spec.segments);
  return await runJob({ ...run, spec: { ...spec, seed }, canary: { salt: bytesToHex(randomBytes(32)), leaf }, costMax });
}

/** What the chain says of a canary that is settled. */
async function readOutcome(client: ChainClient, { jobId, cost }: RunResult): Promise<CanaryOutcome> {
  const [{ canary }, punished, paid] = await Promise.all([
    client.read('computeJobs', 'job', [jobId]),
    client.events({ name: 'auditors', event: 'AuditorPunished', args: { jobId } }),
    client.events({ name: 'computeJobs', event: 'AuditorPaid', args: { jobId } }),
  ]);
  const missed = punished.filter(({ args }) => args.lied).map(({ args }) => args.auditor);
  const seen = paid.map(({ args }) => args.auditor).filter((auditor) => !missed.includes(auditor));
  return { jobId, isShown: canary, missed, seen, cost };
}

/** From 0 to 1, by the machine's own randomness: who knew it could sleep until then. */
function unitRandom(): number {
  return randomBytes(6).readUIntBE(0, 6) / 2 ** 48;
}

function notForCanaries(determinism: string): MillraceError {
  return new MillraceError('not-for-canaries', {
    actor: 'caller',
    message: `Nobody replays a job of the class ${determinism} segment by segment, so no canary can be made of it`,
    values: { determinism },
    hint: 'Take a job of the class wasm-strict or exact-output with auditors.',
  });
}
