import { type Address, type Hex, keccak256, parseAbiItem, toHex, zeroAddress, zeroHash } from 'viem';
import { MillraceError } from '../errors.ts';
import type { ChainClient } from './client.ts';
import type { ModuleName } from './contracts.generated.ts';
import { chainError } from './errors.ts';
import { loadProfile } from './profile.ts';

/** Who holds a power: a contract, a plain account (a key), anyone at all, nobody any more, or whoever runs the embedded chain. */
export type HolderKind = 'contract' | 'account' | 'anyone' | 'nobody' | 'trusted-operator';

/** A power over the network and who holds it. */
export interface Power {
  /** `module.function`, or what it allows. */
  power: string;
  holder: Address | null;
  /** The module's name when the holder is one. */
  holderName: string | null;
  holderKind: HolderKind;
}

const ROLE_GRANTED = parseAbiItem('event RoleGranted(bytes32 indexed role, address indexed account, address indexed sender)');
const ROLES: Record<Hex, string> = {
  [zeroHash]: 'timelock.admin',
  [keccak256(toHex('PROPOSER_ROLE'))]: 'timelock.schedule',
  [keccak256(toHex('CANCELLER_ROLE'))]: 'timelock.cancel',
  [keccak256(toHex('EXECUTOR_ROLE'))]: 'timelock.execute',
};

/** Every power over a network and who holds it, for `status --powers`. */
export async function listPowers(client: ChainClient): Promise<Power[]> {
  const [timelock, isSealed, authority, deployer, slashers, minter, executor, market, desk, book] = await Promise.all([
    registered(client, 'timelock'),
    client.read('registry', 'isSealed'),
    client.read('registry', 'authority'),
    client.read('registry', 'deployer'),
    client.read('registry', 'slashers'),
    client.read('networkToken', 'minter'),
    client.read('governor', 'timelock'),
    registered(client, 'storageMarket'),
    registered(client, 'dealDesk'),
    registered(client, 'orderBook'),
  ]);
  const held: [string, Address | null, HolderKind?][] = [
    ['registry.set, registry.retire', authority],
    ['registry.seal', isSealed ? null : deployer],
    ['parameters.set', timelock],
    ...(await timelockRoles(client)),
    ['governor rules', executor],
    ['networkToken.mint', minter],
    ['emission.mint (what the schedule says)', null, 'anyone'],
    ...slashers.map((slasher): [string, Address] => ['stakeVault.lock, stakeVault.slash', slasher]),
    ['possession.insert, possession.remove', market],
    ['storageMarket.open, storageMarket.extend', desk],
    ['storageMarket.open', book],
    ...(await inferencePowers(client, timelock)),
    ...(await computePowers(client)),
  ];
  const { stableToken } = await loadProfile(client.manifest.profile);
  if (stableToken === 'development') held.push(['stableToken.mint (development)', null, 'anyone']);
  if (client.manifest.randomness.source === 'trusted-operator') held.push(['randomness of every block', null, 'trusted-operator']);
  if (client.manifest.randomness.beacon !== null) held.push(['randomness', client.manifest.randomness.beacon]);
  return Promise.all(held.map(([power, holder, kind]) => describe(client, { power, holder, kind })));
}

/**
 * Checks that no power is held by a plain account.
 * @throws power-left-with-account
 */
export async function checkPowers(client: ChainClient): Promise<Power[]> {
  const powers = await listPowers(client);
  const left = powers.filter(({ holderKind }) => holderKind === 'account');
  if (left.length === 0) return powers;
  throw new MillraceError('power-left-with-account', {
    actor: 'bug',
    message: `After deployment plain accounts hold powers: ${left.map(({ power, holder }) => `${power} by ${holder}`).join('; ')}`,
    values: { powers: left.map(({ power, holder }) => `${power}: ${holder}`) },
    hint: 'Do not use this network.',
  });
}

/** Powers over the inference network; a subnet's own rules are its owner's, within bounds that nobody can change. */
async function inferencePowers(client: ChainClient, timelock: Address): Promise<[string, Address | null, HolderKind?][]> {
  const [minter, shares, subnets, board, settling, jury] = await Promise.all([
    client.read('inferenceToken', 'minter'),
    registered(client, 'emissionShares'),
    registered(client, 'subnets'),
    registered(client, 'weightsBoard'),
    registered(client, 'subnetEpochs'),
    client.read('receiptCourt', 'jury'),
  ]);
  return [
    ['inferenceToken.mint', minter],
    ['subnetEmission.issue (what the schedule says)', null, 'anyone'],
    ['subnetEmission.setShare', shares],
    ['subnetEmission.assign, emissionShares.burntFor, emissionShares.dissolved', subnets],
    ['subnetEmission.collect, subnets.record', settling],
    ['subnets.revokePermit', board],
    ['subnets.create (for its lock)', null, 'anyone'],
    ['backerIncome.addToken', timelock],
    ['receiptCourt.rule', jury],
  ];
}

/** Powers over the compute network: each is a contract's. */
async function computePowers(client: ChainClient): Promise<[string, Address | null, HolderKind?][]> {
  const [minter, probers, disputes, demands, jury] = await Promise.all([
    client.read('computeToken', 'minter'),
    registered(client, 'leaseProbers'),
    registered(client, 'jobDisputes'),
    registered(client, 'stateDemands'),
    client.read('jobRules', 'jury'),
  ]);
  return [
    ['computeToken.mint', minter],
    ['computeMarket.stateOfProbers', probers],
    ['computeJobs.openCase, computeJobs.closeCase (disputes)', disputes],
    ['computeJobs.openCase, computeJobs.closeCase (demands)', demands],
    ['jobDisputes.rule', jury],
    ['computeEmission.mint (what the schedule says)', null, 'anyone'],
    ['buybackAuction.open, buybackAuction.burnNativeFees', null, 'anyone'],
  ];
}

/** Roles cannot be listed on chain: every account that ever got one is asked for. */
async function timelockRoles(client: ChainClient): Promise<[string, Address | null, HolderKind?][]> {
  const address = client.address('timelock');
  const granted = await client.public
    .getLogs({ address, event: ROLE_GRANTED, fromBlock: BigInt(client.manifest.modules.timelock?.deployBlock ?? 0), strict: true })
    .catch((error) => Promise.reject(chainError(error, 'Reading the roles of the timelock')));
  const found = new Map<string, [string, Address | null, HolderKind?]>();
  for (const { args } of granted) {
    const { role, account } = args;
    if (!(await client.read('timelock', 'hasRole', [role, account]))) continue;
    const power = ROLES[role] ?? `timelock role ${role}`;
    found.set(`${role}${account}`, account === zeroAddress ? [power, null, 'anyone'] : [power, account]);
  }
  return [...found.values()];
}

function registered(client: ChainClient, name: ModuleName): Promise<Address> {
  return client.read('registry', 'get', [toHex(name, { size: 32 })]);
}

async function describe(
  client: ChainClient,
  { power, holder, kind }: { power: string; holder: Address | null; kind?: HolderKind },
): Promise<Power> {
  if (holder === null) return { power, holder, holderName: null, holderKind: kind ?? 'nobody' };
  const code = (await client.public.getCode({ address: holder })) ?? '0x';
  const known = Object.entries(client.manifest.modules).find(([, module]) => module.address === holder);
  // code 0xef0100… is a plain account with an EIP-7702 delegation: its key still rules it
  const isContract = code !== '0x' && !code.startsWith('0xef0100');
  return { power, holder, holderName: known?.[0] ?? null, holderKind: isContract ? 'contract' : 'account' };
}
