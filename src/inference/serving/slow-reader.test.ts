import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { backendModels, startTestMiner, type TestMiner } from './miner-fixture.ts';

/** A backend that makes answers faster than anybody reads them, and takes no notice of who waits: 8 MiB short, or endless. */
const PIECE = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'grain '.repeat(2000) } }] })}\n\n`;
const SHORT_PIECES = 700;
let wereCut = 0;
const backend = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const isShort = Buffer.concat(chunks).includes('short');
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let sent = 0; !response.closed && (!isShort || sent < SHORT_PIECES); sent += 1) {
    if (!response.write(PIECE)) await Promise.race([sleep(50), new Promise((resolve) => response.once('drain', resolve))]);
    await sleep(0);
  }
  if (response.closed) wereCut += 1;
  else
    response.end(
      'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":9}}\n\ndata: [DONE]\n\n',
    );
});
let miner: TestMiner;

before(async () => {
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve));
  miner = await startTestMiner({ models: backendModels(`http://127.0.0.1:${(backend.address() as AddressInfo).port}/v1`, 8) });
});
after(async () => {
  await miner.stop();
  backend.closeAllConnections();
  backend.close();
});

const bodyOf = (content: string) => JSON.stringify({ model: 'mill-chat', stream: true, messages: [{ role: 'user', content }] });

test('a reader that stops reading is left with an error, memory stays bounded, and those who read are served', async () => {
  const memoryBefore = process.memoryUsage.rss();
  const slow = connect(Number(new URL(miner.url).port), '127.0.0.1');
  const body = bodyOf('endless');
  slow.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: miner\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  slow.pause();
  const answer = await fetch(`${miner.url}/v1/chat/completions`, { method: 'POST', body: bodyOf('short') });
  const read = await answer.text();
  assert.equal(answer.status, 200);
  assert.match(read, /: millrace-receipt /, 'the one beside it is answered whole, with its receipt');
  const deadline = performance.now() + 120_000;
  while (wereCut === 0 && performance.now() < deadline) await sleep(50);
  assert.equal(wereCut, 1, 'the backend works for nobody');
  assert.ok(process.memoryUsage.rss() - memoryBefore < 300 << 20);
  let end = '';
  slow.on('data', (data) => {
    end = (end + data.toString('latin1')).slice(-1000);
  });
  slow.resume();
  while (!end.includes('reader-too-slow') && performance.now() < deadline) await sleep(50);
  assert.match(end, /"code":"reader-too-slow"/);
  slow.destroy();
});
