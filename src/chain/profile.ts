import { existsSync } from 'node:fs';
import type { Address } from 'viem';
import { MillraceError } from '../errors.ts';

/** A number that a vote may move: first value, hard bounds, greatest step, least time between two changes (seconds). */
export interface ParameterBounds {
  value: bigint;
  min: bigint;
  max: bigint;
  maxStep: bigint;
  minIntervalSeconds: bigint;
}

/** What exists of the network's token from the start. `deployer` stands for the account that deploys. Base units. */
export interface Allocation {
  to: Address | 'deployer';
  amount: bigint;
}

/** Everything that differs between networks of different earnest, as data. Money in base units, times in seconds, shares in basis points. */
export interface Profile {
  name: string;
  /** One sentence for people. */
  summary: string;
  /** True when the network works but protects nothing: short times, public keys. */
  notSecure: boolean;
  token: { name: string; symbol: string };
  /** `development` deploys a worthless stable token that anyone may mint; `existing` wants the address of a real one. */
  stableToken: 'development' | 'existing';
  /** Empty: whoever deploys must say. */
  allocations: readonly Allocation[];
  /** `Randomness`: how much later the replacement of a time is that has gone stale. */
  randomness: { staleAfterSeconds: bigint };
  /** `Parameters`, by key. */
  parameters: Readonly<Record<string, ParameterBounds>>;
  /** `StakeGovernor.Rules`. */
  governor: {
    votingDelaySeconds: number;
    votingPeriodSeconds: number;
    proposalThreshold: bigint;
    quorumPercent: bigint;
    timelockDelaySeconds: bigint;
  };
  /** `IPossession.Config` without its genesis. */
  possession: {
    period: number;
    window: number;
    freeze: number;
    byBytes: number;
    byWeight: number;
    rotationMin: number;
    rotationPeriods: number;
    maxSlots: number;
    graceEvery: number;
    maxMisses: number;
  };
  /** `X402BatchSettlement`: the share of what receivers are paid in the network's token that is burnt. */
  channels: { feeBps: number };
  /** `IStorageMarket.Config`. */
  market: {
    activationDelay: number;
    seedQuantum: number;
    activationDeadline: number;
    activationLeaves: number;
    challengeWindow: number;
    challengeBond: bigint;
    faultFeeBps: number;
    declaredFaultFeeBps: number;
    maxFaultPeriods: number;
    earlyEndFeeBps: number;
    leaveFeeBps: number;
    reporterRewardBps: number;
    reporterRewardMax: bigint;
    replacementPeriods: number;
    minPeriods: number;
    maxPeriods: number;
    minBond: bigint;
  };
  /** As in IOrderBook.Config. */
  orderBook: {
    batchSeconds: number;
    matchSeconds: number;
    feeBps: number;
    bountySeconds: number;
    dealBond: bigint;
    claimBond: bigint;
    matcherTip: bigint;
  };
  /** `IStorageRewards.Config`. */
  rewards: {
    storageShareBps: number;
    retrievalShareBps: number;
    baseBps: number;
    streakPeriods: number;
    vestSeconds: number;
    bucketSeconds: number;
  };
  /** `SubnetEmission`'s token. */
  inferenceToken: { name: string; symbol: string };
  /** `BurntShares`: after how long a burn counts half for a subnet's share of the emission. */
  emissionShares: { halfLifeSeconds: bigint };
  /** `SubnetBase.Config`. */
  subnets: {
    tempoMin: number;
    tempoMax: number;
    changeSeconds: number;
    subnetsMax: number;
    uidsMax: number;
    minNonImmune: number;
    lockSeconds: number;
    idleSeconds: number;
    lockMin: bigint;
    lockIntervalSeconds: number;
    priceHalfLifeSeconds: number;
    priceMin: bigint;
    priceMax: bigint;
    priceFirst: bigint;
    barEpochs: number;
  };
  /** `ISubnetEpochs.Config`. */
  subnetEpochs: { windowBps: number; windowMinSeconds: number; bondMin: bigint; resetEpochs: number };
  /** `BackerIncome`: what operators keep unless they say otherwise, and how long they say it before. */
  backerIncome: { takeBps: number; takeDelaySeconds: bigint };
  /** `IJury.Config`; `voteFee` in the chain's own coin. */
  jury: {
    seatStake: bigint;
    penalty: bigint;
    voteFee: bigint;
    votes: number;
    appealsMax: number;
    leaveSeconds: number;
    drawDelay: number;
    seedQuantum: number;
    drawSeconds: number;
    commitSeconds: number;
    revealSeconds: number;
    appealSeconds: number;
  };
  /** `ComputeEmission`'s token and who holds its 500 million at launch; empty: whoever deploys must say. */
  computeToken: { name: string; symbol: string; launch: readonly Allocation[] };
  /** `IBuybackAuction.Config`: lots in base units of the stable token, prices in native base units for 1e18 of them. */
  buybackAuction: {
    lotMin: bigint;
    lotMax: bigint;
    floorPrice: bigint;
    firstPrice: bigint;
    halfLifeSeconds: number;
    noticeSeconds: number;
    patienceSeconds: number;
  };
  /** `IComputeMarket.Config`. */
  computeMarket: {
    meterSeconds: number;
    speakSeconds: number;
    noticeSeconds: number;
    downBpsMax: number;
    leadSeconds: number;
    leaseSecondsMin: number;
    collateralSeconds: number;
  };
  /** `ILeaseProbers.Config`; the fee in base units of the stable token. */
  leaseProbers: {
    seatStake: bigint;
    fee: bigint;
    leaveSeconds: number;
    leadSeconds: number;
    seedQuantum: number;
    drawn: number;
    threshold: number;
    missesMax: number;
  };
  /** `IComputeHealth.Config`. */
  computeHealth: {
    hourSeconds: number;
    reportSeconds: number;
    proposeSeconds: number;
    windowSeconds: number;
    rounds: number;
    statementsMin: number;
    rateWeight: number;
    memoryWeight: number;
    bandwidthRef: number;
    latencyRef: number;
    slotSeconds: number;
    deadlineMs: number;
    rateFillBps: number;
    memoryFillBps: number;
    bond: bigint;
    deviceStake: bigint;
  };
  /** `IComputeRewards.Config`. */
  computeRewards: { shareBps: number; baseBps: number; streakHours: number; vestSeconds: number };
  /** `IAuditors.Config`. */
  auditors: { seatStake: bigint; liePenalty: bigint; silencePenalty: bigint; leaveSeconds: number };
  /** `IComputeJobs.Config`; least collateral by class: none, fingerprint, exact output, strict. */
  jobRules: {
    collateralMin: readonly [bigint, bigint, bigint, bigint];
    nativeSegmentFeeMin: bigint;
    stableSegmentFeeMin: bigint;
    latePenaltyBps: number;
    rewardBps: number;
    compensationBps: number;
    makerBps: number;
    jurorsMin: number;
    auditorsMin: number;
    drawDelay: number;
    seedQuantum: number;
    drawSeconds: number;
    openSeconds: number;
    graceSeconds: number;
    runSecondsMax: number;
    auditSecondsMin: number;
    auditSecondsMax: number;
    challengeSecondsMin: number;
    challengeSecondsMax: number;
  };
  /** `IJobDisputes.Config`. */
  jobDisputes: { bond: bigint; moveSeconds: number };
  /** `IStateDemands.Config`. */
  stateDemands: {
    bond: bigint;
    fee: bigint;
    members: number;
    drawDelay: number;
    seedQuantum: number;
    drawSeconds: number;
    deliverSeconds: number;
    stateBytesMax: number;
  };
  /** `IReceiptCourt.Config`. */
  receiptCourt: {
    bond: bigint;
    slash: bigint;
    caseBond: bigint;
    rewardMax: bigint;
    rewardBps: number;
    challengeBps: number;
    leaveSeconds: number;
  };
  /** As in ICheckers.Config. */
  checkers: {
    seatStake: bigint;
    fee: bigint;
    leaveSeconds: number;
    drawn: number;
    threshold: number;
    missesMax: number;
  };
}

/** The names of the profiles, least secure first; each is a file in `profiles/`. */
export const PROFILE_NAMES = ['dev', 'laptop', 'production'] as const;

/**
 * A profile by name.
 * @throws unknown-profile
 */
export async function loadProfile(name: string): Promise<Profile> {
  const place = new URL(`../../profiles/${name}.ts`, import.meta.url);
  if (!(PROFILE_NAMES as readonly string[]).includes(name) || !existsSync(place)) {
    throw new MillraceError('unknown-profile', {
      actor: 'caller',
      message: `Got profile "${name.slice(0, 40)}", expected one of ${PROFILE_NAMES.join(', ')}`,
      values: { got: name.slice(0, 40) },
    });
  }
  return ((await import(place.href)) as { profile: Profile }).profile;
}
