/** A chain and nodes in network namespaces of their own, for the journey of health. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
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
import type { HealthSettings } from '../../src/compute/health/health-part.ts';
import { openTransportIdentity } from '../../src/connect/index.ts';
import { silentLogger } from '../../src/log.ts';
import { depositStake } from '../../src/token/index.ts';
import type { HealthNodeSettings } from './compute-health-node.ts';

const SUBNET = '10.78.9';
const BRIDGE = 'mrhealth';
const PORT = 9000;
const TOKEN = 10n ** 18n;
const PATIENCE_MS = 300_000;

/** A node: a process in its own network. */
export interface HealthNode {
  operatorId: bigint;
  address: string;
  /** Its link, on this machine's side. */
  link: string;
  process: ChildProcess;
  /** What its part says of itself. */
  status(): Promise<{ partnersClocks: Record<string, number>; clockAheadMs: number; challengeShare: number }>;
}

/** The network of the journey. Chain time runs as fast as `pace` says. */
export interface HealthNetwork {
  folder: string;
  manifestPath: string;
  chain: ChainSupervisor;
  client: ChainClient;
  addNode(wanted: { health: HealthSettings; devices?: number; skewMs?: number }): Promise<HealthNode>;
  /** Chain seconds that pass every quarter of a second; 0: time stands nearly still. */
  pace(seconds: number): void;
  stop(): Promise<void>;
}

/** What is missing here for the journey, as a reason to skip. */
export function missingForHealth(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces are made by root only';
  if (spawnSync('tc', ['-V']).status !== 0 || spawnSync('ip', ['-V']).status !== 0)
    return 'tc or ip is not installed (apt-get install iproute2)';
  return spawnSync('unshare', ['--net', 'true']).status === 0 ? undefined : 'this machine gives no network namespaces';
}

/** Waits until something is so; fails after minutes, which are for a machine that has much else to do. */
export async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new TypeError(`Waited for ${PATIENCE_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
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
  let timer: NodeJS.Timeout | undefined;
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
    pace(seconds) {
      clearInterval(timer);
      if (seconds > 0) timer = setInterval(() => chain.warp(seconds).catch(() => {}), 250);
    },
    async stop() {
      clearInterval(timer);
      for (const node of nodes) {
        node.process.kill('SIGCONT');
        node.process.kill('SIGKILL');
      }
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
  { index, health, devices = 1, skewMs = 0 }: { index: number; health: HealthSettings; devices?: number; skewMs?: number },
): Promise<HealthNode> {
  const address = `${SUBNET}.${index}`;
  const name = `${BRIDGE}-${index}`;
  const link = `mrh${index}`;
  ip('netns', 'add', name);
  ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'up0', 'netns', name);
  ip('link', 'set', link, 'master', BRIDGE, 'up');
  ip('-n', name, 'link', 'set', 'lo', 'up');
  ip('-n', name, 'address', 'add', `${address}/24`, 'dev', 'up0');
  ip('-n', name, 'link', 'set', 'up0', 'up');
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
  for (let device = 0; device < devices; device += 1) await offerDevice(client, owner, operatorId);
  owner.close();
  const keyPath = join(own, 'key');
  writeFileSync(keyPath, key, { mode: 0o600 });
  const { hostname, port } = new URL(chain.rpcUrl);
  const given: HealthNodeSettings = {
    chain: { host: hostname, port: Number(port) },
    manifestPath,
    keyPath,
    operatorId: String(operatorId),
    folder: own,
    host: address,
    port: PORT,
    health,
  };
  const child = await spawnNode(name, given, skewMs);
  const status = async () => (await fetch(`http://${address}:${PORT}/status`)).json() as Promise<never>;
  return { operatorId, address, link, process: child, status };
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

/** Its clock is wrong by `skewMs` from the first instruction on: every `Date` of the process is. */
async function spawnNode(name: string, given: HealthNodeSettings, skewMs: number): Promise<ChildProcess> {
  const entry = new URL('./compute-health-node.ts', import.meta.url).pathname;
  const preload = `const now=Date.now;globalThis.Date=class extends Date{constructor(...a){a.length===0?super(now()+${skewMs}):super(...a)}static now(){return now()+${skewMs}}}`;
  const options = skewMs === 0 ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`];
  // Not `ip netns exec`, which has the program run under another parent: signals are for the node itself.
  const command = [`--net=/run/netns/${name}`, '--', process.execPath, ...options, entry, JSON.stringify(given)];
  const child = spawn('nsenter', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const started = await Promise.race([once(lines, 'line'), once(child, 'exit').then(() => undefined)]);
  if (started === undefined) throw new TypeError(`The node in ${name} did not start`);
  return child;
}

function removeNetworks(): void {
  const listed = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout ?? '';
  for (const line of listed.split('\n')) {
    const [name] = line.split(' ');
    if (name?.startsWith(`${BRIDGE}-`)) spawnSync('ip', ['netns', 'delete', name]);
  }
  spawnSync('ip', ['link', 'delete', BRIDGE], { stdio: 'ignore' });
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
}
