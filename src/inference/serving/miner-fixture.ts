import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Address, zeroAddress } from 'viem';
import { developmentSigner, type ReceiptDomain, type Signer } from '../../chain/index.ts';
import { silentLogger } from '../../log.ts';
import type { Receiver } from '../../token/index.ts';
import type { TaskType } from '../engines/engine.ts';
import { listenerOf } from './carriers.ts';
import { createMiner, type Miner, type MinerOptions } from './miner.ts';
import type { MinerModel } from './miner-model.ts';
import { createOpenAiBackend } from './openai-backend.ts';
import type { ModelPrice } from './price.ts';

/** A miner on a real port, with the models of one foreign backend. For tests and measurements. */
export interface TestMiner {
  url: string;
  miner: Miner;
  signer: Signer;
  stop(): Promise<void>;
}

/** Domain of receipts and offers in tests. */
export const TEST_DOMAIN: ReceiptDomain = { chainId: 31_337, verifyingContract: zeroAddress };
/** A price that does not divide evenly, so that roundings show. */
export const TEST_PRICE: ModelPrice = {
  unit: 'tokens',
  inputPerMillion: 70_000_000_003n,
  outputPerMillion: 210_000_000_007n,
  perRequest: 1000n,
};
const TASKS: Record<string, TaskType> = {
  'mill-chat': 'chat',
  'mill-embed': 'embedding',
  'mill-voice': 'speech',
  'mill-ear': 'transcription',
  'mill-guard': 'moderation',
  'mill-brush': 'image-generation',
};
const UNITS: Partial<Record<TaskType, ModelPrice['unit']>> = {
  speech: 'characters',
  moderation: 'characters',
  transcription: 'milliseconds',
  'image-generation': 'images',
};

/** The models of a backend, one for each task. */
export function backendModels(url: string, concurrency = 8, more: Partial<MinerModel> = {}): MinerModel[] {
  return Object.entries(TASKS).map(([id, task]) => ({
    engine: createOpenAiBackend({ url, card: { id, task, licence: 'none', limits: ['a fixture'], contextTokens: 8192 } }),
    price: { ...TEST_PRICE, unit: UNITS[task] ?? TEST_PRICE.unit },
    outputUnitsMax: 64,
    concurrency,
    ...more,
  }));
}

/** Starts a miner over plain HTTP. */
export async function startTestMiner(
  options: { models: MinerModel[]; receiver?: Receiver; token?: Address; keyIndex?: number; operatorId?: bigint } & Partial<
    Pick<MinerOptions, 'domain' | 'now' | 'limits' | 'log'>
  >,
): Promise<TestMiner> {
  const signer = developmentSigner(options.keyIndex ?? 1, 'dev');
  const miner = createMiner({
    operatorId: options.operatorId ?? 1n,
    signer,
    domain: options.domain ?? TEST_DOMAIN,
    profile: 'dev',
    models: options.models,
    receiver: options.receiver,
    token: options.token,
    now: options.now ?? (() => BigInt(Math.floor(Date.now() / 1000))),
    limits: options.limits,
    log: options.log ?? silentLogger,
  });
  const server = createServer(listenerOf((request) => miner.answer(request)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    miner,
    signer,
    async stop() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
      await miner.stop();
      await Promise.all(options.models.map(({ engine }) => engine.close()));
    },
  };
}
