import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createInferenceReceipts, listenerOf, RECEIPT_HEADER, verifyReceipt } from '../../inference/index.ts';
import { type ForeignBackend, startForeignBackend } from '../../inference/serving/foreign-backend.ts';
import { backendModels, startTestMiner, TEST_DOMAIN, type TestMiner } from '../../inference/serving/miner-fixture.ts';
import { silentLogger } from '../../log.ts';
import { claimChannels } from '../../token/channels.ts';
import type { Receiver } from '../../token/index.ts';
import { type ChannelsNetwork, startChannelsNetwork } from '../../token/voucher-fixture.ts';
import { type InferenceServer, startInferenceServer } from './inference-server.ts';
import type { MinerEntry } from './miner-directory.ts';

/** The most that the gateway pays ahead to one miner, in base units of the stable token; a quarter of it to a new one. */
const TAB_MAX = 2n * 10n ** 9n;
const FIRST = TAB_MAX / 4n;
const codec = createInferenceReceipts(TEST_DOMAIN);
const sum = (amounts: readonly bigint[]) => amounts.reduce((one, other) => one + other, 0n);

let network: ChannelsNetwork;
let backend: ForeignBackend;
let entries: MinerEntry[] = [];
const closing: (() => Promise<unknown>)[] = [];

before(async () => {
  network = await startChannelsNetwork();
  backend = await startForeignBackend({ words: 8, wordMs: 10 });
});
after(async () => {
  for (const close of closing.reverse()) await close();
  await backend.stop();
  await network.stop();
});

/** A gateway that pays from an account of its own, and lets requests wait so long until a miner can be paid. */
async function startGateway(account: number, roomMs: number): Promise<{ server: InferenceServer; key: string }> {
  const payer = await network.payer(account);
  const server = await startInferenceServer({
    folder: join(network.folder, `gateway-${account}`),
    port: 0,
    domain: TEST_DOMAIN,
    miners: async () => entries,
    payer,
    token: network.client.address('stableToken'),
    now: () => BigInt(Math.floor(Date.now() / 1000)),
    tabMax: TAB_MAX,
    rules: { roomMs },
    log: silentLogger,
  });
  closing.push(
    () => payer.close(),
    () => server.stop(100),
  );
  const { key } = await server.keys.create({ name: 'test', budget: 10n ** 14n });
  return { server, key };
}

/** A miner that is paid by an account of its own. */
async function startPaidMiner(account: number, name = 'miner'): Promise<{ miner: TestMiner; receiver: Receiver; entry: MinerEntry }> {
  const receiver = await network.receiver({
    folder: join(network.folder, `${name}-${account}`),
    receiver: network.signer(account).address,
    sender: network.sender(account),
  });
  const operatorId = BigInt(account);
  const token = network.client.address('stableToken');
  const miner = await startTestMiner({ models: backendModels(backend.url, 256), receiver, token, keyIndex: account, operatorId });
  closing.push(
    () => receiver.close(),
    () => miner.stop(),
  );
  const entry = { uid: account, operatorId, endpoint: miner.url, transportKey: '', rank: 1, miner: miner.signer.address };
  return { miner, receiver, entry };
}

async function ask(
  { server, key }: { server: InferenceServer; key: string },
  index: number,
  more: object = {},
): Promise<{ status: number; text: string; operator: string | null; receipt: string | null }> {
  const body = JSON.stringify({ model: 'mill-chat', max_tokens: 8, messages: [{ role: 'user', content: `why ${index}?` }], ...more });
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const answer = await fetch(`http://127.0.0.1:${server.port}/v1/chat/completions`, { method: 'POST', body, headers });
  const text = await answer.text();
  return { status: answer.status, text, operator: answer.headers.get('millrace-operator'), receipt: answer.headers.get(RECEIPT_HEADER) };
}

const balanceOf = (account: number) => network.client.read('stableToken', 'balanceOf', [network.signer(account).address]);

/** Claims the highest voucher that a receiver has, whatever it has earned of it; gives what it got. */
async function takeAll(receiver: Receiver, account: number): Promise<bigint> {
  const before_ = await balanceOf(account);
  const claims = [...receiver.channels()].map(({ config, voucher }) => ({ config, voucher, total: voucher.maxClaimableAmount }));
  await claimChannels({ sender: network.sender(account), claims });
  return (await balanceOf(account)) - before_;
}

test('a burst that is more than may be paid ahead at one miner is spread over all that serve the model; everybody is answered, nobody is blamed', async () => {
  const miners = await Promise.all([3, 4].map((account) => startPaidMiner(account)));
  entries = miners.map(({ entry }) => entry);
  const gateway = await startGateway(2, 60_000);
  const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => ask(gateway, index, { stream: index % 2 === 0 })));
  for (const { status, text } of answers) assert.equal(status, 200, text);
  for (const { entry } of miners) {
    const served = answers.filter(({ operator }) => operator === String(entry.operatorId)).length;
    assert.ok(served >= 10, `operator ${entry.operatorId} served ${served} of 100`);
    const known = [...gateway.server.directory.all()].find(({ key: name }) => name.startsWith(`${entry.operatorId}|`));
    assert.equal(known?.health('mill-chat').failures, 0);
  }
});

test('a miner that takes money ahead and serves nothing gets a quarter of the most and not more, whoever asks and however often; an honest one earns on', async () => {
  const { miner, receiver, entry } = await startPaidMiner(5);
  const listen = listenerOf((request) => miner.miner.answer(request));
  const thief = createServer((request, response) => {
    if (request.url?.startsWith('/v1/chat') === true) response.destroy();
    else listen(request, response);
  });
  await new Promise<void>((resolve) => thief.listen(0, '127.0.0.1', resolve));
  closing.push(async () => thief.closeAllConnections());
  closing.push(async () => thief.close());
  const honest = await startPaidMiner(1);
  const gateway = await startGateway(4, 300);
  let taken = 0n;
  // It comes back under another address: the purse is a new one, the operator is the same.
  for (const host of ['127.0.0.1', 'localhost']) {
    entries = [{ ...entry, endpoint: `http://${host}:${(thief.address() as AddressInfo).port}` }, honest.entry];
    await gateway.server.directory.refresh();
    for (let round = 0; round < 2; round += 1) {
      // A caller who is in league with it asks for it, and only it.
      await Promise.all(Array.from({ length: 40 }, (_, index) => ask(gateway, index, { provider: { only: ['operator-5'] } })));
      for (const { entry: at, health } of gateway.server.directory.all())
        if (at.operatorId === 5n) health('mill-chat').succeeded({ ttftMs: 1, tpotMs: 1 });
    }
    taken += await takeAll(receiver, 5);
  }
  assert.ok(taken > FIRST / 2n && taken <= FIRST, `${taken} taken, ${FIRST} allowed`);
  const answers = await Promise.all(Array.from({ length: 10 }, (_, index) => ask(gateway, index)));
  const earned = answers.map(({ status, operator, receipt }) => {
    assert.deepEqual([status, operator], [200, '1']);
    return verifyReceipt(codec, receipt as string).receipt.outputs.price;
  });
  const claimed = await takeAll(honest.receiver, 1);
  assert.ok(claimed >= sum(earned) && claimed - sum(earned) <= FIRST, `${sum(earned)} earned, ${claimed} signed`);
});

test('a gateway that takes answers and does not pay gets those that it has paid for: a miner serves nothing on credit', async () => {
  const { miner, receiver } = await startPaidMiner(1, 'unpaid');
  const hostile = await network.payer(3, { folder: join(network.folder, 'hostile') });
  closing.push(() => hostile.close());
  const send = (path: string, init: RequestInit) => fetch(`${miner.url}${path}`, { method: 'POST', ...init });
  const body = JSON.stringify({ model: 'mill-chat', max_tokens: 8, messages: [{ role: 'user', content: 'why?' }] });
  const unpaid = await send('/v1/chat/completions', { body });
  assert.equal(unpaid.status, 402);
  const { error } = (await unpaid.json()) as { error: { millrace: { values: { amount: string } } } };
  const amount = 3n * BigInt(error.millrace.values.amount);
  // It shows the same voucher twice: the second time it adds nothing.
  let paidWith = '';
  const opened = await hostile.fetch(`${miner.url}/v1/inference/tabs?amount=${amount}`, {
    amountMax: amount,
    init: { method: 'POST' },
    fetch: (async (url: string, init: RequestInit) => {
      paidWith = new Headers(init.headers).get('payment-signature') ?? paidWith;
      return fetch(url, init);
    }) as typeof fetch,
  });
  const { tab } = (await opened.json()) as { tab: string };
  const again = await send(`/v1/inference/tabs?amount=${amount}`, { headers: { 'payment-signature': paidWith, 'millrace-tab': tab } });
  assert.deepEqual([again.status, ((await again.json()) as { tab: string }).tab], [201, tab]);
  const answers = await Promise.all(
    Array.from({ length: 30 }, async () => {
      const answer = await send('/v1/chat/completions', { body, headers: { 'millrace-tab': tab } });
      await answer.arrayBuffer();
      const receipt = answer.headers.get(RECEIPT_HEADER);
      return receipt === null ? 0n : verifyReceipt(codec, receipt).receipt.outputs.price;
    }),
  );
  const worth = sum(answers);
  assert.ok(worth > 0n && worth <= amount, `${worth} served, ${amount} paid`);
  // It takes back what it can before the miner claims.
  const [channel] = hostile.channels();
  await hostile.requestClose((channel as { key: `0x${string}` }).key);
  await miner.miner.stop();
  const claimable = receiver.claimable();
  assert.equal(sum(claimable.map(({ total }) => total)), worth);
  const before_ = await balanceOf(1);
  await claimChannels({ sender: network.sender(1), claims: claimable.map(({ channel: one, total }) => ({ ...one, total })) });
  assert.equal((await balanceOf(1)) - before_, worth);
});
