import type { Sender } from '../chain/index.ts';
import { AUDITORS_MAX, type CanaryOutcome, runCanaries } from '../compute/index.ts';
import { formatAmount, parseAmount, parseDuration } from '../units.ts';
import type { CommandContext } from './context.ts';
import { readJobDocument } from './job-document.ts';
import { table } from './output.ts';
import { tokenWanted, wholeNumber } from './run-job.ts';
import { openWallet } from './secrets.ts';
import { withSender } from './sending.ts';
import { decimalsOf, openSession, unitOf } from './session.ts';

/** Options of `millrace canary`. */
export interface CanaryFlags {
  budget: string;
  every: string;
  count?: string;
  token?: string;
  auditors: string;
  input: string[];
}

const COUNT_MAX = 1_000_000;

/** Makes canaries of a job document until the budget is spent, the count is reached, or Ctrl-C: auditors that do not look lose stake. */
export async function canary(context: CommandContext, path: string, flags: CanaryFlags): Promise<void> {
  const session = await openSession(context);
  const { client, folder, log, manifest } = session;
  const { request, files } = await readJobDocument(path, { input: flags.input });
  const signer = await openWallet(context, session);
  const token = tokenWanted(flags.token);
  const decimals = decimalsOf(session, token);
  const unit = unitOf(manifest, client.address(token === 'stable' ? 'stableToken' : 'computeToken'));
  const report = await runCanaries({
    client,
    signer,
    sending: <Result>(use: (sender: Sender) => Promise<Result>) => withSender(context, session, signer, use),
    folder: folder.client,
    name: request.name,
    spec: request.spec,
    needs: request.needs,
    token,
    lowerable: false,
    auditors: wholeNumber('--auditors', flags.auditors, 1, AUDITORS_MAX),
    samples: request.auditedSegments ?? 1,
    files,
    budget: parseAmount(flags.budget, decimals),
    meanSeconds: parseDuration(flags.every),
    ...(flags.count === undefined ? {} : { countMax: wholeNumber('--count', flags.count, 1, COUNT_MAX) }),
    onCanary: (one) => context.output.note(textOf(one)),
    log,
    signal: context.signal,
  });
  context.output.result({ items: report.canaries, spent: report.spent, unit, decimals, why: report.why, next: null }, () =>
    [
      table(
        ['job', 'shown', 'saw it', 'did not look', `cost, ${unit}`],
        report.canaries.map((one) => [
          one.jobId,
          one.isShown ? 'yes' : 'NO',
          one.seen.join(' '),
          one.missed.join(' '),
          formatAmount(one.cost, decimals),
        ]),
      ),
      `${report.canaries.length} canaries for ${formatAmount(report.spent, decimals)} ${unit}; ended by ${report.why}.`,
    ].join('\n'),
  );
}

function textOf({ jobId, isShown, missed, seen }: CanaryOutcome): string {
  if (!isShown) return `Job ${jobId} was not shown as a canary in time.`;
  const lazy = missed.length === 0 ? 'nobody overlooked it' : `operators ${missed.join(', ')} did not look and lost stake`;
  return `Canary ${jobId}: ${seen.length} auditors paid, ${lazy}.`;
}
