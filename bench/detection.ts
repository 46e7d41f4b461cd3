/**
 * How soon a loss is noticed: seeded runs of the real draws beside theory, P(unnoticed) = (1 - f)^k for k draws when a fraction f of all
 * leaves is lost; and how many periods pass until one deleted deal among filler is drawn, with the guarantee that the turns give.
 */
import { createHash } from 'node:crypto';
import { bytesToHex } from 'viem';
import { profile } from '../profiles/production.ts';
import { drawLeaves } from '../src/storage/possession/draws.ts';
import { type PieceTable, rebuildTable } from '../src/storage/possession/table.ts';

const RUNS = 1000;
const PIECES = 400;
const LEAVES = 1n << 20n;
const SEED = 'millrace detection 1';

const seedOf = (run: number, period: number) => bytesToHex(createHash('sha256').update(`${SEED} ${run} ${period}`).digest());
const tableOf = (weights: readonly bigint[]): PieceTable =>
  rebuildTable(
    weights.map((weight, slot) => ({
      kind: 'inserted' as const,
      slot,
      timestamp: 0n,
      leaf: { pieceRoot: `0x${'00'.repeat(32)}` as const, pieceHeight: 20, leaves: LEAVES, weight, dealId: BigInt(slot + 1) },
    })),
  );

function lostLeaves(): void {
  const table = tableOf(Array.from({ length: PIECES }, () => 10n ** 18n));
  process.stdout.write(`share of leaves lost, P(unnoticed after one period and after seven): seen in ${RUNS} seeded runs, and theory\n`);
  for (const perThousand of [1n, 10n, 50n, 100n, 200n]) {
    const limit = (LEAVES * perThousand) / 1000n;
    const unnoticed = [0, 0];
    let draws = 0;
    for (let run = 0; run < RUNS; run += 1) {
      let isFound = false;
      for (let period = 0; period < 7; period += 1) {
        const drawn = drawLeaves({
          table,
          counts: profile.possession,
          seed: seedOf(run, period),
          operatorId: 1n,
          period: BigInt(period),
          times: 1,
        });
        draws += drawn.length;
        isFound ||= drawn.some(({ leafIndex }) => leafIndex < limit);
        if (period === 0 && !isFound) unnoticed[0] = (unnoticed[0] as number) + 1;
      }
      if (!isFound) unnoticed[1] = (unnoticed[1] as number) + 1;
    }
    const k = draws / RUNS / 7;
    const theory = (periods: number) => (1 - Number(perThousand) / 1000) ** (k * periods);
    const [one, seven] = unnoticed.map((count) => (count / RUNS).toFixed(3));
    process.stdout.write(
      `${(Number(perThousand) / 10).toFixed(1).padStart(5)} %  k = ${k.toFixed(1)}: ${one} (theory ${theory(1).toFixed(3)}), ${seven} (theory ${theory(7).toFixed(3)})\n`,
    );
  }
}

function dilutedDeal(): void {
  process.stdout.write('one deleted deal among filler of the same collateral: periods until it is drawn, 200 seeded runs\n');
  for (const filler of [10, 100, 1000]) {
    const table = tableOf(Array.from({ length: filler + 1 }, () => 10n ** 18n));
    const slot = Math.floor(filler / 2);
    const periods: number[] = [];
    for (let run = 0; run < 200; run += 1) {
      for (let period = 0; ; period += 1) {
        // Each run begins at another place of the turns, as a loss does.
        const at = BigInt(run * 7 + period);
        const drawn = drawLeaves({ table, counts: profile.possession, seed: seedOf(run, period), operatorId: 1n, period: at, times: 1 });
        if (drawn.some((draw) => draw.slot === slot)) {
          periods.push(period + 1);
          break;
        }
      }
    }
    periods.sort((one, other) => one - other);
    const mean = periods.reduce((sum, count) => sum + count, 0) / periods.length;
    process.stdout.write(
      `1 : ${String(filler).padEnd(5)} mean ${mean.toFixed(1)}, median ${periods[100]}, worst ${periods.at(-1)} (never more than ${profile.possession.rotationPeriods}, by turns)\n`,
    );
  }
}

lostLeaves();
dilutedDeal();
