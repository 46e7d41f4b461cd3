import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import { holdersOf, inBatches, listOperators, type OperatorView, storageDomainOf } from '../market/chain-view.ts';
import { readFields } from '../market/fields.ts';
import { PROTOCOL, readAnnouncement, type SignedAnnouncement } from './announcement.ts';
import type { Candidate } from './choose.ts';
import { CHUNK_BYTES } from './paywall.ts';

const ANSWER_BYTES_MAX = 512 << 10;
const TIMEOUT_MS = 4000;
const ROUTERS_MAX = 8;
/** Records believed of one router: one that answers with a hundred friends does not fill the list. */
const RECORDS_PER_ROUTER = 10;

/** JSON of bounded size from a peer. @throws peer-unreachable, peer-timeout, peer-answer-bad */
export async function askPeer(
  peer: PeerAddress,
  path: string,
  init: { method?: string; body?: string; signal?: AbortSignal } = {},
): Promise<unknown> {
  const response = await peerFetch(peer, path, {
    method: init.method,
    body: init.body,
    headers: { accept: 'application/json', ...(init.body === undefined ? {} : { 'content-type': 'application/json' }) },
    headersTimeoutMs: TIMEOUT_MS,
    idleTimeoutMs: TIMEOUT_MS,
    signal: init.signal,
  });
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) return undefined;
    chunks.push(chunk);
  }
  if (!response.ok) return undefined;
  return JSON.parse(Buffer.concat(chunks).toString('utf8'));
}

/** A holder's announcement as its own endpoint gives it; undefined when it has none. */
export async function fetchQuote(client: ChainClient, peer: PeerAddress, signal?: AbortSignal): Promise<SignedAnnouncement | undefined> {
  const answer = await askPeer(peer, '/v1/retrieval/announcement', { signal }).catch(() => undefined);
  if (answer === undefined) return undefined;
  try {
    return readAnnouncement(storageDomainOf(client), answer, await client.now());
  } catch {
    return undefined;
  }
}

/**
 * Everybody who is known to hold a content: holders of deals, as the chain knows them, and whoever announced it at nodes that route.
 * An announcement counts with its signature only; of each router a few are taken. `sizeBytes` is that of the piece, where a deal tells.
 */
export async function findCandidates(
  client: ChainClient,
  cid: CID,
  options: { signal?: AbortSignal; routers?: PeerAddress[] } = {},
): Promise<{ candidates: Candidate[]; sizeBytes: bigint | undefined }> {
  const { signal } = options;
  const [holders, operators] = await Promise.all([holdersOf(client, cid.bytes), listOperators(client)]);
  const withDeals = new Map(holders.map(({ operator }) => [operator.nodeKey.toLowerCase(), operator]));
  const routers = [...(options.routers ?? []), ...sample(operators, ROUTERS_MAX)];
  const [dealCandidates, announced] = await Promise.all([
    inBatches([...withDeals.values()], (operator) => candidateOf(client, operator, signal)),
    Promise.all(routers.map((router) => announcedAt(client, router, cid, signal))),
  ]);
  const found = new Map<string, Candidate>(dealCandidates.map((candidate) => [candidate.holder.toLowerCase(), candidate]));
  for (const { announcement } of announced.flat()) {
    const key = announcement.holder.toLowerCase();
    if (found.has(key)) continue;
    const { holder, endpoint, transportKey, pricePerGib, chunkBytes } = announcement;
    found.set(key, { holder, endpoint, transportKey, pricePerGib, chunkBytes, hasDeal: false, reported: { served: 0, failed: 0 } });
  }
  const sizes = holders.map(({ deal }) => deal.rawSize);
  return { candidates: [...found.values()], sizeBytes: sizes[0] };
}

/** Retrievers that nodes which route have heard of, by their signed announcements; the newest of each. */
export async function listRetrievers(client: ChainClient, options: { signal?: AbortSignal } = {}): Promise<SignedAnnouncement[]> {
  const operators = sample(await listOperators(client), ROUTERS_MAX * 2);
  const [domain, now] = [storageDomainOf(client), await client.now()];
  const newest = new Map<string, SignedAnnouncement>();
  const answers = await inBatches(operators, async (peer) => {
    const [own, others] = await Promise.all([
      fetchQuote(client, peer, options.signal),
      askPeer(peer, '/v1/retrieval/announcements', options).catch(() => undefined),
    ]);
    const items = (others as { items?: unknown } | undefined)?.items;
    return { own, items: Array.isArray(items) ? items.slice(0, 200) : [] };
  });
  const take = (signed: SignedAnnouncement) => {
    const known = newest.get(signed.announcement.holder);
    if (known === undefined || known.announcement.sequence < signed.announcement.sequence) newest.set(signed.announcement.holder, signed);
  };
  for (const { own, items } of answers) {
    if (own !== undefined) take(own);
    for (const item of items) {
      try {
        take(readAnnouncement(domain, item, now));
      } catch {
        // not signed by whom it names
      }
    }
  }
  return [...newest.values()];
}

async function candidateOf(client: ChainClient, operator: OperatorView, signal?: AbortSignal): Promise<Candidate> {
  const { nodeKey, endpoint, transportKey } = operator;
  const quote = await fetchQuote(client, operator, signal);
  const isOwn = quote?.announcement.holder.toLowerCase() === nodeKey.toLowerCase();
  return {
    holder: nodeKey,
    endpoint,
    transportKey: transportKey as Hex,
    pricePerGib: isOwn ? quote.announcement.pricePerGib : 0n,
    chunkBytes: isOwn ? quote.announcement.chunkBytes : BigInt(CHUNK_BYTES),
    hasDeal: true,
    reported: { served: 0, failed: 0 },
  };
}

async function announcedAt(client: ChainClient, router: PeerAddress, cid: CID, signal?: AbortSignal): Promise<SignedAnnouncement[]> {
  const answer = await askPeer(router, `/routing/v1/providers/${cid}`, { signal }).catch(() => undefined);
  const records = (answer as { Providers?: unknown } | undefined)?.Providers;
  if (!Array.isArray(records)) return [];
  const [domain, now] = [storageDomainOf(client), await client.now()];
  const valid: SignedAnnouncement[] = [];
  for (const record of records.slice(0, 100)) {
    try {
      valid.push(readAnnouncement(domain, readFields(record, 'record').raw(PROTOCOL), now));
    } catch {
      // somebody else's protocol, or nobody's signature
    }
  }
  return sample(valid, RECORDS_PER_ROUTER);
}

/** Some of the items, drawn at random. */
export function sample<Item>(items: readonly Item[], count: number, random: () => number = Math.random): Item[] {
  return items
    .map((item) => ({ item, draw: random() }))
    .sort((left, right) => left.draw - right.draw)
    .slice(0, count)
    .map(({ item }) => item);
}
