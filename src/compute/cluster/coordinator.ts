import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { Signer } from '../../chain/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { ClusterMarket, GangRequest } from './cluster-chain.ts';
import type { ClusterNode } from './cluster-node.ts';
import { type ClusterSpec, spreadRanks } from './cluster-spec.ts';
import {
  type ClusterMember,
  isKeySignedBy,
  isListSignedBy,
  type MeshKey,
  type SignedMemberList,
  signMemberList,
  supersedes,
} from './member-list.ts';
import type { MemberStatus } from './member-status.ts';
import { decide, hasFailed, type MemberView, type Patience, rankTakeover } from './replacement.ts';

/** A lease of the cluster, and the seat that its machine is given. */
export interface HeldLease {
  leaseId: string;
  operatorId: string;
  seat: number;
}

/** What a coordinator keeps on its disk: with it and the chain another process goes on where it stopped. */
export interface ClusterRecord {
  version: 1;
  cluster: Hex;
  spec: ClusterSpec;
  phase: 'forming' | 'running' | 'finished' | 'failed' | 'ended';
  /** Why it failed. */
  reason?: string;
  /** Leases that were reserved and not yet ended, whether or not their machines joined. */
  leases: HeldLease[];
  /** A reservation that was begun and whose leases are not yet in `leases`; its key makes sure that it is made once. */
  reserving?: { request: GangRequest; key: string };
  signed?: SignedMemberList;
  restartsUsed: number;
  /** Operators that were lost or would not join, not to be asked again. */
  shunned: string[];
}

/** What a coordinator works with. */
export interface CoordinatorOptions {
  /** For its record alone. */
  folder: string;
  market: ClusterMarket;
  /** The renter's agent. */
  signer: Pick<Signer, 'address' | 'signDigest'>;
  nodeOf: (operatorId: bigint) => Promise<ClusterNode>;
  patience: Patience;
  /** 0 for the first coordinator of the renter, 1 for its stand-in, … */
  turn?: number;
  clock?: Clock;
  log: Logger;
}

/** A machine as the coordinator sees it. */
export interface MachineView {
  seat: number;
  leaseId: string;
  operatorId: string;
  ranks: number[];
  endpoint: string;
  silentMs: number;
  status: MemberStatus | undefined;
}

const POLL_MS = 500;
const JOIN_ATTEMPTS = 5;

interface Machine {
  node: Promise<ClusterNode>;
  operatorId: string;
  answeredAtMs: number;
  status: MemberStatus | undefined;
  isAsking: boolean;
}

/**
 * Keeps one cluster: reserves its machines all or none, joins them, signs who belongs to it, watches them, replaces those that are lost. It is
 * not part of the cluster: while no coordinator runs the programs go on, and any of the renter's coordinators can take over.
 */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #clock: Clock;
  readonly #machines = new Map<string, Machine>();
  readonly #recordPath: string;
  #record: ClusterRecord;
  #failedAtMs: number | undefined;

  constructor(options: CoordinatorOptions, record: ClusterRecord) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#recordPath = recordPath(options.folder);
    this.#record = record;
  }

  get record(): Readonly<ClusterRecord> {
    return this.#record;
  }

  /**
   * Forms the cluster if that is not done, and keeps it until its programs are done, it fails, or the signal ends the watching (the cluster
   * goes on then).
   * @throws cluster-short while forming; afterwards a market without a spare is asked again
   */
  async run(signal: AbortSignal): Promise<ClusterRecord> {
    await this.#finishReservation();
    if (this.#record.phase === 'forming') await this.#form();
    while (this.#record.phase === 'running' && !signal.aborted) {
      await this.#step().catch((error) => this.#note('cluster-step-failed', { reason: toMillraceError(error).message }));
      await this.#clock.sleep(POLL_MS, signal).catch(() => {});
    }
    if (this.#record.phase === 'finished' || this.#record.phase === 'failed') await this.#giveBack();
    return this.#record;
  }

  /** Ends programs and leases. */
  async end(): Promise<void> {
    if (this.#record.phase === 'forming' || this.#record.phase === 'running') this.#keep({ phase: 'ended' });
    await this.#giveBack();
  }

  /** Asks every machine once. */
  async view(): Promise<MachineView[]> {
    await this.#ask(true);
    return this.#members().map((member) => {
      const { operatorId, status } = this.#machineOf(member);
      const { seat, leaseId, ranks, endpoint } = member;
      return { seat, leaseId, ranks, endpoint, operatorId, status, silentMs: this.#silentMs(member) };
    });
  }

  /** The node that runs a rank. @throws cluster-unknown, cluster-over */
  async nodeOfRank(rank: number): Promise<ClusterNode> {
    const { phase } = this.#record;
    if (phase !== 'forming' && phase !== 'running') {
      throw new MillraceError('cluster-over', {
        actor: 'caller',
        message: `The cluster is over (${phase}): its machines were given back, and what was on them is gone`,
        values: { phase },
        hint: 'Fetch what matters while it runs: millrace cluster logs, millrace cluster exec.',
      });
    }
    const member = this.#members().find(({ ranks }) => ranks.includes(rank));
    if (member !== undefined) return await this.#machineOf(member).node;
    throw new MillraceError('cluster-unknown', {
      actor: 'caller',
      message: `The cluster has no rank ${rank}`,
      values: { rank, processes: this.#record.spec.processes },
    });
  }

  async #form(): Promise<void> {
    const { spec } = this.#record;
    const keys = await this.#acquire(spec.machines);
    const ranks = spreadRanks(spec.processes, spec.machines);
    await this.#publish(keys.map((key, index) => ({ ...key, ranks: ranks[index] as number[] })));
    this.#keep({ phase: 'running' });
  }

  async #step(): Promise<void> {
    await this.#ask(false);
    await this.#adoptLater();
    const views = this.#members().map((member) => this.#viewOf(member));
    const hasFailure = views.some(({ version, processes }) => version === this.#list().version && processes.some(hasFailed));
    this.#failedAtMs = hasFailure ? (this.#failedAtMs ?? this.#clock.nowMs()) : undefined;
    const { patience, turn = 0 } = this.#options;
    const { spec, restartsUsed } = this.#record;
    const decision = decide(
      {
        list: this.#list(),
        members: views,
        failedMs: this.#failedAtMs === undefined ? undefined : this.#clock.nowMs() - this.#failedAtMs,
        restartsLeft: spec.restartsMax - restartsUsed,
        turn,
      },
      patience,
    );
    if (decision.kind === 'replace') await this.#replace(decision.seats);
    if (decision.kind === 'push') await this.#push(decision.seats);
    if (decision.kind === 'restart') {
      this.#note('cluster-restart', { restartsUsed: restartsUsed + 1 });
      this.#keep({ restartsUsed: restartsUsed + 1 });
      await this.#publish(this.#members());
    }
    if (decision.kind === 'finish') this.#keep({ phase: 'finished' });
    if (decision.kind === 'fail') this.#keep({ phase: 'failed', reason: decision.reason });
  }

  async #replace(seats: number[]): Promise<void> {
    const list = this.#list();
    this.#note('cluster-machines-lost', { version: list.version, seats: seats.join(' ') });
    const lost = this.#members().filter(({ seat }) => seats.includes(seat));
    const operators = lost.map((member) => this.#machineOf(member).operatorId);
    this.#keep({ shunned: [...new Set([...this.#record.shunned, ...operators])] });
    const { keep, freed } = rankTakeover(list, seats);
    const keys = await this.#acquire(freed.length);
    await this.#publish([...keep, ...keys.map((key, index) => ({ ...key, ranks: freed[index] as number[] }))]);
    await Promise.all(lost.map((member) => this.#endLease(member.leaseId)));
  }

  /** Reserves machines and joins them; those that will not join are given back, and others are asked. What an earlier process reserved is used first. */
  async #acquire(count: number): Promise<MeshKey[]> {
    const keys: MeshKey[] = [];
    await this.#finishReservation();
    for (let attempt = 1; keys.length < count; attempt += 1) {
      const isUsed = (leaseId: string) => [...keys, ...this.#members()].some((each) => each.leaseId === leaseId);
      const idle = () => this.#record.leases.filter((lease) => !isUsed(lease.leaseId) && !this.#record.shunned.includes(lease.operatorId));
      const missing = count - keys.length - idle().length;
      if (missing > 0) await this.#reserve(missing);
      const leases = idle().slice(0, count - keys.length);
      const joined = await Promise.allSettled(leases.map((lease) => this.#join(lease)));
      keys.push(...joined.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : [])));
      for (const [index, outcome] of joined.entries()) {
        if (outcome.status === 'fulfilled') continue;
        const { leaseId, operatorId } = leases[index] as HeldLease;
        this.#note('cluster-join-failed', { leaseId, operatorId, reason: toMillraceError(outcome.reason).message });
        this.#keep({ shunned: [...new Set([...this.#record.shunned, operatorId])] });
        await this.#endLease(leaseId);
        if (attempt >= JOIN_ATTEMPTS) throw outcome.reason;
      }
    }
    return keys.sort((one, other) => one.seat - other.seat);
  }

  async #reserve(count: number): Promise<void> {
    const without = [...new Set([...this.#record.shunned, ...this.#record.leases.map(({ operatorId }) => operatorId)])];
    const request = await this.#options.market.findMachines({ count, withoutOperators: without.map(BigInt) });
    // By its contents, so that what another coordinator of the renter reserves has another key.
    const digest = createHash('sha256')
      .update(JSON.stringify([this.#record.cluster, request]))
      .digest('hex');
    this.#keep({ reserving: { request, key: `cluster ${digest}` } });
    await this.#finishReservation();
  }

  /** Carries out a reservation that was begun; its key makes sure that it is made once, also when this process was killed in it. */
  async #finishReservation(): Promise<void> {
    const { reserving } = this.#record;
    if (reserving === undefined) return;
    try {
      const leases = await this.#options.market.reserve(reserving.request, reserving.key);
      const nextSeat = this.#nextSeat();
      const held = leases.map(({ leaseId, operatorId }, index) => ({ leaseId, operatorId: String(operatorId), seat: nextSeat + index }));
      this.#keep({ leases: [...this.#record.leases, ...held], reserving: undefined });
    } catch (error) {
      if ((error as MillraceError).code === 'cluster-short') this.#keep({ reserving: undefined });
      throw error;
    }
  }

  /** Seats are never given twice: an address in the mesh belongs to one machine for ever. */
  #nextSeat(): number {
    return Math.max(0, ...this.#record.leases.map(({ seat }) => seat), ...this.#members().map(({ seat }) => seat)) + 1;
  }

  async #join({ leaseId, operatorId, seat }: HeldLease): Promise<MeshKey> {
    const { market } = this.#options;
    const node = await this.#machineOf({ leaseId }).node;
    const key = await node.join({ leaseId, seat, spec: this.#record.spec });
    const nodeKey = await market.nodeKeyOf(BigInt(operatorId));
    if (key.leaseId === leaseId && key.seat === seat && isKeySignedBy(nodeKey, key, market.domain)) return key;
    throw new MillraceError('bad-member-list', {
      actor: 'peer',
      message: `Lease ${leaseId}: the key of its mesh is not signed by its node`,
    });
  }

  async #publish(members: ClusterMember[]): Promise<void> {
    const { market, signer } = this.#options;
    const version = (this.#record.signed?.list.version ?? 0) + 1;
    const inOrder = [...members].sort((one, other) => one.seat - other.seat);
    const signed = await signMemberList({ cluster: this.#record.cluster, version, members: inOrder }, market.domain, signer);
    this.#failedAtMs = undefined;
    this.#keep({ signed });
    this.#note('cluster-list', { version, machines: members.length });
    await this.#push(members.map(({ seat }) => seat));
  }

  async #push(seats: readonly number[]): Promise<void> {
    const { signed } = this.#record;
    const pushed = this.#members().filter(({ seat }) => seats.includes(seat));
    await Promise.allSettled(
      pushed.map(async (member) => {
        const machine = this.#machineOf(member);
        await (await machine.node).setMembers(signed as SignedMemberList);
        machine.answeredAtMs = this.#clock.nowMs();
      }),
    );
  }

  /** Asks the machines how they are. A machine that has not answered the question before is not asked again. */
  async #ask(isPatient: boolean): Promise<void> {
    const questions = this.#members().map(async (member) => {
      const machine = this.#machineOf(member);
      if (machine.isAsking) return;
      machine.isAsking = true;
      try {
        machine.status = await (await machine.node).status();
        machine.answeredAtMs = this.#clock.nowMs();
      } catch (error) {
        if ((error as MillraceError).code !== 'cluster-unknown') return;
        // It answers, and has no part any more: as lost as one that is silent.
        machine.status = undefined;
        machine.answeredAtMs = Number.NEGATIVE_INFINITY;
      } finally {
        machine.isAsking = false;
      }
    });
    await (isPatient ? Promise.all(questions) : Promise.race([Promise.all(questions), this.#clock.sleep(POLL_MS)]));
  }

  /** Another coordinator of this renter may have gone ahead: its list counts, and what this one reserved beyond it is given back. */
  async #adoptLater(): Promise<void> {
    const ahead = this.#members().find((member) => (this.#machineOf(member).status?.version ?? 0) > this.#list().version);
    if (ahead === undefined) return;
    const signed = await (await this.#machineOf(ahead).node).members();
    const { market, signer } = this.#options;
    if (signed === undefined || signed.list.cluster !== this.#record.cluster || !isListSignedBy(signer.address, signed, market.domain))
      return;
    if (!supersedes(signed.list, this.#list())) return;
    this.#note('cluster-list-adopted', { version: signed.list.version });
    const terms = await Promise.all(
      signed.list.members.map(async ({ leaseId, seat }) => ({
        leaseId,
        seat,
        operatorId: String((await market.lease(leaseId)).operatorId),
      })),
    );
    const own = this.#record.leases.filter(({ leaseId }) => !terms.some((each) => each.leaseId === leaseId));
    // What the other one left out it had found lost.
    const lost = own.filter(({ leaseId }) => this.#members().some((member) => member.leaseId === leaseId));
    const shunned = [...new Set([...this.#record.shunned, ...lost.map(({ operatorId }) => operatorId)])];
    this.#keep({ signed, shunned, leases: [...own, ...terms] });
    await Promise.all(own.map(({ leaseId }) => this.#endLease(leaseId)));
  }

  #viewOf(member: ClusterMember): MemberView {
    const { status } = this.#machineOf(member);
    const others = this.#members().filter((each) => each !== member && this.#silentMs(each) < this.#options.patience.lostMs);
    const heard = others.flatMap((each) => this.#machineOf(each).status?.heardMs[member.seat] ?? []);
    return {
      seat: member.seat,
      silentMs: this.#silentMs(member),
      unheardMs: heard.length === 0 ? undefined : Math.min(...heard),
      version: status?.version ?? 0,
      // Of ranks that are not its own a machine has nothing to say.
      processes: status?.processes.filter(({ rank }) => member.ranks.includes(rank)) ?? [],
      isLeaving: status?.isLeaving ?? false,
    };
  }

  /** A machine that this process has never asked counts as heard when it was first looked at. */
  #silentMs(member: ClusterMember): number {
    return this.#clock.nowMs() - this.#machineOf(member).answeredAtMs;
  }

  #machineOf({ leaseId }: { leaseId: string }): Machine {
    const known = this.#machines.get(leaseId);
    if (known !== undefined) return known;
    const operatorId = this.#record.leases.find((lease) => lease.leaseId === leaseId)?.operatorId ?? '0';
    const node = this.#options.nodeOf(BigInt(operatorId));
    node.catch(() => {});
    const machine = { node, operatorId, answeredAtMs: this.#clock.nowMs(), status: undefined, isAsking: false };
    this.#machines.set(leaseId, machine);
    return machine;
  }

  #members(): ClusterMember[] {
    return this.#record.signed?.list.members ?? [];
  }

  #list(): SignedMemberList['list'] {
    return this.#record.signed?.list ?? { cluster: this.#record.cluster, version: 0, members: [] };
  }

  async #giveBack(): Promise<void> {
    await this.#finishReservation().catch((error) => this.#note('cluster-reservation-open', { reason: toMillraceError(error).message }));
    await Promise.allSettled(
      this.#record.leases.map(async (lease) => {
        await (await this.#machineOf(lease).node).leave().catch(() => {});
        await this.#endLease(lease.leaseId);
      }),
    );
  }

  /** A lease that cannot be ended now stays in the record, for a later try; it ends by itself with its time. */
  async #endLease(leaseId: string): Promise<void> {
    try {
      await this.#options.market.end(leaseId);
      this.#keep({ leases: this.#record.leases.filter((lease) => lease.leaseId !== leaseId) });
    } catch (error) {
      this.#note('cluster-lease-not-ended', { leaseId, reason: toMillraceError(error).message });
    }
  }

  #keep(change: Partial<ClusterRecord>): void {
    this.#record = { ...this.#record, ...change };
    writeFileDurably(this.#recordPath, JSON.stringify(this.#record));
  }

  #note(event: string, fields: Parameters<Logger['info']>[1]): void {
    this.#options.log.info(event, { cluster: this.#record.cluster, ...fields });
  }
}

/** A new cluster, not yet formed; its record is written before anything is reserved. */
export function createClusterRecord(folder: string, cluster: Hex, spec: ClusterSpec): ClusterRecord {
  const record: ClusterRecord = { version: 1, cluster, spec, phase: 'forming', leases: [], restartsUsed: 0, shunned: [] };
  writeFileDurably(recordPath(folder), JSON.stringify(record), { exclusive: true });
  return record;
}

/** The record of an earlier coordinator; undefined when there is none in that folder. */
export function readClusterRecord(folder: string): ClusterRecord | undefined {
  return existsSync(recordPath(folder)) ? (JSON.parse(readFileSync(recordPath(folder), 'utf8')) as ClusterRecord) : undefined;
}

const recordPath = (folder: string) => join(folder, 'cluster.json');
