import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type ChainClient, connectChain, readManifest } from '../../src/chain/index.ts';
import { openDatabase } from '../../src/data/index.ts';
import { readLedger } from '../../src/node/index.ts';
import { campaignSeed, rounds } from '../campaign.ts';
import { localNetwork } from './local-network.ts';

const KILLS = rounds(100);
const PARTS = ['chain', 'anvil', 'database', 'follower', 'node-1', 'node-2', 'node-3'];
const PUT_BYTES_MAX = 300_000;

const network = localNetwork();
const folder = join(network.home, 'data', 'dev');
after(() => network.remove());

/** A small generator (mulberry32), so that a printed seed gives the same kills again. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The process of a part now; undefined while it is being restarted. */
async function pidOf(part: string): Promise<number | undefined> {
  const status = await network.run('--json', 'up', '--detach');
  if (status.code !== 0) return undefined;
  const { processes } = JSON.parse(status.stdout) as { processes: { name: string; pid?: number; state: string }[] };
  const found = processes.find((each) => each.name === (part === 'anvil' ? 'chain' : part))?.pid;
  if (part !== 'anvil' || found === undefined) return found;
  const children = execFileSync('ps', ['-eo', 'pid=,ppid=,comm='], { encoding: 'utf8' });
  const lines = children.split('\n').map((line) => line.trim().split(/\s+/));
  const below = (pid: number): number[] =>
    lines.filter((line) => Number(line[1]) === pid).flatMap((line) => [Number(line[0]), ...below(Number(line[0]))]);
  return below(found).at(-1);
}

interface Stored {
  cid: string;
  sha256: string;
  deals: number;
}

/** Stores files one after another until told to stop; a command that a kill made fail is given again, as a person would. */
async function storeUntil(stopping: AbortSignal, stored: Stored[], random: (below: number) => number): Promise<void> {
  while (!stopping.aborted) {
    const file = join(network.home, `file-${stored.length}`);
    writeFileSync(file, randomBytes(1000 + random(PUT_BYTES_MAX)));
    for (let attempt = 1; ; attempt += 1) {
      const result = await network.run('--json', 'put', file, '--copies', '2');
      if (result.code === 0) {
        const { cid, deals } = JSON.parse(result.stdout) as { cid: string; deals: unknown[] };
        stored.push({ cid, sha256: createHash('sha256').update(readFileSync(file)).digest('hex'), deals: deals.length });
        break;
      }
      if (stopping.aborted && attempt > 8) return;
      await sleep(1000);
    }
  }
}

test(`after ${KILLS} random kill -9 under load nothing that was acknowledged is lost, and all sums are right`, {
  timeout: 5_400_000,
}, async (context) => {
  const random = randomFrom(campaignSeed());
  await network.json('up', '--detach');
  const stopping = new AbortController();
  const stored: Stored[] = [];
  const load = storeUntil(stopping.signal, stored, randomFrom(campaignSeed() + 1));
  const kills: Record<string, number> = {};
  for (let done = 0; done < KILLS; ) {
    await sleep(200 + random(4000));
    const part = PARTS[random(PARTS.length)] as string;
    const pid = await pidOf(part);
    if (pid === undefined) continue;
    try {
      process.kill(pid, 'SIGKILL');
      kills[part] = (kills[part] ?? 0) + 1;
      done += 1;
    } catch {
      // It was being restarted at this moment.
    }
  }
  stopping.abort();
  await load;
  const summary = await untilQuiet();
  assert.ok(stored.length > 0);
  for (const { cid, sha256 } of stored) {
    const copy = join(network.home, 'copy');
    await network.json('get', cid, '-o', copy);
    assert.equal(createHash('sha256').update(readFileSync(copy)).digest('hex'), sha256);
    execFileSync('rm', ['-f', copy]);
  }
  const warped = await network.json('dev', 'warp', '15m');
  assert.equal(warped.misses, 0, 'providers prove on after the kills');
  const sums = await checkInvariants();
  context.diagnostic(`kills ${JSON.stringify(kills)}, restarts ${summary}, files stored and got back ${stored.length}, ${sums}`);
});

async function untilQuiet(): Promise<string> {
  for (;;) {
    const { processes } = await network.json('up', '--detach');
    if (processes.every((part: { state: string }) => part.state === 'running')) {
      return JSON.stringify(Object.fromEntries(processes.map((part: { name: string; restarts: number }) => [part.name, part.restarts])));
    }
    await sleep(500);
  }
}

/** Vault and rails hold exactly what they owe, the supply is under its cap, no rail pays more than was paid in, the ledger is the chain. */
async function checkInvariants(): Promise<string> {
  const state = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')) as { rpcUrl: string; databaseUrl: string };
  const client = await connectChain({ rpcUrl: state.rpcUrl, manifest: readManifest(join(folder, 'network.json')) });
  const token = client.address('networkToken');
  const held = await client.read('networkToken', 'balanceOf', [client.address('stakeVault')]);
  assert.equal(held, await vaultObligations(client), 'the vault holds what it owes');
  const inRails = await client.read('networkToken', 'balanceOf', [client.address('rails')]);
  assert.equal(inRails, await client.read('rails', 'obligationsOf', [token]), 'the rails hold what they owe');
  const [supply, cap] = [await client.read('networkToken', 'totalSupply'), await client.read('networkToken', 'cap')];
  assert.ok(supply <= cap);
  const opened = await client.events({ name: 'rails', event: 'RailOpened' });
  for (const { args } of opened) {
    const rail = await client.read('rails', 'rail', [args.railId]);
    assert.ok(rail.paid + rail.refunded + rail.escrow <= args.escrow, `rail ${args.railId} gives no more than was paid in`);
  }
  const rows = await compareLedger(client, state.databaseUrl);
  return `${opened.length} rails, ${rows} ledger rows equal the chain's events`;
}

async function vaultObligations(client: ChainClient): Promise<bigint> {
  let owed = 0n;
  const operators = await client.read('operators', 'operatorCount');
  for (let operatorId = 1n; operatorId <= operators; operatorId += 1n) {
    const [active, exiting] = await client.read('stakeVault', 'ownStake', [operatorId]);
    const pool = await client.read('stakeVault', 'pool', [operatorId]);
    owed += active + exiting + pool.activeAssets + pool.exitingAssets;
  }
  const credited = new Set<`0x${string}`>();
  for (const { args } of await client.events({ name: 'storageMarket', event: 'DealOfClient' })) credited.add(args.client);
  for (let operatorId = 1n; operatorId <= operators; operatorId += 1n) {
    const { owner, nodeKey, beneficiary } = await client.read('operators', 'operator', [operatorId]);
    for (const account of [owner, nodeKey, beneficiary]) credited.add(account);
  }
  for (const account of credited) owed += await client.read('stakeVault', 'claimableOf', [account]);
  return owed;
}

async function compareLedger(client: ChainClient, databaseUrl: string): Promise<number> {
  const database = openDatabase(databaseUrl);
  try {
    const proven = await client.events({ name: 'possession', event: 'Proven' });
    const deals = await client.events({ name: 'storageMarket', event: 'DealOpened' });
    const settled = await client.events({ name: 'rails', event: 'RailSettled' });
    for (let attempt = 0; ; attempt += 1) {
      const rows = await readLedger(database, { limit: 1_000_000 });
      const keyOf = (row: { blockNumber: bigint; logIndex: number }) => `${row.blockNumber}/${row.logIndex}`;
      const known = new Set(rows.map(keyOf));
      assert.equal(known.size, rows.length, 'no row twice');
      const missing = [...proven, ...deals, ...settled].filter((event) => !known.has(keyOf(event)));
      if (missing.length === 0) return rows.length;
      assert.ok(attempt < 60, `${missing.length} events are missing in the ledger`);
      await sleep(500);
    }
  } finally {
    await database.close();
  }
}
