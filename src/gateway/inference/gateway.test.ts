import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { BatchSettlementEvmScheme as StockClientScheme } from '@x402/evm/batch-settlement/client';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import OpenAI from 'openai';
import type { Abi, Address, Hex } from 'viem';
import { createInferenceReceipts, RECEIPT_HEADER, verifyReceipt } from '../../inference/index.ts';
import { type ForeignBackend, startForeignBackend } from '../../inference/serving/foreign-backend.ts';
import { backendModels, startTestMiner, TEST_DOMAIN, type TestMiner } from '../../inference/serving/miner-fixture.ts';
import { silentLogger } from '../../log.ts';
import { type Payer, type Receiver, startClaimer } from '../../token/index.ts';
import { type ChannelsNetwork, startChannelsNetwork, TEST_INTERVAL } from '../../token/voucher-fixture.ts';
import type { PaidRequest, ReplaySample } from './inference-gateway.ts';
import { type InferenceServer, startInferenceServer } from './inference-server.ts';
import type { MinerEntry } from './miner-directory.ts';
import { openReplayCourier } from './replay-courier.ts';

let network: ChannelsNetwork;
let backend: ForeignBackend;
let miner: TestMiner;
let gateway: InferenceServer;
let payer: Payer;
let receivers: Receiver[];
let url: string;
let key: string;
const entries: MinerEntry[] = [];
const paid: PaidRequest[] = [];
const samples: ReplaySample[] = [];
const codec = createInferenceReceipts(TEST_DOMAIN);
const hashOf = (bytes: string) => `0x${createHash('sha256').update(bytes).digest('hex')}` as const;
const chatBody = (more: object = {}) => JSON.stringify({ model: 'mill-chat', messages: [{ role: 'user', content: 'why?' }], ...more });
const nowSeconds = () => BigInt(Math.floor(Date.now() / 1000));
const chargedBy = (receiver: Receiver) => [...receiver.channels()].reduce((sum, { charged }) => sum + charged, 0n);

before(async () => {
  network = await startChannelsNetwork();
  const token = network.client.address('stableToken');
  backend = await startForeignBackend();
  receivers = [await network.receiver({ folder: join(network.folder, 'miner') })];
  receivers.push(
    await network.receiver({ folder: join(network.folder, 'gateway'), receiver: network.signer(4).address, sender: network.sender(4) }),
  );
  miner = await startTestMiner({ models: backendModels(backend.url, 16), receiver: receivers[0], token });
  entries.push({ uid: 0, operatorId: 1n, endpoint: miner.url, transportKey: '', rank: 1, miner: miner.signer.address });
  payer = await network.payer(2);
  gateway = await startInferenceServer({
    folder: join(network.folder, 'inference'),
    port: 0,
    domain: TEST_DOMAIN,
    miners: async () => entries,
    payer,
    receiver: receivers[1],
    token,
    now: nowSeconds,
    feeBps: 500,
    tabMax: 10n ** 10n,
    onPaid: (one) => paid.push(one),
    onSample: (one) => samples.push(one),
    log: silentLogger,
  });
  url = `http://127.0.0.1:${gateway.port}`;
  ({ key } = await gateway.keys.create({ name: 'test', budget: 10n ** 12n }));
});
after(async () => {
  await gateway.stop(100);
  await miner.stop();
  await payer.close();
  for (const receiver of receivers) await receiver.close();
  await backend.stop();
  await network.stop();
});

test('the openai client, unchanged, works against the gateway; the key pays for what was used, and the miner is paid by voucher', async () => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  const messages = [{ role: 'user' as const, content: 'why?' }];
  const { data: whole, response } = await client.chat.completions.create({ model: 'mill-chat', messages }).withResponse();
  assert.equal(whole.choices[0]?.message.content, 'the mill turns while water runs and grain');
  const encoded = response.headers.get(RECEIPT_HEADER) as string;
  const { receipt } = verifyReceipt(codec, encoded, { miner: miner.signer.address });
  assert.equal(receipt.outputs.units, 8n);
  assert.ok(receipt.outputs.price > 0n && receipt.inputs.voucher > receipt.outputs.price);
  assert.equal(response.headers.get('millrace-cost'), ((receipt.outputs.price * 10_500n + 9_999n) / 10_000n).toString());
  let streamed = '';
  let usage: unknown;
  for await (const chunk of await client.chat.completions.create({
    model: 'mill-chat',
    messages,
    stream: true,
    stream_options: { include_usage: true },
  })) {
    streamed += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(streamed, whole.choices[0]?.message.content);
  assert.deepEqual(usage, { prompt_tokens: 7, completion_tokens: 8, total_tokens: 15 });
  assert.deepEqual((await client.embeddings.create({ model: 'mill-embed', input: ['mill', 'race'] })).data[1]?.embedding, [4, 1, 0.5]);
  const speech = await client.audio.speech.create({ model: 'mill-voice', voice: 'alloy', input: 'hello', response_format: 'wav' });
  assert.equal(Buffer.from(await speech.arrayBuffer()).toString('latin1', 0, 4), 'RIFF');
  const file = new File([Buffer.alloc(2000)], 'a.wav');
  assert.equal((await client.audio.transcriptions.create({ model: 'mill-ear', file })).text, 'the mill turns');
  const { data: drawn, response: paid } = await client.images
    .generate({ model: 'mill-brush', prompt: 'a mill by a race', n: 2 })
    .withResponse();
  assert.equal(drawn.data?.length, 2);
  const made = verifyReceipt(codec, paid.headers.get(RECEIPT_HEADER) as string, { miner: miner.signer.address }).receipt;
  assert.deepEqual([made.outputs.units, made.inputs.outputUnitsMax, made.evidence], [2n, 2n, 'reputation only']);
  const judged = await client.moderations.create({ model: 'mill-guard', input: ['hoist the sail', 'sink the ship'] });
  assert.deepEqual(
    judged.results.map(({ flagged, category_scores }) => [flagged, category_scores.violence]),
    [
      [false, 0.1],
      [true, 0.9],
    ],
  );
  assert.equal((await client.responses.create({ model: 'mill-chat', input: 'hi' })).output_text, streamed);
  const listed: string[] = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert.deepEqual(listed, ['mill-chat', 'mill-embed', 'mill-voice', 'mill-ear', 'mill-guard', 'mill-brush']);
  const [kept] = gateway.keys.list();
  const shown = (await (await fetch(`${url}/v1/key`, { headers: { authorization: `Bearer ${key}` } })).json()) as { spent: string };
  assert.equal(shown.spent, kept?.spent.toString());
  assert.match(miner.miner.metrics(), /millrace_miner_paid_requests_total 8/);
  const found = await fetch(`${url}/v1/receipts/${receipt.inputs.receiptId}`);
  assert.equal(((await found.json()) as { encoded: string }).encoded, encoded);
});

test('what was paid is counted with its channel, and shown where its caller allows it; a count that no validator took outlives the gateway', async () => {
  const ask = async (headers: Record<string, string>) => {
    const known = { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers };
    const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: chatBody(), headers: known });
    await answer.arrayBuffer();
    return answer.headers.get(RECEIPT_HEADER) as string;
  };
  [paid.length, samples.length] = [0, 0];
  await ask({});
  await ask({ 'millrace-replay': 'allow', 'millrace-retention': 'none' });
  const receipt = await ask({ 'millrace-replay': 'allow' });
  const [channel] = payer.channels();
  assert.ok(channel !== undefined);
  const channelId = payer.codec.channelId(channel.config);
  assert.deepEqual(
    paid,
    Array.from({ length: 3 }, () => ({ path: '/v1/chat/completions', channelId, operatorId: 1n })),
  );
  assert.deepEqual(
    samples.map((one) => [one.receipt, one.channelId, one.requestBody.toString()]),
    [[receipt, channelId, chatBody()]],
  );
  // This network has no subnets: nobody takes anything.
  const options = { client: network.client, payer, signer: network.signer(2), folder: network.folder, everyMs: 0, log: silentLogger };
  const counts = async (fill: (courier: ReturnType<typeof openReplayCourier>) => void) => {
    const courier = openReplayCourier(options);
    fill(courier);
    assert.deepEqual(await courier.flush(), { validators: 0, accepted: 0 });
    await courier.close();
    return (JSON.parse(readFileSync(join(network.folder, 'paid-requests.json'), 'utf8')) as { paid: number }[]).map((one) => one.paid);
  };
  const fill = (courier: ReturnType<typeof openReplayCourier>) => {
    for (const one of paid) courier.onPaid(one);
    for (const one of samples) courier.onSample(one);
  };
  assert.deepEqual(await counts(fill), [3]);
  assert.deepEqual(await counts(fill), [6]);
});

test('wrong keys, wrong models and hostile bodies get errors of the API', async () => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-millrace-wrong', maxRetries: 0 });
  const ask = (model: string, more: object = {}) =>
    client.chat.completions.create({ model, messages: [{ role: 'user', content: 'x' }], ...more });
  await assert.rejects(ask('mill-chat'), (error: InstanceType<typeof OpenAI.AuthenticationError>) => error.status === 401);
  const good = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  const refused = (body: object) =>
    good.chat.completions.create({ model: 'mill-chat', messages: [{ role: 'user', content: 'x' }], ...body } as never);
  await assert.rejects(refused({ model: 'gpt-9' }), { status: 404, code: 'model_not_found' });
  await assert.rejects(refused({ n: 3 }), { status: 400, code: 'unsupported_parameter' });
  await assert.rejects(refused({ provider: { only: ['operator-9'] } }), { code: 'no-miner' });
  await assert.rejects(refused({ provider: { max_price: { completion: 5 } } }), { code: 'no-miner' });
  await assert.rejects(refused({ provider: { zodiac: 'lion' } }), { code: 'bad-request' });
});

test('a stranger with nothing but the stock x402 client pays for chat, streamed or not, and gets back what was not used', async () => {
  const pay = stockFetch(3);
  const prices: bigint[] = [];
  for (let index = 0; index < 3; index += 1) {
    const body = chatBody({ max_tokens: 20 });
    const answer = await pay(`${url}/v1/chat/completions`, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    verifyReceipt(codec, answer.headers.get(RECEIPT_HEADER) as string, { requestHash: hashOf(body), responseHash: hashOf(text) });
    prices.push(BigInt(answer.headers.get('millrace-cost') as string));
  }
  const streamed = await pay(`${url}/v1/chat/completions`, {
    method: 'POST',
    body: chatBody({ stream: true }),
    headers: { 'content-type': 'application/json' },
  });
  const text = await streamed.text();
  assert.equal(streamed.status, 200, text);
  assert.match(text, /: millrace-receipt \S+\n\ndata: \[DONE\]/);
  const stranger = receivers[1] as Receiver;
  await until(() => chargedBy(stranger) === 4n * (prices[0] as bigint));
  assert.deepEqual(new Set(prices).size, 1);
  const [channel] = [...stranger.channels()];
  assert.equal(channel?.config.payer, network.signer(3).address);
});

test('plain curl: the price without payment, an answer with a key, a stream', async () => {
  const curl = async (...args: string[]) => (await promisify(execFile)('curl', ['-s', ...args])).stdout;
  const asked = ['-H', 'content-type: application/json', '-d', chatBody(), `${url}/v1/chat/completions`];
  const unpaid = await curl('-i', ...asked);
  assert.match(unpaid, /^HTTP\/1\.1 402 [\s\S]*PAYMENT-REQUIRED: [\s\S]*"payment-required"/i);
  assert.match(await curl('-H', `authorization: Bearer ${key}`, ...asked), /"content":"the mill turns/);
  const stream = ['-H', `authorization: Bearer ${key}`, '-H', 'content-type: application/json', '-d', chatBody({ stream: true })];
  assert.match(await curl('-N', ...stream, `${url}/v1/chat/completions`), /"content":"the[\s\S]*: millrace-receipt /);
  assert.match(await curl(`${url}/recognize`), /Recognize a picture/);
});

test('a thousand connections without payment are told the price, memory stays bounded, and those who pay are served', async () => {
  const before_ = process.memoryUsage().rss;
  const unpaid = Array.from({ length: 1000 }, async () => {
    const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: chatBody() });
    await answer.arrayBuffer();
    return answer.status;
  });
  const paid = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body: chatBody(), headers: { authorization: `Bearer ${key}` } });
  assert.equal(paid.status, 200);
  assert.deepEqual(new Set(await Promise.all(unpaid)), new Set([402]));
  assert.ok(process.memoryUsage().rss - before_ < 300 << 20);
  assert.match(gateway.metrics(), /millrace_gateway_body_bytes 0/);
});

test('what the vouchers promise is what the miner claims on chain', async () => {
  await gateway.directory.stop();
  const [receiver] = receivers as [Receiver];
  await until(() => miner.miner.metrics().includes('open_tabs_count 0'));
  const earned = BigInt(/earned_base_units_total (\d+)/.exec(miner.miner.metrics())?.[1] as string);
  assert.equal(chargedBy(receiver), earned);
  const claimer = startClaimer({ client: network.client, receiver, sender: network.sender(1), intervalSeconds: TEST_INTERVAL });
  await claimer.claimNow();
  await claimer.stop();
  assert.equal(await network.client.read('stableToken', 'balanceOf', [receiver.receiver]), earned);
});

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
}

interface ReadCall {
  address: Address;
  abi: readonly unknown[];
  functionName: string;
  args?: readonly unknown[];
}

/** Reads for the stock package. Its Multicall3 is on no embedded chain: the calls are made one by one. */
async function readForStock(call: ReadCall): Promise<unknown> {
  const { client } = network;
  if (call.functionName !== 'tryAggregate') return client.public.readContract({ ...call, abi: call.abi as Abi });
  const [, calls] = call.args as [boolean, { target: Address; callData: Hex }[]];
  const read = async ({ target, callData }: { target: Address; callData: Hex }) =>
    (await client.public.call({ to: target, data: callData })).data ?? '0x';
  return Promise.all(calls.map(async (one) => ({ success: true, returnData: await read(one) })));
}

function stockFetch(index: number): typeof fetch {
  const { account } = network.signer(index);
  const signTypedData = (message: unknown) => account.signTypedData?.(message as never) as Promise<Hex>;
  const client = new x402Client().register(
    `eip155:${network.client.chainId}`,
    new StockClientScheme({ address: account.address, signTypedData, readContract: readForStock } as never),
  );
  client.setSpendControls(false);
  return wrapFetchWithPayment(fetch, client) as typeof fetch;
}
