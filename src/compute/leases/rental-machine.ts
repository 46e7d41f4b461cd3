import { createWriteStream, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { MillraceError } from '../../errors.ts';
import type { Load } from '../schedule/node-load.ts';
import type { QueueMachine, QueueMember } from '../schedule/queue-run.ts';
import { packArchive, unpackArchive } from './archive.ts';
import type { RentalClient } from './rental-client.ts';

/** A rental as a machine of a queue. */
export interface RentalMachineOptions {
  rental: RentalClient;
  capacity: Load;
  /** What every machine is given: a file or folder here, and a name for its content; it is sent again when the sandbox was made anew. */
  input?: { path: string; digest: string };
}

const OUTPUT_BYTES_MAX = 256 << 20;
const SAID_BYTES_MAX = 2_048;
const BUSY_PAUSE_MS = 1_000;
/** A machine would answer them all the same. */
const REFUSALS = new Set(['bad-command', 'bad-lease-call']);
const BASE = '/tmp/millrace-queue';
/** `$0` is the member's folder; the rest is the command. */
const RUN = 'mkdir -p "$0/output" && cd "$0" && exec "$@"';

/** Runs members of a queue in a rental, each in a folder of its own; their output comes back as it is printed, their files when they are done. */
export function rentalMachine({ rental, capacity, input }: RentalMachineOptions): QueueMachine {
  let providing: Promise<void> | undefined;
  const provide = async (signal: AbortSignal) => {
    if (input === undefined) return;
    // One at a time, and every time: a sandbox that was made anew has lost it.
    const before = providing ?? Promise.resolve();
    providing = before.catch(() => undefined).then(() => sendInput(rental, input, signal));
    await providing;
  };
  return {
    id: String(rental.leaseId),
    capacity,
    isUp: () => rental.probe(),
    async run(member, signal) {
      try {
        await provide(signal);
        return await runMember(rental, { member, input: input === undefined ? undefined : inputPlace(input), signal });
      } catch (error) {
        if (error instanceof MillraceError && REFUSALS.has(error.code)) throw refused(error);
        throw error;
      }
    },
  };
}

async function runMember(
  rental: RentalClient,
  { member, input, signal }: { member: QueueMember; input: string | undefined; signal: AbortSignal },
): Promise<number> {
  const { work, attempt, rank, folder } = member;
  const place = `${BASE}/${work.id}-${attempt}-${rank}`;
  const env = {
    ...work.env,
    QUEUE_WORK: work.id,
    QUEUE_ATTEMPT: String(attempt),
    QUEUE_OUTPUT: `${place}/output`,
    RANK: String(rank),
    WORLD_SIZE: String(work.machines),
    ...(input === undefined ? {} : { QUEUE_INPUT: input }),
  };
  const [out, err] = [fileFor(folder, 'stdout'), fileFor(folder, 'stderr')];
  try {
    const exitCode = await execPatiently(rental, { argv: ['/bin/sh', '-c', RUN, place, ...work.argv], env }, { out, err, signal });
    if (exitCode === undefined) throw sandboxEnded(rental);
    if (exitCode === 0 && work.hasOutputs) await fetchFiles(rental, { place, folder, signal });
    return exitCode;
  } finally {
    await Promise.all([out.end(), err.end()]);
    void rental.exec({ argv: ['rm', '-rf', '--', place] }, { stdout: () => {}, stderr: () => {} }).catch(() => undefined);
  }
}

/** Where too many commands run at one time, it waits for its turn. */
async function execPatiently(
  rental: RentalClient,
  command: { argv: string[]; env: Record<string, string> },
  { out, err, signal }: { out: OutputFile; err: OutputFile; signal: AbortSignal },
): Promise<number | undefined> {
  for (;;) {
    try {
      return await rental.exec(command, { stdout: out.write, stderr: err.write, signal });
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'workspace-busy') throw error;
      await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
      signal.throwIfAborted();
    }
  }
}

async function fetchFiles(
  rental: RentalClient,
  { place, folder, signal }: { place: string; folder: string; signal: AbortSignal },
): Promise<void> {
  const pieces = new PassThrough();
  const said = keepSaid();
  const command = { argv: ['tar', '-C', place, '-c', '-f', '-', '--', 'output'] };
  const write = async (bytes: Uint8Array) => {
    if (!pieces.write(bytes)) await new Promise((resolve) => pieces.once('drain', resolve).once('close', resolve));
  };
  const running = rental.exec(command, { stdout: write, stderr: said.hear, signal }).then(
    (code) => {
      if (code === 0) return void pieces.end();
      pieces.destroy(code === undefined ? sandboxEnded(rental) : cannot(`its files could not be fetched: ${said.text()}`));
    },
    (error: Error) => void pieces.destroy(error),
  );
  await unpackArchive(pieces, join(folder, 'files'));
  await running;
}

/** Sends the input unless the rental has it. */
async function sendInput(rental: RentalClient, input: { path: string; digest: string }, signal: AbortSignal): Promise<void> {
  const place = inputPlace(input);
  const said = keepSaid();
  const ask = (argv: string[], stdin?: AsyncIterable<Uint8Array>) =>
    rental.exec({ argv }, { stdin, stdout: said.hear, stderr: said.hear, signal });
  if ((await ask(['/bin/sh', '-c', 'test -e "$0.whole"', place])) === 0) return;
  const unpack = 'rm -rf -- "$0" && mkdir -p -- "$1" && tar -C "$1" -x -o -f - && touch "$0.whole"';
  const archive = packArchive(input.path, place.slice(BASE.length + 1), { files: 0, sizeBytes: 0 });
  const code = await ask(['/bin/sh', '-c', unpack, place, BASE], archive);
  if (code === undefined) throw sandboxEnded(rental);
  if (code !== 0) throw cannot(`rental ${rental.leaseId} did not take the input: ${said.text() || `exit code ${code}`}`);
}

const inputPlace = ({ digest }: { digest: string }) => `${BASE}/input-${digest.slice(0, 16)}`;

interface OutputFile {
  write: (bytes: Uint8Array) => Promise<void>;
  end: () => Promise<void>;
}

/** A file for what a command prints; more than 256 MiB are dropped. */
function fileFor(folder: string, name: string): OutputFile {
  mkdirSync(folder, { recursive: true });
  const stream = createWriteStream(join(folder, name));
  stream.on('error', () => {});
  let left = OUTPUT_BYTES_MAX;
  return {
    async write(bytes) {
      const piece = bytes.subarray(0, Math.max(0, left));
      left -= bytes.length;
      if (piece.length > 0 && !stream.write(piece))
        await new Promise<void>((resolve) => stream.once('drain', resolve).once('close', resolve));
    },
    end: () => new Promise((resolve) => stream.end(() => resolve())),
  };
}

function keepSaid(): { hear: (bytes: Uint8Array) => void; text: () => string } {
  let said = '';
  return {
    hear: (bytes) => {
      said = (said + Buffer.from(bytes).toString('utf8')).slice(-SAID_BYTES_MAX);
    },
    text: () => said.trim().slice(0, 300),
  };
}

function refused(cause: MillraceError): MillraceError {
  const { message, values, hint } = cause;
  return new MillraceError('work-refused', { actor: 'caller', message, values, hint, cause });
}

function cannot(reason: string): MillraceError {
  return new MillraceError('work-refused', {
    actor: 'caller',
    message: `Work of a queue cannot be run: ${reason.slice(0, 400)}`,
    values: { reason: reason.slice(0, 400) },
    hint: 'The rental needs /bin/sh and tar, and room in /tmp, which lies in its memory.',
  });
}

function sandboxEnded({ leaseId }: RentalClient): MillraceError {
  return new MillraceError('sandbox-ended', {
    actor: 'peer',
    message: `The sandbox of rental ${leaseId} ended under work of a queue`,
    values: { leaseId },
    hint: 'More memory was wanted than there is, more likely than not. It is made anew, and the work runs again.',
  });
}
