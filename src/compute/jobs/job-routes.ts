import { createReadStream, existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Address, Hex } from 'viem';
import { type ChainClient, recoverAddress } from '../../chain/index.ts';
import { type ReplayGuard, verifyRequest } from '../../connect/index.ts';
import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import { readRequest } from '../../read-at-most.ts';
import { encodeJobSpec } from '../spec/job-spec.ts';
import { proveLeaf } from '../verify/commitment.ts';
import { readState } from '../verify/run-segments.ts';
import { BOX_HEADER, boxContext, JOBS_HEADER, JOBS_PATH, jobsHeader, packState, SEALED_TYPE } from './job-api.ts';
import { contentBytesMax, keepContent, missingContents, sourcesOf } from './job-contents.ts';
import { type JobDeskOptions, readOrder, takeJob } from './job-desk.ts';
import { offerToJson, type SignedOffer } from './job-offer.ts';
import { type JobPart, requireReader } from './job-readers.ts';
import { jobReceiptCodec, makeJobReceipt } from './job-receipt.ts';
import { contentName, type JobRecord } from './job-records.ts';
import type { JobRuns } from './job-runs.ts';
import { commitmentOf } from './job-states.ts';
import { isJobId, termsToJson } from './job-terms.ts';
import { type BoxKeyPair, open, openBytes, seal } from './sealed-box.ts';

/** What a provider's routes stand on. */
export interface JobRoutesOptions {
  client: ChainClient;
  desk: JobDeskOptions;
  runs: JobRuns;
  key: BoxKeyPair;
  guard: ReplayGuard;
  signedOffer(): Promise<SignedOffer>;
  isTaking(): boolean;
  /** Something is new: a job, a content. */
  nudge(): void;
}

const STATUS_OF_CODE: Record<string, number> = {
  'job-refused': 409,
  'no-room-in-time': 409,
  'not-a-reader': 403,
  'job-part-missing': 404,
  'method-not-allowed': 405,
};
const ORDER_BYTES_MAX = 1 << 20;
const ORDER_CONTEXT = 'job order';
const PATH = new RegExp(
  `^${JOBS_PATH}(?:/(0x[0-9a-f]{64})(?:/(work|contents|states|artefacts|log|receipt)(?:/([A-Za-z0-9:]{1,128}))?)?|/offer)?$`,
);

/**
 * The HTTP interface of a provider of jobs, under /v1/compute/jobs: its offer; orders, sealed to its box key; and of each job its progress, its
 * work, contents, states, outputs and log, each sealed to the key that the asking party names and for those alone who have business with it.
 */
export function answerJobs(options: JobRoutesOptions, request: Request): Promise<Response> | undefined {
  const found = PATH.exec(new URL(request.url).pathname);
  return found === null ? undefined : answerPath(options, request, found).catch(problemOf);
}

async function answerPath(options: JobRoutesOptions, request: Request, found: RegExpExecArray): Promise<Response> {
  const [path, jobId, part, name] = found;
  const { method } = request;
  if (path.endsWith('/offer') && method === 'GET') return showOffer(options);
  if (jobId === undefined && method === 'POST') return takeOrder(options, request);
  if (jobId !== undefined && part === undefined && method === 'GET') return showProgress(options, request, jobId as Hex);
  if (part === 'contents' && name !== undefined && method === 'PUT')
    return takeContent(options, request, { jobId: jobId as Hex, source: name });
  if (part !== undefined && method === 'GET') return showPart(options, request, { jobId: jobId as Hex, part: part as JobPart, name });
  throw new MillraceError('method-not-allowed', { actor: 'caller', message: `Got ${method} ${path}`, values: { method, path } });
}

/** A refusal as problem+json; what went wrong inside is nobody's business but the log's. */
function problemOf(error: unknown): Response {
  const known = toMillraceError(error);
  const { code, actor, message, values, hint } = known.toJSON();
  const shown = actor === 'bug' || actor === 'host' ? { title: 'Something went wrong inside this node' } : { title: message, values, hint };
  const status = STATUS_OF_CODE[code] ?? httpStatusOf(known);
  // What was sent and not read must not be taken for the next request.
  const headers = { 'content-type': 'application/problem+json', connection: 'close' };
  return new Response(JSON.stringify({ type: 'about:blank', status, code, actor, ...shown }), { status, headers });
}

async function showOffer({ signedOffer, isTaking }: JobRoutesOptions): Promise<Response> {
  const { offer, signature } = await signedOffer();
  return Response.json({ offer: offerToJson(offer), signature, isBusy: !isTaking() });
}

async function takeOrder(options: JobRoutesOptions, request: Request): Promise<Response> {
  if (!options.isTaking())
    throw new MillraceError('job-refused', { actor: 'caller', message: 'This provider takes no new jobs', values: {} });
  const sealed = await readRequest(request, ORDER_BYTES_MAX);
  const order = readOrder(await openBytes(sealed, { key: options.key, context: ORDER_CONTEXT }));
  const record = await takeJob(options.desk, order);
  options.nudge();
  return Response.json({ jobId: record.jobId, status: record.status, signature: record.signatures.operator }, { status: 201 });
}

/** Sealed to the renter as well: what a job printed or failed of is nobody else's. */
async function showProgress(options: JobRoutesOptions, request: Request, jobId: Hex): Promise<Response> {
  const { record, box } = await admit(options, request, { jobId, part: 'artefacts' });
  const { records } = options.desk;
  const folders = records.folders(jobId);
  const answer = {
    jobId,
    status: record.status,
    dueAt: record.dueAt ?? null,
    segments: options.runs.segmentsOf(jobId) ?? (record.result === undefined ? 0 : record.terms.segments),
    missing: missingContents(record.handed, folders),
    end: record.end ?? null,
    artefacts: record.artefacts ?? [],
    result: record.result ?? null,
    reason: record.reason ?? null,
  };
  return sealedAnswer([Buffer.from(JSON.stringify(answer))], { box, context: boxContext(jobId, 'progress') });
}

async function takeContent(
  options: JobRoutesOptions,
  request: Request,
  { jobId, source }: { jobId: Hex; source: string },
): Promise<Response> {
  const { record, reader } = await admit(options, request, { jobId, part: 'contents' });
  if (reader !== 'renter' || !record.handed.includes(source)) {
    throw new MillraceError('content-unwanted', {
      actor: 'caller',
      message: `${source} is not to be handed over for this job`,
      values: { jobId, source },
    });
  }
  const { records } = options.desk;
  const spec = records.spec(jobId);
  const context = boxContext(jobId, `contents ${source}`);
  const body = request.body ?? new ReadableStream<Uint8Array>({ start: (stream) => stream.close() });
  const bytesMax = contentBytesMax(spec);
  await keepContent(open(body, { key: options.key, context }), { folders: records.folders(jobId), source, bytesMax });
  options.nudge();
  return Response.json({ missing: missingContents(record.handed, records.folders(jobId)) });
}

async function showPart(
  options: JobRoutesOptions,
  request: Request,
  { jobId, part, name }: { jobId: Hex; part: JobPart; name: string | undefined },
): Promise<Response> {
  const { record, box } = await admit(options, request, { jobId, part });
  const { records } = options.desk;
  const folders = records.folders(jobId);
  const context = boxContext(jobId, name === undefined ? part : `${part} ${name}`);
  if (part === 'work') return sealedAnswer([Buffer.from(JSON.stringify(workOf(options, record)))], { box, context });
  if (part === 'states') return sealedAnswer([await stateOf(options, record, Number(name))], { box, context });
  if (part === 'receipt') return sealedAnswer([Buffer.from(await receiptOf(options, record))], { box, context });
  const isOwn =
    part === 'log' ||
    (part === 'contents' && sourcesOf(records.spec(jobId)).includes(name ?? '')) ||
    (part === 'artefacts' && record.artefacts?.some(({ cid }) => cid === name));
  const path =
    part === 'log'
      ? folders.log
      : part === 'contents'
        ? join(folders.contents, contentName(name ?? ''))
        : join(folders.artefacts, name ?? '');
  if (!isOwn || !existsSync(path) || !(await stat(path)).isFile()) throw notThere(jobId, part, name);
  return sealedAnswer(createReadStream(path), { box, context });
}

function workOf({ desk }: JobRoutesOptions, record: JobRecord): Record<string, unknown> {
  const { jobId, terms, handed, result } = record;
  const spec = Buffer.from(encodeJobSpec(desk.records.spec(jobId))).toString('utf8');
  return { jobId, terms: termsToJson(terms), spec, handed, result: result ?? null };
}

/** The receipt of a settled job, signed: the chain's word and the outputs that were handed over. */
async function receiptOf({ client, desk }: JobRoutesOptions, record: JobRecord): Promise<string> {
  const { jobId, terms, end, artefacts } = record;
  if (end === undefined || artefacts === undefined) throw notThere(jobId, 'receipt', undefined);
  const receipt = await makeJobReceipt(client, { jobId, terms, end, artefacts, spec: desk.records.spec(jobId) });
  const codec = jobReceiptCodec(client);
  return codec.toJson(receipt, await codec.sign(desk.signer, receipt));
}

/** A state with its leaf and the leaf's proof. */
async function stateOf({ desk }: JobRoutesOptions, record: JobRecord, index: number): Promise<Uint8Array> {
  const { jobId, terms } = record;
  if (record.result === undefined || !Number.isSafeInteger(index) || index < 0 || index > terms.segments)
    throw notThere(jobId, 'states', String(index));
  const spec = desk.records.spec(jobId);
  const folders = desk.records.folders(jobId);
  const commitment = commitmentOf(desk.records, jobId);
  if (commitment === undefined) throw notThere(jobId, 'states', String(index));
  const leaf = proveLeaf(commitment, index);
  return packState(leaf, await readState(spec, folders.run, index));
}

/** Whose request it is, and whether that party may have this part; the signature also names chain, contract and the key to seal to. */
async function admit(options: JobRoutesOptions, request: Request, wanted: { jobId: Hex; part: JobPart }) {
  const { client, desk, guard } = options;
  const headers = Object.fromEntries(request.headers);
  const signed = { method: request.method, url: request.url, headers };
  const { address } = verifyRequest(signed, { recover: recoverAddress, guard }, { required: [JOBS_HEADER, BOX_HEADER] });
  if (headers[JOBS_HEADER] !== jobsHeader(client)) {
    throw new MillraceError('wrong-network', {
      actor: 'caller',
      message: `Got ${headers[JOBS_HEADER]?.slice(0, 80)}, expected ${jobsHeader(client)}`,
      values: { expected: jobsHeader(client) },
      hint: 'Use the manifest of the network that this provider serves.',
    });
  }
  const box = headers[BOX_HEADER] ?? '';
  if (!/^0x[0-9a-f]{64}$/.test(box))
    throw new MillraceError('bad-box-key', { actor: 'caller', message: 'The request names no key to seal to' });
  const record = isJobId(wanted.jobId) ? desk.records.find(wanted.jobId) : undefined;
  if (record === undefined) throw notThere(wanted.jobId, wanted.part, undefined);
  const reader = await requireReader(client, { record, part: wanted.part, address: address as Address });
  return { record, reader, box: box as Hex };
}

function sealedAnswer(plain: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, { box, context }: { box: Hex; context: string }): Response {
  const body = ReadableStream.from(seal(plain, { recipient: box, context })) as ReadableStream<Uint8Array>;
  return new Response(body, { headers: { 'content-type': SEALED_TYPE, 'cache-control': 'no-store' } });
}

function notThere(jobId: Hex, part: string, name: string | undefined): MillraceError {
  return new MillraceError('job-part-missing', {
    actor: 'caller',
    message: `There is no ${part}${name === undefined ? '' : ` ${name}`} of a job ${jobId} here`,
    values: { jobId, part, name },
    hint: 'Jobs and what they left are kept for a time after they are settled.',
  });
}
