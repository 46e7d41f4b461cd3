/** A chain and nodes in network namespaces of their own, for the journey of health. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { stringToHex, toHex } from 'viem';
import {
  type ChainClient,
  type ChainSupervisor,
  connectChain,
  createSender,
  createSigner,
  deployNetwork,
  developmentSigner,
  nodeKeyConsent,
  type Sender,
  startChainSupervisor,
} from '../../src/chain/index.ts';
import type { Declared } from '../../src/compute/health/figures.ts';
import type { HealthSettings } from '../../src/compute/health/health-part.ts';
import { openTransportIdentity } from '../../src/connect/index.ts';
import { silentLogger } from '../../src/log.ts';
import { depositStake } from '../../src/token/index.ts';
import type { HealthNodeSettings } from './compute-health-node.ts';

const SUBNET = '10.78.9';
const BRIDGE = 'mrhealth';
const LINK = 'mrh';
const NODES_MAX = 9;
const PORT = 9000;
const TOKEN = 10n ** 18n;
const CPU_GROUPS = '/sys/fs/cgroup';
const CPU_PERIOD_US = 100_000;

/** How a node is started. */
export interface HealthNodeWish {
  health: HealthSettings;
  /** Devices that its operator has on offer; left out: one. */
  devices?: number;
  /** How wrong its clock is. */
  skewMs?: number;
  /** The most of a core that it gets, whatever else the machine has to do; left out: what there is. */
  cores?: number;
}

/** A node: a process in its own network. */
export interface HealthNode {
  operatorId: bigint;
  address: string;
  /** Where its part of health keeps its data. */
  folder: string;
  /** Its link, on this machine's side. */
  link: string;
  process: ChildProcess;
  /** Kills it and starts it anew, with more devices or other settings. */
  restart(wanted: HealthNodeWish): Promise<void>;
  /** What its part says of itself. */
  status(): Promise<{ partnersClocks: Record<string, number>; clockAheadMs: number; challengeShare: number }>;
}

/** The network of the journey. */
export interface HealthNetwork {
  folder: string;
  manifestPath: string;
  chain: ChainSupervisor;
  client: ChainClient;
  addNode(wanted: HealthNodeWish): Promise<HealthNode>;
  stop(): Promise<void>;
}

/** What is missing here for the journey, as a reason to skip. */
export function missingForHealth(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces are made by root only';
  if (spawnSync('tc', ['-V']).status !== 0 || spawnSync('ip', ['-V']).status !== 0)
    return 'tc or ip is not installed (apt-get install iproute2)';
  if (spawnSync('unshare', ['--net', 'true']).status !== 0) return 'this machine gives no network namespaces';
  return cpuFolder() === undefined ? 'this machine has no cgroups that limit processors' : undefined;
}

/** Starts the chain on a bridge that all nodes reach. */
export async function startHealthNetwork(): Promise<HealthNetwork> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-health-'));
  removeNetworks();
  ip('link', 'add', BRIDGE, 'type', 'bridge');
  ip('address', 'add', `${SUBNET}.254/24`, 'dev', BRIDGE);
  ip('link', 'set', BRIDGE, 'up');
  const accounts = Array.from({ length: 20 }, (_, index) => ({ address: developmentSigner(index, 'dev').address, balance: 10n ** 24n }));
  const chain = await startChainSupervisor({ folder: join(folder, 'chain'), accounts, idleSeconds: 1, host: `${SUBNET}.254` });
  const manifestPath = join(folder, 'data', 'test', 'network.json');
  mkdirSync(join(folder, 'data', 'test'), { recursive: true });
  const signer = developmentSigner(0, 'dev');
  const deploy = {
    rpcUrl: chain.rpcUrl,
    name: 'test',
    profile: 'dev',
    signer,
    folder: join(folder, 'deploy'),
    manifestPath,
    embedded: true,
  };
  const client = await connectChain({ rpcUrl: chain.rpcUrl, manifest: await deployNetwork(deploy) });
  const faucet = createSender({ client, signer, journalFolder: join(folder, 'keys'), log: silentLogger });
  const nodes: HealthNode[] = [];
  return {
    folder,
    manifestPath,
    chain,
    client,
    async addNode(wanted) {
      const node = await startNode({ folder, manifestPath, chain, client, faucet }, { ...wanted, index: nodes.length + 1 });
      nodes.push(node);
      return node;
    },
    async stop() {
      for (const node of nodes) await end(node.process);
      faucet.close();
      await chain.stop();
      removeNetworks();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

interface Shared {
  folder: string;
  manifestPath: string;
  chain: ChainSupervisor;
  client: ChainClient;
  faucet: Sender;
}

async function startNode(
  { folder, manifestPath, chain, client, faucet }: Shared,
  wish: HealthNodeWish & { index: number },
): Promise<HealthNode> {
  const { index } = wish;
  const address = `${SUBNET}.${index}`;
  const name = `${BRIDGE}-${index}`;
  const link = `${LINK}${index}`;
  addNetwork({ name, link, address });
  const own = join(folder, `node-${index}`);
  const { transportKey } = await openTransportIdentity(own);
  const key = `0x${String(index).repeat(64)}` as const;
  const nodeKey = createSigner(key);
  const owner = createSender({ client, signer: developmentSigner(index, 'dev'), journalFolder: join(own, 'owner'), log: silentLogger });
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  const region = stringToHex(`region-${index}`, { size: 32 });
  const registration = [nodeKey.address, owner.address, transportKey, `https://${address}:${PORT}`, region, consent] as const;
  await owner.send({ contract: 'operators', functionName: 'register', args: registration });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, 1_000n * TOKEN] });
  await faucet.send({ to: nodeKey.address, value: 10n ** 20n });
  await depositStake(client, { sender: owner, operatorId, amount: 1_000n * TOKEN });
  const keyPath = join(own, 'key');
  writeFileSync(keyPath, key, { mode: 0o600 });
  const given = {
    rpcUrl: chain.rpcUrl,
    manifestPath,
    keyPath,
    operatorId: String(operatorId),
    folder: own,
    host: address,
    port: PORT,
  };
  let offered = 0;
  const start = async ({ health, devices = 1, skewMs = 0, cores }: HealthNodeWish) => {
    for (; offered < devices; offered += 1) await offerDevice(client, owner, operatorId);
    return spawnNode(name, JSON.stringify({ ...given, health } satisfies HealthNodeSettings), { skewMs, cores });
  };
  const status = async () => (await fetch(`http://${address}:${PORT}/status`)).json() as Promise<never>;
  const node: HealthNode = {
    operatorId,
    address,
    folder: join(own, 'health'),
    link,
    process: (await start(wish)).child,
    status,
    async restart(wanted) {
      await end(node.process);
      node.process = (await start(wanted)).child;
    },
  };
  return node;
}

function addNetwork({ name, link, address }: { name: string; link: string; address: string }): void {
  ip('netns', 'add', name);
  ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'up0', 'netns', name);
  ip('link', 'set', link, 'master', BRIDGE, 'up');
  ip('-n', name, 'link', 'set', 'lo', 'up');
  ip('-n', name, 'address', 'add', `${address}/24`, 'dev', 'up0');
  ip('-n', name, 'link', 'set', 'up0', 'up');
}

/** Stopped or not, it ends. */
async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = once(child, 'exit');
  child.kill('SIGKILL');
  await over;
}

/** What a machine with so much of a core is able to do, as a node of it would measure. */
export async function benchmarkOf(cores: number): Promise<Declared> {
  const name = `${BRIDGE}-benchmark`;
  ip('netns', 'add', name);
  const { child, line } = await spawnNode(name, 'benchmark', { cores, skewMs: 0 });
  await end(child);
  removeNetwork(name);
  return JSON.parse(line) as Declared;
}

async function offerDevice(client: ChainClient, owner: Sender, operatorId: bigint): Promise<void> {
  const now = await client.now();
  const offer = {
    operatorId,
    from: now,
    until: now + 10_000_000n,
    interruptibleBps: 0,
    deviceClass: stringToHex('cpu-1', { size: 32 }),
    attributes: toHex(operatorId, { size: 32 }),
    stablePrice: 3600n,
    nativePrice: 3600n,
    collateral: 0n,
  };
  await owner.send({ contract: 'computeMarket', functionName: 'setOffer', args: [0n, offer] });
}

/** Its clock is wrong by `skewMs` from the first instruction on: every `Date` of the process is. Gives the first line that it prints. */
async function spawnNode(
  name: string,
  argument: string,
  { skewMs, cores }: { skewMs: number; cores: number | undefined },
): Promise<{ child: ChildProcess; line: string }> {
  const entry = new URL('./compute-health-node.ts', import.meta.url).pathname;
  const preload = `const now=Date.now;globalThis.Date=class extends Date{constructor(...a){a.length===0?super(now()+${skewMs}):super(...a)}static now(){return now()+${skewMs}}}`;
  const options = skewMs === 0 ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`];
  // Not `ip netns exec`, which has the program run under another parent: signals are for the node itself.
  const command = ['nsenter', `--net=/run/netns/${name}`, '--', process.execPath, ...options, entry, argument];
  const group = cores === undefined ? '/dev/null' : join(limitCores(name, cores), 'cgroup.procs');
  const child = spawn('sh', ['-c', 'echo $$ > "$0"; exec "$@"', group, ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const started = await Promise.race([once(lines, 'line'), once(child, 'exit').then(() => undefined)]);
  if (started === undefined) throw new TypeError(`The node in ${name} did not start`);
  return { child, line: String(started[0]) };
}

/** Where groups of processes with a limit of processor time are made: cgroups of version 1 or 2. */
function cpuFolder(): string | undefined {
  return [join(CPU_GROUPS, 'cpu'), CPU_GROUPS].find((folder) =>
    existsSync(join(folder, folder === CPU_GROUPS ? 'cgroup.subtree_control' : 'cpu.cfs_quota_us')),
  );
}

/** A group that gets so much of a core and no more; and first, so that it gets it on a machine that has much else to do. */
function limitCores(name: string, cores: number): string {
  const base = cpuFolder() as string;
  const folder = join(base, name);
  const quotaUs = Math.round(cores * CPU_PERIOD_US);
  if (base === CPU_GROUPS) writeFileSync(join(base, 'cgroup.subtree_control'), '+cpu');
  mkdirSync(folder, { recursive: true });
  const limits =
    base === CPU_GROUPS
      ? { 'cpu.max': `${quotaUs} ${CPU_PERIOD_US}`, 'cpu.weight': '10000' }
      : { 'cpu.cfs_period_us': String(CPU_PERIOD_US), 'cpu.cfs_quota_us': String(quotaUs), 'cpu.shares': '262144' };
  for (const [file, value] of Object.entries(limits)) writeFileSync(join(folder, file), value);
  return folder;
}

/** What an earlier run may have left as well. */
function removeNetworks(): void {
  const listed = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout ?? '';
  for (const line of listed.split('\n')) {
    const [name] = line.split(' ');
    if (name?.startsWith(`${BRIDGE}-`)) removeNetwork(name);
  }
  // The kernel takes links of a namespace away some time after it.
  for (let index = 1; index <= NODES_MAX; index += 1) spawnSync('ip', ['link', 'delete', `${LINK}${index}`], { stdio: 'ignore' });
  spawnSync('ip', ['link', 'delete', BRIDGE], { stdio: 'ignore' });
}

function removeNetwork(name: string): void {
  spawnSync('ip', ['netns', 'delete', name]);
  const group = join(cpuFolder() ?? CPU_GROUPS, name);
  if (existsSync(group)) rmdirSync(group);
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
}
