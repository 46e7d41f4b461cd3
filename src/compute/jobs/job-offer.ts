import { type Hex, keccak256, stringToBytes } from 'viem';
import { isSignedBy, type Signer, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import {
  canonicalJson,
  DETERMINISM_CLASSES,
  type DeterminismClass,
  type JobSpec,
  PROGRAM_KINDS,
  type ProgramKind,
} from '../spec/job-spec.ts';
import { STATES_BYTES_MAX } from '../verify/run-segments.ts';
import { statesBytesMax, workSeconds } from '../verify/work.ts';
import type { JobDomain } from './job-terms.ts';

/** Which of the network's tokens a price is in. */
export type PriceToken = 'stable' | 'native';

/** Prices in base units of one token. */
export interface JobPrices {
  /** A core for a second of the job's time limit. */
  cpuSecond: bigint;
  /** A GiB of memory for a second of it. */
  gibSecond: bigint;
  /** Each job besides. */
  job: bigint;
}

/** Engines of images by name; `none`: images are not taken. */
export const JOB_ENGINE_NAMES = ['none', 'bubblewrap', 'docker', 'gvisor', 'swarm', 'kubernetes'] as const;

/** One of them. */
export type JobEngineName = (typeof JOB_ENGINE_NAMES)[number];

/** What a provider of jobs says of itself, signed; good until it expires. */
export interface JobOffer {
  operatorId: bigint;
  /** X25519 key to which jobs are sealed. */
  boxKey: Hex;
  /** Absent: this token is not taken. */
  prices: Partial<Record<PriceToken, JobPrices>>;
  /** Stake that stands behind each job, base units of the network's token. */
  collateral: bigint;
  /** What runs here. */
  programs: ProgramKind[];
  classes: DeterminismClass[];
  /** What images run in. The operator's word, as the rest. */
  engine: JobEngineName;
  /** The largest job. */
  cpus: number;
  memoryBytes: number;
  diskBytes: number;
  /** Longest time limit of a job, and what is asked for beside it to open, fetch and commit, seconds. */
  wallSecondsMax: number;
  spareSeconds: number;
  /** Protocol time, seconds. */
  expiry: number;
}

/** An offer and the node key's signature. */
export interface SignedOffer {
  offer: JobOffer;
  signature: Hex;
}

const OFFER_TEXT_MAX = 8192;
const GIB = 1n << 30n;
const THOUSAND = 1000n;

const shapes = new Map<string, TypedDataShape>();

/** Signs an offer with the node key. */
export async function signOffer(domain: JobDomain, signer: Signer, offer: JobOffer): Promise<SignedOffer> {
  return { offer, signature: await signer.signDigest(offerDigest(domain, offer)) };
}

/**
 * An offer from a stranger's JSON.
 * @throws bad-job-offer unless it is that operator's, signed by its node key, and good at `now`
 */
export function readOffer(
  value: unknown,
  expected: { domain: JobDomain; operatorId: bigint; nodeKey: Hex; now: bigint },
): SignedOffer & { isBusy: boolean } {
  const fields = value as { offer?: Record<string, unknown>; signature?: unknown; isBusy?: unknown };
  if (typeof fields?.offer !== 'object' || fields.offer === null || JSON.stringify(fields.offer).length > OFFER_TEXT_MAX) {
    throw badOffer('it is no offer');
  }
  const offer = offerFromJson(fields.offer);
  const { signature } = fields;
  if (typeof signature !== 'string' || !/^0x[0-9a-f]{130}$/.test(signature)) throw badOffer('it has no signature');
  if (offer.operatorId !== expected.operatorId) throw badOffer(`it is of operator ${offer.operatorId}`);
  if (!isSignedBy(expected.nodeKey, offerDigest(expected.domain, offer), signature as Hex))
    throw badOffer('its signature is not by the node key');
  if (BigInt(offer.expiry) <= expected.now) throw badOffer(`it was good until ${offer.expiry}, it is ${expected.now}`);
  return { offer, signature: signature as Hex, isBusy: fields.isBusy === true };
}

/** An offer as JSON: amounts as decimal strings. */
export function offerToJson(offer: JobOffer): Record<string, unknown> {
  return JSON.parse(JSON.stringify(offer, (_, value) => (typeof value === 'bigint' ? value.toString() : value))) as Record<string, unknown>;
}

/** What a job costs by an offer, base units; undefined where the token is not taken. Rounded up, at least 2: the contract's least price. */
export function priceOf({ limits }: JobSpec, prices: JobPrices | undefined): bigint | undefined {
  if (prices === undefined) return undefined;
  const seconds = BigInt(limits.wallSeconds);
  const cpus = ceilDivide(seconds * BigInt(limits.milliCpus) * prices.cpuSecond, THOUSAND);
  const memory = ceilDivide(seconds * BigInt(limits.memoryBytes) * prices.gibSecond, GIB);
  const price = prices.job + cpus + memory;
  return price < 2n ? 2n : price;
}

/** Why a job cannot run by an offer; undefined when it can. */
export function whyNot(spec: JobSpec, offer: JobOffer): string | undefined {
  const { limits, program, determinism } = spec;
  if (!offer.programs.includes(program.kind)) return `it runs no ${program.kind}`;
  if (!offer.classes.includes(determinism)) return `it takes no jobs of the class ${determinism}`;
  if (limits.milliCpus > offer.cpus * 1000) return `it has ${offer.cpus} processors`;
  if (limits.memoryBytes > offer.memoryBytes) return `it has ${offer.memoryBytes} bytes of memory`;
  if (limits.diskBytes > offer.diskBytes) return `it has ${offer.diskBytes} bytes of disk`;
  const seconds = workSeconds(spec);
  if (seconds > offer.wallSecondsMax) return `its longest jobs take ${offer.wallSecondsMax} s; this one may take ${seconds} s`;
  if (determinism === 'wasm-strict' && statesBytesMax(spec) > STATES_BYTES_MAX) {
    return `states of ${statesBytesMax(spec)} bytes are more than the ${STATES_BYTES_MAX} that are kept; fewer segments or less memory are taken`;
  }
  return undefined;
}

function offerDigest(domain: JobDomain, offer: JobOffer): Hex {
  const key = `${domain.chainId}:${domain.jobs.toLowerCase()}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Job Offer', version: '1', chainId: domain.chainId, verifyingContract: domain.jobs },
      types: { JobOffer: [{ name: 'document', type: 'bytes32' }] },
      primaryType: 'JobOffer',
    };
    shapes.set(key, shape);
  }
  return typedDataDigest(shape, { document: keccak256(stringToBytes(canonicalJson(offerToJson(offer)))) });
}

function offerFromJson(given: Record<string, unknown>): JobOffer {
  const whole = (name: string): number => {
    const value = given[name];
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
    throw badOffer(`its ${name} is no whole number`);
  };
  const words = <Word extends string>(name: string, known: readonly Word[]): Word[] => {
    const value = given[name];
    if (Array.isArray(value) && value.every((one) => known.includes(one as Word))) return value as Word[];
    throw badOffer(`its ${name} are not some of ${known.join(', ')}`);
  };
  const { cpus, boxKey, prices } = given;
  const engine = JOB_ENGINE_NAMES.find((name) => name === given.engine);
  if (engine === undefined) throw badOffer(`its engine is none of ${JOB_ENGINE_NAMES.join(', ')}`);
  if (typeof cpus !== 'number' || !(cpus >= 0 && cpus <= 1024)) throw badOffer('its cpus is no number');
  if (typeof boxKey !== 'string' || !/^0x[0-9a-f]{64}$/.test(boxKey)) throw badOffer('it has no key to seal to');
  return {
    operatorId: amount(given.operatorId, 'operatorId'),
    boxKey: boxKey as Hex,
    prices: pricesFromJson(prices),
    collateral: amount(given.collateral, 'collateral'),
    programs: words('programs', PROGRAM_KINDS),
    classes: words('classes', DETERMINISM_CLASSES),
    engine,
    cpus,
    memoryBytes: whole('memoryBytes'),
    diskBytes: whole('diskBytes'),
    wallSecondsMax: whole('wallSecondsMax'),
    spareSeconds: whole('spareSeconds'),
    expiry: whole('expiry'),
  };
}

function pricesFromJson(value: unknown): JobOffer['prices'] {
  if (typeof value !== 'object' || value === null) throw badOffer('it has no prices');
  const prices: JobOffer['prices'] = {};
  for (const token of ['stable', 'native'] as const) {
    const given = (value as Record<string, unknown>)[token];
    if (given === undefined) continue;
    if (typeof given !== 'object' || given === null) throw badOffer(`its prices in the ${token} token are none`);
    const of = (name: string) => amount((given as Record<string, unknown>)[name], `prices.${token}.${name}`);
    prices[token] = { cpuSecond: of('cpuSecond'), gibSecond: of('gibSecond'), job: of('job') };
  }
  return prices;
}

function amount(value: unknown, name: string): bigint {
  if (typeof value === 'string' && /^(0|[1-9]\d{0,38})$/.test(value)) return BigInt(value);
  throw badOffer(`its ${name} is no amount`);
}

function ceilDivide(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}

function badOffer(reason: string): MillraceError {
  return new MillraceError('bad-job-offer', {
    actor: 'peer',
    message: `A provider's offer of jobs cannot be used: ${reason}`,
    values: { reason },
    hint: 'Take another provider.',
  });
}
