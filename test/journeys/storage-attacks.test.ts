import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { bytesToHex } from 'viem';
import { createSender, developmentSigner } from '../../src/chain/index.ts';
import { silentLogger } from '../../src/log.ts';
import { type DealView, readDeal } from '../../src/storage/market/chain-view.ts';
import { showDeal } from '../../src/storage/market/deals.ts';
import { startTestMarket, type TestMarket, until } from '../../src/storage/market/market-fixture.ts';
import { openTableView } from '../../src/storage/possession/table-view.ts';
import { rounds } from '../campaign.ts';
import { killProviders, type ProviderProcess, proofOf, startProviderProcess, untilMissed } from './storage-market.ts';

let market: TestMarket;
let index = 0;
before(async () => {
  market = await startTestMarket({ verbose: false });
});
after(async () => {
  await killProviders();
  await market?.stop();
});

/** A provider that does the least: it activates and proves, and looks after nothing. */
const BARE = ['activation', 'prover'] as const;
const newProvider = (behaviour: Parameters<typeof startProviderProcess>[2]): Promise<ProviderProcess> => {
  index += 1;
  return startProviderProcess(market, index, behaviour);
};

/**
 * What a client is paid of a slash that another has reported: unproven time and replacement, at most half of the slash (own stake only),
 * and together with the reward, which comes first, at most what the client has paid.
 */
async function compensationOf(dealId: bigint, slashed: bigint): Promise<bigint> {
  const { client } = market;
  const { replacementPeriods, reporterRewardBps, reporterRewardMax } = await client.read('storageMarket', 'config');
  const { period } = await client.read('possession', 'config');
  const account = await showDeal(client, dealId);
  const [activated] = await client.events({ name: 'storageMarket', event: 'DealActivated', args: { dealId } });
  const periods = (activated?.args.endPeriod as bigint) - (activated?.args.firstPeriod as bigint);
  const wanted = (periods - account.provenSeconds / BigInt(period) + BigInt(replacementPeriods)) * account.pricePerPeriod;
  const reward = least((least(slashed, account.paid) * BigInt(reporterRewardBps)) / 10_000n, reporterRewardMax);
  return least(wanted, account.paid - reward, slashed / 2n);
}

// biome-ignore lint/complexity/useMathMinMax: Math.min takes no bigint.
const least = (...amounts: bigint[]): bigint => amounts.reduce((one, other) => (one < other ? one : other));

/**
 * Lets periods go by until the table has failed, and checks every fee of the deal on the way by the profile. In each
 * period the provider must have tried and met one of the errors: it is the attack that is punished, not a short wait.
 */
async function untilTableFails(provider: ProviderProcess, deal: DealView, failsWith: readonly string[]): Promise<void> {
  const { client, user } = market;
  const { operatorId, dealId, collateral } = deal;
  const { faultFeeBps } = await client.read('storageMarket', 'config');
  const { maxMisses } = await client.read('possession', 'config');
  // The fee of all misses that a settlement finds is rounded down once.
  let [seen, locked] = [0, collateral];
  const takeFees = (charged: number) => {
    locked -= (BigInt(charged - seen) * BigInt(faultFeeBps) * collateral) / 10_000n;
    seen = charged;
    return locked;
  };
  let period = await market.nextPeriod(1);
  while (true) {
    await user.sender.send({ contract: 'possession', functionName: 'sync', args: [operatorId] });
    const misses = await client.events({ name: 'possession', event: 'Missed', args: { operatorId } });
    const charged = misses.filter(({ args }) => !args.grace).length;
    if (charged >= maxMisses) {
      takeFees(charged);
      break;
    }
    await user.sender.send({ contract: 'storageMarket', functionName: 'settle', args: [dealId] });
    assert.equal((await readDeal(client, dealId)).locked, takeFees(charged));
    // An attacker who is late acts when the period is over.
    if (failsWith.includes('wrong-period')) await lateProof(provider, period);
    else await proofOf(market, provider, { period, failsWith });
    period += 1n;
    await market.warpTo((await client.read('possession', 'periodStart', [period])) + 1n);
  }
  await user.sender.send({ contract: 'storageMarket', functionName: 'terminate', args: [dealId] });
  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId } });
  assert.equal(ended?.args.cause, 3);
  assert.equal(ended?.args.slashed, locked);
  assert.equal(ended?.args.compensation, await compensationOf(dealId, ended?.args.slashed as bigint));
  // Who was never served for a whole period has paid for none, and has all its money back.
  const { paid, refunded } = await showDeal(client, dealId);
  assert.ok((ended?.args.compensation as bigint) + (ended?.args.reward as bigint) <= paid);
  assert.equal(paid + refunded, deal.pricePerPeriod * (deal.endPeriod - deal.firstPeriod) + deal.bond);
}

/** Waits until the provider holds its proof back, ends the period, and waits until the chain has refused it. */
async function lateProof(provider: ProviderProcess, period: bigint): Promise<void> {
  const { client } = market;
  const { provenThrough } = await client.read('possession', 'standing', [provider.operatorId]);
  const refused = () => provider.proverFailures().filter((code) => code === 'wrong-period').length;
  const before = refused();
  await market.warpTo((await client.read('possession', 'seedTime', [period])) + 1n);
  await until(
    'the proof is ready, or sent',
    async () => provider.heldBack() > before || provenThrough > period || (await isProven(provider, period)),
  );
  if (await isProven(provider, period)) return;
  await market.warpTo((await client.read('possession', 'periodStart', [period + 1n])) + 1n);
  await until('the late proof is refused', async () => refused() > before);
}

async function isProven({ operatorId }: ProviderProcess, period: bigint): Promise<boolean> {
  return (await market.client.read('possession', 'standing', [operatorId])).provenThrough > period;
}

/** Stores one piece at the only provider that runs, and lets the first whole period be proven honestly. */
async function storeAndProve(provider: ProviderProcess): Promise<DealView> {
  const { deals } = await market.putRandom({ periods: 40 });
  const { dealId, operatorId } = deals[0] as { dealId: bigint; operatorId: bigint };
  assert.equal(operatorId, provider.operatorId);
  return readDeal(market.client, dealId);
}

for (const attack of ['late', 'replay', 'wrong-leaves'] as const) {
  const refusals = {
    late: ['wrong-period'],
    replay: ['wrong-draw', 'wrong-slot', 'piece-path-wrong', 'table-path-wrong', 'proof-length'],
    'wrong-leaves': ['piece-path-wrong'],
  }[attack];
  const what = { late: 'proves too late', replay: 'replays an old proof', 'wrong-leaves': 'sends wrong leaves' }[attack];
  test(`a provider that ${what} misses every period: grace once, then fault fees, then all collateral, to the wei`, async () => {
    const provider = await newProvider({ attack, duties: [...BARE] });
    const deal = await storeAndProve(provider);
    await untilTableFails(provider, deal, refusals);
    await provider.stop();
  });
}

test('a provider that goes away is terminated by others, who earn the reward, and the client is compensated', async () => {
  const { client } = market;
  const provider = await newProvider({ duties: [...BARE] });
  const deal = await storeAndProve(provider);
  for (const period of [deal.firstPeriod, deal.firstPeriod + 1n]) await market.provePeriod(period, [deal.operatorId]);
  await provider.kill();
  const keeper = await newProvider({ keepsOthers: true });
  for (let period = 0; period < 12; period += 1) {
    await market.nextPeriod(1);
    await untilSynced(deal.operatorId);
    if ((await readDeal(client, deal.dealId)).state === 'terminated') break;
  }
  await market.untilState(deal.dealId, 'terminated');
  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId: deal.dealId } });
  assert.equal(ended?.args.compensation, await compensationOf(deal.dealId, ended?.args.slashed as bigint));
  const keeperKey = (await client.read('operators', 'operator', [keeper.operatorId])).nodeKey;
  assert.ok((await client.read('stakeVault', 'claimableOf', [keeperKey])) > 0n);
  await keeper.stop();
});

test('a provider that deletes one piece in a hundred and stays silent only when hit is found within one rotation', async (t) => {
  const { client } = market;
  const provider = await newProvider({ duties: [...BARE] });
  const pieces = rounds(100);
  const stored = await market.putMany(pieces, { periods: 200 });
  const dealIds = stored.map(({ deals }) => (deals[0] as { dealId: bigint }).dealId);
  const current = await client.read('possession', 'periodAt', [await client.now()]);
  await market.provePeriod(current, [provider.operatorId]);
  const victim = await readDeal(client, dealIds[Math.floor(pieces / 2)] as bigint);
  await provider.deletePiece(victim.pieceRoot);
  const { rotationPeriods } = await client.read('possession', 'config');
  let survived = 0;
  while (survived <= rotationPeriods) {
    const now = await market.nextPeriod(1);
    if ((await proofOf(market, provider, { period: now, failsWith: ['pieces-lost'] })) === 'failed') break;
    survived += 1;
  }
  t.diagnostic(`${pieces} pieces, one deleted: found after ${survived} periods; one rotation is ${rotationPeriods}`);
  assert.ok(survived <= rotationPeriods);
  await untilTableFails(provider, await readDeal(client, dealIds[0] as bigint), ['pieces-lost']);
  await provider.stop();
});

test('nothing leaves the table between freeze and deadline: who deletes a drawn piece cannot take it out any more', async () => {
  const { client } = market;
  const provider = await newProvider({ duties: [...BARE] });
  const deal = await storeAndProve(provider);
  const period = await market.nextPeriod(1);
  await provider.kill();
  await market.warpTo((await client.read('possession', 'seedTime', [period])) + 1n);
  const signer = developmentSigner(11 + provider.index * 2, 'dev');
  const sender = createSender({ client, signer, journalFolder: join(market.folder, 'keys'), log: silentLogger });
  const table = await openTableView(client, provider.operatorId).live();
  const path = bytesToHex(table.path(table.slotOf(deal.dealId) as number));
  await assert.rejects(sender.send({ contract: 'storageMarket', functionName: 'declareFault', args: [deal.dealId, path] }), {
    code: 'table-frozen',
  });
  await assert.rejects(sender.send({ contract: 'storageMarket', functionName: 'drop', args: [deal.dealId, path] }), {
    code: 'wrong-state',
  });
  sender.close();
  await market.nextPeriod(1);
  await market.user.sender.send({ contract: 'possession', functionName: 'sync', args: [provider.operatorId] });
  await untilMissed(market, provider.operatorId, 1);
});

async function untilSynced(operatorId: bigint): Promise<void> {
  await until(`operator ${operatorId} is final`, async () => {
    const period = await market.client.read('possession', 'periodAt', [await market.client.now()]);
    return (
      (await market.client.read('possession', 'standing', [operatorId])).syncedTo >= period ||
      !(await market.client.read('possession', 'stands', [operatorId]))
    );
  });
}
