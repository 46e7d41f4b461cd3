import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { type Hex, toHex } from 'viem';
import { campaignSeed, rounds } from '../../test/campaign.ts';
import { startChainSupervisor } from './supervisor.ts';
import type { ChainStatus } from './supervisor-control.ts';
import { callRpc, SINK, sendForReceipt, signTransfer, temporaryFolder, testAccount, testChain } from './supervisor-fixture.ts';

const KILLS = rounds(100);
const LONG_CHAIN_BLOCKS = rounds(1_000) === 1_000 ? 100_000 : 2_000;
const SENDERS = 4;
/** Creation code that logs topic 1 and leaves nothing. */
const LOGGING_CODE: Hex = '0x60015f5fa1';

interface RunningChain {
  child: ChildProcess;
  status: ChainStatus & { controlPath: string };
}

interface SeenReceipt {
  blockNumber: Hex;
  blockHash: Hex;
  transactionHash: Hex;
}

async function spawnChain(folder: string, context: TestContext): Promise<RunningChain> {
  const { accounts, ...options } = testChain(folder, { snapshotBlocks: 25 });
  const argument = JSON.stringify({
    ...options,
    accounts: accounts?.map(({ address, balance }) => ({ address, balance: String(balance) })),
  });
  const child = spawn(process.execPath, [new URL('./supervisor-process.ts', import.meta.url).pathname, argument], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  context.after(() => child.kill('SIGKILL'));
  const log: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => log.push(line));
  const line = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line').then(([text]) => text as string),
    once(child, 'exit').then(([code]) => assert.fail(`the chain exited with ${code}: ${log.slice(-3).join('\n')}`)),
  ]);
  return { child, status: JSON.parse(line as string) as RunningChain['status'] };
}

async function killAndWait(running: RunningChain): Promise<void> {
  running.child.kill('SIGKILL');
  await once(running.child, 'exit');
}

/** Numbers from 0 to below 1, the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Whether that process still runs (a dead one that nobody reaped has no arguments any more). */
function runsAnvilOf(pid: number, running: RunningChain): boolean {
  if (pid === running.status.anvilPid || process.platform !== 'linux') return false;
  return commandLineOf(String(pid)).includes('anvil');
}

function processesWith(text: string): { pid: number; commandLine: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), commandLine: commandLineOf(name) }))
    .filter(({ commandLine }) => commandLine.includes(text));
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    // It ended meanwhile.
    return '';
  }
}

/** Sends transactions from one account until the chain goes away, and notes every receipt that it saw. */
async function sendUntilKilled(url: string, sender: number, seen: SeenReceipt[], over: AbortSignal): Promise<void> {
  const account = testAccount(sender);
  try {
    let nonce = Number((await callRpc<Hex>(url, 'eth_getTransactionCount', [account.address, 'latest'])).result);
    for (; !over.aborted; nonce += 1) {
      const isLogging = nonce % 3 === 2;
      const change = isLogging ? { to: undefined, value: 0n, data: LOGGING_CODE, gas: 100_000n } : {};
      seen.push(await sendForReceipt(url, await signTransfer(account, nonce, change)));
    }
  } catch {
    // The chain was killed under it; what it had not seen was not promised.
  }
}

async function assertKept(url: string, seen: SeenReceipt[]): Promise<void> {
  for (const { transactionHash, blockHash, blockNumber } of seen) {
    const { result } = await callRpc<SeenReceipt | null>(url, 'eth_getTransactionReceipt', [transactionHash]);
    assert.deepEqual([result?.blockHash, result?.blockNumber], [blockHash, blockNumber], `receipt of ${transactionHash}`);
  }
}

test(`${KILLS} kills of supervisor and anvil under load lose no transaction whose receipt was seen`, async (context) => {
  const folder = temporaryFolder();
  const seen: SeenReceipt[] = [];
  const random = randomNumbers(campaignSeed());
  context.diagnostic(`seed ${campaignSeed()}`);
  let running = await spawnChain(folder, context);
  for (let round = 0; round < KILLS; round += 1) {
    const over = new AbortController();
    const before = seen.length;
    const load = Array.from({ length: SENDERS }, (_, sender) => sendUntilKilled(running.status.rpcUrl, sender, seen, over.signal));
    await new Promise((resolve) => setTimeout(resolve, 50 + random() * 300));
    const victim = ['supervisor', 'anvil', 'both'][Math.floor(random() * 3)];
    const { anvilPid } = running.status;
    if (victim !== 'supervisor') process.kill(anvilPid, 'SIGKILL');
    if (victim === 'anvil') {
      // The supervisor starts it again by itself, and the senders go on.
      await new Promise((resolve) => setTimeout(resolve, 200));
      const { result } = await callRpc<Hex>(running.status.rpcUrl, 'eth_getBlockByNumber', ['latest', false]);
      assert.ok(result !== undefined);
      over.abort();
      await Promise.all(load);
    }
    await killAndWait(running);
    over.abort();
    await Promise.all(load);
    running = await spawnChain(folder, context);
    assert.ok(!runsAnvilOf(anvilPid, running), 'the anvil of the former supervisor is gone');
    await assertKept(running.status.rpcUrl, seen.slice(before));
  }
  context.diagnostic(`${seen.length} receipts seen, height ${running.status.height}`);
  assert.ok(seen.length > KILLS);
  await assertKept(running.status.rpcUrl, seen);
  const nonces = await Promise.all(
    Array.from({ length: SENDERS }, (_, sender) =>
      callRpc<Hex>(running.status.rpcUrl, 'eth_getTransactionCount', [testAccount(sender).address, 'latest']),
    ),
  );
  const sent = nonces.map(({ result }) => Number(result));
  const transfers = sent.reduce((sum, count) => sum + count - Math.floor(count / 3), 0);
  const logs = await callRpc<unknown[]>(running.status.rpcUrl, 'eth_getLogs', [
    { fromBlock: 'earliest', topics: [toHex(1, { size: 32 })] },
  ]);
  assert.equal(Number((await callRpc(running.status.rpcUrl, 'eth_getBalance', [SINK, 'latest'])).result), transfers);
  assert.equal(
    logs.result?.length,
    sent.reduce((sum, count) => sum + Math.floor(count / 3), 0),
  );
  await killAndWait(running);
});

test('an anvil that outlived supervisor and guardian is killed by the next start', {
  skip: process.platform !== 'linux' && 'looks into /proc',
}, async (context) => {
  const folder = temporaryFolder();
  const first = await spawnChain(folder, context);
  const socket = `--ipc ${join(dirname(first.status.controlPath), 'anvil.ipc')}`;
  const [guardian] = processesWith(socket).filter(({ commandLine }) => commandLine.includes('read -r line'));
  process.kill(guardian?.pid as number, 'SIGKILL');
  await killAndWait(first);
  assert.deepEqual(
    processesWith(socket).map(({ pid }) => pid),
    [first.status.anvilPid],
  );
  const second = await spawnChain(folder, context);
  assert.ok(!processesWith(socket).some(({ pid }) => pid === first.status.anvilPid));
  await killAndWait(second);
});

test('a log cut off at any byte of its last block starts with the blocks before it', async () => {
  const options = testChain(temporaryFolder());
  const first = await startChainSupervisor(options);
  const path = join(options.folder, 'wal-000000000001.log');
  for (let nonce = 0; nonce < 3; nonce += 1) await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(0), nonce));
  const durable = statSync(path).size;
  const { hash } = first.head();
  await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(0), 3));
  await first.stop();
  const whole = statSync(path).size;
  for (const sizeBytes of [durable + Math.floor((whole - durable) / 2), durable + 5, durable]) {
    truncateSync(path, sizeBytes);
    const again = await startChainSupervisor(options);
    assert.equal(again.head().hash, hash);
    await again.stop();
    assert.equal(statSync(path).size, durable);
  }
});

test('a block that was logged but never mined is mined by the next start, with the randomness that was logged', async () => {
  const options = testChain(temporaryFolder());
  const first = await startChainSupervisor(options);
  await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(0), 0));
  const head = first.head();
  await first.stop();
  const path = join(options.folder, 'wal-000000000001.log');
  const bytes = readFileSync(path);
  truncateSync(path, bytes.lastIndexOf('MRW1'));
  const second = await startChainSupervisor(options);
  assert.deepEqual(second.head(), head);
  await second.stop();
});

test(`a chain of ${LONG_CHAIN_BLOCKS} blocks is restored with the same head`, { timeout: 7_200_000 }, async (context) => {
  const options = testChain(temporaryFolder(), { idleSeconds: 0 });
  const first = await startChainSupervisor(options);
  while (first.head().number < LONG_CHAIN_BLOCKS) await new Promise((resolve) => setTimeout(resolve, 20));
  await first.stop();
  const head = first.head();
  const startedMs = performance.now();
  const second = await startChainSupervisor({ ...options, idleSeconds: 3_600 });
  context.diagnostic(`restored ${head.number} blocks in ${Math.round(performance.now() - startedMs)} ms`);
  assert.deepEqual(second.head(), head);
  await sendForReceipt(second.rpcUrl, await signTransfer(testAccount(0), 0));
  await second.stop();
});
