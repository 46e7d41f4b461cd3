/** Loss of files over ten years: the closed formula beside simulated histories, then what it leaves out. The seed is fixed; MILLRACE_SEED is another. */
import { HOURS_PER_YEAR, type LossModel, lossProbability, meanHoursToLoss, ninesOf } from '../src/storage/erasure/loss-probability.ts';
import { type SimulatedWorld, simulateLosses } from '../src/storage/erasure/simulate-losses.ts';

const seed = Number(process.env.MILLRACE_SEED ?? 20_261_122);
const HOURS = 10 * HOURS_PER_YEAR;
const EVENTS_PER_ROW = 4_000_000;
let outside = 0;
let rows = 0;

function row(world: SimulatedWorld, note = '', isComparable = true): void {
  const { k, n, repairBelow, failuresPerHour, repairHours } = world;
  const expected = lossProbability(world, HOURS);
  // Rows cost about the same: few files where each has many events, many where each has few.
  const files = Math.round(Math.min(200_000, Math.max(2000, EVENTS_PER_ROW / (2 * n * failuresPerHour * HOURS + 1))));
  const { lost, low, high, repairs } = simulateLosses(world, { files, seed: seed + rows });
  const isInside = expected >= low - 1e-9 && expected <= high + 1e-9;
  rows += 1;
  if (isComparable && !isInside) outside += 1;
  const verdict = isComparable ? (isInside ? 'agrees' : 'OUTSIDE') : `${((lost / files || high) / expected).toPrecision(2)} x`;
  process.stdout.write(
    `${`${k} of ${n}`.padEnd(9)}${String(repairBelow || '–').padStart(4)}${(1 / failuresPerHour / 24).toFixed(0).padStart(7)}${repairHours.toFixed(0).padStart(8)}` +
      `${expected.toExponential(2).padStart(11)}${ninesOf(lossProbability(world, HOURS_PER_YEAR)).toFixed(1).padStart(7)}` +
      `${`${lost}/${files}`.padStart(14)}  ${low.toExponential(1)} … ${high.toExponential(1)}${(repairs / files).toFixed(1).padStart(8)}  ${verdict}${note}\n`,
  );
}

const header =
  `${'code'.padEnd(9)}${'R'.padStart(4)}${'days'.padStart(7)}${'hours'.padStart(8)}${'formula'.padStart(11)}${'nines'.padStart(7)}${'lost'.padStart(14)}` +
  '  99.9 % interval    repairs a file\n';
const CODES = [
  { k: 1, n: 3, repairBelow: 3 },
  { k: 4, n: 6, repairBelow: 6 },
  { k: 4, n: 6, repairBelow: 5 },
  { k: 10, n: 14, repairBelow: 14 },
  { k: 10, n: 14, repairBelow: 13 },
  { k: 10, n: 14, repairBelow: 12 },
  { k: 20, n: 30, repairBelow: 26 },
  { k: 10, n: 14, repairBelow: 0 },
];

process.stdout.write(
  `seed ${seed}; ten years a file; R: repair while fewer are healthy; days: mean life of a shard; hours: mean time to repair; nines: of one year\n${header}`,
);
for (const code of CODES) {
  for (const days of [60, 365, 1460]) {
    for (const repairHours of code.repairBelow === 0 ? [24] : [6, 24, 120])
      row({ ...code, failuresPerHour: 1 / (days * 24), repairHours, hours: HOURS });
  }
}
process.stdout.write(`\n${outside} of ${rows} rows outside their 99.9 % interval\n`);

process.stdout.write(
  `\nWhat the formula leaves out (lost files simulated, or their upper bound when none was, over those of the formula):\n${header}`,
);
const base: LossModel = { k: 10, n: 14, repairBelow: 13, failuresPerHour: 1 / (365 * 24), repairHours: 72 };
row({ ...base, hours: HOURS, isRepairFixed: true }, '  repair takes exactly its mean and is not broken off', false);
for (const shardsPerOperator of [2, 3, 5]) {
  row({ ...base, hours: HOURS, shardsPerOperator }, `  one operator under several names holds ${shardsPerOperator} at the start`, false);
}
for (const regions of [2, 4, 14]) {
  row(
    { ...base, hours: HOURS, regions, regionFailuresPerHour: 1 / (50 * HOURS_PER_YEAR) },
    `  ${regions} regions, each fails wholly once in 50 years`,
    false,
  );
}
process.stdout.write(
  `\nmean years to loss, 10 of 14 repaired below 13, a shard a year, 24 h: ${(meanHoursToLoss({ ...base, repairHours: 24 }) / HOURS_PER_YEAR).toExponential(2)}\n`,
);
process.exitCode = outside === 0 ? 0 : 1;
