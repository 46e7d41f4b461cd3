import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Address, createPublicClient, type Hex, http, keccak256, type PublicClient } from 'viem';
import { type ChainClient, connectChain } from '../src/chain/client.ts';
import type { ModuleName } from '../src/chain/contracts.generated.ts';
import { type Manifest, type ManifestRandomness, signManifest } from '../src/chain/manifest.ts';
import { createSigner, developmentSigner } from '../src/chain/signer.ts';
import { MillraceError } from '../src/errors.ts';

const BINARY = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil');

/** A bare anvil: no supervisor, all cheat codes. For tests of what must work on any chain. */
export interface BareAnvil {
  rpcUrl: string;
  public: PublicClient;
  /** Any JSON-RPC method. */
  rpc(method: string, params?: unknown[]): Promise<unknown>;
  stop(): Promise<void>;
}

/** Starts anvil on a free port; `options` are command line flags such as `--no-mining`. */
export async function startBareAnvil(options: string[] = []): Promise<BareAnvil> {
  const binary = existsSync(BINARY) ? BINARY : 'anvil';
  const child = spawn(binary, ['--port', '0', '--order', 'fifo', ...options], { stdio: ['ignore', 'pipe', 'ignore'] });
  const rpcUrl = `http://${await listeningAddress(child)}`;
  child.stdout?.resume();
  const client = createPublicClient({ transport: http(rpcUrl, { retryCount: 0, timeout: 30_000 }) });
  return {
    rpcUrl,
    public: client,
    rpc: (method, params = []) => client.request({ method, params } as never),
    stop: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve();
        child.once('exit', () => resolve());
        child.kill('SIGKILL');
      }),
  };
}

function listeningAddress(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let printed = '';
    child.once('error', reject);
    child.once('exit', (code) =>
      reject(new MillraceError('anvil-failed', { actor: 'host', message: `anvil ended with ${code}: ${printed}` })),
    );
    child.stdout?.on('data', (chunk) => {
      printed = (printed + chunk).slice(-10_000);
      const found = /Listening on ([\d.]+:\d+)/.exec(printed);
      if (found !== null) resolve(found[1] as string);
    });
  });
}

/**
 * Code of a contract that logs what it is told. Call data: six words, count, three topics, and a first data word; it emits `count`
 * logs with the three topics, each with two data words: the given one, and count - 1 down to 0.
 */
const EMITTER_RUNTIME = '6080355f525f355b8015602557600190038060205260603560403560203560405fa36007565b00';

/** Bytecode that puts `runtime` (hex digits without 0x, at most 255 bytes) on the chain. */
export function initCodeOf(runtime: string): Hex {
  const size = (runtime.length / 2).toString(16).padStart(2, '0');
  return `0x60${size}8060095f395ff3${runtime}`;
}

/** Call data for the emitter. */
export function emitCall(count: number, topics: readonly [Hex, Hex, Hex], word: Hex): Hex {
  const words = [`0x${count.toString(16)}`, ...topics, word].map((value) => value.slice(2).padStart(64, '0'));
  return `0x${words.join('')}`;
}

/** Runs a transaction with a development key and gives its receipt's contract address, or null. */
export async function runOnAnvil(
  anvil: BareAnvil,
  transaction: { to?: Address; data?: Hex; value?: Hex; index?: number },
): Promise<Address | null> {
  const from = developmentSigner(transaction.index ?? 9, 'dev').address;
  const { to, data, value } = transaction;
  const hash = (await anvil.rpc('eth_sendTransaction', [{ from, to, data, value, gas: '0x1000000' }])) as Hex;
  const receiptOf = () =>
    anvil.rpc('eth_getTransactionReceipt', [hash]) as Promise<{ contractAddress: Address | null; status: Hex } | null>;
  let receipt = await receiptOf();
  while (receipt === null) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    receipt = await receiptOf();
  }
  if (receipt.status !== '0x1') throw new MillraceError('reverted', { actor: 'bug', message: `${hash} was reverted` });
  return receipt.contractAddress;
}

/** A network on a bare anvil, each module being an emitter (or the code given), with a real, verified manifest. */
export async function connectEmitters(
  anvil: BareAnvil,
  options: { modules?: ModuleName[]; runtime?: string; source?: ManifestRandomness['source'] } = {},
): Promise<ChainClient> {
  const modules: Manifest['modules'] = {};
  for (const name of options.modules ?? ['rails', 'stakeVault']) {
    const address = (await runOnAnvil(anvil, { data: initCodeOf(options.runtime ?? EMITTER_RUNTIME) })) as Address;
    const code = (await anvil.public.getCode({ address })) as Hex;
    modules[name] = { address, codeHash: keccak256(code), deployBlock: Number(await anvil.public.getBlockNumber({ cacheTime: 0 })) };
  }
  const first = (await anvil.rpc('eth_getBlockByNumber', ['0x0', false])) as { hash: Hex };
  const signer = developmentSigner(0, 'dev');
  const token = { address: signer.address, name: 'Test', symbol: 'TEST', decimals: 18 };
  const manifest = await signManifest(
    {
      version: 1,
      name: 'emitters',
      chainId: await anvil.public.getChainId(),
      genesisHash: first.hash,
      profile: 'dev',
      notSecure: true,
      genesis: 0,
      randomness: { source: options.source ?? 'trusted-operator', beacon: null, history: 'eip-2935' },
      modules,
      tokens: { network: token, stable: token },
      deployer: signer.address,
    },
    signer,
  );
  return connectChain({ rpcUrl: anvil.rpcUrl, manifest });
}

/** A new key with 100 coins. */
export async function fundedSigner(anvil: BareAnvil, seed: number) {
  const signer = createSigner(keccak256(`0x${seed.toString(16).padStart(8, '0')}`));
  await anvil.rpc('anvil_setBalance', [signer.address, '0x56bc75e2d63100000']);
  return signer;
}
