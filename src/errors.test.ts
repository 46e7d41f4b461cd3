import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPublicClient, http } from 'viem';
import { exitCodeOf, httpStatusOf, MillraceError, toMillraceError } from './errors.ts';

test('an error prints its values as JSON, bigints as decimal strings', () => {
  const error = new MillraceError('no-funds', {
    actor: 'caller',
    message: 'Got 1, expected 2',
    values: { got: 1n, expected: 2n },
    hint: 'Top up.',
  });
  assert.deepEqual(JSON.parse(JSON.stringify(error)), {
    code: 'no-funds',
    actor: 'caller',
    message: 'Got 1, expected 2',
    values: { got: '1', expected: '2' },
    hint: 'Top up.',
  });
});

test('the actor decides exit code and HTTP status', () => {
  const by = (actor: 'caller' | 'peer' | 'chain' | 'host' | 'bug') => new MillraceError('x', { actor, message: 'x' });
  assert.deepEqual(
    ['bug', 'caller', 'peer', 'chain', 'host'].map((actor) => exitCodeOf(by(actor as 'bug'))),
    [1, 2, 3, 4, 5],
  );
  assert.equal(httpStatusOf(by('caller')), 400);
  assert.equal(exitCodeOf(new Error('plain')), 1);
});

test('a foreign error is wrapped once and keeps its cause', () => {
  const cause = new TypeError('bad');
  const wrapped = toMillraceError(cause);
  assert.equal(wrapped.code, 'unexpected');
  assert.equal(wrapped.cause, cause);
  assert.equal(toMillraceError(wrapped), wrapped);
});

test('a full disk and a refused access are faults of the host, not defects', () => {
  const refused = (code: string) => Object.assign(new Error(`${code}: write`), { code, syscall: 'write', path: '/data/x' });
  assert.equal(toMillraceError(refused('ENOSPC')).code, 'disk-full');
  assert.equal(exitCodeOf(refused('EROFS')), 5);
  assert.equal(httpStatusOf(refused('ENOSPC')), 507);
  assert.equal(toMillraceError(refused('EACCES')).values.path, '/data/x');
  assert.equal(toMillraceError(refused('EBADF')).code, 'unexpected');
});

test('a chain that nobody answers for is a fault of the chain, however it was asked; a wrong use of the library is a defect', async () => {
  const silent = createPublicClient({ transport: http('http://127.0.0.1:9', { retryCount: 0 }) });
  const error = await silent.getGasPrice().catch(toMillraceError);
  assert.ok(error instanceof MillraceError);
  assert.deepEqual([error.code, error.actor], ['chain-unreachable', 'chain']);
  assert.equal(toMillraceError(new TypeError('no chain at all')).code, 'unexpected');
});
