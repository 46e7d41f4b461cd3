import { type Hex, keccak256, stringToHex } from 'viem';
import { type ChainClient, isSignedBy, type Signer } from '../../chain/index.ts';
import { contentDigest, type PeerAddress, peerFetch, signRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { withinTotal } from '../../total-time.ts';
import type { ProtocolClock } from '../leases/protocol-clock.ts';

/** Where nodes measure one another. */
export const HEALTH_PATH = '/v1/compute/health';
/** Which network a request is meant for; covered by its signature. */
export const NETWORK_HEADER = 'millrace-network';
/** The answering node's signature over the request's signature and the answer's text. */
export const ANSWER_HEADER = 'millrace-answer-signature';

/** A partner's node as the chain says it. */
export interface PartnerNode extends PeerAddress {
  operatorId: bigint;
  nodeKey: Hex;
}

/** What a node needs to speak with partners. */
export interface PartnerCaller {
  client: ChainClient;
  signer: Signer;
  /** Requests are signed for protocol time: a wrong clock of a machine hurts nobody. */
  protocol: ProtocolClock;
}

/** An answer that its sender signed, with what both sides signed. */
export interface SignedAnswer {
  value: Record<string, unknown>;
  requestSignature: string;
  answerSignature: Hex;
}

const ANSWER_BYTES_MAX = 16 << 20;
const NODE_KEPT_MS = 60_000;

/** The value of NETWORK_HEADER. */
export function networkName(client: ChainClient): string {
  return `${client.chainId}:${client.address('computeHealth').toLowerCase()}`;
}

/** What an answer's signature is over. */
export function answerDigest(requestSignature: string, text: string): Hex {
  return keccak256(stringToHex(`${requestSignature}\n${text}`));
}

/** Reads where partners are, each at most once a minute. @throws unknown-operator, chain-unreachable */
export function createPartnerBook(client: ChainClient): (operatorId: bigint) => Promise<PartnerNode> {
  const known = new Map<bigint, { readAt: number; node: Promise<PartnerNode> }>();
  return (operatorId) => {
    const kept = known.get(operatorId);
    if (kept !== undefined && performance.now() - kept.readAt < NODE_KEPT_MS) return kept.node;
    const node = client
      .read('operators', 'operator', [operatorId])
      .then(({ endpoint, transportKey, nodeKey }) => ({ operatorId, endpoint, transportKey, nodeKey }));
    node.catch(() => known.delete(operatorId));
    known.set(operatorId, { readAt: performance.now(), node });
    return node;
  };
}

/** Sends bytes to a partner, signed; the answer is not read yet. @throws the errors of peerFetch */
export async function callPartner(
  { client, signer, protocol }: PartnerCaller,
  node: PartnerNode,
  { path, body, timeoutMs, signal }: { path: string; body: Uint8Array | string; timeoutMs: number; signal?: AbortSignal },
): Promise<{ response: Response; requestSignature: string }> {
  const url = new URL(`${HEALTH_PATH}${path}`, node.endpoint).href;
  const headers: Record<string, string> = { 'content-digest': contentDigest(body), [NETWORK_HEADER]: networkName(client) };
  const signed = await signRequest({ method: 'POST', url, headers }, signer, {
    covered: Object.keys(headers),
    nowSeconds: Number(protocol.now()),
  });
  const response = await peerFetch(node, `${HEALTH_PATH}${path}`, {
    method: 'POST',
    headers: { ...headers, ...signed },
    body,
    headersTimeoutMs: timeoutMs,
    idleTimeoutMs: timeoutMs,
    signal,
  });
  return { response, requestSignature: signed.signature as string };
}

/**
 * Asks a partner and checks that it signed what it answers. One that sends byte after byte is left after twice the time-out, like one that is silent.
 * @throws partner-refused, partner-answer-bad, peer-too-slow, the errors of peerFetch
 */
export async function askPartner(
  caller: PartnerCaller,
  node: PartnerNode,
  { path, body, timeoutMs, signal }: { path: string; body: object; timeoutMs: number; signal?: AbortSignal },
): Promise<SignedAnswer> {
  const { response, requestSignature, text } = await withinTotal(2 * timeoutMs, signal, async (ending) => {
    const called = await callPartner(caller, node, { path, body: JSON.stringify(body), timeoutMs, signal: ending });
    return { ...called, text: (await readAtMost(called.response.body, ANSWER_BYTES_MAX)).toString('utf8') };
  });
  if (!response.ok) {
    throw new MillraceError('partner-refused', {
      actor: 'peer',
      message: `The node of operator ${node.operatorId} refused ${path}: ${response.status} ${text.slice(0, 200)}`,
      values: { operatorId: node.operatorId, path, status: response.status },
    });
  }
  const answerSignature = (response.headers.get(ANSWER_HEADER) ?? '0x') as Hex;
  if (!isSignedBy(node.nodeKey, answerDigest(requestSignature, text), answerSignature)) throw badAnswer(node, path, 'its signature');
  return { value: parseObject(text, node, path), requestSignature, answerSignature };
}

function parseObject(text: string, node: PartnerNode, path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {}
  throw badAnswer(node, path, 'what it says');
}

function badAnswer({ operatorId }: PartnerNode, path: string, what: string): MillraceError {
  return new MillraceError('partner-answer-bad', {
    actor: 'peer',
    message: `The answer of operator ${operatorId} to ${path} is refused for ${what}`,
    values: { operatorId, path, what },
  });
}
