import type { Profile } from '../src/chain/index.ts';

const TOKEN = 10n ** 18n;
const HOUR = 3600n;
const DAY = 24n * HOUR;

/** A network of friends: hourly proofs, own keys, delays of days. The tokens are still worthless. */
export const profile: Profile = {
  name: 'laptop',
  summary: 'A small network with own keys: hourly proofs, delays of hours to days, worthless tokens.',
  notSecure: false,
  token: { name: 'Millrace Laptop Token', symbol: 'lapMILL' },
  stableToken: 'development',
  allocations: [{ to: 'deployer', amount: 100_000_000n * TOKEN }],
  randomness: { staleAfterSeconds: HOUR },
  parameters: {
    // must cover the market's exposure: 25 periods of an hour and a challenge, 25.4 h
    'vault.withdrawalDelay': { value: 3n * DAY, min: 2n * DAY, max: 14n * DAY, maxStep: DAY, minIntervalSeconds: DAY },
    'vault.backerLossCapBps': { value: 5000n, min: 1000n, max: 9000n, maxStep: 500n, minIntervalSeconds: DAY },
    'vault.ownShareMinBps': { value: 1000n, min: 500n, max: 5000n, maxStep: 500n, minIntervalSeconds: DAY },
    'operators.rotationDelay': { value: DAY, min: HOUR, max: 14n * DAY, maxStep: DAY, minIntervalSeconds: DAY },
  },
  governor: {
    votingDelaySeconds: 3600,
    votingPeriodSeconds: 86_400,
    proposalThreshold: 10_000n * TOKEN,
    quorumPercent: 4n,
    timelockDelaySeconds: DAY,
  },
  possession: {
    period: 3600,
    window: 1200,
    freeze: 60,
    byBytes: 10,
    byWeight: 10,
    rotationMin: 1,
    rotationPeriods: 32,
    maxSlots: 1024,
    graceEvery: 48,
    maxMisses: 6,
  },
  channels: { feeBps: 100 },
  market: {
    activationDelay: 30,
    seedQuantum: 60,
    activationDeadline: 21_600,
    activationLeaves: 10,
    challengeWindow: 1200,
    challengeBond: TOKEN / 100n,
    faultFeeBps: 200,
    declaredFaultFeeBps: 50,
    maxFaultPeriods: 24,
    earlyEndFeeBps: 1000,
    leaveFeeBps: 2000,
    reporterRewardBps: 500,
    reporterRewardMax: TOKEN,
    replacementPeriods: 48,
    minPeriods: 24,
    maxPeriods: 17_520,
    minBond: TOKEN / 100n,
  },
  orderBook: {
    batchSeconds: 600,
    matchSeconds: 200,
    feeBps: 500,
    bountySeconds: 21_600,
    dealBond: TOKEN / 10n,
    claimBond: TOKEN / 2n,
    matcherTip: TOKEN / 100n,
  },
  rewards: {
    storageShareBps: 5000,
    retrievalShareBps: 5000,
    baseBps: 2000,
    streakPeriods: 168,
    vestSeconds: 30 * 86_400,
    bucketSeconds: 86_400,
  },
  checkers: {
    seatStake: 100n * TOKEN,
    fee: TOKEN / 100n,
    leaveSeconds: 86_400,
    drawn: 5,
    threshold: 3,
    missesMax: 10,
  },
};
