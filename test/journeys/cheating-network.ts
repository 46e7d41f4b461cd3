/** A subnet for a journey: a real chain, miners as processes, two validators, and a gateway through which a user asks. */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { zeroHash } from 'viem';
import { developmentSigner, nodeKeyConsent } from '../../src/chain/index.ts';
import { type InferenceServer, minersOfNetwork, startInferenceServer } from '../../src/gateway/index.ts';
import {
  createProbeStock,
  createSettler,
  type Engine,
  gatewayAccount,
  inferenceReceiptDomain,
  NOBODY,
  openEngineSet,
  ownAccount,
  type ProbeAccount,
  registerUid,
  type SubnetJudge,
  startSubnetJudge,
  textProgram,
} from '../../src/inference/index.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../../src/inference/subnets/subnet-fixture.ts';
import { createLogger } from '../../src/log.ts';
import { createPayer, depositStake } from '../../src/token/index.ts';
import type { CheatingMinerOptions, Conduct } from '../cheating-miner-child.ts';

/** A miner of the journey, and the process that it runs in. */
export interface JourneyMiner extends TestOperator {
  name: string;
  conduct: Conduct;
  /** `kill -9`, and waits until it is gone. */
  kill(): Promise<void>;
}

/** What the journey is told in. */
export interface CheatingNetwork {
  subnet: TestSubnet;
  engine: Engine;
  gateway: InferenceServer;
  url: string;
  /** The user's key. */
  key: string;
  keyId: string;
  miners: JourneyMiner[];
  sink: number;
  /** Receipts as they came to a validator that asks with a wallet of its own, whatever they say. */
  seenReceipts: Set<string>;
  /** The operator of a validator. */
  judge: TestOperator;
  evidenceFolder: string;
  /** Moves chain time, and waits until both validators have done what is due then. */
  pass(seconds: number): Promise<void>;
  stop(): Promise<void>;
}

/** An epoch in seconds of chain time. */
export const TEMPO = 600;
const CHILD = fileURLToPath(new URL('../cheating-miner-child.ts', import.meta.url));
const PROBES = 6;
/** What a token of the inference network is worth to the validators: about what the fees of this journey come to. */
const EMISSION_PRICE = 10n ** 13n;
/** Some six requests: tabs are often done with, and only then are fees burnt on them. */
const TAB_MAX = 10n ** 15n;
const BOND = 50n * TOKEN;
const GATEWAY_KEY = 1;
const SINK_KEYS = [38, 39] as const;
const PATIENCE_MS = 240_000;

type Stop = () => Promise<unknown> | unknown;

/** Starts it all: for each cheat a miner and its honest twin, same model, same price, same start. */
export async function startCheatingNetwork(cheats: readonly Conduct[]): Promise<CheatingNetwork> {
  const subnet = await startTestSubnet({ tempoSeconds: TEMPO });
  const stops: Stop[] = [() => subnet.stop()];
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one();
  };
  try {
    const { folder } = subnet;
    const engines = openEngineSet({ dataFolder: folder, programs: [textProgram()] });
    stops.push(() => engines.close());
    const engine = engines.engine(textProgram().card.id);
    await engine.warm();
    const validators = [await subnet.join({ stake: 1000n * TOKEN }), await subnet.join({ stake: 900n * TOKEN })];
    const seats: (TestOperator & { name: string; conduct: Conduct })[] = [];
    for (const cheat of cheats) {
      seats.push({ ...(await subnet.join()), name: cheat, conduct: cheat });
      seats.push({ ...(await subnet.join()), name: `twin of "${cheat}"`, conduct: 'honest' });
    }
    const sink = await joinSink(subnet);
    const judges: SubnetJudge[] = [];
    const gateway = await startGateway(subnet, judges);
    stops.push(() => gateway.stop(200));
    const url = `http://127.0.0.1:${gateway.port}`;
    const { key, id: keyId } = await gateway.keys.create({ name: 'user', budget: 10n * TOKEN });
    const copier = await gateway.keys.create({ name: 'copier', budget: 10n * TOKEN });
    const operators = seats.filter(({ conduct }) => conduct === 'honest').map(({ operatorId }) => `operator-${operatorId}`);
    const miners: JourneyMiner[] = [];
    for (const seat of seats) {
      const { kill, stop: end } = await startMiner(subnet, seat, { url, key: copier.key, operators });
      stops.push(end);
      miners.push({ ...seat, kill });
    }
    await gateway.directory.refresh();
    const seenReceipts = new Set<string>();
    const prober = await gateway.keys.create({ name: 'another user', budget: 10n * TOKEN });
    const own = await ownWallet(subnet, validators[1] as TestOperator, seenReceipts);
    stops.push(() => own.close());
    const rounds = [0, 0];
    for (const [at, account] of [gatewayAccount({ url, key: prober.key }), own].entries()) {
      const settled = () => {
        (rounds[at] as number) += 1;
      };
      judges.push(await startJudge(subnet, { operator: validators[at] as TestOperator, at, account, engine, settled }));
    }
    stops.push(() => Promise.all(judges.map((judge) => judge.stop())));
    const [judge] = validators as [TestOperator];
    const pass = async (seconds: number) => {
      if (seconds > 0) await subnet.chain.warp(seconds);
      const from = [...rounds];
      // The round that is under way, one that saw the new time, and the beginning of a third: then the second is over.
      await until('both validators look', async () => rounds.every((count, at) => count >= (from[at] as number) + 3));
    };
    const evidenceFolder = join(folder, 'judge-0', 'evidence');
    return { subnet, engine, gateway, url, key, keyId, miners, sink, seenReceipts, judge, evidenceFolder, pass, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Waits until it is so. */
export async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new TypeError(`It does not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function startGateway(subnet: TestSubnet, judges: readonly SubnetJudge[]): Promise<InferenceServer> {
  const { client, faucet, folder } = subnet;
  const signer = developmentSigner(GATEWAY_KEY, 'dev');
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [signer.address, 1000n * TOKEN] });
  const sender = subnet.senderOf(signer);
  const payer = await createPayer({ client, signer, sender, folder: join(folder, 'gateway-channels'), depositRequests: 40n });
  const server = await startInferenceServer({
    folder: join(folder, 'gateway'),
    port: 0,
    domain: inferenceReceiptDomain(client),
    miners: () => minersOfNetwork(client),
    payer,
    token: client.address('networkToken'),
    now: () => client.now(),
    // A new miner is paid a quarter of it ahead.
    tabMax: 4n * TAB_MAX,
    onSample(sample) {
      const shown = { ...sample, payer: signer.address };
      for (const judge of judges) judge.show([shown], 1);
    },
    refreshMs: 3_000,
    log: createLogger({ role: 'gateway', level: 'info', file: join(folder, 'gateway.log') }),
  });
  return {
    ...server,
    async stop(graceMs) {
      await server.stop(graceMs);
      await payer.close();
    },
  };
}

interface JudgeStart {
  operator: TestOperator;
  at: number;
  account: ProbeAccount;
  engine: Engine;
  /** Called in each round. */
  settled(): void;
}

function startJudge(subnet: TestSubnet, { operator, at, account, engine, settled }: JudgeStart): Promise<SubnetJudge> {
  const { client, subnetId, folder } = subnet;
  const { sender, uid, operatorId } = operator;
  const log = createLogger({ role: `judge-${at}`, level: 'info', file: join(folder, `judge-${at}.log`) });
  const settler = createSettler({ client, sender, subnetId, operatorId, log });
  return startSubnetJudge({
    client,
    sender,
    subnetId,
    uid,
    folder: join(folder, `judge-${at}`),
    modelOf: (root) => (root === engine.card.root ? { engine } : undefined),
    stock: createProbeStock({ writer: engine, speaker: undefined, commands: [], imagesFolder: undefined }),
    accounts: [account],
    emissionPrice: EMISSION_PRICE,
    rules: { probesPerMiner: PROBES },
    roundMs: 50,
    async settle() {
      settled();
      await settler.tend();
    },
    log,
  });
}

/** An account that asks miners itself, and keeps what they sign. */
async function ownWallet(subnet: TestSubnet, { nodeKey, sender }: TestOperator, seen: Set<string>): Promise<ProbeAccount> {
  const { client, faucet, folder } = subnet;
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [nodeKey.address, 1000n * TOKEN] });
  const payer = await createPayer({ client, signer: nodeKey, sender, folder: join(folder, 'judge-channels'), depositRequests: 40n });
  const account = ownAccount(payer, { amountMax: TAB_MAX });
  return {
    ...account,
    async send(probe, seat, signal) {
      const outcome = await account.send(probe, seat, signal);
      if (outcome.answered !== undefined) seen.add(outcome.answered.receipt);
      return outcome;
    },
  };
}

/** Bonds the operator, starts its process and says on chain where it is. */
async function startMiner(
  subnet: TestSubnet,
  seat: TestOperator & { name: string; conduct: Conduct },
  source: CheatingMinerOptions['source'],
): Promise<{ kill(): Promise<void>; stop(): Promise<void> }> {
  const { client, folder, faucet } = subnet;
  const { owner, operatorId, conduct } = seat;
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, BOND] });
  await depositStake(client, { sender: owner, operatorId, amount: BOND });
  const options: CheatingMinerOptions = {
    conduct,
    rpcUrl: subnet.chain.rpcUrl,
    manifestPath: join(folder, 'network.json'),
    folder: join(folder, `miner-${operatorId}`),
    dataFolder: folder,
    // As the fixture gives them out: the n-th to join.
    keyIndex: keyIndexOf(seat),
    operatorId: operatorId.toString(),
    logFile: join(folder, `miner-${operatorId}.log`),
    source,
  };
  const child = fork(CHILD, [JSON.stringify(options)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const hello = await new Promise<{ port: number; transportKey: `0x${string}` }>((resolve, reject) => {
    child.once('exit', (code) => reject(new TypeError(`The miner "${seat.name}" ended with ${code}`)));
    child.once('message', (message) => resolve(message as { port: number; transportKey: `0x${string}` }));
  });
  const args = [operatorId, hello.transportKey, `https://127.0.0.1:${hello.port}`, zeroHash] as const;
  await owner.send({ contract: 'operators', functionName: 'setEndpoint', args });
  return { kill: () => end(child, 'SIGKILL'), stop: () => end(child, 'SIGTERM') };
}

function keyIndexOf({ nodeKey }: TestOperator): number {
  for (let index = 0; index < SINK_KEYS[0]; index += 1) if (developmentSigner(index, 'dev').address === nodeKey.address) return index;
  throw new TypeError(`${nodeKey.address} is no development key`);
}

/** A uid whose operator's rewards nobody can fetch: what nobody earned goes there. */
async function joinSink(subnet: TestSubnet): Promise<number> {
  const { client, subnetId, faucet } = subnet;
  const [owner, nodeKey] = [subnet.senderOf(developmentSigner(SINK_KEYS[0], 'dev')), developmentSigner(SINK_KEYS[1], 'dev')];
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  await owner.send({ contract: 'operators', functionName: 'register', args: [nodeKey.address, NOBODY, zeroHash, '', zeroHash, consent] });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  const price = await client.read('subnets', 'registrationPrice', [subnetId]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, price] });
  return registerUid(client, { sender: owner, subnetId, operatorId });
}

function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill(signal);
  });
}
