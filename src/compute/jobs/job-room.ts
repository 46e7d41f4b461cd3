import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { workSeconds } from '../verify/work.ts';
import type { JobRecord, JobRecords } from './job-records.ts';
import { type JobRuns, resourcesOf } from './job-runs.ts';
import { type DueWork, endsInOrder, hasTimeFor, inOrder } from './machine-plan.ts';

/** What decides whether the machine has time for a job. */
export interface JobRoomOptions {
  records: Pick<JobRecords, 'all' | 'spec' | 'save'>;
  runs: Pick<JobRuns, 'machine' | 'waiting'>;
  /** Whether all contents of a job are here. */
  isReady(jobId: Hex): boolean;
  /** What is kept to commit a result in, seconds. */
  commitSeconds: number;
}

/** The time that a machine has for jobs. Times are protocol time, seconds. */
export interface JobRoom {
  /** Refuses a job that could not be done in time, or would make another late. @throws no-room-in-time */
  require(spec: JobSpec, runSeconds: number, now: number): void;
  /** The agreed jobs that are ready and can be done in time when they are opened now. One that will have no room while its signatures are good fails. */
  openable(now: number): ReadonlySet<Hex>;
}

/**
 * Keeps a provider from taking or opening more jobs than it can do in time (decision 0031): with all that runs, all that waits, and all that is held by
 * others, such as leased devices, each job must end before it is due if all are started in the order in which they are due, none passes another, and
 * each takes all of its time. Orders whose contents are not all here hold no room: they cost their renters nothing yet.
 */
export function createJobRoom({ records, runs, isReady, commitSeconds }: JobRoomOptions): JobRoom {
  const dueWork = (spec: JobSpec, dueAt: number): DueWork => ({
    resources: resourcesOf(spec),
    wallSeconds: workSeconds(spec),
    dueAt: dueAt - commitSeconds,
  });
  const ready = () => records.all().filter(({ jobId, status }) => status === 'agreed' && isReady(jobId));
  const roomAt = (work: readonly DueWork[], more: DueWork, now: number) => {
    const end = endsInOrder([...inOrder(work), more], runs.machine(), now).at(-1) as number;
    return now + Math.max(0, end - more.dueAt);
  };
  const fail = (record: JobRecord, error: MillraceError) => {
    Object.assign(record, { status: 'failed', reason: `${error.code}: ${error.message}` });
    records.save(record);
  };
  return {
    require(spec, runSeconds, now) {
      const agreed = ready().map(({ jobId, terms }) => dueWork(records.spec(jobId), now + terms.runSeconds));
      const work = [...runs.waiting(), ...agreed];
      const more = dueWork(spec, now + runSeconds);
      if (!hasTimeFor(more, { work, machine: runs.machine(), now })) throw noRoom(roomAt(work, more, now), now);
    },
    openable(now) {
      const work: DueWork[] = runs.waiting();
      const may = new Set<Hex>();
      for (const record of ready()) {
        const { jobId, terms } = record;
        const more = dueWork(records.spec(jobId), now + terms.runSeconds);
        if (hasTimeFor(more, { work, machine: runs.machine(), now })) {
          may.add(jobId);
          work.push(more);
          continue;
        }
        const at = roomAt(work, more, now);
        if (at >= terms.openUntil) fail(record, noRoom(at, now));
      }
      return may;
    },
  };
}

function noRoom(roomAt: number, now: number): MillraceError {
  const isKnown = roomAt < Number.POSITIVE_INFINITY;
  const when = isKnown ? `until ${Math.ceil(roomAt)} (protocol time, now ${now})` : 'beside what it has promised to others';
  return new MillraceError('no-room-in-time', {
    actor: 'caller',
    message: `This provider has no room to do the job in time ${when}`,
    values: { roomAt: isKnown ? Math.ceil(roomAt) : undefined, now },
    hint: isKnown ? 'Order it again then, or take another provider.' : 'Lower the limits of the job, or take another provider.',
  });
}
