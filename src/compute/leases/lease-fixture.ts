import { join } from 'node:path';
import { stringToHex } from 'viem';
import { type ChainClient, type ChainSupervisor, developmentSigner, nodeKeyConsent, type Sender, type Signer } from '../../chain/index.ts';
import { startTestNetwork } from '../../chain/network-fixture.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { type Executor, SandboxExecutor } from '../../host/index.ts';
import { createLogger, type Logger, silentLogger } from '../../log.ts';
import { depositStake } from '../../token/index.ts';
import { createCapacity } from '../capacity.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import type { LeasedDevice } from './device-offers.ts';

/** One token in base units. */
export const TOKEN = 10n ** 18n;
/** One stable unit in base units. */
export const STABLE = 10n ** 6n;

/** A small device: 3.6 stable units an hour, a tenth of a unit in the native token, ten tokens of stake behind each lease. */
export const TEST_DEVICE: LeasedDevice = {
  name: 'small',
  deviceClass: 'cpu-1',
  resources: { cpus: 0.5, memoryBytes: 64 << 20, diskBytes: 16 << 20, processes: 48 },
  stablePrice: (36n * STABLE) / 10n,
  nativePrice: TOKEN / 10n,
  collateral: 10n * TOKEN,
  interruptibleBps: 5_000,
};

const PATIENCE_MS = 240_000;

/** Waits until something is so; fails after minutes of real time, which are for a machine that has much else to do. */
export async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline)
      throw new MillraceError('test-timeout', { actor: 'host', message: `Waited for ${PATIENCE_MS / 1000} s: ${what}` });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A real embedded chain with the contracts of the dev profile, a renter with both tokens, and nodes. */
export interface TestLeases {
  folder: string;
  chain: ChainSupervisor;
  client: ChainClient;
  faucet: Sender;
  renter: { signer: Signer; sender: Sender; folder: string };
  log: Logger;
  startNode(index: number): Promise<TestLeaseNode>;
  stop(): Promise<void>;
}

/** An operator with its server and the parts that a test gives it; they can be stopped and started again with the same keys and data. */
export interface TestLeaseNode {
  operatorId: bigint;
  owner: Sender;
  context: ComputeContext;
  endpoint: string;
  start(part: (context: ComputeContext) => Promise<ComputePart>): Promise<ComputePart>;
  /** Stops all parts; the server answers nothing any more. */
  stopParts(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the chain, whose time is the machine's, and deploys the network. */
export async function startTestLeases(options: { verbose?: boolean } = {}): Promise<TestLeases> {
  const log = options.verbose === true ? createLogger({ role: 'test', level: 'debug' }) : silentLogger;
  const network = await startTestNetwork({ name: 'leases', accounts: 20, idleSeconds: 2, log });
  const { folder, chain, client, faucet, senderOf } = network;
  const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
  const signer = developmentSigner(1, 'dev');
  const renter = { signer, sender: senderOf(signer), folder: join(folder, 'renter') };
  await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [signer.address, 1_000n * STABLE] });
  await faucet.send({ contract: 'computeToken', functionName: 'transfer', args: [signer.address, 1_000n * TOKEN] });
  const nodes: TestLeaseNode[] = [];
  const leases: TestLeases = {
    folder,
    chain,
    client,
    faucet,
    renter,
    log,
    async startNode(index) {
      const node = await startNode(leases, { index, senderOf, executor });
      nodes.push(node);
      return node;
    },
    async stop() {
      for (const node of nodes) await node.stop();
      await executor.close();
      await network.stop();
    },
  };
  return leases;
}

async function startNode(
  leases: TestLeases,
  { index, senderOf, executor }: { index: number; senderOf: (signer: Signer) => Sender; executor: Executor },
): Promise<TestLeaseNode> {
  const { client, faucet, log } = leases;
  const folder = join(leases.folder, `node-${index}`);
  const owner = senderOf(developmentSigner(4 + index * 2, 'dev'));
  const signer = developmentSigner(5 + index * 2, 'dev');
  const identity = await openTransportIdentity(folder);
  const parts: ComputePart[] = [];
  const answer = (request: Request) => {
    for (const part of parts) {
      const response = part.fetch(request);
      if (response !== undefined) return response;
    }
    return new Response(null, { status: 503 });
  };
  const server: PeerServer = await startPeerServer({ port: 0, identity, fetch: answer });
  const endpoint = `https://127.0.0.1:${server.port}`;
  const region = stringToHex(`region-${index}`, { size: 32 });
  const consent = await nodeKeyConsent(client, signer, owner.address);
  const registration = [signer.address, owner.address, identity.transportKey, endpoint, region, consent] as const;
  await owner.send({ contract: 'operators', functionName: 'register', args: registration });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [signer.address]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, 1_000n * TOKEN] });
  await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [signer.address, 10n * STABLE] });
  await depositStake(client, { sender: owner, operatorId, amount: 1_000n * TOKEN });
  const sender = senderOf(signer);
  const stopParts = async () => {
    for (const part of parts.splice(0)) await part.stop();
  };
  const context: ComputeContext = {
    client,
    signer,
    sender,
    operatorId,
    folder: join(folder, 'compute'),
    log: log === silentLogger ? log : createLogger({ role: `node-${index}`, level: 'debug' }),
    capacity: createCapacity({ cpus: 2, memoryBytes: 1 << 30, diskBytes: 1 << 30, processes: 512 }),
    executors: [executor],
    fetchContent: () => Promise.reject(new MillraceError('content-unavailable', { actor: 'peer', message: 'no content in this test' })),
  };
  return {
    operatorId,
    owner,
    context,
    endpoint,
    async start(startPart) {
      const part = await startPart(context);
      parts.push(part);
      return part;
    },
    stopParts,
    async stop() {
      await stopParts();
      await server.stop(100);
      sender.close();
      owner.close();
    },
  };
}
