import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { developmentSigner } from '../../chain/index.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, TOKEN, until } from '../market/market-fixture.ts';
import { putFile } from './file-put.ts';
import { startWatcher } from './lone-duties.ts';
import { fileOfBid } from './stored-files.ts';
import { challengeOdds } from './watcher.ts';

const orders = { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 };

let market: TestMarket;

before(async () => {
  market = await startTestMarket();
  for (let index = 0; index < 2; index += 1) await market.startNode({ policy: { ...TEST_POLICY, orders } });
  await until('the asks are posted', async () => (await market.client.read('orderBook', 'askCount')) === 2n);
});
after(() => market.stop());

test('the agent of a file acknowledges for a silent owner, and challenges out of the budget', async () => {
  const { client, faucet, folder, user } = market;
  const agent = developmentSigner(38, 'dev');
  await faucet.send({ to: agent.address, value: TOKEN });
  const sender = market.senderOf(agent);
  const watcher = startWatcher({ client, signer: agent, sender, log: market.log, everyMs: 300 });
  const path = join(folder, 'watched.bin');
  await writeFile(path, randomBytes(200_000));
  const silence = new AbortController();
  let bidId = 0n;
  const stored = new Set<number>();
  const put = putFile({
    client,
    ...user,
    source: { path },
    shape: { needed: 1, count: 2 },
    periods: 20,
    public: true,
    // Enough for more than one challenge in each period.
    wishes: { agent: agent.address, challengeBudget: TOKEN },
    signal: silence.signal,
    onEvent(event) {
      if (event.kind === 'filled') bidId = event.bidId;
      if (event.kind !== 'shard' || event.step !== 'stored') return;
      stored.add(event.shard);
      if (stored.size === 2) silence.abort();
    },
  });
  await market.hurry(put).catch(() => {});
  try {
    await market.hurry(until('both shards are proven', async () => (await fileOfBid(client, bidId))?.proven === 2));
    const challenged = () => client.events({ name: 'storageMarket', event: 'Challenged' });
    const answered = () => client.events({ name: 'storageMarket', event: 'ChallengeAnswered' });
    await market.hurry(until('a shard is challenged', async () => (await challenged()).length > 0));
    await market.hurry(until('the provider answers', async () => (await answered()).length > 0));
    assert.ok(((await fileOfBid(client, bidId))?.challengeBudget ?? TOKEN) < TOKEN);
  } finally {
    await watcher.stop();
    sender.close();
  }
});

test('the budget lasts to the end of the file on average, whatever its size', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 1000n }),
      fc.bigInt({ min: 1n, max: 50n }),
      fc.bigInt({ min: 1n, max: 5000n }),
      (budget, bond, periodsLeft) => {
        const { affordable, oneIn } = challengeOdds({ budget, bond, periodsLeft });
        const expected = Number(periodsLeft) / oneIn;
        assert.ok(expected <= Number(affordable) + 1e-9);
        if (affordable <= periodsLeft) assert.ok(Math.abs(expected - Number(affordable)) < 1e-6);
      },
    ),
  );
});
