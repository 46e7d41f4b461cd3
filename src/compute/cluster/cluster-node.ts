import type { Hex } from 'viem';
import type { Signer } from '../../chain/index.ts';
import { contentDigest, type PeerAddress, peerFetch, signRequest } from '../../connect/index.ts';
import { type Actor, MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { ClusterSpec } from './cluster-spec.ts';
import { type MeshKey, parseMeshKey, parseSignedList, type SignedMemberList } from './member-list.ts';
import { badAnswer, type MemberStatus, parseExecResult, parseLogPiece, parseMemberStatus } from './member-status.ts';

/**
 * A node as a renter's agent speaks with it about one cluster. Every call throws `peer-unreachable`, `peer-timeout`,
 * `answer-too-long`, `bad-cluster-answer`, or the node's own error.
 */
export interface ClusterNode {
  join(request: { leaseId: string; seat: number; spec: ClusterSpec }): Promise<MeshKey>;
  setMembers(signed: SignedMemberList): Promise<void>;
  /** Undefined before it has a list. */
  members(): Promise<SignedMemberList | undefined>;
  status(): Promise<MemberStatus>;
  log(rank: number, from: number): Promise<{ text: string; next: number }>;
  exec(rank: number, argv: readonly string[]): Promise<{ exitCode: number; output: string }>;
  leave(): Promise<void>;
}

const ANSWER_BYTES_MAX = 4 << 20;
/** Long enough for a busy machine; a coordinator asks twice a second, and goes by when it was last answered. */
const STATUS_TIMEOUT_MS = 2_000;
const CALL_TIMEOUT_MS = 30_000;
/** A machine may have to take up an image first. */
const JOIN_TIMEOUT_MS = 10 * 60_000;

/** The node of an operator, over TLS pinned to its key on chain; every request is signed by the renter's agent. */
export function openClusterNode(peer: PeerAddress, cluster: Hex, signer: Pick<Signer, 'address' | 'signDigest'>): ClusterNode {
  const call = async (method: string, path: string, timeoutMs: number, body?: unknown): Promise<unknown> => {
    const target = `/v1/compute/clusters/${cluster}${path}`;
    const url = new URL(target, peer.endpoint).href;
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const digest: Record<string, string> = sent === undefined ? {} : { 'content-digest': contentDigest(sent) };
    const signature = await signRequest({ method, url, headers: digest }, signer, { covered: Object.keys(digest) });
    const signal = AbortSignal.timeout(timeoutMs);
    const headers = { ...digest, ...signature };
    const response = await peerFetch(peer, target, { method, headers, body: sent, signal, headersTimeoutMs: timeoutMs });
    const text = (await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8');
    const answer = parseJson(text || 'null');
    if (!response.ok) throw errorOf(answer, response.status);
    return answer;
  };
  return {
    join: async (request) => parseMeshKey(await call('POST', '/join', JOIN_TIMEOUT_MS, request), cluster),
    setMembers: async (signed) => void (await call('PUT', '/members', CALL_TIMEOUT_MS, signed)),
    members: async () => {
      const answer = await call('GET', '/members', CALL_TIMEOUT_MS);
      return answer === null || Object.keys(answer as object).length === 0 ? undefined : parseSignedList(answer);
    },
    status: async () => parseMemberStatus(await call('GET', '/status', STATUS_TIMEOUT_MS)),
    log: async (rank, from) => parseLogPiece(await call('GET', `/logs?rank=${rank}&from=${from}`, CALL_TIMEOUT_MS)),
    exec: async (rank, argv) => parseExecResult(await call('POST', '/exec', CALL_TIMEOUT_MS, { rank, argv })),
    leave: async () => void (await call('DELETE', '', CALL_TIMEOUT_MS)),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw badAnswer('it is no JSON');
  }
}

/** A node's own error, told on under its code; nothing but short texts is believed. */
function errorOf(answer: unknown, status: number): MillraceError {
  const { code, message, hint } = (answer ?? {}) as Record<string, unknown>;
  const isCode = typeof code === 'string' && /^[a-z][a-z-]{1,60}$/.test(code);
  const actor: Actor = status >= 500 ? 'peer' : 'caller';
  return new MillraceError(isCode ? (code as string) : 'cluster-node-failed', {
    actor,
    message: typeof message === 'string' ? message.slice(0, 1_000) : `The node answered with ${status}`,
    values: { status },
    hint: typeof hint === 'string' ? hint.slice(0, 500) : undefined,
  });
}
