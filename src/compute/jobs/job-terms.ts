import type { Address, Hex } from 'viem';
import { type ChainClient, isSignedBy, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { DeterminismClass, JobSpec } from '../spec/job-spec.ts';
import { ENGINE_NUMBER, engineOf } from '../verify/engines.ts';

/** What ties a job to one network: EIP-712 domain "Millrace Compute Jobs", version "1". */
export interface JobDomain {
  chainId: number;
  jobs: Address;
}

/** What renter and operator agree, as `IComputeJobs.JobTerms` has it. Money in base units, times in seconds. */
export interface JobTerms {
  renter: Address;
  operatorId: bigint;
  specHash: Hex;
  token: Address;
  price: bigint;
  auditFee: bigint;
  /** Of the operator's stake. */
  collateral: bigint;
  /** 0 none, 1 fingerprint, 2 exact output, 3 wasm strict. */
  determinism: number;
  /** That its auditors must have (`ENGINE_NUMBER`). */
  engine: number;
  /** May become `reputation only` where jurors or auditors are missing. */
  lowerable: boolean;
  segments: number;
  /** Segments that each auditor replays. */
  samples: number;
  auditors: number;
  /** The signatures are good before this time. */
  openUntil: number;
  runSeconds: number;
  auditSeconds: number;
  challengeSeconds: number;
  /** Hides whether the job is a canary. */
  flagSeal: Hex;
  nonce: bigint;
}

/** What an operator commits to, as `IComputeJobs.Result` has it. */
export interface JobResult {
  root: Hex;
  outputDigest: Hex;
}

/** Who signed what: both sides of the terms. */
export interface JobSignatures {
  renter: Hex;
  operator: Hex;
}

/** Determinism as the contract counts it. */
export const DETERMINISM_NUMBER: Readonly<Record<DeterminismClass, number>> = {
  none: 0,
  fingerprint: 1,
  'exact-output': 2,
  'wasm-strict': 3,
};

/** Whether terms say of a specification what it says itself: class, engine, segments. A job of other terms is nobody's to run, and its result is wrong. */
export function isOfTerms(spec: JobSpec, terms: Pick<JobTerms, 'determinism' | 'engine' | 'segments'>): boolean {
  const { determinism, engine, segments } = terms;
  return determinism === DETERMINISM_NUMBER[spec.determinism] && engine === ENGINE_NUMBER[engineOf(spec)] && segments === spec.segments;
}

/** The result of a job that has none. */
export const NO_RESULT: JobResult = { root: `0x${'00'.repeat(32)}`, outputDigest: `0x${'00'.repeat(32)}` };

const FIELDS = [
  { name: 'renter', type: 'address' },
  { name: 'operatorId', type: 'uint64' },
  { name: 'specHash', type: 'bytes32' },
  { name: 'token', type: 'address' },
  { name: 'price', type: 'uint128' },
  { name: 'auditFee', type: 'uint128' },
  { name: 'collateral', type: 'uint128' },
  { name: 'determinism', type: 'uint8' },
  { name: 'engine', type: 'uint8' },
  { name: 'lowerable', type: 'bool' },
  { name: 'segments', type: 'uint32' },
  { name: 'samples', type: 'uint32' },
  { name: 'auditors', type: 'uint8' },
  { name: 'openUntil', type: 'uint48' },
  { name: 'runSeconds', type: 'uint32' },
  { name: 'auditSeconds', type: 'uint32' },
  { name: 'challengeSeconds', type: 'uint32' },
  { name: 'flagSeal', type: 'bytes32' },
  { name: 'nonce', type: 'uint256' },
] as const;

const shapes = new Map<string, TypedDataShape>();

/** The domain of a network's jobs. @throws unknown-module */
export function jobDomainOf(client: ChainClient): JobDomain {
  return { chainId: client.chainId, jobs: client.address('computeJobs') };
}

/** The job's id: the EIP-712 digest that both sides sign; equal to `ComputeJobs.jobIdOf`. */
export function jobIdOf(domain: JobDomain, terms: JobTerms): Hex {
  const key = `${domain.chainId}:${domain.jobs.toLowerCase()}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Compute Jobs', version: '1', chainId: domain.chainId, verifyingContract: domain.jobs },
      types: { JobTerms: FIELDS },
      primaryType: 'JobTerms',
    };
    shapes.set(key, shape);
  }
  // Integers below 2^53 travel as numbers and are hashed as the words that they are.
  return typedDataDigest(shape, { ...terms });
}

/**
 * Refuses terms that are not signed by `signer`.
 * @throws bad-job-signature
 */
export function requireTermsSignature(options: { domain: JobDomain; terms: JobTerms; signer: Address; signature: Hex }): void {
  const { domain, terms, signer, signature } = options;
  if (isSignedBy(signer, jobIdOf(domain, terms), signature)) return;
  throw new MillraceError('bad-job-signature', {
    actor: 'caller',
    message: `The signature on the terms of the job is not by ${signer}`,
    values: { expectedSigner: signer, chainId: domain.chainId, jobs: domain.jobs },
    hint: 'Sign the terms for this chain and this contract of jobs.',
  });
}

/** Terms as JSON: numbers as decimal strings, bytes as hexadecimal. */
export function termsToJson(terms: JobTerms): Record<string, string | boolean> {
  return Object.fromEntries(Object.entries(terms).map(([name, value]) => [name, typeof value === 'boolean' ? value : String(value)]));
}

/**
 * Terms from untrusted JSON, every field checked for type and width.
 * @throws bad-job-terms
 */
export function termsFromJson(value: unknown): JobTerms {
  if (typeof value !== 'object' || value === null) throw badTerms('terms', value, 'a JSON object');
  const given = value as Record<string, unknown>;
  const read: Record<string, unknown> = {};
  for (const { name, type } of FIELDS) read[name] = readField(Object.hasOwn(given, name) ? given[name] : undefined, { name, type });
  return read as unknown as JobTerms;
}

function readField(got: unknown, { name, type }: { name: string; type: string }): unknown {
  if (type === 'bool') {
    if (typeof got === 'boolean') return got;
    throw badTerms(name, got, 'true or false');
  }
  if (type.startsWith('uint')) {
    const bits = Number(type.slice(4));
    const isNumber = typeof got === 'string' && /^(0|[1-9]\d{0,77})$/.test(got) && BigInt(got) >> BigInt(bits) === 0n;
    if (!isNumber) throw badTerms(name, got, `a decimal string below 2^${bits}`);
    return bits <= 48 ? Number(got) : BigInt(got);
  }
  const bytes = type === 'address' ? 20 : 32;
  if (typeof got === 'string' && new RegExp(`^0x[0-9a-fA-F]{${2 * bytes}}$`).test(got)) return type === 'address' ? got : got.toLowerCase();
  throw badTerms(name, got, `${bytes} bytes in hexadecimal`);
}

function badTerms(field: string, got: unknown, expected: string): MillraceError {
  const shown = (JSON.stringify(got) ?? 'nothing').slice(0, 80);
  return new MillraceError('bad-job-terms', {
    actor: 'caller',
    message: `Got ${shown} for ${field} of a job's terms, expected ${expected}`,
    values: { field, got: shown, expected },
  });
}

/** Whether a text is the id of a job. */
export function isJobId(text: string): text is Hex {
  return /^0x[0-9a-f]{64}$/.test(text);
}
