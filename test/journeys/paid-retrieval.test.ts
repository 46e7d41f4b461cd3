import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { decode } from '@ipld/dag-pb';
import { BatchSettlementEvmScheme as StockScheme } from '@x402/evm/batch-settlement/client';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import type { Abi, Address, Hex } from 'viem';
import { type ChainClient, connectChain, createSigner, readManifest } from '../../src/chain/index.ts';
import { cidOf } from '../../src/storage/index.ts';
import { localNetwork } from './local-network.ts';
import { freePort, person } from './person.ts';

const network = localNetwork();
const root = mkdtempSync(join(tmpdir(), 'millrace-paid-'));
const seller = person(root, 'seller');
const file = join(root, 'film.bin');
const bytes = randomBytes(3_300_000);
let running: ChildProcess | undefined;
let client: ChainClient;
let url = '';
let cid = '';
let holder = '';

before(async () => {
  writeFileSync(file, bytes);
  const { rpcUrl } = await network.json('up', '--detach', '--nodes', '2', '--with', 'storage,retriever');
  const manifest = join(network.home, 'data', 'dev', 'network.json');
  client = await connectChain({ rpcUrl, manifest: readManifest(manifest) });
  await seller.json('--rpc-url', rpcUrl, 'join', manifest);
  holder = (await seller.json('wallet', 'create')).address;
  await network.json('wallet', 'send', holder, '1', '--gas');
  await network.json('wallet', 'send', holder, '5');
  ({ cid } = await network.json('put', file, '--public', '--copies', '1'));
});
after(async () => {
  await stopSeller();
  await network.remove();
  rmSync(root, { recursive: true, force: true });
});

async function startSeller(port: number): Promise<void> {
  running = seller.start('retriever', '--listen', `127.0.0.1:${port}`, '--retrieval-price', '0.05');
  await seller.ready(running);
  url = `http://127.0.0.1:${port}`;
}
async function stopSeller(): Promise<void> {
  if (running === undefined || running.exitCode !== null) return;
  running.kill('SIGTERM');
  await once(running, 'exit');
}

/** The stock client of x402 v2 with a key that has tokens and no gas. */
async function stockFetch(): Promise<typeof fetch> {
  const key = createSigner(`0x${randomBytes(32).toString('hex')}`);
  await network.json('wallet', 'send', key.address, '1');
  const read = async (call: { address: Address; abi: readonly unknown[]; functionName: string; args?: readonly unknown[] }) => {
    if (call.functionName !== 'tryAggregate') return client.public.readContract({ ...call, abi: call.abi as Abi });
    const [, calls] = call.args as [boolean, { target: Address; callData: Hex }[]];
    return Promise.all(
      calls.map(async ({ target, callData }) => ({
        success: true,
        returnData: (await client.public.call({ to: target, data: callData })).data ?? '0x',
      })),
    );
  };
  const signer = {
    address: key.address,
    signTypedData: (message: unknown) => key.signTypedData(message as never),
    readContract: read,
  };
  const stock = new x402Client().register(`eip155:${client.chainId}`, new StockScheme(signer as never));
  stock.setSpendControls(false);
  return wrapFetchWithPayment(fetch, stock) as typeof fetch;
}

test('somebody without stake or registration sells reads; a plain request is told the price', async () => {
  await startSeller(await freePort());
  const answer = await fetch(`${url}/ipfs/${cid}?format=raw`);
  assert.equal(answer.status, 402);
  const { accepts } = JSON.parse(Buffer.from(answer.headers.get('payment-required') ?? '', 'base64').toString());
  assert.equal(accepts[0].scheme, 'batch-settlement');
  assert.equal(accepts[0].payTo.toLowerCase(), holder.toLowerCase());
  assert.equal(((await answer.json()) as { code: string }).code, 'payment-required');
});

test('the stock x402 client buys the content block by block, and every block has its hash', async () => {
  const pay = await stockFetch();
  const get = async (block: string) => {
    const answer = await pay(`${url}/ipfs/${block}?format=raw`);
    assert.equal(answer.status, 200, await answer.clone().text());
    return Buffer.from(await answer.arrayBuffer());
  };
  const node = await get(cid);
  assert.equal(cidOf(0x70, node).toString(), cid);
  const leaves: Buffer[] = [];
  for (const { Hash } of decode(node).Links) {
    const leaf = await get(Hash.toString());
    assert.equal(cidOf(Hash.code, leaf).toString(), Hash.toString());
    leaves.push(leaf);
  }
  assert.deepEqual(Buffer.concat(leaves), bytes);
});

test('what a provider gives free is not paid; when it has lost the file, the client buys it and says what it cost', async () => {
  const free = await network.json('get', cid, '-o', join(root, 'free.bin'), '--max-price', '0.1');
  assert.equal(free.cost.paid, '0');
  await untilAnnounced();

  for (const index of ['1', '2']) deletePieces(join(network.home, 'data', 'dev', 'nodes', index));
  const bought = await network.json('get', cid, '-o', join(root, 'bought.bin'), '--max-price', '0.1');
  assert.deepEqual(readFileSync(join(root, 'bought.bin')), bytes);
  const paid = BigInt(bought.cost.paid);
  // 0.05 tokens for a GiB, rounded up for each block.
  const worth = (5n * 10n ** 16n * BigInt(bytes.length)) >> 30n;
  assert.ok(paid >= worth && paid < (worth * 101n) / 100n, `${paid} for ${worth}`);
  assert.equal(bought.cost.lost, '0');
  const { items } = await network.json('retrievers');
  const record = items.find((item: { holder: string }) => item.holder === holder.toLowerCase());
  assert.equal(record.successRate, 1);
  assert.equal(record.paid, bought.cost.paid);
  // What the client signed about it is public, its channel the evidence.
  assert.deepEqual(record.reported, { served: 1, failed: 0, clients: 1 });
});

test('a retriever that was killed has its cache and its vouchers, and nothing is paid twice', async () => {
  const port = Number(new URL(url).port);
  running?.kill('SIGKILL');
  await once(running as ChildProcess, 'exit');
  await startSeller(port);
  await untilAnnounced();
  const again = await network.json('get', cid, '-o', join(root, 'again.bin'), '--max-price', '0.1');
  assert.deepEqual(readFileSync(join(root, 'again.bin')), bytes);
  assert.ok(BigInt(again.cost.paid) > 0n);
  assert.equal(again.cost.lost, '0');
});

test('a budget that is too small buys nothing and says what it would take', async () => {
  const { code, stderr } = await network.run('--json', 'get', cid, '-o', join(root, 'none.bin'), '--max-price', '0.00000001');
  assert.notEqual(code, 0);
  assert.match(stderr, /content-unavailable|price-too-low|price-over-budget/);
});

/** A provider that has lost its data: the payload files are gone. */
function deletePieces(folder: string): void {
  for (const name of readdirSync(folder, { recursive: true }) as string[]) if (name.endsWith('.car')) rmSync(join(folder, name));
}

/** Nodes that route know what the seller holds. */
function untilAnnounced(): Promise<void> {
  return until(async () => {
    const { items } = await network.json('retrievers');
    return items.some((item: { holder: string; holdings: number }) => item.holder === holder.toLowerCase() && item.holdings > 0);
  });
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 240_000;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, 'waited for a minute');
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
