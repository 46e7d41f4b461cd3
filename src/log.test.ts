import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLogger } from './log.ts';

test('a line is one JSON object with time, level, role and event, and secrets are redacted', () => {
  const lines: string[] = [];
  createLogger({ role: 'node', sink: (line) => lines.push(line) }).info('started', { port: 9000, amount: 5n, password: 'hunter2' });
  const line = JSON.parse(lines[0] as string);
  assert.equal(line.role, 'node');
  assert.equal(line.amount, '5');
  assert.equal(line.password, '[redacted]');
  assert.ok(!Number.isNaN(Date.parse(line.time)));
});

test('a file is rotated at its limit and the predecessor is kept', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'millrace-log-')), 'node.log');
  const log = createLogger({ role: 'node', file, maxBytes: 200 });
  for (let index = 0; index < 3; index += 1) log.info('event', { index });
  assert.equal(JSON.parse(readFileSync(file, 'utf8').trim().split('\n').at(-1) as string).index, 2);
  assert.ok(readFileSync(`${file}.1`, 'utf8').length > 0);
});

test('lines below the level are not written', () => {
  const lines: string[] = [];
  createLogger({ role: 'node', level: 'warn', sink: (line) => lines.push(line) }).info('quiet');
  assert.equal(lines.length, 0);
});
