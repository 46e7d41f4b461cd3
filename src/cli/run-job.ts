import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainClient, Manifest, Sender } from '../chain/index.ts';
import type { JobSpec, RunEvent, RunResult } from '../compute/index.ts';
import { AUDITORS_MAX, boxKeyOf, fetchFile, jobPeerOf, openRunJournals, PHASE, runJob } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { contentPort } from '../node/index.ts';
import { formatAmount, parseAmount } from '../units.ts';
import type { CommandContext } from './context.ts';
import { commandJob, type JobFlags, readJobDocument, type WantedJob } from './job-document.ts';
import { chooseOutputFolder } from './job-output.ts';
import type { Progress } from './output.ts';
import { openWallet } from './secrets.ts';
import { withSender } from './sending.ts';
import { decimalsOf, openSession, unitOf } from './session.ts';

/** Options of `millrace run`. */
export interface RunOptions extends JobFlags {
  output?: string;
  token?: string;
  price?: string;
  auditors: string;
  lower: boolean;
  wait: boolean;
}

const SAMPLES = 2;
const LOG_BYTES_MAX = 64 << 10;
const PHASE_NAMES: Record<number, string> = {
  [PHASE.none]: 'agreeing',
  [PHASE.running]: 'running',
  [PHASE.committed]: 'drawing auditors',
  [PHASE.sealing]: 'auditors replay',
  [PHASE.revealing]: 'auditors open',
  [PHASE.window]: 'challenge window',
  [PHASE.settled]: 'settled',
};

/** What is to be run, as the command line says it: a document, or a command and its arguments. */
export type WantedRun = { document: string } | { command: readonly string[] };

const DOCUMENT_ENDINGS = ['.yaml', '.yml', '.json'];

/**
 * What is to be run: the command behind `--`, or else one document. Anything else is not taken for a command, because what runs is paid.
 * @param words What is left of the command line besides options.
 * @param argv The command line as it was written.
 * @throws bad-usage
 */
export function wantedRun(words: readonly string[], argv: readonly string[]): WantedRun {
  const separator = argv.indexOf('--');
  const behind = separator === -1 ? 0 : argv.length - separator - 1;
  const [first] = words;
  if (first === undefined) throw nothingToRun();
  if (behind === words.length) return { command: words };
  if (words.length === 1 && DOCUMENT_ENDINGS.some((ending) => first.toLowerCase().endsWith(ending))) return { document: first };
  throw noDocument(words);
}

/** Runs a job document, or a command, on the network; ends with output CID, receipt, evidence class and cost. */
export async function runCommand(context: CommandContext, wanted: WantedRun, options: RunOptions): Promise<void> {
  const session = await openSession(context);
  const { client, folder, log } = session;
  const { request, files, notes } =
    'document' in wanted ? await readJobDocument(wanted.document, options) : await commandJob(wanted.command, options);
  for (const note of notes) context.output.note(note);
  const signer = await openWallet(context, session);
  const token = tokenWanted(options.token ?? request.priceMax?.token);
  const decimals = decimalsOf(session, token);
  const priceText = options.price ?? request.priceMax?.amount;
  const progress = context.output.progress('Job');
  const specs = specsOf(request);
  const folderWanted = await chooseOutputFolder({
    given: options.output,
    name: request.name,
    specs,
    account: signer.address,
    journals: openRunJournals(join(folder.client, 'jobs')),
  });
  const shared = {
    client,
    signer,
    sending: <Result>(use: (sender: Sender) => Promise<Result>) => withSender(context, session, signer, use),
    folder: folder.client,
    name: request.name,
    needs: request.needs,
    token,
    ...(priceText === undefined ? {} : { priceMax: parseAmount(priceText, decimals) }),
    lowerable: options.lower || request.acceptsLowerClass,
    auditors: wholeNumber('--auditors', options.auditors, 1, AUDITORS_MAX),
    samples: request.auditedSegments ?? SAMPLES,
    files,
    fetchContent: contentPort(client),
    untilOutput: !options.wait,
    onEvent: (event: RunEvent) => show(context, progress, event),
    log,
    signal: context.signal,
  };
  const results = await Promise.all(
    specs.map((spec) => runJob({ ...shared, spec, outputFolder: specs.length === 1 ? folderWanted : join(folderWanted, spec.seed) })),
  ).finally(() => progress.end());
  const shown = await Promise.all(
    results.map(async (result) =>
      viewOf(session.manifest, { result, printed: await logOf(context, { client, signer, result }), decimals }),
    ),
  );
  const [first] = shown;
  context.output.result(shown.length === 1 ? first?.value : { items: shown.map(({ value }) => value), next: null }, () =>
    shown.map(({ text }) => text).join('\n\n'),
  );
  const failed = results.find(({ end }) => end !== 'exit 0');
  if (failed !== undefined) throw jobItself(failed);
}

/** The work of each run of a job: the same with a seed of its own. */
function specsOf({ spec, count }: WantedJob['request']): JobSpec[] {
  return Array.from({ length: count }, (_, run) => ({ ...spec, seed: String(BigInt(spec.seed) + BigInt(run)) }));
}

function show(context: CommandContext, progress: Progress, event: RunEvent): void {
  const { output } = context;
  if (event.kind === 'resumed') output.note(`Going on with run ${event.runId.slice(0, 8)}, which was not finished.`);
  else if (event.kind === 'chosen') output.note(`Operator ${event.operatorId} runs it: job ${event.jobId}`);
  else if (event.kind === 'provider-failed') output.note(`Operator ${event.operatorId} failed (${event.code}): ${event.message}`);
  else if (event.kind === 'outputs') output.note(`Output ${event.outputCid}, ${filesText(event.files)}, as the provider has committed to.`);
  else if (event.kind === 'outputs-demanded')
    output.note(`Its outputs did not come: they are demanded on chain (demand ${event.demandId}).`);
  else if (event.kind === 'outputs-not-demanded')
    output.note(`Its outputs did not come, and are not to be had on chain now (${event.code}): ${event.message}`);
  else if (event.kind === 'progress') progress.update(event.segments, event.of, PHASE_NAMES[event.phase] ?? '');
}

/** What a job printed; nothing where its provider does not say. */
async function logOf(
  context: CommandContext,
  { client, signer, result }: { client: ChainClient; signer: Awaited<ReturnType<typeof openWallet>>; result: RunResult },
): Promise<string> {
  const parts: Uint8Array[] = [];
  let taken = 0;
  try {
    const peer = await jobPeerOf(client, result.operatorId);
    const caller = { client, signer, key: await boxKeyOf(signer) };
    for await (const part of await fetchFile(caller, peer, { jobId: result.jobId, part: 'log', signal: context.signal })) {
      if (taken < LOG_BYTES_MAX) parts.push(part.subarray(0, LOG_BYTES_MAX - taken));
      taken += part.length;
    }
  } catch {
    context.signal.throwIfAborted();
  }
  return Buffer.concat(parts).toString('utf8');
}

function viewOf(
  manifest: Manifest,
  { result, printed, decimals }: { result: RunResult; printed: string; decimals: number },
): { value: Record<string, unknown>; text: string } {
  const { receipt, outputCid, ...rest } = result;
  const unit = unitOf(manifest, result.token);
  const signature = receipt?.signature ?? null;
  const value = { cid: outputCid, ...rest, unit, receipt: receipt === undefined ? null : { ...receipt.receipt, signature }, log: printed };
  const count = result.artefacts.length;
  const files = count === 0 ? filesText(0) : `${filesText(count)} in ${result.outputFolder}`;
  const proof =
    receipt === undefined
      ? 'none yet: the job is not settled (millrace job show)'
      : `${receipt.receipt.outputs.receiptHash}, ${signature === null ? 'on chain; its provider has not signed it' : `on chain and signed by operator ${result.operatorId}`}`;
  const lines = [
    ...(printed === '' ? [] : [printed.trimEnd(), '']),
    ...(result.end === 'exit 0' ? [] : [`Ended     ${endText(result)}`]),
    `Output    ${outputCid}  (${files})`,
    `Receipt   ${proof}`,
    `Evidence  ${result.evidence}${result.isSettled ? '' : ' so far'}${manifest.notSecure ? `  (profile ${manifest.profile}: NOT SECURE)` : ''}`,
    `Cost      ${formatAmount(result.cost, decimals)} ${unit}${result.isSettled ? '' : ' at most'}`,
  ];
  return { value, text: lines.join('\n') };
}

function filesText(count: number): string {
  return `${count} ${count === 1 ? 'file' : 'files'}`;
}

/** Which token a job is paid in. @throws bad-option */
export function tokenWanted(text: string | undefined): 'stable' | 'native' {
  if (text === undefined || text === 'stable') return 'stable';
  if (text === 'native') return 'native';
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got --token ${text}, expected stable or native`,
    values: { got: text },
  });
}

/** A whole number of the command line, within bounds. @throws bad-option */
export function wholeNumber(flag: string, text: string, least: number, greatest: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= greatest) return value;
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${flag} ${text}, expected a whole number from ${least} to ${greatest}`,
    values: { flag, got: text },
  });
}

function nothingToRun(): MillraceError {
  return new MillraceError('bad-usage', {
    actor: 'caller',
    message: 'What is to be run?',
    hint: 'millrace run job.yaml, or millrace run -- python3 train.py',
  });
}

function noDocument(words: readonly string[]): MillraceError {
  const said = words.join(' ').slice(0, 80);
  const meant = DOCUMENT_ENDINGS.map((ending) => `${said}${ending}`).find((path) => existsSync(path)) ?? 'job.yaml';
  return new MillraceError('bad-usage', {
    actor: 'caller',
    message: `Got "${said}", expected one document (.yaml, .yml or .json), or a command behind --`,
    values: { got: said },
    hint: `Nothing was run. A document: millrace run ${meant}. A command: millrace run -- ${said}`,
  });
}

/** Ends of a job that are no exit code, for people; what they have in common is that nothing came of the work, which was done and is paid. */
const END_TEXTS: Record<string, { text: string; hint: string }> = {
  trap: { text: 'it trapped, or its module cannot be run', hint: 'Correct the module; more memory may help too.' },
  fuel: { text: 'limit reached: the instructions that its time stands for', hint: 'Give it more time.' },
  depth: { text: 'limit reached: calls within calls', hint: 'Let the module call less deep.' },
  output: { text: 'limit reached: its output is longer than allowed', hint: 'Give it more output.' },
  stopped: { text: 'limit reached, or ended by a signal', hint: 'Give it more of what it ran out of.' },
  unfit: { text: 'its program cannot be run', hint: 'Correct the image or module, or what it is given.' },
};

/** How a job ended, in words. */
export function endText({ end, endReason }: { end: string; endReason?: string | undefined }): string {
  const known = END_TEXTS[end];
  if (known === undefined) return end;
  return `${end} (${known.text}${endReason === undefined ? '' : `; its provider says: ${endReason}`}), no output`;
}

/** The job ran as it should, and its own program failed. */
function jobItself(result: RunResult): MillraceError {
  const { end, endReason, jobId } = result;
  return new MillraceError('job-ended', {
    actor: 'caller',
    message: `The job's own program ended with ${endText(result)}`,
    values: { end, endReason, jobId },
    hint: END_TEXTS[end]?.hint ?? 'What it printed is above; its outputs are there as it left them.',
  });
}
