import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Address, Hex } from 'viem';
import type { Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Executor, WireguardKeys } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { Resources } from '../capacity.ts';
import type { ClusterChain, LeaseTerms } from './cluster-chain.ts';
import { type ClusterSpec, parseClusterSpec, ranksMaxOf } from './cluster-spec.ts';
import type { FoundRoom, LeaseRoom } from './lease-room.ts';
import {
  badList,
  checkRanks,
  isKeySignedBy,
  isListSignedBy,
  type MeshKey,
  parseSignedList,
  type SignedMemberList,
  signMeshKey,
} from './member-list.ts';
import type { MemberStatus } from './member-status.ts';
import { type Membership, openMembership } from './membership.ts';

/** What a node that takes part in clusters needs. */
export interface ClusterHostOptions {
  chain: ClusterChain;
  /** The operator whose leases it serves, and its node key. */
  operatorId: bigint;
  signer: Signer;
  executor: Executor;
  /** Makes an image known to the engine; `image-unknown` when it is not to be had. */
  provideImage: (image: string) => Promise<string>;
  /** Keeps what it takes part in across restarts. */
  folder: string;
  /** Under which peers reach this machine's UDP ports. */
  publicHost: string;
  /** Where its processes and checkpoints have room. */
  room: LeaseRoom;
  log: Logger;
}

/** A renter's agent that asks to join a machine of one of its leases to a cluster. */
export interface JoinRequest {
  cluster: Hex;
  leaseId: string;
  seat: number;
  spec: unknown;
}

interface PartRecord {
  cluster: Hex;
  agent: Address;
  leaseId: string;
  seat: number;
  spec: ClusterSpec;
  keys: WireguardKeys;
  listenPort: number;
  key: MeshKey;
}

interface Part {
  record: PartRecord;
  membership: Membership;
  room: FoundRoom;
}

const WATCH_MS = 2_000;
const PARTS_MAX = 64;
/** A machine joins so long before its lease begins at most: until then nobody pays for it. */
const EARLY_SECONDS = 60n;

/** The clusters that one node takes part in: each by a lease of its operator, as long as that lease runs. */
export class ClusterHost {
  readonly #options: ClusterHostOptions;
  readonly #parts = new Map<string, Part>();
  readonly #joining = new Map<string, Promise<MeshKey>>();
  readonly #stop = new AbortController();
  #isDraining = false;
  #watching: Promise<void> = Promise.resolve();

  constructor(options: ClusterHostOptions) {
    this.#options = options;
  }

  /** Takes up what an earlier process of this node took part in: the same keys and ports; programs start with the next list. */
  async start(): Promise<void> {
    mkdirSync(this.#options.folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(this.#options.folder)) {
      await this.#takeUp(name).catch((error) => {
        this.#options.log.warn('cluster-record-dropped', { name, reason: toMillraceError(error).message });
        rmSync(join(this.#options.folder, name), { recursive: true, force: true });
      });
    }
    this.#watching = this.#watchLeases();
  }

  /**
   * Joins a machine to a cluster: the lease must be this operator's, of that agent, not over, and begin within a minute. Asked again for the same lease it gives the
   * same key.
   * @throws cluster-refused, bad-cluster-spec, image-unknown, and what `openMembership` throws
   */
  async join(agent: Address, request: JoinRequest): Promise<MeshKey> {
    const spec = parseClusterSpec(request.spec);
    const known = this.#parts.get(request.cluster);
    if (known !== undefined && known.record.leaseId === request.leaseId && isSame(known.record.agent, agent)) return known.record.key;
    if (known !== undefined) throw refused('this machine is in that cluster already, by another lease');
    if (this.#parts.size >= PARTS_MAX) throw refused(`this machine is in ${PARTS_MAX} clusters already`);
    await this.#checkLease(agent, request.leaseId);
    if (this.#isDraining) throw refused('this machine takes no new work');
    const running = this.#joining.get(request.cluster) ?? this.#open(agent, request, spec);
    this.#joining.set(request.cluster, running);
    return await running.finally(() => this.#joining.delete(request.cluster));
  }

  /**
   * Goes over to a list of members. It must be signed by the agent by whose lease this machine takes part, and each member's key by the node
   * key of the operator of a lease that has the same agent; and its ranks must be those of the specification, no more of them here than the
   * machine has room for.
   * @throws bad-member-list, cluster-unknown
   */
  async setMembers(agent: Address, cluster: Hex, value: unknown): Promise<void> {
    const part = this.part(agent, cluster);
    const signed = parseSignedList(value);
    await this.#verify(part.record, signed);
    part.membership.apply(signed);
  }

  /** Takes no new clusters, or takes them again; those that it is in go on. */
  drain(isDraining: boolean): void {
    this.#isDraining = isDraining;
  }

  /** The clusters that this machine is in, with what each is doing. */
  clusters(): { cluster: Hex; leaseId: string; status: MemberStatus }[] {
    return [...this.#parts.values()].map(({ record, membership }) => ({
      cluster: record.cluster,
      leaseId: record.leaseId,
      status: membership.status(),
    }));
  }

  /** The part of this machine in a cluster, for the agent by whose lease it is. @throws cluster-unknown */
  part(agent: Address, cluster: Hex): Part {
    const part = this.#parts.get(cluster);
    if (part !== undefined && isSame(part.record.agent, agent)) return part;
    throw new MillraceError('cluster-unknown', {
      actor: 'caller',
      message: `This machine has no part in a cluster ${cluster} of ${agent}`,
      values: { cluster, agent },
      hint: 'The lease is over, or the machine lost its part; it is to be joined anew.',
    });
  }

  /** Ends this machine's part: programs, network, checkpoints. */
  async leave(agent: Address, cluster: Hex): Promise<void> {
    this.part(agent, cluster);
    await this.#end(cluster);
  }

  /** Ends all programs and networks; with `start` a later process goes on. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await Promise.allSettled(this.#joining.values());
    // What is written stays: the lease runs on.
    const kept = [...this.#parts.values()].map(({ record }) => record);
    await Promise.all([...this.#parts.values()].map(({ membership }) => membership.close()));
    for (const record of kept) this.#keep(record);
    for (const { room } of this.#parts.values()) await room.release();
    this.#parts.clear();
  }

  async #open(agent: Address, { cluster, leaseId, seat }: JoinRequest, wanted: ClusterSpec): Promise<MeshKey> {
    const { executor, log } = this.#options;
    // With the digest of what its image stands for, also after a restart.
    const spec = { ...wanted };
    const room = await this.#options.room.find({ leaseId, cluster, wanted: neededBy(spec) });
    const folder = this.#folderOf(cluster);
    const membership = await this.#options
      .provideImage(wanted.image)
      .then((digest) => {
        spec.image = digest;
        return openMembership({ cluster, seat, spec, folder, executor, log });
      })
      .catch(async (error: unknown) => {
        await room.release();
        throw error;
      });
    const endpoint = `${this.#options.publicHost}:${membership.listenPort}`;
    const unsigned = { cluster, leaseId, seat, publicKey: membership.keys.publicKey, endpoint };
    const key = await signMeshKey(unsigned, this.#options.chain.domain, this.#options.signer);
    const record = { cluster, agent, leaseId, seat, spec, keys: membership.keys, listenPort: membership.listenPort, key };
    this.#keep(record);
    await this.#begin({ record, membership, room });
    log.info('cluster-joined', { cluster, leaseId, seat, endpoint });
    return key;
  }

  async #takeUp(name: string): Promise<void> {
    const record = JSON.parse(readFileSync(join(this.#options.folder, name, 'record.json'), 'utf8')) as PartRecord;
    await this.#checkLease(record.agent, record.leaseId);
    const { executor, log } = this.#options;
    const { cluster, leaseId, seat, spec, keys, listenPort } = record;
    const room = await this.#options.room.find({ leaseId, cluster, wanted: neededBy(spec) });
    const membership = await openMembership({ cluster, seat, spec, keys, listenPort, folder: this.#folderOf(cluster), executor, log });
    await this.#begin({ record, membership, room });
  }

  async #begin(part: Part): Promise<void> {
    const { cluster } = part.record;
    this.#parts.set(cluster, part);
    await part.room.begin({ isUp: () => !part.membership.status().isLeaving, end: () => this.#end(cluster) });
  }

  async #checkLease(agent: Address, leaseId: string): Promise<LeaseTerms> {
    const { chain, operatorId } = this.#options;
    const [lease, now] = await Promise.all([chain.lease(leaseId), chain.now()]);
    if (lease.operatorId !== operatorId) throw refused(`lease ${leaseId} is of operator ${lease.operatorId}`);
    if (!isSame(lease.agent, agent)) throw refused(`the agent of lease ${leaseId} is ${lease.agent}, the request is signed by ${agent}`);
    if (now >= lease.until || lease.until === lease.from) throw refused(`lease ${leaseId} was over at ${lease.until}, it is ${now}`);
    if (now + EARLY_SECONDS < lease.from) throw refused(`lease ${leaseId} begins at ${lease.from}, it is ${now}`);
    return lease;
  }

  async #verify(record: PartRecord, signed: SignedMemberList): Promise<void> {
    const { chain } = this.#options;
    const { list } = signed;
    if (list.cluster !== record.cluster) throw badList('it is of another cluster');
    if (!isListSignedBy(record.agent, signed, chain.domain)) throw badList(`it is not signed by ${record.agent}`);
    const own = list.members.find(({ leaseId }) => leaseId === record.leaseId);
    if (own === undefined || own.seat !== record.seat || own.publicKey !== record.key.publicKey) throw badList('this machine is not in it');
    checkRanks(list, own, record.spec);
    await Promise.all(list.members.filter((member) => member !== own).map((member) => this.#verifyPeer(record.agent, member)));
  }

  /** So nobody can make this machine send packets to others than machines that took the renter's lease themselves. */
  async #verifyPeer(agent: Address, member: MeshKey): Promise<void> {
    const { chain } = this.#options;
    const lease = await chain.lease(member.leaseId);
    if (!isSame(lease.agent, agent)) throw badList(`lease ${member.leaseId} has another agent`);
    const nodeKey = await chain.nodeKeyOf(lease.operatorId);
    if (!isKeySignedBy(nodeKey, member, chain.domain)) throw badList(`seat ${member.seat} is not signed by the node key of its operator`);
  }

  async #watchLeases(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await systemClock.sleep(WATCH_MS, this.#stop.signal).catch(() => {});
      for (const { record } of [...this.#parts.values()]) {
        if (this.#stop.signal.aborted) return;
        await this.#checkLease(record.agent, record.leaseId).catch(async (error: unknown) => {
          // A chain that does not answer ends nothing.
          if ((error as MillraceError).code !== 'cluster-refused') return;
          this.#options.log.info('cluster-lease-over', { cluster: record.cluster, leaseId: record.leaseId });
          await this.#end(record.cluster);
        });
      }
    }
  }

  async #end(cluster: string): Promise<void> {
    const part = this.#parts.get(cluster);
    this.#parts.delete(cluster);
    await part?.membership.close();
    await part?.room.release();
  }

  #keep(record: PartRecord): void {
    writeFileDurably(join(this.#folderOf(record.cluster), 'record.json'), JSON.stringify(record));
  }

  #folderOf(cluster: string): string {
    return join(this.#options.folder, cluster.slice(2));
  }
}

/** The ranks that a machine is given are known by its lists only: the most that they can be by the specification, which each list is held to. */
function neededBy(spec: ClusterSpec): Resources {
  const { limits, checkpointBytesMax } = spec;
  const ranks = ranksMaxOf(spec);
  return {
    cpus: limits.cpus * ranks,
    // Checkpoints, artefacts and temporary files lie in memory, and count as memory of their processes too.
    memoryBytes: limits.memoryBytes * ranks + checkpointBytesMax,
    diskBytes: 0,
    processes: limits.processes * ranks,
  };
}

const isSame = (one: string, other: string) => one.toLowerCase() === other.toLowerCase();

function refused(reason: string): MillraceError {
  return new MillraceError('cluster-refused', {
    actor: 'caller',
    message: `This machine does not join the cluster: ${reason}`,
    values: { reason },
    hint: 'Join with the agent of a lease of this operator that runs.',
  });
}
