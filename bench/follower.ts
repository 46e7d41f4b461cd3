/**
 * The event follower over real events, a real chain and a real database: events per CPU-second of the follower's process (fetch, decode,
 * write; the target is 10,000), and the database's own processor time beside it. Two event shapes, each written as rows of a table.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Hex, toHex } from 'viem';
import { abis } from '../src/chain/contracts.generated.ts';
import { eventTopics } from '../src/chain/event-decoder.ts';
import { createFollower, followEvents } from '../src/chain/follower.ts';
import { followerMigrations, insertRows, trackTable } from '../src/chain/follower-tables.ts';
import { migrate, openDatabase, startPostgres } from '../src/data/index.ts';
import { silentLogger } from '../src/log.ts';
import { connectEmitters, emitCall, runOnAnvil, startBareAnvil } from '../test/bare-anvil.ts';
import { openTemporaryFolder } from '../test/database.ts';

const BLOCKS = 200;
const EVENTS_PER_BLOCK = 500;
const TICKS_PER_SECOND = 100;

/** Processor seconds of a process and all its present descendants. */
function familyCpuSeconds(folder: string): number {
  const pid = Number(readFileSync(join(folder, 'cluster', 'postmaster.pid'), 'utf8').split('\n')[0]);
  let ticks = 0;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(name) !== pid && Number(fields[1]) !== pid) continue;
      ticks += Number(fields[11]) + Number(fields[12]);
      if (Number(name) === pid) ticks += Number(fields[13]) + Number(fields[14]);
    } catch {
      // the process has gone
    }
  }
  return ticks / TICKS_PER_SECOND;
}

const folder = openTemporaryFolder('millrace-bench-follower-');
const postgres = await startPostgres({ folder });
const anvil = await startBareAnvil();
const database = openDatabase(postgres.url);
try {
  const client = await connectEmitters(anvil);
  await migrate(database, followerMigrations);
  const table = `create table deposit (block bigint, log_index integer, token text, account text, sender text, amount numeric, at bigint, primary key (block, log_index));`;
  await migrate(database, { module: 'bench', migrations: [{ number: 1, sql: table + trackTable('deposit', ['block', 'log_index']) }] });
  const columns = {
    block: 'bigint',
    log_index: 'integer',
    token: 'text',
    account: 'text',
    sender: 'text',
    amount: 'numeric',
    at: 'bigint',
  } as const;
  const deposits = followEvents(['rails.Deposited'], async (sql, events) => {
    const rows = events.map(({ blockNumber, logIndex, args, timestamp }) => [
      blockNumber,
      logIndex,
      args.token,
      args.account,
      args.from,
      args.amount,
      timestamp,
    ]);
    await insertRows(sql, { table: 'deposit', columns }, rows);
  });
  const [topic] = eventTopics(abis.rails, ['Deposited']) as [Hex];
  const emit = async (blocks: number, events: number) => {
    for (let block = 0; block < blocks; block += 1) {
      const account: Hex = `0x${(block % 64).toString(16).padStart(40, 'a')}`;
      await runOnAnvil(anvil, {
        to: client.address('rails'),
        data: emitCall(events, [topic, client.address('rails'), account], toHex(block)),
      });
    }
  };
  const measure = async (label: string, events: number, undoBlocks: number, name: string) => {
    const follower = createFollower({
      client,
      transaction: database.transaction,
      handlers: [deposits],
      name,
      log: silentLogger,
      undoBlocks,
    });
    const [cpu, databaseCpu, startMs] = [process.cpuUsage(), familyCpuSeconds(folder), performance.now()];
    await follower.sync();
    const used = process.cpuUsage(cpu);
    const seconds = (used.user + used.system) / 1e6;
    const databaseSeconds = familyCpuSeconds(folder) - databaseCpu;
    const wallSeconds = (performance.now() - startMs) / 1000;
    const { rows } = await database.query<{ n: bigint }>('select count(*) as n from deposit');
    if (Number(rows[0]?.n) !== events) throw new RangeError(`${rows[0]?.n} rows, expected ${events}`);
    process.stdout.write(
      `${label}: ${events} events, follower ${Math.round(events / seconds)} per CPU-second (${seconds.toFixed(2)} s), ` +
        `with the database ${Math.round(events / (seconds + databaseSeconds))} (+ ${databaseSeconds.toFixed(2)} s), ${wallSeconds.toFixed(2)} s wall\n`,
    );
    await database.query('truncate deposit, chain_undo, chain_blocks, chain_checkpoint');
  };
  await emit(BLOCKS, EVENTS_PER_BLOCK);
  await measure('warm-up, old blocks', BLOCKS * EVENTS_PER_BLOCK, 0, 'warm');
  await measure(`old blocks of ${EVENTS_PER_BLOCK}`, BLOCKS * EVENTS_PER_BLOCK, 0, 'old');
  await measure(`new blocks of ${EVENTS_PER_BLOCK}, each undoable`, BLOCKS * EVENTS_PER_BLOCK, 10_000, 'new');
} finally {
  await database.close();
  await anvil.stop();
  await postgres.stop();
}
