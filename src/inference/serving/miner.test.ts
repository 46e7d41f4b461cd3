import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { createLogger } from '../../log.ts';
import type { Engine } from '../engines/engine.ts';
import { TEXT_CARD } from '../language/text-generator.ts';
import { type ForeignBackend, startForeignBackend } from './foreign-backend.ts';
import { backendModels, startTestMiner, TEST_DOMAIN, TEST_PRICE, type TestMiner } from './miner-fixture.ts';
import { readOffer } from './offer.ts';
import { priceUp } from './price.ts';
import { createInferenceReceipts, RECEIPT_HEADER, verifyReceipt } from './receipt.ts';

let backend: ForeignBackend;
let miner: TestMiner;
const codec = createInferenceReceipts(TEST_DOMAIN);
const chatBody = (more: object = {}) =>
  JSON.stringify({ model: 'mill-chat', messages: [{ role: 'user', content: 'why does it turn?' }], ...more });
const hashOf = (bytes: string | Uint8Array) => `0x${createHash('sha256').update(bytes).digest('hex')}` as const;
const post = (path: string, body: string | Buffer, headers: Record<string, string> = {}) =>
  fetch(`${miner.url}${path}`, { method: 'POST', body: body as string, headers: { 'content-type': 'application/json', ...headers } });
const until = async (isTrue: () => boolean) => {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
};

before(async () => {
  backend = await startForeignBackend();
  miner = await startTestMiner({ models: backendModels(backend.url, 2, { waitingMax: 1 }) });
});
after(async () => {
  await miner.stop();
  await backend.stop();
});

test('a chat answer carries a receipt that its miner signed for this request, this answer and these counts', async () => {
  const body = chatBody();
  const answer = await post('/v1/chat/completions', body);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  const encoded = answer.headers.get(RECEIPT_HEADER) as string;
  const { receipt } = verifyReceipt(codec, encoded, { miner: miner.signer.address, requestHash: hashOf(body), responseHash: hashOf(text) });
  assert.equal(receipt.outputs.units, 8n);
  assert.equal(receipt.inputs.units, 7n);
  assert.equal(receipt.evidence, 'reputation only');
  assert.equal(receipt.profile, 'dev');
  const other = JSON.parse(Buffer.from(encoded, 'base64url').toString());
  other.outputs.units = '4';
  const forged = Buffer.from(JSON.stringify(other)).toString('base64url');
  assert.throws(() => verifyReceipt(codec, forged), { code: 'receipt-mismatch' });
  assert.throws(() => verifyReceipt(codec, encoded, { responseHash: hashOf('else') }), { code: 'receipt-mismatch' });
});

test('a stream ends with its receipt, over all bytes before it', async () => {
  const answer = await post('/v1/chat/completions', chatBody({ stream: true, stream_options: { include_usage: true } }));
  const text = await answer.text();
  const [, encoded] = new RegExp(`: ${RECEIPT_HEADER} (\\S+)`).exec(text) as RegExpExecArray;
  const before = text.slice(0, text.indexOf(`: ${RECEIPT_HEADER}`));
  const { receipt } = verifyReceipt(codec, encoded as string, { responseHash: hashOf(before) });
  assert.equal(receipt.outputs.end, 'complete');
  assert.ok(text.endsWith('data: [DONE]\n\n'));
  assert.match(text, /"usage":\{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15\}/);
});

test('a stream that its engine ends without a part has its receipt too', async () => {
  const usage = { unit: 'tokens', input: 3, output: 0 } as const;
  const run = async () => ({ task: 'chat', text: '', toolCalls: [], finish: 'stop', usage, outputDigest: hashOf('') });
  const engine: Engine = { card: TEXT_CARD, run: run as Engine['run'], state: () => 'warm', warm: async () => {}, close: async () => {} };
  const terse = await startTestMiner({ models: [{ engine, price: TEST_PRICE, outputUnitsMax: 8, concurrency: 1 }] });
  try {
    const answer = await fetch(`${terse.url}/v1/chat/completions`, {
      method: 'POST',
      body: chatBody({ model: TEXT_CARD.id, stream: true }),
    });
    const [, encoded] = new RegExp(`: ${RECEIPT_HEADER} (\\S+)`).exec(await answer.text()) as RegExpExecArray;
    const { outputs } = verifyReceipt(codec, encoded as string).receipt;
    assert.equal(outputs.units, 0n);
    assert.ok(outputs.ttftUs > 0n);
  } finally {
    await terse.stop();
  }
});

test('the openai client speaks to a miner: chat, streams, tools, responses, embeddings, speech, transcription, models', async () => {
  const client = new OpenAI({ baseURL: `${miner.url}/v1`, apiKey: 'none', maxRetries: 0 });
  const whole = await client.chat.completions.create({ model: 'mill-chat', messages: [{ role: 'user', content: 'hi' }] });
  assert.equal(whole.choices[0]?.message.content, 'the mill turns while water runs and grain');
  let streamed = '';
  for await (const chunk of await client.chat.completions.create({
    model: 'mill-chat',
    messages: [{ role: 'user', content: 'hi' }],
    stream: true,
  })) {
    streamed += chunk.choices[0]?.delta.content ?? '';
  }
  assert.equal(streamed, whole.choices[0]?.message.content);
  const tools = [{ type: 'function' as const, function: { name: 'open_gate', parameters: { type: 'object' } } }];
  const called = await client.chat.completions.create({ model: 'mill-chat', messages: [{ role: 'user', content: 'hi' }], tools });
  assert.deepEqual(called.choices[0]?.message.tool_calls?.[0], {
    id: 'call_1',
    type: 'function',
    function: { name: 'open_gate', arguments: '{"gate":1}' },
  });
  const response = await client.responses.create({ model: 'mill-chat', input: 'hi' });
  assert.equal(response.output_text, streamed);
  let deltas = '';
  for await (const event of await client.responses.create({ model: 'mill-chat', input: 'hi', stream: true })) {
    if (event.type === 'response.output_text.delta') deltas += event.delta;
    if (event.type === 'response.completed') assert.equal(event.response.output_text ?? streamed, streamed);
  }
  assert.equal(deltas, streamed);
  const embedded = await client.embeddings.create({ model: 'mill-embed', input: ['mill', 'race'] });
  assert.deepEqual(embedded.data[1]?.embedding, [4, 1, 0.5]);
  const speech = await client.audio.speech.create({ model: 'mill-voice', voice: 'alloy', input: 'hello', response_format: 'wav' });
  assert.equal(Buffer.from(await speech.arrayBuffer()).toString('latin1', 0, 4), 'RIFF');
  const file = new File([Buffer.alloc(2000)], 'a.wav');
  assert.equal((await client.audio.transcriptions.create({ model: 'mill-ear', file })).text, 'the mill turns');
  const { data } = await client.images.generate({ model: 'mill-brush', prompt: 'a mill by a race', n: 2, size: '256x256' });
  assert.deepEqual(
    (data ?? []).map(({ b64_json: picture }) => Buffer.from(picture as string, 'base64').toString('latin1', 1, 4)),
    ['PNG', 'PNG'],
  );
  const listed: string[] = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert.deepEqual(listed, ['mill-chat', 'mill-embed', 'mill-voice', 'mill-ear', 'mill-guard', 'mill-brush']);
});

test('what a model has not is refused in the words of the API, with our code', async () => {
  const codeOf = async (path: string, body: string | Buffer, type = 'application/json') => {
    const answer = await post(path, body, { 'content-type': type });
    const { error } = (await answer.json()) as { error: { code: string; message: string; millrace: { code: string } } };
    return [answer.status, error.millrace.code];
  };
  assert.deepEqual(await codeOf('/v1/chat/completions', chatBody({ model: 'gpt-9' })), [404, 'unknown-model']);
  assert.deepEqual(await codeOf('/v1/chat/completions', chatBody({ model: 'mill-embed' })), [400, 'wrong-task']);
  assert.deepEqual(await codeOf('/v1/chat/completions', chatBody({ n: 2 })), [400, 'unsupported-parameter']);
  assert.deepEqual(await codeOf('/v1/chat/completions', chatBody({ temperature: 3 })), [400, 'bad-request']);
  assert.deepEqual(await codeOf('/v1/chat/completions', '{"model": "mill-chat", "messages": [{"role":"user","content":"\u0007\u0000"}]}'), [
    400,
    'bad-json',
  ]);
  assert.deepEqual(await codeOf('/v1/chat/completions', Buffer.from([0x22, 0xff, 0xfe, 0x22])), [400, 'bad-json']);
  for (const [wish, code] of [
    [{ model: 'mill-chat' }, 'wrong-task'],
    [{ response_format: 'url' }, 'unsupported-parameter'],
    [{ quality: 'hd' }, 'unsupported-parameter'],
    [{ stream: true }, 'unsupported-parameter'],
    [{ n: 11 }, 'bad-request'],
    [{ size: 'large' }, 'bad-request'],
    [{ prompt: 7 }, 'bad-request'],
  ] as const) {
    const asked = JSON.stringify({ model: 'mill-brush', prompt: 'a mill', ...wish });
    assert.deepEqual(await codeOf('/v1/images/generations', asked), [400, code], asked);
  }
  assert.deepEqual(await codeOf('/v1/responses', JSON.stringify({ model: 'mill-chat', input: 'x', previous_response_id: 'resp_1' })), [
    400,
    'unsupported-parameter',
  ]);
  assert.deepEqual(await codeOf('/v1/audio/speech', JSON.stringify({ model: 'mill-voice', input: 'x', response_format: 'mp3' })), [
    400,
    'unsupported-parameter',
  ]);
  assert.deepEqual(await codeOf('/v1/audio/transcriptions', 'nonsense', 'multipart/form-data; boundary=x'), [400, 'bad-request']);
  assert.deepEqual(await codeOf('/v1/tasks/detection', JSON.stringify({ image: 'https://example.org/x.png' })), [
    400,
    'unsupported-parameter',
  ]);
  assert.deepEqual(await codeOf('/v1/tasks/dreams', '{}'), [400, 'bad-request']);
  assert.deepEqual(await codeOf('/v1/nothing', '{}'), [405, 'method-not-allowed']);
});

test('escaped control bytes reach the model as they are, and nothing breaks on the way', async () => {
  const content = String.fromCharCode(...Array.from({ length: 32 }, (_, index) => index), 0x7f, 0x2028);
  const answer = await post('/v1/chat/completions', chatBody({ messages: [{ role: 'user', content }] }));
  assert.equal(answer.status, 200);
  assert.deepEqual(backend.bodies.at(-1)?.messages, [{ role: 'user', content }]);
});

test('a prompt of 100 MB is refused unread, whether its length is declared or not', async () => {
  const before = process.memoryUsage().rss;
  const declared = connect(Number(new URL(miner.url).port), '127.0.0.1');
  declared.write('POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n{');
  const [head] = (await once(declared, 'data')) as [Buffer];
  assert.match(head.toString(), /^HTTP\/1\.1 413 [\s\S]*"body-too-big"/);
  declared.destroy();
  const chunked = connect(Number(new URL(miner.url).port), '127.0.0.1');
  chunked.on('error', () => {});
  chunked.write('POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n');
  let said = '';
  chunked.on('data', (bytes) => {
    said += bytes.toString('latin1');
  });
  const piece = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(0x100000, 0x20), Buffer.from('\r\n')]);
  for (let sent = 0; sent < 100 && said === '' && !chunked.destroyed; sent += 1) {
    if (!chunked.write(piece)) await until(() => !chunked.writableNeedDrain || said !== '' || chunked.destroyed);
  }
  await until(() => said !== '' || chunked.destroyed);
  assert.match(said, /^HTTP\/1\.1 413 /);
  assert.ok(process.memoryUsage().rss - before < 200 << 20);
  assert.match(miner.miner.metrics(), /millrace_miner_body_bytes 0/);
});

test('a full queue answers 429 with Retry-After, and a caller who goes away ends the work of the backend', async () => {
  const slow = await startForeignBackend({ words: 1000, wordMs: 20 });
  const small = await startTestMiner({ models: backendModels(slow.url, 1, { waitingMax: 1, outputUnitsMax: 1000 }) });
  try {
    const gone = new AbortController();
    const ask = (signal?: AbortSignal) =>
      fetch(`${small.url}/v1/chat/completions`, { method: 'POST', body: chatBody({ stream: true }), signal });
    const first = await ask(gone.signal);
    const waiting = ask(gone.signal).catch(() => undefined);
    await until(() => small.miner.metrics().includes('waiting_count 1'));
    const refused = await ask();
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('retry-after'), '1');
    gone.abort();
    await Promise.allSettled([first.text(), waiting]);
    await until(() => slow.cut === 1 && small.miner.metrics().includes('running_count 0'));
    assert.match(small.miner.metrics(), /millrace_miner_requests_total\{model="mill-chat",end="cut"\} [12]/);
    assert.match(small.miner.metrics(), /millrace_miner_waiting_count 0/);
  } finally {
    await small.stop();
    await slow.stop();
  }
});

test('a backend that is gone, fails, or answers garbage, becomes an honest error, and a line in the log of its miner', async () => {
  const lines: { event: string; level: string; model: string; code: string; reason: string }[] = [];
  const log = createLogger({ role: 'miner', sink: (line) => void lines.push(JSON.parse(line)) });
  const told = () => lines.splice(0).map(({ level, event, model, code, reason }) => [level, event, model, code, reason].join(' '));
  const dead = await startForeignBackend();
  await dead.stop();
  const lost = await startTestMiner({ models: backendModels(dead.url), log });
  try {
    for (const stream of [true, false]) {
      const answer = await fetch(`${lost.url}/v1/chat/completions`, { method: 'POST', body: chatBody({ stream }) });
      assert.equal(answer.status, 503);
      assert.match(await answer.text(), /model-unavailable/);
      assert.match(told().join('\n'), /^warn model-failed mill-chat model-unavailable The backend of this model does not answer: .+$/);
    }
  } finally {
    await lost.stop();
  }
  const page = Buffer.from('<html>no picture</html>').toString('base64');
  const answers = [
    null,
    {},
    { data: [null] },
    { data: [{ b64_json: page }] },
    { data: [{ url: 'http://127.0.0.1/1.png' }] },
    { choices: [{}] },
    500,
  ];
  const mad = createServer((_, response) => {
    const answer = answers[turn % answers.length];
    response.writeHead(answer === 500 ? 500 : 200).end(JSON.stringify(answer));
  });
  let turn = 0;
  await new Promise<void>((resolve) => mad.listen(0, '127.0.0.1', resolve));
  const odd = await startTestMiner({ models: backendModels(`http://127.0.0.1:${(mad.address() as AddressInfo).port}/v1`), log });
  try {
    for (; turn < answers.length; turn += 1) {
      for (const [path, body] of [
        ['images/generations', JSON.stringify({ model: 'mill-brush', prompt: 'a mill' })],
        ['chat/completions', chatBody()],
      ] as const) {
        const answer = await fetch(`${odd.url}/v1/${path}`, { method: 'POST', body });
        const { error } = (await answer.json()) as { error: { millrace: { code: string; actor: string } } };
        assert.deepEqual([answer.status, error.millrace.code, error.millrace.actor], [500, 'engine-failed', 'peer'], `${path} ${turn}`);
        assert.match(
          told().join('\n'),
          /^warn model-failed mill-(brush|chat) engine-failed The backend('s answer| answered with status 500).*$/,
        );
      }
    }
  } finally {
    await odd.stop();
    mad.close();
  }
});

test('the offer is signed, names prices, and a changed price is found out', async () => {
  const text = await (await fetch(`${miner.url}/v1/inference/offer`)).text();
  const now = BigInt(Math.floor(Date.now() / 1000));
  const { offer } = readOffer(TEST_DOMAIN, text, now);
  assert.equal(offer.miner, miner.signer.address);
  assert.equal(offer.models[0]?.outputPerMillion, TEST_PRICE.outputPerMillion);
  assert.equal(offer.models[0]?.evidence, 'reputation only');
  const cheaper = text.replace('"outputPerMillion":"210', '"outputPerMillion":"110');
  assert.throws(() => readOffer(TEST_DOMAIN, cheaper, now), { code: 'bad-offer' });
  assert.throws(() => readOffer(TEST_DOMAIN, text, now + 7200n), { code: 'bad-offer' });
  assert.equal(priceUp(TEST_PRICE, { input: 1n, output: 1n }), 1000n + 280_001n);
});
