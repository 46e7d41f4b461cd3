import type { Profile } from '../src/chain/index.ts';

const TOKEN = 10n ** 18n;
const HOUR = 3600n;

/**
 * A whole network in minutes, for development and tests. NOT SECURE: publicly known keys, periods of five minutes, a stable token that
 * anybody mints.
 */
export const profile: Profile = {
  name: 'dev',
  summary: 'Development: periods of 5 minutes, publicly known keys, worthless tokens. NOT SECURE.',
  notSecure: true,
  token: { name: 'Millrace Development Token', symbol: 'devMILL' },
  stableToken: 'development',
  allocations: [{ to: 'deployer', amount: 100_000_000n * TOKEN }],
  randomness: { staleAfterSeconds: 300n },
  parameters: {
    // must cover the market's exposure: 7 periods and a challenge, 2,235 s
    'vault.withdrawalDelay': { value: HOUR, min: 2400n, max: 24n * HOUR, maxStep: HOUR, minIntervalSeconds: 600n },
    'vault.backerLossCapBps': { value: 5000n, min: 1000n, max: 9000n, maxStep: 500n, minIntervalSeconds: 600n },
    'vault.ownShareMinBps': { value: 1000n, min: 500n, max: 5000n, maxStep: 500n, minIntervalSeconds: 600n },
    'operators.rotationDelay': { value: 600n, min: 60n, max: 24n * HOUR, maxStep: HOUR, minIntervalSeconds: 600n },
  },
  governor: {
    votingDelaySeconds: 60,
    votingPeriodSeconds: 600,
    proposalThreshold: 1000n * TOKEN,
    quorumPercent: 4n,
    timelockDelaySeconds: 600n,
  },
  possession: {
    period: 300,
    window: 150,
    freeze: 10,
    byBytes: 4,
    byWeight: 4,
    rotationMin: 1,
    rotationPeriods: 32,
    maxSlots: 2048,
    graceEvery: 12,
    maxMisses: 3,
  },
  channels: { feeBps: 100 },
  market: {
    activationDelay: 2,
    seedQuantum: 2,
    activationDeadline: 900,
    activationLeaves: 4,
    challengeWindow: 120,
    challengeBond: TOKEN / 1000n,
    faultFeeBps: 500,
    declaredFaultFeeBps: 100,
    maxFaultPeriods: 6,
    earlyEndFeeBps: 1000,
    leaveFeeBps: 2000,
    reporterRewardBps: 500,
    reporterRewardMax: TOKEN / 20n,
    replacementPeriods: 4,
    minPeriods: 2,
    maxPeriods: 10_000,
    minBond: TOKEN / 1000n,
  },
  orderBook: {
    batchSeconds: 12,
    matchSeconds: 6,
    feeBps: 500,
    bountySeconds: 600,
    dealBond: TOKEN / 100n,
    claimBond: TOKEN / 20n,
    matcherTip: TOKEN / 1000n,
  },
  rewards: {
    storageShareBps: 5000,
    retrievalShareBps: 5000,
    baseBps: 2000,
    streakPeriods: 12,
    vestSeconds: 3600,
    bucketSeconds: 300,
  },
  checkers: {
    seatStake: 10n * TOKEN,
    fee: TOKEN / 1000n,
    leaveSeconds: 600,
    drawn: 3,
    threshold: 2,
    missesMax: 10,
  },
};
