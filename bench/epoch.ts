/** The epoch of a subnet: CPU milliseconds by validators, uids, entries of a row and rule, and how they grow. */
import { plainEpoch } from '../src/inference/consensus/epoch-cases.ts';
import { seededRandom } from '../src/inference/consensus/seeded-random.ts';
import { type EpochInput, epoch, type SparseRow, type YumaMode } from '../src/inference/index.ts';

const MODES: readonly YumaMode[] = ['yuma2', 'yuma3', 'yuma3-liquid'];
const EPOCHS = 30;

/** Weights and bonds of each validator on `entries` uids of its own, every stake and weight random. */
function networkOf(size: { validators: number; uids: number; entries: number; mode: YumaMode }): EpochInput {
  const random = seededRandom(size.uids);
  const rowOf = (): SparseRow => {
    const from = random.integer(0, size.uids - 1);
    const uids = Array.from({ length: size.entries }, (_, place) => (from + place * Math.floor(size.uids / size.entries)) % size.uids);
    return [...new Set(uids)].sort((a, b) => a - b).map((uid) => [uid, random.integer(1, 65_535)] as const);
  };
  const rows = () => Array.from({ length: size.uids }, (_, uid) => (uid < size.validators ? rowOf() : []));
  const stakes = Array.from({ length: size.uids }, (_, uid) =>
    uid < size.validators ? BigInt(random.integer(1, 1_000_000)) * 10n ** 18n : 0n,
  );
  return plainEpoch({
    stakes,
    weights: rows(),
    bonds: rows(),
    previousConsensus: stakes.map(() => random.integer(0, 512)),
    parameters: { mode: size.mode, bondsPenalty: 30_000 },
  });
}

for (const [validators, uids, entries] of [
  [16, 64, 8],
  [16, 64, 64],
  [64, 256, 34],
  [64, 256, 64],
  [64, 256, 256],
  [64, 512, 512],
] as const) {
  for (const mode of MODES) {
    const input = networkOf({ validators, uids, entries, mode });
    for (let run = 0; run < EPOCHS; run++) epoch(input);
    const before = process.cpuUsage();
    for (let run = 0; run < EPOCHS; run++) epoch(input);
    const { user, system } = process.cpuUsage(before);
    const label = `${validators} validators, ${uids} uids, ${entries} entries a row, ${mode}`;
    process.stdout.write(`${label.padEnd(66)} ${((user + system) / 1000 / EPOCHS).toFixed(2)} ms of CPU\n`);
  }
}
