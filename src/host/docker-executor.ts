import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { systemClock } from '../clock.ts';
import { identifyProcess } from '../process-identity.ts';
import { collectArtefacts } from './artefacts.ts';
import { type CgroupUsage, watchCgroupsOf } from './cgroup.ts';
import { type DockerOptions, findDockerSocket } from './docker.ts';
import { callEngine } from './docker-calls.ts';
import { DockerImages } from './docker-images.ts';
import {
  badJob,
  checkJob,
  type Executor,
  type ExecutorReport,
  environmentOf,
  type ImageHold,
  imageUnknown,
  type Job,
  type JobNetwork,
  type JobResult,
  type RunningJob,
  type RunOptions,
  refuseForeign,
  sandboxFailed,
} from './executor.ts';
import { JobWatch } from './job-watch.ts';
import { containerEntrance, Loopback } from './loopback.ts';
import { attachNetNamespace } from './net-namespace.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import { dockerFilter } from './seccomp-filter.ts';

const run = promisify(execFile);

const OWNER_LABEL = 'millrace.owner';
const JOB_UID_FIRST = 1_900_000_000;
const JOB_UIDS = 1 << 24;
const MOUNT_TIMEOUT_MS = 5_000;
const PAUSE_MEMORY_BYTES = 8 << 20;
const LOOKS = 10;
const LOOK_PAUSE_MS = 20;
/** What runc and crun say when the program itself is what is missing, not something of the machine. */
const NO_SUCH_PROGRAM = /exec: "|exec(utable file)? `[^`]*`|executable file .* not found/i;
/** What a shell answers when there is no such program. */
const NO_PROGRAM = 127;

/**
 * Containers through the Docker Engine API, of Docker or of Podman, on this machine. Images come from files, never from a registry, and are
 * known by the digest of the file. Whoever may speak to the socket rules the machine: the node that does is to be its owner's.
 */
export class DockerExecutor implements Executor {
  readonly engine: 'docker' | 'gvisor';
  readonly #docker: Docker;
  readonly #options: DockerOptions;
  readonly #images: DockerImages;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  #report: Promise<ExecutorReport> | undefined;
  #base: string | undefined;
  #count = 0;

  constructor(options: DockerOptions = {}) {
    this.#options = options;
    this.engine = options.runtime === 'runsc' ? 'gvisor' : 'docker';
    this.#docker = new Docker({ socketPath: options.socketPath ?? findDockerSocket() ?? '/run/docker.sock' });
    const { imageLimits: limits, imageFolder: folder, imageBytesMax: bytesMax } = options;
    this.#images = new DockerImages(this.#docker, { limits, folder, bytesMax });
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

  /**
   * Builds an image out of a context (a tar archive with a Dockerfile), without network and without a registry: `FROM scratch`, or from an image
   * that was imported, as `localhost/millrace:<hex digits of its digest>`.
   * @returns the digest of the context, by which jobs name the image
   * @throws bad-image
   */
  buildImage(contextPath: string): Promise<string> {
    return this.#images.build(contextPath);
  }

  hasImage(digest: string): Promise<boolean> {
    return this.#images.isForGood(digest);
  }

  /** A container that only waits holds the namespace, and the jobs' containers join it: the jobs of a rental come and go, its network stays. */
  async openNetwork(name: string): Promise<JobNetwork> {
    // What a killed process left is swept first: it may still hold the ports.
    await this.inspect();
    const image = await this.#images.pause();
    const container = await this.#call(this.#docker.createContainer(holderOf(name, image, this.#options.runtime)));
    const remove = () => container.remove({ force: true, v: true }).catch(() => {});
    try {
      await this.#call(container.start());
      const namespace = await attachNetNamespace(name, (await this.#call(container.inspect())).State.Pid);
      const close = async () => {
        await namespace.remove().catch(() => {});
        await remove();
      };
      return { namespace, holder: container.id, close };
    } catch (error) {
      await remove();
      throw sandboxFailed(this.engine, `the network of a rental could not be made: ${(error as Error).message}`, error);
    }
  }

  async run(job: Job, options: RunOptions = {}): Promise<JobResult> {
    checkJob(job);
    if (job.image === undefined) throw badJob('a container names its image');
    if (job.trust === 'foreign') {
      const report = await this.inspect();
      if (!report.takesForeign) throw refuseForeign(report);
    }
    const image = await this.#images.use(job.image);
    if (image === undefined) throw imageUnknown(job.image, this.engine);
    const running = this.#run(job, image.id, options).finally(image.release);
    this.#running.add(running);
    return await running.finally(() => this.#running.delete(running));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running);
    await this.#images.close();
    if (this.#base !== undefined) rmSync(this.#base, { recursive: true, force: true });
  }

  async #run(job: Job, image: string, options: RunOptions): Promise<JobResult> {
    const disk = await this.#makeDisk(job.limits.diskBytes);
    const watch = new JobWatch(job.limits, options, this.#stop.signal);
    let container: Docker.Container | undefined;
    try {
      container = await this.#call(
        this.#docker.createContainer(containerOf(job, { image, disk: disk.folder, runtime: this.#options.runtime })),
      );
      return await this.#attend({ job, container, watch, disk, options });
    } finally {
      watch.end();
      await container?.remove({ force: true, v: true }).catch(() => {});
      await disk.remove();
    }
  }

  async #attend(parts: { job: Job; container: Docker.Container; watch: JobWatch; disk: Disk; options: RunOptions }): Promise<JobResult> {
    const { job, container, watch, disk } = parts;
    const stream = await this.#call(container.attach({ stream: true, stdout: true, stderr: true }));
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    this.#docker.modem.demuxStream(stream, stdout, stderr);
    const closeBoth = () => {
      stdout.end();
      stderr.end();
    };
    stream.once('end', closeBoth).once('error', closeBoth).once('close', closeBoth);
    const waiting = container.wait({ condition: 'next-exit' });
    waiting.catch(() => {});
    let usage: CgroupUsage | undefined;
    let read: () => CgroupUsage | undefined = () => undefined;
    const sample = () => {
      usage = read() ?? usage;
      return usage;
    };
    const fault = await this.#call(container.start()).then(
      () => undefined,
      (error: Error) => error,
    );
    if (fault !== undefined) {
      closeBoth();
      if (!NO_SUCH_PROGRAM.test(fault.message)) {
        throw sandboxFailed(this.engine, fault.message, fault);
      }
      const collect = async () => ({ artefacts: [], refused: `the program cannot be started: ${job.argv[0]?.slice(0, 80)}` });
      watch.attend({ stdout, stderr, kill: () => {} });
      return await watch.conclude({ code: NO_PROGRAM, usage: undefined, isDiskFull: false, collect });
    }
    const { Pid: pid } = (await this.#call(container.inspect())).State;
    const { isHeld, usage: readUsage } = await inspectGroups(pid, job);
    if (isHeld) read = readUsage;
    sample();
    if (job.trust === 'foreign' && !isHeld) {
      const what = `${this.#options.runtime ?? 'the runtime'} did not put the job into control groups with its limits`;
      throw refuseForeign({ ...(await this.inspect()), missing: [{ what, fix: 'Let the engine and its runtime use control groups.' }] });
    }
    watch.attend({
      stdout,
      stderr,
      kill: () => {
        sample();
        void container.kill().catch(() => {});
      },
      isOutOfMemory: () => (sample()?.memoryKills ?? 0) > 0,
      isDiskFull: disk.isOver,
    });
    parts.options.onStarted?.(this.#runningJob(container));
    // gVisor has a network stack of its own, in which nothing of the kernel's is seen.
    const entrance = this.#options.runtime === 'runsc' ? undefined : containerEntrance({ id: container.id, pid });
    const loopback = new Loopback(async () => entrance);
    if (entrance !== undefined) parts.options.onLoopback?.(loopback);
    const { StatusCode: code } = (await waiting.finally(() => loopback.close())) as { StatusCode: number };
    const { State: state } = await this.#call(container.inspect());
    const kills = Math.max(usage?.memoryKills ?? 0, state.OOMKilled ? 1 : 0);
    const measured = { cpuMs: usage?.cpuMs, memoryBytesPeak: usage?.memoryBytesPeak, processesRefused: usage?.processesRefused ?? 0 };
    const collect = () => collectArtefacts(join(disk.folder, 'output'), job.artefactFolder, job.limits.diskBytes);
    return await watch.conclude({ code, usage: { ...measured, memoryKills: kills }, isDiskFull: disk.isFull(), collect });
  }

  #runningJob(container: Docker.Container): RunningJob {
    return {
      exec: async (argv, outputBytesMax) => {
        const command = await this.#call(container.exec({ Cmd: [...argv], AttachStdout: true, AttachStderr: true }));
        const stream = await this.#call(command.start({}));
        const [both, pieces] = [new PassThrough(), [] as Buffer[]];
        let left = outputBytesMax;
        both.on('data', (bytes: Buffer) => {
          if (left > 0) pieces.push(bytes.subarray(0, left));
          left -= bytes.length;
        });
        this.#docker.modem.demuxStream(stream, both, both);
        await new Promise<void>((resolve) =>
          stream
            .once('end', resolve)
            .once('error', () => resolve())
            .once('close', resolve),
        );
        const { ExitCode: exitCode } = await this.#call(command.inspect());
        return { exitCode: exitCode ?? NO_PROGRAM, output: Buffer.concat(pieces).toString('utf8') };
      },
    };
  }

  /** A memory file system of hard size where this process may mount one (as root); else a folder that is measured five times a second. */
  async #makeDisk(sizeBytes: number): Promise<Disk> {
    this.#base ??= await makeBase();
    this.#count += 1;
    const folder = join(this.#base, String(this.#count));
    mkdirSync(folder, { mode: 0o711 });
    const isMounted = process.getuid?.() === 0;
    const options = `size=${sizeBytes},nr_inodes=${Math.max(256, Math.ceil(sizeBytes / 4096))},mode=0711,nosuid,nodev`;
    if (isMounted) await run('mount', ['-t', 'tmpfs', '-o', options, 'millrace', folder], { timeout: MOUNT_TIMEOUT_MS });
    for (const name of ['output', 'tmp']) await run('mkdir', ['-m', '1777', join(folder, name)], { timeout: MOUNT_TIMEOUT_MS });
    let size = 0;
    const isFull = () => {
      if (!isMounted) return size > sizeBytes;
      const { bavail, ffree } = statfsSync(folder);
      return bavail === 0 || ffree === 0;
    };
    return {
      folder,
      isFull,
      isOver: () => {
        if (!isMounted) void sizeOf(folder).then((found) => (size = found));
        return !isMounted && isFull();
      },
      remove: async () => {
        if (isMounted) await run('umount', ['-l', folder], { timeout: MOUNT_TIMEOUT_MS }).catch(() => {});
        rmSync(folder, { recursive: true, force: true });
      },
    };
  }

  async #inspect(): Promise<ExecutorReport> {
    const report: ExecutorReport = { engine: this.engine, version: 'none', takesForeign: false, missing: [], isolation: [] };
    const info = await this.#call(this.#docker.info()).catch((error: Error) => error);
    if (info instanceof Error) {
      report.missing.push({
        what: `no engine answers (${info.message})`,
        fix: 'Start Docker or Podman, and let this user speak to its socket.',
      });
      return report;
    }
    report.version = `${info.ServerVersion} (API ${(await this.#call(this.#docker.version())).ApiVersion})`;
    const security: string[] = info.SecurityOptions ?? [];
    const lacks = [
      [info.MemoryLimit, 'limits of memory'],
      [info.PidsLimit, 'limits of processes'],
      [info.CpuCfsQuota ?? info.CPUCfsQuota, 'limits of processors'],
      [security.some((each) => each.includes('seccomp')) || this.#options.runtime === 'runsc', 'filters of system calls'],
    ].filter(([isThere]) => isThere !== true);
    for (const [, what] of lacks)
      report.missing.push({ what: `the engine has no ${what}`, fix: 'Give the engine control groups and a kernel with seccomp.' });
    const { runtime } = this.#options;
    if (runtime !== undefined && info.Runtimes?.[runtime] === undefined) {
      report.missing.push({
        what: `the engine has no runtime ${runtime}`,
        fix: `Install it and name it in the engine's settings (--add-runtime ${runtime}=…).`,
      });
    }
    await this.#sweep();
    // Where they cannot be removed now, the next image that is released tries again.
    await this.#images.sweep().catch(() => undefined);
    const hasUsers = security.some((each) => /name=(userns|rootless)/.test(each));
    report.isolation = [
      'no network, no capabilities, no new privileges, a read-only root',
      hasUsers
        ? 'a user namespace of the engine'
        : 'a user of its own that owns nothing; no user namespace (start the engine with --userns-remap for one)',
      runtime === undefined ? 'the kernel of this machine, behind a filter of system calls' : `the runtime ${runtime}`,
      process.getuid?.() === 0
        ? 'everything written lies in a memory file system of the size of the disk limit'
        : 'what is written is measured five times a second',
    ];
    report.takesForeign = report.missing.length === 0;
    return report;
  }

  /** Containers of processes that were killed. */
  async #sweep(): Promise<void> {
    const containers = await this.#call(this.#docker.listContainers({ all: true, filters: JSON.stringify({ label: [OWNER_LABEL] }) }));
    for (const { Id, Labels } of containers) {
      if (ownerIsGone(Labels[OWNER_LABEL] ?? ''))
        await this.#docker
          .getContainer(Id)
          .remove({ force: true, v: true })
          .catch(() => {});
    }
  }

  #call<T>(answer: Promise<T>): Promise<T> {
    return callEngine(answer);
  }
}

/**
 * Whether the control groups of a container hold its job to its limits. One that has just ended was held by nobody's word but the engine's;
 * in the middle of its end a process is in no group of its own any more, so a doubt is looked at again.
 */
async function inspectGroups(pid: number, { limits }: Job): Promise<{ isHeld: boolean; usage: () => CgroupUsage | undefined }> {
  for (let look = 1; ; look += 1) {
    const groups = watchCgroupsOf(pid);
    if (groups.holdTo(limits)) return { isHeld: true, usage: groups.usage };
    if (identifyProcess(pid) === undefined) return { isHeld: true, usage: () => undefined };
    if (look === LOOKS) return { isHeld: false, usage: () => undefined };
    await systemClock.sleep(LOOK_PAUSE_MS);
  }
}

interface Disk {
  folder: string;
  isFull(): boolean;
  /** For disks without a hard size: whether it has grown beyond its limit. */
  isOver(): boolean;
  remove(): Promise<void>;
}

async function makeBase(): Promise<string> {
  const prefix = 'millrace-docker-';
  for (const name of readdirSync(tmpdir()).filter((each) => each.startsWith(prefix) && ownerIsGone(each.slice(prefix.length)))) {
    const left = join(tmpdir(), name);
    for (const each of readdirSync(left)) await run('umount', ['-l', join(left, each)], { timeout: MOUNT_TIMEOUT_MS }).catch(() => {});
    rmSync(left, { recursive: true, force: true });
  }
  return mkdtempSync(join(tmpdir(), `${prefix}${ownerTag()}-`));
}

function holderOf(name: string, image: string, runtime: string | undefined): Docker.ContainerCreateOptions {
  return {
    Image: image,
    Entrypoint: ['/pause'],
    User: `${JOB_UID_FIRST}:${JOB_UID_FIRST}`,
    Hostname: name,
    Labels: { [OWNER_LABEL]: ownerTag() },
    HostConfig: {
      NetworkMode: 'none',
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges', `seccomp=${JSON.stringify(dockerFilter())}`],
      Memory: PAUSE_MEMORY_BYTES,
      MemorySwap: PAUSE_MEMORY_BYTES,
      PidsLimit: 1,
      IpcMode: 'private',
      LogConfig: { Type: 'none', Config: {} },
      ...(runtime === undefined ? {} : { Runtime: runtime }),
    },
  };
}

function containerOf(job: Job, place: { image: string; disk: string; runtime: string | undefined }): Docker.ContainerCreateOptions {
  const { limits, argv, rental } = job;
  const user = JOB_UID_FIRST + Math.floor(Math.random() * JOB_UIDS);
  const input = job.inputFolder === undefined ? [] : [`${job.inputFolder}:/input:ro`];
  const mounts = (rental?.mounts ?? []).map(({ from, at, isWritable }) => `${from}:${at}:${isWritable ? 'rw' : 'ro'}`);
  return {
    Image: place.image,
    Entrypoint: [argv[0] as string],
    Cmd: argv.slice(1),
    Env: Object.entries(environmentOf(job)).map(([name, value]) => `${name}=${value}`),
    User: `${user}:${user}`,
    WorkingDir: '/tmp',
    // One that joins another's network has its name too.
    ...(rental === undefined ? { Hostname: 'job', NetworkDisabled: true } : {}),
    Labels: { [OWNER_LABEL]: ownerTag() },
    HostConfig: {
      NetworkMode: rental === undefined ? 'none' : `container:${rental.network.holder}`,
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges', `seccomp=${JSON.stringify(dockerFilter())}`],
      Memory: limits.memoryBytes,
      MemorySwap: limits.memoryBytes,
      NanoCpus: Math.round(limits.cpus * 1e9),
      PidsLimit: limits.processes,
      OomScoreAdj: 1000,
      IpcMode: 'private',
      ShmSize: limits.diskBytes,
      Binds: [`${join(place.disk, 'output')}:/output:rw`, `${join(place.disk, 'tmp')}:/tmp:rw`, ...input, ...mounts],
      LogConfig: { Type: 'none', Config: {} },
      Ulimits: [
        { Name: 'core', Soft: 0, Hard: 0 },
        { Name: 'nofile', Soft: 4096, Hard: 4096 },
        { Name: 'fsize', Soft: limits.diskBytes, Hard: limits.diskBytes },
      ],
      ...(place.runtime === undefined ? {} : { Runtime: place.runtime }),
    },
  };
}

/** Bytes that files take on the disk. */
async function sizeOf(folder: string): Promise<number> {
  let sum = 0;
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name);
    const stats = await lstat(path).catch(() => undefined);
    sum += stats?.isDirectory() ? await sizeOf(path) : (stats?.blocks ?? 0) * 512;
  }
  return sum;
}
