import { MillraceError, toMillraceError } from '../../errors.ts';
import { type Executor, StrictEngine } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { JobSpec } from '../spec/job-spec.ts';

/** Which engine a job needs to be run again, as `IComputeJobs.Engine` counts them. */
export const ENGINE_NUMBER = { none: 0, strict: 1, module: 2, image: 3 } as const;

/** An engine that auditors of a job must have; `none`: nobody audits it. */
export type JobEngine = keyof typeof ENGINE_NUMBER;

/** What runs jobs here, and runs them again. */
export interface JobEngines {
  /** For `wasm-strict`; undefined where this machine does not calculate as all do. */
  strict: StrictEngine | undefined;
  /** For the other classes, the default one first. */
  executors: readonly Executor[];
}

/**
 * The engine that a specification's runtime names: modules run in memory, images in any engine that isolates processes, commands in the software of this
 * machine. Whoever replays takes the same one, or none.
 * @throws engine-missing
 */
export function executorFor({ executors }: Pick<JobEngines, 'executors'>, spec: Pick<JobSpec, 'program' | 'determinism'>): Executor {
  const { kind } = spec.program;
  const isFit = ({ engine }: Executor) =>
    kind === 'module' ? engine === 'wasm' : kind === 'image' ? engine !== 'wasm' : engine === 'bubblewrap';
  const found = executors.find(isFit);
  if (found !== undefined) return found;
  throw engineMissing(spec, kind === 'module' ? 'Start the node again.' : 'apt-get install bubblewrap, then start the node again.');
}

/** The strict engine, where this machine has it. @throws engine-missing */
export function strictEngineOf({ strict }: Pick<JobEngines, 'strict'>, spec: Pick<JobSpec, 'program' | 'determinism'>): StrictEngine {
  if (strict !== undefined) return strict;
  throw engineMissing(spec, 'See the log: its known-answer test failed at the start.');
}

/** The engine that auditors of a specification's jobs must have, as terms name it. */
export function engineOf({ program, determinism }: Pick<JobSpec, 'program' | 'determinism'>): JobEngine {
  if (determinism === 'none' || program.kind === 'command') return 'none';
  return determinism === 'wasm-strict' ? 'strict' : program.kind;
}

/** Which kinds of audited jobs can be run again here. */
export function auditableHere({ strict, executors }: JobEngines): JobEngine[] {
  const able: Record<Exclude<JobEngine, 'none'>, boolean> = {
    strict: strict !== undefined,
    module: executors.some(({ engine }) => engine === 'wasm'),
    image: executors.some(({ engine }) => engine !== 'wasm'),
  };
  return (['strict', 'module', 'image'] as const).filter((kind) => able[kind]);
}

/** The strict engine, where this machine calculates as all do; else undefined, and the log says what follows from that. */
export async function openStrictEngine(log: Logger, effect: string): Promise<StrictEngine | undefined> {
  try {
    return await StrictEngine.open();
  } catch (error) {
    log.error('strict-engine-unfit', { reason: toMillraceError(error).message, effect });
    return undefined;
  }
}

/** Engines that hold strangers' jobs to every limit; what hinders the others is logged with its remedy. */
export async function enginesForStrangers(executors: readonly Executor[], log: Logger): Promise<Executor[]> {
  const reports = await Promise.all(executors.map(async (executor) => ({ executor, report: await executor.inspect() })));
  for (const { report } of reports.filter((one) => !one.report.takesForeign)) {
    const [first] = report.missing;
    log.warn('engine-takes-no-jobs', { engine: report.engine, missing: first?.what, fix: first?.fix });
  }
  return reports.filter(({ report }) => report.takesForeign).map(({ executor }) => executor);
}

function engineMissing({ program, determinism }: Pick<JobSpec, 'program' | 'determinism'>, hint: string): MillraceError {
  return new MillraceError('engine-missing', {
    actor: 'host',
    message: `No engine here runs a ${program.kind} of the class ${determinism} for strangers`,
    values: { program: program.kind, determinism },
    hint,
  });
}
