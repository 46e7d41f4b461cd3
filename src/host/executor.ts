import type { Socket } from 'node:net';
import { MillraceError } from '../errors.ts';
import type { NetNamespace } from './net-namespace.ts';

/** What a job may use at most. Every engine enforces every one of them, or refuses jobs of strangers. */
export interface JobLimits {
  /** Memory of all its processes together, with what it writes to its folders where these lie in memory. */
  memoryBytes: number;
  /** Processor time per second of time: 1 is one core, 0.5 half of one. */
  cpus: number;
  /** Processes and threads at one time. */
  processes: number;
  /** All that it writes: artefacts and `/tmp` together. */
  diskBytes: number;
  /** Seconds from its start until it is killed. */
  wallSeconds: number;
  /** Standard output and standard error together. */
  outputBytes: number;
}

/** Something to run: a command in an image, or in the software of this machine, with a folder to read and a folder to write. */
export interface Job {
  /** Digest of an image that was imported (`sha256:…`); left out: the software of this machine (bubblewrap only). */
  image?: string;
  /** Program and arguments. */
  argv: readonly string[];
  /** The whole environment, but for PATH, HOME, LANG and TMPDIR, which stand unless given. */
  env?: Readonly<Record<string, string>>;
  /** Seen by the job as `/input`, read-only. */
  inputFolder?: string;
  /** Where its artefacts are put, each under its CID; left out: what it writes to `/output` is dropped. */
  artefactFolder?: string;
  limits: JobLimits;
  /** What it has in common with the other jobs of a rental; left out: it has no network, and no folder that outlives it. */
  rental?: JobRental;
  /** `foreign`: written by somebody whom the owner of this machine does not know. */
  trust: 'own' | 'foreign';
}

/** A network of one rental on this machine: in it are the interfaces that the caller moves there, and nothing else. */
export interface JobNetwork {
  /** The namespace, by its name and by the file through which a process enters it. */
  namespace: NetNamespace;
  /** The container that holds it, for engines whose containers join one another. */
  holder: string | undefined;
  /** Ends it; jobs that are still in it lose it. */
  close(): Promise<void>;
}

/** A file or folder of this machine, and where the jobs of a rental see it. */
export interface JobMount {
  from: string;
  /** An absolute path. */
  at: string;
  isWritable: boolean;
}

/** What the jobs of one rental on this machine have in common. */
export interface JobRental {
  network: JobNetwork;
  mounts: readonly JobMount[];
}

/**
 * How a job ended. `completed`: exit code 0. `failed`: another exit code. `signalled`: a signal that no limit explains. The others name the
 * limit that was hit by a job that did not complete; `cancelled` is the caller's own wish, `artefacts-refused` a forbidden kind or size of file.
 */
export type JobReason =
  | 'completed'
  | 'failed'
  | 'signalled'
  | 'memory-exceeded'
  | 'processes-exceeded'
  | 'disk-exceeded'
  | 'wall-exceeded'
  | 'output-exceeded'
  | 'artefacts-refused'
  | 'cancelled';

/** What a job used, as its engine measured it; undefined where the engine cannot tell. */
export interface JobUsage {
  wallMs: number;
  cpuMs: number | undefined;
  /** The most memory that it held at one time. */
  memoryBytesPeak: number | undefined;
  /** How often a new process was refused. */
  processesRefused: number | undefined;
  outputBytes: number;
}

/** A file that a job left in `/output`, named by its content. */
export interface Artefact {
  /** Relative to `/output`, parts joined by `/`. */
  path: string;
  /** CIDv1, raw, SHA-256 of the whole file. */
  cid: string;
  sizeBytes: number;
}

/** What came of a job. */
export interface JobResult {
  reason: JobReason;
  /** Undefined when a signal ended it. */
  exitCode: number | undefined;
  /** Number of the signal that ended it. */
  signal: number | undefined;
  usage: JobUsage;
  artefacts: Artefact[];
  /** More about the reason, for people: what was refused, which limit. */
  detail: string | undefined;
}

/** A piece of what a job printed. */
export interface JobLog {
  stream: 'stdout' | 'stderr';
  bytes: Uint8Array;
}

/** Who watches a job. */
export interface RunOptions {
  /** Called for each piece, in order per stream, until the limit of output. */
  onLog?: (piece: JobLog) => void;
  /** Ends the job; its result says `cancelled`. */
  signal?: AbortSignal;
  /** Called when its program runs, by engines that can run another command beside it. */
  onStarted?: (running: RunningJob) => void;
  /** Called when its processes run, by engines that can enter the network of a job of their own. */
  onLoopback?: (loopback: JobLoopback) => void;
}

/** The loopback of a running job, as this machine reaches it; what is in the job reaches nothing by it. */
export interface JobLoopback {
  /**
   * Connects to what listens at a TCP port in the job, at 127.0.0.1 or ::1. Either side may end first (half-open); the job's end cuts it.
   * @throws port-refused when nothing answers there, loopback-failed when its network cannot be entered, loopback-closed when the job has ended
   */
  connect(port: number): Promise<Socket>;
}

/** A job whose program runs. */
export interface RunningJob {
  /**
   * Runs a command within the job: its files, its limits, its network, its user. What it prints is cut at `outputBytesMax`.
   * @returns exit code and both streams as one
   */
  exec(argv: readonly string[], outputBytesMax: number): Promise<{ exitCode: number; output: string }>;
}

/** What an engine can hold to on this machine. */
export interface ExecutorReport {
  engine: string;
  version: string;
  /** Whether jobs of strangers are taken: every limit is enforceable. */
  takesForeign: boolean;
  /** What is missing for that, each with how to mend it. */
  missing: { what: string; fix: string }[];
  /** How each promise is kept here, for people. */
  isolation: string[];
}

/** An image that is there until it is released, and while a job runs in it. */
export interface ImageHold {
  digest: string;
  /** Once is enough. Never throws: what cannot be removed now goes when the next one is released. */
  release(): Promise<void>;
}

/** Something that runs jobs. One suite, `executor.cases.ts`, holds for every engine. */
export interface Executor {
  readonly engine: 'bubblewrap' | 'wasm' | 'docker' | 'gvisor' | 'swarm' | 'kubernetes';
  /** What it can hold to here; found out once. */
  inspect(): Promise<ExecutorReport>;
  /**
   * Takes an image from a file (a tar archive of a root file system; for `wasm` a module), without any registry, for good; the same file twice is one.
   * @returns its digest, `sha256:…`
   * @throws bad-image
   */
  importImage(path: string): Promise<string>;
  /**
   * Takes an image that came with somebody's work for as long as it is held; afterwards it may go, unless it was imported before or is later. Ask
   * `holdImage`, for engines without the method keep all images.
   * @throws bad-image, image-over-bound, images-full
   */
  holdImage?(path: string): Promise<ImageHold>;
  /** Reads whether an image could ever be held here. @throws bad-image, image-over-bound */
  checkImage?(path: string): Promise<void>;
  /** What images that may go take of the disk. */
  temporaryImages?(): Promise<{ images: number; bytes: number }>;
  /** Whether it has an image for good, by its digest; engines without the method find out when a job is run. */
  hasImage?(digest: string): Promise<boolean>;
  /**
   * Makes the network of a rental, for jobs that name it; engines without the method give no job a network. As root only.
   * @param name of the namespace: small letters, digits and hyphens, at most 40
   * @throws sandbox-failed, program-missing, program-failed
   */
  openNetwork?(name: string): Promise<JobNetwork>;
  /**
   * Runs a job to its end, whatever that is; the machine is as before when the promise settles.
   * @throws bad-job, image-unknown, foreign-job-refused, sandbox-failed
   */
  run(job: Job, options?: RunOptions): Promise<JobResult>;
  /** Ends all its jobs and removes what it left. */
  close(): Promise<void>;
}

/**
 * Has an image in an engine for as long as it is held; in one that forgets none, for good.
 * @throws bad-image, image-over-bound, images-full
 */
export async function holdImage(executor: Executor, path: string): Promise<ImageHold> {
  if (executor.holdImage !== undefined) return await executor.holdImage(path);
  return { digest: await executor.importImage(path), release: async () => {} };
}

const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const ARGUMENT_BYTES_MAX = 64 << 10;
const BOUNDS: Record<keyof JobLimits, { least: number; greatest: number }> = {
  memoryBytes: { least: 4 << 20, greatest: 2 ** 42 },
  cpus: { least: 0.01, greatest: 1024 },
  processes: { least: 1, greatest: 1 << 20 },
  diskBytes: { least: 4096, greatest: 2 ** 44 },
  // A timer holds less than 25 days.
  wallSeconds: { least: 0.01, greatest: 24 * 86_400 },
  outputBytes: { least: 0, greatest: 2 ** 32 },
};

/**
 * Refuses a job that no engine could run as it stands.
 * @throws bad-job
 */
export function checkJob(job: Job): void {
  for (const [name, { least, greatest }] of Object.entries(BOUNDS) as [keyof JobLimits, { least: number; greatest: number }][]) {
    const value = job.limits[name];
    if (!(value >= least && value <= greatest)) throw badJob(`limits.${name} is ${value}, allowed are ${least} to ${greatest}`);
  }
  const words = [...job.argv, ...Object.values(job.env ?? {})];
  if (job.argv.length === 0 || job.argv[0] === '') throw badJob('argv names no program');
  if (words.some((word) => word.includes('\0'))) throw badJob('argv or env holds a zero byte');
  if (words.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0) > ARGUMENT_BYTES_MAX) {
    throw badJob(`argv and env have more than ${ARGUMENT_BYTES_MAX} bytes; put them into a file of the input`);
  }
  const name = Object.keys(job.env ?? {}).find((each) => !NAME.test(each));
  if (name !== undefined) throw badJob(`env holds the name ${JSON.stringify(name.slice(0, 80))}`);
  if (job.image !== undefined && !/^sha256:[0-9a-f]{64}$/.test(job.image))
    throw badJob('image is no digest of the form sha256:<64 hex digits>');
}

/** The environment of a job: its own above what every job has. */
export function environmentOf(job: Job): Record<string, string> {
  return { PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', HOME: '/tmp', TMPDIR: '/tmp', LANG: 'C.UTF-8', ...job.env };
}

/** The typed error of a job that did not complete; undefined for one that did. */
export function errorOfResult(result: JobResult): MillraceError | undefined {
  if (result.reason === 'completed') return undefined;
  const { reason, exitCode, signal, detail } = result;
  return new MillraceError('job-ended', {
    actor: 'caller',
    message: `The job did not complete: ${reason}${detail === undefined ? '' : ` (${detail})`}`,
    values: { reason, exitCode, signal, wallMs: Math.round(result.usage.wallMs), memoryBytesPeak: result.usage.memoryBytesPeak },
    hint: HINTS[reason],
  });
}

const HINTS: Record<Exclude<JobReason, 'completed'>, string> = {
  failed: 'Read the log of the job: its own program ended with that exit code.',
  signalled: 'Read the log of the job: its own program was ended by that signal.',
  'memory-exceeded': 'Ask for more memory, or let the job use less; what it writes counts as memory too.',
  'processes-exceeded': 'Ask for more processes, or let the job start fewer.',
  'disk-exceeded': 'Ask for more disk, or let the job write less.',
  'wall-exceeded': 'Ask for more time.',
  'output-exceeded': 'Write to a file in /output instead of printing.',
  'artefacts-refused': 'Leave plain files with plain names in /output: no links, devices, sockets or files larger than the limit.',
  cancelled: 'Run it again when it is wanted.',
};

/** @throws foreign-job-refused when the engine cannot hold to every limit on this machine. */
export function refuseForeign(report: ExecutorReport): MillraceError {
  return new MillraceError('foreign-job-refused', {
    actor: 'host',
    message: `This machine cannot hold a stranger's job to its limits with ${report.engine}: ${report.missing.map(({ what }) => what).join('; ')}`,
    values: { engine: report.engine, missing: report.missing.map(({ what }) => what) },
    hint: report.missing.map(({ fix }) => fix).join(' '),
  });
}

/** A job that cannot be run as it stands. */
export function badJob(reason: string): MillraceError {
  return new MillraceError('bad-job', {
    actor: 'caller',
    message: `The job cannot be run: ${reason}`,
    values: { reason },
    hint: 'Correct the specification of the job.',
  });
}

/** An image that this engine does not have. */
export function imageUnknown(image: string, engine: string): MillraceError {
  return new MillraceError('image-unknown', {
    actor: 'caller',
    message: `The engine ${engine} has no image ${image}`,
    values: { image, engine },
    hint: 'Import the image first; images are known by their digest alone.',
  });
}

/** A file that is no image for this engine. */
export function badImage(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-image', {
    actor: 'caller',
    message: `The image cannot be used: ${reason}`,
    values: { reason },
    hint: 'Give a plain tar archive of a root file system (docker export, debootstrap), or a WebAssembly module.',
    cause,
  });
}

/** The engine itself failed, not the job. */
export function sandboxFailed(engine: string, reason: string, cause?: unknown): MillraceError {
  return new MillraceError('sandbox-failed', {
    actor: 'host',
    message: `The engine ${engine} could not run the job: ${reason}`,
    values: { engine, reason },
    hint: 'Run "millrace doctor"; the job was not run and may go to another machine.',
    cause,
  });
}
