import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { MillraceError } from '../errors.ts';
import { createOutput, printError, table } from './output.ts';
import { foundText } from './recognize.ts';

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

test('what strangers named cannot move the cursor of a terminal, and JSON keeps it as it is', () => {
  const name = 'cpu\x1b[2J\x9b1A\r\u202egnp.exe';
  const out = collect();
  const output = createOutput({ json: false, stdout: out.stream, stderr: out.stream });
  output.result({ name }, () => `first\t${name}\nsecond`);
  output.piece(name);
  output.note(name);
  printError(new MillraceError('peer-refused', { actor: 'peer', message: name, hint: name }), false, out.stream);
  const text = out.text();
  assert.ok(text.startsWith('first\tcpu\ufffd[2J\ufffd1A\ufffd\ufffdgnp.exe\nsecond\n'));
  for (const each of ['\x1b', '\x9b', '\r', '\u202e']) assert.ok(!text.includes(each));
  const json = collect();
  createOutput({ json: true, stdout: json.stream }).result({ name }, () => name);
  assert.equal(JSON.parse(json.text()).name, name);
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

test('what a model has heard is a table, not JSON', () => {
  const scores = ['go', 'stop', 'up', 'down', 'left', 'right'].map((label, index) => ({ label, score: 0.9 / (index + 1) }));
  assert.match(foundText({ command: 'go', scores }), /^Heard: go\n\nCOMMAND +SCORE\ngo +0\.90\nstop +0\.45\n(.+\n){2}left +0\.18$/);
  assert.match(foundText({ command: null, scores }), /^No command was heard\.\n\nCOMMAND/);
  assert.equal(foundText({ durationMs: 2500, segments: [{ startMs: 40, endMs: 1234 }] }), 'SPEECH FROM S  TO S\n0.04           1.23');
  assert.equal(foundText({ durationMs: 2500, segments: [] }), 'No speech was found in 2.50 s.');
});
