import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { basename, join, posix } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { type CopyCount, findRental, openRentalClient, packArchive, type RentalClient, unpackArchive } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { rentalNumber } from './rent.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';

/** Options of `millrace exec`. */
export interface ExecOptions {
  tty: boolean;
  interactive: boolean;
  workdir?: string;
  env: readonly string[];
}

const SANDBOX_ENDED = 137;
const SAID_BYTES_MAX = 4096;

/** Runs a command in a rental: its streams are this process's, and so is its exit code. Ctrl-C goes to it. */
export async function exec(context: CommandContext, text: string, argv: readonly string[], options: ExecOptions): Promise<void> {
  const rental = await reach(context, text);
  const terminal: Record<string, string> = options.tty && process.env.TERM !== undefined ? { TERM: process.env.TERM } : {};
  const command = { argv, env: { ...terminal, ...environmentOf(options.env) }, cwd: options.workdir, tty: options.tty };
  const isRaw = options.tty && options.interactive && process.stdin.isTTY;
  if (isRaw) process.stdin.setRawMode(true);
  const forward = new Map<NodeJS.Signals, () => void>();
  try {
    const exitCode = await rental.exec(command, {
      stdin: options.interactive ? process.stdin : undefined,
      // Until it runs, Ctrl-C ends this command; from then on it is the other one's.
      signal: context.signal,
      stdout: (bytes) => write(process.stdout, bytes),
      stderr: (bytes) => write(process.stderr, bytes),
      onStarted(signal) {
        process.removeAllListeners('SIGINT');
        for (const [name, short] of [
          ['SIGINT', 'INT'],
          ['SIGTERM', 'TERM'],
          ['SIGQUIT', 'QUIT'],
        ] as const) {
          const pass = () => void signal(short).catch(() => {});
          forward.set(name, pass);
          process.on(name, pass);
        }
      },
    });
    process.exit(exitCode ?? SANDBOX_ENDED);
  } finally {
    for (const [name, pass] of forward) process.off(name, pass);
    if (isRaw) process.stdin.setRawMode(false);
  }
}

/** Prints what the command that runs by itself in a rental printed; `lines` from the end, and with `follow` those that come. */
export async function rentalLogs(context: CommandContext, text: string, options: { follow: boolean; lines: string }): Promise<void> {
  const rental = await reach(context, text);
  let kept = '';
  for await (const bytes of rental.logs({ follow: false, signal: context.signal })) kept += Buffer.from(bytes).toString('utf8');
  const last = kept
    .split('\n')
    .slice(-(Number(options.lines) + 1))
    .join('\n');
  if (!options.follow) return context.output.result({ rentalId: text, text: last }, () => last.replace(/\n$/, ''));
  for await (const bytes of rental.logs({ follow: true, signal: context.signal })) await write(process.stdout, bytes);
}

/** Copies into a rental or out of it. */
export async function cp(context: CommandContext, from: string, to: string): Promise<void> {
  const [source, target] = [placeOf(from), placeOf(to)];
  if ((source.rental === undefined) === (target.rental === undefined)) {
    throw new MillraceError('bad-copy', {
      actor: 'caller',
      message: 'Expected one side of the copy to be RENTAL:PATH and the other a path of this machine',
      values: { from, to },
      hint: 'For example: millrace cp ./src 7:/tmp/src',
    });
  }
  const count =
    source.rental === undefined
      ? await copyIn(context, source.path, target as RemotePlace)
      : await copyOut(context, source as RemotePlace, target.path);
  context.output.result({ from, to, ...count }, () => `${count.files} files, ${formatSize(count.sizeBytes)}`);
}

interface RemotePlace {
  rental: string;
  path: string;
}

function placeOf(text: string): { rental: string | undefined; path: string } {
  const [, rental, path] = /^(\d{1,19}):(.+)$/s.exec(text) ?? [];
  return rental === undefined ? { rental: undefined, path: text } : { rental, path: path as string };
}

async function copyIn(context: CommandContext, path: string, target: RemotePlace): Promise<CopyCount> {
  if (!existsSync(path)) throw missing(path);
  const rental = await reach(context, target.rental);
  const isFolder = (await ask(rental, ['test', '-d', target.path])).exitCode === 0;
  const place = isFolder ? posix.join(target.path, basename(path)) : posix.normalize(target.path);
  const count: CopyCount = { files: 0, sizeBytes: 0 };
  const script = 'mkdir -p -- "$1" && exec tar -C "$1" -x -o -f -';
  const { exitCode, said } = await ask(
    rental,
    ['/bin/sh', '-c', script, 'cp', posix.dirname(place)],
    packArchive(path, posix.basename(place), count),
  );
  if (exitCode !== 0) throw copyFailed(said, exitCode);
  return count;
}

async function copyOut(context: CommandContext, source: RemotePlace, path: string): Promise<CopyCount> {
  const rental = await reach(context, source.rental);
  const name = posix.basename(posix.normalize(source.path));
  const target = existsSync(path) && statSync(path).isDirectory() ? join(path, name) : path;
  const pieces = new PassThrough();
  let said = '';
  const command = { argv: ['tar', '-C', posix.dirname(posix.normalize(source.path)), '-c', '-f', '-', '--', name] };
  const running = rental
    .exec(command, {
      stdout: (bytes) => write(pieces, bytes),
      stderr: (bytes) => {
        said = (said + Buffer.from(bytes).toString('utf8')).slice(0, SAID_BYTES_MAX);
      },
    })
    .then((exitCode) => {
      if (exitCode === 0) return void pieces.end();
      throw copyFailed(said, exitCode);
    })
    .catch((error: Error) => void pieces.destroy(error));
  const count = await unpackArchive(pieces, target);
  await running;
  return count;
}

/** Runs a small command and gives what it said. */
async function ask(
  rental: RentalClient,
  argv: readonly string[],
  stdin?: AsyncIterable<Uint8Array>,
): Promise<{ exitCode: number | undefined; said: string }> {
  let said = '';
  const hear = (bytes: Uint8Array) => {
    said = (said + Buffer.from(bytes).toString('utf8')).slice(0, SAID_BYTES_MAX);
  };
  return { exitCode: await rental.exec({ argv }, { stdin, stdout: hear, stderr: hear }), said };
}

async function reach(context: CommandContext, text: string): Promise<RentalClient> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const rental = await findRental(session.client, { renter: signer.address, leaseId: rentalNumber(text) });
  return openRentalClient(session.client, { leaseId: rental.current.leaseId, signer });
}

async function write(stream: NodeJS.WritableStream, bytes: Uint8Array): Promise<void> {
  if (!stream.write(bytes)) await once(stream as unknown as Readable, 'drain');
}

function environmentOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((text) => {
      const at = text.indexOf('=');
      if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
      throw new MillraceError('bad-option', {
        actor: 'caller',
        message: `Got "${text.slice(0, 60)}" for --env, expected NAME=VALUE`,
        values: { got: text.slice(0, 60) },
      });
    }),
  );
}

function missing(path: string): MillraceError {
  return new MillraceError('file-missing', { actor: 'caller', message: `There is no ${path}`, values: { path } });
}

function copyFailed(said: string, exitCode: number | undefined): MillraceError {
  return new MillraceError('copy-failed', {
    actor: 'peer',
    message: `The rental could not copy: ${said.trim().slice(0, 300) || `exit code ${exitCode ?? 'none'}`}`,
    values: { exitCode },
    hint: 'Is the path right, and is there room in the rental? Its image must have tar.',
  });
}
