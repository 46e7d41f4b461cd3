import type { ChainClient, Signer } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import { type DisputeEvidence, type Judge, type JuryDispute, openEvidence } from '../../governance/index.ts';
import { type Logger, silentLogger } from '../../log.ts';
import { unpackState } from '../jobs/job-api.ts';
import type { FetchContent } from '../part.ts';
import type { JobEngines } from '../verify/engines.ts';
import { summaryOf } from './finding.ts';
import { inspectSegment } from './inspect-segment.ts';
import { bringWork, type CommittedJob, callerOf, providerStates, readCommittedJob, type StateSource, withinTime } from './job-case.ts';
import { memberStates } from './member-states.ts';

/** Who judges segments, and with what. */
export interface SegmentJudgeOptions {
  client: ChainClient;
  /** The juror's node key: providers hand work and states to the drawn alone. */
  signer: Signer;
  folder: string;
  engines: JobEngines;
  fetchContent: FetchContent;
  log?: Logger;
}

/** Rulings of `JobDisputes`: the operator is guilty, or is not. */
const GUILTY = 1n;
const NOT_GUILTY = 2n;
/** An operator that gives the jury nothing is asked until this part of the time to commit is left; then its silence convicts it. */
const PATIENCE_PARTS = 4n;
/** Of the time to commit, what all sources together may take before their silence counts. */
const FETCH_PARTS = 3;
const EVIDENCE_STATES_MAX = 16;
/** What nobody has, and the operator need not hand over. */
const CONTENT_GONE = 'content-gone';

/**
 * The judge of segments: runs the one that is disputed again, as its specification says, from the state that the operator has committed to. The state
 * may come from the operator, from a committee that took delivery of it, or from any piece of evidence: it counts when its hash is the committed one.
 */
export function segmentJudge(options: SegmentJudgeOptions): Judge {
  const { client, signer, engines, fetchContent, log = silentLogger } = options;
  return {
    arbitrable: client.address('jobDisputes'),
    async judge(dispute, evidence, signal) {
      const { jobId, segment } = await disputedSegment(client, dispute);
      const job = await readCommittedJob(client, jobId);
      const caller = await callerOf(client, signer);
      const fetchMs = (Number(dispute.commitUntil - dispute.openedAt) * 1000) / FETCH_PARTS;
      const patience = AbortSignal.timeout(Math.max(1, Math.ceil(fetchMs)));
      const ports = { caller, fetchContent, folder: `${options.folder}/${jobId}`, signal: AbortSignal.any([signal, patience]) };
      const about = { disputeId: dispute.disputeId, jobId, segment };
      try {
        const work = await bringWork(job, ports);
        const source = await anySource(client, { job, caller, evidence, fetchMs });
        const finding = await inspectSegment({ job, work, engines, source, segment, signal });
        log.info('segment-judged', { ...about, ...summaryOf(finding) });
        if (finding.kind !== 'withheld') return finding.kind === 'wrong' ? GUILTY : NOT_GUILTY;
      } catch (error) {
        signal.throwIfAborted();
        const { code, message, actor } = toMillraceError(error);
        log.warn('segment-not-judged', { ...about, code, reason: message.slice(0, 300) });
        if (code === CONTENT_GONE) return await silenceOf(client, dispute, NOT_GUILTY);
        const isOwn = actor === 'host' || actor === 'bug' || actor === 'chain';
        if (isOwn && !patience.aborted) return undefined;
      }
      return await silenceOf(client, dispute);
    },
  };
}

/** Guilty, or another ruling, once nearly all of the time is over in which the work could have been had; before, no answer yet. */
async function silenceOf(client: ChainClient, { openedAt, commitUntil }: JuryDispute, ruling = GUILTY): Promise<bigint | undefined> {
  const left = commitUntil - (await client.now());
  return left <= (commitUntil - openedAt) / PATIENCE_PARTS ? ruling : undefined;
}

/** What a dispute of `JobDisputes` is about. */
async function disputedSegment(client: ChainClient, { disputeId }: JuryDispute): Promise<{ jobId: `0x${string}`; segment: number }> {
  const [called] = await client.events({ name: 'jobDisputes', event: 'JuryCalled', args: { disputeId } });
  if (called === undefined) return { jobId: `0x${'00'.repeat(32)}`, segment: 0 };
  const { jobId } = await client.read('jobDisputes', 'caseOf', [called.args.caseId]);
  return { jobId, segment: called.args.segment };
}

/** States from the operator; where it gives none, from committees, then from what was said in the dispute. */
async function anySource(
  client: ChainClient,
  of: { job: CommittedJob; caller: Awaited<ReturnType<typeof callerOf>>; evidence: DisputeEvidence; fetchMs: number },
): Promise<StateSource> {
  const { job, caller, evidence, fetchMs } = of;
  const demands = await client.events({ name: 'stateDemands', event: 'StateDemanded', args: { jobId: job.jobId } });
  const provider = providerStates(caller, job);
  const delivered = demands.map(({ args }) => memberStates(caller, { demandId: args.demandId, otherwise: NONE }));
  // Each may take its part of the time: who hands over slowly must not keep the jury from voting.
  const sources = [provider, ...delivered, evidenceStates(client, { job, evidence })];
  const timed = sources.map((source) => withinTime(source, fetchMs / sources.length));
  return {
    async fetch(index, options) {
      let last: unknown;
      for (const source of timed) {
        try {
          return await source.fetch(index, options);
        } catch (error) {
          options.signal.throwIfAborted();
          last = error;
        }
      }
      throw last;
    },
  };
}

const NONE: StateSource = { fetch: () => Promise.reject(new RangeError('no such state here')) };

/** States with their leaves that pieces of evidence carry or name. */
function evidenceStates(client: ChainClient, { job, evidence }: { job: CommittedJob; evidence: DisputeEvidence }): StateSource {
  return {
    async fetch(index, { signal, bytesMax }) {
      for (const { text } of evidence.pieces.slice(0, EVIDENCE_STATES_MAX)) {
        const bytes = await openEvidence(client, text, { bytesMax, signal }).catch(() => undefined);
        if (bytes === undefined) continue;
        try {
          const taken = unpackState(Buffer.from(bytes), job.provider);
          if (taken.leaf.index === index) return taken;
        } catch {
          // Anybody may say anything.
        }
      }
      throw new RangeError('no evidence has this state');
    },
  };
}
