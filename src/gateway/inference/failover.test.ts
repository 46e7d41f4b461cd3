import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import OpenAI from 'openai';
import { openTransportIdentity, startPeerServer } from '../../connect/index.ts';
import {
  createInferenceReceipts,
  createMiner,
  fetchOf,
  listenerOf,
  type Miner,
  RECEIPT_HEADER,
  verifyReceipt,
} from '../../inference/index.ts';
import { type ForeignBackend, startForeignBackend } from '../../inference/serving/foreign-backend.ts';
import { backendModels, startTestMiner, TEST_DOMAIN, type TestMiner } from '../../inference/serving/miner-fixture.ts';
import { silentLogger } from '../../log.ts';
import type { ReplaySample } from './inference-gateway.ts';
import { type InferenceServer, startInferenceServer } from './inference-server.ts';
import type { MinerEntry } from './miner-directory.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-failover-'));
const codec = createInferenceReceipts(TEST_DOMAIN);
const nowSeconds = () => BigInt(Math.floor(Date.now() / 1000));
const chatBody = (more: object = {}) => JSON.stringify({ model: 'mill-chat', messages: [{ role: 'user', content: 'why?' }], ...more });
const samples: ReplaySample[] = [];
let backend: ForeignBackend;
let honest: TestMiner;
let gateway: InferenceServer;
let entries: MinerEntry[] = [];
const closing: (() => Promise<unknown>)[] = [];

before(async () => {
  backend = await startForeignBackend();
  honest = await startTestMiner({ models: free(backend.url), operatorId: 1n });
  const root = backendModels(backend.url)[0]?.engine.card.root as `0x${string}`;
  gateway = await startInferenceServer({
    folder,
    port: 0,
    domain: TEST_DOMAIN,
    miners: async () => entries,
    now: nowSeconds,
    isOpen: true,
    tokenizers: new Map([[root, async (_request, text: string) => ({ input: 12, output: text.split(' ').length })]]),
    onSample: (sample) => samples.push(sample),
    rules: { firstPartMs: 2000 },
    log: silentLogger,
  });
});
after(async () => {
  await gateway.stop(100);
  await honest.stop();
  for (const close of closing) await close();
  await backend.stop();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  // Forgets what was learnt of miners in the test before.
  entries = [];
  await gateway.directory.refresh();
});

function free(url: string) {
  return backendModels(url, 16).map((model) => ({
    ...model,
    price: { ...model.price, inputPerMillion: 0n, outputPerMillion: 0n, perRequest: 0n },
  }));
}

function entryOf(url: string, uid: number, operatorId: bigint): MinerEntry {
  return { uid, operatorId, endpoint: url, transportKey: '', rank: 1 };
}

/** A miner that does what `cheat` makes of it. */
async function startCheat(operatorId: bigint, cheat: (miner: Miner) => Server): Promise<string> {
  const inner = await startTestMiner({ models: free(backend.url), operatorId });
  const server = cheat(inner.miner);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(async () => {
    server.closeAllConnections();
    server.close();
    await inner.stop();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Asks for the cheat first. */
async function askFirst(url: string, operatorId: bigint, more: object = {}, headers: Record<string, string> = {}) {
  entries = [entryOf(url, 2, operatorId), entryOf(honest.url, 1, 1n)];
  await gateway.directory.refresh();
  const body = chatBody({ provider: { order: [`operator-${operatorId}`] }, ...more });
  const answer = await fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...headers },
  });
  return { answer, text: await answer.text(), requestHash: `0x${createHash('sha256').update(body).digest('hex')}` as const };
}

test('a miner that fails, is busy, or breaks before the first part is passed over; the next one answers', async () => {
  const failures: ((response: ServerResponse) => void)[] = [
    (response) => response.writeHead(500).end('{}'),
    (response) => response.writeHead(429, { 'retry-after': '3' }).end('{}'),
    (response) => response.destroy(),
    (response) => response.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: {"error":{"message":"no"}}\n\n'),
    (response) => void response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': waiting\n\n'),
  ];
  for (const [index, fail] of failures.entries()) {
    const operatorId = BigInt(10 + index);
    const url = await startCheat(operatorId, (miner) => {
      const listen = listenerOf((request) => miner.answer(request));
      return createServer((request, response) => (request.method === 'POST' ? fail(response) : listen(request, response)));
    });
    const { answer, text, requestHash } = await askFirst(url, operatorId, { stream: index > 2 });
    assert.equal(answer.status, 200, `${index} ${text}`);
    assert.equal(answer.headers.get('millrace-operator'), '1');
    const encoded = answer.headers.get(RECEIPT_HEADER) ?? /: millrace-receipt (\S+)/.exec(text)?.[1];
    verifyReceipt(codec, encoded as string, { miner: honest.signer.address, requestHash });
    const known = [...gateway.directory.all()].find(({ entry }) => entry.operatorId === operatorId);
    assert.equal(known?.health('mill-chat').isOpen(performance.now()), false);
  }
});

test('a miner that shows a key on chain and names a plain endpoint is asked nothing', async () => {
  let asked = 0;
  const url = await startCheat(9n, (miner) => {
    const listen = listenerOf((request) => miner.answer(request));
    return createServer((request, response) => {
      asked += 1;
      listen(request, response);
    });
  });
  for (const [transportKey, known] of [
    [`0x${'11'.repeat(32)}`, 0],
    ['', 1],
  ] as const) {
    asked = 0;
    entries = [{ ...entryOf(url, 2, 9n), transportKey }];
    await gateway.directory.refresh();
    assert.deepEqual([asked, [...gateway.directory.all()].length], [known, known]);
  }
});

test('a miner that dies, or fails with an error of its own, in the middle of a stream leaves one honest error and no receipt', async () => {
  const [part, own] = [
    'data: {"choices":[{"index":0,"delta":{"content":"the"}}]}\n\n',
    'data: {"error":{"message":"its model ended"}}\n\n',
  ];
  const cut = () => /end="cut"\} (\d+)/.exec(gateway.metrics())?.[1];
  const cutBefore = cut();
  const ends: [RegExp, (response: ServerResponse) => void][] = [
    [/miner-failed/, (response) => response.write(part, () => setTimeout(() => response.destroy(), 20))],
    [/its model ended/, (response) => response.write(part, () => setTimeout(() => response.end(own), 20))],
    [/its model ended/, (response) => response.end(part + own)],
  ];
  for (const [index, [reason, end]] of ends.entries()) {
    const operatorId = BigInt(15 + index);
    const url = await startCheat(operatorId, (miner) => {
      const listen = listenerOf((request) => miner.answer(request));
      return createServer((request, response) => {
        if (request.method !== 'POST') return listen(request, response);
        end(response.writeHead(200, { 'content-type': 'text/event-stream' }));
      });
    });
    const { answer, text } = await askFirst(url, operatorId, { stream: true });
    assert.equal(answer.status, 200);
    assert.match(text, /"content":"the"/);
    const errors = text.split('\n\n').filter((event) => event.startsWith('data: {"error":'));
    assert.equal(errors.length, 1, text);
    assert.match(errors[0] as string, reason);
    assert.doesNotMatch(text, /millrace-receipt|\[DONE\]/);
  }
  assert.equal(cut(), cutBefore, 'nothing is booked as if its caller had left, who would pay for it');
});

test('a burst of more requests than all miners take waits here for places, and everybody is answered; no miner has more at once than twice what it works on', async () => {
  const models = free(backend.url).map((model) => ({ ...model, concurrency: 2, waitingMax: 2 }));
  const small = await Promise.all([40n, 41n].map((operatorId) => startTestMiner({ models, operatorId })));
  closing.push(...small.map((one) => () => one.stop()));
  entries = small.map(({ url }, index) => entryOf(url, 40 + index, BigInt(40 + index)));
  await gateway.directory.refresh();
  const url = `http://127.0.0.1:${gateway.port}/v1/chat/completions`;
  const operators = await Promise.all(
    Array.from({ length: 60 }, async (_, index) => {
      const answer = await fetch(url, { method: 'POST', body: chatBody({ stream: index % 2 === 0, user: String(index) }) });
      assert.equal(answer.status, 200, await answer.text());
      return answer.headers.get('millrace-operator');
    }),
  );
  assert.deepEqual([...new Set(operators)].sort(), ['40', '41']);
  for (const { health } of gateway.directory.all()) assert.equal(health('mill-chat').failures, 0, 'none of them had to refuse');
});

test('an answer that is not the one that was signed costs nothing, has no receipt, and ends the miner’s traffic', async () => {
  const url = await startCheat(21n, (miner) =>
    createServer(
      listenerOf(async (request) => {
        const answer = await miner.answer(request);
        return typeof answer.body === 'string' && request.method === 'POST'
          ? { ...answer, body: answer.body.replace('the mill', 'the sun') }
          : answer;
      }),
    ),
  );
  const { answer, text } = await askFirst(url, 21n);
  assert.match(text, /the sun turns/);
  assert.equal(answer.headers.get(RECEIPT_HEADER), null);
  assert.equal(answer.headers.get('millrace-cost'), '0');
  const again = await askFirst(url, 21n);
  assert.equal(again.answer.headers.get('millrace-operator'), '1', 'it is asked no more, also where the caller names it first');
  const known = [...gateway.directory.all()].find(({ entry }) => entry.operatorId === 21n);
  assert.equal(known?.health('mill-chat').isOpen(performance.now() + 3_000_000), false);
});

test('a stream whose receipt does not fit ends with an error that clients see, not with a good end, and its miner is barred', async () => {
  for (const [operatorId, cheat] of [
    [31n, (text: string) => text.replace('the mill', 'the sun')],
    [32n, (text: string) => text.replace(/: millrace-receipt \S+/, ': nothing')],
  ] as const) {
    const url = await startCheat(operatorId, (miner) =>
      createServer(
        listenerOf(async (request) => {
          const answer = await miner.answer(request);
          if (typeof answer.body === 'string' || answer.body instanceof Uint8Array || request.method !== 'POST') return answer;
          return { ...answer, body: streamed(cheat((await allOf(answer.body)).join(''))) };
        }),
      ),
    );
    const { answer, text } = await askFirst(url, operatorId, { stream: true });
    assert.equal(answer.status, 200);
    assert.doesNotMatch(text, /\[DONE\]/);
    const last = text.trimEnd().split('\n\n').at(-1) as string;
    assert.match(last, /^data: \{"error":\{.*"code":"answer-not-signed"/);
    const known = [...gateway.directory.all()].find(({ entry }) => entry.operatorId === operatorId)?.health('mill-chat');
    assert.equal(known?.isOpen(performance.now()), false, 'it is noted against the miner');
    assert.equal(known?.isBarred(performance.now()), operatorId === 31n);
    const client = new OpenAI({ baseURL: `http://127.0.0.1:${gateway.port}/v1`, apiKey: 'none', maxRetries: 0 });
    entries = [entryOf(url, 2, operatorId)];
    await gateway.directory.refresh();
    if (operatorId === 31n) continue;
    await new Promise((resolve) => setTimeout(resolve, 1_100)); // it cools down
    const stream = await client.chat.completions.create({
      model: 'mill-chat',
      messages: [{ role: 'user', content: 'why?' }],
      stream: true,
    });
    await assert.rejects(allOf(stream), /did not sign/);
  }
  entries = [entryOf(honest.url, 1, 1n)];
  await gateway.directory.refresh();
  const { text } = await askFirst(honest.url, 1n, { stream: true });
  assert.match(text, /millrace-receipt \S+\n\ndata: \[DONE\]\n\n$/);
});

async function allOf<T>(pieces: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const piece of pieces) all.push(piece);
  return all;
}

async function* streamed(text: string): AsyncGenerator<string> {
  yield text;
}

test('counts of tokens are checked by the model’s own tokenizer', async () => {
  const inflating = await startForeignBackend({ inflateBy: 40 });
  closing.push(() => inflating.stop());
  const cheat = await startTestMiner({ models: free(inflating.url), operatorId: 22n });
  closing.push(() => cheat.stop());
  for (const stream of [false, true]) {
    const { text } = await askFirst(cheat.url, 22n, { stream });
    assert.match(text, /the/);
  }
  assert.match(gateway.metrics(), /millrace_gateway_requests_total/);
  const known = [...gateway.directory.all()].find(({ entry }) => entry.operatorId === 22n);
  assert.equal(known?.health('mill-chat').isOpen(performance.now() + 3_000_000), false);
});

test('a caller’s own mistake is answered by the first miner’s words, and nobody else is asked', async () => {
  const before_ = backend.requests;
  const { answer, text } = await askFirst(honest.url, 1n, { temperature: 9 });
  assert.equal(answer.status, 400);
  assert.match(text, /temperature/);
  assert.equal(backend.requests, before_);
});

test('validators get what callers allow, and nothing under zero retention', async () => {
  samples.length = 0;
  await askFirst(honest.url, 1n);
  assert.equal(samples.length, 0);
  const { text } = await askFirst(honest.url, 1n, {}, { 'millrace-replay': 'allow' });
  assert.equal(samples[0]?.answer.toString(), text);
  const zero = await askFirst(honest.url, 1n, { provider: { zdr: true } }, { 'millrace-replay': 'allow' });
  assert.equal(samples.length, 1);
  const { receipt } = verifyReceipt(codec, zero.answer.headers.get(RECEIPT_HEADER) as string);
  assert.deepEqual([receipt.inputs.zeroRetention, receipt.inputs.replayAllowed], [true, false]);
});

test('an idempotency key is answered once, streamed or not', async () => {
  for (const stream of [false, true]) {
    const before_ = backend.requests;
    const headers = { 'idempotency-key': `again-${stream}` };
    const one = await askFirst(honest.url, 1n, { stream }, headers);
    const two = await askFirst(honest.url, 1n, { stream }, headers);
    assert.equal(two.text, one.text);
    assert.equal(two.answer.headers.get('idempotent-replayed'), 'true');
    assert.equal(backend.requests, before_ + 1);
  }
});

test('a miner behind pinned TLS is asked; one that shows another key is not', async () => {
  const identity = await openTransportIdentity(join(folder, 'tls'));
  const inner = createMiner({
    operatorId: 30n,
    signer: honest.signer,
    domain: TEST_DOMAIN,
    profile: 'dev',
    models: free(backend.url),
    now: nowSeconds,
    log: silentLogger,
  });
  const server = await startPeerServer({ port: 0, identity, fetch: fetchOf((request) => inner.answer(request)) });
  closing.push(
    () => server.stop(10),
    () => inner.stop(),
  );
  const endpoint = `https://127.0.0.1:${server.port}`;
  for (const stream of [false, true]) {
    entries = [{ uid: 3, operatorId: 30n, endpoint, transportKey: identity.transportKey, rank: 1 }];
    await gateway.directory.refresh();
    const answer = await fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, { method: 'POST', body: chatBody({ stream }) });
    assert.match(await answer.text(), /the/);
    assert.equal(answer.headers.get('millrace-operator'), '30');
  }
  entries = [{ uid: 3, operatorId: 30n, endpoint, transportKey: `0x${'11'.repeat(32)}`, rank: 1 }];
  await gateway.directory.refresh();
  assert.deepEqual([...gateway.directory.all()], []);
});

test('pages of other sites cannot spend the money of an open gateway', async () => {
  const ask = async (headers: string) => {
    const socket = connect(gateway.port, '127.0.0.1');
    socket.end(`GET /v1/models HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`);
    let text = '';
    for await (const chunk of socket) text += chunk;
    return Number(text.slice(9, 12));
  };
  assert.equal(await ask('Host: 127.0.0.1'), 200);
  assert.equal(await ask('Host: evil.example'), 403);
  assert.equal(await ask('Host: 127.0.0.1\r\nOrigin: https://evil.example'), 403);
  await assert.rejects(
    startInferenceServer({
      folder: join(folder, 'x'),
      host: '0.0.0.0',
      port: 0,
      domain: TEST_DOMAIN,
      miners: async () => [],
      now: nowSeconds,
      isOpen: true,
      log: silentLogger,
    }),
    { code: 'open-gateway-exposed' },
  );
});

test('a reader that takes nothing holds its stream back, and others are served meanwhile', async () => {
  const long = await startForeignBackend({ words: 5_000 });
  closing.push(() => long.stop());
  const miner = await startTestMiner({ models: free(long.url).map((model) => ({ ...model, outputUnitsMax: 5_000 })), operatorId: 40n });
  closing.push(() => miner.stop());
  entries = [entryOf(miner.url, 4, 40n)];
  await gateway.directory.refresh();
  const before_ = process.memoryUsage().rss;
  const sockets = Array.from({ length: 10 }, () => {
    const socket = connect(gateway.port, '127.0.0.1');
    socket.pause();
    const body = chatBody({ stream: true, max_tokens: 5_000 });
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    return socket;
  });
  const quick = await fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, { method: 'POST', body: chatBody({ max_tokens: 3 }) });
  assert.equal(quick.status, 200);
  assert.ok(process.memoryUsage().rss - before_ < 300 << 20);
  for (const socket of sockets) socket.destroy();
  while (!miner.miner.metrics().includes('running_count 0')) await new Promise((resolve) => setTimeout(resolve, 10));
});
