/**
 * Must show 3 of the compute network: three machines and a spare, a Docker Engine on each, one rental over a WireGuard mesh that trains with four
 * processes of torch over gloo; a machine is lost, replaced from the market, and the training goes on from its checkpoint. The coordinator is
 * killed too. The machines are network namespaces of this one (see cluster-hosts.ts): they share its two processors.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { stringToHex, toHex } from 'viem';
import { developmentSigner } from '../../src/chain/index.ts';
import { createSigner } from '../../src/chain/signer.ts';
import { type ClusterNode, openClusterNode, readClusterChain, readClusterRecord } from '../../src/compute/index.ts';
import { openTransportIdentity } from '../../src/connect/index.ts';
import { CLIENT_INDEX } from '../../src/node/index.ts';
import { registerOperator, startTestMarket, type TestMarket, TOKEN, until } from '../../src/storage/market/market-fixture.ts';
import { FOREIGN } from '../suite.ts';
import { missingForHosts, startHosts, type TestHost, type TestHosts } from './cluster-hosts.ts';
import type { ClusterNodeSettings } from './cluster-node-child.ts';
import { NODE } from './local-network.ts';
import { type Person, person } from './person.ts';
import { makeTorchImage, missingForTorch, trainAlone } from './torch-image.ts';

const NODE_CHILD = fileURLToPath(new URL('./cluster-node-child.ts', import.meta.url));
const NODE_PORT = 9300;
const DEVICE_CLASS = 'journey-cpu';
const MACHINES = 3;
const PROCESSES = 4;
const STEPS = 400;
/** The training waits at these steps until the named file is in its folder of checkpoints. */
const HOLDS = '60=first,300=second,380=third';
const RESUMED_SECONDS_MAX = 20;
const MIB = 1 << 20;

const missing = missingForHosts() ?? missingForTorch();
if (missing !== undefined) process.stdout.write(`cluster is skipped: ${missing}\n`);

test('a cluster of three machines trains on, after one of them is lost, with a machine from the market and the job’s own checkpoint', {
  skip: missing === undefined ? undefined : `${FOREIGN}${missing}`,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-cluster-'));
  const market = await startTestMarket({ idleSeconds: 1 });
  const hosts = await startHosts(folder, MACHINES + 1);
  const forward = await forwardChain(market, hosts.hubAddress);
  const started: ChildProcess[] = [];
  const say = (text: string) => context.diagnostic(text);
  try {
    const image = await startNodes({ folder, market, hosts, forward, started });
    const builder = await makeBuilder(folder, market, forward);
    const story = new Story({ folder, market, hosts, builder, image, say, started });
    await story.formAndTrain();
    await story.lookFromInside();
    await story.loseMachineOfRankZero();
    await story.loseCoordinator();
    await story.finishAndCompare();
  } finally {
    for (const child of started) child.kill('SIGKILL');
    await hosts.close();
    forward.server.close();
    await market.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

interface Forward {
  server: Server;
  rpcUrl: string;
}

/** The chain listens on this machine's loopback; the others reach it at the hub. */
async function forwardChain(market: TestMarket, hubAddress: string): Promise<Forward> {
  const { hostname, port } = new URL(market.chain.rpcUrl);
  const server = createServer((socket) => {
    const chain = connect(Number(port), hostname);
    socket.pipe(chain).pipe(socket);
    // Those of a machine whose plug was pulled are never closed by it, and nobody waits for them.
    for (const each of [socket, chain]) each.unref();
    for (const each of [socket, chain]) each.on('error', () => [socket, chain].map((end) => end.destroy()));
  });
  await new Promise<void>((resolve) => server.listen(0, hubAddress, resolve));
  return { server, rpcUrl: `http://${hubAddress}:${(server.address() as { port: number }).port}` };
}

/** Registers an operator for each machine, starts its engine and node, and puts it on offer. */
async function startNodes(parts: {
  folder: string;
  market: TestMarket;
  hosts: TestHosts;
  forward: Forward;
  started: ChildProcess[];
}): Promise<string> {
  const { folder, market, hosts, forward, started } = parts;
  const imageFolder = join(folder, 'images');
  mkdirSync(imageFolder);
  const archive = makeTorchImage(folder);
  writeFileSync(join(folder, 'network.json'), JSON.stringify(market.client.manifest));
  const images: string[] = [];
  // One after another: each unpacks the image, and all share one disk.
  for (const [index, host] of hosts.hosts.entries()) {
    await host.startEngine();
    const owner = market.senderOf(developmentSigner(20 + index, 'dev'));
    const privateKey = toHex(0x5eed00n + BigInt(index), { size: 32 });
    const nodeKey = createSigner(privateKey);
    await market.faucet.send({ to: nodeKey.address, value: TOKEN });
    const identity = await openTransportIdentity(host.folder);
    const endpoint = `https://${host.address}:${NODE_PORT}`;
    const operatorId = await registerOperator(market, { owner, nodeKey, endpoint, transportKey: identity.transportKey, index: index + 1 });
    const keyPath = join(host.folder, 'node.key');
    writeFileSync(keyPath, privateKey, { mode: 0o600 });
    const settings: ClusterNodeSettings = {
      rpcUrl: forward.rpcUrl,
      manifestPath: join(folder, 'network.json'),
      keyPath,
      operatorId: String(operatorId),
      folder: host.folder,
      host: host.address,
      port: NODE_PORT,
      socketPath: host.socketPath,
      imageFolder,
      warmImage: archive,
    };
    const ready = await startNode(host, settings, started);
    images.push(ready.image);
    const now = await market.client.now();
    const offer = {
      operatorId,
      from: now,
      until: now + 100_000n,
      interruptibleBps: 0,
      deviceClass: stringToHex(DEVICE_CLASS, { size: 32 }),
      attributes: stringToHex('journey', { size: 32 }),
      stablePrice: 0n,
      nativePrice: TOKEN + BigInt(index),
      collateral: TOKEN,
    };
    await owner.send({ contract: 'computeMarket', functionName: 'setOffer', args: [0n, offer] });
    owner.close();
  }
  copyFileSync(archive, join(imageFolder, `${(images[0] as string).slice(7)}.tar`));
  return images[0] as string;
}

async function startNode(host: TestHost, settings: ClusterNodeSettings, started: ChildProcess[]): Promise<{ image: string }> {
  const [program, ...first] = [...host.prefix, ...NODE, NODE_CHILD, JSON.stringify(settings)] as unknown as [string, ...string[]];
  const child = spawn(program, first, { stdio: ['ignore', 'pipe', 'inherit'] });
  started.push(child);
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const [line] = (await Promise.race([
    new Promise<string[]>((resolve) => lines.once('line', (text) => resolve([text]))),
    new Promise<never>((_, reject) => child.once('exit', (code) => reject(new TypeError(`the node of ${host.name} ended with ${code}`)))),
  ])) as [string];
  return JSON.parse(line) as { image: string };
}

async function makeBuilder(folder: string, market: TestMarket, forward: Forward): Promise<Person> {
  const builder = person(folder, 'builder');
  const { address } = developmentSigner(CLIENT_INDEX, 'dev');
  await market.faucet.send({ contract: 'computeToken', functionName: 'transfer', args: [address, 1_000n * TOKEN] });
  await builder.text('join', join(folder, 'network.json'), '--rpc-url', forward.rpcUrl);
  return builder;
}

interface StoryParts {
  folder: string;
  market: TestMarket;
  hosts: TestHosts;
  builder: Person;
  image: string;
  say: (text: string) => void;
  started: ChildProcess[];
}

/** A line that a process of the training printed. */
interface TrainingLine {
  generation: number;
  rank: number;
  text: string;
}

class Story {
  readonly #parts: StoryParts;
  #events: Record<string, unknown>[] = [];
  #coordinator: ChildProcess | undefined;

  constructor(parts: StoryParts) {
    this.#parts = parts;
  }

  async formAndTrain(): Promise<void> {
    const { folder, image, say } = this.#parts;
    const limits = { memoryBytes: 512 * MIB, cpus: 1, processes: 128, diskBytes: 8 * MIB, wallSeconds: 3_600, outputBytes: MIB };
    const env = { STEPS: String(STEPS), PAUSE: '0.1', HOLDS };
    const argv = ['/usr/bin/python3.11', '/train.py'];
    const spec = { version: 1, image, argv, env, processes: PROCESSES, machines: MACHINES, limits, checkpointBytesMax: 16 * MIB };
    writeFileSync(join(folder, 'spec.json'), JSON.stringify(spec));
    const startMs = performance.now();
    this.#startCoordinator('spec.json');
    await until('all four ranks train', async () => (await this.#starts(1)).length === PROCESSES);
    say(`formed and training after ${seconds(startMs)} s`);
    await until('a checkpoint of step 60', async () => (await this.#step(1)) >= 60);
    const { machines } = await this.#parts.builder.json('cluster', 'ps', 'training');
    assert.equal(machines.length, MACHINES);
    assert.deepEqual(
      machines.flatMap(({ ranks }: { ranks: number[] }) => ranks),
      [0, 1, 2, 3],
    );
    say(
      `mesh: ${machines[0].status.wireguard} WireGuard; leases ${machines.map(({ leaseId }: { leaseId: string }) => leaseId).join(', ')}`,
    );
  }

  /** What a process sees: its peers by name, the list of members at any of them, and nothing of the machine that it runs on. */
  async lookFromInside(): Promise<void> {
    const { hosts } = this.#parts;
    assert.match(await this.#exec(3, '/bin/cat', '/etc/hosts'), /10\.90\.0\.1 seat-1 rank-0 rank-1 master/);
    assert.match(
      await this.#exec(1, '/bin/cat', '/cluster/hostfile'),
      /^10\.90\.0\.1 slots=2\n10\.90\.0\.2 slots=1\n10\.90\.0\.3 slots=1\n$/,
    );
    const { output } = await this.#parts.builder.json('cluster', 'exec', 'training', '--rank', '2', '--', '/bin/ls', '/checkpoints');
    assert.match(output, /step-0000\d0\.pt/, 'another machine has the checkpoints of rank 0');
    const read = `import urllib.request; print(urllib.request.urlopen('http://rank-2:4646/members', timeout=5).read().decode())`;
    const members = JSON.parse(await this.#exec(0, '/usr/bin/python3.11', '-c', read));
    assert.equal(members.list.members.length, MACHINES);
    assert.match(members.signature, /^0x[0-9a-f]{130}$/);
    for (const address of [hosts.hubAddress, hosts.hosts[0]?.address, '169.254.169.254', '8.8.8.8']) {
      const reach = `import socket\ntry: socket.create_connection(('${address}', 22), 3); print('reached')\nexcept OSError as error: print(error.errno)`;
      assert.equal(
        (await this.#exec(0, '/usr/bin/python3.11', '-c', reach)).trim(),
        '101',
        `${address} is not to be reached (ENETUNREACH)`,
      );
    }
  }

  async loseMachineOfRankZero(): Promise<void> {
    const { hosts, say, builder } = this.#parts;
    const before = await builder.json('cluster', 'ps', 'training');
    const { endpoint, seat } = before.machines.find(({ ranks }: { ranks: number[] }) => ranks.includes(0));
    const host = hosts.hosts.find(({ address }) => endpoint.startsWith(`${address}:`));
    assert.ok(host !== undefined);
    await this.#goOn('first');
    await until('the training is in its midst', async () => (await this.#step(1)) >= 80);
    const step = await this.#step(1);
    host.pullPlug();
    const lostAt = Date.now();
    await until('all four ranks train again', async () => (await this.#starts(2)).length === PROCESSES);
    // By the processes' own clocks, which are this machine's: looking takes longer than they do when the machine is busy.
    const starts = await this.#starts(2);
    const resumed = Math.max(...starts.map(({ text }) => Number(/joined ([\d.]+)/.exec(text)?.[1]) - lostAt / 1000));
    const [first] = starts;
    const resumedStep = Number(/starts at step (\d+)/.exec(first?.text ?? '')?.[1]);
    const times = this.#events.filter(({ timeMs }) => Number(timeMs) >= lostAt);
    const steps = times.map(({ event, timeMs }) => `${event} after ${((Number(timeMs) - lostAt) / 1000).toFixed(1)} s`).join(', ');
    say(`machine of ranks 0 and 1 lost: all four processes train again after ${resumed.toFixed(1)} s (${steps})`);
    for (const each of hosts.hosts) {
      const lines = readFileSync(join(each.folder, 'node.log'), 'utf8').trim().split('\n');
      const start = lines
        .map((line) => JSON.parse(line))
        .find(({ event, version }) => event === 'cluster-processes-start' && version === 2);
      if (start === undefined) continue;
      const after = (Date.parse(start.time) - lostAt) / 1000;
      say(
        `  ${each.name}: programs started after ${after.toFixed(1)} s (old ones ended in ${start.stopMs} ms, newest checkpoint here in ${start.checkpointMs} ms)`,
      );
    }
    for (const { rank, text } of starts) {
      const [, begun, loaded, joined] = /begun ([\d.]+) loaded ([\d.]+) joined ([\d.]+)/.exec(text) ?? [];
      const [first, second, third] = [begun, loaded, joined].map((time) => (Number(time) - lostAt / 1000).toFixed(1));
      say(`  rank ${rank}: Python after ${first} s, torch loaded after ${second} s, in the group after ${third} s`);
    }
    say(`  load of this machine: ${loadavg()[0]?.toFixed(1)} on ${availableParallelism()} processors`);
    say(`last step seen before ${step}, resumed from the checkpoint of step ${resumedStep}`);
    assert.ok(resumedStep >= step - 10, `resumed at ${resumedStep}, ${step} had been saved`);
    if (process.env.MILLRACE_FULL === '1') assert.ok(resumed < RESUMED_SECONDS_MAX, `resumed after ${resumed} s`);
    const after = await builder.json('cluster', 'ps', 'training');
    assert.deepEqual(after.machines.flatMap(({ ranks }: { ranks: number[] }) => ranks).sort(), [0, 1, 2, 3]);
    assert.ok(
      after.machines.every((machine: { seat: number }) => machine.seat !== seat),
      'the seat of the lost machine is not given again',
    );
    await until('the lease of the lost machine is ended', async () => this.#leaseIsEnded(before, seat));
  }

  /** The programs do not need the coordinator; another process of the builder takes over from its record. */
  async loseCoordinator(): Promise<void> {
    const { say } = this.#parts;
    this.#coordinator?.kill('SIGKILL');
    await until('it waits at step 300', async () => (await this.#step(2)) >= 300);
    await this.#goOn('second');
    await until('training goes on without a coordinator', async () => (await this.#step(2)) >= 380);
    assert.equal((await this.#starts(3)).length, 0);
    this.#startCoordinator();
    await this.#goOn('third');
    say('coordinator killed: the training went on from step 300 to 380 without one; another process took over');
  }

  async finishAndCompare(): Promise<void> {
    const { folder, say, market } = this.#parts;
    const result = await this.#coordinatorResult();
    assert.equal(result.phase, 'finished');
    assert.equal(result.version, 2);
    const sum = /sum ([\d.]+)/.exec(this.#lastLines.find(({ text }) => text.startsWith('done'))?.text ?? '')?.[1];
    const alone = /sum ([\d.]+)/.exec(trainAlone(join(folder, 'alone'), STEPS))?.[1];
    say(`sum of the weights after ${STEPS} steps: ${sum}; of one process that was never interrupted: ${alone}`);
    assert.ok(Math.abs(Number(sum) - Number(alone)) < 1e-6 * Number(alone));
    assert.deepEqual(result.leases, []);
    const count = await market.client.read('computeMarket', 'slotCount');
    for (let lease = 1n; lease <= count; lease += 1n) {
      const { until: end, from } = await market.client.read('computeMarket', 'lease', [lease]);
      assert.ok(end - from < 3_600n, `lease ${lease} was ended before its time`);
    }
  }

  #lastLines: TrainingLine[] = [];

  #startCoordinator(specName?: string): void {
    const { builder, folder, started } = this.#parts;
    const terms = ['--class', DEVICE_CLASS, '--max-price', '2', '--hours', '1', '--deposit', '100'];
    const args = specName === undefined ? [] : [join(folder, specName), ...terms];
    const child = builder.start('cluster', 'up', 'training', ...args);
    started.push(child);
    this.#coordinator = child;
    child.stderr?.on('data', (bytes: Buffer) => process.stderr.write(bytes));
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => this.#events.push(JSON.parse(line)));
  }

  async #coordinatorResult(): Promise<Record<string, unknown>> {
    const child = this.#coordinator as ChildProcess;
    // The last lines of the training are read while its containers are still there.
    while (child.exitCode === null) {
      const lines = await this.#lines();
      if (lines.length > 0) this.#lastLines = lines;
      await sleep(300);
    }
    await sleep(200);
    return this.#events.at(-1) as Record<string, unknown>;
  }

  async #leaseIsEnded({ machines }: { machines: { seat: number; leaseId: string }[] }, seat: number): Promise<boolean> {
    const { leaseId } = machines.find((machine) => machine.seat === seat) as { leaseId: string };
    const { from, until: end } = await this.#parts.market.client.read('computeMarket', 'lease', [BigInt(leaseId)]);
    return end - from < 3_500n;
  }

  async #exec(rank: number, ...argv: string[]): Promise<string> {
    for (const { node, ranks } of await this.#nodes()) if (ranks.includes(rank)) return (await node.exec(rank, argv)).output;
    throw new TypeError(`rank ${rank} is nowhere`);
  }

  async #goOn(name: string): Promise<void> {
    await this.#exec(0, '/usr/bin/python3.11', '-c', `open('/checkpoints/${name}', 'w')`);
  }

  /** The members' nodes, spoken to from here: a command for each question would take the processors from the training. */
  async #nodes(): Promise<{ node: ClusterNode; ranks: number[] }[]> {
    const { builder, market } = this.#parts;
    const record = readClusterRecord(join(builder.home, 'friends/client/clusters/training'));
    if (record?.phase === 'failed') throw new TypeError(`the cluster failed: ${record.reason} ${JSON.stringify(this.#events)}`);
    const signer = developmentSigner(CLIENT_INDEX, 'dev');
    const chain = readClusterChain(market.client);
    const members = (record?.signed?.list.members ?? []).map(async ({ leaseId, ranks }) => {
      const operatorId = BigInt(record?.leases.find((lease) => lease.leaseId === leaseId)?.operatorId ?? 0);
      return { node: openClusterNode(await chain.peerOf(operatorId), record?.cluster as `0x${string}`, signer), ranks };
    });
    return (await Promise.allSettled(members)).flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  }

  async #starts(generation: number): Promise<TrainingLine[]> {
    return (await this.#lines()).filter((line) => line.generation === generation && line.text.startsWith('starts'));
  }

  /** The latest step of a generation whose checkpoint was announced. */
  async #step(generation: number): Promise<number> {
    const steps = (await this.#lines())
      .filter((line) => line.generation === generation)
      .map(({ text }) => Number(/^step (\d+)/.exec(text)?.[1] ?? 0));
    return Math.max(0, ...steps);
  }

  async #lines(): Promise<TrainingLine[]> {
    const { exitCode } = this.#coordinator ?? {};
    assert.ok(exitCode === null || exitCode === 0 || exitCode === undefined, `the coordinator ended with ${exitCode}`);
    const texts = (await this.#nodes()).map(({ node, ranks }) => Promise.all(ranks.map(async (rank) => (await node.log(rank, 0)).text)));
    const printed = (await Promise.allSettled(texts)).flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
    return [...printed.join('\n').matchAll(/^generation (\d+) rank (\d+) (.*)$/gm)].map(([, generation, rank, text]) => ({
      generation: Number(generation),
      rank: Number(rank),
      text: text as string,
    }));
  }
}

const seconds = (sinceMs: number) => ((performance.now() - sinceMs) / 1000).toFixed(1);
