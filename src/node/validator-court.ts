import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { toMillraceError } from '../errors.ts';
import type { ReceiptReporter, SubnetJudgeOptions } from '../inference/index.ts';
import { casesMaxOf } from './inference-settings.ts';
import type { MinerStart } from './miner-role.ts';

/** What a validator does with receipts that convict, and with answers that a re-run refutes. */
export interface ValidatorCourt {
  onReceipt(encoded: string): void;
  onRefuted: SubnetJudgeOptions['onRefuted'];
  /** Documents of the cases that it opened; undefined for other paths. */
  answer(request: Request): Response | undefined;
  status(): Record<string, unknown>;
  close(): Promise<void>;
}

/**
 * Opens a validator's way to the court of receipts: what convicts by itself is reported as its duty; what an exact re-run of a user's request has
 * refuted goes before the jury, as many times as `validatorCases` says. Without a court it does nothing.
 * @throws bad-inference-setting
 */
export async function openValidatorCourt(context: MinerStart): Promise<ValidatorCourt> {
  const { caseAnswer, hasReceiptCourt, openReceiptCase, openReceiptReporter } = await import('../inference/index.ts');
  const { client, sender, operatorId, folder, log } = context;
  const casesMax = casesMaxOf(context.inference);
  const cases = join(folder, 'cases');
  const opened = () => (existsSync(cases) ? readdirSync(cases).length : 0);
  const reporter: ReceiptReporter | undefined = hasReceiptCourt(client)
    ? openReceiptReporter({ client, sender, folder: join(folder, 'reports'), isDuty: true, log })
    : undefined;
  let opening: Promise<void> = Promise.resolve();
  const bring: NonNullable<ValidatorCourt['onRefuted']> = (request, { receipt, reason }) => {
    opening = opening.then(async () => {
      if (opened() >= casesMax || receipt === undefined) return;
      const { receiptId } = receipt.inputs;
      try {
        const { disputeId } = await openReceiptCase(client, { sender, operatorId, folder: cases, sample: request });
        log.warn('case-opened', { disputeId, operatorId: receipt.subject.operatorId, receiptId, reason });
      } catch (error) {
        log.warn('case-not-opened', { receiptId, reason: toMillraceError(error).message.slice(0, 300) });
      }
    });
  };
  return {
    onReceipt: (encoded) => reporter?.see({ encoded }),
    onRefuted: reporter === undefined || casesMax === 0 ? undefined : bring,
    answer: (request) => caseAnswer(cases, request),
    status: () => ({ ...reporter?.status(), cases: opened() }),
    async close() {
      await opening;
      await reporter?.close();
    },
  };
}
