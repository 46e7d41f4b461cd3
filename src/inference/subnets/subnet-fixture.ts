import { join } from 'node:path';
import { zeroHash } from 'viem';
import { type ChainClient, type ChainSupervisor, developmentSigner, nodeKeyConsent, type Sender, type Signer } from '../../chain/index.ts';
import { startTestNetwork } from '../../chain/network-fixture.ts';
import { backOperator, depositStake } from '../../token/index.ts';
import type { PulseSource } from './beacon.ts';
import { createOpinionAgent, type OpinionAgent } from './opinion-agent.ts';
import { claimPermit, createSubnet, registerUid } from './subnet-actions.ts';
import { DEFAULT_SUBNET_RULES, type SubnetRules } from './subnet-rules.ts';

/** One token in base units. */
export const TOKEN = 10n ** 18n;

/** An operator of the test with a uid. */
export interface TestOperator {
  operatorId: bigint;
  uid: number;
  owner: Sender;
  nodeKey: Signer;
  sender: Sender;
}

/** A real embedded chain with the contracts of the dev profile, and one subnet with an epoch of `tempoSeconds`. */
export interface TestSubnet {
  folder: string;
  chain: ChainSupervisor;
  client: ChainClient;
  faucet: Sender;
  subnetId: bigint;
  senderOf(signer: Signer): Sender;
  /** A new operator with a uid; with stake it backs itself, and holds a permit. */
  join(options?: { stake?: bigint; backing?: bigint }): Promise<TestOperator>;
  agentOf(operator: TestOperator, pulses?: PulseSource): OpinionAgent;
  epoch(): Promise<bigint>;
  /** Moves chain time to `seconds` after the start of an epoch. */
  warpToEpoch(epoch: bigint, seconds?: number): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the chain, deploys the network and creates the subnet. */
export async function startTestSubnet(options: { tempoSeconds?: number; rules?: Partial<SubnetRules> } = {}): Promise<TestSubnet> {
  const network = await startTestNetwork({ name: 'subnet' });
  const { folder, chain, client, faucet, senderOf, stop } = network;
  try {
    const rules = { ...DEFAULT_SUBNET_RULES, ...options.rules };
    const subnetId = await createSubnet(client, { sender: faucet, kind: 'chat', tempoSeconds: options.tempoSeconds ?? 600, rules });
    let joined = 0;
    return {
      folder,
      chain,
      client,
      faucet,
      subnetId,
      senderOf,
      async join(wanted = {}) {
        joined += 1;
        const [owner, nodeKey] = [senderOf(developmentSigner(8 + joined * 2, 'dev')), developmentSigner(9 + joined * 2, 'dev')];
        return joinSubnet({ client, faucet, subnetId, owner, nodeKey, sender: senderOf(nodeKey), ...wanted });
      },
      agentOf: ({ sender, uid }, pulses) =>
        createOpinionAgent({ client, sender, subnetId, uid, folder: join(folder, `opinions-${uid}`), ...(pulses && { pulses }) }),
      epoch: async () => client.read('subnets', 'epochAt', [subnetId, await client.now()]),
      async warpToEpoch(epoch, seconds = 1) {
        const time = (await client.read('subnets', 'epochStart', [subnetId, epoch])) + BigInt(seconds);
        const now = await client.now();
        if (time > now) await chain.warp(Number(time - now));
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Joining {
  client: ChainClient;
  faucet: Sender;
  subnetId: bigint;
  owner: Sender;
  nodeKey: Signer;
  sender: Sender;
  stake?: bigint;
  backing?: bigint;
}

async function joinSubnet({ client, faucet, subnetId, owner, nodeKey, sender, stake = 0n, backing = 0n }: Joining): Promise<TestOperator> {
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  const args = [nodeKey.address, owner.address, zeroHash, 'https://127.0.0.1:1', zeroHash, consent] as const;
  await owner.send({ contract: 'operators', functionName: 'register', args });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  const price = await client.read('subnets', 'registrationPrice', [subnetId]);
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, price + stake] });
  const uid = await registerUid(client, { sender: owner, subnetId, operatorId });
  if (stake > 0n) await depositStake(client, { sender: owner, operatorId, amount: stake });
  if (backing > 0n) await backOperator(client, { sender: faucet, operatorId, amount: backing });
  if (stake > 0n) {
    await client.waitForTime((await client.now()) + 1n); // stake of the last second counts
    await claimPermit({ sender, subnetId, uid });
  }
  return { operatorId, uid, owner, nodeKey, sender };
}
