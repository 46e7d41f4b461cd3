import { Hono } from 'hono';
import { recoverAddress } from '../../chain/index.ts';
import { type ReplayGuard, verifyRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { askToJson } from '../market/ask.ts';
import { type DealRecord, speaksForClient } from '../market/deal-records.ts';
import { readFields } from '../market/fields.ts';
import { marketHeader, UPLOAD_SIGNED_HEADERS } from '../market/provider-api.ts';
import type { StorageDomain } from '../market/signed-messages.ts';
import { termsFromJson } from '../market/terms.ts';
import { problemResponse, readJsonBody } from '../pieces/problem.ts';
import type { DealDesk } from './deal-desk.ts';
import type { Reception } from './reception.ts';

/** What the HTTP interface of a provider stands on. */
export interface ProviderRoutesOptions {
  domain: StorageDomain;
  desk: DealDesk;
  reception: Reception;
  guard: ReplayGuard;
  log: Logger;
}

const JSON_LIMITS = { bytesMax: 16 << 10, timeoutMs: 10_000 };
const CID_BYTES_MAX = 64;

/**
 * The HTTP interface of a provider, under /v1/storage: the ask, deals (propose, look at, acknowledge, extend) and the
 * resumable upload of pieces. Every refusal is problem+json with a code.
 */
export function createProviderRoutes(options: ProviderRoutesOptions): Hono {
  const { desk, log } = options;
  const routes = new Hono();
  routes.onError((error) => {
    const answer = problemResponse(error);
    if (answer.status >= 500) log.error('request-failed', { error: error.message });
    return answer;
  });
  routes.get('/ask', async (context) => {
    const { signed, freeBytes, accepting } = await desk.currentAsk();
    return context.json({ ...askToJson(signed), freeBytes: freeBytes.toString(), accepting });
  });
  routes.post('/deals', async (context) => {
    const body = readFields(await readJsonBody(context.req.raw, JSON_LIMITS), 'proposal');
    const record = await desk.propose({
      terms: termsFromJson(body.raw('terms')),
      cid: body.bytes('cid', CID_BYTES_MAX),
      signature: body.hex('signature', 65),
    });
    return context.json(await statusJson(options, record), 201);
  });
  routes.get('/deals/:dealId', async (context) =>
    context.json(await statusJson(options, desk.find(dealIdOf(context.req.param('dealId'))))),
  );
  routes.post('/deals/:dealId/acknowledgement', async (context) => {
    const body = readFields(await readJsonBody(context.req.raw, JSON_LIMITS), 'acknowledgement');
    const record = await desk.acknowledge(dealIdOf(context.req.param('dealId')), body.hex('signature', 65));
    return context.json(await statusJson(options, record));
  });
  routes.post('/deals/:dealId/extension', async (context) => {
    const body = readFields(await readJsonBody(context.req.raw, JSON_LIMITS), 'extension');
    const dealId = dealIdOf(context.req.param('dealId'));
    const extension = {
      dealId,
      periods: body.small('periods', 32),
      endPeriod: body.uint('endPeriod', 64),
      expiry: body.uint('expiry', 64),
    };
    await desk.extend(extension, body.hex('signature', 65));
    return context.json({ dealId: dealId.toString(), endPeriod: (extension.endPeriod + BigInt(extension.periods)).toString() });
  });
  // Hono answers HEAD by the GET handler.
  routes.get('/pieces/:dealId', (context) => uploadOffset(options, context.req.raw, dealIdOf(context.req.param('dealId'))));
  routes.patch('/pieces/:dealId', (context) => receiveChunk(options, context.req.raw, dealIdOf(context.req.param('dealId'))));
  routes.all('*', () => {
    throw new MillraceError('not-found', { actor: 'caller', message: 'There is nothing at this address' });
  });
  return routes;
}

async function uploadOffset(options: ProviderRoutesOptions, request: Request, dealId: bigint): Promise<Response> {
  const record = requireClient(options, request, dealId, []);
  return offsetResponse(record, await durableOffset(options, record));
}

async function receiveChunk(options: ProviderRoutesOptions, request: Request, dealId: bigint): Promise<Response> {
  const record = requireClient(options, request, dealId, UPLOAD_SIGNED_HEADERS);
  const offset = readFields({ offset: request.headers.get('upload-offset') ?? undefined }, 'upload').uint('offset', 64);
  if (record.status !== 'receiving') throw notReceiving(record);
  const left = record.terms.rawSize - offset;
  const announced = readFields({ length: request.headers.get('content-length') ?? undefined }, 'upload').uint('length', 64);
  if (announced > left) throw tooLong(record, announced, left);
  const body = request.body ?? new ReadableStream<Uint8Array>({ start: (stream) => stream.close() });
  const after = await options.reception.receive({ record, offset, body });
  if (after === record.terms.rawSize) options.desk.received(record);
  return offsetResponse(record, after);
}

/** The record of a deal whose client signed this request; the signature also names chain and market. */
function requireClient(options: ProviderRoutesOptions, request: Request, dealId: bigint, required: readonly string[]): DealRecord {
  const signer = verifyRequest(
    { method: request.method, url: request.url, headers: Object.fromEntries(request.headers) },
    { recover: recoverAddress, guard: options.guard },
    { required: ['millrace-market', ...required] },
  );
  if (request.headers.get('millrace-market') !== marketHeader(options.domain)) {
    throw new MillraceError('wrong-market', {
      actor: 'caller',
      message: `Got market ${request.headers.get('millrace-market')?.slice(0, 80)}, expected ${marketHeader(options.domain)}`,
      values: { expected: marketHeader(options.domain) },
      hint: 'Use the manifest of the network that this provider serves.',
    });
  }
  const record = options.desk.find(dealId);
  if (speaksForClient(record, signer.address)) return record;
  throw new MillraceError('not-the-client', {
    actor: 'caller',
    message: `Deal ${dealId} is not of ${signer.address}`,
    values: { dealId, got: signer.address },
  });
}

async function durableOffset(options: ProviderRoutesOptions, record: DealRecord): Promise<bigint> {
  if (record.status !== 'receiving') return record.terms.rawSize;
  const offset = await options.reception.offsetOf(record);
  // All bytes may be here although nobody heard of it: the node was killed before it could begin to check.
  if (offset === record.terms.rawSize) options.desk.received(record);
  return offset;
}

function offsetResponse(record: DealRecord, offset: bigint): Response {
  return new Response(null, {
    status: 204,
    headers: { 'upload-offset': offset.toString(), 'upload-length': record.terms.rawSize.toString(), 'cache-control': 'no-store' },
  });
}

async function statusJson(options: ProviderRoutesOptions, record: DealRecord): Promise<Record<string, unknown>> {
  return {
    dealId: record.dealId?.toString(),
    status: record.status,
    reason: record.reason,
    offset: (record.dealId === undefined ? 0n : await durableOffset(options, record)).toString(),
    sizeBytes: record.terms.rawSize.toString(),
    activateBy: record.activateBy?.toString(),
  };
}

function dealIdOf(text: string): bigint {
  return readFields({ dealId: text }, 'path').uint('dealId', 64);
}

function notReceiving(record: DealRecord): MillraceError {
  return new MillraceError('deal-not-receiving', {
    actor: 'caller',
    message: `Deal ${record.dealId} takes no bytes, it is ${record.status}`,
    values: { dealId: record.dealId, status: record.status },
  });
}

function tooLong(record: DealRecord, got: bigint, limit: bigint): MillraceError {
  return new MillraceError('upload-too-big', {
    actor: 'caller',
    message: `Got ${got} bytes for deal ${record.dealId}, ${limit} are missing`,
    values: { dealId: record.dealId, got, limit },
    hint: 'Send no more than the agreed size.',
  });
}
