import type { Hex } from 'viem';
import { type Sender, unlessOvertaken } from '../../chain/index.ts';
import { openCanary } from '../audit/canary.ts';
import { canaryStateHash } from '../audit/finding.ts';
import { isLeafOf } from '../verify/commitment.ts';
import { fetchState, type JobCaller, type JobPeer } from './job-api.ts';
import { PHASE } from './job-chain.ts';
import type { JobResult } from './job-terms.ts';
import type { RunAttempt, RunJournal, RunJournals } from './run-journal.ts';

/** A canary whose renter follows it. */
export interface ShownCanary {
  caller: JobCaller;
  peer: JobPeer;
  sending<Result>(use: (sender: Sender) => Promise<Result>): Promise<Result>;
  attempt: RunAttempt;
  journal: RunJournal;
  journals: RunJournals;
  signal: AbortSignal | undefined;
}

/** Its provider was first, or the time for it is over. */
const OVERTAKEN: ReadonlySet<string> = new Set(['wrong-phase', 'too-late']);

/**
 * The renter's part in showing a canary: its provider does it too, and either is enough. The leaf's proof is fetched while there is time, and kept, so that
 * a provider that is gone when the window opens is not convicted of a forgery. Safe to repeat.
 * @throws the errors of peers, and what the sender throws
 */
export async function tendCanary(options: ShownCanary, { phase, result }: { phase: number; result: JobResult }): Promise<void> {
  const { caller, attempt, sending } = options;
  const { canary, jobId, terms } = attempt;
  if (canary === undefined || phase < PHASE.committed || phase > PHASE.window) return;
  if (attempt.canaryProof === undefined) await fetchProof(options, { canary, root: result.root });
  const leaf = attempt.canaryProof;
  if (phase !== PHASE.window || leaf === undefined) return;
  const { canary: isShown, guilty } = await caller.client.read('computeJobs', 'job', [jobId]);
  if (isShown || guilty) return;
  const open = (sender: Sender) => openCanary(sender, { terms, result, leaf, canary, key: `run/canary/${jobId}` });
  await unlessOvertaken(OVERTAKEN, () => sending(open));
}

async function fetchProof(
  { caller, peer, attempt, journal, journals, signal }: ShownCanary,
  { canary, root }: { canary: { salt: Hex; leaf: number }; root: Hex },
): Promise<void> {
  const { leaf } = await fetchState(caller, peer, { jobId: attempt.jobId, index: canary.leaf, signal });
  const isOurs = leaf.index === canary.leaf && leaf.stateHash === canaryStateHash(canary.salt, canary.leaf);
  if (!isOurs || !isLeafOf(root, attempt.terms.segments, leaf)) return;
  attempt.canaryProof = leaf;
  journals.save(journal);
}
