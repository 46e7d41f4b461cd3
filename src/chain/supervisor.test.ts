import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Hex, toHex } from 'viem';
import { canIsolateNetwork } from './anvil.ts';
import { startChainSupervisor } from './supervisor.ts';
import { controlChain } from './supervisor-control.ts';
import { blockHashes, callRpc, SINK, sendForReceipt, signTransfer, temporaryFolder, testAccount, testChain } from './supervisor-fixture.ts';

const HISTORY: Hex = '0x0000F90827F1C53a10cb7A02335B175320002935';
const RETURN_TIMESTAMP: Hex = '0x425f5260205ff3';

interface Block {
  number: Hex;
  hash: Hex;
  parentHash: Hex;
  timestamp: Hex;
  miner: Hex;
  baseFeePerGas: Hex;
  transactions: Hex[];
}

async function blockAt(url: string, number: number): Promise<Block> {
  return (await callRpc<Block>(url, 'eth_getBlockByNumber', [toHex(number), false])).result as Block;
}

test('a transaction is mined on demand, and every block has its own 20 random bytes and a time that never goes back', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    for (let nonce = 0; nonce < 5; nonce += 1) {
      const receipt = await sendForReceipt(chain.rpcUrl, await signTransfer(testAccount(0), nonce));
      assert.equal(receipt.status, '0x1');
    }
    const blocks = await Promise.all([1, 2, 3, 4, 5].map((number) => blockAt(chain.rpcUrl, number)));
    assert.equal(new Set(blocks.map(({ miner }) => miner)).size, 5);
    assert.ok(blocks.every((block, index) => index === 0 || Number(block.timestamp) >= Number(blocks[index - 1]?.timestamp)));
    const wallSeconds = Date.now() / 1000;
    assert.ok(Number(blocks[4]?.timestamp) <= wallSeconds, 'chain time does not run ahead, however many blocks a second has');
    assert.equal((await callRpc(chain.rpcUrl, 'eth_getBalance', [SINK, 'latest'])).result, '0x5');
  } finally {
    await chain.stop();
  }
});

test('what arrives together shares blocks, in the order of arrival and of each sender', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    const raws = await Promise.all(Array.from({ length: 60 }, (_, index) => signTransfer(testAccount(index % 3), Math.floor(index / 3))));
    const body = JSON.stringify(raws.map((raw, id) => ({ jsonrpc: '2.0', id, method: 'eth_sendRawTransaction', params: [raw] })));
    const response = await fetch(chain.rpcUrl, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const hashes = ((await response.json()) as { result: Hex }[]).map(({ result }) => result);
    const last = await sendForReceipt(chain.rpcUrl, await signTransfer(testAccount(3), 0));
    const mined: Hex[] = [];
    for (let number = 1; number <= Number(last.blockNumber); number += 1) mined.push(...(await blockAt(chain.rpcUrl, number)).transactions);
    assert.deepEqual(mined, [...hashes, last.transactionHash]);
    assert.ok(Number(last.blockNumber) < 60);
  } finally {
    await chain.stop();
  }
});

test('a transaction whose nonce comes too early waits for the one before', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    const account = testAccount(0);
    const early = (await callRpc<Hex>(chain.rpcUrl, 'eth_sendRawTransaction', [await signTransfer(account, 1)])).result;
    assert.equal((await callRpc(chain.rpcUrl, 'eth_getTransactionByHash', [early])).result, null);
    assert.equal((await callRpc(chain.rpcUrl, 'eth_getTransactionCount', [account.address, 'pending'])).result, '0x0');
    await sendForReceipt(chain.rpcUrl, await signTransfer(account, 0));
    await callRpc(chain.rpcUrl, 'eth_sendRawTransactionSync', [await signTransfer(account, 2)]);
    assert.notEqual((await callRpc(chain.rpcUrl, 'eth_getTransactionReceipt', [early])).result, null);
    assert.equal((await callRpc(chain.rpcUrl, 'eth_getTransactionCount', [account.address, 'pending'])).result, '0x3');
  } finally {
    await chain.stop();
  }
});

test('a restart from the log alone gives identical block hashes', async () => {
  const options = testChain(temporaryFolder());
  const first = await startChainSupervisor(options);
  for (let nonce = 0; nonce < 8; nonce += 1) await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(1), nonce));
  await first.warp(1_000);
  const before = await blockHashes(first.rpcUrl);
  await first.stop();
  const second = await startChainSupervisor(options);
  assert.deepEqual(await blockHashes(second.rpcUrl), before);
  await second.stop();
});

test('after a restore from a snapshot in the middle the hashes, the state and the EIP-2935 history are the same', async () => {
  const options = testChain(temporaryFolder());
  const first = await startChainSupervisor(options);
  for (let nonce = 0; nonce < 12; nonce += 1) {
    await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(1), nonce));
    if (nonce === 5) await first.snapshot();
  }
  const before = await blockHashes(first.rpcUrl);
  await first.stop();
  assert.ok(readdirSync(options.folder).some((name) => name.startsWith('snapshot-')));
  const second = await startChainSupervisor(options);
  try {
    assert.deepEqual(await blockHashes(second.rpcUrl), before);
    for (let number = 1; number < before.length - 1; number += 1) {
      const { result } = await callRpc(second.rpcUrl, 'eth_call', [{ to: HISTORY, data: toHex(number, { size: 32 }) }, 'latest']);
      assert.equal(result, before[number], `block ${number}`);
    }
    assert.equal((await callRpc(second.rpcUrl, 'eth_getBalance', [SINK, 'latest'])).result, '0xc');
    await sendForReceipt(second.rpcUrl, await signTransfer(testAccount(1), 12));
    assert.equal((await callRpc(second.rpcUrl, 'eth_call', [{ to: HISTORY, data: toHex(12, { size: 32 }) }, 'latest'])).result, before[12]);
  } finally {
    await second.stop();
  }
});

test('a damaged newest snapshot is passed over for the older one, and with both damaged the chain refuses to start', async () => {
  const options = testChain(temporaryFolder());
  const first = await startChainSupervisor(options);
  for (let nonce = 0; nonce < 9; nonce += 1) {
    await sendForReceipt(first.rpcUrl, await signTransfer(testAccount(1), nonce));
    if (nonce % 3 === 2) await first.snapshot();
  }
  const before = await blockHashes(first.rpcUrl);
  await first.stop();
  const snapshots = readdirSync(options.folder)
    .filter((name) => name.endsWith('.bin'))
    .sort();
  assert.equal(snapshots.length, 2);
  const flip = (name: string) => {
    const bytes = readFileSync(join(options.folder, name));
    bytes[bytes.length - 9] = (bytes[bytes.length - 9] as number) ^ 1;
    writeFileSync(join(options.folder, name), bytes);
  };
  flip(snapshots[1] as string);
  const second = await startChainSupervisor(options);
  assert.deepEqual(await blockHashes(second.rpcUrl), before);
  await second.stop();
  flip(snapshots[0] as string);
  await assert.rejects(startChainSupervisor(options), { code: 'snapshot-corrupt' });
});

test('time is moved by the control socket only, in one block, and stays moved', async () => {
  const options = testChain(temporaryFolder());
  const chain = await startChainSupervisor(options);
  const before = chain.head();
  const status = await controlChain(chain.controlPath, { command: 'warp', seconds: 86_400 });
  assert.equal(status.height, before.number + 1);
  assert.ok(status.timestamp >= before.timestamp + 86_400);
  assert.equal(statSync(chain.controlPath).mode & 0o777, 0o600);
  const seen = (await callRpc<Hex>(chain.rpcUrl, 'eth_call', [{ data: RETURN_TIMESTAMP }, 'latest'])).result;
  assert.equal(Number(seen), status.timestamp);
  await assert.rejects(controlChain(chain.controlPath, { command: 'warp', seconds: -5 }), {
    code: 'bad-warp',
    values: { seconds: -5, max: 315_360_000 },
  });
  await controlChain(chain.controlPath, { command: 'stop' });
  await chain.ended;
  await chain.stop();
  assert.ok(!existsSync(chain.controlPath));
  await assert.rejects(controlChain(chain.controlPath, { command: 'status' }), { code: 'chain-not-running' });
  const again = await startChainSupervisor(options);
  await sendForReceipt(again.rpcUrl, await signTransfer(testAccount(0), 0));
  assert.ok(again.head().timestamp >= status.timestamp);
  await again.stop();
});

test('an idle chain mines an empty block', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder(), { idleSeconds: 1 }));
  while (chain.head().number < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual((await blockAt(chain.rpcUrl, 2)).transactions, []);
  await chain.stop();
});

test('a chain that pauses while it is down goes on from its newest block', async () => {
  const options = testChain(temporaryFolder(), { pausesWhileDown: true, idleSeconds: 1 });
  const first = await startChainSupervisor(options);
  await first.warp(10);
  const { timestamp } = first.head();
  await first.stop();
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  const second = await startChainSupervisor(options);
  await sendForReceipt(second.rpcUrl, await signTransfer(testAccount(0), 0));
  assert.ok(second.head().timestamp - timestamp <= 2, `${second.head().timestamp - timestamp} seconds passed`);
  await second.stop();
});

test('anvil runs where no other process can reach it, and with rights on its folder for this user only', async (context) => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    assert.equal(statSync(join(chain.controlPath, '..')).mode & 0o777, 0o700);
    if (!canIsolateNetwork()) {
      assert.ok(!process.env.MILLRACE_REQUIRE_ALL, 'user namespaces are missing');
      return context.skip('no user namespaces here: anvil listens on a random loopback port');
    }
    assert.ok(chain.status().isolated);
    const ours = readFileSync('/proc/self/net/tcp', 'utf8');
    const theirs = readFileSync(`/proc/${chain.pids().anvil}/net/tcp`, 'utf8');
    const port = Number(8545).toString(16).toUpperCase().padStart(4, '0');
    assert.match(theirs, new RegExp(`00000000:${port} `));
    assert.notEqual(ours, theirs);
  } finally {
    await chain.stop();
  }
});

test('a chain without a network namespace works the same', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder(), { isolatesAnvil: false }));
  assert.equal(chain.status().isolated, false);
  await sendForReceipt(chain.rpcUrl, await signTransfer(testAccount(0), 0));
  await chain.stop();
});

test('a folder in use, a taken port and another chain id are refused with the values', async () => {
  const options = testChain(temporaryFolder());
  const chain = await startChainSupervisor(options);
  await assert.rejects(startChainSupervisor(options), { code: 'folder-busy' });
  await chain.stop();
  await assert.rejects(startChainSupervisor({ ...options, chainId: 5 }), { code: 'chain-id-mismatch' });
  const squatter = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => squatter.once('listening', resolve));
  const { port } = squatter.address() as { port: number };
  await assert.rejects(startChainSupervisor({ ...options, rpcPort: port }), { code: 'port-in-use' });
  squatter.close();
  writeFileSync(join(options.folder, 'genesis.json'), '{');
  await assert.rejects(startChainSupervisor(options), { code: 'bad-genesis' });
});
