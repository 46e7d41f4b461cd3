import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { openTransportIdentity } from '../connect/index.ts';
import { type ForeignBackend, startForeignBackend } from '../inference/serving/foreign-backend.ts';
import { backendModels, startTestMiner, TEST_DOMAIN, type TestMiner } from '../inference/serving/miner-fixture.ts';
import { silentLogger } from '../log.ts';
import { type InferenceServer, startInferenceServer } from './inference/inference-server.ts';

/** The name in the certificates that nodes make for themselves. */
const NAME = 'millrace-node';
const folder = mkdtempSync(join(tmpdir(), 'millrace-tls-'));
const files = { certPath: join(folder, 'fullchain.pem'), keyPath: join(folder, 'privkey.pem'), checkMs: 20 };
const chat = { model: 'mill-chat', messages: [{ role: 'user' as const, content: 'why?' }] };
const pems: { certPem: string; keyPem: string }[] = [];
let backend: ForeignBackend;
let miner: TestMiner;
let gateway: InferenceServer;

before(async () => {
  for (const index of [0, 1]) {
    const { certificatePem, keyPem } = await openTransportIdentity(join(folder, `identity-${index}`));
    pems.push({ certPem: certificatePem, keyPem });
    writeFileSync(join(folder, `${index}.pem`), certificatePem);
  }
  install(0);
  backend = await startForeignBackend({ words: 40, wordMs: 50 });
  const free = { unit: 'tokens', inputPerMillion: 0n, outputPerMillion: 0n, perRequest: 0n } as const;
  miner = await startTestMiner({ models: backendModels(backend.url, 16, { price: free }) });
  gateway = await startInferenceServer({
    folder: join(folder, 'gateway'),
    port: 0,
    tls: files,
    domain: TEST_DOMAIN,
    miners: async () => [{ uid: 1, operatorId: 1n, endpoint: miner.url, transportKey: '', rank: 1 }],
    now: () => BigInt(Math.floor(Date.now() / 1000)),
    isOpen: true,
    log: silentLogger,
  });
});
after(async () => {
  await gateway.stop(100);
  await miner.stop();
  await backend.stop();
  rmSync(folder, { recursive: true, force: true });
});

function install(index: number): void {
  writeFileSync(files.certPath, pems[index]?.certPem as string);
  writeFileSync(files.keyPath, pems[index]?.keyPem as string);
}

/** Asks with curl, which trusts only the certificate of this number; its exit status is 60 for another one. */
async function curl(trusted: number, path: string): Promise<string> {
  const at = ['--cacert', join(folder, `${trusted}.pem`), '--resolve', `${NAME}:${gateway.port}:127.0.0.1`, '-H', 'host: localhost'];
  return (await promisify(execFile)('curl', ['-s', '-S', ...at, `https://${NAME}:${gateway.port}${path}`])).stdout;
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 20));
}

const isServed = (index: number) =>
  curl(index, '/healthz').then(
    () => true,
    () => false,
  );

test('a gateway with a certificate answers curl and the openai client over TLS, and nobody over plain HTTP', async () => {
  assert.match(await curl(0, '/v1/models'), /mill-chat/);
  await assert.rejects(curl(1, '/v1/models'), { code: 60 });
  const client = new OpenAI({
    baseURL: `https://localhost:${gateway.port}/v1`,
    apiKey: 'none',
    maxRetries: 0,
    fetch: fetchOver(pems[0]?.certPem),
  });
  const answer = await client.chat.completions.create({ ...chat, max_tokens: 8 });
  assert.match(answer.choices[0]?.message.content ?? '', /^the mill turns/);
  await assert.rejects(fetch(`http://127.0.0.1:${gateway.port}/healthz`));
});

test('a replaced certificate is served to new connections, while a stream that is open goes on to its end', async () => {
  const socket = new https.Agent({ keepAlive: true, maxSockets: 1, ca: pems[0]?.certPem, servername: NAME });
  const client = new OpenAI({
    baseURL: `https://localhost:${gateway.port}/v1`,
    apiKey: 'none',
    maxRetries: 0,
    fetch: fetchOver(pems[0]?.certPem, socket),
  });
  const stream = await client.chat.completions.create({ ...chat, stream: true });
  const parts = stream[Symbol.asyncIterator]();
  await parts.next();
  // One file after the other: between the two they do not fit, and the pair before is served.
  copyFileSync(join(folder, '1.pem'), files.certPath);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await isServed(0), true);
  writeFileSync(files.keyPath, pems[1]?.keyPem as string);
  await until(() => isServed(1));
  assert.equal(await isServed(0), false);
  let words = 0;
  for (let part = await parts.next(); part.done !== true; part = await parts.next()) words += part.value.choices[0]?.delta.content ? 1 : 0;
  assert.ok(words >= 30, `${words} words came`);
  socket.destroy();
});

test('files that are missing, or do not fit together, are told at the start', async () => {
  const start = (tls: { certPath: string; keyPath: string }) =>
    startInferenceServer({
      folder: join(folder, 'other'),
      port: 0,
      tls,
      domain: TEST_DOMAIN,
      miners: async () => [],
      now: () => 0n,
      log: silentLogger,
    });
  await assert.rejects(start({ ...files, certPath: join(folder, 'none.pem') }), { code: 'bad-tls-file' });
  await assert.rejects(start({ ...files, certPath: join(folder, '0.pem') }), { code: 'bad-tls-file' });
});

/** `fetch` for a client that trusts one certificate only. */
function fetchOver(ca: string | undefined, agent = new https.Agent({ ca, servername: NAME })): typeof fetch {
  return ((url: string, init: RequestInit = {}) =>
    new Promise<Response>((resolve, reject) => {
      const headers = Object.fromEntries(new Headers(init.headers));
      const request = https.request(
        url,
        {
          method: init.method,
          headers,
          agent,
          lookup: (_host, options, callback) => {
            if (options.all === true) callback(null, [{ address: '127.0.0.1', family: 4 }]);
            else callback(null, '127.0.0.1', 4);
          },
        },
        (answer) => {
          const body = new ReadableStream({
            start(controller) {
              answer.on('data', (chunk: Buffer) => controller.enqueue(new Uint8Array(chunk)));
              answer.on('end', () => controller.close());
              answer.on('error', (error) => controller.error(error));
            },
          });
          resolve(new Response(body, { status: answer.statusCode, headers: answer.headers as Record<string, string> }));
        },
      );
      request.on('error', reject);
      request.end(init.body as string | undefined);
    })) as typeof fetch;
}
