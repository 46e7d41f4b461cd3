import { type Address, type Hex, type PublicClient, toHex } from 'viem';
import { MillraceError } from '../errors.ts';
import { chainError } from './errors.ts';
import type { ManifestRandomness } from './manifest.ts';
import type { Profile } from './profile.ts';

/** Keeps the hashes of the last 8,191 blocks in the state (EIP-2935). */
const HISTORY_CONTRACT = '0x0000F90827F1C53a10cb7A02335B175320002935';
const OPCODE_BLOCKS = 256;
const SAMPLED_BLOCKS = 32;
const SAMPLES_MIN = 4;

/** Chains on which one party orders blocks, so that it can choose `prevrandao`, or on which it is constant. By chain id. */
const SEQUENCED_CHAINS: Record<number, string> = {
  10: 'OP Mainnet',
  56: 'BNB Smart Chain',
  97: 'BNB Smart Chain Testnet',
  130: 'Unichain',
  137: 'Polygon PoS',
  250: 'Fantom',
  252: 'Fraxtal',
  300: 'ZKsync Sepolia',
  324: 'ZKsync Era',
  480: 'World Chain',
  1101: 'Polygon zkEVM',
  1135: 'Lisk',
  1301: 'Unichain Sepolia',
  1868: 'Soneium',
  5000: 'Mantle',
  8453: 'Base',
  34443: 'Mode',
  42161: 'Arbitrum One',
  42170: 'Arbitrum Nova',
  42220: 'Celo',
  43113: 'Avalanche Fuji',
  43114: 'Avalanche C-Chain',
  57073: 'Ink',
  59144: 'Linea',
  80002: 'Polygon Amoy',
  81457: 'Blast',
  84532: 'Base Sepolia',
  167000: 'Taiko',
  421614: 'Arbitrum Sepolia',
  534352: 'Scroll',
  7777777: 'Zora',
  11155420: 'OP Sepolia',
};
/** Chains whose coin has value: profiles that are not secure have no place there. */
const VALUABLE_CHAINS = [1, 10, 56, 100, 137, 8453, 42_161, 43_114, 59_144, 534_352];

/** What a deployment must know of its chain. */
export interface ChainSurvey {
  chainId: number;
  genesisHash: Hex;
  randomness: ManifestRandomness;
  /** The latest block's timestamp, seconds. */
  timestamp: number;
}

/** What whoever deploys declares about a chain's randomness. */
export interface RandomnessDeclaration {
  /** The chain is the embedded one, whose supervisor draws fresh bytes for every block: TRUSTED OPERATOR. */
  embedded?: boolean;
  /** A contract that gives randomness (`IBeacon`), for chains whose `prevrandao` is no good. */
  beacon?: Address;
}

/**
 * Looks at a chain before anything is deployed there: which randomness it has, and how old headers can be checked. A chain whose
 * `prevrandao` is constant, repeated or chosen by a sequencer is refused unless a beacon is declared.
 * @throws randomness-unsafe, history-too-short, profile-not-secure, beacon-missing, chain-unreachable
 */
export async function surveyChain(client: PublicClient, profile: Profile, declared: RandomnessDeclaration): Promise<ChainSurvey> {
  try {
    const chainId = await client.getChainId();
    if (profile.notSecure && VALUABLE_CHAINS.includes(chainId)) throw profileNotSecure(profile.name, chainId);
    const first = await client.request({ method: 'eth_getBlockByNumber', params: ['0x0', false] });
    const headers = await sampleHeaders(client);
    const source = await randomnessSource(client, { chainId, headers, declared });
    const historyCode = await client.getCode({ address: HISTORY_CONTRACT });
    const history = historyCode === undefined || historyCode === '0x' ? 'blockhash' : 'eip-2935';
    if (history === 'blockhash' && source !== 'beacon') checkOpcodeHistory(headers, profile);
    return {
      chainId,
      genesisHash: first?.hash as Hex,
      randomness: { source, beacon: source === 'beacon' ? (declared.beacon as Address) : null, history },
      timestamp: Number(headers[0]?.timestamp ?? 0),
    };
  } catch (error) {
    throw chainError(error, 'Surveying the chain');
  }
}

interface Header {
  number: Hex;
  timestamp: Hex;
  mixHash?: Hex;
}

/** The latest headers, newest first. */
async function sampleHeaders(client: PublicClient): Promise<Header[]> {
  const head = Number(await client.getBlockNumber({ cacheTime: 0 }));
  const numbers = Array.from({ length: Math.min(SAMPLED_BLOCKS, head + 1) }, (_, index) => head - index);
  const read = (number: number) => client.request({ method: 'eth_getBlockByNumber', params: [toHex(number), false] });
  return (await Promise.all(numbers.map(read))) as unknown as Header[];
}

async function randomnessSource(
  client: PublicClient,
  { chainId, headers, declared }: { chainId: number; headers: Header[]; declared: RandomnessDeclaration },
): Promise<ManifestRandomness['source']> {
  if (declared.beacon !== undefined) {
    const code = await client.getCode({ address: declared.beacon });
    if (code === undefined || code === '0x') throw beaconMissing(declared.beacon);
    return 'beacon';
  }
  if (declared.embedded) return 'trusted-operator';
  const sequenced = SEQUENCED_CHAINS[chainId];
  if (sequenced !== undefined) throw randomnessUnsafe(chainId, `${sequenced} has blocks that one party orders`);
  const version = await client.request({ method: 'web3_clientVersion' }).catch(() => '');
  if (/anvil|hardhat|ganache/i.test(version))
    throw randomnessUnsafe(chainId, `${version.slice(0, 40)} makes prevrandao from the block number`);
  const values = headers.filter((header) => header.number !== '0x0').map((header) => header.mixHash ?? '0x');
  if (values.length < SAMPLES_MIN) throw randomnessUnsafe(chainId, `the chain has only ${values.length} blocks to judge by`);
  if (values.some((value) => BigInt(value === '0x' ? 0 : value) < 2n ** 128n))
    throw randomnessUnsafe(chainId, 'prevrandao is empty or small');
  if (new Set(values).size < values.length) throw randomnessUnsafe(chainId, `prevrandao repeats within ${values.length} blocks`);
  return 'prev-randao';
}

/** Without EIP-2935 a seed must be proven within 256 blocks: they must last for the window in which proofs are due. */
function checkOpcodeHistory(headers: Header[], profile: Profile): void {
  const [newest, oldest] = [headers[0], headers.at(-1)];
  if (newest === undefined || oldest === undefined || headers.length < 2) return;
  const blockSeconds = (Number(newest.timestamp) - Number(oldest.timestamp)) / (headers.length - 1);
  const historySeconds = Math.floor(OPCODE_BLOCKS * blockSeconds);
  if (historySeconds >= profile.possession.window) return;
  throw new MillraceError('history-too-short', {
    actor: 'caller',
    message: `The chain has no EIP-2935 history, and its last ${OPCODE_BLOCKS} blocks last ${historySeconds} s; profile ${profile.name} needs ${profile.possession.window} s`,
    values: { historySeconds, windowSeconds: profile.possession.window, profile: profile.name },
    hint: 'Use a chain with EIP-2935 (Prague or later), or one with slower blocks.',
  });
}

function randomnessUnsafe(chainId: number, reason: string): MillraceError {
  return new MillraceError('randomness-unsafe', {
    actor: 'caller',
    message: `Chain ${chainId} gives no randomness that nobody chooses: ${reason}`,
    values: { chainId, reason },
    hint: 'Declare a beacon contract with --beacon ADDRESS, or use another chain. The embedded chain is started with "millrace up".',
  });
}

function beaconMissing(beacon: Address): MillraceError {
  return new MillraceError('beacon-missing', {
    actor: 'caller',
    message: `There is no contract at the declared beacon ${beacon}`,
    values: { beacon },
  });
}

function profileNotSecure(profile: string, chainId: number): MillraceError {
  return new MillraceError('profile-not-secure', {
    actor: 'caller',
    message: `Profile ${profile} is not secure, and chain ${chainId} carries real money`,
    values: { profile, chainId },
    hint: 'Use profile production there.',
  });
}
