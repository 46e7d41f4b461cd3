/** Providers as real processes on a real chain, for the storage journeys. */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { developmentSigner } from '../../src/chain/index.ts';
import { registerOperator, type TestMarket, until } from '../../src/storage/market/market-fixture.ts';
import type { ProviderChildOptions } from '../provider-child.ts';

/** A provider in a process of its own. */
export interface ProviderProcess {
  index: number;
  operatorId: bigint;
  /** Process id while it runs. */
  pid(): number | undefined;
  /** Codes of the errors that its prover met so far, oldest first. */
  proverFailures(): string[];
  /** How many proofs it has held back until they were too late. */
  heldBack(): number;
  /** Deletes a piece behind the provider's back. */
  deletePiece(pieceRoot: `0x${string}`): Promise<void>;
  /** `kill -9`, and waits until it is gone. */
  kill(): Promise<void>;
  /** Starts it again after a kill, with the same keys, data and port. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

type Behaviour = Pick<ProviderChildOptions, 'attack' | 'duties' | 'keepsOthers' | 'minPrice'>;
type ChildMessage = { ready?: boolean; id?: number; error?: string; port: number; transportKey: `0x${string}` };

const running = new Set<ChildProcess>();

/** Kills all providers that still run; for the end of a file of tests. */
export async function killProviders(): Promise<void> {
  await Promise.all([...running].map((child) => end(child, 'SIGKILL')));
}

const CHILD = fileURLToPath(new URL('../provider-child.ts', import.meta.url));

/** Registers an operator and starts its provider as a process. */
export async function startProviderProcess(market: TestMarket, index: number, behaviour: Behaviour = {}): Promise<ProviderProcess> {
  const nodeKey = developmentSigner(11 + index * 2, 'dev');
  const owner = market.senderOf(developmentSigner(10 + index * 2, 'dev'));
  const base = {
    rpcUrl: market.chain.rpcUrl,
    manifestPath: join(market.folder, 'network.json'),
    folder: join(market.folder, `node-${index}`),
    keys: join(market.folder, 'keys'),
    logFile: join(market.folder, `node-${index}.log`),
    keyIndex: 11 + index * 2,
    ...behaviour,
  };
  // Once without an operator, to learn the port and the TLS key that go on chain.
  const first = await launch({ ...base, port: 0, operatorId: '0' });
  const { port, transportKey } = first.hello;
  await end(first.child, 'SIGKILL');
  const endpoint = `https://127.0.0.1:${port}`;
  const operatorId = await registerOperator(market, { owner, nodeKey, endpoint, transportKey, index });
  owner.close();
  const options = { ...base, port, operatorId: operatorId.toString() };
  let child: ChildProcess | undefined = (await launch(options)).child;
  let messages = 0;
  const logLines = () => {
    const text = existsSync(base.logFile) ? readFileSync(base.logFile, 'utf8') : '';
    const whole = text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter((line) => line !== '');
    return whole.map((line) => JSON.parse(line) as { event: string; duty?: string; code?: string });
  };
  return {
    index,
    operatorId,
    pid: () => child?.pid,
    proverFailures: () =>
      logLines()
        .filter(({ event, duty }) => event === 'duty-failed' && duty === 'prover')
        .map(({ code }) => code ?? ''),
    heldBack: () => logLines().filter(({ event }) => event === 'proof-held-back').length,
    async deletePiece(pieceRoot) {
      const target = child as ChildProcess;
      messages += 1;
      const id = messages;
      const answered = new Promise<void>((resolve, reject) => {
        const listen = (message: ChildMessage) => {
          if (message.id !== id) return;
          target.off('message', listen);
          if (message.error === undefined) resolve();
          else reject(new TypeError(message.error));
        };
        target.on('message', listen);
      });
      target.send({ id, delete: pieceRoot });
      await answered;
    },
    async kill() {
      if (child !== undefined) await end(child, 'SIGKILL');
      child = undefined;
    },
    async start() {
      child = (await launch(options)).child;
    },
    async stop() {
      if (child !== undefined) await end(child, 'SIGTERM');
      child = undefined;
    },
  };
}

/** Moves into the window of a period and waits until the provider has proven it, or has tried and met one of these errors. */
export async function proofOf(
  market: TestMarket,
  provider: ProviderProcess,
  { period, failsWith }: { period: bigint; failsWith: readonly string[] },
): Promise<'proven' | 'failed'> {
  const { operatorId } = provider;
  const count = () => provider.proverFailures().filter((code) => failsWith.includes(code)).length;
  const before = count();
  let outcome: 'proven' | 'failed' | undefined;
  await market.warpTo((await market.client.read('possession', 'seedTime', [period])) + 1n);
  await until(`operator ${operatorId} proves period ${period} or fails with ${failsWith.join(' or ')}`, async () => {
    const { provenThrough } = await market.client.read('possession', 'standing', [operatorId]);
    outcome = provenThrough > period ? 'proven' : count() > before ? 'failed' : undefined;
    return outcome !== undefined;
  });
  return outcome as 'proven' | 'failed';
}

/** Waits until a provider has missed a period and that is on record. */
export async function untilMissed(market: TestMarket, operatorId: bigint, misses: number): Promise<void> {
  await until(`operator ${operatorId} has ${misses} misses on record`, async () => {
    return (await market.client.events({ name: 'possession', event: 'Missed', args: { operatorId } })).length >= misses;
  });
}

function launch(options: ProviderChildOptions): Promise<{ child: ChildProcess; hello: ChildMessage }> {
  const child = fork(CHILD, [JSON.stringify(options)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new TypeError(`The provider process ended with ${code}`)));
    child.once('message', (message: ChildMessage) => resolve({ child, hello: message }));
  });
}

function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill(signal);
  });
}
