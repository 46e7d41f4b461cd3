import assert from 'node:assert/strict';
import { mkdtempSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MillraceError } from '../errors.ts';
import { askControl, startControlServer } from './control.ts';

const socketPath = () => join(mkdtempSync(join(tmpdir(), 'mr-')), 'control.sock');

test('a command gets its progress, then its result; only the owner may open the socket', async () => {
  const path = socketPath();
  const server = await startControlServer(path, async ({ command, arguments: given }, progress) => {
    progress({ step: 1 });
    return { command, given, amount: 5n };
  });
  const events: unknown[] = [];
  assert.deepEqual(await askControl(path, 'status', { arguments: { a: 1 }, onProgress: (event) => events.push(event) }), {
    command: 'status',
    given: { a: 1 },
    amount: '5',
  });
  assert.deepEqual(events, [{ step: 1 }]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await assert.rejects(
    startControlServer(path, async () => null),
    { code: 'already-running' },
  );
  await server.stop();
  await assert.rejects(askControl(path, 'status'), { code: 'not-running' });
});

test('an error of the handler keeps its code and actor, and garbage does not stop the server', async () => {
  const path = socketPath();
  const server = await startControlServer(path, async () => {
    throw new MillraceError('no-funds', { actor: 'caller', message: 'Got 1, expected 2', values: { got: 1n } });
  });
  await assert.rejects(askControl(path, 'x'), { code: 'no-funds', actor: 'caller' });
  for (const garbage of ['not json\n', '{}\n', `${'x'.repeat(70_000)}\n`]) {
    await new Promise<void>((resolve) => {
      const socket = net.connect(path, () => socket.write(garbage));
      socket.on('close', () => resolve());
      socket.on('error', () => resolve());
      socket.resume();
    });
  }
  await assert.rejects(askControl(path, 'x'), { code: 'no-funds' });
  await server.stop();
});

test('a socket file left by a killed supervisor is taken over', async () => {
  const path = socketPath();
  writeFileSync(path, '');
  const server = await startControlServer(path, async () => 'alive');
  assert.equal(await askControl(path, 'x'), 'alive');
  await server.stop();
});
