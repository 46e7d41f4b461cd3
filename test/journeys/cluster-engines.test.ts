/**
 * A node whose owner chose Docker, gVisor or a farm of Swarm in its settings: offers name the engine, strangers' jobs and rentals run in it, and
 * where it cannot hold them to their limits they are refused. A Docker Engine of our own, in a network namespace; as root, with docker.io.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { listDeviceOffers, openRentalClient, reserveDevices, runJob } from '../../src/compute/index.ts';
import { surveyProviders } from '../../src/compute/jobs/choose-provider.ts';
import { STABLE, startTestLeases, type TestLeaseNode, type TestLeases, until } from '../../src/compute/leases/lease-fixture.ts';
import type { ComputePart } from '../../src/compute/part.ts';
import { parseJob } from '../../src/compute/spec/parse-job.ts';
import { linuxPrograms } from '../../src/host/abuse.cases.ts';
import { executorCases } from '../../src/host/executor.cases.ts';
import { cidOfDigest, type Executor } from '../../src/host/index.ts';
import { makeRootArchive } from '../../src/host/root-file-system.cases.ts';
import { dockerFilter } from '../../src/host/seccomp-filter.ts';
import { startComputeRole } from '../../src/node/compute-role.ts';
import { type ComputeSettings, openEngines } from '../../src/node/index.ts';
import { FOREIGN } from '../suite.ts';
import { missingForHosts, startHosts, type TestHost, type TestHosts } from './cluster-hosts.ts';

const missing = missingForHosts(['dockerd', 'docker', 'ip', 'nsenter']);
if (missing !== undefined) process.stdout.write(`cluster-engines is skipped: ${missing}\n`);
const skip = missing === undefined ? undefined : `${FOREIGN}${missing}`;

const folder = mkdtempSync(join(tmpdir(), 'millrace-engines-'));
let hosts: TestHosts;
let host: TestHost;
let network: TestLeases;
let node: TestLeaseNode;
let archive: string;
let cid: string;

before(async () => {
  if (skip !== undefined) return;
  execFileSync('chmod', ['755', folder]);
  const profile = join(folder, 'filter.json');
  writeFileSync(profile, JSON.stringify(dockerFilter()));
  hosts = await startHosts(folder, 1, '10.77.6');
  host = hosts.hosts[0] as TestHost;
  await host.startEngine(['--seccomp-profile', profile, '--no-new-privileges']);
  archive = makeRootArchive(folder);
  cid = cidOfDigest(createHash('sha256').update(readFileSync(archive)).digest());
  network = await startTestLeases();
  node = await network.startNode(0);
});
after(async () => {
  await network?.stop();
  await hosts?.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
});

/** The node anew, with other settings. */
async function startRole(compute: ComputeSettings): Promise<ComputePart> {
  await node.stopParts();
  const dataFolder = join(folder, 'data');
  mkdirSync(dataFolder, { recursive: true });
  const begin = async (context: TestLeaseNode['context']) =>
    (await startComputeRole({ ...context, dataFolder, compute: { jobTimeMax: '5m', ...compute } })) as unknown as ComputePart;
  return await node.start(begin);
}

async function offerOfJobs() {
  const [candidate] = await surveyProviders(network.client, { log: network.log });
  return candidate?.offer;
}

/** Runs a command in the image as a stranger's job, through the whole protocol; gives what it left. */
async function jobIn(command: string): Promise<string> {
  const { client, renter } = network;
  const request = parseJob(
    `{job: 1, image: ${cid}, command: [/bin/sh, -c, '${command}'], check: {class: none}, outputs: [said], limits: {time: 60s, memory: 64MiB, cpus: 0.5, disk: 1MiB, processes: 16}}`,
  );
  const outputFolder = mkdtempSync(join(folder, 'output-'));
  const result = await runJob({
    ...{ client, signer: renter.signer, sending: (use: Parameters<Parameters<typeof runJob>[0]['sending']>[0]) => use(renter.sender) },
    ...{ folder: renter.folder, name: 'engines', spec: request.spec, needs: request.needs, token: 'stable', lowerable: true },
    ...{ auditors: 1, samples: 2, files: { [cid]: archive }, outputFolder },
  } as Parameters<typeof runJob>[0]);
  assert.equal(result.end, 'exit 0');
  return readFileSync(join(outputFolder, 'said'), 'utf8');
}

const docker = (...args: string[]) => execFileSync('docker', ['-H', `unix://${host.socketPath}`, ...args], { encoding: 'utf8' }).trim();

/** How many containers the engine has started. */
const starts = () =>
  docker('events', '--since', '24h', '--until', '0s', '--filter', 'type=container', '--filter', 'event=start', '--format', 'started')
    .split('\n')
    .filter((line) => line === 'started').length;

if (skip === undefined) {
  executorCases('an engine of Docker that a node’s settings name', async () => {
    const [executor] = await openEngines({ computeEngine: 'docker', engineSocket: host.socketPath }, join(folder, 'suite'));
    const image = await (executor as Executor).importImage(archive);
    return { executor: executor as Executor, ...linuxPrograms(image), leftovers: () => [] };
  });
}

test('with Docker: the offers say so, a stranger’s job of an image and a rental run in containers', { skip }, async () => {
  const settings = { computeEngine: 'docker', engineSocket: host.socketPath, leaseImage: archive };
  await startRole(settings);
  const offer = await offerOfJobs();
  assert.deepEqual([offer?.engine, offer?.programs], ['docker', ['module', 'image']]);
  const before = starts();
  const said = await jobIn('test -e /usr/bin/perl && ! test -e /usr/bin/env && echo in a container >/output/said');
  assert.equal(said, 'in a container\n');
  assert.ok(starts() > before, 'the engine started a container for it');

  await until('a device on offer', async () => (await listDeviceOffers(network.client)).some(({ document }) => document !== undefined));
  const [device] = await listDeviceOffers(network.client);
  assert.equal(device?.document?.engine, 'docker');
  const { client, renter } = network;
  const wish = { count: 1, seconds: 120, token: 'stable' as const, priceMax: 10n * STABLE, isInterruptible: false, collateralMin: 0n };
  const [lease] = await reserveDevices({ client, sender: renter.sender, wish });
  const rental = await openRentalClient(client, { leaseId: lease?.leaseId as bigint, signer: renter.signer });
  await until('the rental answers', () => rental.probe());
  let heard = '';
  const hear = (bytes: Uint8Array) => {
    heard += Buffer.from(bytes).toString();
  };
  const code = await rental.exec(
    { argv: ['/bin/sh', '-c', 'test -e /usr/bin/env || echo none; id -u; exit 3'] },
    { stdout: hear, stderr: hear },
  );
  assert.deepEqual([code, heard.split('\n')[0]], [3, 'none'], heard);
  assert.ok(Number(heard.split('\n')[1]) > 1_000_000_000, 'a user that owns nothing');
  assert.equal(docker('ps', '-q').split('\n').length, 1, 'the rental is a container');
});

test('with gVisor where its runtime is missing: images and rentals are not on offer, modules are, and the log and status say why', {
  skip,
}, async () => {
  const role = await startRole({ computeEngine: 'gvisor', engineSocket: host.socketPath });
  const offer = await offerOfJobs();
  const hasRuntime = JSON.parse(docker('info', '--format', '{{json .Runtimes}}')).runsc !== undefined;
  if (!hasRuntime) assert.deepEqual([offer?.engine, offer?.programs], ['none', ['module']]);
  const status = (await role.status()) as { jobs: { engine: string }; leases: { devices: unknown[] } };
  assert.deepEqual([status.jobs.engine, status.leases.devices], [offer?.engine, []]);
});

test('with a farm of Swarm: strangers are refused until the owner’s program holds folders to a size, then their jobs run there', {
  skip,
}, async () => {
  docker('swarm', 'init', '--advertise-addr', host.address);
  const shared = join(folder, 'shared');
  mkdirSync(shared, { mode: 0o711 });
  const settings = { computeEngine: 'swarm', engineSocket: host.socketPath, engineFolder: shared, leases: 'no' };
  await startRole(settings);
  assert.deepEqual((await offerOfJobs())?.programs, ['module']);
  const hold = join(folder, 'hold');
  const script = [
    '#!/bin/sh',
    'set -e',
    'case $1 in',
    '  hold) mount -t tmpfs -o "size=$3,mode=0711,nosuid,nodev" millrace "$2" ;;',
    '  release) umount -l "$2" ;;',
    'esac',
  ];
  writeFileSync(hold, `${script.join('\n')}\n`, { mode: 0o755 });
  await startRole({ ...settings, engineHold: hold });
  const offer = await offerOfJobs();
  assert.deepEqual([offer?.engine, offer?.programs], ['swarm', ['module', 'image']]);
  assert.equal(await jobIn('echo on the farm >/output/said'), 'on the farm\n');
  const left = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  assert.deepEqual(
    left.filter((line) => line.includes(shared)),
    [],
    'the program released what it held',
  );
});
