import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync, globSync, mkdtempSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Address, encodeErrorResult, type Hex, keccak256, toHex } from 'viem';
import { type BareAnvil, connectEmitters, emitCall, fundedSigner, initCodeOf, runOnAnvil, startBareAnvil } from '../../test/bare-anvil.ts';
import { silentLogger } from '../log.ts';
import { type ChainClient, connectChain } from './client.ts';
import { abis, errorsAbi } from './contracts.generated.ts';
import { eventTopics } from './event-decoder.ts';
import { writeManifest } from './manifest.ts';
import { createSender, type Sender, type SenderOptions } from './sender.ts';
import { createSigner } from './signer.ts';

/** Reverts with its call data, from the first call on; and a variant that lets the first call pass. */
const REVERTER = '365f5f37365ffd';
const ONCE = '5f54600a5760015f55005b365f5f37365ffd';
/** The first call costs one storage slot, each later one 32. */
const DEARER = '5f54600a5760015f55005b60205b8080556001900380600d5700';
const SINK = '0x00000000000000000000000000000000000051c4' as Address;

const running = new Map<string, Promise<BareAnvil>>();
/** One anvil per set of flags for the whole file. */
function anvilWith(...flags: string[]): Promise<BareAnvil> {
  const name = flags.join(' ');
  const known = running.get(name) ?? startBareAnvil(flags);
  running.set(name, known);
  return known;
}
after(async () => {
  for (const sender of opened) sender.close();
  for (const anvil of running.values()) await (await anvil).stop();
});
const opened: Sender[] = [];

let seed = 1000;
async function openSender(anvil: BareAnvil, more: Partial<SenderOptions> & { client?: ChainClient } = {}) {
  seed += 1;
  const { client = await connectEmitters(anvil), ...options } = more;
  const signer = options.signer ?? (await fundedSigner(anvil, seed));
  const journalFolder = options.journalFolder ?? mkdtempSync(join(tmpdir(), 'millrace-sender-'));
  const reopen = (again: Partial<SenderOptions> = {}) =>
    createSender({ client, signer, journalFolder, log: silentLogger, ...options, ...again });
  return { sender: reopen(), reopen, signer, client, journalFolder };
}
const recipient = (): Address => {
  seed += 1;
  return `0x${keccak256(toHex(seed)).slice(26)}`;
};

test('calls made at the same time take consecutive nonces and each happens once', async () => {
  const anvil = await anvilWith();
  const { sender, signer } = await openSender(anvil);
  const to = recipient();
  const receipts = await Promise.all(Array.from({ length: 12 }, () => sender.send({ to, value: 1n })));
  assert.equal(new Set(receipts.map((receipt) => receipt.hash)).size, 12);
  assert.equal(await anvil.public.getBalance({ address: to }), 12n);
  assert.equal(await anvil.public.getTransactionCount({ address: signer.address }), 12);
  assert.equal(sender.pendingCount(), 0);
  sender.close();
});

test('a receipt carries the decoded events of the modules', async () => {
  const anvil = await anvilWith();
  const { sender, client, signer } = await openSender(anvil);
  const [deposited] = eventTopics(abis.rails, ['Deposited']) as [Hex];
  const data = emitCall(3, [deposited, SINK, signer.address], toHex(5));
  const receipt = await sender.send({ to: client.address('rails'), data });
  assert.deepEqual(
    receipt.events.map(({ module, name, logIndex }) => ({ module, name, logIndex })),
    [0, 1, 2].map((logIndex) => ({ module: 'rails', name: 'Deposited', logIndex })),
  );
  const found = await client.events({ name: 'rails', event: 'Deposited', args: { account: signer.address } });
  assert.deepEqual(found, receipt.events);
  assert.equal(found[0]?.args.amount, 2n);
  sender.close();
});

test('a key gives the same receipt again, in this process and in the next, and refuses another call', async () => {
  const anvil = await anvilWith();
  const { sender, reopen } = await openSender(anvil);
  const to = recipient();
  const [first, second] = await Promise.all([sender.send({ to, value: 1n, key: 'a' }), sender.send({ to, value: 1n, key: 'a' })]);
  assert.equal(first.hash, second.hash);
  await assert.rejects(sender.send({ to, value: 2n, key: 'a' }), { code: 'idempotency-conflict' });
  sender.close();
  const again = reopen();
  assert.deepEqual(await again.send({ to, value: 1n, key: 'a' }), first);
  assert.equal(await anvil.public.getBalance({ address: to }), 1n);
  again.close();
});

test('a call that the contract refuses costs nothing and says why with its values', async () => {
  const anvil = await anvilWith();
  const { sender, signer } = await openSender(anvil);
  const to = (await runOnAnvil(anvil, { data: initCodeOf(REVERTER) })) as Address;
  const data = encodeErrorResult({ abi: errorsAbi, errorName: 'InsufficientUnlocked', args: [7n, 100n, 40n] });
  await assert.rejects(sender.send({ to, data, key: 'k' }), (error: Error & { code?: string; values?: unknown; actor?: string }) => {
    assert.equal(error.code, 'insufficient-unlocked');
    assert.equal(error.actor, 'caller');
    assert.deepEqual(error.values, { operatorId: 7n, wanted: 100n, available: 40n });
    return true;
  });
  await assert.rejects(sender.send({ to, data: '0x12345678' }), { code: 'transaction-reverted', values: { selector: '0x12345678' } });
  assert.equal(await anvil.public.getTransactionCount({ address: signer.address }), 0);
  assert.equal(sender.pendingCount(), 0);
  sender.close();
});

test('a transaction that is reverted after a good simulation is decoded, and its key is free again', async () => {
  const anvil = await anvilWith('--no-mining');
  await anvil.rpc('evm_setAutomine', [true]);
  const { sender } = await openSender(anvil);
  const to = (await runOnAnvil(anvil, { data: initCodeOf(ONCE) })) as Address;
  await anvil.rpc('evm_setAutomine', [false]);
  const data = encodeErrorResult({ abi: errorsAbi, errorName: 'AlreadySealed' });
  const other = await openSender(anvil, { client: await connectChainOf(anvil) });
  const sends = Promise.allSettled([sender.send({ to, data, key: 'a' }), other.sender.send({ to, data, key: 'a' })]);
  while ((await poolSize(anvil)) < 2) await pause();
  await anvil.rpc('evm_mine');
  const outcomes = await sends;
  assert.deepEqual(outcomes.map((outcome) => outcome.status).sort(), ['fulfilled', 'rejected']);
  const loser = outcomes.findIndex((outcome) => outcome.status === 'rejected');
  assert.equal((outcomes[loser] as PromiseRejectedResult).reason.code, 'already-sealed');
  const retried = await Promise.allSettled([
    [sender, other.sender][loser]?.send({ to: SINK, value: 1n, key: 'b' }),
    mineUntilEmpty(anvil, 3),
  ]);
  assert.equal(retried[0]?.status, 'fulfilled');
  sender.close();
  other.sender.close();
});

test('a call that has more to do in its block than in its simulation is sent again with the gas that it needs, and happens once', async () => {
  const anvil = await anvilWith('--no-mining');
  await anvil.rpc('evm_setAutomine', [true]);
  const to = (await runOnAnvil(anvil, { data: initCodeOf(DEARER) })) as Address;
  await anvil.rpc('evm_setAutomine', [false]);
  const client = await connectChainOf(anvil);
  const [one, other] = [await openSender(anvil, { client }), await openSender(anvil, { client })];
  const sends = Promise.all([one, other].map(({ sender }) => sender.send({ to, data: '0x01', key: 'a' })));
  while ((await poolSize(anvil)) < 2) await pause();
  await anvil.rpc('evm_mine');
  const [receipts] = await Promise.all([sends, mineUntilEmpty(anvil, 3)]);
  const nonces = await Promise.all([one, other].map(({ signer }) => anvil.public.getTransactionCount({ address: signer.address })));
  assert.deepEqual(nonces.sort(), [1, 2]);
  assert.ok(receipts.some(({ gasUsed }) => gasUsed > 600_000n));
  for (const [index, { sender }] of [one, other].entries()) {
    assert.deepEqual(await sender.send({ to, data: '0x01', key: 'a' }), receipts[index]);
    sender.close();
  }
});

test('a stuck transaction is replaced by one with a higher fee, and the effect happens once', async () => {
  const anvil = await anvilWith('--no-mining');
  const { sender, signer } = await openSender(anvil, {
    stuckAfterMs: 50,
    client: await connectChainOf(anvil, 'prev-randao'),
  });
  const to = recipient();
  const sent = sender.send({ to, value: 1n });
  const feesSeen = new Set<string>();
  while (feesSeen.size < 3) {
    const pool = (await anvil.rpc('txpool_content')) as { pending: Record<string, Record<string, { maxFeePerGas: string }>> };
    for (const transaction of Object.values(pool.pending[signer.address] ?? pool.pending[signer.address.toLowerCase()] ?? {})) {
      feesSeen.add(transaction.maxFeePerGas);
    }
    await pause();
  }
  await anvil.rpc('evm_mine');
  const receipt = await sent;
  assert.equal(await anvil.public.getBalance({ address: to }), 1n);
  assert.equal(await anvil.public.getTransactionCount({ address: signer.address }), 1);
  const mined = await anvil.public.getTransaction({ hash: receipt.hash });
  assert.ok((mined.maxFeePerGas as bigint) > BigInt([...feesSeen][0] as Hex));
  sender.close();
});

test('a nonce that somebody else used is detected: another call is reported and can be sent again, the same call counts', async () => {
  const anvil = await anvilWith('--no-mining');
  const { sender, signer } = await openSender(anvil, { client: await connectChainOf(anvil) });
  const to = recipient();
  const replaceBy = async (value: bigint) => {
    const nonce = await anvil.public.getTransactionCount({ address: signer.address, blockTag: 'latest' });
    const fees = { maxFeePerGas: 90_000_000_000n, maxPriorityFeePerGas: 5_000_000_000n };
    const chainId = await anvil.public.getChainId();
    const raw = await signer.account.signTransaction({ type: 'eip1559', chainId, to, value, nonce, gas: 21_000n, ...fees });
    const hash = await anvil.rpc('eth_sendRawTransaction', [raw]);
    await anvil.rpc('evm_mine');
    return hash;
  };
  const first = sender.send({ to, value: 1n, key: 'a' });
  while (sender.pendingCount() === 0 || (await poolSize(anvil)) === 0) await pause();
  const [outcome] = await Promise.allSettled([first, replaceBy(500n)]);
  assert.equal((outcome as PromiseRejectedResult).reason.code, 'nonce-taken');
  assert.equal(await anvil.public.getBalance({ address: to }), 500n);

  const second = sender.send({ to, value: 1n, key: 'a' });
  while (sender.pendingCount() === 0 || (await poolSize(anvil)) === 0) await pause();
  const [receipt, hash] = await Promise.all([second, replaceBy(1n)]);
  assert.equal(receipt.hash, hash);
  assert.equal(await anvil.public.getBalance({ address: to }), 501n);
  assert.equal((await sender.send({ to, value: 1n, key: 'a' })).hash, hash);
  sender.close();
});

test('an account without funds gets a typed error, and its nonce is not lost', async () => {
  const anvil = await anvilWith();
  const signer = createSigner(keccak256('0x77'));
  const { sender } = await openSender(anvil, { signer });
  await assert.rejects(sender.send({ to: SINK, value: 10n ** 18n }), { code: 'no-funds' });
  await anvil.rpc('anvil_setBalance', [signer.address, '0x56bc75e2d63100000']);
  await sender.send({ to: SINK, value: 10n ** 18n });
  assert.equal(await anvil.public.getTransactionCount({ address: signer.address }), 1);
  sender.close();
});

test('when the answer to a broadcast is lost the effect still happens exactly once', async () => {
  const anvil = await anvilWith();
  const lossy = await startLossyProxy(anvil.rpcUrl);
  const { manifest } = await connectEmitters(anvil);
  const client = await connectChain({ rpcUrl: lossy.url, manifest });
  const { sender } = await openSender(anvil, { client });
  const to = recipient();
  lossy.loseNext('eth_sendRawTransaction');
  await sender.send({ to, value: 1n });
  await sender.send({ to, value: 1n });
  assert.equal(lossy.lost(), 1);
  assert.equal(await anvil.public.getBalance({ address: to }), 2n);
  sender.close();
  lossy.stop();
});

test('a key has one sender at a time, and a closed one sends nothing', async () => {
  const anvil = await anvilWith();
  const { sender, reopen } = await openSender(anvil);
  assert.throws(() => reopen(), { code: 'key-in-use' });
  sender.close();
  await assert.rejects(sender.send({ to: SINK, value: 1n }), { code: 'sender-closed' });
  const again = reopen();
  await again.send({ to: SINK, value: 1n });
  again.close();
});

test('a torn last line of the journal is cut off, a damaged one in the middle is refused', async () => {
  const anvil = await anvilWith();
  const { sender, reopen, journalFolder } = await openSender(anvil);
  await sender.send({ to: SINK, value: 1n, key: 'a' });
  sender.close();
  const path = globSync(join(journalFolder, '*/*.ndjson'))[0] as string;
  const whole = readFileSync(path, 'utf8');
  appendFileSync(path, '{"kind":"sent","nonce":');
  const second = reopen();
  await second.send({ to: SINK, value: 1n, key: 'b' });
  second.close();
  assert.ok(readFileSync(path, 'utf8').startsWith(whole));
  appendFileSync(path, 'garbage\n{}\n');
  assert.throws(() => reopen(), { code: 'sender-journal-broken' });
});

test('a sender that is killed again and again in the middle does each payment exactly once', async () => {
  const anvil = await anvilWith('--block-time', '1');
  seed += 1;
  const privateKey = keccak256(toHex(seed));
  const signer = createSigner(privateKey);
  await anvil.rpc('anvil_setBalance', [signer.address, '0x56bc75e2d63100000']);
  const folder = mkdtempSync(join(tmpdir(), 'millrace-sender-'));
  const { manifest } = await connectEmitters(anvil, { modules: ['rails'] });
  writeManifest(join(folder, 'network.json'), manifest);
  const to = recipient();
  const count = 24;
  const program = fileURLToPath(new URL('../../test/sender-child.ts', import.meta.url));
  const reported = new Map<string, string>();
  let kills = 0;
  for (;;) {
    const child = spawn(process.execPath, [program, anvil.rpcUrl, join(folder, 'network.json'), folder, privateKey, to, String(count)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let lines = 0;
    const goal = 1 + ((kills * 5) % 7);
    child.stdout.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n')) {
        const [index, hash] = line.split(' ') as [string, string];
        assert.equal(reported.get(index) ?? hash, hash, 'a key reported two different transactions');
        reported.set(index, hash);
        lines += 1;
      }
      if (kills < 5 && lines >= goal) child.kill('SIGKILL');
    });
    const code = await new Promise((resolve) => child.once('exit', resolve));
    if (code === 0) break;
    kills += 1;
  }
  assert.ok(kills >= 3, `only ${kills} kills`);
  assert.equal(reported.size, count);
  assert.equal(await anvil.public.getBalance({ address: to }), BigInt(count));
  assert.equal(await anvil.public.getTransactionCount({ address: signer.address }), count);
});

/** A client of an anvil that does not mine by itself: the emitters are deployed with automine on. */
async function connectChainOf(anvil: BareAnvil, source: 'prev-randao' | 'trusted-operator' = 'trusted-operator') {
  await anvil.rpc('evm_setAutomine', [true]);
  const client = await connectEmitters(anvil, { source });
  await anvil.rpc('evm_setAutomine', [false]);
  return client;
}

async function poolSize(anvil: BareAnvil): Promise<number> {
  return Number(((await anvil.rpc('txpool_status')) as { pending: Hex }).pending);
}

async function mineUntilEmpty(anvil: BareAnvil, blocks: number): Promise<void> {
  for (let mined = 0; mined < blocks; ) {
    if ((await poolSize(anvil)) > 0) {
      await anvil.rpc('evm_mine');
      return;
    }
    await pause();
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 10));

/** A proxy that can pass a request on and then drop the connection instead of answering. */
async function startLossyProxy(target: string) {
  let losing = '';
  let lost = 0;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const answer = await fetch(target, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const text = await answer.text();
    if (losing !== '' && body.includes(losing)) {
      losing = '';
      lost += 1;
      request.socket.destroy();
      return;
    }
    response.setHeader('content-type', 'application/json');
    response.end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    loseNext: (method: string) => {
      losing = method;
    },
    lost: () => lost,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
