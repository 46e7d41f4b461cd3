import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findBreaches, LADDER, readSources } from './architecture.ts';
import { root } from './suite.ts';

test('the code keeps the ladder, the sizes, the names and the comments of the house', () => {
  const sources = readSources(root, 'src', 'test', 'tools', 'bench', 'profiles');
  assert.ok(sources.length > 10);
  assert.deepEqual(findBreaches(sources), []);
});

test('imports up, sideways, past an index.ts, out of src/ and from folders off the ladder are found', () => {
  const imports = (path: string, target: string) => breaches(path, `import { x } from '${target}';`);
  assert.match(imports('src/chain/a.ts', '../storage/index.ts'), /never point up/);
  assert.match(imports('src/chain/a.ts', '../data/index.ts'), /never point sideways/);
  assert.match(imports('src/storage/a.ts', '../chain/client.ts'), /through its index/);
  assert.match(imports('src/storage/a.ts', '../../test/database.ts'), /outside src/);
  assert.match(imports('src/errors.ts', './chain/index.ts'), /imports no folder/);
  assert.match(breaches('src/basement/a.ts', ''), /not on the ladder/);
  assert.match(breaches('src/chain/a.ts', "const x = await import('../storage/index.ts');"), /never point up/);
  assert.match(breaches('src/chain/a.ts', "export type { X } from '../storage/index.ts';"), /never point up/);
});

test('imports down, within a folder, of root files, of data and by tests are free', () => {
  const imports = (path: string, target: string) => breaches(path, `import { x } from '${target}';`);
  assert.equal(imports('src/storage/a.ts', '../chain/index.ts'), '');
  assert.equal(imports('src/storage/a.ts', './piece.ts'), '');
  assert.equal(imports('src/chain/a.ts', '../errors.ts'), '');
  assert.equal(imports('src/chain/a.ts', '../../profiles/dev.json'), '');
  assert.equal(imports('src/chain/a.test.ts', '../storage/deal.ts'), '');
  assert.equal(imports('src/storage/a-fixture.ts', '../chain/b-fixture.ts'), '');
  assert.match(imports('src/storage/a.ts', '../chain/b-fixture.ts'), /through its index/);
  assert.match(imports('src/storage/a-fixture.ts', '../chain/client.ts'), /through its index/);
  assert.equal(breaches('src/chain/a.ts', "// see from '../storage/index.ts'"), '');
  assert.equal(LADDER.flat().length, new Set(LADDER.flat()).size);
});

test('a file and a function that are too long are found, at their limits they are not', () => {
  assert.match(breaches('src/chain/a.ts', '\n'.repeat(501)), /501 lines, at most 500/);
  assert.equal(breaches('src/chain/a.ts', '\n'.repeat(500)), '');
  const body = (count: number) => '  work();\n'.repeat(count);
  const shapes: ((inner: string) => string)[] = [
    (inner) => `function f() {\n${inner}}\n`,
    (inner) => `const f = async (a: number) => {\n${inner}};\n`,
    (inner) => `class A {\n  method(a: number): void {\n  ${inner.trimEnd().replaceAll('\n', '\n  ')}\n  }\n}\n`,
    (inner) => `async function f(\n  a: number,\n): Promise<void> {\n${inner}}\n`.replace('  a: number,\n', ''),
  ];
  for (const shape of shapes) {
    assert.match(breaches('src/chain/a.ts', shape(body(69))), /a function of 7[0-9] lines/);
    assert.equal(breaches('src/chain/a.ts', shape(body(67))), '');
  }
  const inner = (head: string) => `  ${head} {\n${body(40)}  }\n`;
  const factory = (head: string) => `function open() {\n${inner(head)}${inner(head)}}\n`;
  assert.equal(breaches('src/chain/a.ts', factory('const read = async () =>')), '');
  assert.equal(breaches('src/chain/a.ts', factory('async read()')), '');
  assert.match(breaches('src/chain/a.ts', factory('later(async () =>').replaceAll('  }\n', '  });\n')), /a function of 8[0-9] lines/);
  assert.match(breaches('src/chain/a.ts', factory('list.forEach((each) =>').replaceAll('  }\n', '  });\n')), /a function of 8[0-9] lines/);
  assert.equal(breaches('test/a.test.ts', `describe('all', () => {\n${body(90)}});\n`), '');
  assert.equal(breaches('src/chain/a.ts', `if (x) {\n${body(90)}}\n`), '');
});

test('names that say nothing, bare errors and exports without a comment are found', () => {
  assert.match(breaches('src/chain/key-manager.ts', ''), /"manager" names nothing/);
  assert.match(breaches('test/utils.ts', ''), /"utils" names nothing/);
  assert.match(breaches('src/chain/a.ts', '/** x */\nexport class DealService {}'), /DealService says nothing/);
  assert.match(breaches('src/chain/a.ts', '/** x */\nexport interface IDeal {}'), /IDeal says nothing/);
  assert.match(breaches('src/chain/a.ts', "  throw new Error('x');"), /MillraceError/);
  assert.match(breaches('src/chain/a.ts', 'export const limit = 3;'), /limit has no doc comment/);
  assert.equal(breaches('src/chain/a.ts', '/** Most. */\nexport const limit = 3;'), '');
});

test('a third level is found until its folder passes 25 files', () => {
  const files = (count: number) => Array.from({ length: count }, (_, index) => ({ path: `src/storage/f${index}.ts`, text: '' }));
  const deep = { path: 'src/storage/piece/car.ts', text: '' };
  assert.equal(findBreaches([...files(24), deep]).length, 1);
  assert.equal(findBreaches([...files(25), deep]).length, 0);
});

function breaches(path: string, text: string): string {
  return findBreaches([{ path, text }]).join('\n');
}
