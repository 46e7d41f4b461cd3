import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { rounds } from '../campaign.ts';
import { localNetwork } from './local-network.ts';
import { person } from './person.ts';

/** In full: 14 shards, any 10 are enough, and four operators are lost at once; else the same story with less. */
const FULL = rounds(10) === 10;
const SHAPE = FULL
  ? { durability: '10+4', needed: 10, count: 14, lost: 4, nodes: 18 }
  : { durability: '3+2', needed: 3, count: 5, lost: 2, nodes: 7 };
const PERIODS_MAX = 16;

type Shard = { shard: number; cid: string; state: string; deal: string; dealId: string; operatorId: string };
type FileView = { healthy: number; jobs: number; shards: Shard[]; compensation: string; repairs: { bounty: string }[] };

const root = mkdtempSync(join(tmpdir(), 'millrace-open-market-'));
const network = localNetwork();
const owner = person(root, 'owner');
const laptop = person(root, 'laptop');
const bytes = randomBytes(FULL ? 20 << 20 : 3 << 20);
const source = join(root, 'film.bin');
let rpcUrl = '';
let cid = '';
let first: FileView;

const view = async (): Promise<FileView> => (await owner.json('file', cid)).items[0];
const manifest = () => join(network.home, 'data', 'dev', 'network.json');

before(async () => {
  writeFileSync(source, bytes);
  ({ rpcUrl } = await network.json('up', '--detach', '--nodes', String(SHAPE.nodes)));
  await owner.json('--rpc-url', rpcUrl, 'join', manifest());
  const { address } = await owner.json('wallet', 'create');
  await network.json('wallet', 'send', address, '1', '--gas');
  await network.json('wallet', 'send', address, '500');
});
after(async () => {
  await network.remove();
  rmSync(root, { recursive: true, force: true });
});

test('a file goes through the order book to operators that all differ, at one public price', async () => {
  const stored = await owner.json('put', source, '--durability', SHAPE.durability, '--periods', '60');
  cid = stored.cid;
  assert.equal(stored.failed.length, 0);
  assert.equal(stored.shards.length, SHAPE.count);
  assert.equal(new Set(stored.shards.map(({ operatorId }: Shard) => operatorId)).size, SHAPE.count);
  first = await view();
  assert.equal(first.healthy, SHAPE.count);
  assert.ok(first.shards.every(({ deal }) => deal === 'active'));
  const { prices } = await owner.json('market');
  assert.equal(prices.at(-1).price, stored.price);
});

test('operators are lost at once; others repair, are paid, and the file can be read all the time', async () => {
  await network.json('dev', 'warp', '10m');
  const victims = first.shards.slice(0, SHAPE.lost);
  for (const victim of victims) await losePieces(victim);
  const repaired = (now: FileView) =>
    now.healthy === SHAPE.count &&
    victims.every(({ shard, operatorId }) => now.shards[shard]?.operatorId !== operatorId && now.shards[shard]?.deal === 'active');
  const read = async (copy: string) => {
    await owner.json('get', cid, '-o', join(root, copy));
    assert.ok(readFileSync(join(root, copy)).equals(bytes));
  };
  await read('lost.bin');
  let isReadDuring = false;
  let now = await view();
  for (let periods = 0; periods < PERIODS_MAX && !repaired(now); periods += 1) {
    await network.json('dev', 'warp', '5m');
    now = await view();
    // a repair that is over before anybody looks is not missed: the read above was while four were lost
    if (!isReadDuring && now.healthy < SHAPE.count) {
      await read('during.bin');
      isReadDuring = true;
    }
    // the repairers look every few seconds of their own time
    for (let looks = 0; looks < 20 && now.jobs > 0; looks += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      now = await view();
    }
  }
  assert.ok(repaired(now), `still ${now.healthy} healthy: ${JSON.stringify(now.shards)}`);
  const before = new Set(first.shards.map(({ operatorId }) => operatorId));
  assert.ok(
    victims.every(({ shard }) => !before.has(now.shards[shard]?.operatorId as string)),
    'each repairer is new to the file',
  );
  assert.equal(new Set(now.shards.map(({ operatorId }) => operatorId)).size, SHAPE.count);
  await read('after.bin');
});

test('those who lost it are slashed, the owner is compensated, and repairers have their bounties', async () => {
  const victims = first.shards.slice(0, SHAPE.lost);
  const rows = async (deal: string) => (await network.json('ledger', '--deal', deal)).items as { kind: string; amount?: string }[];
  for (const { dealId } of victims) {
    const ended = (await rows(dealId)).find(({ kind }) => kind === 'deal-terminated');
    assert.ok(BigInt(ended?.amount ?? 0) > 0n, `deal ${dealId} was slashed`);
  }
  const now = await view();
  assert.ok(BigInt(now.compensation) > 0n);
  assert.ok(now.repairs.length >= SHAPE.lost);
  assert.ok(now.repairs.every(({ bounty }) => BigInt(bounty) > 0n));
  assert.equal((await network.json('audit')).clean, true);
});

test('the owner’s laptop is lost: the keystore and the CID bring the file back on another one', async () => {
  const keystore = join(root, 'keystore.json');
  await owner.json('wallet', 'export', keystore);
  rmSync(owner.home, { recursive: true });
  await laptop.json('--rpc-url', rpcUrl, 'join', manifest());
  await laptop.with({ MILLRACE_PASSWORD_FILE: join(root, 'owner.password') }).json('wallet', 'import', keystore);
  await laptop.with({ MILLRACE_PASSWORD_FILE: join(root, 'owner.password') }).json('get', cid, '-o', join(root, 'back.bin'));
  assert.ok(readFileSync(join(root, 'back.bin')).equals(bytes));
});

/** Empties the files of all pieces of an operator while it runs, as a disk that dies does. */
async function losePieces({ operatorId, dealId }: Shard): Promise<void> {
  const { nodes } = await network.json('status');
  const index = nodes.find((node: { operatorId: string }) => node.operatorId === operatorId).index;
  const [{ pieceRoot }] = (await network.json('deals', '--all')).items.filter((deal: { dealId: string }) => deal.dealId === dealId);
  const base = join(network.home, 'data', 'dev', 'nodes', String(index), 'storage', 'store', 'pieces', pieceRoot);
  assert.ok(existsSync(`${base}.car`), base);
  for (const suffix of ['car', 'tree', 'index']) {
    truncateSync(`${base}.${suffix}`);
    rmSync(`${base}.${suffix}`);
  }
}
