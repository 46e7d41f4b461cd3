import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { MillraceError } from '../../errors.ts';
import { cabalTable, compareBondsSettings, mapCabals, writeAttackDocument } from './attack-document.ts';
import { simulateAttacks } from './attacks.ts';
import { simulateCabal } from './cabal-map.ts';
import { BONDS_SETTINGS } from './copying.ts';
import { readGroups } from './population-groups.ts';
import { DEFAULT_POPULATION, groupsOf, type PopulationOptions, simulatePopulation } from './simulate-population.ts';

const IS_FULL = process.env.MILLRACE_FULL === '1';
const simulate = (change: Partial<PopulationOptions>, run = {}) =>
  simulatePopulation(groupsOf({ ...DEFAULT_POPULATION, ...change }), { epochs: 24, seed: 1, parameters: {}, ...run });
const SEEDS = IS_FULL ? [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] : [1, 2];

test('every attack of the table stays within what is promised, whatever the seed', () => {
  for (const seed of SEEDS) {
    for (const { attack, defended, limit } of simulateAttacks(seed)) {
      assert.ok(limit === null || defended <= limit, `${attack}, seed ${seed}: ${defended} above ${limit}`);
    }
  }
});

test('the defences are what holds: without them copying, sniping, silence, washing and a whale pay', () => {
  const undefended = (attack: string) => simulateAttacks(1).find((outcome) => outcome.attack.startsWith(attack))?.undefended ?? Number.NaN;
  assert.ok(undefended('weight copying, 1 epoch') > 0.97);
  assert.ok(undefended('uid sniping') > 0.9);
  assert.ok(undefended('late or garbage reveal by 60 %') > 0.99);
  assert.ok(undefended('wash trading: a miner pays itself, with 10 ') > 0.5);
  assert.ok(undefended('a whale') > 0.99);
});

test('honest stake keeps at least its share against a cabal of up to 40 % whose miners are worth little, at a noise of 0.4', () => {
  for (const seed of SEEDS) {
    for (const cabalStake of [0.1, 0.2, 0.3, 0.4]) {
      // A miner of the cabal that honest validators rate at all earns that much honestly, so the rating stays below its share of stake.
      const utilities = [1, 1 - cabalStake / 4, 1 - cabalStake / 2];
      for (const honestUtility of utilities) {
        const outcome = simulateCabal({ cabalStake, honestUtility, noise: 0.4, validators: 16, miners: 32, seed });
        assert.ok(outcome.loss <= 0, `cabal ${cabalStake}, utility ${honestUtility}, seed ${seed}: loss ${outcome.loss}`);
      }
    }
  }
});

test('against a cabal of 49 % whose miners are worth nothing honest stake still keeps more than its share', () => {
  for (const seed of SEEDS) {
    const outcome = simulateCabal({ cabalStake: 0.49, honestUtility: 1, noise: 0.4, validators: 16, miners: 32, seed });
    assert.ok(outcome.honestShare > 0.51, `seed ${seed}: ${outcome.honestShare}`);
  }
});

test('a cabal above kappa takes what it wants', () => {
  const outcome = simulateCabal({ cabalStake: 0.55, honestUtility: 1, noise: 0, validators: 16, miners: 32, seed: 1 });
  assert.ok(outcome.honestShare < 0.45, `${outcome.honestShare}`);
});

test('of all settings of bonds that pay the finder more than a tenth above its share, the default leaves a copier one epoch late the least', () => {
  const rows = compareBondsSettings();
  assert.equal(rows.length, BONDS_SETTINGS.length);
  const fair = rows.filter(({ eager }) => eager > 1.1);
  const best = fair.reduce((least, row) => ((row.copiers[1] as number) < (least.copiers[1] as number) ? row : least));
  assert.match(best.setting, /default/);
  // Without commit and reveal the copier loses next to nothing under any setting that lets bonds go.
  assert.ok(rows.every(({ setting, copiers }) => setting === 'Yuma 2, penalty 0' || (copiers[0] as number) > 0.95));
});

test('docs/inference-attacks.md is what the command writes', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/inference-attacks.md'), 'utf8');
  assert.equal(page, writeAttackDocument(1));
});

test('what the groups of a population get adds up to all, the same for the same seed and another for another', () => {
  const population = { cheats: 2, copierStake: 0.1, cabalStake: 0.2, silentStake: 0.05 };
  const earnings = simulate(population);
  assert.deepEqual(earnings, simulate(population));
  assert.notDeepEqual(earnings, simulate(population, { seed: 2 }));
  assert.ok(Math.abs(earnings.reduce((total, { share }) => total + share, 0) - 1) < 1e-6);
  assert.ok(Math.abs(earnings.reduce((total, { stakeShare }) => total + stakeShare, 0) - 1) < 1e-9);
  const shareOf = (group: string) => earnings.find((one) => one.group === group)?.share ?? Number.NaN;
  assert.deepEqual([shareOf('cabal'), shareOf('silent validators')], [0, 0]);
});

test('cheats with a twentieth of the quality earn below a fifth of an honest miner’s pay', () => {
  const earnings = simulate({ cheats: 3, noise: 0.2 }, { epochs: 80 });
  const each = (group: string) => {
    const one = earnings.find((candidate) => candidate.group === group);
    return one === undefined ? Number.NaN : one.minerShare / one.miners;
  };
  assert.ok(each('cheats') < each('honest miners') / 5, `${each('cheats')} of ${each('honest miners')}`);
});

test('groups out of a file run as they say, with what is left out as documented', () => {
  const groups = readGroups({
    validators: [
      { group: 'honest', count: 6, stake: 70, does: 'judge' },
      { group: 'ring', stake: 20, does: 'favour' },
      { group: 'friends', stake: 10, does: 'favour', whom: 'ring', weight: 0.5 },
    ],
    miners: [
      { group: 'good', count: 8, quality: 1 },
      { group: 'ring', count: 2, quality: 0 },
    ],
  });
  const earnings = simulatePopulation(groups, { epochs: 16, seed: 3, parameters: {} });
  const shareOf = (group: string) => earnings.find((one) => one.group === group)?.share ?? Number.NaN;
  assert.equal(shareOf('ring'), 0);
  assert.ok(shareOf('friends') > 0 && shareOf('friends') < 0.05 && shareOf('good') > 0.499);
});

test('a population that cannot be is refused with what is wrong', () => {
  const isRefused = (run: () => unknown) =>
    assert.throws(run, (error) => error instanceof MillraceError && error.code === 'bad-population' && error.actor === 'caller');
  for (const change of [
    { cabalStake: 0.7, silentStake: 0.4 },
    { noise: -1 },
    { honestValidators: 0 },
    { honestMiners: 600 },
    { copierStake: 0.1, copyLag: 0.5 },
    { cabalStake: 0.1, cabalWeight: 2 },
  ]) {
    isRefused(() => simulate(change));
  }
  isRefused(() => simulate({}, { epochs: 0 }));
  const judge = { group: 'a', stake: 1, does: 'judge' };
  for (const value of [
    null,
    {},
    { validators: [], miners: [] },
    { validators: [judge], miners: [{ group: 'b' }] },
    { validators: [{ ...judge, does: 'dance' }], miners: [] },
    { validators: [{ ...judge, extra: 1 }], miners: [] },
    { validators: [{ ...judge, stake: '1' }], miners: [] },
    { validators: [{ ...judge, group: '\u001b[31m' }], miners: [] },
    { validators: [{ ...judge, count: 1e9 }], miners: [] },
  ]) {
    isRefused(() => readGroups(value));
  }
});

// The points of the page are compared above; all of them are a campaign.
if (IS_FULL)
  test('the full map of cabals from 10 to 49 %, printed with the loss', () => {
    const points = mapCabals(1, true);
    process.stdout.write(`seed 1\n${cabalTable(points)}\n`);
    for (const { cabalStake, honestUtility, noise, loss } of points) {
      const isWithinPromise = cabalStake <= 0.4 && 1 - honestUtility <= cabalStake / 2;
      assert.ok(!isWithinPromise || loss <= 0, `cabal ${cabalStake}, utility ${honestUtility}, noise ${noise}: loss ${loss}`);
    }
  });
