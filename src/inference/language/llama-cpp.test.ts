import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { FOREIGN } from '../../../test/suite.ts';
import type { ChatRequest, ChatResult, Engine } from '../engines/engine.ts';
import { askBackend, createCheckedBackend } from '../serving/backend-capabilities.ts';
import { createTextGenerator } from './text-generator.ts';

const run = promisify(execFile);
const MODEL = fileURLToPath(new URL('../../../models/language/moby-dick.gguf', import.meta.url));
const python = 'python3';
const isInstalled = await run(python, ['-c', 'import llama_cpp, llama_cpp.server']).then(
  () => true,
  () => false,
);
const skip = isInstalled ? false : `${FOREIGN}llama-cpp-python[server] is not installed for ${python}`;
const own = createTextGenerator({ limits: { idleMs: 0 } });
after(() => own.close());

test('llama.cpp loads the GGUF file and goes on with a text as our own engine does, byte for byte', async (context) => {
  if (skip !== false) return context.skip(skip);
  const script = `
import sys, llama_cpp
model = llama_cpp.Llama(model_path=sys.argv[1], verbose=False, n_threads=1, n_ctx=256)
sys.stdout.write(model(sys.argv[2], max_tokens=60, temperature=0, repeat_penalty=1.0)['choices'][0]['text'])`;
  for (const text of ['Call me Ishmael.', 'Once upon a time']) {
    const { stdout } = await run(python, ['-c', script, MODEL, text], { timeout: 120_000 });
    assert.equal(stdout, (await ask(own, text)).text);
  }
});

test('a llama.cpp server is a backend: asked what it does, and its answers taken whole', async (context) => {
  if (skip !== false) return context.skip(skip);
  const port = await freePort();
  const server = spawn(python, ['-m', 'llama_cpp.server', '--model', MODEL, '--port', String(port), '--n_ctx', '256'], { stdio: 'ignore' });
  try {
    const url = `http://127.0.0.1:${port}/v1`;
    await until(async () => (await fetch(`${url}/models`)).ok);
    const model = ((await (await fetch(`${url}/models`)).json()) as { data: { id: string }[] }).data[0]?.id as string;
    const found = await askBackend({ url, task: 'chat', model });
    context.diagnostic(`it was seen to honour ${found.parameters.join(', ')}`);
    const engine = createCheckedBackend({ url, card: { id: 'served', task: 'chat', licence: '', limits: [] }, model }, found);
    const { text, usage } = await ask(engine, 'Call me Ishmael.');
    assert.ok(text.length > 0 && usage.output > 0);
    await engine.close();
  } finally {
    server.kill();
    if (server.exitCode === null) await once(server, 'exit');
  }
});

function ask(engine: Engine, text: string): Promise<ChatResult> {
  const messages = [{ role: 'user' as const, content: [{ type: 'text' as const, text }] }];
  const request: ChatRequest = { task: 'chat', messages, sampling: { temperature: 0, outputTokensMax: 60 } };
  return engine.run<ChatRequest>(request, { signal: AbortSignal.timeout(60_000) });
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 60_000; !(await isSo().catch(() => false)); ) {
    assert.ok(performance.now() < deadline, 'the server of llama.cpp did not answer');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}
