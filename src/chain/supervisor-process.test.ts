import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { toHex } from 'viem';
import type { ChainStatus } from './supervisor-control.ts';
import { callRpc, sendForReceipt, signTransfer, temporaryFolder, testAccount, testChain } from './supervisor-fixture.ts';

const ENTRY = new URL('./supervisor-process.ts', import.meta.url).pathname;
/** Puts a file system of two MiB under the folder, half of it taken by ballast, and runs the rest of the arguments. */
const ON_SMALL_DISK = 'mount -t tmpfs -o size=2m,mode=700 small "$0" && head -c 1000000 /dev/zero > "$0/ballast" && exec "$@"';

function argumentFor(folder: string): string {
  const { accounts, ...options } = testChain(folder);
  return JSON.stringify({ ...options, accounts: accounts?.map(({ address, balance }) => ({ address, balance: String(balance) })) });
}

async function readyLine(child: ChildProcess): Promise<ChainStatus & { ready: boolean; controlPath: string }> {
  const [line] = await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line');
  return JSON.parse(line as string) as ChainStatus & { ready: boolean; controlPath: string };
}

test('the process prints one line when it is ready, and SIGTERM ends it with exit code 0', async (context) => {
  const child = spawn(process.execPath, [ENTRY, argumentFor(temporaryFolder())], { stdio: ['ignore', 'pipe', 'ignore'] });
  context.after(() => child.kill('SIGKILL'));
  const ready = await readyLine(child);
  assert.equal(ready.ready, true);
  assert.equal(ready.pid, child.pid);
  assert.equal((await callRpc(ready.rpcUrl, 'eth_chainId')).result, toHex(ready.chainId));
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('arguments that are not options are refused with exit code 2 and a typed error', () => {
  for (const argument of ['', '[]', '{"folder":5}']) {
    const { status, stderr } = spawnSync(process.execPath, [ENTRY, argument], { encoding: 'utf8' });
    assert.equal(status, 2);
    assert.equal(JSON.parse(stderr).code, 'bad-arguments');
  }
});

test('on a full disk nothing is mined and senders are told; with space again the chain goes on by itself', async (context) => {
  const mayMount = spawnSync('unshare', ['--user', '--map-root-user', '--mount', 'true']).status === 0;
  if (!mayMount) {
    assert.ok(!process.env.MILLRACE_REQUIRE_ALL, 'user namespaces are missing');
    return context.skip('no user namespaces here: a small file system cannot be mounted');
  }
  const folder = temporaryFolder();
  const command = ['--user', '--map-root-user', '--mount', 'sh', '-c', ON_SMALL_DISK, folder, process.execPath, ENTRY, argumentFor(folder)];
  const child = spawn('unshare', command, { stdio: ['ignore', 'pipe', 'ignore'] });
  context.after(() => child.kill('SIGKILL'));
  const { rpcUrl } = await readyLine(child);
  const data = toHex(new Uint8Array(60_000));
  let reason = '';
  let nonce = 0;
  for (; reason === '' && nonce < 40; nonce += 1) {
    const raw = await signTransfer(testAccount(0), nonce, { data, gas: 1_000_000n });
    const { error } = await callRpc(rpcUrl, 'eth_sendRawTransactionSync', [raw, 1_000]);
    if (error !== undefined) reason = (await callRpc(rpcUrl, 'eth_sendRawTransaction', [raw])).error?.message ?? '';
  }
  assert.match(reason, /disk of .* is full/);
  rmSync(join(`/proc/${child.pid}/root`, folder, 'ballast'));
  const pending = () => callRpc(rpcUrl, 'eth_getTransactionCount', [testAccount(0).address, 'latest']);
  while (Number((await pending()).result) < nonce) await new Promise((resolve) => setTimeout(resolve, 100));
  await sendForReceipt(rpcUrl, await signTransfer(testAccount(0), nonce));
});
