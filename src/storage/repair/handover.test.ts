import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode, TOKEN, until } from '../market/market-fixture.ts';
import { fetchFile } from '../orders/file-get.ts';
import { putFile } from '../orders/file-put.ts';
import { fileOfBid, type StoredFile } from '../orders/stored-files.ts';
import { handoverOf, leaveVerdict } from './handover.ts';
import { openJobsOf } from './repairer.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
  repairs: { costPerGiB: TOKEN / 1000n, minPrice: 0n },
};

let market: TestMarket;
const nodes: TestNode[] = [];
/** By operator: the whole pieces that were asked of it. */
const piecesAsked = new Map<bigint, string[]>();

before(async () => {
  market = await startTestMarket({ verbose: process.env.VERBOSE === '1' });
  for (let index = 0; index < 4; index += 1) {
    const asked: string[] = [];
    const intercept = (request: Request) => {
      const { pathname } = new URL(request.url);
      if (pathname.startsWith('/piece/')) asked.push(pathname);
      return undefined;
    };
    const node = await market.startNode({ policy: POLICY, intercept });
    piecesAsked.set(node.operatorId, asked);
    nodes.push(node);
  }
  await until('all asks are posted', async () => (await market.client.read('orderBook', 'askCount')) >= 4n);
});
after(() => market.stop());

const view = async (bidId: bigint) => (await fileOfBid(market.client, bidId)) as StoredFile;
const nodeOf = (operatorId: bigint | undefined) => nodes.find((node) => node.operatorId === operatorId) as TestNode;

/** The operator that holds no shard of a file, started again without room for one. */
async function withoutRoom({ shards }: StoredFile): Promise<TestNode> {
  const spare = nodes.find(({ operatorId }) => !shards.some((shard) => shard.operatorId === operatorId)) as TestNode;
  await spare.restart({ policy: { ...POLICY, quotaBytes: 100_000n } });
  return spare;
}

/** A file over three of the four operators, of whose shards any two give it back; one lost shard is a job. */
async function stored() {
  const bytes = randomBytes(300_000);
  const path = join(market.folder, `${randomBytes(6).toString('hex')}.bin`);
  await writeFile(path, bytes);
  const { signer, sender, folder } = market.user;
  const options = { client: market.client, signer, sender, folder, source: { path }, shape: { needed: 2, count: 3 }, public: true };
  const result = await market.hurry(putFile({ ...options, periods: 40, wishes: { repairBelow: 3 } }));
  return { ...result, bytes };
}

/** Lets periods pass, each proven by all, until something is so. */
async function passPeriods(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let count = 0; count < 8 && !(await isSo()); count += 1) {
    const period = await market.nextPeriod(1);
    const ids = nodes.map(({ operatorId }) => operatorId);
    await market.provePeriod(period, ids);
  }
  await market.hurry(until(what, isSo));
}

async function assertReadable({ cid, bytes }: { cid: string; bytes: Buffer }): Promise<void> {
  const { client, folder } = market;
  const name = randomBytes(6).toString('hex');
  const fetched = await fetchFile({ client, cid, carPath: join(folder, `${name}.car`) });
  assert.ok(fetched !== undefined);
  await retrieve({ cid, sources: fetched.sources, output: { path: join(folder, name) } });
  await fetched.close();
  assert.deepEqual(await readFile(join(folder, name)), bytes);
}

test('a leaving operator serves its shard until another has proven it, loses the leave fee only, and the file is whole again', async () => {
  const { client } = market;
  const file = await stored();
  await market.provePeriod(
    await market.nextPeriod(1),
    file.shards.map(({ operatorId }) => operatorId),
  );
  const before = await view(file.bidId);
  const shard = before.shards[0] as StoredFile['shards'][0];
  const [leaver, other] = [nodeOf(shard.operatorId), nodeOf(before.shards[1]?.operatorId)];
  const spare = await withoutRoom(before);

  const report = await market.hurry(leaver.provider.leave());
  assert.deepEqual(report.dealsLeft, [shard.dealId]);
  assert.deepEqual(report.handovers, [{ dealId: shard.dealId, bidId: file.bidId, shard: 0, state: 'offered', claimOperatorId: 0n }]);
  // Nobody else leaves the same file before it is whole again.
  const second = await market.hurry(other.provider.leave());
  assert.deepEqual([second.dealsLeft, second.waiting], [[], [before.shards[1]?.dealId]]);
  other.provider.resume();
  assert.equal((await view(file.bidId)).healthy, 2);
  await assertReadable(file);
  await spare.restart({ policy: POLICY });

  // A leaver that is started again goes on where it was.
  await leaver.restart();
  leaver.provider.drain();
  assert.ok(leaver.provider.store.piece(shard.pieceRoot) !== undefined);
  await passPeriods('the shard is proven by another operator', async () => {
    await assertReadable(file);
    const now = (await view(file.bidId)).shards[0];
    return now?.state === 'live' && now.operatorId !== shard.operatorId && now.deal?.state === 'active';
  });
  const healed = await view(file.bidId);
  assert.equal(healed.healthy, 3);
  assert.equal((await view(file.bidId)).shards[0]?.pieceRoot, shard.pieceRoot);
  assert.ok((piecesAsked.get(leaver.operatorId) as string[]).length > 0, 'the repairer fetched the shard from its last holder');
  await passPeriods('the leaver has dropped the piece', async () => leaver.provider.store.piece(shard.pieceRoot) === undefined);
  const last = await market.hurry(leaver.provider.leave());
  assert.deepEqual(last, { dealsLeft: [], handovers: [], waiting: [], staying: [] });
  await assertReadable(file);

  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId: shard.dealId } });
  const { leaveFeeBps } = await client.read('storageMarket', 'config');
  const collateral = shard.deal?.collateral as bigint;
  assert.equal(ended?.args.slashed, (collateral * BigInt(leaveFeeBps)) / 10_000n);
  const standing = await client.read('storageMarket', 'deal', [shard.dealId]);
  assert.equal(standing.locked, 0n);
});

test('a shard is taken by nobody who has no room for it, and by the same operator once it has', async () => {
  const file = await stored();
  const stands = await view(file.bidId);
  const { shards } = stands;
  const spare = await withoutRoom(stands);
  const leaver = nodeOf(shards[1]?.operatorId);
  const report = await market.hurry(leaver.provider.leave());
  assert.ok(report.dealsLeft.includes(shards[1]?.dealId as bigint));
  for (let count = 0; count < 3; count += 1) {
    const period = await market.nextPeriod(1);
    const proving = nodes.map(({ operatorId }) => operatorId);
    await market.provePeriod(period, proving);
  }
  const offered = await openJobsOf(market.client, await view(file.bidId));
  assert.deepEqual(
    offered.map(({ shard }) => shard),
    [1],
  );
  await spare.restart({ policy: POLICY });
  await passPeriods('the shard is proven by the operator that has room now', async () => {
    const shard = (await view(file.bidId)).shards[1];
    return shard?.state === 'live' && shard.operatorId === spare.operatorId && shard.deal?.state === 'active';
  });
  await assertReadable(file);
});

const health = fc
  .record({ needed: fc.integer({ min: 1, max: 20 }), more: fc.integer({ min: 0, max: 10 }), lost: fc.integer({ min: 0, max: 10 }) })
  .chain(({ needed, more, lost }) =>
    fc.record({
      needed: fc.constant(needed),
      healthy: fc.constant(Math.max(0, needed + more - lost)),
      repairBelow: more === 0 ? fc.constant(0) : fc.oneof(fc.constant(0), fc.integer({ min: needed + 1, max: needed + more })),
      shards: fc.array(fc.record({ state: fc.constantFrom('live' as const, 'lost' as const, 'claimed' as const) }), { maxLength: 30 }),
    }),
  );

test('whatever a file’s health, nobody leaves it unreadable, nor while it is below its owner’s threshold', () => {
  fc.assert(
    fc.property(health, (file) => {
      if (leaveVerdict(file) !== 'now') return;
      assert.ok(file.healthy > file.needed);
      assert.ok(file.repairBelow === 0 || file.healthy >= file.repairBelow);
    }),
  );
});

test('a handover ends with the shard’s next proof, with the file, and where nobody is paid to take it', () => {
  const shard = { index: 0, state: 'lost' as const, dealId: 7n, claimOperatorId: 0n };
  const file = { bidId: 1n, healthy: 2, repairBelow: 3, shards: [shard] };
  const at = { period: 10n, lastStart: 12n };
  assert.equal(handoverOf(file, 7n, at)?.state, 'offered');
  assert.equal(handoverOf(file, 7n, { ...at, period: 13n }), undefined);
  assert.equal(handoverOf({ ...file, repairBelow: 2 }, 7n, at), undefined);
  assert.equal(handoverOf({ ...file, shards: [{ ...shard, state: 'ended' as const }] }, 7n, at), undefined);
  assert.equal(handoverOf({ ...file, shards: [{ ...shard, state: 'live' as const, dealId: 8n }] }, 7n, at), undefined);
  const claimed = { ...shard, state: 'claimed' as const, claimOperatorId: 4n };
  assert.equal(handoverOf({ ...file, shards: [claimed] }, 7n, { ...at, period: 13n })?.claimOperatorId, 4n);
});
