import { mkdirSync } from 'node:fs';
import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { fetchFile, fetchState, fetchWork, type JobCaller, type JobPeer } from '../jobs/job-api.ts';
import { termsOnChain } from '../jobs/job-chain.ts';
import { keepContent, missingContents, prepareContents, sourcesOf } from '../jobs/job-contents.ts';
import { foldersAt } from '../jobs/job-records.ts';
import type { JobResult, JobTerms } from '../jobs/job-terms.ts';
import { boxKeyOf } from '../jobs/sealed-box.ts';
import type { FetchContent } from '../part.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { isLeafOf, type LeafProof } from '../verify/commitment.ts';
import { stateHashOf } from '../verify/state-hash.ts';
import type { JobWork } from '../verify/work.ts';
import { strictMemoryBytes } from '../verify/work.ts';

/** A job that was committed to, as the chain says it, and who ran it. */
export interface CommittedJob {
  jobId: Hex;
  terms: JobTerms;
  result: JobResult;
  provider: JobPeer;
}

/** Where states come from: their provider, or whoever else has them. */
export interface StateSource {
  /** A state with its leaf; nothing of it is checked yet. @throws the errors of peers */
  fetch(index: number, options: FetchStateOptions): Promise<{ leaf: LeafProof; state: Uint8Array }>;
}

/** How long a state may take, and how large it may be. */
export interface FetchStateOptions {
  signal: AbortSignal;
  /** More than any state of the job has. */
  bytesMax: number;
}

const CALLER_KEYS = new WeakMap<Signer, Promise<JobCaller>>();

/**
 * A job with its terms and result, from the chain's events.
 * @throws job-not-committed
 */
export async function readCommittedJob(client: ChainClient, jobId: Hex): Promise<CommittedJob> {
  const [terms, [committed]] = await Promise.all([
    termsOnChain(client, jobId),
    client.events({ name: 'computeJobs', event: 'ResultCommitted', args: { jobId } }),
  ]);
  if (terms === undefined || committed === undefined) {
    throw new MillraceError('job-not-committed', {
      actor: 'caller',
      message: `Job ${jobId} has no result on chain`,
      values: { jobId },
      hint: 'Wait until its provider has committed.',
    });
  }
  return { jobId, terms, result: { ...committed.args.result }, provider: await peerOf(client, terms.operatorId) };
}

/** An operator as a peer: its endpoint and keys by the chain. */
export async function peerOf(client: ChainClient, operatorId: bigint): Promise<JobPeer> {
  const { endpoint, transportKey, nodeKey } = await client.read('operators', 'operator', [operatorId]);
  return { operatorId, endpoint, transportKey, nodeKey };
}

/** Who asks providers: the node key, with the key that answers are sealed to. */
export function callerOf(client: ChainClient, signer: Signer): Promise<JobCaller> {
  const known = CALLER_KEYS.get(signer);
  if (known !== undefined) return known;
  const caller = boxKeyOf(signer).then((key) => ({ client, signer, key }));
  CALLER_KEYS.set(signer, caller);
  return caller;
}

/** The states of a job at its provider. */
export function providerStates(caller: JobCaller, { provider, jobId }: CommittedJob): StateSource {
  return { fetch: (index, options) => fetchState(caller, provider, { jobId, index, ...options }) };
}

/**
 * A source that may take so long for all its answers together, so that who hands states over slowly is as good as who hands none over.
 * @param source asked until the time is over
 */
export function withinTime(source: StateSource, budgetMs: number): StateSource {
  let leftMs = budgetMs;
  return {
    async fetch(index, { signal, bytesMax }) {
      const startMs = performance.now();
      try {
        const patience = AbortSignal.timeout(Math.max(1, Math.ceil(leftMs)));
        return await source.fetch(index, { signal: AbortSignal.any([signal, patience]), bytesMax });
      } finally {
        leftMs -= performance.now() - startMs;
      }
    },
  };
}

/**
 * Brings a job's program and inputs to a folder: what the provider has from the renter comes from the provider, all else from the network. Called
 * again it goes on.
 * @throws job-work-differs, content-differs, content-missing, and the errors of peers
 */
export async function bringWork(
  job: CommittedJob,
  ports: { caller: JobCaller; fetchContent: FetchContent; folder: string; signal: AbortSignal },
): Promise<JobWork> {
  const { caller, fetchContent, folder, signal } = ports;
  const { jobId, provider } = job;
  const { spec, handed } = await fetchWork(caller, provider, jobId, signal);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const folders = foldersAt(folder);
  const bytesMax = spec.limits.diskBytes + spec.limits.memoryBytes;
  // What the specification does not name is not fetched, whatever the provider says.
  const named = handed.filter((source) => sourcesOf(spec).includes(source));
  for (const source of missingContents(named, folders)) {
    await keepContent(await fetchFile(caller, provider, { jobId, part: 'contents', name: source, signal }), { folders, source, bytesMax });
  }
  return { spec, ...(await prepareContents({ spec, handed, folders }, { fetchContent, signal })) };
}

/**
 * A state whose leaf is in the job's commitment and whose bytes are what the leaf says.
 * @throws state-not-committed, and what the source throws
 */
export async function takeState(
  { terms, result, jobId }: CommittedJob,
  work: Pick<JobWork, 'spec'>,
  source: StateSource,
  { index, signal }: { index: number; signal: AbortSignal },
): Promise<{ leaf: LeafProof; state: Uint8Array }> {
  const taken = await source.fetch(index, { signal, bytesMax: stateBytesMax(work.spec) });
  const isIn = taken.leaf.index === index && isLeafOf(result.root, terms.segments, taken.leaf);
  const isWhole = isIn && stateHashOf(work.spec.determinism, taken.state, strictMemoryBytes(work.spec)) === taken.leaf.stateHash;
  if (isWhole) return taken;
  throw new MillraceError('state-not-committed', {
    actor: 'peer',
    message: `What was handed over is not state ${index} of job ${jobId}, as its provider has committed to it`,
    values: { jobId, index },
    hint: 'A state that is not handed over can be demanded on chain.',
  });
}

/** The leaf of a state, in the job's commitment; its state may be another or missing. @throws state-not-committed */
export async function takeLeaf(
  { terms, result, jobId }: CommittedJob,
  work: Pick<JobWork, 'spec'>,
  source: StateSource,
  { index, signal }: { index: number; signal: AbortSignal },
): Promise<LeafProof> {
  const { leaf } = await source.fetch(index, { signal, bytesMax: stateBytesMax(work.spec) });
  if (leaf.index === index && isLeafOf(result.root, terms.segments, leaf)) return leaf;
  throw new MillraceError('state-not-committed', {
    actor: 'peer',
    message: `What was handed over is not leaf ${index} of job ${jobId}`,
    values: { jobId, index },
  });
}

/** More than any state of a job has: of a strict one its memory with what stands beside each page. */
function stateBytesMax(spec: JobSpec): number {
  const beside = 2 << 20;
  const memory = spec.determinism === 'wasm-strict' ? strictMemoryBytes(spec) : spec.limits.diskBytes;
  return memory + Math.ceil(memory / 512) + beside;
}
