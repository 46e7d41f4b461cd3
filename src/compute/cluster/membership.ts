import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import {
  type Executor,
  type JobNetwork,
  makeWireguardKeys,
  mountMemory,
  openWireguard,
  type RunningJob,
  unmountMemory,
  type WireguardKeys,
  type WireguardLink,
} from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import { compareAge } from './checkpoints.ts';
import type { ClusterSpec } from './cluster-spec.ts';
import { MESH_PREFIX, type MemberList, meshAddress, type SignedMemberList, supersedes } from './member-list.ts';
import type { MemberStatus } from './member-status.ts';
import { type MeshChild, startMeshChild } from './mesh-child.ts';
import { createProcessLog, type ProcessLog } from './process-log.ts';
import { CHECKPOINT_FOLDER, CLUSTER_FOLDER, hostsFile, mpiHostfile, rankEnvironment } from './rank-environment.ts';
import type { ProcessState } from './replacement.ts';

/** A machine's part in one cluster. */
export interface MembershipOptions {
  cluster: Hex;
  seat: number;
  spec: ClusterSpec;
  /** For its files alone. */
  folder: string;
  executor: Executor;
  /** Of an earlier process of this node; new ones otherwise. */
  keys?: WireguardKeys;
  listenPort?: number;
  log: Logger;
  clock?: Clock;
}

/** A running part in a cluster: a network, a process in it that speaks with the peers, and the programs of its ranks. */
export interface Membership {
  readonly keys: WireguardKeys;
  readonly listenPort: number;
  /** Goes over to a list that was verified: peers, names, and a new start of its ranks. An older list than its own changes nothing. */
  apply(signed: SignedMemberList): void;
  signedList(): SignedMemberList | undefined;
  status(): MemberStatus;
  log(rank: number, from: number): { text: string; next: number };
  /** @throws rank-not-running */
  exec(rank: number, argv: readonly string[]): Promise<{ exitCode: number; output: string }>;
  close(): Promise<void>;
}

interface Process {
  state: ProcessState;
  log: ProcessLog;
  running: RunningJob | undefined;
}

const PEERS_PATIENCE_MS = 6_000;
const CHECKPOINT_PATIENCE_MS = 15 * 60_000;
const LOOK_MS = 50;
const EXEC_OUTPUT_BYTES_MAX = 1 << 20;
const LEAST_DISK_BYTES = 1 << 20;
/** Interfaces have at most 15 characters. */
const TAG_DIGITS = 8;

/**
 * Makes a machine's part in a cluster: the network of the rental, its end of the mesh (a key of its own), a folder for checkpoints of hard
 * size, and the process in the mesh. No program runs before the first list.
 * @throws bad-job when the engine has no networks of rentals, wireguard-missing, sandbox-failed, program-failed
 */
export async function openMembership(options: MembershipOptions): Promise<Membership> {
  const { executor, folder, cluster, seat, spec } = options;
  if (executor.openNetwork === undefined) {
    throw new MillraceError('cluster-refused', {
      actor: 'host',
      message: `The engine ${executor.engine} has no networks of rentals`,
      values: { engine: executor.engine },
      hint: 'Run the node with an engine that has: Docker.',
    });
  }
  const tag = `${cluster.slice(2, 2 + TAG_DIGITS)}`;
  const keys = options.keys ?? makeWireguardKeys();
  const checkpointFolder = join(folder, 'checkpoints');
  for (const name of ['', 'cluster', 'checkpoints']) mkdirSync(join(folder, name), { recursive: true, mode: 0o755 });
  const ends: (() => Promise<unknown>)[] = [];
  try {
    const network = await executor.openNetwork(`mr-${tag}-${seat}`);
    ends.unshift(network.close);
    await mountMemory(checkpointFolder, Math.max(spec.checkpointBytesMax, LEAST_DISK_BYTES));
    ends.unshift(() => unmountMemory(checkpointFolder));
    const address = `${meshAddress(seat)}/${MESH_PREFIX}`;
    const link = await openWireguard({
      name: `mr${tag}${seat.toString(36)}`.slice(0, 15),
      namespace: network.namespace,
      address,
      keys,
      listenPort: options.listenPort,
    });
    ends.unshift(link.close);
    const settings = { address: meshAddress(seat), seat, checkpointFolder, checkpointBytesMax: spec.checkpointBytesMax };
    const mesh = await startMeshChild(network.namespace, settings);
    ends.unshift(mesh.stop);
    return new OpenMembership(options, { network, link, mesh, keys, ends });
  } catch (error) {
    for (const end of ends) await end().catch(() => {});
    throw error;
  }
}

interface Parts {
  network: JobNetwork;
  link: WireguardLink;
  mesh: MeshChild;
  keys: WireguardKeys;
  ends: (() => Promise<unknown>)[];
}

class OpenMembership implements Membership {
  readonly #options: MembershipOptions;
  readonly #parts: Parts;
  readonly #clock: Clock;
  readonly #processes = new Map<number, Process>();
  #signed: SignedMemberList | undefined;
  #generation = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #jobs: Promise<unknown>[] = [];
  #trouble: string | undefined;
  #isClosed = false;

  constructor(options: MembershipOptions, parts: Parts) {
    this.#options = options;
    this.#parts = parts;
    this.#clock = options.clock ?? systemClock;
  }

  get keys(): WireguardKeys {
    return this.#parts.keys;
  }

  get listenPort(): number {
    return this.#parts.link.listenPort;
  }

  signedList(): SignedMemberList | undefined {
    return this.#signed;
  }

  apply(signed: SignedMemberList): void {
    if (this.#isClosed || !supersedes(signed.list, this.#signed?.list)) return;
    this.#signed = signed;
    this.#generation.abort();
    const generation = new AbortController();
    this.#generation = generation;
    for (const process of this.#processes.values()) process.state = { rank: process.state.rank, state: 'idle' };
    this.#work = this.#work
      .then(() => this.#turnTo(signed.list, generation.signal))
      .catch((error: unknown) => {
        if (generation.signal.aborted) return;
        this.#trouble = toMillraceError(error).message;
        this.#options.log.warn('cluster-member-failed', {
          cluster: signed.list.cluster,
          version: signed.list.version,
          reason: this.#trouble,
        });
      });
  }

  status(): MemberStatus {
    const { mesh, link } = this.#parts;
    const report = mesh.report();
    const ranks = this.#ownRanks();
    return {
      seat: this.#options.seat,
      version: this.#signed?.list.version ?? 0,
      wireguard: link.kind,
      processes: ranks.map((rank) => this.#processes.get(rank)?.state ?? { rank, state: 'idle' }),
      heardMs: report?.heardMs ?? {},
      newest: report?.newest,
      isLeaving: this.#isClosed || !mesh.isRunning(),
      trouble: this.#trouble ?? report?.trouble,
    };
  }

  log(rank: number, from: number): { text: string; next: number } {
    return this.#processes.get(rank)?.log.read(from) ?? { text: '', next: 0 };
  }

  async exec(rank: number, argv: readonly string[]): Promise<{ exitCode: number; output: string }> {
    const running = this.#processes.get(rank)?.running;
    if (running !== undefined) return await running.exec(argv, EXEC_OUTPUT_BYTES_MAX);
    throw new MillraceError('rank-not-running', {
      actor: 'caller',
      message: `Rank ${rank} does not run on this machine now`,
      values: { rank },
      hint: 'millrace cluster ps shows what runs where.',
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#generation.abort();
    await this.#work;
    await Promise.allSettled(this.#jobs);
    for (const end of this.#parts.ends)
      await end().catch((error) => this.#options.log.warn('cluster-end-failed', { reason: String(error) }));
    rmSync(this.#options.folder, { recursive: true, force: true });
  }

  #ownRanks(): number[] {
    return this.#signed?.list.members.find(({ seat }) => seat === this.#options.seat)?.ranks ?? [];
  }

  /** The programs of the version before end, names and peers change, checkpoints are fetched, and the programs of this version start. */
  async #turnTo(list: MemberList, signal: AbortSignal): Promise<void> {
    const startMs = this.#clock.nowMs();
    await Promise.allSettled(this.#jobs);
    if (signal.aborted) return;
    const stoppedMs = this.#clock.nowMs();
    const { seat, folder } = this.#options;
    const { network, link, mesh } = this.#parts;
    const others = list.members.filter((member) => member.seat !== seat);
    writeFileSync(join(folder, 'hosts'), hostsFile(list, seat, `${network.namespace.name} job`), { mode: 0o644 });
    writeFileSync(join(folder, 'cluster', 'hostfile'), mpiHostfile(list), { mode: 0o644 });
    writeFileSync(join(folder, 'cluster', 'members.json'), JSON.stringify(this.#signed), { mode: 0o644 });
    await link.setPeers(others.map((member) => ({ ...member, address: meshAddress(member.seat) })));
    const peers = others.map((member) => ({ seat: member.seat, address: meshAddress(member.seat) }));
    mesh.order({ signed: this.#signed as SignedMemberList, hostfile: mpiHostfile(list), peers });
    await this.#awaitCheckpoint(list.version, peers.length, signal);
    this.#trouble = undefined;
    const readyMs = this.#clock.nowMs();
    const times = { stopMs: Math.round(stoppedMs - startMs), checkpointMs: Math.round(readyMs - stoppedMs) };
    this.#options.log.info('cluster-processes-start', { cluster: list.cluster, version: list.version, ...times });
    this.#jobs = this.#ownRanks().map((rank) => this.#runRank(list, rank, signal));
  }

  /** Until every peer said what it has (a silent one is not waited for long) and the newest of it lies here. */
  async #awaitCheckpoint(version: number, peers: number, signal: AbortSignal): Promise<void> {
    const startMs = this.#clock.nowMs();
    for (;;) {
      const waitedMs = this.#clock.nowMs() - startMs;
      const { version: toldVersion, answers = 0, newest, newestOfPeers } = this.#parts.mesh.report() ?? {};
      const haveAll = (toldVersion === version && answers >= peers) || waitedMs > PEERS_PATIENCE_MS;
      const isNewest = newestOfPeers === undefined || (newest !== undefined && compareAge(newest.name, newestOfPeers.name) >= 0);
      if ((haveAll && isNewest) || waitedMs > CHECKPOINT_PATIENCE_MS) return;
      await this.#clock.sleep(LOOK_MS, signal);
    }
  }

  async #runRank(list: MemberList, rank: number, signal: AbortSignal): Promise<void> {
    const { spec, folder, executor } = this.#options;
    const { network, link } = this.#parts;
    const process: Process = {
      state: { rank, state: 'running' },
      log: this.#processes.get(rank)?.log ?? createProcessLog(),
      running: undefined,
    };
    this.#processes.set(rank, process);
    const mounts = [
      { from: join(folder, 'hosts'), at: '/etc/hosts', isWritable: false },
      { from: join(folder, 'cluster'), at: CLUSTER_FOLDER, isWritable: false },
      { from: join(folder, 'checkpoints'), at: CHECKPOINT_FOLDER, isWritable: true },
    ];
    const env = rankEnvironment(list, spec, { rank, link: link.name });
    const job = { image: spec.image, argv: spec.argv, env, limits: spec.limits, rental: { network, mounts }, trust: 'foreign' as const };
    let ended: ProcessState;
    try {
      const { reason, exitCode, detail } = await executor.run(job, {
        signal,
        onLog: ({ bytes }) => process.log.append(bytes),
        onStarted: (running) => {
          process.running = running;
        },
      });
      ended = { rank, state: 'ended', reason, exitCode, detail };
    } catch (error) {
      ended = { rank, state: 'ended', reason: 'failed', detail: toMillraceError(error).message };
    }
    process.running = undefined;
    if (signal.aborted) return;
    process.state = ended;
    const { reason, exitCode, detail } = ended;
    this.#options.log.info('cluster-process-ended', { cluster: list.cluster, version: list.version, rank, reason, exitCode, detail });
  }
}
