import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Logger, silentLogger } from '../log.ts';
import { type ChainClient, connectChain } from './client.ts';
import { type DeployOptions, deployNetwork } from './deploy.ts';
import { createSender, type Sender } from './sender.ts';
import { developmentSigner, type Signer } from './signer.ts';
import { type ChainSupervisor, startChainSupervisor } from './supervisor.ts';

/** A real embedded chain in a folder of its own, with all contracts of the profile `dev`. */
export interface TestNetwork {
  folder: string;
  chain: ChainSupervisor;
  rpcUrl: string;
  /** Of the network's `network.json`. */
  manifestPath: string;
  client: ChainClient;
  /** The deployer: holds all tokens, and may mint the stable one. */
  faucet: Sender;
  /** Closed with the network. */
  senderOf(signer: Signer): Sender;
  stop(): Promise<void>;
}

const BALANCE = 10n ** 24n;

/**
 * Starts the chain with funded development accounts and deploys the network. What fails leaves nothing behind.
 * @param options.idleSeconds after which chain time goes on by itself; 3600: by transactions and `warp` alone
 */
export async function startTestNetwork(options: {
  name: string;
  accounts?: number;
  idleSeconds?: number;
  deploy?: Partial<DeployOptions>;
  log?: Logger;
}): Promise<TestNetwork> {
  const { name, accounts: count = 40, idleSeconds = 1, deploy, log = silentLogger } = options;
  const folder = await mkdtemp(join(tmpdir(), `millrace-${name}-`));
  const accounts = Array.from({ length: count }, (_, index) => ({ address: developmentSigner(index, 'dev').address, balance: BALANCE }));
  const chain = await startChainSupervisor({ folder: join(folder, 'chain'), accounts, idleSeconds });
  const senders: Sender[] = [];
  const stop = async () => {
    for (const sender of senders) sender.close();
    await chain.stop();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const { rpcUrl } = chain;
    const manifestPath = join(folder, 'network.json');
    const signer = developmentSigner(0, 'dev');
    const plan = { rpcUrl, name: 'test', profile: 'dev', signer, folder: join(folder, 'deploy'), manifestPath, embedded: true, ...deploy };
    const client = await connectChain({ rpcUrl, manifest: await deployNetwork(plan) });
    const senderOf = (of: Signer) => {
      const sender = createSender({ client, signer: of, journalFolder: join(folder, 'keys'), log });
      senders.push(sender);
      return sender;
    };
    return { folder, chain, rpcUrl, manifestPath, client, faucet: senderOf(signer), senderOf, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
