import { toMillraceError } from '../../errors.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
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
  const { log } = options;
  const auditor = openAuditor(options);
  const committee = openCommittee(options);
  const stopping = new AbortController();
  let wake = () => {};
  const loop = async () => {
    while (!stopping.signal.aborted) {
      await Promise.all([auditor.tend(), committee.tend()]).catch((error) => {
        const { code, message } = toMillraceError(error);
        if (!stopping.signal.aborted) log.warn('audits-not-tended', { code, reason: message.slice(0, 300) });
      });
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, options.pollMs ?? POLL_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (stopping.signal.aborted) wake();
      });
    }
  };
  const looping = loop();
  return {
    fetch: (request) => committee.fetch(request),
    metrics: () => metricsOf({ ...auditor.counts(), delivered: committee.counts().delivered }),
    status: async () => ({ ...auditor.counts(), committees: committee.counts().open, delivered: committee.counts().delivered }),
    // Duties that the chain has drawn go on to their end: leaving seats is another thing.
    drain() {},
    resume() {},
    leave: async () => ({ unfinished: auditor.counts().open }),
    async stop() {
      stopping.abort();
      wake();
      await auditor.stop();
      await looping;
    },
  };
}

function metricsOf(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([name, count]) => `millrace_compute_audits_${name}_count ${count}\n`)
    .join('');
}
