import type { Profile } from '../src/chain/index.ts';

const TOKEN = 10n ** 18n;
const DAY = 86_400n;

/** Daily proofs and delays of weeks. Whoever deploys names the stable token and the first holders. */
export const profile: Profile = {
  name: 'production',
  summary: 'Production: daily proofs, delays of weeks, a real stable token.',
  notSecure: false,
  token: { name: 'Millrace', symbol: 'MILL' },
  stableToken: 'existing',
  allocations: [],
  randomness: { staleAfterSeconds: DAY },
  parameters: {
    // must cover the market's exposure: 15 periods of a day and a challenge
    'vault.withdrawalDelay': { value: 28n * DAY, min: 21n * DAY, max: 90n * DAY, maxStep: 7n * DAY, minIntervalSeconds: 30n * DAY },
    'vault.backerLossCapBps': { value: 5000n, min: 1000n, max: 9000n, maxStep: 500n, minIntervalSeconds: 30n * DAY },
    'vault.ownShareMinBps': { value: 1000n, min: 500n, max: 5000n, maxStep: 500n, minIntervalSeconds: 30n * DAY },
    'operators.rotationDelay': { value: 7n * DAY, min: 2n * DAY, max: 30n * DAY, maxStep: 3n * DAY, minIntervalSeconds: 30n * DAY },
  },
  governor: {
    votingDelaySeconds: 86_400,
    votingPeriodSeconds: 7 * 86_400,
    proposalThreshold: 100_000n * TOKEN,
    quorumPercent: 4n,
    timelockDelaySeconds: 7n * DAY,
  },
  possession: {
    period: 86_400,
    window: 7200,
    freeze: 600,
    byBytes: 10,
    byWeight: 10,
    rotationMin: 2,
    rotationPeriods: 64,
    maxSlots: 2048,
    graceEvery: 30,
    maxMisses: 5,
  },
  channels: { feeBps: 100 },
  market: {
    activationDelay: 120,
    seedQuantum: 300,
    activationDeadline: 172_800,
    activationLeaves: 20,
    challengeWindow: 14_400,
    challengeBond: TOKEN / 10n,
    faultFeeBps: 200,
    declaredFaultFeeBps: 50,
    maxFaultPeriods: 14,
    earlyEndFeeBps: 1000,
    leaveFeeBps: 2000,
    reporterRewardBps: 500,
    reporterRewardMax: 50n * TOKEN,
    replacementPeriods: 30,
    minPeriods: 30,
    maxPeriods: 1825,
    minBond: TOKEN / 10n,
  },
  orderBook: {
    batchSeconds: 3600,
    matchSeconds: 1200,
    feeBps: 500,
    bountySeconds: 172_800,
    dealBond: TOKEN,
    claimBond: 5n * TOKEN,
    matcherTip: TOKEN / 10n,
  },
  checkers: {
    seatStake: 1000n * TOKEN,
    fee: TOKEN / 10n,
    leaveSeconds: 7 * 86_400,
    drawn: 7,
    threshold: 4,
    missesMax: 20,
  },
};
