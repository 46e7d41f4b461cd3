import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { root } from './suite.ts';

/** A test that the table names: "`file`: name", as the table writes it in its last column. */
const NAMED = /`([\w./-]+\.(?:test\.ts|t\.sol))`: ([^<|]+?)\s*(?=<br>|\||$)/g;

test('each complaint of docs/complaints.md names tests, and each of them exists by that name', () => {
  const rows = readFileSync(join(root, 'docs/complaints.md'), 'utf8')
    .split('\n')
    .filter((line) => /^\| (?!complaint|-)/.test(line));
  assert.ok(rows.length >= 10, `${rows.length} complaints`);
  for (const row of rows) {
    const named = [...(row.split('|').at(-2) as string).matchAll(NAMED)];
    assert.ok(named.length > 0, `no test is named: ${row}`);
    for (const [, file, name] of named) {
      const source = readFileSync(join(root, file as string), 'utf8');
      const declared = (file as string).endsWith('.sol') ? source.includes(`function ${name}(`) : isDeclared(source, name as string);
      assert.ok(declared, `${file} has no test "${name}"`);
    }
  }
});

function isDeclared(source: string, name: string): boolean {
  return ["'", '`', '"'].some((quote) => new RegExp(`\\btest\\(\\s*${literally(quote + name + quote)}`).test(source));
}

function literally(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
