import type { OfferedModel } from '../../inference/index.ts';
import type { ProviderPolicy } from './provider-policy.ts';

/** A miner that serves what is asked for. */
export interface Candidate {
  /** Names by which callers may mean it: `operator-7`, `7`, `uid-3`. */
  names: readonly string[];
  /** What is hashed for affinity: the same for as long as the miner is the same. */
  key: string;
  /** By consensus, 0 to 1; 0 for one that has no rank yet. */
  rank: number;
  model: OfferedModel;
  zeroRetention: boolean;
  /** The most that the request may cost there, base units. */
  price: bigint;
  ttftMs: number | undefined;
  tpotMs: number | undefined;
  inFlight: number;
  isOpen: boolean;
  /** It can be asked at once: it has a place, and what may be paid ahead there is not all held by requests under way. */
  hasRoom: boolean;
}

/** What is asked for. */
export interface Choice {
  policy: ProviderPolicy;
  /** Parameters of the request that not every model honours. */
  parameters: readonly string[];
  /** Requests with the same prefix go to the same miner, as long as it has room: its cache knows the prefix. */
  affinity: number;
  /** Units of output that are expected, for the price of time. */
  outputUnits: number;
}

/** So much of a rank has a miner without one: newcomers get some traffic. */
const RANK_MIN = 0.05;
/** Who is more than so many times as fast as the median gains nothing by it: what is made up is there at once. */
const FASTER_MAX = 2;
const LOAD_MAX = 1000;
const DEFAULT_TTFT_MS = 300;
const DEFAULT_TPOT_MS = 20;

/**
 * The miners to be tried, first to last: those that the caller's policy allows, spread by rank, price and speed. Each prefix has its own order
 * (weighted rendezvous hashing: a miner is first for a share of all prefixes that grows with its weight, and others keep theirs when one
 * comes or goes); busy and slow ones come after the others, those that cool down last of all.
 */
export function chooseMiners<C extends Candidate>(candidates: readonly C[], choice: Choice): C[] {
  const allowed = candidates.filter((candidate) => isAllowed(candidate, choice));
  if (allowed.length <= 1) return allowed;
  const { policy } = choice;
  const least: Least = {
    price: Math.max(1, Math.min(...allowed.map(({ price }) => Number(price)))),
    timeMs: Math.max(1, median(allowed.map((candidate) => timeOf(candidate, choice))) / FASTER_MAX),
  };
  const scores = new Map(allowed.map((candidate) => [candidate, scoreOf(candidate, least, choice)]));
  const sorted = allowed.sort(
    (one, other) => penalty(one, policy) - penalty(other, policy) || (scores.get(one) as number) - (scores.get(other) as number),
  );
  if (policy.order.length === 0) return policy.allowFallbacks ? sorted : sorted.slice(0, 1);
  const placeOf = ({ names }: C) => {
    const place = policy.order.findIndex((name) => names.includes(name));
    return place === -1 ? policy.order.length : place;
  };
  const ordered = sorted.sort((one, other) => placeOf(one) - placeOf(other));
  return policy.allowFallbacks ? ordered : ordered.filter((candidate) => placeOf(candidate) < policy.order.length);
}

function isAllowed({ names, model, zeroRetention }: Candidate, { policy, parameters }: Choice): boolean {
  const { maxPrice } = policy;
  const isNamed = (list: readonly string[]) => list.some((name) => names.includes(name));
  if (policy.only !== undefined && !isNamed(policy.only)) return false;
  if (isNamed(policy.ignore)) return false;
  if (policy.zeroRetention && !zeroRetention) return false;
  if (policy.quantizations !== undefined && !policy.quantizations.includes(model.quantization.toLowerCase())) return false;
  if (maxPrice.input !== undefined && model.inputPerMillion > maxPrice.input) return false;
  if (maxPrice.output !== undefined && model.outputPerMillion > maxPrice.output) return false;
  if (maxPrice.request !== undefined && model.perRequest > maxPrice.request) return false;
  if (!policy.requireParameters || parameters.length === 0) return true;
  const honoured = model.parameters.split(',');
  return parameters.every((name) => honoured.includes(name));
}

/**
 * 0 for those that are fine. After them slow ones, then busy ones by how many times as many requests they have as they work on at once, then those
 * that have no room now, and those that cool down.
 */
function penalty(candidate: Candidate, { throughputMin }: ProviderPolicy): number {
  const isSlow = throughputMin !== undefined && 1000 / (candidate.tpotMs ?? DEFAULT_TPOT_MS) < throughputMin;
  const load = Math.min(Math.floor(candidate.inFlight / Math.max(1, Number(candidate.model.concurrency))), LOAD_MAX);
  return (candidate.isOpen ? 0 : 4 * LOAD_MAX + 8) + (candidate.hasRoom ? 0 : 2 * LOAD_MAX + 4) + 2 * load + (isSlow ? 1 : 0);
}

/** What counts as cheapest and as fastest among some candidates. */
interface Least {
  price: number;
  timeMs: number;
}

function timeOf({ ttftMs, tpotMs }: Candidate, { outputUnits }: Choice): number {
  return (ttftMs ?? DEFAULT_TTFT_MS) + (tpotMs ?? DEFAULT_TPOT_MS) * outputUnits;
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1] as number;
}

/** Less is better. */
function scoreOf(candidate: Candidate, least: Least, choice: Choice): number {
  const { sort } = choice.policy;
  if (sort === 'price') return Number(candidate.price);
  if (sort === 'latency') return candidate.ttftMs ?? DEFAULT_TTFT_MS;
  if (sort === 'throughput') return candidate.tpotMs ?? DEFAULT_TPOT_MS;
  const price = Math.max(1, Number(candidate.price)) / least.price;
  const weight = Math.max(candidate.rank, RANK_MIN) / (price * price * Math.max(least.timeMs, timeOf(candidate, choice)));
  return -Math.log(fraction(candidate.key, choice.affinity)) / weight;
}

/** A number in (0, 1) from a miner and a prefix: FNV-1a, then a finalizer (MurmurHash3's), so that neighbours are far apart. */
function fraction(key: string, affinity: number): number {
  let hash = 0x811c9dc5 ^ affinity;
  for (let index = 0; index < key.length; index += 1) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  hash ^= hash >>> 16;
  return ((hash >>> 0) + 0.5) / 2 ** 32;
}
