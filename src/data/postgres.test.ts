import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openTemporaryFolder } from '../../test/database.ts';
import { identifyProcess } from '../process-identity.ts';
import { openDatabase, type Postgres, startPostgres } from './index.ts';

const root = openTemporaryFolder('millrace-postgres-');
const folder = join(root, 'database');
after(async () => {
  const last = await startPostgres({ folder });
  await last.stop();
  rmSync(root, { recursive: true, force: true });
});

const START = `
  import { startPostgres } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
  const postgres = await startPostgres({ folder: process.argv[1] });
  console.log(JSON.stringify({ pid: postgres.pid, adopted: postgres.adopted }));`;

test('a new folder gets a server with durable settings, on the loopback address alone, that asks for its password', async () => {
  const postgres = await startPostgres({ folder });
  assert.equal(postgres.adopted, false);
  const settings = await ask(
    postgres,
    "select current_setting('fsync') fsync, current_setting('synchronous_commit') sync, current_setting('full_page_writes') pages," +
      " current_setting('listen_addresses') listen, current_setting('unix_socket_directories') sockets," +
      " current_setting('server_encoding') encoding, current_setting('password_encryption') password," +
      ' (select datcollate from pg_database where datname = current_database()) collate',
  );
  assert.deepEqual(settings, [
    { fsync: 'on', sync: 'on', pages: 'on', listen: '127.0.0.1', sockets: '', encoding: 'UTF8', password: 'scram-sha-256', collate: 'C' },
  ]);
  assert.equal(statSync(join(folder, 'password')).mode & 0o777, 0o600);
  const stranger = new URL(postgres.url);
  stranger.password = 'wrong';
  await assert.rejects(ask({ url: stranger.href }, 'select 1'), { code: 'database-refused' });
});

test('a second start adopts the server that runs, and a stopped one comes back on the port of last time with its rows', async () => {
  const first = await startPostgres({ folder });
  const second = await startPostgres({ folder });
  assert.deepEqual([second.pid, second.adopted], [first.pid, true]);
  await ask(second, 'create table kept (id int)');
  await ask(second, 'insert into kept values (1)');
  await second.stop();
  assert.equal(isGone(first.pid), true);
  const third = await startPostgres({ folder });
  assert.deepEqual([third.port, third.adopted], [first.port, false]);
  assert.equal((await ask(third, 'select * from kept')).length, 1);
});

test('after a kill -9 of the server every acknowledged row is there', async () => {
  for (let round = 0; round < 3; round += 1) {
    const postgres = await startPostgres({ folder });
    const database = openDatabase(postgres.url);
    await database.query('create table if not exists acknowledged (id bigint primary key)');
    const before = BigInt((await database.query('select 1 from acknowledged')).rowCount);
    let count = 0n;
    const writing = (async () => {
      for (;;) {
        await database.query('insert into acknowledged values ($1)', [before + count]);
        count += 1n;
        if (count === 50n) process.kill(postgres.pid, 'SIGKILL');
      }
    })();
    await assert.rejects(writing, { code: 'database-unavailable' });
    await database.close();
    const again = await startPostgres({ folder });
    const { length } = await ask(again, 'select id from acknowledged');
    assert.ok(BigInt(length) >= before + count, `${length} rows, ${before + count} acknowledged`);
  }
});

test('a server whose starter was killed is adopted by the next starter', async () => {
  await (await startPostgres({ folder })).stop();
  const parent = spawn(process.execPath, ['--input-type=module-typescript', '-e', `${START}\nsetInterval(() => {}, 1000);`, folder]);
  const [line] = await once(parent.stdout, 'data');
  const started = JSON.parse(String(line)) as { pid: number; adopted: boolean };
  parent.kill('SIGKILL');
  await once(parent, 'close');
  assert.equal(started.adopted, false);
  const postgres = await startPostgres({ folder });
  assert.deepEqual([postgres.pid, postgres.adopted], [started.pid, true]);
});

test('an orphan on another port than the wanted one is stopped, and the server starts where it is wanted', async () => {
  const orphan = await startPostgres({ folder });
  const port = await freePort();
  const wanted = await startPostgres({ folder, port });
  assert.deepEqual([wanted.port, wanted.adopted, isGone(orphan.pid)], [port, false, true]);
});

test('processes that start at once get one server', async () => {
  await (await startPostgres({ folder })).stop();
  const seen = await Promise.all(Array.from({ length: 3 }, () => runProgram(START, folder)));
  const started = seen.map((text) => JSON.parse(text) as { pid: number; adopted: boolean });
  assert.equal(new Set(started.map(({ pid }) => pid)).size, 1);
  assert.equal(started.filter(({ adopted }) => !adopted).length, 1);
});

test('a pid file that names a stranger does not stop the start', async () => {
  const postgres = await startPostgres({ folder });
  process.kill(postgres.pid, 'SIGKILL');
  await postgres.exited;
  const pidFile = join(folder, 'cluster', 'postmaster.pid');
  writeFileSync(pidFile, readFileSync(pidFile, 'utf8').replace(/^\d+/, String(process.pid)));
  const again = await startPostgres({ folder });
  assert.equal(again.adopted, false);
  assert.equal((await ask(again, 'select * from kept')).length, 1);
});

test('a creation that was cut short is done again', async () => {
  const other = join(root, 'cut-short');
  mkdirSync(join(other, 'cluster.new', 'base'), { recursive: true });
  const postgres = await startPostgres({ folder: other });
  assert.equal((await ask(postgres, 'select 1')).length, 1);
  await postgres.stop();
});

test('where user namespaces are refused root runs the server as nobody, and says so when that user cannot reach the folder', async () => {
  const refusing = join(root, 'refusing');
  mkdirSync(refusing);
  writeFileSync(join(refusing, 'unshare'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const env = { ...process.env, PATH: `${refusing}:${process.env.PATH}` };
  const open = join(root, 'as-nobody');
  const { pid } = JSON.parse(await runProgram(`${START}\nawait postgres.stop();`, open, env)) as { pid: number };
  assert.ok(pid > 1);
  assert.equal(statSync(join(open, 'cluster')).uid, process.getuid?.() === 0 ? 65534 : process.getuid?.());
  const adopted = await startPostgres({ folder: open }); // the owner of the folder runs it ever after
  assert.equal((await ask(adopted, 'select 1')).length, 1);
  await adopted.stop();
  const closed = join(root, 'closed');
  mkdirSync(closed, { mode: process.getuid?.() === 0 ? 0o700 : 0o000 });
  const program = `import { startPostgres } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
    console.log(await startPostgres({ folder: process.argv[1] }).catch((error) => error.code));`;
  assert.match(await runProgram(program, join(closed, 'database'), env), /^database-folder-closed$/);
});

test('a taken port, a cluster of another PostgreSQL and a broken cluster are typed errors', async () => {
  const other = join(root, 'refused');
  const postgres = await startPostgres({ folder: other });
  await postgres.stop();
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as { port: number };
  await assert.rejects(startPostgres({ folder: other, port }), { code: 'port-in-use', values: { port } });
  holder.close();
  const versionFile = join(other, 'cluster', 'PG_VERSION');
  const version = readFileSync(versionFile, 'utf8');
  writeFileSync(versionFile, '99\n');
  await assert.rejects(startPostgres({ folder: other }), { code: 'database-engine-version', actor: 'caller' });
  writeFileSync(versionFile, version);
  rmSync(join(other, 'cluster', 'global', 'pg_control'));
  await assert.rejects(startPostgres({ folder: other }), { code: 'database-start-failed', actor: 'host' });
});

async function ask(server: Pick<Postgres, 'url'>, sql: string): Promise<Record<string, unknown>[]> {
  const database = openDatabase(server.url);
  try {
    return (await database.query(sql)).rows;
  } finally {
    await database.close();
  }
}

function isGone(pid: number): boolean {
  return identifyProcess(pid) === undefined;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}

async function runProgram(program: string, argument: string, env = process.env): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, argument], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env,
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(child, 'close');
  return Buffer.concat(chunks).toString().trim();
}
