import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorsIn, errorsPage } from './errors.ts';

const path = 'src/storage/a.ts';

test('code, actor, message and hint are read, with computed parts shown as such', () => {
  const text = `
    throw new MillraceError('bad-size', {
      actor: 'caller',
      message: \`Got "\${text.replace('}', ')')}" (\${count}), expected a number\`,
      values: { message: 'not this' },
      hint: 'It\\'s 64MiB, for example.',
    });`.replace("text.replace('}', ')')", 'text');
  assert.deepEqual(errorsIn({ path, text }), [
    { code: 'bad-size', actor: 'caller', message: 'Got "…" (…), expected a number', hint: "It's 64MiB, for example.", origins: [path] },
  ]);
});

test('an error whose parts come from variables still has its row; one whose code does is left out', () => {
  const text = "new MillraceError('lost', { actor, message, cause }); new MillraceError(reply.code, { actor: 'bug', message: 'x' });";
  assert.deepEqual(errorsIn({ path, text }), [{ code: 'lost', actor: '…', message: '…', hint: '', origins: [path] }]);
});

test('a choice between two codes gives both; a function that takes the code gives those it is called with', () => {
  const choice = "new MillraceError(taken ? 'port-in-use' : 'listen-failed', { actor: 'host', message: 'x' })";
  assert.deepEqual(
    errorsIn({ path, text: choice }).map(({ code }) => code),
    ['port-in-use', 'listen-failed'],
  );
  const calls = `throw refused('signature-wrong', 'Got no signature', cause);
    function refused(code: string, message: string): MillraceError {
      return new MillraceError(code, { actor: 'caller', message, hint: 'Sign anew.' });
    }`;
  assert.deepEqual(errorsIn({ path, text: calls }), [
    { code: 'signature-wrong', actor: 'caller', message: 'Got no signature', hint: 'Sign anew.', origins: [path] },
  ]);
});

test('one code thrown in two places is one row, and a bar in a message does not break the table', () => {
  const [one] = errorsIn({ path, text: "new MillraceError('lost', { actor: 'peer', message: 'a|b' })" });
  assert.ok(one);
  const page = errorsPage([one, { ...one, origins: ['src/chain/b.ts'] }]);
  assert.equal(page.split('\n').filter((line) => line.startsWith('| `lost`')).length, 1);
  assert.match(page, /a\\\|b/);
  assert.match(page, /src\/storage\/a\.ts<br>src\/chain\/b\.ts/);
});
