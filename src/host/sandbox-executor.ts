import { type ChildProcess, execFile, spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';
import { collectArtefacts } from './artefacts.ts';
import { type CgroupRoot, findCgroups, type JobCgroup } from './cgroup.ts';
import {
  checkJob,
  type Executor,
  type ExecutorReport,
  type ImageHold,
  imageUnknown,
  type Job,
  type JobLog,
  type JobResult,
  type RunOptions,
  refuseForeign,
  sandboxFailed,
} from './executor.ts';
import { type ImageLimits, ImageStore } from './image-store.ts';
import { JobWatch } from './job-watch.ts';
import { Loopback, type LoopbackEntrance } from './loopback.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import { HOLDER_SCRIPT, inheritedDescriptors, OPTIONS_FD, type SandboxFolders, STATUS_FD, sandboxOptions } from './sandbox-command.ts';
import { encodeFilter, jobFilter } from './seccomp-filter.ts';

/** Settings of the default engine. */
export interface SandboxOptions {
  /** Where images are kept. */
  imageFolder: string;
  imageLimits?: Partial<ImageLimits>;
  /** Of the disk, for all images that came for a time; 0: none stays unused. Left out: a quarter of what is free or theirs. */
  imageBytesMax?: number;
  /** The control groups to use; found when left out, none with `null`. */
  cgroups?: CgroupRoot | null;
}

const run = promisify(execFile);

const ETC: Record<string, string> = {
  passwd: 'root:x:0:0:root:/:/bin/false\njob:x:1000:1000:job:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n',
  group: 'root:x:0:\njob:x:1000:\nnogroup:x:65534:\n',
  hosts: '127.0.0.1 localhost job\n::1 localhost\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
};
/** Above what any login, service or container of a distribution is given (systemd's ranges end at 1,879,048,191). */
const JOB_UID_FIRST = 1_900_000_000;
const JOB_UIDS = 1 << 24;
/** The two processes of bubblewrap, and the shell that becomes it. */
const OWN_PROCESSES = 3;
const BYTES_PER_INODE = 4096;
const INODES_MIN = 256;
const INODES_MAX = 1 << 20;
const PROBE_TIMEOUT_MS = 5_000;
const PROBE_LIMITS = { memoryBytes: 64 << 20, cpus: 1, processes: 8, diskBytes: 1 << 20, wallSeconds: 10, outputBytes: 4096 };
const BLOCK_BYTES = 512;
const FILTER_FILE = 'system-calls.bpf';
/** For the kernel to end what was killed; then the engine itself has failed. */
const END_PATIENCE_MS = 30_000;

/**
 * The default engine: bubblewrap, control groups and a filter of system calls. It needs Debian's `bubblewrap` and `util-linux` alone, as root
 * or as an ordinary user where user namespaces are allowed. As root every job runs as a user of its own that owns nothing; as an
 * ordinary user it runs as that user, in namespaces where nothing of that user's is to be seen.
 */
export class SandboxExecutor implements Executor {
  readonly engine = 'bubblewrap';
  readonly #images: ImageStore;
  readonly #cgroups: CgroupRoot | undefined;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  #report: Promise<ExecutorReport> | undefined;
  #base: string | undefined;
  #count = 0;

  constructor(options: SandboxOptions) {
    this.#images = new ImageStore(options.imageFolder, { limits: options.imageLimits, bytesMax: options.imageBytesMax });
    this.#cgroups = options.cgroups === null ? undefined : (options.cgroups ?? findCgroups());
  }

  inspect(): Promise<ExecutorReport> {
    this.#report ??= this.#inspect();
    return this.#report;
  }

  importImage(path: string): Promise<string> {
    return this.#images.import(path);
  }

  holdImage(path: string): Promise<ImageHold> {
    return this.#images.hold(path);
  }

  checkImage(path: string): Promise<void> {
    return this.#images.check(path);
  }

  temporaryImages(): Promise<{ images: number; bytes: number }> {
    return this.#images.held();
  }

  async run(job: Job, options: RunOptions = {}): Promise<JobResult> {
    checkJob(job);
    if (job.trust === 'foreign') {
      const report = await this.inspect();
      if (!report.takesForeign) throw refuseForeign(report);
    }
    const running = this.#runInImage(job, options);
    this.#running.add(running);
    return await running.finally(() => this.#running.delete(running));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running);
    await this.#images.close();
    if (this.#base !== undefined) rmSync(this.#base, { recursive: true, force: true });
  }

  async #runInImage(job: Job, options: RunOptions): Promise<JobResult> {
    if (job.image === undefined) return await this.#run(job, undefined, options);
    const image = await this.#images.use(job.image);
    if (image === undefined) throw imageUnknown(job.image, this.engine);
    return await this.#run(job, image.root, options).finally(image.release);
  }

  async #run(job: Job, root: string | undefined, options: RunOptions): Promise<JobResult> {
    const { memoryBytes, cpus, processes } = job.limits;
    this.#count += 1;
    const folders = this.#makeFolders(String(this.#count));
    const cgroup = this.#cgroups?.create(String(this.#count), { memoryBytes, cpus, processes: processes + OWN_PROCESSES });
    const watch = new JobWatch(job.limits, options, this.#stop.signal);
    const holder = startHolder(job, { ...folders, root, input: job.inputFolder }, cgroup);
    try {
      return await this.#attend({ job, holder, cgroup, watch, disk: folders.disk, onLoopback: options.onLoopback });
    } finally {
      watch.end();
      await cgroup?.kill();
      await endHolder(holder);
      await cgroup?.remove();
      rmSync(folders.work, { recursive: true, force: true });
    }
  }

  async #attend(parts: {
    job: Job;
    holder: ChildProcess;
    cgroup: JobCgroup | undefined;
    watch: JobWatch;
    disk: string;
    onLoopback: RunOptions['onLoopback'];
  }): Promise<JobResult> {
    const { job, holder, cgroup, watch, disk, onLoopback } = parts;
    const status = readStatus(holder);
    const loopback = new Loopback(() => entranceOf(holder, status));
    void status.started.then((pid) => pid !== undefined && onLoopback?.(loopback));
    const kill = async () => {
      const pid = await status.started;
      if (pid !== undefined && !status.hasEnded()) holder.kill(0) && process.kill(pid, 'SIGKILL');
      await cgroup?.kill();
      setTimeout(() => holder.kill('SIGKILL'), END_PATIENCE_MS).unref();
    };
    watch.attend({
      stdout: holder.stdout as Readable,
      stderr: holder.stderr as Readable,
      kill: () => void kill().catch(() => {}),
      // Version 2 kills the whole group when memory ends; version 1 one process, whereupon the rest goes too.
      isOutOfMemory: () => (cgroup?.usage().memoryKills ?? 0) > 0,
    });
    const code = await status.ended;
    loopback.close();
    if (code === undefined) throw sandboxFailed(this.engine, `its holder ended early: ${watch.tail()}`);
    const usage = cgroup?.usage();
    const mounted = `/proc/${holder.pid}/root${disk}`;
    const { bavail, ffree } = statfsSync(mounted);
    const collect = () => collectArtefacts(`${mounted}/output`, job.artefactFolder, job.limits.diskBytes);
    return await watch.conclude({ code, usage, isDiskFull: bavail === 0 || ffree === 0, collect });
  }

  #makeFolders(name: string): { work: string; disk: string; etc: string } & Pick<SandboxFolders, 'disk'> {
    if (this.#base === undefined) {
      for (const each of readdirSync(tmpdir())) {
        const left = each.startsWith('millrace-') ? each.slice('millrace-'.length) : '';
        if (ownerIsGone(left)) rmSync(join(tmpdir(), each), { recursive: true, force: true });
      }
      this.#base = mkdtempSync(join(tmpdir(), `millrace-${ownerTag()}-`));
      // Others may pass, to the folders that they know; what matters lies in a mount namespace.
      chmodSync(this.#base, 0o711);
      mkdirSync(join(this.#base, 'etc'));
      writeFileSync(join(this.#base, FILTER_FILE), encodeFilter(jobFilter()));
      for (const [file, text] of Object.entries(ETC)) writeFileSync(join(this.#base, 'etc', file), text);
    }
    const work = join(this.#base, name);
    for (const folder of ['', 'disk', 'root', 'input', 'etc']) mkdirSync(join(work, folder));
    return { work, disk: join(work, 'disk'), etc: join(this.#base, 'etc') };
  }

  async #inspect(): Promise<ExecutorReport> {
    // What killed processes left; where it cannot be removed now, the next image that is released tries again.
    await this.#images.sweep().catch(() => undefined);
    const version = await run('bwrap', ['--version'], { timeout: PROBE_TIMEOUT_MS }).then(
      ({ stdout }) => stdout.trim(),
      () => undefined,
    );
    const missing: ExecutorReport['missing'] = [];
    if (version === undefined) missing.push({ what: 'bubblewrap is not installed', fix: 'apt-get install bubblewrap util-linux.' });
    else await this.#probe(missing);
    if (this.#cgroups === undefined) missing.push({ what: 'no control groups with memory, processes and processors', fix: cgroupFix() });
    const groups = this.#cgroups === undefined ? 'none' : `version ${this.#cgroups.version}`;
    return {
      engine: this.engine,
      version: version ?? 'none',
      takesForeign: missing.length === 0,
      missing,
      isolation: [
        'no network, no capabilities, no new privileges, no new namespaces',
        process.getuid?.() === 0 ? 'a user of its own that owns nothing' : 'the user of this node, in namespaces of its own',
        `memory, processors and processes by control groups (${groups})`,
        'everything written lies in a memory file system of the size of the disk limit',
      ],
    };
  }

  async #probe(missing: ExecutorReport['missing']): Promise<void> {
    let said = '';
    const onLog = ({ bytes }: JobLog) => {
      said += Buffer.from(bytes).toString('utf8');
    };
    const job: Job = { argv: ['/bin/sh', '-c', ':'], limits: PROBE_LIMITS, trust: 'own' };
    const result = await this.#run(job, undefined, { onLog }).catch((error: Error) => error);
    if (!(result instanceof Error) && result.reason === 'completed') return;
    const reason = result instanceof Error ? result.message : `${result.reason}: ${said.trim()}`;
    const fix =
      'Allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000 ' +
      '(those that exist). In a container: give it --security-opt seccomp=unconfined --cap-add SYS_ADMIN, or run the node outside.';
    missing.push({ what: `a sandbox does not start (${reason.slice(0, 300)})`, fix });
  }
}

function cgroupFix(): string {
  const uid = process.getuid?.() ?? 0;
  if (uid === 0) return 'Mount control groups writable: in a container, run it with --cgroupns=private and a writable /sys/fs/cgroup.';
  return (
    `Start the node with "systemd-run --user --scope -p Delegate=yes millrace …"; without systemd, as root once after each start: ` +
    `"for c in memory pids cpu cpuacct; do mkdir -p /sys/fs/cgroup/$c/millrace-${uid} && chown -R ${uid} /sys/fs/cgroup/$c/millrace-${uid}; done" (version 1).`
  );
}

function startHolder(job: Job, folders: SandboxFolders & { work: string }, cgroup: JobCgroup | undefined): ChildProcess {
  const isRoot = process.getuid?.() === 0;
  const uid = JOB_UID_FIRST + Math.floor(Math.random() * JOB_UIDS);
  // As root, another user's sandbox must reach what lies in folders closed to it; the mounts are made before root is given up.
  const binds = isRoot ? bindsOf(folders) : { pairs: [], inside: folders };
  const { diskBytes, memoryBytes } = job.limits;
  const inodes = Math.min(INODES_MAX, Math.max(INODES_MIN, Math.ceil(diskBytes / BYTES_PER_INODE)));
  const drop = ['setpriv', '--reuid', String(uid), '--regid', String(uid), '--clear-groups', '--no-new-privs', '--'];
  const enter = ['--mount', '--propagation', 'private', ...(isRoot ? [] : ['--user', '--map-root-user']), '--'];
  const inherited = inheritedDescriptors();
  const entrances = cgroup?.entrances ?? [];
  const filter = openSync(join(folders.work, '..', FILTER_FILE), 'r');
  const holder = spawn(
    'unshare',
    [
      ...[...enter, 'setpriv', '--pdeathsig', 'KILL', '--'],
      // The plain shell closes descriptors of one digit only.
      ...[
        ...(inherited.length === 0 ? ['/bin/sh'] : ['bash', '--norc', '--noprofile']),
        '-c',
        HOLDER_SCRIPT,
        'millrace-job',
        inherited.join(' '),
      ],
      ...[folders.disk, `size=${diskBytes},nr_inodes=${inodes},mode=0711,nosuid,nodev`, String(Math.ceil(diskBytes / BLOCK_BYTES))],
      // Without control groups one process at a time is held to the memory.
      ...[cgroup === undefined ? String(Math.ceil(memoryBytes / 1024)) : '0', String(binds.pairs.length / 2), ...binds.pairs],
      ...[String(entrances.length), ...entrances, ...(isRoot ? drop : [])],
      ...['bwrap', '--args', String(OPTIONS_FD), '--', ...job.argv],
    ],
    { stdio: ['pipe', 'pipe', 'pipe', 'pipe', filter, 'pipe'], env: { PATH: process.env.PATH, LANG: 'C.UTF-8' }, cwd: '/', detached: true },
  );
  closeSync(filter);
  holder.on('error', () => {});
  const stdio: readonly unknown[] = holder.stdio;
  for (const index of [0, OPTIONS_FD]) (stdio[index] as Writable | null)?.on('error', () => {});
  (stdio[OPTIONS_FD] as Writable | null)?.end(`${sandboxOptions(job, binds.inside).join('\0')}\0`);
  return holder;
}

/** The way into the network of a sandbox: through its first process, the only child of the bubblewrap that the holder started. */
async function entranceOf(holder: ChildProcess, status: HolderStatus): Promise<LoopbackEntrance | undefined> {
  const monitor = await status.started;
  const first = monitor === undefined ? undefined : childOf(monitor);
  if (monitor === undefined || first === undefined) return undefined;
  return {
    network: `/proc/${first}/ns/net`,
    user: process.getuid?.() === 0 ? undefined : `/proc/${holder.pid}/ns/user`,
    isStill: () => !status.hasEnded() && childOf(monitor) === first,
  };
}

function childOf(pid: number): number | undefined {
  try {
    const [first] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ');
    return Number(first) || undefined;
  } catch {
    return undefined;
  }
}

function bindsOf(folders: SandboxFolders & { work: string }): { pairs: string[]; inside: SandboxFolders } {
  const at = (name: string) => join(folders.work, name);
  const pairs = [
    ...(folders.root === undefined ? [] : [folders.root, at('root')]),
    ...(folders.input === undefined ? [] : [folders.input, at('input')]),
  ];
  return { pairs, inside: { ...folders, root: folders.root && at('root'), input: folders.input && at('input') } };
}

interface HolderStatus {
  /** The id of bubblewrap; undefined when it never came to that. */
  started: Promise<number | undefined>;
  /** Its exit code; undefined when the holder ended without one. */
  ended: Promise<number | undefined>;
  hasEnded(): boolean;
}

function readStatus(holder: ChildProcess): HolderStatus {
  let text = '';
  let isOver = false;
  const started = Promise.withResolvers<number | undefined>();
  const ended = Promise.withResolvers<number | undefined>();
  const output = holder.stdio[STATUS_FD] as Readable;
  output.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1');
    const pid = /^started (\d+)$/m.exec(text)?.[1];
    const code = /^ended (\d+)$/m.exec(text)?.[1];
    if (pid !== undefined) started.resolve(Number(pid));
    if (code === undefined) return;
    isOver = true;
    started.resolve(undefined);
    ended.resolve(Number(code));
  });
  const lost = () => {
    isOver = true;
    started.resolve(undefined);
    ended.resolve(undefined);
  };
  holder.once('error', lost);
  output.once('close', lost);
  return { started: started.promise, ended: ended.promise, hasEnded: () => isOver };
}

async function endHolder(holder: ChildProcess): Promise<void> {
  if (holder.pid === undefined || holder.exitCode !== null || holder.signalCode !== null) return;
  const gone = new Promise((resolve) => holder.once('exit', resolve));
  holder.stdin?.end();
  const timer = setTimeout(() => holder.kill('SIGKILL'), END_PATIENCE_MS);
  await gone;
  clearTimeout(timer);
}
