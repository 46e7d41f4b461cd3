import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { MillraceError } from '../../errors.ts';
import type { ChatRequest } from '../engines/engine.ts';
import { askBackend, createCheckedBackend } from './backend-capabilities.ts';
import { type ForeignBackend, startForeignBackend } from './foreign-backend.ts';

const KEY = 'sk-secret-of-a-backend';
let plain: ForeignBackend;
let guarded: Server;
let guardedUrl = '';

/** Wants a key, lists one model as vLLM does, honours schemas, log-probabilities and stops, and draws its words anew each time. */
before(async () => {
  plain = await startForeignBackend();
  let drawn = 0;
  guarded = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const send = (status: number, value: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (request.headers.authorization !== `Bearer ${KEY}`) return void send(401, { error: { message: `Incorrect API key: ${KEY}` } });
    if (request.url === '/v1/models') return void send(200, { data: [{ id: 'mill', max_model_len: 4096 }, { id: 'other' }] });
    const asked = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
    if (asked.top_k !== undefined || asked.tools !== undefined) return void send(422, { error: { message: 'unknown field' } });
    drawn += 1;
    const content = asked.response_format === undefined ? `word ${drawn}` : '{"open":true}';
    const logprobs = asked.logprobs === true ? { content: [{ token: 'word', logprob: -0.1, top_logprobs: [] }] } : null;
    send(200, { choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop', logprobs }], usage: {} });
  });
  await new Promise<void>((resolve) => guarded.listen(0, '127.0.0.1', resolve));
  guardedUrl = `http://127.0.0.1:${(guarded.address() as AddressInfo).port}/v1`;
});
after(async () => {
  guarded.close();
  await plain.stop();
});

test('a backend is asked what it does: only what it was seen to do is promised', async () => {
  const found = await askBackend({ url: guardedUrl, task: 'chat', model: 'mill', apiKey: KEY });
  assert.equal(found.contextTokens, 4096);
  assert.deepEqual(found.parameters, ['logprobs', 'response_format', 'stop', 'frequency_penalty', 'presence_penalty']);
  const vectors = await askBackend({ url: plain.url, task: 'embedding', model: 'any' });
  assert.deepEqual(vectors, { contextTokens: undefined, parameters: [], dimensions: 3 });
});

test('what it was not seen to do is refused to callers before the backend is asked', async () => {
  const engine = createCheckedBackend(
    { url: guardedUrl, card: { id: 'served', task: 'chat', licence: '', limits: [] }, model: 'mill', apiKey: KEY },
    { contextTokens: 4096, parameters: ['stop'] },
  );
  const { signal } = new AbortController();
  const ask = (more: Partial<ChatRequest>) =>
    engine.run<ChatRequest>(
      { task: 'chat', messages: [{ role: 'user', content: [{ type: 'text', text: 'x' }] }], sampling: {}, ...more },
      { signal },
    );
  for (const more of [{ sampling: { seed: 1 } }, { sampling: { topK: 3 } }, { tools: [{ name: 'f' }] }, { toolChoice: 'auto' as const }]) {
    await assert.rejects(ask(more), { code: 'unsupported-parameter' });
  }
  assert.match((await ask({ sampling: { stop: ['x'] } })).text, /^word \d+$/);
  assert.deepEqual([engine.card.contextTokens, engine.card.determinism], [4096, 'none']);
  await engine.close();
});

test('a wrong key, a wrong name, a silent server and an impossible task are told apart, and no error holds the key', async () => {
  const codeOf = async (asked: Parameters<typeof askBackend>[0]) => {
    try {
      await askBackend(asked);
    } catch (error) {
      assert.ok(error instanceof MillraceError);
      assert.ok(!JSON.stringify(error).includes(KEY));
      return error.code;
    }
    return 'none';
  };
  assert.equal(await codeOf({ url: guardedUrl, task: 'chat', model: 'mill' }), 'backend-key-refused');
  assert.equal(await codeOf({ url: guardedUrl, task: 'chat', model: 'mill-13b', apiKey: KEY }), 'backend-model-missing');
  assert.equal(await codeOf({ url: 'http://127.0.0.1:1/v1', task: 'chat', model: 'mill' }), 'backend-unreachable');
  assert.equal(await codeOf({ url: guardedUrl, task: 'ocr', model: 'mill', apiKey: KEY }), 'backend-cannot-do');
  assert.equal(await codeOf({ url: guardedUrl, task: 'embedding', model: 'mill', apiKey: KEY }), 'backend-unusable');
});
