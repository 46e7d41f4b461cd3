import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freshDatabase } from '../../test/database.ts';
import { migrate, openDatabase } from './index.ts';

const { url } = await freshDatabase();
const database = openDatabase(url);
after(() => database.close());

const first = { number: 1, sql: 'create table readings (id int primary key); insert into readings values (7);' };
const second = { number: 2, sql: 'alter table readings add column note text' };

test('pending steps are applied once, in order, module by module', async () => {
  assert.deepEqual(await migrate(database, { module: 'sensors', migrations: [first] }), [1]);
  assert.deepEqual(await migrate(database, { module: 'sensors', migrations: [first, second] }), [2]);
  assert.deepEqual(await migrate(database, { module: 'sensors', migrations: [first, second] }), []);
  assert.deepEqual(await migrate(database, { module: 'other', migrations: [{ number: 1, sql: 'select 1' }] }), [1]);
  assert.deepEqual((await database.query('select id, note from readings')).rows, [{ id: 7, note: null }]);
});

test('a database from a newer version is refused and left as it was', async () => {
  await assert.rejects(migrate(database, { module: 'sensors', migrations: [first] }), {
    code: 'database-version-newer',
    actor: 'caller',
    values: { module: 'sensors', got: 2, expected: 1 },
  });
  assert.equal((await database.query("select 1 from millrace_migrations where module = 'sensors'")).rowCount, 2);
});

test('a step that was edited after it was applied is refused', async () => {
  const edited = { number: 1, sql: 'create table readings (id bigint primary key)' };
  await assert.rejects(migrate(database, { module: 'sensors', migrations: [edited, second] }), { code: 'migration-changed' });
});

test('a step that fails takes the steps before it back too', async () => {
  const broken = { number: 2, sql: 'create table half (id int); select 1 / 0' };
  const fine = { number: 1, sql: 'create table whole (id int)' };
  await assert.rejects(migrate(database, { module: 'broken', migrations: [fine, broken] }), { code: 'database-query-failed' });
  const { rowCount } = await database.query("select 1 from pg_tables where tablename in ('half', 'whole')");
  assert.equal(rowCount, 0);
});

test('numbers with a gap are refused before anything runs', async () => {
  await assert.rejects(migrate(database, { module: 'gap', migrations: [first, { number: 3, sql: 'x' }] }), {
    code: 'migration-numbers-bad',
  });
});

test('several processes that start at once apply each step once', async () => {
  const program = `
    import { migrate, openDatabase } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
    const database = openDatabase(process.argv[1]);
    const sql = 'select pg_sleep(0.1); create table raced (id int)';
    console.log((await migrate(database, { module: 'raced', migrations: [{ number: 1, sql }] })).length);
    await database.close();`;
  const counts = await Promise.all(Array.from({ length: 3 }, () => runProgram(program, fileURLToPath(new URL('.', import.meta.url)))));
  assert.deepEqual(counts.sort(), ['0', '0', '1']);
});

async function runProgram(program: string, cwd: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, url], {
    cwd,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(child, 'close');
  return Buffer.concat(chunks).toString().trim();
}
