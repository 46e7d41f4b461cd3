import assert from 'node:assert/strict';
import { request } from 'node:http';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { MillraceError } from '../errors.ts';
import { silentLogger } from '../log.ts';
import { BATCH_MAX, BODY_BYTES_MAX, createRpcServer } from './rpc-server.ts';

const handled: string[] = [];
const server = await createRpcServer({
  host: '127.0.0.1',
  port: 0,
  allowedHosts: ['chain.example'],
  allowedOrigins: ['https://console.example'],
  log: silentLogger,
  async handle(method, params) {
    handled.push(method);
    if (method === 'fails')
      throw new MillraceError('sample', { actor: 'caller', message: 'no', values: { rpcCode: -32000, data: '"0xab"' } });
    if (method === 'breaks') throw new TypeError('secret inner detail');
    return params[0] ?? method;
  },
});
after(() => server.close());

interface Answer {
  status: number | undefined;
  headers: Record<string, unknown>;
  text: string;
}

function post(body: string, headers: Record<string, string> = {}, method = 'POST'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(
      { host: '127.0.0.1', port: server.port, method, headers: { 'content-type': 'application/json', ...headers } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }),
        );
      },
    );
    call.on('error', reject);
    call.end(body);
  });
}

const call = (method: string, extra: object = {}) => JSON.stringify({ jsonrpc: '2.0', id: 7, method, params: [], ...extra });

test('a call is answered with its id, and a batch in its order without its notifications', async () => {
  assert.deepEqual(JSON.parse((await post(call('one'))).text), { jsonrpc: '2.0', id: 7, result: 'one' });
  const batch = `[${call('a', { id: 'x' })},${JSON.stringify({ jsonrpc: '2.0', method: 'quiet' })},${call('b', { id: null })}]`;
  assert.deepEqual(
    (JSON.parse((await post(batch)).text) as { id: unknown; result: unknown }[]).map(({ id, result }) => [id, result]),
    [
      ['x', 'a'],
      [null, 'b'],
    ],
  );
  assert.deepEqual(handled.slice(-3), ['a', 'quiet', 'b']);
});

test('an error carries its code and data, and a defect tells nothing of the inside', async () => {
  assert.deepEqual(JSON.parse((await post(call('fails'))).text).error, { code: -32000, message: 'no', data: '0xab' });
  assert.deepEqual(JSON.parse((await post(call('breaks'))).text).error, { code: -32000, message: 'internal error' });
});

test('a page in a browser may not call, unless its origin was configured', async () => {
  const count = handled.length;
  for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1:1', `http://localhost:${server.port}`]) {
    assert.equal((await post(call('stolen'), { origin })).status, 403, origin);
    assert.equal((await post('', { origin }, 'OPTIONS')).status, 403, origin);
  }
  assert.equal((await post(call('simple'), { 'content-type': 'text/plain' })).status, 415);
  assert.equal(handled.length, count);
  const allowed = await post(call('own'), { origin: 'https://console.example' });
  assert.equal(allowed.status, 200);
  assert.equal(allowed.headers['access-control-allow-origin'], 'https://console.example');
});

test('a name that somebody pointed at this machine is refused (DNS rebinding)', async () => {
  for (const host of ['evil.example', `evil.example:${server.port}`, '127.0.0.1.evil.example', 'localhost.evil.example']) {
    assert.equal((await post(call('rebound'), { host })).status, 403, host);
  }
  for (const host of ['localhost', `127.0.0.1:${server.port}`, '[::1]:80', 'chain.example']) {
    assert.equal((await post(call('direct'), { host })).status, 200, host);
  }
});

test('what is too large, too many, malformed or not a call is refused by its kind', async () => {
  const codeOf = async (body: string) => JSON.parse((await post(body)).text).error.code;
  assert.equal(await codeOf('{'), -32700);
  assert.equal(await codeOf('[]'), -32600);
  assert.equal(await codeOf('"x"'), -32600);
  assert.equal(await codeOf('null'), -32600);
  assert.equal(await codeOf('{"jsonrpc":"2.0","id":{},"method":"x"}'), -32600);
  assert.equal(await codeOf(call('x', { params: { a: 1 } })), -32602);
  assert.equal(await codeOf(`[${Array.from({ length: BATCH_MAX + 1 }, () => call('x')).join(',')}]`), -32600);
  assert.equal((await post(call('x', { params: ['x'.repeat(BODY_BYTES_MAX)] })).catch(() => ({ status: 413 }))).status, 413);
  assert.equal((await post('', {}, 'GET')).status, 405);
});

test('a client that sends half a request does not hold up others', async () => {
  const slow = connect(server.port, '127.0.0.1');
  slow.on('error', () => {});
  slow.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{');
  assert.equal((await post(call('meanwhile'))).status, 200);
  slow.destroy();
});

test('params nested too deep or with broken strings are refused before they reach the chain', async () => {
  const before = handled.length;
  const nested = (depth: number) => `{"jsonrpc":"2.0","id":1,"method":"deep","params":${'['.repeat(depth)}${']'.repeat(depth)}}`;
  for (const body of [nested(100), nested(1_000_000), call('broken', { params: ['\ud800'] })]) {
    assert.equal(JSON.parse((await post(body)).text).error.code, -32602);
  }
  assert.equal(handled.length, before);
  assert.deepEqual(JSON.parse((await post(nested(10))).text).result.length, 1);
});
