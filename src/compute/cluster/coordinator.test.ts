/**
 * The coordinator in a simulated world: time, market, machines and their failures are the test's, so that hours pass in a second and each run can be
 * repeated from its seed. The real parts meet in the journey `cluster`.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Hex } from 'viem';
import { campaignSeed, rounds } from '../../../test/campaign.ts';
import { createSigner, type Signer } from '../../chain/index.ts';
import type { Clock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { silentLogger } from '../../log.ts';
import type { ClusterMarket, GangRequest, LeaseTerms } from './cluster-chain.ts';
import type { ClusterNode } from './cluster-node.ts';
import { parseClusterSpec } from './cluster-spec.ts';
import { Coordinator, createClusterRecord, readClusterRecord } from './coordinator.ts';
import { isListSignedBy, type MeshKey, type SignedMemberList, signMeshKey, supersedes } from './member-list.ts';
import type { MemberStatus } from './member-status.ts';
import type { ProcessState } from './replacement.ts';
import { QUICK_PATIENCE } from './replacement.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-coordinator-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const cluster: Hex = `0x${'cd'.repeat(32)}`;
const domain = { chainId: 31_337, market: '0x00000000000000000000000000000000000000c0' as const };
const agent = createSigner(`0x${'11'.repeat(32)}`);
const MACHINES = 3;
const OPERATORS = 14;
const DONE_AFTER_MS = 60_000;
const limits = { memoryBytes: 1 << 28, cpus: 1, processes: 64, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 1 << 20 };
const spec = parseClusterSpec({
  version: 1,
  image: `sha256:${'0'.repeat(64)}`,
  argv: ['/train'],
  processes: 4,
  machines: MACHINES,
  limits,
  checkpointBytesMax: 1 << 20,
});

/** Time that passes when everybody waits. */
class SimulatedClock implements Clock {
  #nowMs = 0;
  #sleepers: { atMs: number; wake: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#sleepers.push({ atMs: this.#nowMs + ms, wake: resolve });
    });
  }

  /** Lets time pass until something is so. */
  async passUntil(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      for (let turn = 0; turn < 12; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      this.#sleepers.sort((one, other) => one.atMs - other.atMs);
      const next = this.#sleepers.shift();
      if (next === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.wake();
    }
  }
}

interface Machine {
  operatorId: bigint;
  signer: Signer;
  isAlive: boolean;
  /** Says that every rank of the cluster has completed. */
  isLying: boolean;
  part: { key: MeshKey; signed: SignedMemberList | undefined; sinceMs: number } | undefined;
}

/** Machines and a market. What breaks a law is noted as it happens. */
class World {
  readonly clock = new SimulatedClock();
  readonly machines: Machine[];
  readonly leases: (LeaseTerms & { isEnded: boolean })[] = [];
  readonly #made = new Map<string, LeaseTerms[]>();
  readonly lists: SignedMemberList[] = [];
  /** The next call of the market does its work, and the caller is killed before it hears of it. */
  isKillingInReserve = false;

  constructor() {
    this.machines = Array.from({ length: OPERATORS }, (_, index) => ({
      operatorId: BigInt(index + 1),
      signer: createSigner(`0x${(index + 100).toString(16).padStart(64, '0')}`),
      isAlive: true,
      isLying: false,
      part: undefined,
    }));
  }

  machineOf(operatorId: bigint): Machine {
    return this.machines[Number(operatorId) - 1] as Machine;
  }

  market(): ClusterMarket {
    const lease = async (leaseId: string) => this.leases[Number(leaseId) - 1] as LeaseTerms;
    return {
      domain,
      now: async () => BigInt(Math.floor(this.clock.nowMs() / 1000)),
      lease,
      nodeKeyOf: async (operatorId) => this.machineOf(operatorId).signer.address,
      peerOf: async () => ({ endpoint: 'https://nowhere', transportKey: '0x' }),
      findMachines: async ({ count, withoutOperators }) => {
        const taken = this.leases.filter(({ isEnded }) => !isEnded).map(({ operatorId }) => operatorId);
        const free = this.machines.filter(({ operatorId }) => !withoutOperators.includes(operatorId) && !taken.includes(operatorId));
        if (free.length < count) throw new MillraceError('cluster-short', { actor: 'peer', message: 'the market is empty' });
        return { count, from: String(this.clock.nowMs()), devices: free.map(({ operatorId }) => String(operatorId)) };
      },
      reserve: async (request, key) => this.#reserve(request, key),
      end: async (leaseId) => {
        (this.leases[Number(leaseId) - 1] as { isEnded: boolean }).isEnded = true;
      },
    };
  }

  #reserve({ count, devices }: GangRequest, key: string): LeaseTerms[] {
    const made = this.#made.get(key) ?? devices.slice(0, count).map((device) => this.#open(device));
    this.#made.set(key, made);
    if (!this.isKillingInReserve) return made;
    this.isKillingInReserve = false;
    throw new MillraceError('simulated-kill', { actor: 'host', message: 'killed before the answer came' });
  }

  #open(deviceId: string): LeaseTerms {
    const lease = {
      leaseId: String(this.leases.length + 1),
      deviceId,
      operatorId: BigInt(deviceId),
      agent: agent.address,
      from: 0n,
      until: 10n ** 9n,
      isEnded: false,
    };
    assert.ok(!this.leases.some((each) => !each.isEnded && each.deviceId === deviceId), 'a device is leased once at a time');
    this.leases.push(lease);
    return lease;
  }

  async nodeOf(operatorId: bigint): Promise<ClusterNode> {
    const machine = this.machineOf(operatorId);
    const reached = () => {
      if (!machine.isAlive) throw new MillraceError('peer-unreachable', { actor: 'peer', message: 'silent' });
    };
    const partOf = () => {
      reached();
      if (machine.part === undefined) throw new MillraceError('cluster-unknown', { actor: 'caller', message: 'no part' });
      return machine.part;
    };
    return {
      join: async ({ leaseId, seat }) => {
        reached();
        const unsigned = { cluster, leaseId, seat, publicKey: `${leaseId.padStart(43, 'A')}=`, endpoint: `m${operatorId}:1` };
        if (machine.part?.key.leaseId !== leaseId) {
          machine.part = { key: await signMeshKey(unsigned, domain, machine.signer), signed: undefined, sinceMs: 0 };
        }
        return machine.part.key;
      },
      setMembers: async (signed) => {
        const part = partOf();
        assert.ok(isListSignedBy(agent.address, signed, domain));
        this.lists.push(structuredClone(signed));
        if (supersedes(signed.list, part.signed?.list)) Object.assign(part, { signed, sinceMs: this.clock.nowMs() });
      },
      members: async () => partOf().signed,
      status: async () => this.#statusOf(partOf()),
      log: async () => ({ text: '', next: 0 }),
      exec: async () => ({ exitCode: 0, output: '' }),
      leave: async () => {
        reached();
        machine.part = undefined;
      },
    };
  }

  /** Programs are done when all machines of a version have been there for a minute; they fail when one is missing, as with gloo. */
  #statusOf({ key, signed, sinceMs }: NonNullable<Machine['part']>): MemberStatus {
    const members = signed?.list.members ?? [];
    const own = members.find(({ seat }) => seat === key.seat);
    const living = members.filter(({ leaseId, seat }) => {
      const machine = this.machineOf((this.leases[Number(leaseId) - 1] as LeaseTerms).operatorId);
      return machine.isAlive && machine.part?.key.seat === seat && machine.part.signed?.list.version === signed?.list.version;
    });
    const ageMs = this.clock.nowMs() - sinceMs;
    const isWhole = living.length === members.length;
    const state = ageMs < 3_000 ? 'running' : !isWhole ? 'failed' : ageMs >= DONE_AFTER_MS ? 'completed' : 'running';
    const isLying = own !== undefined && this.machineOf((this.leases[Number(own.leaseId) - 1] as LeaseTerms).operatorId).isLying;
    const honest = (own?.ranks ?? []).map(
      (rank): ProcessState => (state === 'running' ? { rank, state } : { rank, state: 'ended', reason: state }),
    );
    const lies = members.flatMap(({ ranks }) => ranks).map((rank): ProcessState => ({ rank, state: 'ended', reason: 'completed' }));
    return {
      seat: key.seat,
      version: signed?.list.version ?? 0,
      wireguard: 'userspace',
      processes: isLying ? lies : honest,
      heardMs: Object.fromEntries(
        members.filter((each) => each.seat !== key.seat).map((each) => [each.seat, living.includes(each) ? 400 : 60_000]),
      ),
      newest: undefined,
      isLeaving: false,
      trouble: undefined,
    };
  }
}

/** Runs a coordinator from what lies in its folder, until it ends or is stopped. */
function startCoordinator(world: World, path: string, turn = 0) {
  const record = readClusterRecord(path) ?? createClusterRecord(path, cluster, spec);
  const options = {
    folder: path,
    market: world.market(),
    signer: agent,
    patience: QUICK_PATIENCE,
    turn,
    clock: world.clock,
    log: silentLogger,
  };
  const coordinator = new Coordinator({ ...options, nodeOf: (operatorId) => world.nodeOf(operatorId) }, record);
  const stop = new AbortController();
  const state = { coordinator, isOver: false, error: undefined as unknown, kill: () => stop.abort(new Error('killed')) };
  coordinator.run(stop.signal).then(
    () => (state.isOver = true),
    (error) => Object.assign(state, { isOver: true, error }),
  );
  return state;
}

function checkLaws(world: World): void {
  const versions = new Map<number, string>();
  for (const { list } of world.lists) {
    const text = JSON.stringify(list);
    assert.equal(versions.get(list.version) ?? text, text, 'one coordinator signs one list of a version');
    versions.set(list.version, text);
    const ranks = list.members.flatMap((member) => member.ranks).sort();
    assert.deepEqual(ranks, [0, 1, 2, 3], 'each rank is on one machine');
    const operators = list.members.map(({ leaseId }) => (world.leases[Number(leaseId) - 1] as LeaseTerms).operatorId);
    assert.equal(new Set(operators).size, operators.length, 'machines of different operators');
  }
}

const isDone = ({ coordinator, isOver }: ReturnType<typeof startCoordinator>) => isOver && coordinator.record.phase === 'finished';

const random = (seed: number) => {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
};

test('nothing goes wrong: three machines, one list, all leases ended when the program is done', async () => {
  const world = new World();
  const path = join(folder, 'quiet');
  const run = startCoordinator(world, path);
  await world.clock.passUntil(() => run.isOver);
  assert.equal(run.coordinator.record.phase, 'finished');
  assert.deepEqual([world.leases.length, run.coordinator.record.signed?.list.version], [MACHINES, 1]);
  assert.ok(world.leases.every(({ isEnded }) => isEnded));
  await assert.rejects(run.coordinator.nodeOfRank(0), { code: 'cluster-over' });
  checkLaws(world);
});

test('a machine that says of all ranks that they have completed ends nothing: of ranks of others it has nothing to say', async () => {
  const world = new World();
  world.machineOf(2n).isLying = true;
  const run = startCoordinator(world, join(folder, 'liar'));
  await world.clock.passUntil(() => run.isOver);
  assert.equal(run.coordinator.record.phase, 'finished');
  assert.ok(world.clock.nowMs() >= DONE_AFTER_MS, `finished after ${world.clock.nowMs()} ms`);
  checkLaws(world);
});

test('a lost machine is replaced within four seconds of the world’s time, with its ranks, and its lease ended', async () => {
  const world = new World();
  const run = startCoordinator(world, join(folder, 'one-loss'));
  await world.clock.passUntil(() => world.clock.nowMs() > 10_000);
  world.machineOf(1n).isAlive = false;
  const lostMs = world.clock.nowMs();
  await world.clock.passUntil(() => (run.coordinator.record.signed?.list.version ?? 0) === 2);
  assert.ok(world.clock.nowMs() - lostMs < 4_000, `${world.clock.nowMs() - lostMs} ms`);
  const ranks = run.coordinator.record.signed?.list.members.map((member) => [member.seat, member.ranks]);
  assert.deepEqual(ranks, [
    [2, [2]],
    [3, [3]],
    [4, [0, 1]],
  ]);
  await world.clock.passUntil(() => run.isOver);
  assert.ok(world.leases.every(({ isEnded }) => isEnded));
  checkLaws(world);
});

test('a coordinator that is killed within a reservation has reserved once: the next one uses it', async () => {
  const world = new World();
  const path = join(folder, 'killed');
  world.isKillingInReserve = true;
  const first = startCoordinator(world, path);
  await world.clock.passUntil(() => first.isOver);
  assert.equal((first.error as MillraceError).code, 'simulated-kill');
  const second = startCoordinator(world, path);
  await world.clock.passUntil(() => second.isOver);
  assert.equal(second.coordinator.record.phase, 'finished');
  assert.equal(world.leases.length, MACHINES);
  checkLaws(world);
});

test('a market without a spare is asked again until it has one', async () => {
  const world = new World();
  const run = startCoordinator(world, join(folder, 'short'));
  await world.clock.passUntil(() => world.clock.nowMs() > 10_000);
  const others = world.machines.slice(MACHINES);
  const market = world.machines.splice(MACHINES);
  world.machineOf(2n).isAlive = false;
  await world.clock.passUntil(() => world.clock.nowMs() > 40_000);
  assert.equal(run.coordinator.record.signed?.list.version, 1);
  world.machines.push(...market);
  assert.equal(others.length, market.length);
  await world.clock.passUntil(() => run.isOver);
  assert.equal(run.coordinator.record.phase, 'finished');
  checkLaws(world);
});

test('two coordinators of one renter: the stand-in does nothing while the first one acts, and takes over what is there when it is gone', async () => {
  const world = new World();
  const [one, two] = [join(folder, 'first'), join(folder, 'stand-in')];
  const first = startCoordinator(world, one);
  await world.clock.passUntil(() => first.coordinator.record.phase === 'running');
  mkdirSync(two);
  copyFileSync(join(one, 'cluster.json'), join(two, 'cluster.json'));
  const second = startCoordinator(world, two, 1);
  world.machineOf(3n).isAlive = false;
  await world.clock.passUntil(() => (second.coordinator.record.signed?.list.version ?? 0) === 2);
  assert.deepEqual(second.coordinator.record.signed, first.coordinator.record.signed);
  assert.equal(world.leases.length, MACHINES + 1, 'one replacement');
  first.kill();
  world.machineOf(1n).isAlive = false;
  await world.clock.passUntil(() => second.isOver);
  assert.equal(second.coordinator.record.phase, 'finished');
  assert.equal(world.leases.length, MACHINES + 2);
  assert.ok(world.leases.every(({ isEnded }) => isEnded));
  checkLaws(world);
});

test('machines that fail and coordinators that are killed at random times: the program ends, nothing is reserved twice, no lease stays', async () => {
  for (let round = 0; round < rounds(60); round += 1) {
    const next = random(campaignSeed() + round * 7_919);
    const world = new World();
    const path = join(folder, `random-${round}`);
    let run = startCoordinator(world, path);
    let losses = 0;
    while (!isDone(run)) {
      const untilMs = world.clock.nowMs() + 1_000 + next() * 30_000;
      await world.clock.passUntil(() => world.clock.nowMs() >= untilMs || run.isOver);
      const isKilled = run.isOver || next() < 0.3;
      if (isDone(run)) break;
      if (isKilled) {
        run.kill();
        await world.clock.passUntil(() => run.isOver);
        run = startCoordinator(world, path);
      }
      if (next() < 0.3) world.isKillingInReserve = true;
      const members = run.coordinator.record.signed?.list.members ?? [];
      const victim = members[Math.floor(next() * members.length)];
      if (victim !== undefined && losses < 6) {
        losses += 1;
        world.machineOf((world.leases[Number(victim.leaseId) - 1] as LeaseTerms).operatorId).isAlive = false;
      }
    }
    await world.clock.passUntil(() => run.isOver);
    assert.equal(run.coordinator.record.phase, 'finished', `round ${round}`);
    assert.ok(
      world.leases.every(({ isEnded }) => isEnded),
      `round ${round}: a lease stayed`,
    );
    assert.ok(world.leases.length <= MACHINES + losses, `round ${round}: ${world.leases.length} leases for ${losses} losses`);
    checkLaws(world);
  }
});
