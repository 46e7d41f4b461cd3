import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { MillraceError } from '../errors.ts';
import { createOutput, printError, table } from './output.ts';

const collect = () => {
  const stream = new PassThrough();
  return { stream, text: () => stream.read()?.toString() ?? '' };
};

test('with --json a result is one JSON object on standard output and nothing else is said', () => {
  const out = collect();
  const err = collect();
  const output = createOutput({ json: true, stdout: out.stream, stderr: err.stream });
  output.note('hello');
  output.progress('work').update(1, 2);
  output.result({ amount: 5n }, () => 'text');
  assert.deepEqual(JSON.parse(out.text()), { amount: '5' });
  assert.equal(err.text(), '');
});

test('in a pipe there is no progress bar, on a terminal there is one', () => {
  const pipe = collect();
  createOutput({ json: false, stdout: pipe.stream, stderr: pipe.stream }).progress('work').update(1, 2);
  assert.equal(pipe.text(), '');
  const terminal = collect();
  createOutput({ json: false, stdout: terminal.stream, stderr: Object.assign(terminal.stream, { isTTY: true }) })
    .progress('work')
    .update(1, 2);
  assert.match(terminal.text(), /work \[#+ +\] 50%/);
});

test('an error is shown with message, hint and code, or as JSON', () => {
  const error = new MillraceError('no-funds', { actor: 'caller', message: 'Got 1, expected 2', hint: 'Top up.' });
  const text = collect();
  printError(error, false, text.stream);
  assert.equal(text.text(), 'Error: Got 1, expected 2\n  Top up.\n  (no-funds)\n');
  const json = collect();
  printError(error, true, json.stream);
  assert.equal(JSON.parse(json.text()).code, 'no-funds');
});

test('a table aligns its columns', () => {
  assert.equal(
    table(
      ['deal', 'state'],
      [
        ['1', 'active'],
        ['10', 'open'],
      ],
    ),
    'DEAL  STATE\n1     active\n10    open',
  );
});
