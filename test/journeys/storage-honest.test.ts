import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { readDeal } from '../../src/storage/market/chain-view.ts';
import { settleDeal } from '../../src/storage/market/deals.ts';
import { startTestMarket, type TestMarket } from '../../src/storage/market/market-fixture.ts';
import { campaignSeed } from '../campaign.ts';
import { killProviders, type ProviderProcess, startProviderProcess } from './storage-market.ts';

/** Less than a tenth of the campaign: a period costs two CPU-seconds, and the gate is short of time. */
const PERIODS = process.env.MILLRACE_FULL === '1' ? 500 : 20;

let market: TestMarket;
const providers: ProviderProcess[] = [];
before(async () => {
  market = await startTestMarket();
  for (let index = 1; index <= 3; index += 1) providers.push(await startProviderProcess(market, index));
});
after(async () => {
  await killProviders();
  await market?.stop();
});

/** The next number below `limit` of a reproducible sequence (mulberry32). */
function randomSource(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

test(`in ${PERIODS} honest periods with killed and restarted providers nobody is punished, and every proven period is paid`, {
  timeout: 3_600_000,
}, async (t) => {
  const { client, user } = market;
  const below = randomSource(campaignSeed());
  const stored = [
    ...(await market.putMany(6, { copies: 2, periods: 2000 })),
    ...(await market.putMany(1, { copies: 3, periods: 2000, sizeBytes: 2_000_000 })),
  ];
  const dealIds = stored.flatMap(({ deals }) => deals.map(({ dealId }) => dealId));
  const operatorIds = providers.map(({ operatorId }) => operatorId);
  const first = await client.read('possession', 'periodAt', [await client.now()]);
  await market.provePeriod(first, operatorIds);
  let kills = 0;
  for (let round = 0; round < PERIODS; round += 1) {
    const period = await market.nextPeriod(1);
    const victim = providers[below(providers.length)] as ProviderProcess;
    const isKilled = below(5) === 0;
    const isMidWindow = below(2) === 0;
    if (isKilled && !isMidWindow) await victim.kill();
    await market.warpTo((await client.read('possession', 'seedTime', [period])) + 1n);
    if (isKilled && isMidWindow) await victim.kill();
    if (isKilled) {
      await victim.start();
      kills += 1;
    }
    await market.provePeriod(period, operatorIds);
  }
  await market.nextPeriod(1);
  for (const operatorId of operatorIds) {
    assert.deepEqual(await client.events({ name: 'possession', event: 'Missed', args: { operatorId } }), []);
  }
  for (const event of ['FaultFee', 'FaultDeclared', 'DealTerminated'] as const) {
    assert.deepEqual(await client.events({ name: 'storageMarket', event }), []);
  }
  const { period: seconds } = await client.read('possession', 'config');
  for (const dealId of dealIds) {
    const deal = await readDeal(client, dealId);
    assert.equal(deal.locked, deal.collateral);
    const account = await settleDeal({ client, sender: user.sender, dealId });
    const now = await client.read('possession', 'periodAt', [await client.now()]);
    assert.equal(account.provenSeconds, (now - account.firstPeriod) * BigInt(seconds));
    assert.equal(account.paid, account.pricePerPeriod * (now - account.firstPeriod));
    assert.equal(account.refunded, 0n);
  }
  t.diagnostic(`${PERIODS} periods, ${dealIds.length} deals at ${providers.length} providers, ${kills} kills: no miss, no fee`);
});
