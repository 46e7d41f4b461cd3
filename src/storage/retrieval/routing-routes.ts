import { Hono } from 'hono';
import type { CID } from 'multiformats/cid';
import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import { readFields } from '../market/fields.ts';
import type { StorageDomain } from '../market/signed-messages.ts';
import { problemResponse, readJsonBody } from '../pieces/problem.ts';
import { PROTOCOL, peerRecord, readAnnouncement, type SignedAnnouncement } from './announcement.ts';
import type { AnnouncementBook } from './announcement-book.ts';

/** What a router answers from. */
export interface RoutingOptions {
  domain: StorageDomain;
  book: AnnouncementBook;
  /** This node's own announcement, when it holds the block itself. */
  own: (cid: CID) => Promise<SignedAnnouncement | undefined>;
  now: () => Promise<bigint>;
}

const WRITE_LIMITS = { bytesMax: 256 << 10, timeoutMs: 10_000 };
const WRITES_MAX = 10;
/** Statuses that the specification asks for. */
const STATUS_OF_CODE: Record<string, number> = { 'bad-cid': 422, 'not-implemented': 501 };
const NDJSON = 'application/x-ndjson';

/**
 * The Delegated Routing V1 HTTP API (specs.ipfs.tech/routing/http-routing-v1), below `/routing/v1`: who holds a CID, as JSON or
 * as a stream of lines, and PUT of announcements signed by our keys. Peer and IPNS routing are answered 501.
 */
export function createRoutingRoutes(options: RoutingOptions): Hono {
  const routes = new Hono();
  routes.use('*', async (context, next) => {
    if (context.req.method === 'OPTIONS') context.res = new Response(null, { status: 204 });
    else await next();
    context.res.headers.set('access-control-allow-origin', '*');
    context.res.headers.set('access-control-allow-methods', 'GET, PUT, OPTIONS');
    context.res.headers.set('access-control-allow-headers', 'content-type');
  });
  routes.onError((error) => {
    const answer = problemResponse(error);
    const status = STATUS_OF_CODE[toMillraceError(error).code] ?? answer.status;
    return new Response(answer.body, { status, headers: answer.headers });
  });
  routes.get('/providers/:cid', async (context) => findProviders(options, context.req.param('cid'), context.req.header('accept') ?? ''));
  routes.put('/providers', async (context) => {
    const body = readFields(await readJsonBody(context.req.raw, WRITE_LIMITS), 'body');
    const records = body.raw('Providers');
    if (!Array.isArray(records) || records.length > WRITES_MAX) throw badWrite(Array.isArray(records) ? records.length : 0);
    const results: Record<string, unknown>[] = [];
    for (const record of records) results.push(await takeRecord(options, record));
    const failed = results.every((result) => 'Error' in result) && results.length > 0;
    return context.json({ ProvideResults: results }, failed ? 422 : 200);
  });
  routes.all('*', () => {
    throw new MillraceError('not-implemented', { actor: 'caller', message: 'This router answers for providers of content only' });
  });
  return routes;
}

async function findProviders(options: RoutingOptions, text: string, accept: string): Promise<Response> {
  const cid = parseCid(text);
  const own = await options.own(cid);
  const found = options.book.find(cid.toString(), await options.now());
  const records = [...(own === undefined ? [] : [own]), ...found].map((signed) => peerRecord(options.domain, signed));
  // Announcements last minutes, and a cached "nobody" would hide who came since.
  const headers = { vary: 'Accept', 'cache-control': records.length === 0 ? 'public, max-age=15' : 'public, max-age=60' };
  if (accept.includes(NDJSON)) {
    const lines = records.map((record) => `${JSON.stringify(record)}\n`).join('');
    return new Response(lines, { status: records.length === 0 ? 404 : 200, headers: { ...headers, 'content-type': NDJSON } });
  }
  return Response.json({ Providers: records.slice(0, 100) }, { status: records.length === 0 ? 404 : 200, headers });
}

async function takeRecord(options: RoutingOptions, record: unknown): Promise<Record<string, unknown>> {
  try {
    const now = await options.now();
    const signed = readAnnouncement(options.domain, readFields(record, 'record').raw(PROTOCOL), now);
    await options.book.take(signed);
    return { Schema: 'announcement', Payload: { TTL: Number(signed.announcement.expiry - now) * 1000 } };
  } catch (error) {
    const { code, message } = toMillraceError(error);
    return { Schema: 'announcement', Error: { code, message, status: httpStatusOf(error) } };
  }
}

function badWrite(got: number): MillraceError {
  return new MillraceError('bad-request', {
    actor: 'caller',
    message: `Got ${got} records, expected Providers with 1 to ${WRITES_MAX}`,
    values: { got, limit: WRITES_MAX },
  });
}
