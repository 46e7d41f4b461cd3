import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createReadStream, mkdirSync, rmSync, statfsSync } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { systemClock } from '../clock.ts';
import { collectArtefacts } from './artefacts.ts';
import {
  badImage,
  badJob,
  checkJob,
  type Executor,
  type ExecutorReport,
  environmentOf,
  imageUnknown,
  type Job,
  type JobResult,
  type RunOptions,
  refuseForeign,
  sandboxFailed,
} from './executor.ts';
import { checkArchive, digestOf } from './image-store.ts';
import { JobWatch } from './job-watch.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';
import type { SwarmOptions } from './swarm.ts';

const run = promisify(execFile);

const OWNER_LABEL = 'millrace.owner';
const REPOSITORY = 'localhost/millrace';
const JOB_UID_FIRST = 1_900_000_000;
const JOB_UIDS = 1 << 24;
const POLL_MS = 150;
const SILENCE_MS = 400;
const MANAGER_PATIENCE_MS = 60_000;
const COPY_TIMEOUT_MS = 60_000;
const BLOCK_BYTES = 4096;
const NOT_FOUND = 404;
/** What a shell answers when there is no such program. */
const NO_PROGRAM = 127;
const KILLED = 137;
const STARTED = new Set(['running', 'complete', 'failed']);
const OVER = new Set(['complete', 'failed', 'rejected', 'orphaned', 'remove']);

interface Task {
  ID: string;
  NodeID?: string;
  CreatedAt: string;
  DesiredState: string;
  Status: { State: string; Err?: string; ContainerStatus?: { ContainerID?: string; ExitCode?: number } };
}

interface Place {
  service: Docker.Service | undefined;
  /** Makes the job anew. */
  start(): Promise<Docker.Service>;
}

/**
 * A farm: one owner's machines under Docker Swarm, seen as one engine. The swarm chooses the machine of a job; when that is lost the job
 * begins anew on another one. Managers and machines trust one another, so a farm belongs to one owner. What the API of services cannot say (a filter of system calls,
 * no new privileges) is to be the default of the engines themselves; `inspect` looks for it. Input and artefacts pass through a folder that lies
 * at the same path on all machines; what is written there is measured, not held by the kernel.
 */
export class SwarmExecutor implements Executor {
  readonly engine = 'swarm';
  readonly #options: SwarmOptions;
  readonly #engines: Docker[];
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Of its services and folders; a process may have several farms. */
  readonly #name = `${ownerTag()}-${randomBytes(4).toString('hex')}`;
  #report: Promise<ExecutorReport> | undefined;
  #count = 0;

  constructor(options: SwarmOptions) {
    this.#options = options;
    this.#engines = options.sockets.map((socketPath) => new Docker({ socketPath, timeout: 60_000 }));
  }

  inspect(): Promise<ExecutorReport> {
    this.#report ??= this.#inspect();
    return this.#report;
  }

  async importImage(path: string): Promise<string> {
    await checkArchive(path);
    const digest = await digestOf(path);
    await Promise.all(this.#engines.map((engine) => importInto(engine, path, digest)));
    return digest;
  }

  async run(job: Job, options: RunOptions = {}): Promise<JobResult> {
    checkJob(job);
    if (job.image === undefined) throw badJob('a container names its image');
    if (job.rental !== undefined) throw badJob('a farm has no networks of rentals');
    if (job.trust === 'foreign') {
      const report = await this.inspect();
      if (!report.takesForeign) throw refuseForeign(report);
    }
    if (!(await hasImage(this.#manager, job.image))) throw imageUnknown(job.image, this.engine);
    const running = this.#run(job, options);
    this.#running.add(running);
    return await running.finally(() => this.#running.delete(running));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running);
    rmSync(this.#ownFolder, { recursive: true, force: true });
  }

  get #manager(): Docker {
    return this.#engines[0] as Docker;
  }

  get #ownFolder(): string {
    return join(this.#options.sharedFolder, this.#name);
  }

  async #run(job: Job, options: RunOptions): Promise<JobResult> {
    this.#count += 1;
    const number = this.#count;
    const folder = join(this.#ownFolder, String(number));
    mkdirSync(folder, { recursive: true, mode: 0o711 });
    const release = await this.#options.holdFolder?.(folder, job.limits.diskBytes);
    for (const name of ['output', 'tmp']) await run('mkdir', ['-m', '1777', join(folder, name)]);
    const input = job.inputFolder === undefined ? undefined : `${folder}-input`;
    if (input !== undefined) await run('cp', ['-a', job.inputFolder as string, input], { timeout: COPY_TIMEOUT_MS });
    const watch = new JobWatch(job.limits, options, this.#stop.signal);
    let tries = 0;
    // Swarm does not run a job again whose machine was lost (tried with 20.10): it is made anew here.
    const start = async () => {
      tries += 1;
      const name = `millrace-${this.#name}-${number}-${tries}`;
      return this.#manager.getService((await this.#manager.createService(serviceOf(job, { folder, input, name }))).id);
    };
    const place: Place = { service: undefined, start };
    try {
      place.service = await start();
      return await this.#attend({ job, place, watch, folder });
    } finally {
      watch.end();
      await place.service?.remove().catch(() => {});
      await release?.();
      for (const each of [folder, `${folder}-input`]) rmSync(each, { recursive: true, force: true });
    }
  }

  async #attend(parts: { job: Job; place: Place; watch: JobWatch; folder: string }): Promise<JobResult> {
    const { job, place, watch, folder } = parts;
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const killed = new AbortController();
    const disk = watchFolder(folder, job.limits.diskBytes, this.#options.holdFolder !== undefined);
    watch.attend({
      stdout,
      stderr,
      kill: () => {
        killed.abort();
        void place.service?.remove().catch(() => {});
      },
      isDiskFull: () => disk.isOver(),
    });
    const task = await this.#followTask(place, { stdout, stderr, signal: killed.signal });
    stdout.end();
    stderr.end();
    const container = await this.#stateOf(task);
    const usage = {
      memoryKills: container?.OOMKilled === true ? 1 : 0,
      cpuMs: undefined,
      memoryBytesPeak: undefined,
      processesRefused: undefined,
    };
    const collect = async () => {
      if (task?.Status.State === 'rejected') return { artefacts: [], refused: task.Status.Err };
      return await collectArtefacts(join(folder, 'output'), job.artefactFolder, job.limits.diskBytes);
    };
    return await watch.conclude({
      code: exitCodeOf(task),
      usage: usage as never,
      isDiskFull: await disk.isFull(),
      collect,
    });
  }

  /** Follows a job's task to its end; when its machine is lost the job is made anew. */
  async #followTask(
    place: Place,
    { stdout, stderr, signal }: { stdout: PassThrough; stderr: PassThrough; signal: AbortSignal },
  ): Promise<Task | undefined> {
    let logs: Promise<void> | undefined;
    let answeredAtMs = systemClock.nowMs();
    for (;;) {
      const { service } = place;
      if (signal.aborted || service === undefined) return undefined;
      const filters = JSON.stringify({ service: [service.id] });
      const tasks = (await this.#manager.listTasks({ filters }).catch(() => undefined)) as unknown as Task[] | undefined;
      if (tasks !== undefined) answeredAtMs = systemClock.nowMs();
      else if (systemClock.nowMs() - answeredAtMs > MANAGER_PATIENCE_MS) throw sandboxFailed(this.engine, 'the manager does not answer');
      const task = tasks?.sort((one, other) => (one.CreatedAt < other.CreatedAt ? 1 : -1))[0];
      if (task !== undefined && STARTED.has(task.Status.State)) logs ??= this.#copyLogs(service, stdout, stderr, signal);
      if (task !== undefined && OVER.has(task.Status.State)) {
        await Promise.race([logs, silence([stdout, stderr])]);
        return task;
      }
      if (task?.NodeID !== undefined && (await this.#isDown(task.NodeID))) {
        await service.remove().catch(() => {});
        place.service = await place.start();
        logs = undefined;
      }
      await systemClock.sleep(POLL_MS);
    }
  }

  async #isDown(nodeId: string): Promise<boolean> {
    const node = (await this.#manager
      .getNode(nodeId)
      .inspect()
      .catch(() => undefined)) as { Status?: { State?: string } } | undefined;
    return node?.Status?.State === 'down';
  }

  async #copyLogs(service: Docker.Service, stdout: PassThrough, stderr: PassThrough, signal: AbortSignal): Promise<void> {
    const options = { follow: true, stdout: true, stderr: true } as never;
    const stream = await (service.logs(options) as unknown as Promise<NodeJS.ReadableStream>).catch(() => undefined);
    if (stream === undefined) return;
    signal.addEventListener('abort', () => (stream as PassThrough).destroy(), { once: true });
    this.#manager.modem.demuxStream(stream, stdout, stderr);
    await new Promise<void>((resolve) =>
      stream
        .once('end', resolve)
        .once('error', () => resolve())
        .once('close', resolve),
    );
  }

  async #stateOf(task: Task | undefined): Promise<{ OOMKilled: boolean } | undefined> {
    const id = task?.Status.ContainerStatus?.ContainerID;
    if (id === undefined || id === '') return undefined;
    for (const engine of this.#engines) {
      const found = await engine
        .getContainer(id)
        .inspect()
        .catch(() => undefined);
      if (found !== undefined) return found.State;
    }
    return undefined;
  }

  async #inspect(): Promise<ExecutorReport> {
    const report: ExecutorReport = { engine: this.engine, version: 'none', takesForeign: false, missing: [], isolation: [] };
    for (const [index, engine] of this.#engines.entries()) {
      const info = await engine.info().catch((error: Error) => error);
      const name = this.#options.sockets[index];
      if (info instanceof Error) {
        report.missing.push({
          what: `no engine answers at ${name} (${info.message})`,
          fix: 'Start it, and let this user speak to its socket.',
        });
        continue;
      }
      report.version = info.ServerVersion;
      const bridges = await engine.listNetworks({ filters: JSON.stringify({ driver: ['bridge'] }) });
      const security: string[] = info.SecurityOptions ?? [];
      const needs: [boolean, string, string][] = [
        [info.Swarm?.LocalNodeState === 'active', 'is in no swarm', 'docker swarm init, docker swarm join.'],
        [index > 0 || info.Swarm?.ControlAvailable === true, 'is no manager', 'Name a manager’s socket first.'],
        // A service can be given networks, but not be refused the default one.
        [!bridges.some(({ Name }) => Name === 'bridge'), 'gives its tasks a network', 'Start it with --bridge none.'],
        [info.PidsLimit === true && info.MemoryLimit === true, 'has no limits of memory and processes', 'Give it control groups.'],
        [
          security.some((each) => /name=seccomp,profile=(?!unconfined)/.test(each)),
          'has no filter of system calls',
          'Start it with --seccomp-profile, and with --no-new-privileges.',
        ],
      ];
      for (const [isThere, what, fix] of needs) if (!isThere) report.missing.push({ what: `the engine at ${name} ${what}`, fix });
    }
    if (report.missing.length === 0) await this.#sweep();
    if (this.#options.holdFolder === undefined) {
      report.missing.push({
        what: 'what jobs write to the shared folder is measured only, not held',
        fix: 'Share a file system with project quotas, and give the node the means to set them (holdFolder).',
      });
    }
    report.isolation = [
      'no network (the engines have none to give), no capabilities, a read-only root, a user that owns nothing',
      'the engines’ own default filter of system calls',
      this.#options.holdFolder === undefined
        ? 'what is written is measured five times a second'
        : 'a folder of hard size for what is written',
    ];
    report.takesForeign = report.missing.length === 0;
    return report;
  }

  /** Services of processes that were killed. */
  async #sweep(): Promise<void> {
    const services = await this.#manager.listServices({ filters: JSON.stringify({ label: [OWNER_LABEL] }) });
    for (const { ID, Spec } of services as { ID: string; Spec?: { Labels?: Record<string, string> } }[]) {
      if (ownerIsGone(Spec?.Labels?.[OWNER_LABEL] ?? ''))
        await this.#manager
          .getService(ID)
          .remove()
          .catch(() => {});
    }
  }
}

/** The log of a service that is over stays open: silence is its end. */
async function silence(streams: readonly PassThrough[]): Promise<void> {
  let spokeAtMs = systemClock.nowMs();
  for (const stream of streams) stream.on('data', () => (spokeAtMs = systemClock.nowMs()));
  while (systemClock.nowMs() - spokeAtMs < SILENCE_MS) await systemClock.sleep(POLL_MS / 3);
}

/** A job of Swarm: one completion, no second try of its own, on any machine. */
function serviceOf(job: Job, place: { folder: string; input: string | undefined; name: string }): Docker.CreateServiceOptions {
  const { limits, argv } = job;
  const user = JOB_UID_FIRST + Math.floor(Math.random() * JOB_UIDS);
  const bind = (source: string, target: string, isReadOnly: boolean) => ({
    Type: 'bind',
    Source: source,
    Target: target,
    ReadOnly: isReadOnly,
  });
  const mounts = [bind(join(place.folder, 'output'), '/output', false), bind(join(place.folder, 'tmp'), '/tmp', false)];
  if (place.input !== undefined) mounts.push(bind(place.input, '/input', true));
  return {
    Name: place.name,
    Labels: { [OWNER_LABEL]: ownerTag() },
    Mode: { ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: 1 } },
    EndpointSpec: { Mode: 'dnsrr' },
    TaskTemplate: {
      RestartPolicy: { Condition: 'none' },
      LogDriver: { Name: 'json-file', Options: { 'max-size': String(limits.outputBytes + (1 << 20)), 'max-file': '2' } },
      Resources: {
        Limits: { NanoCPUs: Math.round(limits.cpus * 1e9), MemoryBytes: limits.memoryBytes, Pids: limits.processes },
      },
      ContainerSpec: {
        Image: `${REPOSITORY}:${tagOf(job.image as string)}`,
        Command: [argv[0]],
        Args: argv.slice(1),
        Env: Object.entries(environmentOf(job)).map(([name, value]) => `${name}=${value}`),
        User: `${user}:${user}`,
        Dir: '/tmp',
        Hostname: 'job',
        ReadOnly: true,
        CapabilityDrop: ['ALL'],
        StopGracePeriod: 1,
        Mounts: mounts,
        Ulimits: [
          { Name: 'core', Soft: 0, Hard: 0 },
          { Name: 'nofile', Soft: 4096, Hard: 4096 },
          { Name: 'fsize', Soft: limits.diskBytes, Hard: limits.diskBytes },
        ],
      },
    },
  } as unknown as Docker.CreateServiceOptions;
}

/** As a shell has it. A program that cannot be started is the job's own fault. */
function exitCodeOf(task: Task | undefined): number {
  if (task === undefined) return KILLED;
  const { State, Err, ContainerStatus } = task.Status;
  if (State === 'complete') return 0;
  if (/executable file not found|no such file or directory|exec: "/i.test(Err ?? '')) return NO_PROGRAM;
  if (State === 'rejected') throw sandboxFailed('swarm', `the task was rejected: ${Err}`);
  return ContainerStatus?.ExitCode ?? KILLED;
}

const tagOf = (digest: string) => digest.replace('sha256:', '');

async function hasImage(engine: Docker, digest: string): Promise<boolean> {
  try {
    await engine.getImage(`${REPOSITORY}:${tagOf(digest)}`).inspect();
    return true;
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === NOT_FOUND) return false;
    throw error;
  }
}

async function importInto(engine: Docker, path: string, digest: string): Promise<void> {
  if (await hasImage(engine, digest)) return;
  const progress = (await engine.importImage(createReadStream(path), { repo: REPOSITORY, tag: tagOf(digest) })) as NodeJS.ReadableStream;
  await new Promise<void>((resolve, reject) => {
    engine.modem.followProgress(progress, (error) => (error ? reject(badImage(error.message, error)) : resolve()));
  });
}

interface FolderWatch {
  /** For folders without a hard size: whether it was over its limit when it was last measured. */
  isOver(): boolean;
  isFull(): Promise<boolean>;
}

/** A folder of hard size is full when nothing is left; another one is measured, one measurement at a time. */
function watchFolder(folder: string, bytesMax: number, isHeld: boolean): FolderWatch {
  if (isHeld) {
    return {
      isOver: () => false,
      isFull: async () => {
        const { bavail, ffree } = statfsSync(folder);
        return bavail === 0 || ffree === 0;
      },
    };
  }
  let [isOver, isMeasuring] = [false, false];
  const measure = async () => {
    if (!isMeasuring) {
      isMeasuring = true;
      isOver = (await sizeOf(folder, bytesMax)) > bytesMax;
      isMeasuring = false;
    }
    return isOver;
  };
  return {
    isOver: () => {
      void measure();
      return isOver;
    },
    isFull: measure,
  };
}

/** Bytes that files take on the disk, each a block at least; counted no further than beyond the limit. */
async function sizeOf(folder: string, bytesMax: number): Promise<number> {
  let sum = 0;
  for (const name of await readdir(folder).catch(() => [])) {
    if (sum > bytesMax) break;
    const path = join(folder, name);
    const stats = await lstat(path).catch(() => undefined);
    sum += stats?.isDirectory() ? await sizeOf(path, bytesMax) : Math.max((stats?.blocks ?? 0) * 512, BLOCK_BYTES);
  }
  return sum;
}
