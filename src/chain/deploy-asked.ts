import { type Address, isAddressEqual, keccak256, type PublicClient, toHex, zeroAddress } from 'viem';
import { MillraceError } from '../errors.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import { abis } from './contracts.generated.ts';
import { chainError } from './errors.ts';
import type { Manifest } from './manifest.ts';
import type { Allocation, Profile } from './profile.ts';

/** What is asked of a deployment, or what one has: by the option that says it, as it is compared and shown. */
export type DeployAsked = Readonly<Record<string, string>>;

const NO_BEACON = 'none';
const OWN_STABLE_TOKEN = 'one of the network’s own';

/** What a run of `deploy` asks for, with what its profile says where nothing was given. First holders that nobody names are left out. */
export function askedOf(asked: {
  name: string;
  profile: Profile;
  beacon?: Address | null;
  stableToken?: Address;
  allocations: readonly Allocation[];
  computeLaunch: readonly Allocation[];
}): DeployAsked {
  const { name, profile, beacon, stableToken, allocations, computeLaunch } = asked;
  return {
    '--network': name,
    '--profile': profile.name,
    '--jury-votes': String(profile.jury.votes),
    '--beacon': beacon ?? NO_BEACON,
    ...(stableToken === undefined && profile.stableToken === 'existing' ? {} : { '--stable-token': stableToken ?? OWN_STABLE_TOKEN }),
    ...(allocations.length === 0 ? {} : { '--allocations': holdersText(allocations) }),
    ...(computeLaunch.length === 0 ? {} : { '--compute-allocations': holdersText(computeLaunch) }),
  };
}

/** What a finished network has, by its manifest and its chain. Its first holders are not among it. @throws chain-unreachable */
export async function whatIsThere(transport: PublicClient, manifest: Manifest, profile: Profile): Promise<DeployAsked> {
  const at = (module: string) => manifest.modules[module]?.address ?? zeroAddress;
  const jury = await transport
    .readContract({ address: at('jury'), abi: abis.jury, functionName: 'config' })
    .catch((error) => Promise.reject(chainError(error, 'Reading the rules of the jury')));
  return {
    '--network': manifest.name,
    '--profile': manifest.profile,
    '--jury-votes': String(jury.votes),
    '--beacon': manifest.randomness.beacon ?? NO_BEACON,
    '--stable-token': manifest.profile === profile.name && profile.stableToken === 'development' ? OWN_STABLE_TOKEN : at('stableToken'),
  };
}

/** Refuses what is there where it differs from what is asked; what either does not say is not compared. @throws deploy-conflict */
export function requireAsked(there: DeployAsked, asked: DeployAsked): void {
  for (const [option, wanted] of Object.entries(asked)) {
    const has = there[option];
    if (has === undefined || isSame(has, wanted)) continue;
    throw new MillraceError('deploy-conflict', {
      actor: 'caller',
      message: `The deployment that is here has another ${option}: ${has}, asked for ${wanted}`,
      values: { option, got: wanted, there: has },
      hint: `Nothing was changed. Give the same ${option} again, or deploy another network under a name of its own: --network NAME.`,
    });
  }
}

function isSame(one: string, other: string): boolean {
  const areAddresses = one.startsWith('0x') && other.startsWith('0x');
  return areAddresses ? isAddressEqual(one as Address, other as Address) : one === other;
}

function holdersText(holders: readonly Allocation[]): string {
  const sum = holders.reduce((total, { amount }) => total + amount, 0n);
  const digest = keccak256(toHex(JSON.stringify(holders.map(({ to, amount }) => [to.toLowerCase(), amount.toString()]))));
  return `${formatAmount(sum, TOKEN_DECIMALS)} tokens of ${holders.length} holders (${digest.slice(0, 18)})`;
}
