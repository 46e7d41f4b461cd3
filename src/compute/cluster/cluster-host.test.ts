/**
 * Two nodes of two operators on one machine: real namespaces, WireGuard, processes in the mesh and signed requests over pinned TLS. What stands in
 * for the rest: a chain of two leases, and an engine that runs a rental's programs as plain processes in its network, without a sandbox.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Address } from 'viem';
import { FOREIGN } from '../../../test/suite.ts';
import { createSigner, type Signer } from '../../chain/index.ts';
import { contentDigest, openTransportIdentity, type PeerServer, peerFetch, signRequest, startPeerServer } from '../../connect/index.ts';
import { createNetNamespace, type Executor, enterNamespace, inspectWireguard, type JobResult } from '../../host/index.ts';
import { silentLogger } from '../../log.ts';
import { createCapacity } from '../capacity.ts';
import type { ClusterChain, LeaseTerms } from './cluster-chain.ts';
import { ClusterHost } from './cluster-host.ts';
import { type ClusterNode, openClusterNode } from './cluster-node.ts';
import { clusterRoutes } from './cluster-routes.ts';
import { parseClusterSpec } from './cluster-spec.ts';
import { roomOfCapacity } from './lease-room.ts';
import { type MeshKey, type SignedMemberList, signMemberList } from './member-list.ts';

const { kind, missing } = await inspectWireguard();
const skip = kind === undefined ? `${FOREIGN}${missing.map(({ what }) => what).join(', ')}` : false;
const cluster = `0x${Buffer.from(`test ${process.pid}`).toString('hex').padEnd(64, '0')}` as const;
const agent = createSigner(`0x${'11'.repeat(32)}`);
const stranger = createSigner(`0x${'33'.repeat(32)}`);
const nodeKeys = [createSigner(`0x${'21'.repeat(32)}`), createSigner(`0x${'22'.repeat(32)}`)] as const;
const limits = { memoryBytes: 1 << 28, cpus: 1, processes: 64, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 1 << 20 };
const spec = parseClusterSpec({
  version: 1,
  image: `sha256:${'0'.repeat(64)}`,
  argv: ['/bin/sh', '-c', 'echo rank $RANK of $WORLD_SIZE at $MASTER_ADDR; sleep 60'],
  processes: 2,
  machines: 2,
  limits,
  checkpointBytesMax: 1 << 20,
});

const leaseOf = (leaseId: string, operatorId: bigint, changes: Partial<LeaseTerms> = {}): LeaseTerms => ({
  leaseId,
  deviceId: leaseId,
  operatorId,
  agent: agent.address,
  from: 0n,
  until: 1_000n,
  ...changes,
});
const leases = [
  leaseOf('1', 1n),
  leaseOf('2', 2n),
  leaseOf('3', 1n, { agent: stranger.address }),
  leaseOf('4', 1n, { until: 100n }),
  leaseOf('5', 2n, { agent: stranger.address }),
  leaseOf('6', 1n, { from: 561n }),
  leaseOf('7', 1n, { from: 520n, until: 520n }),
];
const chain: ClusterChain = {
  domain: { chainId: 31_337, market: '0x00000000000000000000000000000000000000c0' },
  now: async () => 500n,
  lease: async (leaseId) => leases.find((lease) => lease.leaseId === leaseId) as LeaseTerms,
  nodeKeyOf: async (operatorId) => (nodeKeys[Number(operatorId) - 1] as Signer).address as Address,
  peerOf: async () => ({ endpoint: '', transportKey: '' }),
};

/** Programs as plain processes in the rental's network: enough to see what they are told. */
function bareExecutor(): Executor {
  return {
    engine: 'docker',
    inspect: async () => ({ engine: 'bare', version: '0', takesForeign: true, missing: [], isolation: [] }),
    importImage: async () => '',
    openNetwork: async (name) => {
      const namespace = await createNetNamespace(name);
      return { namespace, holder: undefined, close: namespace.remove };
    },
    run: (job, { onLog, signal } = {}) =>
      new Promise<JobResult>((resolve) => {
        const [program, ...args] = enterNamespace(job.rental?.network.namespace.path as string, job.argv);
        const child = spawn(program, args, { env: { PATH: '/usr/bin:/bin', ...job.env }, detached: true });
        child.stdout.on('data', (bytes) => onLog?.({ stream: 'stdout', bytes }));
        const end = () => {
          if (child.exitCode === null && child.signalCode === null) process.kill(-(child.pid as number), 'SIGKILL');
        };
        signal?.addEventListener('abort', end, { once: true });
        const usage = { wallMs: 0, cpuMs: undefined, memoryBytesPeak: undefined, processesRefused: undefined, outputBytes: 0 };
        child.once('close', () =>
          resolve({ reason: 'cancelled', exitCode: undefined, signal: 9, usage, artefacts: [], detail: undefined }),
        );
      }),
    close: async () => {},
  };
}

const folder = mkdtempSync(join(tmpdir(), 'millrace-cluster-host-'));
const hosts: ClusterHost[] = [];
const servers: PeerServer[] = [];
const peers: { endpoint: string; transportKey: string }[] = [];

const hostOptions = (index: 0 | 1) => ({
  chain,
  operatorId: BigInt(index + 1),
  signer: nodeKeys[index],
  executor: bareExecutor(),
  provideImage: async (image: string) => image,
  folder: join(folder, `node-${index}`, 'clusters'),
  publicHost: '127.0.0.1',
  room: roomOfCapacity(createCapacity({ cpus: 4, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, processes: 100 })),
  log: silentLogger,
});

const nodeFor = (index: 0 | 1, signer: Signer = agent): ClusterNode => openClusterNode(peers[index] as (typeof peers)[0], cluster, signer);

before(async () => {
  if (skip !== false) return;
  for (const index of [0, 1] as const) {
    const host = new ClusterHost(hostOptions(index));
    await host.start();
    hosts.push(host);
    const routes = clusterRoutes(host);
    const identity = await openTransportIdentity(join(folder, `node-${index}`));
    const server = await startPeerServer({ port: 0, identity, fetch: (request) => routes.fetch(request) });
    servers.push(server);
    peers.push({ endpoint: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey });
  }
});
after(async () => {
  for (const server of servers) await server.stop(0);
  for (const host of hosts) await host.close();
  rmSync(folder, { recursive: true, force: true });
});

const codeOf = async (work: Promise<unknown>) =>
  await work.then(
    () => 'none',
    (error: { code?: string }) => error.code,
  );

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, 'waited for a minute');
    await sleep(100);
  }
}

const join1 = { leaseId: '1', seat: 1, spec };
const join2 = { leaseId: '2', seat: 2, spec };
let keys: [MeshKey, MeshKey];
let signed: SignedMemberList;

test('whoever is not the agent of a lease of this operator that runs joins nothing', { skip }, async () => {
  assert.equal(await codeOf(nodeFor(0, stranger).join(join1)), 'cluster-refused');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, leaseId: '2' })), 'cluster-refused');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, leaseId: '3' })), 'cluster-refused');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, leaseId: '4' })), 'cluster-refused');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, leaseId: '6' })), 'cluster-refused', 'a lease that begins in more than a minute');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, leaseId: '7' })), 'cluster-refused', 'one that was ended before it began');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, spec: { ...spec, machines: 0 } })), 'bad-cluster-spec');
  assert.equal(await codeOf(nodeFor(0).join({ ...join1, spec: { ...spec, limits: { ...limits, cpus: 64 } } })), 'cluster-refused');
  assert.equal(await codeOf(nodeFor(0).status()), 'cluster-unknown');
  assert.deepEqual(hosts[0]?.clusters(), []);
});

test('a request that is unsigned, repeated, or signed for another body is refused', { skip }, async () => {
  const [peer] = peers as [(typeof peers)[0]];
  const path = `/v1/compute/clusters/${cluster}/join`;
  const body = JSON.stringify(join1);
  const post = async (headers: Record<string, string>, sent = body) => {
    const response = await peerFetch(peer, path, { method: 'POST', headers, body: sent });
    return ((await response.json()) as { code?: string }).code;
  };
  assert.equal(await post({}), 'signature-missing');
  const digest = { 'content-digest': contentDigest(body) };
  const url = new URL(path, peer.endpoint).href;
  const signature = await signRequest({ method: 'POST', url, headers: digest }, stranger, { covered: ['content-digest'] });
  assert.equal(await post({ ...digest, ...signature }, JSON.stringify(join2)), 'bad-cluster-call');
  assert.equal(await post({ ...digest, ...signature }), 'signature-replayed');
  const uncovered = await signRequest({ method: 'POST', url, headers: digest }, agent);
  assert.equal(await post({ ...digest, ...uncovered }), 'signature-malformed');
});

test('the agent joins both machines: each makes its own key; asked again it gives the same', { skip }, async () => {
  keys = [await nodeFor(0).join(join1), await nodeFor(1).join(join2)];
  assert.notEqual(keys[0].publicKey, keys[1].publicKey);
  assert.deepEqual(await nodeFor(0).join(join1), keys[0]);
  assert.equal(await codeOf(nodeFor(0, stranger).status()), 'cluster-unknown');
  const reserved = hosts.map((host) => host.clusters().length);
  assert.deepEqual(reserved, [1, 1]);
});

test('a list that the agent did not sign, or with a machine that took no lease of its, moves nobody', { skip }, async () => {
  const members = [
    { ...keys[0], ranks: [0] },
    { ...keys[1], ranks: [1] },
  ];
  const list = { cluster, version: 1, members };
  const refused = async (value: SignedMemberList) => assert.equal(await codeOf(nodeFor(0).setMembers(value)), 'bad-member-list');
  await refused(await signMemberList(list, chain.domain, stranger));
  await refused(await signMemberList({ ...list, members: members.slice(1).map((each) => ({ ...each, ranks: [0] })) }, chain.domain, agent));
  const redirected = { ...keys[1], ranks: [1], endpoint: '203.0.113.7:53' };
  await refused(await signMemberList({ ...list, members: [members[0] as (typeof members)[0], redirected] }, chain.domain, agent));
  const foreign = { ...keys[1], ranks: [1], leaseId: '5' };
  await refused(await signMemberList({ ...list, members: [members[0] as (typeof members)[0], foreign] }, chain.domain, agent));
  // Its agent signs a list with 24 ranks on a machine that has room for one, and one with all of the cluster's on it.
  const [own, peer] = members as [(typeof members)[0], (typeof members)[0]];
  const many = Array.from({ length: 24 }, (_, rank) => rank);
  const overfull = [
    [
      { ...own, ranks: many },
      { ...peer, ranks: [24] },
    ],
    [{ ...own, ranks: [0, 1] }],
    [
      { ...own, ranks: [0, 1] },
      { ...peer, ranks: [] },
    ],
  ];
  for (const ranked of overfull) await refused(await signMemberList({ ...list, members: ranked }, chain.domain, agent));
  assert.equal((await nodeFor(0).status()).version, 0);
  signed = await signMemberList(list, chain.domain, agent);
});

test('with the list the machines hear each other, and their programs are told their places', { skip }, async () => {
  await Promise.all([nodeFor(0).setMembers(signed), nodeFor(1).setMembers(signed)]);
  await until(async () => (await nodeFor(0).log(0, 0)).text !== '' && (await nodeFor(1).log(1, 0)).text !== '');
  assert.equal((await nodeFor(0).log(0, 0)).text, 'rank 0 of 2 at 10.90.0.1\n');
  assert.equal((await nodeFor(1).log(1, 0)).text, 'rank 1 of 2 at 10.90.0.1\n');
  const { next } = await nodeFor(1).log(1, 0);
  assert.deepEqual(await nodeFor(1).log(1, next), { text: '', next });
  await until(
    async () => ((await nodeFor(0).status()).heardMs[2] ?? 1e9) < 2_000 && ((await nodeFor(1).status()).heardMs[1] ?? 1e9) < 2_000,
  );
  assert.deepEqual(await nodeFor(1).members(), signed);
});

test('a checkpoint of one machine is on the other, and of many only the newest stay', { skip }, async () => {
  const at = (index: number) => join(folder, `node-${index}`, 'clusters', cluster.slice(2), 'checkpoints');
  writeFileSync(join(at(0), 'step-1'), 'first');
  writeFileSync(join(at(0), 'step-2.tmp'), 'half');
  await until(async () => existsSync(join(at(1), 'step-1')));
  assert.equal(readFileSync(join(at(1), 'step-1'), 'utf8'), 'first');
  for (const step of [3, 4, 5]) writeFileSync(join(at(1), `step-${step}`), String(step));
  await until(async () => existsSync(join(at(0), 'step-5')) && !existsSync(join(at(1), 'step-3')));
  assert.ok(!existsSync(join(at(1), 'step-2.tmp')));
  await until(async () => (await nodeFor(0).status()).newest?.name === 'step-5');
});

test('an older list than its own changes nothing, a later one starts the programs anew', { skip }, async () => {
  const { members } = signed.list;
  const later = await signMemberList({ ...signed.list, version: 3 }, chain.domain, agent);
  await Promise.all([nodeFor(0).setMembers(later), nodeFor(1).setMembers(later)]);
  await until(async () => (await nodeFor(0).log(0, 0)).text.split('rank').length === 3);
  await nodeFor(0).setMembers(await signMemberList({ cluster, version: 2, members }, chain.domain, agent));
  assert.equal((await nodeFor(0).status()).version, 3);
});

test('a node that starts anew has the same key and port, and takes part again with the next list', { skip }, async () => {
  await hosts[1]?.close();
  const host = new ClusterHost(hostOptions(1));
  await host.start();
  hosts[1] = host;
  const routes = clusterRoutes(host);
  await servers[1]?.stop(0);
  const identity = await openTransportIdentity(join(folder, 'node-1'));
  const server = await startPeerServer({
    port: Number(new URL(peers[1]?.endpoint as string).port),
    identity,
    fetch: (request) => routes.fetch(request),
  });
  servers[1] = server;
  // A connection that was kept from before is found closed once.
  await until(async () => (await codeOf(nodeFor(1).join(join2))) === 'none');
  assert.deepEqual(await nodeFor(1).join(join2), keys[1]);
  assert.equal((await nodeFor(1).status()).version, 0);
  const next = await signMemberList({ ...signed.list, version: 4 }, chain.domain, agent);
  await Promise.all([nodeFor(0).setMembers(next), nodeFor(1).setMembers(next)]);
  await until(async () => ((await nodeFor(0).status()).heardMs[2] ?? 1e9) < 2_000 && (await nodeFor(1).log(1, 0)).text !== '');
});

test('who leaves leaves nothing: no process, no network, no file, and what was set aside is free', { skip }, async () => {
  await nodeFor(0).leave();
  await nodeFor(1).leave();
  assert.equal(await codeOf(nodeFor(0).status()), 'cluster-unknown');
  for (const index of [0, 1]) {
    assert.ok(!existsSync(join(folder, `node-${index}`, 'clusters', cluster.slice(2))));
    assert.ok(!existsSync(`/run/netns/mr-${cluster.slice(2, 10)}-${index + 1}`));
  }
});
