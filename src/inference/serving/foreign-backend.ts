import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A small OpenAI-like model server of its own, as llama.cpp or vLLM would be: a foreign backend. For tests and measurements. */
export interface ForeignBackend {
  /** Base URL with `/v1`. */
  url: string;
  /** Requests whose caller went away before the end. */
  readonly cut: number;
  readonly requests: number;
  /** Bodies of the last requests. */
  readonly bodies: Record<string, unknown>[];
  stop(): Promise<void>;
}

/** How it behaves. */
export interface ForeignBackendOptions {
  /** Words of an answer. Default 8. */
  words?: number;
  /** Between two words of a stream. Default 0. */
  wordMs?: number;
  /** Before the first word. */
  firstMs?: number;
  /** What is claimed to have been made, beyond the truth. */
  inflateBy?: number;
  port?: number;
}

const WORDS = ['the', ' mill', ' turns', ' while', ' water', ' runs', ' and', ' grain', ' falls', ' into', ' the', ' stones'];

/** A PNG of one grey pixel. */
const PICTURE = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==', 'base64');

/** Starts a foreign backend on 127.0.0.1: chat (streamed or not), embeddings, speech (24 kHz PCM), transcription, pictures, moderations, models. */
export async function startForeignBackend(options: ForeignBackendOptions = {}): Promise<ForeignBackend> {
  const state = { cut: 0, requests: 0, bodies: [] as Record<string, unknown>[] };
  const server = createServer((request, response) => {
    answer(request, response, options, state).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    get cut() {
      return state.cut;
    },
    get requests() {
      return state.requests;
    },
    bodies: state.bodies,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: ForeignBackendOptions,
  state: { cut: number; requests: number; bodies: Record<string, unknown>[] },
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  state.requests += 1;
  const path = request.url?.slice('/v1/'.length);
  const send = (value: unknown) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  if (path === 'models') return void send({ object: 'list', data: [] });
  if (path === 'audio/transcriptions') return void send({ text: 'the mill turns', language: 'english', duration: 1.5, segments: [] });
  const body = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  if (state.bodies.push(body) > 16) state.bodies.shift();
  if (path === 'embeddings') {
    const texts = body.input as string[];
    const data = texts.map((text, index) => ({ object: 'embedding', index, embedding: [text.length, 1, 0.5] }));
    return void send({ object: 'list', data, model: body.model, usage: { prompt_tokens: texts.length, total_tokens: texts.length } });
  }
  if (path === 'moderations') {
    const results = (body.input as string[]).map((text) => {
      const isFlagged = text.includes('sink the ship');
      return { flagged: isFlagged, categories: { violence: isFlagged }, category_scores: { violence: isFlagged ? 0.9 : 0.1 } };
    });
    return void send({ id: 'modr-1', model: body.model, results });
  }
  if (path === 'images/generations') {
    const picture = { b64_json: PICTURE.toString('base64') };
    return void send({ created: 1, data: Array.from({ length: Number(body.n ?? 1) }, () => picture) });
  }
  if (path === 'audio/speech') return void response.writeHead(200, { 'content-type': 'audio/pcm' }).end(Buffer.alloc(4800, 1));
  if (path === 'chat/completions') return chat(body, response, options, state);
  response.writeHead(404).end('{"error":{"message":"no such path"}}');
}

async function chat(
  body: Record<string, unknown>,
  response: ServerResponse,
  options: ForeignBackendOptions,
  state: { cut: number },
): Promise<void> {
  const words = Math.min(options.words ?? 8, typeof body.max_tokens === 'number' ? body.max_tokens : Number.POSITIVE_INFINITY);
  const isCut = words < (options.words ?? 8);
  const usage = { prompt_tokens: 7, completion_tokens: words + (options.inflateBy ?? 0), total_tokens: 7 + words };
  const base = { id: 'chatcmpl-1', created: 1, model: body.model };
  const word = (index: number) => WORDS[index % WORDS.length] as string;
  if (options.firstMs) await pause(options.firstMs);
  if (body.stream !== true) {
    const content = Array.from({ length: words }, (_, index) => word(index)).join('');
    const message =
      body.tools === undefined ? { role: 'assistant', content } : { role: 'assistant', content: null, tool_calls: [toolCall(0)] };
    const finish = body.tools === undefined ? (isCut ? 'length' : 'stop') : 'tool_calls';
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify({
        ...base,
        object: 'chat.completion',
        choices: [{ index: 0, message, finish_reason: finish, logprobs: null }],
        usage,
      }),
    );
    return;
  }
  let isOpen = true;
  response.once('close', () => {
    isOpen = false;
  });
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const event = (choice: unknown, more = {}) =>
    response.write(`data: ${JSON.stringify({ ...base, object: 'chat.completion.chunk', choices: choice, ...more })}\n\n`);
  for (let index = 0; index < words; index += 1) {
    if (!isOpen) {
      state.cut += 1;
      return;
    }
    event([{ index: 0, delta: { content: word(index) }, finish_reason: null }]);
    if (options.wordMs) await pause(options.wordMs);
  }
  event([{ index: 0, delta: {}, finish_reason: isCut ? 'length' : 'stop' }]);
  event([], { usage });
  response.end('data: [DONE]\n\n');
}

function toolCall(index: number): Record<string, unknown> {
  return { index, id: 'call_1', type: 'function', function: { name: 'open_gate', arguments: '{"gate":1}' } };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
