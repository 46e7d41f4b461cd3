import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { freeDiskBytes } from '../../host/index.ts';
import { fetchFile, fetchState, fetchWork, type JobCaller, type JobPeer } from '../jobs/job-api.ts';
import { termsOnChain } from '../jobs/job-chain.ts';
import { contentBytesMax, isFileName, keepContent, missingContents, prepareContents, sourcesOf } from '../jobs/job-contents.ts';
import { contentName, foldersAt, type JobFolders } from '../jobs/job-records.ts';
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

const TOO_LARGE = 'content-too-large';
/** What a provider does that hands over something else than it was asked for. */
const OTHERS_FAULTS: ReadonlySet<string> = new Set(['content-differs', TOO_LARGE]);
/** Of the free disk, the part that contents of one job may take that somebody else has ordered. */
const DISK_PARTS = 4;
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
 * Brings a job's program and inputs to a folder. Files are asked for from the provider first, which must have had them to run the job, then from the
 * network; folders and files of many blocks, which no digest of bytes names, come from the network alone. Called again it goes on.
 * @param ports.bytesMax of all contents together, whatever a stranger's specification allows; default: a quarter of what is free on the disk
 * @throws job-work-differs; work-too-large-here where they are more; content-withheld where the provider does not hand over what it must have; content-gone where nobody has what the provider
 *   need not hand over, which is no fault of its; content-missing, and the errors of peers
 */
export async function bringWork(
  job: CommittedJob,
  ports: { caller: JobCaller; fetchContent: FetchContent; folder: string; signal: AbortSignal; bytesMax?: number },
): Promise<JobWork> {
  const { caller, fetchContent, folder, signal } = ports;
  const { jobId, provider } = job;
  const { spec } = await fetchWork(caller, provider, jobId, signal);
  const folders = foldersAt(folder);
  mkdirSync(folders.contents, { recursive: true, mode: 0o700 });
  const ownBytes = ports.bytesMax ?? (await spareBytes(folder));
  const bytesMax = Math.min(contentBytesMax(spec), ownBytes);
  const isTooLargeHere = (error: unknown) => bytesMax === ownBytes && toMillraceError(error).code === TOO_LARGE;
  // What shows that the provider could not have run the job comes before what shows nothing.
  for (const source of missingContents(sourcesOf(spec).filter(isFileName), folders))
    await bringFile(job, { ...ports, folders, source, bytesMax }).catch((error) => {
      throw isTooLargeHere(error) ? tooLargeHere(jobId, bytesMax) : error;
    });
  const fromNetwork: FetchContent = (cid, path, options) =>
    fetchContent(cid, path, options).catch((error) => {
      if (isTooLargeHere(error)) throw tooLargeHere(jobId, bytesMax);
      throw isOthers(error, signal) ? gone(jobId, cid, error) : error;
    });
  return { spec, ...(await prepareContents({ spec, handed: [], folders }, { fetchContent: fromNetwork, signal, bytesMax })) };
}

/** Bytes that a stranger's job may put on the disk of a folder: a part of what is free there. */
export async function spareBytes(folder: string): Promise<number> {
  return Number(await freeDiskBytes(folder)) / DISK_PARTS;
}

/** A content that the provider must have, from it or from the network. */
async function bringFile(
  { jobId, provider }: CommittedJob,
  of: { caller: JobCaller; fetchContent: FetchContent; signal: AbortSignal; folders: JobFolders; source: string; bytesMax: number },
): Promise<void> {
  const { caller, fetchContent, signal, folders, source, bytesMax } = of;
  try {
    await keepContent(await fetchFile(caller, provider, { jobId, part: 'contents', name: source, signal }), { folders, source, bytesMax });
  } catch (error) {
    signal.throwIfAborted();
    // Who hands over more than the job may have is asked no further.
    if (!isOthers(error, signal) || toMillraceError(error).code === TOO_LARGE) throw error;
    // What is named by SHA-256 alone is nowhere else.
    if (source.startsWith('sha256:')) throw withheld(jobId, source, error);
    await fetchContent(source, join(folders.contents, contentName(source)), { bytesMax, signal }).catch((cause) => {
      throw isOthers(cause, signal) ? withheld(jobId, source, cause) : cause;
    });
  }
}

/** Whether it is the others' doing that something did not come: this machine's own troubles are nobody's fault. */
function isOthers(error: unknown, signal: AbortSignal): boolean {
  const { actor, code } = toMillraceError(error);
  return actor === 'peer' || OTHERS_FAULTS.has(code) || signal.aborted;
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

function tooLargeHere(jobId: Hex, bytesMax: number): MillraceError {
  return new MillraceError('work-too-large-here', {
    actor: 'host',
    message: `The contents of job ${jobId} have more than ${bytesMax} bytes, which this machine has for them`,
    values: { jobId, bytesMax },
    hint: 'Nothing was found about the job. Free some disk, or hold no seats on this machine.',
  });
}

function withheld(jobId: Hex, source: string, cause: unknown): MillraceError {
  return new MillraceError('content-withheld', {
    actor: 'peer',
    message: `Neither the provider of job ${jobId} nor the network hands over ${source}, without which it cannot have been run`,
    values: { jobId, source },
    hint: 'Withheld work counts against the provider.',
    cause,
  });
}

function gone(jobId: Hex, source: string, cause: unknown): MillraceError {
  return new MillraceError('content-gone', {
    actor: 'peer',
    message: `Nobody in the network has ${source} of job ${jobId} any more`,
    values: { jobId, source },
    hint: 'This is no fault of the provider: only files whose names are their digests are kept by it.',
    cause,
  });
}

/** More than any state of a job has: of a strict one its memory with what stands beside each page. */
function stateBytesMax(spec: JobSpec): number {
  const beside = 2 << 20;
  const memory = spec.determinism === 'wasm-strict' ? strictMemoryBytes(spec) : spec.limits.diskBytes;
  return memory + Math.ceil(memory / 512) + beside;
}
