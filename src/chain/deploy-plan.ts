import { existsSync, readFileSync } from 'node:fs';
import { type Address, type Hex, keccak256, toHex, zeroAddress } from 'viem';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { buildHash } from './build.ts';
import type { ModuleName } from './contracts.generated.ts';
import { askedOf, type DeployAsked, requireAsked } from './deploy-asked.ts';
import type { Allocation, Profile } from './profile.ts';
import type { ChainSurvey } from './survey.ts';

/** What was decided when a deployment began, and how far it came; kept in a file so that a second run goes on. */
export interface DeployPlan {
  version: 1;
  /** Part of the idempotency keys of all its transactions. */
  planId: string;
  /** keccak256 of all inputs: a run with other inputs is refused. */
  inputsHash: Hex;
  /** What was asked for, by option; plans of earlier versions do not say. */
  asked?: DeployAsked;
  chainId: number;
  genesisHash: Hex;
  deployer: Address;
  /** Protocol time 0, seconds. */
  genesis: number;
  contracts: Partial<Record<ModuleName, { address: Address; block: number }>>;
}

/** What a deployment is made from. */
export interface DeployInputs {
  name: string;
  profile: Profile;
  survey: ChainSurvey;
  deployer: Address;
  allocations: readonly Allocation[];
  /** First holders of the compute network's token. */
  computeLaunch: readonly Allocation[];
  /** The existing stable token, where the profile wants one. */
  stableToken: Address | undefined;
}

/** A contract to create: its constructor's arguments once the earlier ones exist. */
export interface CreateStep {
  name: ModuleName;
  args(at: (name: ModuleName) => Address): readonly unknown[];
}

/** The nonce with which a new account that deploys creates the emission: its place in {@link createSteps}. */
export const EMISSION_NONCE = 3n;

const RANDOMNESS_SOURCES = { 'prev-randao': 0, 'trusted-operator': 1, beacon: 2 } as const;

/** The contracts in the order in which they are created (decision 0002). Five more come out of these: `networkToken`, `timelock`,
 * `inferenceToken`, `computeToken`, and `storageFile`, which all files' accounts are clones of. */
export function createSteps(inputs: DeployInputs, genesis: number): CreateStep[] {
  const { profile, survey, deployer, allocations, computeLaunch, stableToken } = inputs;
  const { name: tokenName, symbol } = profile.token;
  const { source, beacon } = survey.randomness;
  const parameters = Object.entries(profile.parameters).map(([key, bounds]) => ({ key: toHex(key, { size: 32 }), ...bounds }));
  const holders = holdersOf(allocations, deployer);
  const steps: CreateStep[] = [
    { name: 'registry', args: () => [deployer] },
    { name: 'parameters', args: (at) => [at('registry'), parameters] },
    { name: 'operators', args: (at) => [at('parameters')] },
    { name: 'emission', args: (at) => [at('registry'), tokenName, symbol, holders] },
    { name: 'stakeVault', args: (at) => [at('networkToken'), at('registry'), at('operators'), at('parameters')] },
    { name: 'governor', args: (at) => [at('stakeVault'), profile.governor] },
    {
      name: 'randomness',
      args: () => [RANDOMNESS_SOURCES[source], beacon ?? zeroAddress, profile.randomness.staleAfterSeconds],
    },
    { name: 'rails', args: (at) => [at('operators')] },
    {
      name: 'possession',
      args: (at) => [{ genesis: BigInt(genesis), ...profile.possession }, at('registry'), at('operators'), at('randomness')],
    },
    {
      name: 'storageMarket',
      args: (at) => [
        profile.market,
        ...(['registry', 'operators', 'stakeVault', 'rails', 'possession', 'randomness', 'networkToken'] as const).map(at),
      ],
    },
    {
      name: 'rewards',
      args: (at) => [profile.rewards, ...(['registry', 'operators', 'possession', 'storageMarket', 'emission'] as const).map(at)],
    },
    { name: 'dealDesk', args: (at) => [at('storageMarket'), at('operators')] },
    {
      name: 'checkers',
      args: (at) => [profile.checkers, ...(['storageMarket', 'operators', 'stakeVault', 'rails', 'randomness'] as const).map(at)],
    },
    {
      name: 'orderBatches',
      args: (at) => (['storageMarket', 'possession', 'operators', 'stakeVault', 'rails'] as const).map(at),
    },
    {
      name: 'orderBook',
      args: (at) => [
        { genesis: BigInt(genesis), ...profile.orderBook },
        ...(['storageMarket', 'possession', 'operators', 'stakeVault', 'rails', 'checkers', 'orderBatches'] as const).map(at),
      ],
    },
    { name: 'jury', args: (at) => [profile.jury, ...(['operators', 'stakeVault', 'randomness'] as const).map(at)] },
    { name: 'channels', args: (at) => [at('networkToken'), profile.channels.feeBps] },
  ];
  if (stableToken === undefined) steps.push({ name: 'stableToken', args: () => [] });
  steps.push({
    name: 'computeEmission',
    args: (at) => [at('registry'), profile.computeToken.name, profile.computeToken.symbol, holdersOf(computeLaunch, deployer)],
  });
  return [...steps, ...inferenceSteps(profile), ...computeSteps(profile)];
}

function holdersOf(allocations: readonly Allocation[], deployer: Address): { to: Address; amount: bigint }[] {
  return allocations.map(({ to, amount }) => ({ to: to === 'deployer' ? deployer : to, amount }));
}

/** The inference network's contracts (decision 0018). `inferenceToken` comes out of `subnetEmission`. */
function inferenceSteps(profile: Profile): CreateStep[] {
  const { inferenceToken, emissionShares, subnets, subnetEpochs, backerIncome, receiptCourt } = profile;
  return [
    { name: 'subnetEmission', args: (at) => [at('registry'), inferenceToken.name, inferenceToken.symbol] },
    { name: 'emissionShares', args: (at) => [at('registry'), at('subnetEmission'), emissionShares.halfLifeSeconds] },
    { name: 'subnets', args: (at) => [subnets, ...(['registry', 'operators', 'stakeVault', 'subnetEmission'] as const).map(at)] },
    { name: 'weightsBoard', args: (at) => [at('subnets')] },
    {
      name: 'backerIncome',
      args: (at) => [
        backerIncome.takeBps,
        backerIncome.takeDelaySeconds,
        ...(['registry', 'stakeVault', 'operators'] as const).map(at),
        (['inferenceToken', 'networkToken', 'stableToken', 'computeToken'] as const).map(at),
      ],
    },
    { name: 'receiptCourt', args: (at) => [receiptCourt, ...(['operators', 'stakeVault', 'rails', 'jury'] as const).map(at)] },
    { name: 'yumaCore', args: () => [] },
    {
      name: 'subnetEpochs',
      args: (at) => [
        subnetEpochs,
        ...(['registry', 'operators', 'subnets', 'weightsBoard', 'subnetEmission', 'yumaCore'] as const).map(at),
      ],
    },
  ];
}

/** The compute network's contracts (decisions 0028 to 0030) after its emission, of which `computeToken` comes. */
function computeSteps(profile: Profile): CreateStep[] {
  const { buybackAuction, computeMarket, leaseProbers, computeHealth, computeRewards } = profile;
  const { auditors, jobRules, jobDisputes, stateDemands } = profile;
  return [
    { name: 'buybackAuction', args: (at) => [buybackAuction, ...(['rails', 'stableToken', 'computeToken'] as const).map(at)] },
    {
      name: 'computeMarket',
      args: (at) => [
        computeMarket,
        ...(['registry', 'operators', 'stakeVault', 'rails', 'computeToken', 'stableToken', 'buybackAuction'] as const).map(at),
      ],
    },
    {
      name: 'leaseProbers',
      args: (at) => [
        leaseProbers,
        ...(['computeMarket', 'operators', 'stakeVault', 'rails', 'randomness', 'stableToken'] as const).map(at),
      ],
    },
    {
      name: 'computeHealth',
      args: (at) => [computeHealth, ...(['computeMarket', 'operators', 'stakeVault', 'randomness', 'computeEmission'] as const).map(at)],
    },
    { name: 'auditors', args: (at) => [auditors, ...(['registry', 'operators', 'stakeVault'] as const).map(at)] },
    { name: 'jobRules', args: (at) => [jobRules, ...(['auditors', 'jury', 'stableToken'] as const).map(at)] },
    {
      name: 'computeJobs',
      args: (at) => (['registry', 'jobRules', 'randomness', 'rails', 'computeToken', 'buybackAuction'] as const).map(at),
    },
    { name: 'leaseFees', args: (at) => [at('computeMarket'), at('rails')] },
    { name: 'jobFees', args: (at) => [at('computeJobs')] },
    {
      name: 'computeRewards',
      args: (at) => [
        computeRewards,
        ...(['computeHealth', 'computeEmission', 'buybackAuction', 'backerIncome'] as const).map(at),
        [at('leaseFees'), at('jobFees')],
      ],
    },
    { name: 'jobDisputes', args: (at) => [jobDisputes, at('computeJobs')] },
    { name: 'stateDemands', args: (at) => [stateDemands, at('computeJobs')] },
  ];
}

/**
 * The plan of an earlier run of the same deployment, or a new one, written before anything is sent.
 * @throws deploy-conflict, deploy-plan-broken
 */
export function openDeployPlan(path: string, inputs: DeployInputs, newPlanId: string): DeployPlan {
  const inputsHash = hashInputs(inputs);
  if (!existsSync(path)) {
    const { chainId, genesisHash, timestamp } = inputs.survey;
    const plan: DeployPlan = {
      version: 1,
      planId: newPlanId,
      inputsHash,
      asked: askedOfInputs(inputs),
      chainId,
      genesisHash,
      deployer: inputs.deployer,
      genesis: timestamp,
      contracts: {},
    };
    writeDeployPlan(path, plan);
    return plan;
  }
  const plan = readPlan(path);
  if (plan.inputsHash === inputsHash) return plan;
  requireAsked(plan.asked ?? {}, askedOfInputs(inputs));
  throw new MillraceError('deploy-conflict', {
    actor: 'caller',
    message: `${path} holds another deployment that was begun: other chain, deployer, build or options`,
    values: { path, chainId: plan.chainId, deployer: plan.deployer },
    hint: 'Finish that one with the same options, or deploy into another data folder.',
  });
}

/** What the plan of a finished deployment says was asked for; nothing where there is none, or one that does not say. */
export function readAsked(path: string): DeployAsked {
  try {
    return readPlan(path).asked ?? {};
  } catch {
    return {};
  }
}

/** Keeps a plan, atomically. */
export function writeDeployPlan(path: string, plan: DeployPlan): void {
  writeFileDurably(path, `${JSON.stringify(plan, null, 2)}\n`, { mode: 0o600 });
}

function readPlan(path: string): DeployPlan {
  try {
    const plan = JSON.parse(readFileSync(path, 'utf8')) as DeployPlan;
    if (plan.version === 1 && typeof plan.planId === 'string' && typeof plan.contracts === 'object') return plan;
  } catch {
    // reported below
  }
  throw new MillraceError('deploy-plan-broken', {
    actor: 'host',
    message: `${path} is no deployment plan of this version`,
    values: { path },
    hint: 'Move it away to begin a new deployment.',
  });
}

function askedOfInputs({ survey, ...rest }: DeployInputs): DeployAsked {
  return askedOf({ ...rest, beacon: survey.randomness.beacon });
}

function hashInputs({ survey, ...rest }: DeployInputs): Hex {
  const { chainId, genesisHash, randomness } = survey;
  const inputs = { ...rest, chainId, genesisHash, randomness, build: buildHash() };
  return keccak256(toHex(JSON.stringify(inputs, (_, value) => (typeof value === 'bigint' ? value.toString() : value))));
}
