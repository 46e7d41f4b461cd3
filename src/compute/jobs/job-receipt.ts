import { createHash } from 'node:crypto';
import type { Address, Hex } from 'viem';
import {
  type ChainClient,
  createReceiptCodec,
  type EvidenceClass,
  type ReceiptCodec,
  type ReceiptKind,
  type WorkReceipt,
} from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type Artefact, cidOfDigest } from '../../host/index.ts';
import { canonicalJson, type JobSpec } from '../spec/job-spec.ts';
import { type JobTerms, jobDomainOf } from './job-terms.ts';

/** Who did which work for whom. */
export type JobSubject = { operatorId: bigint; nodeKey: Address; renter: Address; specHash: Hex };

/** What was agreed. Money in base units of the token. */
export type JobInputs = {
  jobId: Hex;
  token: Address;
  price: bigint;
  auditFee: bigint;
  segments: bigint;
  /** Segments that each auditor replayed. */
  samples: bigint;
  auditors: bigint;
};

/** What came of it. */
export type JobOutputs = {
  root: Hex;
  outputDigest: Hex;
  /** Of the one output file, else of the list of all. */
  outputCid: string;
  /** `exit 0`, `exit 1`, `trap`, `stopped`, … (`JobEnd`) */
  end: string;
  /** `right`, `canary`, … as the chain settled it. */
  outcome: string;
  paid: bigint;
  /** What the task log on chain holds of it. */
  receiptHash: Hex;
  settledAt: bigint;
};

/** The receipt of a job: what the chain says of it, and the outputs that were handed over. */
export type JobReceipt = WorkReceipt<JobSubject, JobInputs, JobOutputs>;

/** A receipt with the provider's signature; without one where the provider is gone: the chain's part stands all the same. */
export interface SignedJobReceipt {
  receipt: JobReceipt;
  signature: Hex | undefined;
}

/** How jobs end, in the order of `IComputeJobs.Outcome`. */
export const OUTCOMES = ['none', 'right', 'guilty', 'late', 'canary', 'not audited'] as const;
/** What a receipt may claim, in the order of `IComputeJobs.Evidence`. */
const EVIDENCE: readonly EvidenceClass[] = ['reputation only', 'fingerprinted', 'replayed'];

const KIND: ReceiptKind = {
  kind: 'compute-job',
  subject: [
    { name: 'operatorId', type: 'uint64' },
    { name: 'nodeKey', type: 'address' },
    { name: 'renter', type: 'address' },
    { name: 'specHash', type: 'bytes32' },
  ],
  inputs: [
    { name: 'jobId', type: 'bytes32' },
    { name: 'token', type: 'address' },
    { name: 'price', type: 'uint128' },
    { name: 'auditFee', type: 'uint128' },
    { name: 'segments', type: 'uint32' },
    { name: 'samples', type: 'uint32' },
    { name: 'auditors', type: 'uint8' },
  ],
  outputs: [
    { name: 'root', type: 'bytes32' },
    { name: 'outputDigest', type: 'bytes32' },
    { name: 'outputCid', type: 'string' },
    { name: 'end', type: 'string' },
    { name: 'outcome', type: 'string' },
    { name: 'paid', type: 'uint128' },
    { name: 'receiptHash', type: 'bytes32' },
    { name: 'settledAt', type: 'uint64' },
  ],
};

/** Signs, checks, writes and reads receipts of jobs of a network. */
export function jobReceiptCodec(client: ChainClient): ReceiptCodec<JobReceipt> {
  const { chainId, jobs } = jobDomainOf(client);
  return createReceiptCodec<JobReceipt>({ chainId, verifyingContract: jobs }, KIND);
}

/** The CID of what a job left: of its one file, or of the canonical list of all of them. */
export function outputCidOf(spec: Pick<JobSpec, 'outputs'>, artefacts: readonly Artefact[]): string {
  const counted = artefacts.filter(({ path }) => spec.outputs.length === 0 || spec.outputs.includes(path));
  if (counted.length === 1) return (counted[0] as Artefact).cid;
  const listing = canonicalJson([...counted].sort((one, other) => (one.path < other.path ? -1 : 1)));
  return cidOfDigest(createHash('sha256').update(listing).digest());
}

/**
 * The receipt of a settled job, made of the chain and of the outputs: whoever has both makes the same. Evidence is what the chain settled.
 * @throws job-not-settled
 */
export async function makeJobReceipt(
  client: ChainClient,
  job: { jobId: Hex; terms: JobTerms; spec: JobSpec; end: string; artefacts: readonly Artefact[] },
): Promise<JobReceipt> {
  const { jobId, terms, spec } = job;
  const [[settled], [committed], nodeKey] = await Promise.all([
    client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } }),
    client.events({ name: 'computeJobs', event: 'ResultCommitted', args: { jobId } }),
    client.read('operators', 'nodeKeyOf', [terms.operatorId]),
  ]);
  if (settled === undefined || committed === undefined) throw notSettled(jobId);
  const { timestamp } = await client.public.getBlock({ blockNumber: settled.blockNumber });
  return {
    kind: KIND.kind,
    subject: { operatorId: terms.operatorId, nodeKey, renter: terms.renter, specHash: terms.specHash },
    inputs: {
      jobId,
      token: terms.token,
      price: terms.price,
      auditFee: terms.auditFee,
      segments: BigInt(terms.segments),
      samples: BigInt(terms.samples),
      auditors: BigInt(terms.auditors),
    },
    outputs: {
      ...committed.args.result,
      outputCid: outputCidOf(spec, job.artefacts),
      end: job.end,
      outcome: OUTCOMES[settled.args.outcome] ?? 'none',
      paid: settled.args.paid,
      receiptHash: settled.args.receiptHash,
      settledAt: timestamp,
    },
    evidence: EVIDENCE[settled.args.evidence] ?? 'reputation only',
    profile: client.manifest.profile,
  };
}

function notSettled(jobId: Hex): MillraceError {
  return new MillraceError('job-not-settled', {
    actor: 'caller',
    message: `Job ${jobId} is not settled with a result`,
    values: { jobId },
    hint: 'Its receipt is made when it is over: `millrace job show`.',
  });
}
