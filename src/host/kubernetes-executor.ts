import { execFile } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import { systemClock } from '../clock.ts';
import type { MillraceError } from '../errors.ts';
import { collectArtefacts } from './artefacts.ts';
import {
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
import type { KubernetesOptions } from './kubernetes.ts';
import { type KubernetesApi, openKubernetesApi } from './kubernetes-api.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';

const run = promisify(execFile);

const OWNER_LABEL = 'millrace.owner';
const JOB_UID_FIRST = 1_900_000_000;
const JOB_UIDS = 1 << 24;
const POLL_MS = 500;
const COPY_TIMEOUT_MS = 60_000;
/** A machine has to be found and an image fetched. */
const START_PATIENCE_MS = 10 * 60_000;
const KILLED = 137;
const NO_PROGRAM = 127;
const NOT_FOUND = 404;
const NEVER_STARTS = new Set(['ErrImagePull', 'ImagePullBackOff', 'InvalidImageName', 'CreateContainerConfigError']);

/** The parts of a pod (API v1) that are read. */
interface Pod {
  metadata: { name: string; creationTimestamp: string };
  status?: {
    phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
    reason?: string;
    containerStatuses?: {
      state?: {
        waiting?: { reason?: string; message?: string };
        running?: object;
        terminated?: { exitCode: number; signal?: number; reason?: string; message?: string };
      };
    }[];
  };
}

/**
 * Jobs of Kubernetes (batch/v1), one pod each. NOT RUN AGAINST A CLUSTER: the calls are tested against the documented contract of the API. What
 * the owner must have set up, and declares, is in `KubernetesOptions.enforced`.
 */
export class KubernetesExecutor implements Executor {
  readonly engine = 'kubernetes';
  readonly #options: KubernetesOptions;
  readonly #api: KubernetesApi;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  #report: Promise<ExecutorReport> | undefined;
  #count = 0;

  constructor(options: KubernetesOptions) {
    this.#options = options;
    this.#api = openKubernetesApi(options);
  }

  inspect(): Promise<ExecutorReport> {
    this.#report ??= this.#inspect();
    return this.#report;
  }

  /** Checks the archive and gives its digest; the image itself its owner puts into the registry under that name. */
  async importImage(path: string): Promise<string> {
    await checkArchive(path);
    return await digestOf(path);
  }

  async run(job: Job, options: RunOptions = {}): Promise<JobResult> {
    checkJob(job);
    if (job.image === undefined) throw badJob('a container names its image');
    if (job.rental !== undefined) throw badJob('Kubernetes has no networks of rentals here');
    if (job.trust === 'foreign') {
      const report = await this.inspect();
      if (!report.takesForeign) throw refuseForeign(report);
    }
    const running = this.#run(job, options);
    this.#running.add(running);
    return await running.finally(() => this.#running.delete(running));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running);
    rmSync(join(this.#options.sharedFolder, ownerTag()), { recursive: true, force: true });
  }

  get #jobsPath(): string {
    return `/apis/batch/v1/namespaces/${encodeURIComponent(this.#options.namespace)}/jobs`;
  }

  get #podsPath(): string {
    return `/api/v1/namespaces/${encodeURIComponent(this.#options.namespace)}/pods`;
  }

  async #run(job: Job, options: RunOptions): Promise<JobResult> {
    this.#count += 1;
    const number = this.#count;
    const subPath = `${ownerTag()}/${number}`;
    const folder = join(this.#options.sharedFolder, subPath);
    mkdirSync(folder, { recursive: true, mode: 0o711 });
    await run('mkdir', ['-m', '1777', join(folder, 'output')]);
    if (job.inputFolder !== undefined) await run('cp', ['-a', job.inputFolder, join(folder, 'input')], { timeout: COPY_TIMEOUT_MS });
    const name = `${ownerTag()}-${number}`;
    const watch = new JobWatch(job.limits, options, this.#stop.signal);
    try {
      await this.#api.call('POST', this.#jobsPath, manifestOf(job, { name, subPath, options: this.#options }));
      return await this.#attend({ job, name, watch, folder });
    } finally {
      watch.end();
      await this.#delete(name).catch(() => {});
      rmSync(folder, { recursive: true, force: true });
    }
  }

  async #attend({ job, name, watch, folder }: { job: Job; name: string; watch: JobWatch; folder: string }): Promise<JobResult> {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const killed = new AbortController();
    const kill = () => {
      killed.abort();
      void this.#delete(name).catch(() => {});
    };
    watch.attend({ stdout, stderr, kill });
    const pod = await this.#followPod(job, { name, stdout, signal: killed.signal }).finally(() => {
      stdout.end();
      stderr.end();
    });
    const ended = pod?.status?.containerStatuses?.[0]?.state?.terminated;
    if (pod?.status?.reason === 'Evicted') watch.hit('disk-exceeded');
    if (pod?.status?.reason === 'DeadlineExceeded') watch.hit('wall-exceeded');
    if (ended?.reason === 'ContainerCannotRun' || ended?.reason === 'StartError')
      return await this.#conclude(watch, NO_PROGRAM, false, job, folder);
    return await this.#conclude(watch, ended?.exitCode ?? KILLED, ended?.reason === 'OOMKilled', job, folder);
  }

  async #conclude(watch: JobWatch, code: number, isOutOfMemory: boolean, job: Job, folder: string): Promise<JobResult> {
    const collect = () => collectArtefacts(join(folder, 'output'), job.artefactFolder, job.limits.diskBytes);
    const usage = { memoryKills: isOutOfMemory ? 1 : 0, cpuMs: undefined, memoryBytesPeak: undefined, processesRefused: undefined };
    return await watch.conclude({ code, usage: usage as never, isDiskFull: false, collect });
  }

  /** A job has one pod, and another one only when its machine is lost; the latest counts. */
  async #followPod(job: Job, given: { name: string; stdout: PassThrough; signal: AbortSignal }): Promise<Pod | undefined> {
    const { name, stdout, signal } = given;
    const selector = encodeURIComponent(`job-name=${name}`);
    const deadlineMs = systemClock.nowMs() + START_PATIENCE_MS;
    let logs: Promise<void> | undefined;
    for (;;) {
      if (signal.aborted) return undefined;
      const { items } = await this.#api.call<{ items: Pod[] }>('GET', `${this.#podsPath}?labelSelector=${selector}`);
      const pod = items.sort((one, other) => (one.metadata.creationTimestamp < other.metadata.creationTimestamp ? 1 : -1))[0];
      const state = pod?.status?.containerStatuses?.[0]?.state;
      const waiting = state?.waiting?.reason;
      if (waiting !== undefined && NEVER_STARTS.has(waiting)) throw imageUnknown(job.image as string, this.engine);
      const hasStarted = state?.running !== undefined || state?.terminated !== undefined;
      if (hasStarted && pod !== undefined) {
        const path = `${this.#podsPath}/${encodeURIComponent(pod.metadata.name)}/log?follow=true&container=job`;
        logs ??= this.#api.stream(path, (bytes) => stdout.write(bytes), signal).catch(() => {});
      }
      if (pod?.status?.phase === 'Succeeded' || pod?.status?.phase === 'Failed') {
        await logs;
        return pod;
      }
      if (!hasStarted && systemClock.nowMs() > deadlineMs)
        throw sandboxFailed(this.engine, `no machine started the job: ${waiting ?? 'pending'}`);
      await systemClock.sleep(POLL_MS);
    }
  }

  async #delete(name: string): Promise<void> {
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Background', gracePeriodSeconds: 0 };
    await this.#api.call('DELETE', `${this.#jobsPath}/${name}`, body).catch((error: MillraceError) => {
      if (error.values.status !== NOT_FOUND) throw error;
    });
  }

  async #inspect(): Promise<ExecutorReport> {
    const report: ExecutorReport = { engine: this.engine, version: 'none', takesForeign: false, missing: [], isolation: [] };
    try {
      report.version = (await this.#api.call<{ gitVersion: string }>('GET', '/version')).gitVersion;
      await this.#sweep();
      await this.#inspectPolicies(report.missing);
    } catch (error) {
      report.missing.push({ what: `the API does not answer (${(error as Error).message})`, fix: (error as MillraceError).hint ?? '' });
    }
    if (this.#options.enforced === undefined) {
      report.missing.push({
        what: 'nobody declared that network policies and limits of processes are enforced, which the API cannot show',
        fix: 'Use a network plugin that enforces policies, set podPidsLimit in the kubelets, and declare both (enforced).',
      });
    }
    report.isolation = [
      'a user namespace, no capabilities, no new privileges, a read-only root, the runtime’s default filter of system calls',
      'memory and processors by the kubelet, disk by its eviction (which may come late), time by the deadline of the job',
      'no network and few processes as far as the owner declared',
    ];
    report.takesForeign = report.missing.length === 0;
    return report;
  }

  /** One policy at least that selects every pod and allows nothing in and nothing out. */
  async #inspectPolicies(missing: ExecutorReport['missing']): Promise<void> {
    const path = `/apis/networking.k8s.io/v1/namespaces/${encodeURIComponent(this.#options.namespace)}/networkpolicies`;
    interface Policy {
      spec?: { podSelector?: object; policyTypes?: string[]; ingress?: unknown[]; egress?: unknown[] };
    }
    const { items } = await this.#api.call<{ items: Policy[] }>('GET', path);
    const isEmpty = (value: object | undefined) => value !== undefined && Object.keys(value).length === 0;
    const deniesAll = items.some(({ spec }) => {
      const types = spec?.policyTypes ?? [];
      const isClosed = (spec?.ingress ?? []).length === 0 && (spec?.egress ?? []).length === 0;
      return isEmpty(spec?.podSelector) && types.includes('Ingress') && types.includes('Egress') && isClosed;
    });
    const allowsSome = items.some(({ spec }) => (spec?.ingress ?? []).length > 0 || (spec?.egress ?? []).length > 0);
    if (deniesAll && !allowsSome) return;
    missing.push({
      what: `the namespace ${this.#options.namespace} has no policy that denies all traffic, or one that allows some`,
      fix: 'Apply a NetworkPolicy with podSelector {} and policyTypes [Ingress, Egress] alone.',
    });
  }

  /** Jobs of processes that were killed. */
  async #sweep(): Promise<void> {
    const { items } = await this.#api.call<{ items: { metadata: { name: string; labels?: Record<string, string> } }[] }>(
      'GET',
      `${this.#jobsPath}?labelSelector=${OWNER_LABEL}`,
    );
    for (const { metadata } of items) if (ownerIsGone(metadata.labels?.[OWNER_LABEL] ?? '')) await this.#delete(metadata.name);
  }
}

/** The job's object, by the "restricted" standard of pod security and what limits there are. */
function manifestOf(job: Job, place: { name: string; subPath: string; options: KubernetesOptions }): object {
  const { limits, argv } = job;
  const user = JOB_UID_FIRST + Math.floor(Math.random() * JOB_UIDS);
  const labels = { [OWNER_LABEL]: ownerTag() };
  const amounts = { cpu: String(limits.cpus), memory: String(limits.memoryBytes), 'ephemeral-storage': String(limits.diskBytes) };
  const volumeMounts = [
    { name: 'exchange', mountPath: '/output', subPath: `${place.subPath}/output` },
    { name: 'tmp', mountPath: '/tmp' },
    ...(job.inputFolder === undefined
      ? []
      : [{ name: 'exchange', mountPath: '/input', subPath: `${place.subPath}/input`, readOnly: true }]),
  ];
  const container = {
    name: 'job',
    image: `${place.options.repository}:${(job.image as string).replace('sha256:', '')}`,
    imagePullPolicy: 'IfNotPresent',
    command: [argv[0]],
    args: argv.slice(1),
    workingDir: '/tmp',
    env: Object.entries(environmentOf(job)).map(([name, value]) => ({ name, value })),
    resources: { limits: amounts, requests: amounts },
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      privileged: false,
      capabilities: { drop: ['ALL'] },
    },
    volumeMounts,
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: place.name, labels },
    spec: {
      backoffLimit: 0,
      activeDeadlineSeconds: Math.max(1, Math.ceil(limits.wallSeconds)),
      ttlSecondsAfterFinished: 600,
      template: {
        metadata: { labels },
        spec: {
          restartPolicy: 'Never',
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          hostUsers: false,
          dnsPolicy: 'None',
          dnsConfig: { nameservers: ['127.0.0.1'] },
          terminationGracePeriodSeconds: 0,
          securityContext: { runAsNonRoot: true, runAsUser: user, runAsGroup: user, seccompProfile: { type: 'RuntimeDefault' } },
          containers: [container],
          volumes: [
            { name: 'exchange', persistentVolumeClaim: { claimName: place.options.claim } },
            { name: 'tmp', emptyDir: { sizeLimit: String(limits.diskBytes) } },
          ],
        },
      },
    },
  };
}
