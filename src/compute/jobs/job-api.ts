import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { type PeerAddress, type PeerRequest, peerFetch, signRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Artefact } from '../../host/index.ts';
import { withinTotal } from '../../total-time.ts';
import { decodeJobSpec, type JobSpec, specHash } from '../spec/job-spec.ts';
import type { LeafProof } from '../verify/commitment.ts';
import { readOffer, type SignedOffer } from './job-offer.ts';
import { type JobReceipt, jobReceiptCodec } from './job-receipt.ts';
import { JOB_STATUSES, type JobStatus } from './job-records.ts';
import { type JobResult, type JobTerms, jobDomainOf, jobIdOf, termsFromJson } from './job-terms.ts';
import { type BoxKeyPair, open, seal, sealBytes } from './sealed-box.ts';

/** A provider of jobs as others reach it. */
export interface JobPeer extends PeerAddress {
  operatorId: bigint;
  nodeKey: Hex;
}

/** Who asks: a renter with its wallet, or an auditor, juror or member of a committee with its node key. */
export interface JobCaller {
  client: ChainClient;
  signer: Signer;
  /** Key of the caller to which answers are sealed. */
  key: BoxKeyPair;
}

/** What a provider says of a job; true is only what the chain says too. */
export interface JobProgress {
  status: JobStatus;
  dueAt: number | undefined;
  /** Segments that are done. */
  segments: number;
  /** Contents that are to be handed over. */
  missing: string[];
  end: string | undefined;
  artefacts: Artefact[];
  result: JobResult | undefined;
  reason: string | undefined;
}

/** The work of a job, as its provider hands it to who is drawn. */
export interface SharedWork {
  terms: JobTerms;
  spec: JobSpec;
  /** Contents that the provider has from the renter; all others are in the network. */
  handed: string[];
  result: JobResult | undefined;
}

/** Where providers answer about jobs. */
export const JOBS_PATH = '/v1/compute/jobs';
/** Names chain and contract in signed requests. */
export const JOBS_HEADER = 'millrace-jobs';
/** The key of the asking party, to which the answer is sealed. */
export const BOX_HEADER = 'millrace-box-key';
/** The media type of sealed bodies. */
export const SEALED_TYPE = 'application/vnd.millrace.sealed';

const ANSWER_BYTES_MAX = 1 << 20;
const HEAD_BYTES_MAX = 64 << 10;
const STATE_BYTES_MAX = 2 ** 30 + HEAD_BYTES_MAX;
const OFFER_TIMEOUT_MS = 5_000;
const ORDER_TIMEOUT_MS = 30_000;
/** For the beginning of an answer: a provider that is busy running is not busy talking. */
const PART_TIMEOUT_MS = 15_000;
/** For short answers from their first byte to their last, in all: who drips is as good as silent. */
const SHORT_TOTAL_MS = 15_000;
const LOG_TOTAL_MS = 60_000;
/** For a content that is handed over, where the caller does not say until when it is of use. */
const SEND_TOTAL_MS = 60 * 60_000;
/** What long answers must reach, bytes a second, and what they get besides. */
const BYTES_PER_SECOND_MIN = 64 << 10;
const LONG_SPARE_MS = 30_000;

/** Names chain and contract in a signed request, so that it is good on one network only (CAIP-10 account). */
export function jobsHeader(client: ChainClient): string {
  return `eip155:${client.chainId}:${client.address('computeJobs').toLowerCase()}`;
}

/** What a sealed message belongs to. */
export function boxContext(jobId: Hex, what: string): string {
  return `job ${jobId} ${what}`;
}

/** How long an answer of so many bytes may take in all, milliseconds. */
export function totalMsOf(sizeBytes: number): number {
  return LONG_SPARE_MS + (sizeBytes * 1000) / BYTES_PER_SECOND_MIN;
}

/** A provider's offer, checked. @throws bad-job-offer, and the errors of peers */
export async function fetchOffer(
  client: ChainClient,
  peer: JobPeer,
  request: Pick<PeerRequest, 'signal'> = {},
): Promise<SignedOffer & { isBusy: boolean }> {
  const bytes = await withinTotal(OFFER_TIMEOUT_MS + SHORT_TOTAL_MS, request.signal, async (signal) =>
    plainAnswer(await peerFetch(peer, `${JOBS_PATH}/offer`, { signal, headersTimeoutMs: OFFER_TIMEOUT_MS }), peer),
  );
  return readOffer(parseJson(bytes, peer), { domain: jobDomainOf(client), ...peer, now: await client.now() });
}

/**
 * Brings a signed order to a provider. The same order twice is one job.
 * @returns the operator's signature of the terms
 * @throws job-refused, and the errors of peers
 */
export async function sendOrder(peer: JobPeer, order: Uint8Array, { boxKey, signal }: { boxKey: Hex; signal?: AbortSignal }): Promise<Hex> {
  const body = await sealBytes(order, { recipient: boxKey, context: 'job order' });
  const headers = { 'content-type': SEALED_TYPE, 'content-length': String(body.length) };
  const bytes = await withinTotal(ORDER_TIMEOUT_MS + SHORT_TOTAL_MS, signal, async (ending) => {
    const request = { method: 'POST', headers, body, signal: ending, headersTimeoutMs: ORDER_TIMEOUT_MS };
    return plainAnswer(await peerFetch(peer, JOBS_PATH, request), peer);
  });
  const { signature } = parseJson(bytes, peer);
  if (typeof signature === 'string' && /^0x[0-9a-fA-F]{130}$/.test(signature)) return signature as Hex;
  throw badAnswer(peer, 'it has no signature');
}

/** How far a provider is with a job. @throws not-a-reader, job-part-missing, box-damaged, and the errors of peers */
export async function fetchProgress(caller: JobCaller, peer: JobPeer, jobId: Hex, signal?: AbortSignal): Promise<JobProgress> {
  const given = parseJson(await askShort(caller, peer, { jobId, path: jobId, what: 'progress', signal }), peer) as unknown as {
    [name in keyof JobProgress]: JobProgress[name] | null;
  };
  if (!JOB_STATUSES.includes(given.status as JobStatus)) throw badAnswer(peer, 'it has no status');
  if (!Array.isArray(given.artefacts) || !Array.isArray(given.missing)) throw badAnswer(peer, 'it has no lists');
  return {
    status: given.status as JobStatus,
    dueAt: given.dueAt ?? undefined,
    segments: Number(given.segments),
    missing: given.missing.map(String),
    end: given.end ?? undefined,
    artefacts: given.artefacts.map((one) => readArtefact(one, peer)),
    result: given.result ?? undefined,
    reason: given.reason ?? undefined,
  };
}

/**
 * Hands a content over, sealed to the provider, within so many milliseconds in all.
 * @throws content-differs, content-too-large, content-unwanted, and the errors of peers
 */
export async function sendContent(
  caller: JobCaller,
  peer: JobPeer,
  content: { jobId: Hex; source: string; bytes: AsyncIterable<Uint8Array>; boxKey: Hex; totalMs?: number; signal?: AbortSignal },
): Promise<void> {
  const { jobId, source, bytes, boxKey, totalMs = SEND_TOTAL_MS } = content;
  const path = `${JOBS_PATH}/${jobId}/contents/${source}`;
  const headers = await signedHeaders(caller, peer, { method: 'PUT', path });
  const body = seal(bytes, { recipient: boxKey, context: boxContext(jobId, `contents ${source}`) });
  const given = { method: 'PUT', headers: { ...headers, 'content-type': SEALED_TYPE }, body, headersTimeoutMs: totalMs };
  await withinTotal(totalMs, content.signal, async (signal) => plainAnswer(await peerFetch(peer, path, { ...given, signal }), peer));
}

/**
 * A file of a job, opened as it comes: an output under its CID, a content, or the log, which breaks off where it takes long. The caller checks the
 * digest, and ends what takes too long by its signal.
 * @throws not-a-reader, job-part-missing, box-damaged, and the errors of peers
 */
export function fetchFile(
  caller: JobCaller,
  peer: JobPeer,
  file: { jobId: Hex; part: 'artefacts' | 'contents' | 'log'; name?: string; signal?: AbortSignal },
): Promise<AsyncGenerator<Uint8Array>> {
  const { jobId, part, name, signal } = file;
  const [path, what] = name === undefined ? [`${jobId}/${part}`, part] : [`${jobId}/${part}/${name}`, `${part} ${name}`];
  const patience = part === 'log' ? [AbortSignal.timeout(LOG_TOTAL_MS)] : [];
  const ending = AbortSignal.any([...patience, ...(signal === undefined ? [] : [signal])]);
  return askPart(caller, peer, { jobId, path, what, signal: ending });
}

/** A settled job's receipt as its provider signed it; the caller checks it against the chain. @throws as fetchProgress, and bad-receipt */
export async function fetchReceipt(
  caller: JobCaller,
  peer: JobPeer,
  jobId: Hex,
  signal?: AbortSignal,
): Promise<{ receipt: JobReceipt; signature: Hex }> {
  const bytes = await askShort(caller, peer, { jobId, path: `${jobId}/receipt`, what: 'receipt', signal });
  return jobReceiptCodec(caller.client).fromJson(bytes.toString('utf8'));
}

/**
 * The work of a job, checked against its id: the terms are those that both signed, the specification is the one that they name.
 * @throws job-work-differs, not-a-reader, job-part-missing, box-damaged, and the errors of peers
 */
export async function fetchWork(caller: JobCaller, peer: JobPeer, jobId: Hex, signal?: AbortSignal): Promise<SharedWork> {
  const given = parseJson(await askShort(caller, peer, { jobId, path: `${jobId}/work`, what: 'work', signal }), peer);
  const terms = termsFromJson(given.terms);
  const spec = decodeJobSpec(Buffer.from(String(given.spec)));
  if (jobIdOf(jobDomainOf(caller.client), terms) !== jobId || specHash(spec) !== terms.specHash) throw workDiffers(jobId);
  return { terms, spec, handed: (given.handed as string[]).map(String), result: (given.result as JobResult | null) ?? undefined };
}

/**
 * A state of a job with its leaf; the caller checks the proof against the committed root, and the state against the leaf.
 * @throws not-a-reader, job-part-missing, box-damaged, and the errors of peers
 */
export async function fetchState(
  caller: JobCaller,
  peer: JobPeer,
  wanted: { jobId: Hex; index: number; bytesMax?: number; signal?: AbortSignal },
): Promise<{ leaf: LeafProof; state: Uint8Array }> {
  const { jobId, index, bytesMax = STATE_BYTES_MAX, signal } = wanted;
  const part = { jobId, path: `${jobId}/states/${index}`, what: `states ${index}` };
  const bytes = await withinTotal(totalMsOf(bytesMax), signal, async (ending) =>
    collect(await askPart(caller, peer, { ...part, signal: ending }), bytesMax + HEAD_BYTES_MAX, peer),
  );
  return unpackState(bytes, peer);
}

/** A state and its leaf in one message: length of the leaf's JSON, the JSON, the state. */
export function packState(leaf: LeafProof, state: Uint8Array): Uint8Array {
  const head = Buffer.from(JSON.stringify(leaf));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, state]);
}

/** What {@link packState} has made, from a peer; leaf and state are not checked against one another. @throws peer-answer-bad */
export function unpackState(bytes: Buffer, peer: JobPeer): { leaf: LeafProof; state: Uint8Array } {
  const length = bytes.length < 4 ? Number.NaN : bytes.readUInt32BE(0);
  if (!(length <= HEAD_BYTES_MAX && length + 4 <= bytes.length)) throw badAnswer(peer, 'its state has no leaf');
  const leaf = parseJson(bytes.subarray(4, 4 + length), peer) as unknown as LeafProof;
  const isWord = (value: unknown) => typeof value === 'string' && /^0x[0-9a-f]{64}$/.test(value);
  if (!isWord(leaf.chainHash) || !isWord(leaf.stateHash) || !Array.isArray(leaf.proof) || !leaf.proof.every(isWord)) {
    throw badAnswer(peer, 'its leaf is malformed');
  }
  return { leaf, state: Uint8Array.from(bytes.subarray(4 + length)) };
}

interface WantedPart {
  jobId: Hex;
  path: string;
  what: string;
  signal: AbortSignal | undefined;
}

/** A part that is short whatever the job. */
function askShort(caller: JobCaller, peer: JobPeer, wanted: WantedPart): Promise<Buffer> {
  return withinTotal(PART_TIMEOUT_MS + SHORT_TOTAL_MS, wanted.signal, async (signal) =>
    collect(await askPart(caller, peer, { ...wanted, signal }), ANSWER_BYTES_MAX, peer),
  );
}

async function askPart(caller: JobCaller, peer: JobPeer, wanted: WantedPart): Promise<AsyncGenerator<Uint8Array>> {
  const path = `${JOBS_PATH}/${wanted.path}`;
  const headers = await signedHeaders(caller, peer, { method: 'GET', path });
  const response = await peerFetch(peer, path, { headers, signal: wanted.signal, headersTimeoutMs: PART_TIMEOUT_MS });
  if (!response.ok || response.body === null) throw await refusalOf(response, peer);
  return open(response.body, { key: caller.key, context: boxContext(wanted.jobId, wanted.what) });
}

async function signedHeaders({ client, signer, key }: JobCaller, peer: JobPeer, request: { method: string; path: string }) {
  const headers = { [JOBS_HEADER]: jobsHeader(client), [BOX_HEADER]: key.publicKey };
  const url = new URL(request.path, peer.endpoint).href;
  const signature = await signRequest({ method: request.method, url, headers }, signer, { covered: [JOBS_HEADER, BOX_HEADER] });
  return { ...headers, ...signature };
}

async function plainAnswer(response: Response, peer: JobPeer): Promise<Buffer> {
  if (!response.ok) throw await refusalOf(response, peer);
  return await collect(response.body ?? [], ANSWER_BYTES_MAX, peer);
}

/** The refusal that a provider answered with, as an error of its code. */
async function refusalOf(response: Response, peer: JobPeer): Promise<MillraceError> {
  const text = (await collect(response.body ?? [], ANSWER_BYTES_MAX, peer).catch(() => Buffer.alloc(0))).toString('utf8');
  let said: { code?: unknown; title?: unknown; hint?: unknown } = {};
  try {
    said = JSON.parse(text) as typeof said;
  } catch {
    // It answered with something else: the status says enough.
  }
  const code = typeof said.code === 'string' && /^[a-z0-9-]{1,64}$/.test(said.code) ? said.code : 'peer-refused';
  return new MillraceError(code, {
    actor: 'peer',
    message:
      typeof said.title === 'string' ? said.title.slice(0, 300) : `Operator ${peer.operatorId} answered with status ${response.status}`,
    values: { operatorId: peer.operatorId, status: response.status },
    hint: typeof said.hint === 'string' ? said.hint.slice(0, 300) : undefined,
  });
}

async function collect(stream: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, bytesMax: number, peer: JobPeer): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let taken = 0;
  for await (const part of stream) {
    taken += part.length;
    if (taken > bytesMax) throw badAnswer(peer, `it has more than ${bytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function parseJson(bytes: Uint8Array, peer: JobPeer): Record<string, unknown> {
  try {
    const value = JSON.parse(Buffer.from(bytes).toString('utf8')) as Record<string, unknown>;
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // reported below
  }
  throw badAnswer(peer, 'it is no JSON');
}

function readArtefact(value: unknown, peer: JobPeer): Artefact {
  const { path, cid, sizeBytes } = (value ?? {}) as Artefact;
  // Sizes below nothing would hide others behind their sum.
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw badAnswer(peer, 'an output has no size');
  return { path: String(path), cid: String(cid), sizeBytes };
}

function badAnswer(peer: JobPeer, reason: string): MillraceError {
  return new MillraceError('peer-answer-bad', {
    actor: 'peer',
    message: `The answer of operator ${peer.operatorId} cannot be used: ${reason}`,
    values: { operatorId: peer.operatorId, reason },
  });
}

function workDiffers(jobId: Hex): MillraceError {
  return new MillraceError('job-work-differs', {
    actor: 'peer',
    message: `What the provider showed is not the work of job ${jobId}`,
    values: { jobId },
    hint: 'Withheld work counts against the provider.',
  });
}
