import { join } from 'node:path';
import type { ChainClient, Sender } from '../chain/index.ts';
import type { InferenceServer } from '../gateway/index.ts';
import { hasReceiptCourt, openReceiptReporter, type ReportState, type SeenReceipt } from '../inference/index.ts';
import type { Logger } from '../log.ts';
import { formatAmount } from '../units.ts';

/** What a command that asks miners does about receipts which convict who signed them. */
export interface OwnCourt {
  /** Keeps what convicts on the disk before it returns. */
  onReceipt(seen: SeenReceipt): void;
  /**
   * Holds what came beside the receipts of earlier commands, and brings what convicts to the court as a gateway does: for the reward, paid from the
   * wallet, at most 0.01 coins a report. What is not through after half a minute waits for the next command.
   */
  bring(receipts: InferenceServer['receipts']): Promise<ReportState[]>;
}

const BRING_MS = 30_000;
const SIGNED: Record<ReportState['offence'], string> = {
  'units-above-limit': 'more output than was agreed on',
  'price-above-voucher': 'a higher price than was paid ahead',
  contradiction: 'two receipts of one id that exclude one another',
};

/** Opens a command's way to the court of receipts; undefined where the network has no court. What earlier commands left waiting is in the folder. */
export function openOwnCourt(options: {
  client: ChainClient;
  sender: Sender;
  folder: string;
  signal: AbortSignal;
  log: Logger;
}): OwnCourt | undefined {
  const { client, sender, signal, log } = options;
  if (!hasReceiptCourt(client)) return undefined;
  const reporter = openReceiptReporter({ client, sender, folder: join(options.folder, 'reports'), everyMs: 0, log });
  const seenIds = new Set<string>();
  return {
    onReceipt(seen) {
      reporter.see(seen);
      if (seen.signed !== undefined) seenIds.add(seen.signed.receipt.inputs.receiptId);
    },
    async bring(receipts) {
      for (const id of seenIds) for (const { encoded } of await receipts.all(id)) reporter.see({ encoded });
      seenIds.clear();
      if (reporter.status().waiting > 0) await within(reporter.tend(), AbortSignal.any([signal, AbortSignal.timeout(BRING_MS)]));
      return reporter.reports();
    },
  };
}

/** What a miner was found to have signed, what came of the report, and where the proof is, for people. */
export function offenceText({ operatorId, receiptId, offence, evidence, ...report }: ReportState, unit: string): string {
  return [
    `Operator ${operatorId} convicted itself: it signed ${SIGNED[offence]} (receipt ${receiptId.slice(0, 18)}…).`,
    report.state === 'reported'
      ? `Reported: the court took ${formatAmount(report.amount ?? 0n, 18)} ${unit} of its bond, ${formatAmount(report.reward ?? 0n, 18)} of it is this wallet’s (transaction ${report.transaction}).`
      : report.state === 'waiting'
        ? `The report waits${report.reason === undefined ? '' : ` (${report.reason})`}: the next command that asks a miner sends it.`
        : `Nothing to report any more (${report.reason}).`,
    `The proof is kept in ${evidence}`,
  ].join(' ');
}

/** Resolves when the work is done or the signal fires. */
function within(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    work.then(resolve, reject);
  });
}
