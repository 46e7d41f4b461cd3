import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Address, encodeFunctionData, type Hex, isAddress, keccak256, type PublicClient, toHex } from 'viem';
import { MillraceError } from '../errors.ts';
import { type Logger, silentLogger } from '../log.ts';
import { creationData, isOurCode } from './build.ts';
import { connectChain, createChainTransport, verifyManifest } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { askedOf, requireAsked, whatIsThere } from './deploy-asked.ts';
import { createSteps, type DeployInputs, type DeployPlan, openDeployPlan, readAsked, writeDeployPlan } from './deploy-plan.ts';
import { chainError } from './errors.ts';
import { findGenesisChannels } from './genesis-contracts.ts';
import { type Manifest, readManifest, signManifest, writeManifest } from './manifest.ts';
import { checkPowers } from './powers.ts';
import { type Allocation, loadProfile, type Profile } from './profile.ts';
import { createSender, type Sender } from './sender.ts';
import type { Signer } from './signer.ts';
import { type RandomnessDeclaration, surveyChain } from './survey.ts';

/** How a network is deployed. */
export interface DeployOptions extends RandomnessDeclaration {
  rpcUrl: string;
  /** Name of the network: lower-case letters, digits and hyphens. */
  name: string;
  /** Name of the profile. */
  profile: string;
  /** The deployer: pays for gas, and holds no power when this is done. */
  signer: Signer;
  /** Keeps the plan (`deploy.json`) and the sender's journal (`keys/`). */
  folder: string;
  /** Where `network.json` goes. */
  manifestPath: string;
  /** First holders of the token; default: the profile's. */
  allocations?: readonly Allocation[];
  /** First holders of the compute network's token, 500 million in all; default: the profile's. */
  computeLaunch?: readonly Allocation[];
  /** An existing stable token, where the profile wants one. */
  stableToken?: Address;
  /** Votes of the first jury of a dispute, odd; default: the profile's. Jobs of an audited class then want one juror more than that. */
  juryVotes?: number;
  /** Blocks that each receipt must be deep. Default 1 on the embedded chain, else 2. */
  confirmations?: number;
  log?: Logger;
}

/** After two appeals of such a jury the last one has as many votes as the contract draws at most. */
const JURY_VOTES_MAX = 15;
/** Modules whose names may slash stake. */
const SLASHERS: readonly string[] = [
  'storageMarket',
  'checkers',
  'orderBook',
  'jury',
  'receiptCourt',
  'computeMarket',
  'leaseProbers',
  'computeHealth',
  'auditors',
  'computeJobs',
];

/**
 * Puts all contracts of a network on a chain, seals the registry, checks that no plain account holds a power, and writes the signed
 * manifest. Never compiles. It can be repeated (a finished network is verified, also against every option, and returned) and resumed: stopped at
 * any point, also by `kill -9`, the next run with the same folder and options goes on where it was and creates nothing twice.
 * @throws randomness-unsafe, history-too-short, profile-not-secure, deploy-conflict, allocations-missing, stable-token-missing, no-funds,
 *   power-left-with-account, chain-unreachable
 */
export async function deployNetwork(options: DeployOptions): Promise<Manifest> {
  const { rpcUrl, signer, folder, manifestPath, log = silentLogger } = options;
  const transport = createChainTransport(rpcUrl);
  const planPath = join(folder, 'deploy.json');
  if (existsSync(manifestPath)) {
    const manifest = readManifest(manifestPath);
    await verifyManifest(transport, manifest);
    await verifyOptions(options, { manifest, transport, planPath });
    return manifest;
  }
  const inputs = await collectInputs(options, transport);
  const plan = openDeployPlan(planPath, inputs, randomUUID());
  const sender = createSender({
    client: deployClient(transport, inputs),
    signer,
    journalFolder: join(folder, 'keys'),
    log,
    confirmations: options.confirmations ?? (inputs.survey.randomness.source === 'trusted-operator' ? 1 : 2),
  });
  try {
    await createContracts({ transport, inputs, plan, planPath, sender, log });
    await fillRegistry({ transport, plan, sender });
    const manifest = await signManifest(await describeNetwork(transport, inputs, plan), signer);
    await checkPowers(await connectChain({ rpcUrl, manifest }));
    writeManifest(manifestPath, manifest);
    log.info('network-deployed', { network: manifest.name, chainId: manifest.chainId, profile: manifest.profile });
    return manifest;
  } finally {
    sender.close();
  }
}

/** A finished network is what the options say, as far as the chain, the manifest and the plan on this disk can tell. */
async function verifyOptions(
  options: DeployOptions,
  { manifest, transport, planPath }: { manifest: Manifest; transport: PublicClient; planPath: string },
): Promise<void> {
  const profile = withJuryVotes(await loadProfile(options.profile), options.juryVotes);
  const { allocations = profile.allocations, computeLaunch = profile.computeToken.launch } = options;
  const there = { ...readAsked(planPath), ...(await whatIsThere(transport, manifest, profile)) };
  requireAsked(there, askedOf({ ...options, profile, allocations, computeLaunch }));
}

async function collectInputs(options: DeployOptions, transport: PublicClient): Promise<DeployInputs> {
  const profile = withJuryVotes(await loadProfile(options.profile), options.juryVotes);
  const allocations = options.allocations ?? profile.allocations;
  if (allocations.length === 0) throw holdersMissing(profile.name, 'the token', '--allocations');
  const computeLaunch = options.computeLaunch ?? profile.computeToken.launch;
  if (computeLaunch.length === 0) throw holdersMissing(profile.name, 'the compute network’s token', '--compute-allocations');
  const wanted = profile.stableToken === 'existing';
  const given = options.stableToken;
  if (wanted ? given === undefined || !isAddress(given) : given !== undefined) {
    throw new MillraceError('stable-token-missing', {
      actor: 'caller',
      message: wanted
        ? `Profile ${profile.name} needs the address of a stable token`
        : `Profile ${profile.name} deploys its own stable token`,
      values: { profile: profile.name, stableToken: given },
      hint: wanted ? 'Name it with --stable-token ADDRESS.' : 'Leave out --stable-token.',
    });
  }
  const survey = await surveyChain(transport, profile, options);
  return { name: options.name, profile, survey, deployer: options.signer.address, allocations, computeLaunch, stableToken: given };
}

/** Who accuses does not judge: one juror more than votes, beside the operator of the job. */
function withJuryVotes(profile: Profile, votes: number | undefined): Profile {
  if (votes === undefined) return profile;
  if (!Number.isInteger(votes) || votes % 2 === 0 || votes < 1 || votes > JURY_VOTES_MAX) {
    throw new MillraceError('bad-jury-votes', {
      actor: 'caller',
      message: `Got a jury of ${votes} votes, expected an odd number from 1 to ${JURY_VOTES_MAX}`,
      values: { got: votes, max: JURY_VOTES_MAX },
    });
  }
  return { ...profile, jury: { ...profile.jury, votes }, jobRules: { ...profile.jobRules, jurorsMin: votes + 1 } };
}

function holdersMissing(profile: string, token: string, flag: string): MillraceError {
  return new MillraceError('allocations-missing', {
    actor: 'caller',
    message: `Profile ${profile} has no first holders of ${token}: without any, nobody could stake or pay`,
    values: { profile, token },
    hint: `Name them with ${flag} FILE.`,
  });
}

/** What the sender needs before there is a manifest. */
function deployClient(transport: PublicClient, { survey }: DeployInputs): Parameters<typeof createSender>[0]['client'] {
  return {
    chainId: survey.chainId,
    public: transport,
    manifest: { genesisHash: survey.genesisHash, randomness: survey.randomness, modules: {} },
    pollIntervalMs: () => (survey.randomness.source === 'trusted-operator' ? 100 : 1000),
    address: (name) => {
      throw new MillraceError('unknown-module', {
        actor: 'bug',
        message: `No module ${name} before the deployment is done`,
        values: { name },
      });
    },
  };
}

interface Deployment {
  transport: PublicClient;
  inputs: DeployInputs;
  plan: DeployPlan;
  sender: Sender;
}

async function createContracts(deployment: Deployment & { planPath: string; log: Logger }): Promise<void> {
  const { transport, inputs, plan, planPath, sender, log } = deployment;
  const at = (name: ModuleName) => plannedAddress(plan, name);
  const keep = (name: ModuleName, address: Address, block: number) => {
    plan.contracts[name] = { address, block };
    writeDeployPlan(planPath, plan);
  };
  if (inputs.stableToken !== undefined) keep('stableToken', inputs.stableToken, 0);
  for (const step of createSteps(inputs, plan.genesis)) {
    if (step.name === 'channels' && plan.contracts.channels === undefined) {
      const standing = await findGenesisChannels(transport, { feeToken: at('networkToken'), feeBps: inputs.profile.channels.feeBps });
      if (standing !== undefined) keep('channels', standing, 0);
    }
    if (plan.contracts[step.name] === undefined) {
      // If the run dies between the receipt and this file, the sender's journal gives the same receipt again.
      const data = creationData(step.name, step.args(at));
      const receipt = await sender.send({ to: null, data, key: `deploy/${plan.planId}/${step.name}` });
      keep(step.name, receipt.contractAddress as Address, Number(receipt.blockNumber));
      log.info('contract-created', { name: step.name, address: receipt.contractAddress, gasUsed: receipt.gasUsed });
    }
    await checkCode(transport, step.name, at(step.name));
    // An emission's constructor creates its token, the governor's the timelock, the order book's what its files are clones of.
    if (step.name === 'emission') await keepInner('networkToken', 'emission', 'token');
    if (step.name === 'governor') await keepInner('timelock', 'governor', 'timelock');
    if (step.name === 'subnetEmission') await keepInner('inferenceToken', 'subnetEmission', 'token');
    if (step.name === 'computeEmission') await keepInner('computeToken', 'computeEmission', 'token');
    if (step.name === 'orderBook') await keepInner('storageFile', 'orderBook', 'fileImplementation');
  }

  async function keepInner(
    name: ModuleName,
    outer: 'computeEmission' | 'emission' | 'governor' | 'orderBook' | 'subnetEmission',
    functionName: 'token' | 'timelock' | 'fileImplementation',
  ): Promise<void> {
    const request = { address: at(outer), abi: abis[outer], functionName } as Parameters<PublicClient['readContract']>[0];
    const address = (await transport
      .readContract(request)
      .catch((error) => Promise.reject(chainError(error, `Reading ${outer}.${functionName}`)))) as Address;
    if (plan.contracts[name] === undefined) keep(name, address, plan.contracts[outer]?.block ?? 0);
    await checkCode(transport, name, address);
  }
}

/** Names every module in the registry, vault before slashers (they are checked against it), and then seals it for ever. */
async function fillRegistry({ transport, plan, sender }: Pick<Deployment, 'transport' | 'plan' | 'sender'>): Promise<void> {
  const registry = plannedAddress(plan, 'registry');
  const read = async (functionName: 'isSealed' | 'isSlasher' | 'get', args: readonly unknown[] = []): Promise<unknown> =>
    transport.readContract({ address: registry, abi: abis.registry, functionName, args } as never).catch(() => undefined);
  if ((await read('isSealed')) === true) return;
  const register = async (name: ModuleName) => {
    const address = plannedAddress(plan, name);
    const slasher = SLASHERS.includes(name);
    const isSet = ((await read('get', [nameWord(name)])) as Address | undefined) === address;
    if (isSet && (!slasher || (await read('isSlasher', [address])) === true)) return;
    await callRegistry('set', [nameWord(name), address, slasher], name);
  };
  const names = (Object.keys(plan.contracts) as ModuleName[]).filter((name) => name !== 'registry');
  const late = ['stakeVault', ...SLASHERS];
  await register('stakeVault');
  await Promise.all(names.filter((name) => !late.includes(name)).map(register));
  for (const name of names.filter((slasher) => SLASHERS.includes(slasher))) await register(name);
  await callRegistry('seal', [], 'seal');

  async function callRegistry(functionName: 'set' | 'seal', args: readonly unknown[], label: string): Promise<void> {
    const data = encodeFunctionData({ abi: abis.registry, functionName, args } as never);
    await sender.send({ to: registry, data, key: `deploy/${plan.planId}/registry-${label}` });
  }
}

async function describeNetwork(transport: PublicClient, inputs: DeployInputs, plan: DeployPlan): Promise<Omit<Manifest, 'signature'>> {
  const { name, profile, survey } = inputs;
  const modules: Manifest['modules'] = {};
  for (const [module, { address, block }] of Object.entries(plan.contracts)) {
    const code = await transport.getCode({ address });
    modules[module] = { address, codeHash: keccak256(code ?? '0x'), deployBlock: block };
  }
  return {
    version: 1,
    name,
    chainId: survey.chainId,
    genesisHash: survey.genesisHash,
    profile: profile.name,
    notSecure: profile.notSecure,
    genesis: plan.genesis,
    randomness: survey.randomness,
    modules,
    tokens: {
      network: await describeToken(transport, plannedAddress(plan, 'networkToken')),
      stable: await describeToken(transport, plannedAddress(plan, 'stableToken')),
      inference: await describeToken(transport, plannedAddress(plan, 'inferenceToken')),
      compute: await describeToken(transport, plannedAddress(plan, 'computeToken')),
    },
    deployer: inputs.deployer,
  };
}

async function describeToken(transport: PublicClient, address: Address): Promise<Manifest['tokens'][string]> {
  const read = (functionName: 'name' | 'symbol' | 'decimals') => transport.readContract({ address, abi: abis.networkToken, functionName });
  try {
    const [name, symbol, decimals] = await Promise.all([read('name'), read('symbol'), read('decimals')]);
    return { address, name: name as string, symbol: symbol as string, decimals: decimals as number };
  } catch (error) {
    throw chainError(error, `Reading the token ${address}`);
  }
}

/** The code on chain is that of our build: also a proof against a journal of another version. */
async function checkCode(transport: PublicClient, name: ModuleName, address: Address): Promise<void> {
  const code = (await transport.getCode({ address }).catch((error) => Promise.reject(chainError(error, `Reading the code of ${name}`)))) as
    | Hex
    | undefined;
  if (code !== undefined && isOurCode(name, code)) return;
  throw new MillraceError('foreign-code', {
    actor: 'chain',
    message: `The contract at ${address} is not ${name} as this version of Millrace builds it`,
    values: { name, address },
    hint: 'A reorganisation may have dropped the contract; or the plan is of another version. Deploy into a new folder.',
  });
}

function plannedAddress(plan: DeployPlan, name: ModuleName): Address {
  const known = plan.contracts[name];
  if (known !== undefined) return known.address;
  throw new MillraceError('deploy-plan-broken', { actor: 'bug', message: `${name} is needed before it is created`, values: { name } });
}

function nameWord(name: string): Hex {
  return toHex(name, { size: 32 });
}
