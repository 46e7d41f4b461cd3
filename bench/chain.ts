/**
 * The embedded chain beside bare anvil: transfers and blocks a second and per CPU-second, latency of one transaction, restore time.
 * CPU seconds are those of supervisor and anvil together, without the client that signs and sends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Hex } from 'viem';
import { locateAnvil } from '../src/chain/anvil.ts';
import type { ChainStatus } from '../src/chain/supervisor-control.ts';
import { callRpc, sendForReceipt, signTransfer, testAccount, testChain } from '../src/chain/supervisor-fixture.ts';

const SENDERS = 10;
const TRANSFERS = 2_000;
const BATCH = 200;
const SEQUENTIAL = 200;
/** Anvil's cost of a block grows with the slots of the EIP-2935 history, up to 8,191 of them. */
const BLOCKS = 2_000;
/** Linux counts processor time in hundredths of a second for every architecture (USER_HZ). */
const TICKS_PER_SECOND = 100;

interface Subject {
  url: string;
  pids: number[];
  child: ChildProcess;
}

const root = mkdtempSync(join(tmpdir(), 'millrace-bench-chain-'));
const supervisorEntry = new URL('../src/chain/supervisor-process.ts', import.meta.url).pathname;

async function startEmbedded(folder: string, extra: object = {}): Promise<Subject> {
  const { accounts, ...options } = testChain(folder, extra);
  const argument = {
    ...options,
    accounts: accounts?.map(({ address, balance }) => ({ address, balance: String(balance) })),
    logFile: join(folder, 'log'),
  };
  const child = spawn(process.execPath, [supervisorEntry, JSON.stringify(argument)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const status = JSON.parse(line as string) as ChainStatus;
  return { url: status.rpcUrl, pids: [status.pid, status.anvilPid], child };
}

/** Anvil as people use it: it mines each transaction as it comes. It has the same accounts by the same genesis file. */
async function startBare(genesisFile: string): Promise<Subject> {
  const args = ['--port', '0', '--accounts', '0', '--order', 'fifo', '--init', genesisFile];
  const child = spawn(locateAnvil(), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: child.stdout })) {
    const address = /^Listening on (\S+)/.exec(line)?.[1];
    if (address === undefined) continue;
    child.stdout.resume();
    return { url: `http://${address}`, pids: [child.pid as number], child };
  }
  throw new TypeError('anvil did not start');
}

async function stop({ child }: Subject): Promise<void> {
  child.kill('SIGTERM');
  await once(child, 'exit');
}

function cpuSeconds(pids: number[]): number {
  const ticks = pids.map((pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, count) => sum + count, 0) / TICKS_PER_SECOND;
}

async function measure(name: string, amount: number, subject: Subject, work: () => Promise<unknown>): Promise<void> {
  const cpuBefore = cpuSeconds(subject.pids);
  const startedMs = performance.now();
  await work();
  const seconds = (performance.now() - startedMs) / 1000;
  const cpu = cpuSeconds(subject.pids) - cpuBefore;
  const perCpu = cpu > 0 ? (amount / cpu).toFixed(0) : '-';
  print(name, `${(amount / seconds).toFixed(0).padStart(7)} per second, ${perCpu.padStart(7)} per CPU-second`);
}

function print(name: string, text: string): void {
  process.stdout.write(`${name.padEnd(60)} ${text}\n`);
}

/** Sends presigned transfers in batches, and waits until each sender's last one is in a block. */
async function sendAll(url: string, raws: Hex[]): Promise<void> {
  for (let start = 0; start < raws.length; start += BATCH) {
    const calls = raws
      .slice(start, start + BATCH)
      .map((raw, id) => ({ jsonrpc: '2.0', id, method: 'eth_sendRawTransaction', params: [raw] }));
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(calls) });
    await response.json();
  }
  const perSender = raws.length / SENDERS;
  for (let sender = 0; sender < SENDERS; sender += 1) {
    while (Number((await callRpc(url, 'eth_getTransactionCount', [testAccount(sender).address, 'latest'])).result) < perSender) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** Bare anvil runs the calls of a batch at the same time, so that a sender's nonces race: one sender's turn at a time avoids that. */
async function presign(): Promise<Hex[]> {
  const perSender = TRANSFERS / SENDERS;
  return await Promise.all(
    Array.from({ length: TRANSFERS }, (_, index) => signTransfer(testAccount(Math.floor(index / perSender)), index % perSender)),
  );
}

async function compareThroughput(folder: string): Promise<void> {
  const raws = await presign();
  const later = await Promise.all(
    Array.from({ length: SEQUENTIAL }, (_, index) => signTransfer(testAccount(0), TRANSFERS / SENDERS + index)),
  );
  const embedded = await startEmbedded(folder);
  const bare = await startBare(join(folder, 'genesis.json'));
  for (const [name, subject] of [
    ['embedded chain', embedded],
    ['bare anvil, nothing durable', bare],
  ] as const) {
    await measure(`${name}: ${TRANSFERS} transfers in batches of ${BATCH}`, TRANSFERS, subject, () => sendAll(subject.url, raws));
    await measure(`${name}: ${SEQUENTIAL} transfers, each after the receipt of the last`, SEQUENTIAL, subject, async () => {
      for (const raw of later) await sendForReceipt(subject.url, raw);
    });
    await stop(subject);
  }
}

async function measureRestore(folder: string): Promise<void> {
  const growing = await startEmbedded(folder, { idleSeconds: 0 });
  const heightOf = async (url: string) => Number((await callRpc(url, 'eth_blockNumber')).result);
  const from = await heightOf(growing.url);
  await measure(`embedded chain: empty blocks, each durable before it is mined`, BLOCKS, growing, async () => {
    while ((await heightOf(growing.url)) < from + BLOCKS) await new Promise((resolve) => setTimeout(resolve, 20));
  });
  const rss = growing.pids.map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024);
  print('memory of supervisor and anvil', `${rss.map((mib) => `${mib.toFixed(0)} MiB`).join(' and ')}`);
  growing.child.kill('SIGKILL');
  await once(growing.child, 'exit');
  const startedMs = performance.now();
  const again = await startEmbedded(folder);
  print(
    `start after kill -9, ${await heightOf(again.url)} blocks, ${TRANSFERS + SEQUENTIAL} transactions`,
    `${(performance.now() - startedMs).toFixed(0).padStart(7)} ms until it answers (the process included)`,
  );
  const stored = readdirSync(folder).filter((name) => /\.(bin|log)$/.test(name));
  const bytes = stored.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  print('snapshots and log on disk', `${(bytes / 2 ** 20).toFixed(1).padStart(7)} MiB`);
  await stop(again);
}

try {
  const folder = join(root, 'chain');
  await compareThroughput(folder);
  await measureRestore(folder);
} finally {
  rmSync(root, { recursive: true, force: true });
}
