import type { Hex } from 'viem';
import type { Signer } from '../../chain/index.ts';
import { type PeerAddress, type PeerRequest, peerFetch, signRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { askFromJson, requireAsk, type SignedAsk } from './ask.ts';
import type { DealStatus } from './deal-records.ts';
import { readFields } from './fields.ts';
import type { StorageDomain } from './signed-messages.ts';
import { type DealTerms, type Extension, termsToJson } from './terms.ts';

/** A provider as its clients reach it: where it is on the network and who it is on chain. */
export interface ProviderPeer extends PeerAddress {
  operatorId: bigint;
  nodeKey: Hex;
}

/** What a provider says of a deal. */
export interface DealProgress {
  dealId: bigint;
  status: DealStatus;
  reason: string | undefined;
  offset: bigint;
}

/** Headers that an upload's signature covers besides method, authority, path, query and market. */
export const UPLOAD_SIGNED_HEADERS = ['upload-offset', 'content-length'] as const;

const ANSWER_BYTES_MAX = 64 << 10;
const STATUSES: readonly string[] = ['opening', 'receiving', 'checking', 'stored', 'acknowledged', 'active', 'lost', 'over'];

/** Names chain and market in a signed request, so that it is good on one network only (CAIP-10 account). */
export function marketHeader(domain: StorageDomain): string {
  return `eip155:${domain.chainId}:${domain.market.toLowerCase()}`;
}

/**
 * The provider's ask, its signature checked against the operator's node key, and what the node says it has left.
 * @throws bad-ask, bad-field, peer-unreachable, peer-timeout, peer-key-mismatch, peer-answer-bad
 */
export async function fetchAsk(
  peer: ProviderPeer,
  domain: StorageDomain,
  request: Pick<PeerRequest, 'signal' | 'headersTimeoutMs'> = {},
): Promise<{ signed: SignedAsk; freeBytes: bigint; acceptsDeals: boolean }> {
  const answer = await call(peer, 'ask', { headersTimeoutMs: 5000, ...request });
  const signed = askFromJson(answer);
  requireAsk({ domain, signed, operatorId: peer.operatorId, nodeKey: peer.nodeKey });
  const fields = readFields(answer, 'answer');
  return { signed, freeBytes: fields.uint('freeBytes', 64), acceptsDeals: fields.raw('accepting') === true };
}

/**
 * Proposes a deal; the provider signs it and records it on chain. Repeating the same proposal gives the same deal.
 * @throws deal-refused (values.reason tells why), peer-unreachable, peer-timeout
 */
export async function proposeDeal(
  peer: ProviderPeer,
  proposal: { terms: DealTerms; cid: Hex; signature: Hex },
  request: Pick<PeerRequest, 'signal' | 'headersTimeoutMs'> = {},
): Promise<DealProgress> {
  const body = JSON.stringify({ terms: termsToJson(proposal.terms), cid: proposal.cid, signature: proposal.signature });
  return progressOf(await call(peer, 'deals', { ...postJson(body), headersTimeoutMs: 120_000, ...request }));
}

/** How far the provider is with a deal. */
export async function fetchDealProgress(peer: ProviderPeer, dealId: bigint, request: PeerRequest = {}): Promise<DealProgress> {
  return progressOf(await call(peer, `deals/${dealId}`, request));
}

/** Hands over the client's signed `Activation`: the data can be read back. */
export async function acknowledgeDeal(
  peer: ProviderPeer,
  dealId: bigint,
  signature: Hex,
  request: PeerRequest = {},
): Promise<DealProgress> {
  return progressOf(await call(peer, `deals/${dealId}/acknowledgement`, { ...postJson(JSON.stringify({ signature })), ...request }));
}

/** Asks a checker to read a deal's content from its provider and to sign that it could. @throws the checker's refusal, with actor `peer` */
export async function fetchCheck(checker: ProviderPeer, dealId: bigint, request: PeerRequest = {}): Promise<Hex> {
  const response = await peerFetch(checker, `/v1/checks/${dealId}`, { ...postJson('{}'), ...request });
  if (!response.ok) throw await refusalOf(response, checker);
  return readFields(await readAnswer(response, checker), 'answer').hex('signature', 65);
}

/** Asks the provider to sign an extension too and to record it on chain. */
export async function proposeExtension(peer: ProviderPeer, extension: Extension, signature: Hex, request: PeerRequest = {}): Promise<void> {
  const { dealId, periods, endPeriod, expiry } = extension;
  const body = JSON.stringify({ periods: periods.toString(), endPeriod: endPeriod.toString(), expiry: expiry.toString(), signature });
  await call(peer, `deals/${dealId}/extension`, { ...postJson(body), headersTimeoutMs: 120_000, ...request });
}

/** The durable offset of an upload. */
export async function fetchUploadOffset(options: {
  peer: ProviderPeer;
  domain: StorageDomain;
  signer: Signer;
  dealId: bigint;
  signal?: AbortSignal;
}): Promise<bigint> {
  const headers = { 'millrace-market': marketHeader(options.domain) };
  return offsetOf(await signedCall({ ...options, method: 'HEAD', headers }), options.peer);
}

/** Sends bytes at an offset; gives the new durable offset. */
export async function sendChunk(options: {
  peer: ProviderPeer;
  domain: StorageDomain;
  signer: Signer;
  dealId: bigint;
  offset: bigint;
  sizeBytes: number;
  body: AsyncIterable<Uint8Array>;
  idleTimeoutMs?: number;
  signal?: AbortSignal;
}): Promise<bigint> {
  const headers = {
    'millrace-market': marketHeader(options.domain),
    'upload-offset': options.offset.toString(),
    'content-length': options.sizeBytes.toString(),
    'content-type': 'application/partial-upload',
  };
  // The answer comes only after all bytes went out and are durable, so the time for headers grows with the chunk.
  const headersTimeoutMs = 60_000 + options.sizeBytes / 16;
  return offsetOf(await signedCall({ ...options, method: 'PATCH', headers, headersTimeoutMs }), options.peer);
}

async function signedCall(options: {
  peer: ProviderPeer;
  signer: Signer;
  dealId: bigint;
  method: string;
  headers: Record<string, string>;
  body?: AsyncIterable<Uint8Array>;
  headersTimeoutMs?: number;
  idleTimeoutMs?: number;
  signal?: AbortSignal;
}): Promise<Response> {
  const { peer, method, headers } = options;
  const path = `/v1/storage/pieces/${options.dealId}`;
  const covered = ['millrace-market', ...UPLOAD_SIGNED_HEADERS.filter((name) => name in headers)];
  const signature = await signRequest({ method, url: new URL(path, peer.endpoint).href, headers }, options.signer, { covered });
  const { body, headersTimeoutMs, idleTimeoutMs, signal } = options;
  const response = await peerFetch(peer, path, {
    method,
    headers: { ...headers, ...signature },
    body,
    headersTimeoutMs,
    idleTimeoutMs,
    signal,
  });
  if (!response.ok) throw await refusalOf(response, peer);
  return response;
}

async function call(peer: ProviderPeer, path: string, request: PeerRequest): Promise<unknown> {
  const response = await peerFetch(peer, `/v1/storage/${path}`, request);
  if (!response.ok) throw await refusalOf(response, peer);
  return readAnswer(response, peer);
}

function postJson(body: string): PeerRequest {
  return { method: 'POST', headers: { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }, body };
}

async function readAnswer(response: Response, peer: ProviderPeer): Promise<unknown> {
  const body = await readAtMost(response.body, ANSWER_BYTES_MAX);
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw badAnswer(peer, 'no JSON', cause);
  }
}

/** A peer's problem+json as a typed error: its code and reason are kept, who can act is always the peer for us. */
async function refusalOf(response: Response, peer: ProviderPeer): Promise<MillraceError> {
  const problem = (await readAnswer(response, peer).catch(() => ({}))) as Record<string, unknown>;
  const text = (value: unknown, otherwise: string) => (typeof value === 'string' ? value.slice(0, 300) : otherwise);
  const values = typeof problem.values === 'object' && problem.values !== null ? (problem.values as Record<string, unknown>) : {};
  const code = text(problem.code, 'peer-answer-bad');
  const shown = Object.fromEntries(
    Object.entries(values)
      .slice(0, 12)
      .map(([name, value]) => [name, text(value, String(value))]),
  );
  return new MillraceError(/^[a-z][a-z-]{1,40}$/.test(code) ? code : 'peer-answer-bad', {
    actor: 'peer',
    message: `Operator ${peer.operatorId} refused: ${text(problem.detail ?? problem.title, `HTTP ${response.status}`)}`,
    values: { ...shown, operatorId: peer.operatorId, endpoint: peer.endpoint, httpStatus: response.status },
    hint: typeof problem.hint === 'string' ? problem.hint.slice(0, 300) : undefined,
  });
}

function progressOf(answer: unknown): DealProgress {
  const fields = readFields(answer, 'answer');
  const status = fields.raw('status');
  const reason = fields.raw('reason');
  return {
    dealId: fields.uint('dealId', 64),
    status: (typeof status === 'string' && STATUSES.includes(status) ? status : 'over') as DealStatus,
    reason: typeof reason === 'string' ? reason.slice(0, 300) : undefined,
    offset: fields.uint('offset', 64),
  };
}

function offsetOf(response: Response, peer: ProviderPeer): bigint {
  const text = response.headers.get('upload-offset');
  if (text === null || !/^\d{1,18}$/.test(text)) throw badAnswer(peer, 'no upload offset');
  return BigInt(text);
}

function badAnswer(peer: ProviderPeer, got: string, cause?: unknown): MillraceError {
  return new MillraceError('peer-answer-bad', {
    actor: 'peer',
    message: `Operator ${peer.operatorId} at ${peer.endpoint} answered with ${got}`,
    values: { operatorId: peer.operatorId, endpoint: peer.endpoint },
    hint: 'Take another provider.',
    cause,
  });
}
