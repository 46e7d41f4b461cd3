import { seededRandom } from '../consensus/seeded-random.ts';
import { simulateCopying } from './copying.ts';
import { copier, favouring, honest, mix, type Opinion, type SimulatedMiner, type SimulatedValidator, silent } from './population.ts';
import { type GroupEarnings, type SubnetPlan, simulateSubnet } from './simulate-subnet.ts';

/** One attack, what it earns with the defence and without, and whether it stays within the limit that we promise. */
export interface AttackOutcome {
  attack: string;
  measure: string;
  /** Null where nothing was switched off to compare with. */
  undefended: number | null;
  defended: number;
  /** The attack is held if `defended` is at most this; null: nothing is promised. */
  limit: number | null;
  defence: string;
}

const EPOCHS = 40;
const WARM_UP = 10;
const MINERS = 20;

/** Every attack of the table in docs/inference-attacks.md but the cabals' map, run through the real function. */
export function simulateAttacks(seed: number): AttackOutcome[] {
  return [
    ...copyingAttacks(seed),
    ...selfDealing(seed),
    ...dust(seed),
    sniping(seed),
    ...silence(seed),
    badMiner(seed),
    splitMiner(seed, false),
    splitMiner(seed, true),
    ...[1, 10, 100].map(washTrading),
    whale(seed),
  ];
}

function copyingAttacks(seed: number): AttackOutcome[] {
  const perStake = (lag: number) => {
    const earnings = simulateSubnet(
      planOf(seed, {
        validators: [...honestValidators(8, 0.8), { group: 'attacker', stake: 0.2, opinion: copier(lag), copies: lag === 0 }],
        miners: driftingMiners(seed),
        epochs: 80,
      }),
    );
    return dividendRatio(earnings);
  };
  const undefended = simulateCopying({}, 0).copier;
  return [1, 2, 4]
    .map((lag) => ({
      attack: `weight copying, ${lag} ${lag === 1 ? 'epoch' : 'epochs'} late`,
      measure: 'dividends per stake; the finder of the same stake gets 1.18',
      undefended,
      defended: simulateCopying({}, lag).copier,
      limit: 0.75,
      defence: 'commit and reveal (the copier is late by the reveal period), liquid alpha judged by the previous consensus',
    }))
    .concat(
      [1, 2].map((lag) => ({
        attack: `weight copying, ${lag} ${lag === 1 ? 'epoch' : 'epochs'} late, 20 miners of drifting quality`,
        measure: 'dividends per stake, honest validators 1',
        undefended: perStake(0),
        defended: perStake(lag),
        limit: 1,
        defence: 'the same',
      })),
    );
}

function selfDealing(seed: number): AttackOutcome[] {
  return [0.1, 0.3, 0.45].map((stake) => {
    const earnings = simulateSubnet(
      planOf(seed, {
        validators: [...honestValidators(8, 1 - stake), { group: 'attacker', stake, opinion: favouring(1, (miner) => miner === MINERS) }],
        miners: [...goodMiners(), { group: 'attacker', quality: () => 0 }],
      }),
    );
    return {
      attack: `self-dealing: a validator with ${stake * 100} % of stake weighs only its own worthless miner`,
      measure: 'share of all emission, in parts of its share of stake',
      undefended: null,
      defended: of(earnings, 'attacker').share / stake,
      limit: 0.2,
      defence: 'the median: without kappa of stake behind it a miner has no consensus; its own weights earn no bonds that pay',
    };
  });
}

function dust(seed: number): AttackOutcome[] {
  const stake = 0.002;
  const run = (opinion: Opinion) =>
    simulateSubnet(
      planOf(seed, {
        validators: [...honestValidators(8, 1 - stake, 0), { group: 'tiny', stake, opinion }],
        miners: [
          ...goodMiners().map((miner, place) => (place === 0 ? { ...miner, group: 'target' } : miner)),
          { group: 'attacker', quality: () => 0 },
        ],
      }),
    );
  const fair = of(run(honest(0)), 'target').minerShare;
  const hurt = of(
    run(({ quality }) => quality.map((value, miner) => (miner === 0 ? 0 : value))),
    'target',
  ).minerShare;
  return [
    {
      attack: 'dust weights: a validator with 0.2 % of stake keeps a worthless miner alive',
      measure: 'incentive of that miner, a good one 1',
      undefended: null,
      defended: of(run(favouring(0.01, (miner) => miner === MINERS)), 'attacker').minerShare / fair,
      limit: 0,
      defence: 'pruning goes by incentive, which needs consensus above 0 and 1/65,535 at least',
    },
    {
      attack: 'under-weighting: the same validator gives a good miner nothing',
      measure: 'part of its incentive that the miner loses',
      undefended: null,
      defended: 1 - hurt / fair,
      limit: 0.01,
      defence: 'incentive is weighed by stake; no single zero counts for more than the stake behind it',
    },
  ];
}

function sniping(seed: number): AttackOutcome {
  const run = (masks: boolean) => {
    const earnings = simulateSubnet(
      planOf(seed, {
        validators: honestValidators(8, 1),
        miners: goodMiners(),
        epochs: 21,
        warmUp: 20,
        takeovers: [{ epoch: 20, miner: 0, by: { group: 'attacker', quality: () => 0 } }],
        masks,
      }),
    );
    return of(earnings, 'attacker').minerShare / (of(earnings, 'miners').minerShare / (MINERS - 1));
  };
  return {
    attack: 'uid sniping: a newcomer takes the uid of a good miner and inherits its weights',
    measure: 'its first epoch, a good miner 1',
    undefended: run(false),
    defended: run(true),
    limit: 0,
    defence: 'weights set or committed before a miner registered do not count, bonds to it are forgotten',
  };
}

function silence(seed: number): AttackOutcome[] {
  return [0.3, 0.6].flatMap((stake) => {
    const run = (masks: boolean) =>
      simulateSubnet(
        planOf(seed, { validators: [...honestValidators(8, 1 - stake), { group: 'attacker', stake, opinion: silent }], masks }),
      );
    const shareOf = (masks: boolean) => {
      const earnings = run(masks);
      return (
        of(earnings, 'attacker').validatorShare / (of(earnings, 'attacker').validatorShare + of(earnings, 'honest').validatorShare) / stake
      );
    };
    return [
      {
        attack: `late or garbage reveal by ${stake * 100} % of stake`,
        measure: 'its dividends per stake',
        undefended: shareOf(false),
        defended: shareOf(true),
        limit: 0,
        defence: 'a commit that is not revealed has no active stake in that epoch: no dividends, and no zeros in the median',
      },
      {
        attack: `the same: part of the miners' pay that it stops`,
        measure: 'part of the miners’ half that is not paid',
        undefended: 1 - 2 * of(run(false), 'miners').minerShare,
        defended: 1 - 2 * of(run(true), 'miners').minerShare,
        limit: 1e-6,
        defence: 'the same',
      },
    ];
  });
}

function badMiner(seed: number): AttackOutcome {
  const earnings = simulateSubnet(
    planOf(seed, {
      validators: honestValidators(8, 1, 0.2),
      miners: [...goodMiners(), { group: 'attacker', quality: () => 0.1 }],
    }),
  );
  return {
    attack: 'a miner that serves a tenth of the quality, validators’ noise 0.2',
    measure: 'incentive, a good miner 1',
    undefended: null,
    defended: of(earnings, 'attacker').minerShare / (of(earnings, 'miners').minerShare / MINERS),
    limit: 0.2,
    defence: 'weights follow measured quality',
  };
}

/** Five names for one machine. Where validators weigh quality alone, names pay; where they weigh what was served and paid, they do not. */
function splitMiner(seed: number, byVolume: boolean): AttackOutcome {
  const run = (names: number) => {
    const quality = byVolume ? 1 / names : 1;
    const miners = [...goodMiners(), ...Array.from({ length: names }, () => ({ group: 'attacker', quality: () => quality }))];
    return of(simulateSubnet(planOf(seed, { validators: honestValidators(8, 1, 0), miners })), 'attacker').minerShare;
  };
  return {
    attack: `Sybil miners: one machine under five uids, weights by quality${byVolume ? ' times paid work' : ' alone'}`,
    measure: 'what five names earn, one name 1',
    undefended: null,
    defended: run(5) / run(1),
    limit: byVolume ? 1.001 : null,
    defence: byVolume
      ? 'a score counts the work that was paid for, not the name'
      : 'none in consensus: names multiply pay (shown for comparison)',
  };
}

/**
 * A miner buys its own work. Emission of an epoch to miners is worth 100, ten honest miners have 5 each burnt on paid work. Validators
 * give nobody more of it than nine tenths of what was burnt for it (fees burnt are on chain); the rest goes to a uid that returns it.
 */
function washTrading(burnt: number): AttackOutcome {
  const pool = 100;
  const ceiling = 0.9;
  const burns = [...Array.from({ length: 10 }, () => 5), burnt];
  const run = (opinion: Opinion) =>
    of(
      simulateSubnet({
        validators: honestValidators(8, 1).map((validator) => ({ ...validator, opinion })),
        miners: [
          ...burns.map((_, place) => ({ group: place === 10 ? 'attacker' : 'miners', quality: () => 1 })),
          { group: 'returned', quality: () => 0 },
        ],
        epochs: 4,
        seed: 0,
      }),
      'attacker',
    ).minerShare * 2;
  const limited = [...burns.map((value) => (ceiling * value) / pool), 0];
  const asked = limited.reduce((total, value) => total + value, 0);
  const withCeiling = mix(limited, [...burns.map(() => 0), 1], Math.min(1, asked));
  return {
    attack: `wash trading: a miner pays itself, with ${burnt} of fees burnt`,
    measure: 'gain in parts of what was burnt (an honest idler: 0)',
    undefended: (run(() => [...burns, 0]) * pool) / burnt - 1,
    defended: (run(() => withCeiling) * pool) / burnt - 1,
    limit: -0.099,
    defence: 'only paid work scores, and never more than nine tenths of the fee burnt on it',
  };
}

function whale(seed: number): AttackOutcome {
  const run = (stakeCapPercentile: number) => {
    const earnings = simulateSubnet(
      planOf(seed, {
        validators: [...honestValidators(8, 0.4), { group: 'attacker', stake: 0.6, opinion: favouring(1, (miner) => miner === MINERS) }],
        miners: [...goodMiners(), { group: 'attacker', quality: () => 0 }],
        parameters: { stakeCapPercentile },
      }),
    );
    return of(earnings, 'attacker').share;
  };
  return {
    attack: 'a whale with 60 % of stake under one name weighs only its own worthless miner',
    measure: 'share of all emission',
    undefended: run(0),
    defended: run(88),
    limit: 0.2,
    defence: 'percentile cap on counted stake (off by default; a whale with many names passes it)',
  };
}

function planOf(seed: number, plan: Partial<SubnetPlan> & { validators: readonly SimulatedValidator[] }): SubnetPlan {
  return { miners: goodMiners(), epochs: EPOCHS, warmUp: WARM_UP, seed, ...plan };
}

function honestValidators(count: number, stake: number, noise = 0.05): SimulatedValidator[] {
  return Array.from({ length: count }, () => ({ group: 'honest', stake: stake / count, opinion: honest(noise) }));
}

function goodMiners(): SimulatedMiner[] {
  return Array.from({ length: MINERS }, () => ({ group: 'miners', quality: () => 1 }));
}

/** Each miner's quality is drawn anew every ten epochs, at times of its own. */
function driftingMiners(seed: number): SimulatedMiner[] {
  return Array.from({ length: MINERS }, (_, miner) => ({
    group: 'miners',
    quality: (epoch) => seededRandom(seed + miner * 1000 + Math.floor((epoch + (miner % 10)) / 10)).fraction() ** 2,
  }));
}

function of(earnings: readonly GroupEarnings[], group: string): GroupEarnings {
  return earnings.find((one) => one.group === group) as GroupEarnings;
}

/** The attacker's dividends per stake against those of honest validators. */
function dividendRatio(earnings: readonly GroupEarnings[]): number {
  const perStake = (group: string) => of(earnings, group).validatorShare / of(earnings, group).stakeShare;
  return perStake('attacker') / perStake('honest');
}
