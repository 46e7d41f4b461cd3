import type { Hex } from 'viem';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { FetchContent } from '../part.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { missingContents, prepareContents } from './job-contents.ts';
import type { JobRecord, JobRecords } from './job-records.ts';

/** What brings contents here. */
export interface JobGatheringOptions {
  records: JobRecords;
  fetchContent: FetchContent;
  /** Says whether this machine will have room for the program of a job. @throws image-over-bound */
  checkProgram(spec: JobSpec, programPath: string): Promise<void>;
  log: Logger;
  /** Called when a job has all that it needs, or never will. */
  onChange(): void;
}

/** The contents of jobs that are agreed and not on chain yet. */
export interface JobGathering {
  /** Fetches what can be fetched. */
  look(): void;
  /** Whether all contents of a job are here. */
  isReady(jobId: Hex): boolean;
  stop(): Promise<void>;
}

const AT_ONCE = 4;
const RETRY_MS = 3_000;
const REASON_LENGTH_MAX = 500;

/** The bound is this machine's, but no less final: what is opened must be run. */
const FINAL = 'image-over-bound';

/**
 * Brings all contents of a job here before it is opened: from then on its time runs, and a renter that hands nothing over, or names what nobody has or
 * what is too large, must not make its provider late. What is only not to be had now is tried again until the signatures are over.
 */
export function createJobGathering({ records, fetchContent, checkProgram, log, onChange }: JobGatheringOptions): JobGathering {
  const ready = new Set<Hex>();
  const underWay = new Map<Hex, Promise<void>>();
  const notBeforeMs = new Map<Hex, number>();
  const stopping = new AbortController();
  const gather = async (record: JobRecord) => {
    const { jobId, handed } = record;
    try {
      const job = { spec: records.spec(jobId), handed, folders: records.folders(jobId) };
      const { programPath } = await prepareContents(job, { fetchContent, signal: stopping.signal });
      if (programPath !== undefined) await checkProgram(job.spec, programPath);
      ready.add(jobId);
    } catch (error) {
      if (stopping.signal.aborted) return;
      const { code, message, actor } = toMillraceError(error);
      const isFinal = actor === 'caller' || code === FINAL;
      Object.assign(record, { reason: `${code}: ${message}`.slice(0, REASON_LENGTH_MAX), ...(isFinal && { status: 'failed' }) });
      records.save(record);
      notBeforeMs.set(jobId, performance.now() + RETRY_MS);
      log.warn('contents-not-gathered', { jobId, code, reason: message });
    }
    onChange();
  };
  return {
    look() {
      for (const record of records.all()) {
        const { jobId, status, handed } = record;
        if (status !== 'agreed' || ready.has(jobId) || underWay.has(jobId) || underWay.size >= AT_ONCE) continue;
        if (missingContents(handed, records.folders(jobId)).length > 0 || performance.now() < (notBeforeMs.get(jobId) ?? 0)) continue;
        underWay.set(
          jobId,
          gather(record).finally(() => underWay.delete(jobId)),
        );
      }
    },
    isReady: (jobId) => ready.has(jobId),
    async stop() {
      stopping.abort(new MillraceError('node-stopping', { actor: 'host', message: 'The node stops' }));
      await Promise.allSettled(underWay.values());
    },
  };
}
