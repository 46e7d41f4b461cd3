import { spawn } from 'node:child_process';
import { MillraceError } from '../errors.ts';

/** How a program of the system is called. */
export interface RunProgramOptions {
  /** Written to its standard input, which is then closed. Secrets go here, never into the arguments, where every user sees them. */
  input?: string;
  /** Default 10,000. */
  timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 1 << 20;
const SHOWN = 500;

/**
 * Runs a program of the system (`ip`, `wg`, `nsenter`) to its end, and gives what it printed on standard output.
 * @throws program-missing, program-failed
 */
export function runProgram(command: string, args: readonly string[], options: RunProgramOptions = {}): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const child = spawn(command, [...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: options.timeoutMs ?? TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (bytes: Buffer) => {
    if (stdout.length < OUTPUT_BYTES_MAX) stdout += bytes.toString('utf8');
  });
  child.stderr.on('data', (bytes: Buffer) => {
    stderr = (stderr + bytes.toString('utf8')).slice(-SHOWN);
  });
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  child.once('error', (cause) => reject(programMissing(command, cause)));
  child.once('close', (code, signal) => {
    if (code === 0) return resolve(stdout);
    reject(programFailed({ command, args, code: code ?? signal ?? 'none', stderr: stderr.trim() }));
  });
  return promise;
}

function programMissing(command: string, cause: Error): MillraceError {
  return new MillraceError('program-missing', {
    actor: 'host',
    message: `The program ${command} cannot be started: ${cause.message}`,
    values: { command },
    hint: 'Install it: apt-get install iproute2 util-linux wireguard-tools wireguard-go.',
    cause,
  });
}

function programFailed({
  command,
  args,
  code,
  stderr,
}: {
  command: string;
  args: readonly string[];
  code: number | string;
  stderr: string;
}) {
  return new MillraceError('program-failed', {
    actor: 'host',
    message: `${command} ${args.join(' ').slice(0, SHOWN)} ended with ${code}: ${stderr}`,
    values: { command, code: String(code), stderr },
    hint: 'Networks of rentals are made as root, with Debian’s iproute2 and wireguard-tools.',
  });
}
