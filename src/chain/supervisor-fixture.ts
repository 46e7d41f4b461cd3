import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Hex, keccak256, toHex } from 'viem';
import { type PrivateKeyAccount, privateKeyToAccount } from 'viem/accounts';
import { type ChainSupervisorOptions, EMBEDDED_CHAIN_ID } from './supervisor.ts';

/** One answer of a JSON-RPC server. */
export interface RpcAnswer<Result = unknown> {
  result?: Result;
  error?: { code: number; message: string; data?: unknown };
}

/** An address that nothing is ever deployed to. */
export const SINK: Hex = '0x00000000000000000000000000000000000000aa';
const FUNDS = 10n ** 24n;

/** A new folder for one test's chain. */
export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'millrace-chain-'));
}

/** The account with a key made from `index`; for tests only. */
export function testAccount(index: number): PrivateKeyAccount {
  return privateKeyToAccount(keccak256(toHex(`test account ${index}`)));
}

/** What a test's chain is started with: ten funded accounts, nothing mined by itself unless asked. */
export function testChain(folder: string, extra: Partial<ChainSupervisorOptions> = {}): ChainSupervisorOptions {
  const accounts = Array.from({ length: 10 }, (_, index) => ({ address: testAccount(index).address, balance: FUNDS }));
  return { folder, accounts, idleSeconds: 3_600, ...extra };
}

/** Sends one JSON-RPC call and gives the whole answer. */
export async function callRpc<Result = unknown>(url: string, method: string, params: unknown[] = []): Promise<RpcAnswer<Result>> {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  return (await response.json()) as RpcAnswer<Result>;
}

/** A signed transfer of one wei, or what `change` makes of it. */
export function signTransfer(account: PrivateKeyAccount, nonce: number, change: Record<string, unknown> = {}): Promise<Hex> {
  return account.signTransaction({
    type: 'eip1559',
    chainId: EMBEDDED_CHAIN_ID,
    nonce,
    to: SINK,
    value: 1n,
    gas: 21_000n,
    maxFeePerGas: 10n ** 11n,
    maxPriorityFeePerGas: 0n,
    ...change,
  } as Parameters<PrivateKeyAccount['signTransaction']>[0]);
}

/** Sends a signed transaction and waits for its receipt. */
export async function sendForReceipt(
  url: string,
  raw: Hex,
): Promise<{ blockNumber: Hex; blockHash: Hex; status: Hex; transactionHash: Hex }> {
  const answer = await callRpc<{ blockNumber: Hex; blockHash: Hex; status: Hex; transactionHash: Hex }>(url, 'eth_sendRawTransactionSync', [
    raw,
  ]);
  if (answer.result === undefined) throw new TypeError(`no receipt: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

/** The hashes of all blocks from genesis to the newest. */
export async function blockHashes(url: string): Promise<Hex[]> {
  const height = Number((await callRpc<Hex>(url, 'eth_blockNumber')).result);
  const hashes: Hex[] = [];
  for (let number = 0; number <= height; number += 1) {
    const { result } = await callRpc<{ hash: Hex }>(url, 'eth_getBlockByNumber', [toHex(number), false]);
    hashes.push((result as { hash: Hex }).hash);
  }
  return hashes;
}
