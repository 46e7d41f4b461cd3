import { openRunJournals, PHASE, phaseOf, type RunJournal } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { type RailsMoney, railsMoneyOf, railsMoneyText } from './rails-money.ts';
import { endText } from './run-job.ts';
import { openSession, type Session, unitOf } from './session.ts';

/** Settled, but not yet looked at by the run that it belongs to, is over too. */
const OVER = ['done', 'settled'];
const PHASES = Object.fromEntries(Object.entries(PHASE).map(([name, phase]) => [phase, name]));

/** The jobs of this wallet, newest last. */
export async function jobs(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const journals = openRunJournals(`${session.folder.client}/jobs`).all();
  const items = await Promise.all(journals.map((journal) => viewOf(session, journal)));
  const atRails = await moneyOfRenter(session, journals);
  context.output.result({ items, atRails, next: null }, () => {
    if (items.length === 0) return 'No jobs yet. Try: millrace run examples/word-count.yaml';
    const rows = items.map((one) => [
      one.runId.slice(0, 8),
      one.name,
      statusText(one),
      one.operatorId ?? '',
      one.evidence ?? '',
      one.cost ?? '',
      one.cid ?? '',
    ]);
    const unused = railsMoneyText(atRails);
    return `${table(['run', 'name', 'status', 'operator', 'evidence', 'cost', 'output'], rows)}${unused === '' ? '' : `\n${unused}`}`;
  });
}

/** Where a job stands, in a word or two: one that is over and did not end well says how it ended. */
export function statusText({ status, end }: { status: string; end?: string | undefined }): string {
  return OVER.includes(status) && end !== undefined && end !== 'exit 0' ? end : status;
}

/** What the account that ordered the latest of these jobs has at the rails: what was not needed, and what came back. */
async function moneyOfRenter(session: Session, journals: readonly RunJournal[]): Promise<RailsMoney[]> {
  const account = journals.at(-1)?.account;
  return account === undefined ? [] : await railsMoneyOf(session, account);
}

/** One job: its work, tries, receipt and what the chain says. */
export async function jobShow(context: CommandContext, id: string): Promise<void> {
  const session = await openSession(context);
  const journal = openRunJournals(`${session.folder.client}/jobs`).find(id);
  if (journal === undefined) {
    throw new MillraceError('job-unknown', {
      actor: 'caller',
      message: `This wallet has no job ${id.slice(0, 80)}`,
      values: { id: id.slice(0, 80) },
      hint: 'See `millrace jobs`; the first six characters of a run or job are enough.',
    });
  }
  const view = await viewOf(session, journal);
  const { spec, attempts, files, artefacts = [], outputFolder } = journal;
  const tries = attempts.map(({ jobId, terms, failure }) => ({ jobId, operatorId: terms.operatorId, failure: failure ?? null }));
  const receipt = journal.receipt === undefined ? null : (JSON.parse(journal.receipt) as unknown);
  const value = {
    ...view,
    startedAt: journal.startedAt,
    spec,
    attempts: tries,
    handed: Object.keys(files),
    artefacts,
    outputFolder: outputFolder ?? null,
    receipt,
  };
  context.output.result(value, () =>
    [
      ...Object.entries(shownOf(view)).map(([name, one]) => `${name.padEnd(11)}${one ?? '-'}`),
      `program    ${spec.program.kind} ${spec.program.source} ${spec.argv.join(' ')}`.slice(0, 200),
      `class      ${spec.determinism}, ${spec.segments} segments`,
      '',
      table(
        ['try', 'job', 'operator', 'ended'],
        tries.map((one, index) => [String(index + 1), one.jobId, String(one.operatorId), one.failure ?? '']),
      ),
      ...(artefacts.length === 0
        ? []
        : [
            '',
            table(
              ['output', 'cid', 'bytes'],
              artefacts.map(({ path, cid, sizeBytes }) => [path, cid, String(sizeBytes)]),
            ),
          ]),
    ].join('\n'),
  );
}

/** A job's line in words. */
function shownOf({ end, endReason, ...view }: Awaited<ReturnType<typeof viewOf>>): Record<string, string | undefined> {
  return { ...view, end: end === undefined ? undefined : endText({ end, endReason }) };
}

async function viewOf({ client, manifest }: Session, journal: RunJournal) {
  const live = journal.attempts.findLast(({ failure }) => failure === undefined);
  const phase = live === undefined ? undefined : (await phaseOf(client, live.jobId)).phase;
  const receipt =
    journal.receipt === undefined
      ? undefined
      : (JSON.parse(journal.receipt) as { receipt: { evidence: string; outputs: { outputCid: string } } });
  const unit = live === undefined ? '' : unitOf(manifest, live.terms.token);
  const decimals = Object.values(manifest.tokens).find(({ symbol }) => symbol === unit)?.decimals ?? TOKEN_DECIMALS;
  const status = journal.finishedAt !== undefined ? 'done' : phase === undefined ? 'not begun' : (PHASES[phase] ?? 'unknown');
  return {
    runId: journal.runId,
    name: journal.name,
    status,
    jobId: live?.jobId,
    operatorId: live?.terms.operatorId.toString(),
    end: journal.end,
    endReason: journal.endReason,
    evidence: receipt?.receipt.evidence,
    cid: receipt?.receipt.outputs.outputCid,
    cost: journal.cost === undefined ? undefined : `${formatAmount(BigInt(journal.cost), decimals)} ${unit}`,
  };
}
