import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { type Address, getAddress, type Hex, toHex } from 'viem';
import { type BareAnvil, connectEmitters, emitCall, runOnAnvil, startBareAnvil } from '../../test/bare-anvil.ts';
import { type ChainClient, connectChain } from './client.ts';
import { abis } from './contracts.generated.ts';
import { eventTopics } from './event-decoder.ts';

const [DEPOSITED] = eventTopics(abis.rails, ['Deposited']) as [Hex];
const ANN = getAddress('0x00000000000000000000000000000000000000a1');
const BOB = getAddress('0x00000000000000000000000000000000000000b2');

let anvil: BareAnvil;
let client: ChainClient;
before(async () => {
  anvil = await startBareAnvil();
  client = await connectEmitters(anvil);
});
after(() => anvil.stop());

const pay = (account: Address, count: number) =>
  runOnAnvil(anvil, { to: client.address('rails'), data: emitCall(count, [DEPOSITED, ANN, account], toHex(7)) });

test('events come in chain order, by their indexed arguments and blocks, however short the ranges are that the chain allows', async () => {
  for (const [account, count] of [
    [ANN, 2],
    [BOB, 3],
    [ANN, 1],
  ] as const)
    await pay(account, count);
  await anvil.rpc('anvil_mine', [toHex(50)]);
  await pay(BOB, 2);
  const all = await client.events({ name: 'rails', event: 'Deposited' });
  assert.equal(all.length, 8);
  const place = all.map(({ blockNumber, logIndex }) => Number(blockNumber) * 1000 + logIndex);
  assert.deepEqual(
    place,
    [...place].sort((a, b) => a - b),
  );
  assert.equal((await client.events({ name: 'rails', event: 'Deposited', args: { account: BOB } })).length, 5);
  const last = all.at(-1)?.blockNumber as bigint;
  assert.equal((await client.events({ name: 'rails', event: 'Deposited', fromBlock: last, toBlock: last })).length, 2);
  assert.deepEqual(await client.events({ name: 'rails', event: 'Withdrawn' }), []);

  const refusing = await startRefusingProxy(anvil.rpcUrl, 7n);
  const narrow = await connectChain({ rpcUrl: refusing.url, manifest: client.manifest });
  assert.deepEqual(await narrow.events({ name: 'rails', event: 'Deposited' }), all);
  assert.ok(refusing.refused() > 0);
  refusing.stop();
});

test('waiting for a time ends with the first block at or after it, and gives up when told', async () => {
  const now = await client.now();
  const waiting = client.waitForTime(now + 100n);
  await anvil.rpc('evm_setNextBlockTimestamp', [toHex(now + 120n)]);
  await anvil.rpc('evm_mine');
  assert.equal(await waiting, now + 120n);
  assert.equal(await client.waitForTime(now), now + 120n);
  await assert.rejects(client.waitForTime(now + 10_000n, { timeoutMs: 1 }), { code: 'wait-timed-out' });
  await assert.rejects(client.waitForTime(now + 10_000n, { signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('a watcher sees the newest block whenever it changes, also after a reorganisation', async () => {
  const stop = new AbortController();
  const seen: bigint[] = [];
  const watching = client.watchBlocks(async ({ number, hash }) => {
    seen.push(number);
    if (seen.length === 1) await anvil.rpc('evm_mine');
    if (seen.length === 2) await anvil.rpc('anvil_reorg', [1, []]);
    if (seen.length === 3) {
      assert.equal(hash, (await anvil.public.getBlock()).hash);
      stop.abort();
    }
  }, stop.signal);
  await watching;
  assert.deepEqual(seen.slice(1), [(seen[0] as bigint) + 1n, (seen[0] as bigint) + 1n]);
});

test('an unknown module and a contract that does not answer are typed errors', async () => {
  assert.throws(() => client.address('governor'), { code: 'unknown-module' });
  await assert.rejects(client.read('stakeVault', 'stakeToken'), { code: 'chain-refused' });
});

/** A proxy that refuses log queries over more blocks than a limit, as public nodes do. */
async function startRefusingProxy(target: string, blocksMax: bigint) {
  let refused = 0;
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    response.setHeader('content-type', 'application/json');
    const answers = JSON.parse(body).map(async (call: { id: number; method: string; params: { fromBlock: Hex; toBlock: Hex }[] }) => {
      const [filter] = call.params ?? [];
      if (call.method === 'eth_getLogs' && filter && BigInt(filter.toBlock) - BigInt(filter.fromBlock) >= blocksMax) {
        refused += 1;
        return { jsonrpc: '2.0', id: call.id, error: { code: -32_005, message: 'query exceeds the block range' } };
      }
      const headers = { 'content-type': 'application/json' };
      return (await fetch(target, { method: 'POST', headers, body: JSON.stringify(call) })).json();
    });
    response.end(JSON.stringify(await Promise.all(answers)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    refused: () => refused,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
