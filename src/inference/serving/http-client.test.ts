import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { readAll, sendHttp } from './http-client.ts';

/** Answers the first request of a connection, and closes it in the moment in which a second one comes: as a server does whose patience is over. */
const asked: string[] = [];
const sockets = new Set<Socket>();
let isGone = false;
const server = createServer((socket) => {
  let requests = 0;
  sockets.add(socket);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    requests += 1;
    if (requests > 1 || isGone) return void socket.resetAndDestroy();
    asked.push(data.toString('latin1').split('\r\n\r\n')[1] ?? '');
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
  });
});
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
after(() => {
  for (const socket of sockets) socket.destroy();
  server.close();
});

async function post(body: string): Promise<string> {
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const { signal } = new AbortController();
  const headers = { 'content-length': body.length };
  const answer = await sendHttp({ url, method: 'POST', headers, body, signal, headersTimeoutMs: 5_000, idleTimeoutMs: 5_000 });
  return (await readAll(answer, 100)).toString();
}

test('a kept connection that the server has closed costs no request: it is sent again on another one', async () => {
  for (const body of ['one', 'two', 'three']) assert.equal(await post(body), 'ok');
  assert.deepEqual(asked, ['one', 'two', 'three']);
});

test('a server that closes new connections too is gone', async () => {
  isGone = true;
  await assert.rejects(post('four'), { code: 'server-unreachable' });
});
