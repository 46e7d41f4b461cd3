import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import {
  type CopyCount,
  listDeviceOffers,
  listRentals,
  openQueueResults,
  openRentalClient,
  packArchive,
  parseQueue,
  type QueueDocument,
  type QueueEvent,
  type QueueMachine,
  QueueRun,
  rentalMachine,
  type WorkResult,
} from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import { parseDuration } from '../units.ts';
import type { CommandContext } from './context.ts';
import { readDocument } from './document-file.ts';
import { table } from './output.ts';
import { rentalNumber } from './rent.ts';
import { ensureRentAgent } from './rent-agent.ts';
import { openWallet } from './secrets.ts';
import { openSession, type Session } from './session.ts';

/** Options of `millrace queue`. */
export interface QueueOptions {
  on?: string;
  output?: string;
  patience: string;
}

type Input = { path: string; digest: string };

/**
 * Runs the work of a queue's document in this wallet's rentals. Results lie in a folder, each once; the same command goes on after a break.
 * @throws bad-spec with line and field, queue-folder-taken, folder-busy, queue-stuck, queue-work-failed
 */
export async function queue(context: CommandContext, path: string, options: QueueOptions): Promise<void> {
  const document = parseQueue(readDocument(path));
  const folder = resolve(options.output ?? `${document.name}-results`);
  const patienceMs = parseDuration(options.patience) * 1000;
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const input = await inputOf(document, path);
  await ensureRentAgent(context, session);
  mkdirSync(folder, { recursive: true });
  // Apart from the results, whose names begin with a letter or a digit.
  const lock = lockFolder(join(folder, '.queue'));
  try {
    const wanted = options.on?.split(',').map(rentalNumber);
    const machines = machinesOf({ session, signer, wanted, input });
    const run: QueueRun = new QueueRun({
      work: document.work,
      results: openQueueResults(folder),
      machines,
      onEvent: (event) => tell(context, event, () => run.counts()),
      patienceMs,
    });
    const { done, failed } = run.counts();
    if (done + failed > 0) context.output.note(`${done + failed} of ${document.work.length} have their result in ${folder} already.`);
    report(context, { document, folder, results: await run.run(context.signal) });
  } finally {
    lock.release();
  }
}

/** The rentals that run now and whose machine says what it has; one machine for each, as long as its lease is the same. */
function machinesOf(given: {
  session: Session;
  signer: Awaited<ReturnType<typeof openWallet>>;
  wanted: readonly bigint[] | undefined;
  input: Input | undefined;
}): () => Promise<QueueMachine[]> {
  const { session, signer, wanted, input } = given;
  const known = new Map<bigint, QueueMachine>();
  return async () => {
    const rentals = await listRentals(session.client, signer.address);
    const running = rentals.filter(({ rentalId, state }) => state === 'running' && (wanted === undefined || wanted.includes(rentalId)));
    const leases = running.map(({ current }) => current);
    if (leases.some(({ leaseId }) => !known.has(leaseId))) {
      const offers = await listDeviceOffers(session.client);
      for (const { leaseId, deviceId } of leases.filter((each) => !known.has(each.leaseId))) {
        const described = offers.find((offer) => offer.deviceId === deviceId)?.document;
        if (described === undefined) continue;
        const { cpus, memoryBytes, diskBytes } = described;
        const capacity = { milliCpus: Math.floor(cpus * 1000), memoryBytes, diskBytes, gpus: 0 };
        const rental = await openRentalClient(session.client, { leaseId, signer });
        known.set(leaseId, rentalMachine({ rental, capacity, ...(input === undefined ? {} : { input }) }));
      }
    }
    return leases.flatMap(({ leaseId }) => known.get(leaseId) ?? []);
  };
}

/** The input with a digest of its archive, by which a machine knows whether it has it. */
async function inputOf({ input }: QueueDocument, document: string): Promise<Input | undefined> {
  if (input === undefined) return undefined;
  const path = resolve(document === '-' ? '.' : dirname(document), input);
  if (!existsSync(path)) {
    throw new MillraceError('source-missing', {
      actor: 'caller',
      message: `There is no ${path}, which the queue names as its input`,
      values: { path },
      hint: 'A path is relative to the document.',
    });
  }
  const count: CopyCount = { files: 0, sizeBytes: 0 };
  const hash = createHash('sha256');
  for await (const bytes of packArchive(path, 'input', count)) hash.update(bytes);
  return { path, digest: hash.digest('hex') };
}

function tell(context: CommandContext, event: QueueEvent, counts: () => ReturnType<QueueRun['counts']>): void {
  const { done, failed, running, waiting } = counts();
  const standing = `${done} done, ${failed} failed, ${running} running, ${waiting} waiting`;
  context.output.line({ ...event, counts: { done, failed, running, waiting } }, `${textOf(event)}  (${standing})`);
}

function textOf({ event, machine, work, attempt, machines, result }: QueueEvent): string {
  const on = machines === undefined ? '' : ` on rental ${machines.join(', ')}`;
  const again = attempt === undefined || attempt === 1 ? '' : `, attempt ${attempt}`;
  if (event === 'machine-joined') return `rental ${machine} joined`;
  if (event === 'machine-lost') return `rental ${machine} is lost: what ran there runs again elsewhere`;
  if (event === 'work-started') return `${work} began${on}${again}`;
  if (event === 'work-moved') return `${work} goes on${on}`;
  if (event === 'work-interrupted') return `${work} gives way and waits`;
  return `${work} ${result?.isDone ? 'done' : `FAILED (${reasonOf(result)})`} after ${result?.seconds} s`;
}

function reasonOf(result: WorkResult | undefined): string {
  if (result?.reason === 'exit') return `exit code ${result.exitCodes.find((code) => code !== 0)}`;
  return `${result?.reason}${result?.detail === undefined ? '' : `: ${result.detail}`}`;
}

function report(context: CommandContext, over: { document: QueueDocument; folder: string; results: WorkResult[] }): void {
  const { document, folder, results } = over;
  const failed = results.filter(({ isDone }) => !isDone);
  const counts = { done: results.length - failed.length, failed: failed.length };
  context.output.result({ event: 'queue-ended', name: document.name, folder, ...counts, items: results, next: null }, () => {
    const said = `${document.name}: ${counts.done} of ${results.length} done; results in ${folder}.`;
    if (failed.length === 0) return said;
    const rows = failed.map((result) => [result.id, reasonOf(result), String(result.attempt), result.machines.join(', ')]);
    return `${said}\n${table(['failed', 'why', 'attempt', 'rental'], rows)}`;
  });
  if (failed.length === 0) return;
  throw new MillraceError('queue-work-failed', {
    actor: 'caller',
    message: `${failed.length} of ${results.length} pieces of work failed`,
    values: { ...counts, first: failed[0]?.id },
    hint: `See stderr of each in ${folder}. What failed is done again when its folder there is removed.`,
  });
}
