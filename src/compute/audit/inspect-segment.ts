import type { Hex } from 'viem';
import { toMillraceError } from '../../errors.ts';
import { isOfTerms } from '../jobs/job-terms.ts';
import { chainHashOf, type LeafProof } from '../verify/commitment.ts';
import type { JobEngines } from '../verify/engines.ts';
import { replaySegment } from '../verify/replay-segment.ts';
import type { JobWork } from '../verify/work.ts';
import { type CommittedJob, type StateSource, takeLeaf, takeState } from './job-case.ts';

/** What somebody found who ran a segment again. */
export type SegmentFinding =
  | { kind: 'right' }
  | {
      kind: 'wrong';
      segment: number;
      /** What the segment ends in here. */
      stateHash: Hex;
      start: LeafProof;
      end: LeafProof;
      /** The chain hash of a leaf does not follow from the one before it: proven on chain without a jury. */
      isChainBroken: boolean;
    }
  | { kind: 'withheld'; segment: number; leaf: number; reason: string };

/** What is looked at. */
export interface SegmentInspection {
  job: CommittedJob;
  work: JobWork;
  engines: JobEngines;
  source: StateSource;
  segment: number;
  signal: AbortSignal;
}

/**
 * Runs a segment of a job again and compares it with what was committed to: the state it ends in, the chain of states, at segment 0 the first state,
 * at the last one the digest of the output. Of terms that say of the work what its specification does not, every segment is wrong.
 * @throws what is no fault of the provider: engine-missing, strict-time-over, replay-undecided, sandbox-failed, and the signal's reason
 */
export async function inspectSegment(options: SegmentInspection): Promise<SegmentFinding> {
  const { job, work, source, segment, signal } = options;
  const isFingerprint = work.spec.determinism === 'fingerprint';
  let leaf = segment;
  let start: { leaf: LeafProof; state: Uint8Array | undefined };
  let end: { leaf: LeafProof; state: Uint8Array | undefined };
  try {
    // State 0 is made from the specification; nobody has to hand it over.
    start =
      segment === 0
        ? { leaf: await takeLeaf(job, work, source, { index: 0, signal }), state: undefined }
        : await takeState(job, work, source, { index: segment, signal });
    leaf = segment + 1;
    end = isFingerprint
      ? await takeState(job, work, source, { index: leaf, signal })
      : { leaf: await takeLeaf(job, work, source, { index: leaf, signal }), state: undefined };
  } catch (error) {
    signal.throwIfAborted();
    const { code, message } = toMillraceError(error);
    return { kind: 'withheld', segment, leaf, reason: `${code}: ${message}`.slice(0, 300) };
  }
  const wrong = (stateHash: Hex, isChainBroken = false): SegmentFinding => ({
    kind: 'wrong',
    segment,
    stateHash,
    start: start.leaf,
    end: end.leaf,
    isChainBroken,
  });
  if (isChainBroken(job, start.leaf, end.leaf)) return wrong(end.leaf.stateHash, true);
  // Whoever was drawn by such terms may lack the engine, and needs none to say so.
  if (!isOfTerms(work.spec, job.terms)) return wrong(NO_STATE);
  const given = { index: segment, state: isFingerprint ? end.state : start.state, committed: end.leaf.stateHash };
  const replay = await replaySegment(work, options.engines, { ...given, signal });
  const isOutputRight = replay.outputDigest === undefined || replay.outputDigest === job.result.outputDigest;
  const isRight = replay.startHash === start.leaf.stateHash && replay.endHash === end.leaf.stateHash && isOutputRight;
  return isRight ? { kind: 'right' } : wrong(replay.endHash);
}

/** The hash of no state. */
const NO_STATE: Hex = `0x${'00'.repeat(32)}`;

/** Whether the specification's chain of states cannot have these two leaves. */
function isChainBroken({ terms: { specHash } }: CommittedJob, start: LeafProof, end: LeafProof): boolean {
  const first = chainHashOf({ specHash, index: 0, previous: undefined, stateHash: start.stateHash });
  if (start.index === 0 && start.chainHash !== first) return true;
  return end.chainHash !== chainHashOf({ specHash, index: end.index, previous: start.chainHash, stateHash: end.stateHash });
}
