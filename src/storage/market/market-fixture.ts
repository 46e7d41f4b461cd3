import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Hex, stringToHex } from 'viem';
import { type ChainClient, type ChainSupervisor, developmentSigner, nodeKeyConsent, type Sender, type Signer } from '../../chain/index.ts';
import { startTestNetwork } from '../../chain/network-fixture.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { createLogger, type Logger, silentLogger } from '../../log.ts';
import { depositStake } from '../../token/index.ts';
import type { ProviderPolicy } from '../provider/intake.ts';
import { type StorageProvider, type StorageProviderOptions, startStorageProvider } from '../provider/provider.ts';
import { type DealState, readDeal } from './chain-view.ts';
import { type PutOptions, type PutResult, put } from './put.ts';

/** One token in base units. */
export const TOKEN = 10n ** 18n;

/** A policy for tests: a small price that does not divide evenly, so that roundings show. */
export const TEST_POLICY: ProviderPolicy = {
  quotaBytes: 1n << 30n,
  openDealsMax: 64,
  openDealsPerClientMax: 64,
  askLifetimeSeconds: 1_000_000,
  offerSecondsMin: 30,
  offerSecondsMax: 7200,
  ask: {
    pricePerGibPeriod: TOKEN / 7n,
    minPricePerPeriod: TOKEN / 1_000_003n,
    minSizeBytes: 1n,
    maxSizeBytes: 1n << 30n,
    minPeriods: 2,
    maxPeriods: 10_000,
    collateralBps: 30_000,
    minCollateral: TOKEN / 9n,
    bond: TOKEN / 999n,
  },
};

const PATIENCE_MS = 240_000;

/** Waits until something is so; fails after minutes of real time, which are for a machine that has much else to do. */
export async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline)
      throw new MillraceError('test-timeout', { actor: 'host', message: `Waited for ${PATIENCE_MS / 1000} s: ${what}` });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A real embedded chain with the contracts of the dev profile, and a funded client. */
export interface TestMarket {
  folder: string;
  chain: ChainSupervisor;
  client: ChainClient;
  faucet: Sender;
  /** The account that stores files, with 1,000 tokens. */
  user: { signer: Signer; sender: Sender; folder: string };
  log: Logger;
  startNode(options?: TestNodeOptions): Promise<TestNode>;
  senderOf(signer: Signer): Sender;
  /** Moves chain time to the start of the next period plus `offset` seconds. */
  nextPeriod(offset?: number): Promise<bigint>;
  warpTo(time: bigint): Promise<void>;
  /** Moves to the window of a period and waits until these operators have proven it, if they have anything to prove. */
  provePeriod(period: bigint, operatorIds: readonly bigint[]): Promise<void>;
  /** Lets chain time run ten times as fast until the work is done. */
  hurry<Result>(work: Promise<Result>): Promise<Result>;
  /** Waits until a deal is in a state. */
  untilState(dealId: bigint, state: DealState): Promise<void>;
  /** Stores random bytes as a public file, and lets the period in which its deals became active be proven. */
  putRandom(options?: Partial<PutOptions> & { sizeBytes?: number }): Promise<PutResult & { bytes: Buffer }>;
  /** Stores many small public files, eight at a time. */
  putMany(count: number, options?: Partial<PutOptions> & { sizeBytes?: number }): Promise<PutResult[]>;
  stop(): Promise<void>;
}

/** How a test's node differs from an honest one. */
export interface TestNodeOptions extends Partial<StorageProviderOptions> {
  index?: number;
  /** Answers a request instead of the provider, when it gives an answer. */
  intercept?: (request: Request) => Response | Promise<Response> | undefined;
}

/** A provider with its server; it can be stopped and started again with the same keys and data. */
export interface TestNode {
  index: number;
  operatorId: bigint;
  owner: Sender;
  provider: StorageProvider;
  server: PeerServer;
  endpoint: string;
  sender: Sender;
  restart(options?: Partial<StorageProviderOptions>): Promise<void>;
  stop(): Promise<void>;
}

async function warpTo(chain: TestMarket['chain'], client: ChainClient, time: bigint): Promise<void> {
  const now = await client.now();
  if (time > now) await chain.warp(Number(time - now));
}

function hurry<T>(chain: TestMarket['chain'], work: Promise<T>): Promise<T> {
  const timer = setInterval(() => chain.warp(3).catch(() => {}), 300);
  return work.finally(() => clearInterval(timer));
}

/** Starts the chain (time moves only by transactions and `warp`, unless `idleSeconds` is given) and deploys the network. */
export async function startTestMarket(options: { idleSeconds?: number; verbose?: boolean } = {}): Promise<TestMarket> {
  const log = options.verbose === true ? createLogger({ role: 'test', level: 'debug' }) : silentLogger;
  const network = await startTestNetwork({ name: 'market', idleSeconds: options.idleSeconds ?? 1, log });
  const { folder, chain, client, faucet, senderOf } = network;
  const signer = developmentSigner(1, 'dev');
  const user = { signer, sender: senderOf(signer), folder: join(folder, 'client') };
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [signer.address, 1000n * TOKEN] });
  const nodes: TestNode[] = [];
  const market: TestMarket = {
    folder,
    chain,
    client,
    faucet,
    user,
    log,
    senderOf,
    async startNode(wanted = {}) {
      const node = await startNode(market, senderOf, { index: nodes.length + 1, ...wanted });
      nodes.push(node);
      return node;
    },
    warpTo: (time) => warpTo(chain, client, time),
    async nextPeriod(offset = 0) {
      const period = (await client.read('possession', 'periodAt', [await client.now()])) + 1n;
      await market.warpTo((await client.read('possession', 'periodStart', [period])) + BigInt(offset));
      return period;
    },
    async provePeriod(period, operatorIds) {
      await market.warpTo((await client.read('possession', 'seedTime', [period])) + 1n);
      for (const operatorId of operatorIds) {
        await until(`operator ${operatorId} has proven period ${period}`, async () => {
          const [standing, table] = await Promise.all([
            client.read('possession', 'standing', [operatorId]),
            client.read('possession', 'tableOf', [operatorId, period]),
          ]);
          if (table.leaves === 0n) return true;
          const proofs = await client.events({ name: 'possession', event: 'Proven', args: { operatorId, period } });
          return standing.provenThrough > period && proofs.length > 0;
        });
      }
    },
    hurry: (work) => hurry(chain, work),
    untilState: (dealId, state) => until(`deal ${dealId} is ${state}`, async () => (await readDeal(client, dealId)).state === state),
    async putRandom({ sizeBytes = 100_000, ...wanted } = {}) {
      const { bytes, options } = await randomFile(market, sizeBytes);
      const result = await market.hurry(put({ ...options, ...wanted }));
      const { firstPeriod } = await readDeal(client, result.deals[0]?.dealId as bigint);
      await market.provePeriod(
        firstPeriod - 1n,
        result.deals.map(({ operatorId }) => operatorId),
      );
      return { ...result, bytes };
    },
    async putMany(count, { sizeBytes = 20_000, ...wanted } = {}) {
      const results: PutResult[] = [];
      const waiting = Array.from({ length: count }, (_, number) => number);
      const worker = async () => {
        for (let number = waiting.shift(); number !== undefined; number = waiting.shift()) {
          results[number] = await put({ ...(await randomFile(market, sizeBytes)).options, ...wanted });
        }
      };
      await market.hurry(Promise.all(Array.from({ length: 8 }, worker)));
      return results;
    },
    async stop() {
      for (const node of nodes) await node.stop();
      await network.stop();
    },
  };
  return market;
}

/** A file of random bytes, and how a test stores it unless it says otherwise: public, one copy, 20 periods. */
async function randomFile({ client, user, folder }: TestMarket, sizeBytes: number): Promise<{ bytes: Buffer; options: PutOptions }> {
  const bytes = randomBytes(sizeBytes);
  const path = join(folder, `${randomBytes(8).toString('hex')}.bin`);
  await writeFile(path, bytes);
  const { signer, sender } = user;
  return { bytes, options: { client, signer, sender, folder: user.folder, source: { path }, copies: 1, periods: 20, public: true } };
}

async function startNode(
  market: TestMarket,
  senderOf: (signer: Signer) => Sender,
  { index, intercept, ...wanted }: TestNodeOptions & { index: number },
): Promise<TestNode> {
  const { client, log } = market;
  const folder = join(market.folder, `node-${index}`);
  const owner = senderOf(developmentSigner(10 + index * 2, 'dev'));
  const nodeKey = developmentSigner(11 + index * 2, 'dev');
  const identity = await openTransportIdentity(folder);
  let provider: StorageProvider | undefined;
  const answer = (request: Request) => intercept?.(request) ?? provider?.fetch(request) ?? new Response(null, { status: 503 });
  let server = await startPeerServer({ port: 0, identity, fetch: answer });
  const endpoint = `https://127.0.0.1:${server.port}`;
  const operatorId = await registerOperator(market, { owner, nodeKey, endpoint, index, transportKey: identity.transportKey });
  let sender = senderOf(nodeKey);
  const start = (changes: Partial<StorageProviderOptions>) =>
    startStorageProvider({
      folder,
      client,
      signer: nodeKey,
      sender,
      operatorId,
      policy: TEST_POLICY,
      log: log === silentLogger ? log : createLogger({ role: `node-${index}`, level: 'debug' }),
      pollMs: 100,
      ...wanted,
      ...changes,
    });
  provider = await start({});
  const node: TestNode = {
    index,
    operatorId,
    owner,
    provider,
    server,
    endpoint,
    sender,
    async restart(changes = {}) {
      await node.stop();
      sender = senderOf(nodeKey);
      node.sender = sender;
      provider = await start(changes);
      node.provider = provider;
      server = await startPeerServer({ port: Number(new URL(endpoint).port), identity, fetch: answer });
      node.server = server;
    },
    async stop() {
      if (provider === undefined) return;
      await server.stop(100);
      await provider.stop();
      provider = undefined;
      sender.close();
    },
  };
  return node;
}

/** Registers an operator that is reached at `endpoint`, and stakes 10,000 tokens for it. */
export async function registerOperator(
  { client, faucet }: Pick<TestMarket, 'client' | 'faucet'>,
  wanted: { owner: Sender; nodeKey: Signer; endpoint: string; transportKey: Hex; index: number },
): Promise<bigint> {
  const { owner, nodeKey, endpoint, transportKey, index } = wanted;
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  const region = stringToHex(`region-${index}`, { size: 32 });
  await owner.send({
    contract: 'operators',
    functionName: 'register',
    args: [nodeKey.address, owner.address, transportKey, endpoint, region, consent],
  });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, 10_000n * TOKEN] });
  await depositStake(client, { sender: owner, operatorId, amount: 10_000n * TOKEN });
  return operatorId;
}
