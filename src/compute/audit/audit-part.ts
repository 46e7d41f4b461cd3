import type { ComputeContext, ComputePart } from '../part.ts';
import { startTending } from '../tending.ts';
import type { JobEngines } from '../verify/engines.ts';
import { openAuditor } from './auditor.ts';
import { openCommittee } from './committee.ts';

/** What the part that audits is started with. */
export interface AuditPartOptions extends Omit<ComputeContext, 'executors' | 'capacity'> {
  /** What runs jobs again here; its seats are for no others (`openAuditEngines`). */
  engines: JobEngines;
  /** Between looks at the chain, milliseconds (default 1,000). */
  pollMs?: number;
}

const POLL_MS = 1_000;

/**
 * Starts an operator's duties as auditor: audits that it is drawn for, and committees that take delivery of demanded states. Its seats are taken
 * by `openAuditSeats`; without one it is drawn for nothing, and of jobs whose engine it lacks for none.
 * @throws audit-journal-broken
 */
export async function startAuditPart(options: AuditPartOptions): Promise<ComputePart> {
  const auditor = openAuditor(options);
  const committee = openCommittee(options);
  const look = () => Promise.all([auditor.tend(), committee.tend()]);
  const tending = startTending(look, { pollMs: options.pollMs ?? POLL_MS, log: options.log, failed: 'audits-not-tended' });
  return {
    fetch: (request) => committee.fetch(request),
    metrics: () => metricsOf({ ...auditor.counts(), delivered: committee.counts().delivered }),
    status: async () => ({ ...auditor.counts(), committees: committee.counts().open, delivered: committee.counts().delivered }),
    // Duties that the chain has drawn go on to their end: leaving seats is another thing.
    drain() {},
    resume() {},
    leave: async () => ({ unfinished: auditor.counts().open }),
    async stop() {
      await Promise.all([tending.stop(), auditor.stop(), committee.stop()]);
    },
  };
}

function metricsOf(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([name, count]) => `millrace_compute_audits_${name}_count ${count}\n`)
    .join('');
}
