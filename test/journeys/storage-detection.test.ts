import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { keccak256, toHex } from 'viem';
import { loadProfile } from '../../src/chain/index.ts';
import { readDeal } from '../../src/storage/market/chain-view.ts';
import { startTestMarket, type TestMarket } from '../../src/storage/market/market-fixture.ts';
import { drawLeaves } from '../../src/storage/possession/draws.ts';
import { PieceTable } from '../../src/storage/possession/table.ts';
import { campaignSeed, rounds } from '../campaign.ts';
import { killProviders, proofOf, startProviderProcess, untilMissed } from './storage-market.ts';

/** One deal of a simulated table. */
interface SimulatedDeal {
  leaves: bigint;
  weight: bigint;
  isDeleted: boolean;
}

type Counts = Awaited<ReturnType<typeof loadProfile>>['possession'];

function tableOf(deals: readonly SimulatedDeal[]): PieceTable {
  const table = new PieceTable();
  for (const [slot, { leaves, weight }] of deals.entries()) {
    table.insert(slot, { pieceRoot: keccak256(toHex(slot)), pieceHeight: 32, leaves, weight, dealId: BigInt(slot + 1) });
  }
  return table;
}

/** The period, counted from 1, in which a draw first falls on a deleted deal; undefined when none does. The draws are those of the contract. */
function firstHit(options: {
  deals: readonly SimulatedDeal[];
  table: PieceTable;
  counts: Counts;
  seed: string;
  periods: number;
}): number | undefined {
  const { deals, table, counts, seed, periods } = options;
  for (let period = 0; period < periods; period += 1) {
    const draws = drawLeaves({
      table,
      counts,
      seed: keccak256(toHex(`${seed}/${period}`)),
      operatorId: 1n,
      period: BigInt(period),
      times: 1,
    });
    if (draws.some(({ slot }) => deals[slot]?.isDeleted === true)) return period + 1;
  }
  return undefined;
}

/** `lost` of `count` equal deals are deleted, in slots whose turn comes only after `quietPeriods`. */
function dealsWithLoss(options: { count: number; lost: number; quietPeriods: number; rotationPeriods: number }): SimulatedDeal[] {
  let left = options.lost;
  return Array.from({ length: options.count }, (_, slot) => {
    const isDeleted = left > 0 && slot % options.rotationPeriods >= options.quietPeriods;
    if (isDeleted) left -= 1;
    return { leaves: 1000n, weight: 1000n, isDeleted };
  });
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

test('deleted pieces are found as theory says, 1 - (1 - f)^k in k draws, and always within one rotation', async (t) => {
  const { possession: counts } = await loadProfile('dev');
  const runs = rounds(2000);
  const k = counts.byBytes + counts.byWeight;
  for (const [lost, quietPeriods] of [
    [1, 20],
    [10, 20],
    [50, 5],
    [100, 2],
    [286, 1],
  ] as const) {
    const deals = dealsWithLoss({ count: 1000, lost, quietPeriods, rotationPeriods: counts.rotationPeriods });
    const table = tableOf(deals);
    const hits = Array.from({ length: runs }, (_, run) =>
      firstHit({ deals, table, counts, seed: `${campaignSeed()}/${lost}/${run}`, periods: counts.rotationPeriods }),
    );
    assert.ok(hits.every((hit) => hit !== undefined));
    const undetected = hits.filter((hit) => (hit as number) > quietPeriods).length / runs;
    const theory = (1 - lost / 1000) ** (k * quietPeriods);
    t.diagnostic(
      `${lost / 10} % lost: after ${quietPeriods} periods (${k * quietPeriods} random draws) undetected ${undetected.toFixed(3)}, theory ${theory.toFixed(3)}; found after ${mean(hits as number[]).toFixed(1)} periods on average, at worst ${Math.max(...(hits as number[]))}`,
    );
    assert.ok(Math.abs(undetected - theory) <= 4 * Math.sqrt((theory * (1 - theory)) / runs) + 1 / runs);
  }
});

test('self-made filler does not hide a deleted deal: 1:10, 1:100 and 1:1,000', async (t) => {
  const { possession: counts } = await loadProfile('dev');
  const runs = rounds(200);
  const victim = { leaves: 10_000n, weight: 10_000n, isDeleted: true };
  for (const ratio of [10, 100, 1000]) {
    const filler = (weight: bigint) => Array.from({ length: ratio }, () => ({ leaves: 10_000n, weight, isDeleted: false }));
    const cases: [string, SimulatedDeal[]][] = [
      ['by number, with next to no collateral', [...filler(1n), victim]],
      ['by bytes, in one piece', [{ leaves: 10_000n * BigInt(ratio), weight: 1n, isDeleted: false }, victim]],
      ['with the collateral of a real deal each', [...filler(10_000n), victim]],
    ];
    for (const [how, deals] of cases) {
      const table = tableOf(deals);
      const hits = Array.from(
        { length: runs },
        (_, run) => firstHit({ deals, table, counts, seed: `${campaignSeed()}/${how}/${run}`, periods: counts.rotationPeriods }) as number,
      );
      t.diagnostic(`filler 1:${ratio} ${how}: found after ${mean(hits).toFixed(2)} periods on average, at worst ${Math.max(...hits)}`);
      assert.ok(hits.every((hit) => hit <= counts.rotationPeriods));
    }
  }
});

let market: TestMarket;
before(async () => {
  market = await startTestMarket();
});
after(async () => {
  await killProviders();
  await market?.stop();
});

test('on a real chain a provider with ten filler deals for each client deal is found when it deletes the client deal', async (t) => {
  const { client, user } = market;
  const provider = await startProviderProcess(market as TestMarket, 1, { duties: ['activation', 'prover'] });
  const filler = await market.putMany(10, { periods: 200, sizeBytes: 20_000 });
  const [victim] = await market.putMany(1, { periods: 200, sizeBytes: 5_000 });
  assert.equal(filler.length, 10);
  const dealId = victim?.deals[0]?.dealId as bigint;
  const { pieceRoot } = await readDeal(client, dealId);
  const current = await client.read('possession', 'periodAt', [await client.now()]);
  await market.provePeriod(current, [provider.operatorId]);
  await provider.deletePiece(pieceRoot);
  const { rotationPeriods } = await client.read('possession', 'config');
  let periods = 1;
  for (; periods <= rotationPeriods; periods += 1) {
    const period = await market.nextPeriod(1);
    if ((await proofOf(market, provider, { period, failsWith: ['pieces-lost'] })) === 'failed') break;
  }
  await market.nextPeriod(1);
  await user.sender.send({ contract: 'possession', functionName: 'sync', args: [provider.operatorId] });
  await untilMissed(market, provider.operatorId, 1);
  t.diagnostic(`1:10 on chain: found in period ${periods}, one rotation is ${rotationPeriods}`);
  assert.ok(periods <= rotationPeriods);
});
