import { join } from 'node:path';
import { type Address, encodeFunctionData, type Hex, zeroHash } from 'viem';
import {
  abis,
  type ChainClient,
  type ChainSupervisor,
  createSender,
  developmentSigner,
  nodeKeyConsent,
  type Sender,
} from '../chain/index.ts';
import { startTestNetwork } from '../chain/network-fixture.ts';
import { type Logger, silentLogger } from '../log.ts';
import { depositStake } from '../token/index.ts';
import { arbitrableCode, evidenceCall } from './arbitrable-fixture.ts';
import type { Judge } from './judge.ts';
import { type Juror, openJuror } from './juror.ts';
import { enrolJuror, leaveJury } from './seats.ts';

/** One token in base units. */
export const TOKEN = 10n ** 18n;

/** An operator with a seat and its own beneficiary. */
export interface TestJuror {
  operatorId: bigint;
  /** Of its node key among the development keys. */
  keyIndex: number;
  beneficiary: Address;
  folder: string;
  /** Opens its agent; the sender is opened with it and closed by `close`. */
  open(judges: readonly Judge[], log?: Logger): { juror: Juror; close(): void };
  /** Gives up all seats that it still has, so that later disputes are drawn from others. */
  leave(): Promise<void>;
}

/** A real embedded chain with the contracts of the dev profile whose time moves by transactions and `warp` only. */
export interface TestJury {
  folder: string;
  rpcUrl: string;
  manifestPath: string;
  journalFolder: string;
  chain: ChainSupervisor;
  client: ChainClient;
  faucet: Sender;
  addJuror(seats?: number): Promise<TestJuror>;
  deployArbitrable(options?: { refuses?: boolean }): Promise<Address>;
  /** Opens a dispute of two choices by an arbitrable and gives its first evidence. */
  openDispute(arbitrable: Address, evidence: string): Promise<bigint>;
  say(arbitrable: Address, disputeId: bigint, evidence: string): Promise<void>;
  /** What the arbitrable was told: the ruling, undefined while none came. */
  rulingAt(arbitrable: Address, disputeId: bigint): Promise<bigint | undefined>;
  stop(): Promise<void>;
}

/** Starts the chain and deploys the network. */
export async function startTestJury(): Promise<TestJury> {
  const network = await startTestNetwork({ name: 'jury', idleSeconds: 3_600, deploy: { juryVotes: 3 } });
  const { folder, rpcUrl, manifestPath, chain, client, faucet, stop } = network;
  const journalFolder = join(folder, 'keys');
  let joined = 0;
  const jury = client.address('jury');
  return {
    folder,
    rpcUrl,
    manifestPath,
    journalFolder,
    chain,
    client,
    faucet,
    async addJuror(seats = 1) {
      joined += 1;
      return joinJury({ client, faucet, journalFolder, folder: join(folder, `juror-${joined}`), keyIndex: 8 + 2 * joined, seats });
    },
    async deployArbitrable(options) {
      const { contractAddress } = await faucet.send({ to: null, data: arbitrableCode(jury, options) });
      return contractAddress as Address;
    },
    async openDispute(arbitrable, evidence) {
      const value = await client.read('jury', 'arbitrationCost', ['0x']);
      const data = encodeFunctionData({ abi: abis.jury, functionName: 'createDispute', args: [2n, '0x'] });
      await faucet.send({ to: arbitrable, data, value });
      const disputeId = await client.read('jury', 'disputeCount');
      await faucet.send({ to: arbitrable, data: evidenceCall(disputeId, evidence) });
      return disputeId;
    },
    async say(arbitrable, disputeId, evidence) {
      await faucet.send({ to: arbitrable, data: evidenceCall(disputeId, evidence) });
    },
    async rulingAt(arbitrable, disputeId) {
      const slot: Hex = `0x${disputeId.toString(16)}`;
      const stored = BigInt((await client.public.getStorageAt({ address: arbitrable, slot })) ?? 0);
      return stored === 0n ? undefined : stored - 1n;
    },
    stop,
  };
}

async function joinJury(of: {
  client: ChainClient;
  faucet: Sender;
  journalFolder: string;
  folder: string;
  keyIndex: number;
  seats: number;
}): Promise<TestJuror> {
  const { client, faucet, journalFolder, folder, keyIndex, seats } = of;
  const [owner, nodeKey] = [developmentSigner(keyIndex, 'dev'), developmentSigner(keyIndex + 1, 'dev')];
  const beneficiary: Address = `0x${(0xbe00 + keyIndex).toString(16).padStart(40, '0')}`;
  const ownerSender = createSender({ client, signer: owner, journalFolder, log: silentLogger });
  const consent = await nodeKeyConsent(client, nodeKey, owner.address);
  const args = [nodeKey.address, beneficiary, zeroHash, '', zeroHash, consent] as const;
  await ownerSender.send({ contract: 'operators', functionName: 'register', args });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  const amount = 100n * TOKEN;
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, amount] });
  await depositStake(client, { sender: ownerSender, operatorId, amount });
  ownerSender.close();
  const asNode = async (act: (sender: Sender) => Promise<unknown>) => {
    const sender = createSender({ client, signer: nodeKey, journalFolder, log: silentLogger });
    await act(sender).finally(() => sender.close());
  };
  if (seats > 0) await asNode((sender) => enrolJuror({ sender, operatorId }, seats));
  return {
    operatorId,
    keyIndex: keyIndex + 1,
    beneficiary,
    folder,
    open(judges, log) {
      const own = createSender({ client, signer: nodeKey, journalFolder, log: silentLogger });
      const juror = openJuror({ client, sender: own, operatorId, folder, judges, ...(log && { log }) });
      return { juror, close: () => own.close() };
    },
    async leave() {
      if ((await client.read('jury', 'juror', [operatorId])).seats > 0) await asNode((sender) => leaveJury(client, { sender, operatorId }));
    },
  };
}
