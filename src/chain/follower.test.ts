import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type Address, getAddress, type Hex, toHex } from 'viem';
import { type BareAnvil, connectEmitters, emitCall, runOnAnvil, startBareAnvil } from '../../test/bare-anvil.ts';
import { freshDatabase } from '../../test/database.ts';
import { ledger } from '../../test/follower-child.ts';
import { type Database, migrate, openDatabase } from '../data/index.ts';
import { silentLogger } from '../log.ts';
import type { ChainClient } from './client.ts';
import { abis } from './contracts.generated.ts';
import { eventTopics } from './event-decoder.ts';
import { createFollower, type FollowerOptions, readFollowerPosition } from './follower.ts';
import { followerMigrations, insertRows, trackTable } from './follower-tables.ts';
import { writeManifest } from './manifest.ts';

const [DEPOSITED] = eventTopics(abis.rails, ['Deposited']) as [Hex];
const ANN = getAddress('0x00000000000000000000000000000000000000a1');
const BOB = getAddress('0x00000000000000000000000000000000000000b2');
const LEDGER = `
create table ledger_entry (block bigint, log_index integer, account text not null, amount numeric not null, at bigint not null, primary key (block, log_index));
create table ledger_total (account text primary key, total numeric not null);
${trackTable('ledger_entry', ['block', 'log_index'])}${trackTable('ledger_total', ['account'])}`;

let anvil: BareAnvil;
let client: ChainClient;
// Here and not in a hook: the server would end with the hook.
const { url } = await freshDatabase();
const database: Database = openDatabase(url);
before(async () => {
  anvil = await startBareAnvil();
  client = await connectEmitters(anvil);
  await migrate(database, followerMigrations);
  await migrate(database, { module: 'ledger', migrations: [{ number: 1, sql: LEDGER }] });
});
beforeEach(() => database.query('truncate chain_checkpoint, chain_blocks, chain_undo, ledger_entry, ledger_total'));
after(async () => {
  await database.close();
  await anvil.stop();
});

function follow(more: Partial<FollowerOptions> = {}) {
  return createFollower({ client, transaction: database.transaction, handlers: [ledger], name: 'test', log: silentLogger, ...more });
}

/** One block with deposits of count - 1, count - 2, … 0 to an account. */
async function pay(account: Address, count: number, chain = client, on = anvil): Promise<void> {
  await runOnAnvil(on, { to: chain.address('rails'), data: emitCall(count, [DEPOSITED, ANN, account], toHex(7)) });
}

async function totals(): Promise<Record<string, bigint>> {
  const { rows } = await database.query<{ account: string; total: bigint }>('select account, total from ledger_total');
  return Object.fromEntries(rows.map(({ account, total }) => [account, total]));
}

/** What the tables must hold: read from the chain by another road. */
async function expectedTotals(from = client): Promise<Record<string, bigint>> {
  const sums: Record<string, bigint> = {};
  for (const { args } of await from.events({ name: 'rails', event: 'Deposited' }))
    sums[args.account] = (sums[args.account] ?? 0n) + args.amount;
  return sums;
}

test('old and new blocks arrive once and in order, with their time, and the checkpoint with them', async () => {
  for (const count of [3, 1, 4]) await pay(ANN, count);
  await anvil.rpc('anvil_mine', [toHex(40), '0xc']);
  await pay(BOB, 5);
  const seen: string[] = [];
  const order = {
    events: ledger.events,
    apply: async (_: unknown, events: readonly { blockNumber: bigint; logIndex: number }[]) => {
      for (const { blockNumber, logIndex } of events)
        seen.push(`${String(blockNumber).padStart(9, '0')}.${String(logIndex).padStart(6, '0')}`);
    },
  } as FollowerOptions['handlers'][number];
  const follower = follow({ undoBlocks: 10, handlers: [ledger, order] });
  const position = await follower.sync();
  assert.equal(position.number, await anvil.public.getBlockNumber({ cacheTime: 0 }));
  assert.deepEqual(await readFollowerPosition(database, 'test'), position);
  assert.deepEqual(await totals(), await expectedTotals());
  assert.equal(seen.length, 13);
  assert.deepEqual(seen, [...seen].sort());
  const { rows } = await database.query<{ at: bigint }>('select distinct at from ledger_entry where block = $1', [position.number]);
  assert.equal(rows[0]?.at, (await anvil.public.getBlock()).timestamp);
  await pay(ANN, 2);
  await follower.sync();
  assert.deepEqual(await totals(), await expectedTotals());
});

test('a reorganised block is undone, also one that paid somebody, and what replaces it counts', async () => {
  await pay(ANN, 3);
  const follower = follow();
  await follower.sync();
  const before = await totals();
  const entries = async () => (await database.query('select * from ledger_entry order by block, log_index')).rows;
  const entriesBefore = await entries();
  await pay(ANN, 10);
  await pay(BOB, 4);
  await follower.sync();
  assert.notDeepEqual(await totals(), before);
  const at = follower.position();
  await anvil.rpc('anvil_reorg', [2, []]);
  await follower.sync();
  assert.equal(follower.position()?.number, at?.number);
  assert.notEqual(follower.position()?.hash, at?.hash);
  assert.deepEqual(await totals(), before);
  assert.deepEqual(await entries(), entriesBefore);
  await pay(BOB, 6);
  await follower.sync();
  assert.deepEqual(await totals(), await expectedTotals());
});

test('random payments and reorganisations always end in what the chain says', async () => {
  const follower = follow({ undoBlocks: 20 });
  const steps = fc.array(
    fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 1, max: 5 }) }, { weight: 1, arbitrary: fc.integer({ min: -4, max: -1 }) }),
    { minLength: 3, maxLength: 8 },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (actions) => {
      for (const action of actions) {
        if (action > 0) await pay(action % 2 === 0 ? ANN : BOB, action);
        else await anvil.rpc('anvil_reorg', [-action, []]);
        if (Math.abs(action) % 2 === 1) await follower.sync();
      }
      await follower.sync();
      assert.deepEqual(await totals(), await expectedTotals());
    }),
    { numRuns: 12 },
  );
});

test('a handler that fails leaves nothing of its block behind', async () => {
  const follower = follow();
  const at = await follower.sync();
  await pay(ANN, 3);
  const before = await totals();
  const failing = follow({
    handlers: [ledger, { events: ledger.events, apply: () => Promise.reject(new TypeError('handler')) }],
  });
  await assert.rejects(failing.sync(), { message: /handler/ });
  assert.deepEqual(await totals(), before);
  assert.deepEqual(await readFollowerPosition(database, 'test'), at);
  await follower.sync();
  assert.deepEqual(await totals(), await expectedTotals());
});

test('updates and deletions of a tracked row are undone to what the row was', async () => {
  const follower = follow({
    handlers: [
      {
        events: ledger.events,
        async apply(sql, events) {
          for (const event of events) {
            const { account, amount } = event.args as unknown as { account: string; amount: bigint };
            if (amount === 0n) await sql.query('delete from ledger_total where account = $1', [account]);
            else
              await sql.query('insert into ledger_total values ($1, $2) on conflict (account) do update set total = excluded.total', [
                account,
                amount,
              ]);
          }
        },
      },
    ],
  });
  await follower.sync();
  await database.query("insert into ledger_total values ($1, 41), ('untouched', 12345678901234567890)", [BOB]);
  await pay(BOB, 4);
  await follower.sync();
  assert.equal((await totals())[BOB], undefined);
  await anvil.rpc('anvil_reorg', [1, []]);
  await follower.sync();
  assert.equal((await totals())[BOB], 41n);
  assert.equal((await totals()).untouched, 12345678901234567890n);
});

test('a reorganisation deeper than the records is refused, never half undone', async () => {
  const own = await startBareAnvil();
  try {
    const ownClient = await connectEmitters(own);
    const follower = follow({ client: ownClient, undoBlocks: 2 });
    for (const count of [1, 2, 3, 4, 5, 6]) await pay(ANN, count, ownClient, own);
    const at = await follower.sync();
    const before = await totals();
    await own.rpc('anvil_reorg', [5, []]);
    await assert.rejects(follower.sync(), { code: 'reorg-too-deep' });
    assert.deepEqual(await totals(), before);
    assert.deepEqual(await readFollowerPosition(database, 'test'), at);
  } finally {
    await own.stop();
  }
});

test('the database of another network is refused, and a second follower of the same name is noticed', async () => {
  await follow().sync();
  const own = await startBareAnvil();
  try {
    await assert.rejects(follow({ client: await connectEmitters(own) }).sync(), { code: 'wrong-network' });
  } finally {
    await own.stop();
  }
  const [first, second] = [follow(), follow()];
  await Promise.all([first.sync(), second.sync()]);
  await pay(ANN, 2);
  await first.sync();
  await assert.rejects(second.sync(), { code: 'follower-moved' });
  await second.sync();
  assert.deepEqual(await totals(), await expectedTotals());
});

test('a chain that is down is waited for', async () => {
  const codes: string[] = [];
  const stop = new AbortController();
  const log = {
    ...silentLogger,
    warn: (_: string, fields?: object) => {
      codes.push(String((fields as { code: string }).code));
      stop.abort();
    },
  };
  const own = await startBareAnvil();
  const ownClient = await connectEmitters(own);
  await own.stop();
  await follow({ client: ownClient, log }).run(stop.signal);
  assert.deepEqual(codes, ['chain-unreachable']);
});

test('a follower that is killed again and again applies each event exactly once', async () => {
  const manifestPath = join(mkdtempSync(join(tmpdir(), 'millrace-follower-')), 'network.json');
  writeManifest(manifestPath, client.manifest);
  const program = fileURLToPath(new URL('../../test/follower-child.ts', import.meta.url));
  let child: ChildProcess | undefined;
  for (let round = 0; round < 5; round += 1) {
    child = spawn(process.execPath, [program, anvil.rpcUrl, manifestPath, url], { stdio: ['ignore', 'ignore', 'inherit'] });
    const from = (await readFollowerPosition(database, 'child'))?.number ?? 0n;
    for (let count = 0; count < 15; count += 1) await pay(count % 2 === 0 ? ANN : BOB, 1 + count);
    while (((await readFollowerPosition(database, 'child'))?.number ?? 0n) < from + 3n) await pay(ANN, 2);
    child.kill('SIGKILL');
    await new Promise((resolve) => child?.once('exit', resolve));
    if (round === 2) await anvil.rpc('anvil_reorg', [2, []]);
  }
  await follow({ name: 'child' }).sync();
  assert.deepEqual(await totals(), await expectedTotals());
});

test('rows of any text survive the bulk insert', async () => {
  await database.query('create table sample (id integer primary key, t text, n numeric, b bytea, f boolean)');
  let id = 0;
  const values = fc.tuple(fc.option(fc.string({ unit: 'binary' })), fc.bigInt(), fc.uint8Array({ maxLength: 40 }), fc.boolean());
  await fc.assert(
    fc.asyncProperty(fc.array(values, { minLength: 1, maxLength: 20 }), async (samples) => {
      const first = id + 1;
      const rows = samples.map(([text, number, bytes, flag]) => [++id, text, number, toHex(bytes), flag]);
      const columns = { id: 'integer', t: 'text', n: 'numeric', b: 'bytea', f: 'boolean' } as const;
      await insertRows(database, { table: 'sample', columns }, rows);
      const found = await database.query<{ t: string | null; n: bigint; b: Buffer; f: boolean }>(
        'select * from sample where id >= $1 order by id',
        [first],
      );
      samples.forEach(([text, number, bytes, flag], index) => {
        const row = found.rows[index];
        assert.equal(row?.t, text === null ? null : text.replaceAll('\0', '').toWellFormed());
        assert.equal(row?.n, number);
        assert.deepEqual(new Uint8Array(row?.b ?? []), bytes);
        assert.equal(row?.f, flag);
      });
    }),
  );
});

test('a handler of a module that the network does not have is refused at once', async () => {
  assert.throws(() => follow({ handlers: [{ events: ['governor.ProposalCreated'], apply: async () => {} }] }), {
    code: 'unknown-module',
  });
});
