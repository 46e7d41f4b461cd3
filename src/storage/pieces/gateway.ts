import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { decodeUnixfs, parseCid } from '../content/block.ts';
import { encodeCarHeader, encodeSectionPrefix } from '../content/car.ts';
import { type Hex, parsePieceCid } from '../content/piece.ts';
import { type ByteSpan, resolvePath, type WalkedBlock, walkDag } from '../content/unixfs-walk.ts';
import { type CarRequest, type GatewayRequest, parseGatewayRequest } from './gateway-request.ts';
import type { StoredPiece } from './piece-store.ts';
import { problemResponse } from './problem.ts';
import { checkLeaves, planSpan, readPlan } from './span-plan.ts';

/** What the gateway serves from; a piece store fits. */
export interface GatewaySource {
  block(cid: CID): Promise<Uint8Array | undefined>;
  /** Whether a block is to be had; absent where that is only known by reading it. */
  hasBlock?(cid: CID): Promise<boolean>;
  pieceOfContent(cid: CID): StoredPiece | undefined;
  piece(root: Hex): StoredPiece | undefined;
  readPayload(root: Hex, range?: { start: number; end: number }): AsyncIterable<Uint8Array>;
}

const IMMUTABLE = 'public, max-age=29030400, immutable';
const NOTHING = new Uint8Array();
/** Blocks up to this size go out together with what precedes them in a CAR; greater ones are not copied for it. */
const SMALL_BYTES = 64 << 10;

/**
 * A trustless gateway over stored pieces: `/ipfs/{cid}[/path]` as raw block or CAR (`format` or `Accept`, `dag-scope`,
 * `entity-bytes`, `dups`), and `/piece/{pieceCid}` as the piece's payload. GET and HEAD; answers stream with
 * back-pressure; nothing of a request ever names a file. Rule: specs.ipfs.tech/http-gateways/trustless-gateway.
 */
export function createTrustlessGateway(options: { store: GatewaySource }): (request: Request) => Promise<Response> {
  const { store } = options;
  return async (request) => {
    try {
      const wanted = parseGatewayRequest(request);
      const response = wanted.kind === 'piece' ? servePiece(store, wanted.pieceCid, request) : await serveContent(store, wanted, request);
      if (request.method !== 'HEAD' || response.body === null) return response;
      await response.body.cancel();
      return new Response(null, response);
    } catch (error) {
      const answer = problemResponse(error);
      if (error instanceof MillraceError && error.code === 'method-not-allowed') answer.headers.set('allow', 'GET, HEAD');
      answer.headers.set('x-content-type-options', 'nosniff');
      answer.headers.set('cache-control', 'no-store');
      return answer;
    }
  };
}

async function serveContent(store: GatewaySource, wanted: Exclude<GatewayRequest, { kind: 'piece' }>, request: Request): Promise<Response> {
  const root = parseCid(wanted.cid);
  const getBlock = async (cid: CID): Promise<Uint8Array> => {
    const bytes = await store.block(cid);
    if (bytes === undefined) throw notHere(cid);
    return bytes;
  };
  const { target, way } = await resolvePath(root, wanted.path, getBlock);
  const headers = new Headers({
    'cache-control': IMMUTABLE,
    'x-content-type-options': 'nosniff',
    'x-ipfs-path': `/ipfs/${[root.toString(), ...wanted.path.map(encodeURIComponent)].join('/')}`,
    'x-ipfs-roots': [...way.map(({ cid }) => cid), target].join(','),
    vary: 'Accept',
  });
  if (wanted.kind === 'raw') return serveRaw(target, await getBlock(target), headers, request);
  return serveCar({ store, root, target, way, car: wanted, getBlock, headers, request });
}

function serveRaw(cid: CID, bytes: Uint8Array, headers: Headers, request: Request): Response {
  headers.set('content-type', 'application/vnd.ipld.raw');
  headers.set('content-disposition', `attachment; filename="${cid}.bin"`);
  headers.set('etag', `"${cid}.raw"`);
  if (isKnown(request, headers)) return new Response(null, { status: 304, headers });
  const range = rangeOf(request, bytes.length, headers);
  const body = range === undefined ? bytes : bytes.subarray(range.start, range.end);
  headers.set('content-length', String(body.length));
  // A stream, because a Response copies bytes that it is given.
  return new Response(streamOf(oneChunk(body)), { status: range === undefined ? 200 : 206, headers });
}

async function serveCar(input: {
  store: GatewaySource;
  root: CID;
  target: CID;
  way: WalkedBlock[];
  car: CarRequest;
  getBlock: (cid: CID) => Promise<Uint8Array>;
  headers: Headers;
  request: Request;
}): Promise<Response> {
  const { store, root, target, way, car, getBlock, headers, request } = input;
  const first = await getBlock(target); // a missing root is a 404, not a broken stream
  const span = car.entityBytes === undefined ? undefined : spanOf(car.entityBytes, decodeUnixfs(target, first).fileSize);
  const scope = car.entityBytes === undefined ? car.scope : 'entity';
  const variant = `${scope}.${span === undefined ? '' : `${span.from}-${span.to}`}.${car.dups}.${wayTag(way)}`;
  headers.set('content-type', `application/vnd.ipld.car; version=1; order=dfs; dups=${car.dups}`);
  headers.set('content-disposition', `attachment; filename="${target}.car"`);
  headers.set('etag', `W/"${target}.car.${variant}"`);
  headers.set('accept-ranges', 'none');
  if (isKnown(request, headers)) return new Response(null, { status: 304, headers });
  const piece = way.length === 0 && span === undefined && scope === 'all' && car.dups === 'y' ? store.pieceOfContent(target) : undefined;
  if (piece?.isDepthFirst === true) {
    headers.set('content-length', String(piece.rawSize));
    return new Response(streamOf(store.readPayload(piece.root)), { headers });
  }
  const hasBlock = store.hasBlock?.bind(store);
  const isPlannable = hasBlock !== undefined && way.length === 0 && car.dups === 'y';
  const plan = isPlannable && span !== undefined ? await planSpan({ root, target }, span, getBlock) : undefined;
  if (isPlannable && plan !== undefined) {
    await checkLeaves(plan, hasBlock, notHere);
    headers.set('content-length', String(plan.carBytes));
    return new Response(streamOf(carBytes(root, readPlan(plan, getBlock))), { headers });
  }
  const blocks = carBlocks(way, walkDag(target, { scope, span, getBlock }), car.dups === 'n');
  return new Response(streamOf(carBytes(root, blocks)), { headers });
}

function servePiece(store: GatewaySource, pieceCid: string, request: Request): Response {
  const piece = store.piece(parsePieceCid(pieceCid).root);
  if (piece === undefined)
    throw new MillraceError('not-found', { actor: 'caller', message: `Piece ${pieceCid} is not stored here`, values: { pieceCid } });
  const headers = new Headers({
    'cache-control': IMMUTABLE,
    'x-content-type-options': 'nosniff',
    'content-type': 'application/octet-stream',
    'content-disposition': `attachment; filename="${piece.cidV2}.car"`,
    etag: `"${piece.cidV2}"`,
  });
  if (isKnown(request, headers)) return new Response(null, { status: 304, headers });
  const range = rangeOf(request, piece.rawSize, headers);
  headers.set('content-length', String(range === undefined ? piece.rawSize : range.end - range.start));
  return new Response(streamOf(store.readPayload(piece.root, range)), { status: range === undefined ? 200 : 206, headers });
}

async function* carBlocks(way: WalkedBlock[], walk: AsyncIterable<WalkedBlock>, isUnique: boolean): AsyncGenerator<WalkedBlock> {
  const seen = new Set<string>();
  const isNew = ({ cid }: WalkedBlock) => {
    if (!isUnique) return true;
    const key = cid.toString();
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  };
  for (const block of way) if (isNew(block)) yield block;
  for await (const block of walk) if (isNew(block)) yield block;
}

async function* carBytes(root: CID, blocks: AsyncIterable<WalkedBlock>): AsyncGenerator<Uint8Array> {
  let head: Uint8Array = encodeCarHeader(root);
  for await (const { cid, bytes } of blocks) {
    if (cid.multihash.code === 0) continue; // an identity CID carries its own bytes
    const start = Buffer.concat([head, encodeSectionPrefix(cid, bytes.length)]);
    head = NOTHING;
    if (bytes.length <= SMALL_BYTES) yield Buffer.concat([start, bytes]);
    else {
      yield start;
      yield bytes;
    }
  }
  if (head.length > 0) yield head;
}

/** Bytes of the file that `entity-bytes` asks for; negative numbers count from the end, `to` is inclusive. */
function spanOf(asked: { from: number; to: number | undefined }, size: number): ByteSpan | undefined {
  const from = asked.from < 0 ? Math.max(0, size + asked.from) : asked.from;
  const last = asked.to === undefined ? size - 1 : asked.to < 0 ? size + asked.to : asked.to;
  return { from, to: Math.min(size, last + 1) };
}

function wayTag(way: WalkedBlock[]): string {
  return way.map(({ cid }) => cid.toString().slice(-8)).join('');
}

function isKnown(request: Request, headers: Headers): boolean {
  const known = request.headers.get('if-none-match');
  const etag = (headers.get('etag') as string).replace(/^W\//, '');
  return (known ?? '').split(',').some((each) => each.trim() === '*' || each.trim().replace(/^W\//, '') === etag);
}

/** The one range of a Range header, or undefined for the whole; several ranges are answered with the whole. */
function rangeOf(request: Request, size: number, headers: Headers): { start: number; end: number } | undefined {
  headers.set('accept-ranges', 'bytes');
  const condition = request.headers.get('if-range');
  if (condition !== null && condition !== headers.get('etag')) return undefined;
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(request.headers.get('range') ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === '' || match[2] === '' ? size : Math.min(size, Number(match[2]) + 1);
  if (start >= end) {
    throw new MillraceError('range-not-satisfiable', {
      actor: 'caller',
      message: `Got range ${match[0]} of ${size} bytes`,
      values: { range: match[0], size },
    });
  }
  headers.set('content-range', `bytes ${start}-${end - 1}/${size}`);
  return { start, end };
}

/** A byte stream that reads on only when the receiver takes more, and stops reading when it goes away. */
function streamOf(source: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const chunks = source[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          if (done === true) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          controller.error(error);
        }
      },
      async cancel() {
        await chunks.return?.();
      },
    },
    { highWaterMark: 1 },
  );
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function notHere(cid: CID): MillraceError {
  return new MillraceError('not-found', {
    actor: 'caller',
    message: `Block ${cid} is not stored here`,
    values: { cid: cid.toString() },
    hint: 'Ask another provider of this content.',
  });
}
