import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Address } from 'viem';
import { connectChain, createSender, deployNetwork, developmentSigner, readManifest, type Sender, type Signer } from '../chain/index.ts';
import { openTransportIdentity } from '../connect/index.ts';
import type { Logger } from '../log.ts';
import type { NetworkFolder } from './network-folder.ts';
import type { NodeProcessOptions } from './node-process.ts';
import { fundFromFaucet, provisionOperator } from './provision.ts';

/** An operator that runs on this machine. */
export interface LocalOperator {
  index: number;
  operatorId: bigint;
  endpoint: string;
  port: number;
  key: NodeProcessOptions['key'];
}

/** Development accounts: 0 deploys and is the faucet, 1 is the client, then owner, node key and beneficiary of each node. */
export const CLIENT_INDEX = 1;
/** Owns the subnets of a development network; the next two are owner and node key of their sink. */
const FOUNDER_INDEX = 2;
const FIRST_NODE_INDEX = 10;
const KEYS_PER_NODE = 3;
const ONE_TOKEN = 10n ** 18n;
const NODE_STAKE = 100_000n * ONE_TOKEN;
const CLIENT_TOKENS = 10_000n * ONE_TOKEN;

/** The development key of an index; other profiles have none. @throws the chain's error for other profiles than `dev` */
export function developmentIndex(index: number, profile: string): Signer {
  return developmentSigner(index, profile);
}

/**
 * Makes the network exist on its chain: contracts deployed and manifest written (once), the development client funded, each node's
 * operator registered, reachable and staked. Every step looks first, so it is the same for the first and for a later start. A network with
 * own keys, or made elsewhere, is only checked.
 */
export async function prepareNetwork(options: {
  folder: NetworkFolder;
  name: string;
  profile: string;
  rpcUrl: string;
  /** The chain is the embedded one: its supervisor draws the randomness. */
  embedded: boolean;
  beacon?: Address;
  ports: readonly number[];
  /** Subnets are made, and the operators get their uids. */
  withInference?: boolean;
  /** The client gets what jobs and leases are paid in. */
  withCompute?: boolean;
  log: Logger;
}): Promise<LocalOperator[]> {
  const { folder, rpcUrl, log } = options;
  if (!existsSync(folder.manifest)) {
    await deployNetwork({
      rpcUrl,
      name: options.name,
      profile: options.profile,
      signer: developmentSigner(0, options.profile),
      folder: folder.root,
      manifestPath: folder.manifest,
      embedded: options.embedded,
      beacon: options.beacon,
      log,
    });
  }
  const manifest = readManifest(folder.manifest);
  const client = await connectChain({ rpcUrl, manifest });
  // Own keys, or a development network of somebody else, whose nodes have these keys: this machine only follows.
  if (manifest.profile !== 'dev' || !existsSync(join(folder.root, 'deploy.json'))) return [];
  const open = (index: number): Sender =>
    createSender({ client, signer: developmentSigner(index, manifest.profile), journalFolder: `${folder.root}/keys`, log });
  const faucet = open(0);
  try {
    await fundFromFaucet(client, faucet, developmentSigner(CLIENT_INDEX, manifest.profile).address, {
      tokens: CLIENT_TOKENS,
      wei: ONE_TOKEN,
    });
    const operators: LocalOperator[] = [];
    for (const [position, port] of options.ports.entries()) operators.push(await prepareOperator(position + 1, port));
    if (options.withInference === true) await prepareSubnets(operators);
    if (options.withCompute === true) {
      const { prepareCompute } = await import('./prepare-compute.ts');
      const nodeKeys = operators.map(
        ({ index }) => developmentSigner(FIRST_NODE_INDEX + (index - 1) * KEYS_PER_NODE + 1, manifest.profile).address,
      );
      await prepareCompute(client, { faucet, renter: developmentSigner(CLIENT_INDEX, manifest.profile).address, nodeKeys });
    }
    return operators;
  } finally {
    faucet.close();
  }

  async function prepareSubnets(operators: readonly LocalOperator[]): Promise<void> {
    const { prepareInference } = await import('./prepare-inference.ts');
    const { openNetworkBeacon } = await import('./network-beacon.ts');
    const [founder, sinkOwner] = [open(FOUNDER_INDEX), open(FOUNDER_INDEX + 1)];
    const own = operators.map(({ index, operatorId }) => {
      const first = FIRST_NODE_INDEX + (index - 1) * KEYS_PER_NODE;
      return { owner: open(first), nodeKey: developmentSigner(first + 1, manifest.profile), operatorId };
    });
    try {
      const sinkNodeKey = developmentSigner(FOUNDER_INDEX + 2, manifest.profile);
      const { declaration: beacon } = await openNetworkBeacon({
        networkRoot: folder.root,
        profile: manifest.profile,
        now: () => client.now(),
      });
      await prepareInference(client, { faucet, founder, sinkOwner, sinkNodeKey, operators: own, beacon });
    } finally {
      for (const sender of [founder, sinkOwner, ...own.map(({ owner }) => owner)]) sender.close();
    }
  }

  async function prepareOperator(index: number, port: number): Promise<LocalOperator> {
    const first = FIRST_NODE_INDEX + (index - 1) * KEYS_PER_NODE;
    const owner = open(first);
    try {
      const nodeKey = developmentSigner(first + 1, manifest.profile);
      await fundFromFaucet(client, faucet, owner.address, { tokens: 0n, wei: ONE_TOKEN });
      // Tokens for the checkers whom it asks where a client is silent.
      await fundFromFaucet(client, faucet, nodeKey.address, { tokens: ONE_TOKEN, wei: ONE_TOKEN });
      const known = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
      if (known === 0n) await fundFromFaucet(client, faucet, owner.address, { tokens: NODE_STAKE, wei: ONE_TOKEN });
      const { transportKey } = await openTransportIdentity(folder.node(index));
      const endpoint = `https://127.0.0.1:${port}`;
      const beneficiary = developmentSigner(first + 2, manifest.profile).address;
      const operatorId = await provisionOperator(client, {
        owner,
        nodeKey,
        beneficiary,
        transportKey,
        endpoint,
        region: 'local',
        stake: known === 0n ? NODE_STAKE : 0n,
      });
      return { index, operatorId, endpoint, port, key: { developmentIndex: first + 1 } };
    } finally {
      owner.close();
    }
  }
}
