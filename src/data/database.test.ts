import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { freshDatabase } from '../../test/database.ts';
import { openDatabase } from './index.ts';

const { url } = await freshDatabase();
const database = openDatabase(url);
await database.query('create table accounts (name text primary key, balance numeric(78,0) not null check (balance >= 0))');
await database.query('create table notes (id bigint generated always as identity, body bytea)');
after(() => database.close());

test('whole numbers of any size up to a uint256 come back as the same bigint', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      async (big, long) => {
        const { rows } = await database.query('select $1::numeric(78,0) as big, $2::int8 as long', [big, long]);
        assert.deepEqual(rows, [{ big, long }]);
      },
    ),
    { numRuns: 50 },
  );
});

test('bytes and fractions keep their form', async () => {
  const body = Buffer.from([0, 1, 255]);
  await database.query('insert into notes (body) values ($1)', [body]);
  const { rows } = await database.query('select body, 1.50 as price from notes');
  assert.deepEqual(rows, [{ body, price: '1.50' }]);
});

test('a transaction that throws leaves nothing behind, and the connection stays usable', async () => {
  const attempt = database.transaction(async (transaction) => {
    await transaction.query("insert into accounts values ('ghost', 1)");
    throw new RangeError('changed my mind');
  });
  await assert.rejects(attempt, RangeError);
  assert.equal((await database.query("select 1 from accounts where name = 'ghost'")).rowCount, 0);
});

test('transactions that conflict are run again until each has its effect once', async () => {
  await database.query("insert into accounts values ('shared', 0)");
  const deposit = () =>
    database.transaction(async (transaction) => {
      const { rows } = await transaction.query<{ balance: bigint }>("select balance from accounts where name = 'shared'");
      await transaction.query("update accounts set balance = $1 where name = 'shared'", [(rows[0]?.balance ?? 0n) + 1n]);
    });
  await Promise.all(Array.from({ length: 5 }, deposit));
  assert.deepEqual((await database.query("select balance from accounts where name = 'shared'")).rows, [{ balance: 5n }]);
});

test('the query builder sees what its own transaction wrote, and nobody else does before the commit', async () => {
  interface Tables {
    accounts: { name: string; balance: bigint };
  }
  const count = async (from: typeof database | Parameters<Parameters<typeof database.transaction>[0]>[0]) =>
    (await from.kysely<Tables>().selectFrom('accounts').selectAll().where('name', '=', 'builder').execute()).length;
  await database.transaction(async (transaction) => {
    await transaction.kysely<Tables>().insertInto('accounts').values({ name: 'builder', balance: 3n }).execute();
    assert.equal(await count(transaction), 1);
    assert.equal(await count(database), 0);
  });
  assert.equal(await count(database), 1);
});

test('a broken constraint is named, and its values are not', async () => {
  const error = await database.query("insert into accounts values ('debtor', $1)", [-5n]).catch((thrown) => thrown);
  assert.equal(error.code, 'database-query-failed');
  assert.equal(error.values.sqlstate, '23514');
  assert.equal(error.values.constraint, 'accounts_balance_check');
  assert.doesNotMatch(JSON.stringify(error), /debtor/);
});

test('a statement that takes too long is ended with a typed error', async () => {
  const hasty = openDatabase(url, { statementTimeoutMs: 50 });
  await assert.rejects(hasty.query('select pg_sleep(30)'), { code: 'database-timeout', actor: 'host' });
  await hasty.transaction((slow) => slow.query('select pg_sleep(0.2)'), { statementTimeoutMs: 20_000 });
  await hasty.close();
});

test('a wait for a lock that another transaction holds is limited', async () => {
  const impatient = openDatabase(url, { lockTimeoutMs: 50 });
  await database.transaction(async (holder) => {
    await holder.query('lock table notes in access exclusive mode');
    await assert.rejects(impatient.query('select * from notes'), { code: 'database-timeout' });
  });
  await impatient.close();
});

test('an address without a server, a wrong password and a wrong address are told apart', async () => {
  const closed = openDatabase('postgres://millrace:x@127.0.0.1:1/none', { connectTimeoutMs: 2_000 });
  await assert.rejects(closed.query('select 1'), { code: 'database-unavailable' });
  const stranger = new URL(url);
  stranger.username = 'stranger';
  const refused = openDatabase(stranger.href);
  await assert.rejects(refused.query('select 1'), { code: 'database-refused', actor: 'caller' });
  assert.throws(() => openDatabase('mysql://x'), { code: 'database-url-bad', actor: 'caller' });
  await Promise.all([closed.close(), refused.close()]);
});

test('a connection that the server cuts fails its query only; the next query connects again', async () => {
  const cut = database.query('select pg_terminate_backend(pg_backend_pid())');
  await assert.rejects(cut, { code: 'database-unavailable' });
  assert.equal((await database.query('select 1 as one')).rowCount, 1);
});
