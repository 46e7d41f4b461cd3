import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../connect/index.ts';
import { answerRequest } from './node-answer.ts';

let folder: string;
let server: PeerServer;
const stopping = new AbortController();
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-node-answer-'));
  const identity = await openTransportIdentity(folder);
  server = await startPeerServer({ port: 0, identity, fetch: (given) => answerRequest(given, [], stopping.signal) });
});
after(async () => {
  await server.stop(100);
  await rm(folder, { recursive: true, force: true });
});

function ask(method: string, path: string): Promise<{ status: number | undefined; allow: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port: server.port, method, path }, async (response) => {
      let text = '';
      for await (const chunk of response) text += chunk;
      resolve({ status: response.statusCode, allow: response.headers.allow, text });
    });
    sent.on('error', reject).end();
  });
}

test('health and metrics are read, and nothing else is done to them', async () => {
  for (const path of ['/healthz', '/metrics']) {
    assert.equal((await ask('GET', path)).status, 200);
    assert.deepEqual(await ask('HEAD', path), { status: 200, allow: undefined, text: '' });
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE']) {
      const { status, allow, text } = await ask(method, path);
      assert.deepEqual({ method, status, allow }, { method, status: 405, allow: 'GET, HEAD' });
      assert.equal(JSON.parse(text).code, 'method-not-allowed');
    }
  }
  assert.deepEqual(JSON.parse((await ask('GET', '/healthz')).text), { status: 'ok', roles: [] });
});

test('a path that nobody serves is a 404 with a code', async () => {
  const { status, text } = await ask('GET', '/nothing');
  assert.deepEqual([status, JSON.parse(text).code], [404, 'no-such-path']);
});
