import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { abis } from '../../chain/index.ts';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode, TOKEN, until } from '../market/market-fixture.ts';
import { fetchFile } from '../orders/file-get.ts';
import { putFile } from '../orders/file-put.ts';
import { callFile, fileOfBid, type StoredFile } from '../orders/stored-files.ts';
import { shardStep } from './file-keeper.ts';
import { isWorthwhile } from './repairer.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
  repairs: { costPerGiB: TOKEN / 1000n, minPrice: 0n },
};

let market: TestMarket;
const nodes: TestNode[] = [];

before(async () => {
  market = await startTestMarket({ verbose: process.env.VERBOSE === '1' });
  for (let index = 0; index < 5; index += 1) nodes.push(await market.startNode({ policy: POLICY }));
  await until('all asks are posted', async () => (await market.client.read('orderBook', 'askCount')) >= 5n);
});
after(() => market.stop());

/** Stores a file over three operators, of whose shards any two give it back; one lost shard is a job. */
async function stored(periods = 40) {
  const bytes = randomBytes(300_000);
  const path = join(market.folder, `${randomBytes(6).toString('hex')}.bin`);
  await writeFile(path, bytes);
  const { signer, sender, folder } = market.user;
  const options = { client: market.client, signer, sender, folder, source: { path }, shape: { needed: 2, count: 3 }, public: true };
  const result = await market.hurry(putFile({ ...options, periods, wishes: { repairBelow: 3 } }));
  return { ...result, bytes };
}

const view = async (bidId: bigint) => (await fileOfBid(market.client, bidId)) as StoredFile;
const nodeOf = (operatorId: bigint | undefined) => nodes.find((node) => node.operatorId === operatorId) as TestNode;

/** Lets periods pass, each proven by whoever still runs, until something is so. */
async function passPeriods(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let count = 0; count < 14; count += 1) {
    if (await isSo()) return;
    const period = await market.nextPeriod(1);
    const proving = nodes.filter(({ provider }) => provider !== undefined).map(({ operatorId }) => operatorId);
    const alive = proving.filter((operatorId) => !stopped.has(operatorId));
    await market.provePeriod(period, alive);
  }
  await market.hurry(until(what, isSo));
}

const stopped = new Set<bigint>();

async function read(cid: string, name: string): Promise<Buffer> {
  const { client, folder } = market;
  const fetched = await fetchFile({ client, cid, carPath: join(folder, `${name}.car`) });
  assert.ok(fetched !== undefined);
  const output = join(folder, name);
  await retrieve({ cid, sources: fetched.sources, output: { path: output } });
  await fetched.close();
  return readFile(output);
}

test('a shard whose operator is gone is repaired by another one, who is paid, and the file is whole again', async () => {
  const { client } = market;
  const { bidId, cid, file, shards, bytes } = await stored();
  const lost = shards[0]?.operatorId as bigint;
  // one period is paid, so that there is something to compensate
  await market.provePeriod(
    await market.nextPeriod(1),
    shards.map(({ operatorId }) => operatorId),
  );
  await nodeOf(lost).stop();
  stopped.add(lost);
  await passPeriods('the shard is repaired', async () => {
    const { shards: now } = await view(bidId);
    return now[0]?.state === 'live' && now[0].operatorId !== lost && now[0].deal?.state === 'active';
  });
  const { shards: now, healthy } = await view(bidId);
  assert.equal(healthy, 3);
  const repairer = now[0]?.operatorId as bigint;
  assert.ok(!shards.some(({ operatorId }) => operatorId === repairer), 'the repairer held no shard of the file before');
  const log = await client.public.getContractEvents({ address: file, abi: abis.storageFile, fromBlock: 0n });
  const finished = log.find(({ eventName }) => eventName === 'RepairFinished');
  assert.ok(finished !== undefined && finished.eventName === 'RepairFinished' && (finished.args.bounty as bigint) > 0n);
  const slashed = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { operatorId: lost } });
  assert.ok(slashed.length > 0 && slashed.every(({ args }) => args.slashed > 0n));
  assert.ok(log.some(({ eventName }) => eventName === 'CompensationCollected'));
  assert.deepEqual(await read(cid, 'after-repair'), bytes);
  // never taken again for this file
  const abi = abis.storageFile;
  assert.equal(await client.public.readContract({ address: file, abi, functionName: 'hasFailed', args: [lost] }), true);
  await nodeOf(lost).restart();
  stopped.delete(lost);
});

test('a repairer that is killed after its claim goes on after its restart, and the loop goes on', async () => {
  const { client } = market;
  const { bidId, shards } = await stored();
  const lost = shards[1]?.operatorId as bigint;
  await nodeOf(lost).stop();
  stopped.add(lost);
  await passPeriods(
    'the shard is claimed',
    async () =>
      ['claimed', 'live'].includes((await view(bidId)).shards[1]?.state as string) && (await view(bidId)).shards[1]?.operatorId !== lost,
  );
  const { claimOperatorId } = (await view(bidId)).shards[1] as StoredFile['shards'][0];
  if (claimOperatorId !== 0n) await nodeOf(claimOperatorId).restart();
  await passPeriods('the shard is repaired', async () => {
    const shard = (await view(bidId)).shards[1];
    return shard?.state === 'live' && shard.operatorId !== lost;
  });
  assert.equal((await view(bidId)).healthy, 3);
  assert.equal((await client.read('orderBook', 'bidOfFile', [(await view(bidId)).file])) === bidId, true);
  await nodeOf(lost).restart();
  stopped.delete(lost);
});

test('what was never lost cannot be claimed, and a declared fault that is mended is not repaired', async () => {
  const { file, bidId } = await stored(30);
  const { sender } = nodes.find(({ operatorId }) => operatorId === 5n) as TestNode;
  const shard = (await view(bidId)).shards[0] as StoredFile['shards'][0];
  await assert.rejects(callFile(sender, { file, functionName: 'noteLoss', args: [0] }), { code: 'not-lost' });
  await assert.rejects(callFile(sender, { file, functionName: 'claimRepair', args: [0, shard.cid, `0x${'00'.repeat(32)}`] }), {
    code: /wrong-shard-state|enough-healthy|operator-refused/,
  });
});

test('a shard is kept by its state alone', () => {
  const deal = (state: string) => ({ state: 'live' as const, deal: { state } as never });
  for (const state of ['open', 'active', 'faulty']) assert.equal(shardStep(deal(state), undefined), undefined);
  for (const state of ['terminated', 'expired']) assert.equal(shardStep(deal(state), undefined), 'noteLoss');
  const claimed = { state: 'claimed' as const, deal: undefined };
  assert.equal(shardStep(claimed, 'open'), undefined);
  assert.equal(shardStep(claimed, 'active'), 'finishRepair');
  assert.equal(shardStep(claimed, 'expired'), 'failClaim');
});

test('a job is taken only when the bounty covers the work and what the price falls short of the own one', () => {
  const amount = fc.bigInt({ min: 0n, max: 10n ** 24n });
  fc.assert(
    fc.property(
      amount,
      amount,
      amount,
      fc.bigInt({ min: 1n, max: 1n << 40n }),
      fc.integer({ min: 1, max: 1000 }),
      (bounty, price, own, size, periods) => {
        const job = { shard: 0, periods, pricePerPeriod: price, bounty };
        const policy = { costPerGiB: own, minPrice: own };
        if (!isWorthwhile(job, size, policy)) return;
        const cost = (own * size) / (1n << 30n);
        assert.ok(bounty + price * BigInt(periods) >= cost + (price < cost ? cost * BigInt(periods) : 0n));
      },
    ),
  );
});
