import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import { readAtMost } from '../../read-at-most.ts';
import { createVoucherCodec, readChannel, type VoucherCodec } from '../../token/index.ts';
import { holdersOf, inBatches, listOperators, type OperatorView, storageDomainOf } from '../market/chain-view.ts';
import { readFields } from '../market/fields.ts';
import { PROTOCOL, readAnnouncement, type SignedAnnouncement } from './announcement.ts';
import type { Candidate } from './choose.ts';
import { CHUNK_BYTES } from './paywall.ts';
import { publicCounts, readReport, reportToJson, type SignedReport } from './report.ts';

const ANSWER_BYTES_MAX = 512 << 10;
const TIMEOUT_MS = 4000;
const ROUTERS_MAX = 8;
const REPORTS_LOOKED_AT = 32;
/** Records believed of one router: one that answers with a hundred friends does not fill the list. */
const RECORDS_PER_ROUTER = 10;

/** JSON of bounded size from a peer; undefined when it refuses. @throws peer-unreachable, peer-timeout, answer-too-long, and what is no JSON */
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
  const body = await readAtMost(response.body, ANSWER_BYTES_MAX);
  return response.ok ? JSON.parse(body.toString('utf8')) : undefined;
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

const REPORTED_MAX = 12;
const REPORTERS_MAX = 3;

/**
 * Adds to candidates what paying clients reported of them, as a few nodes that keep reports give it; every report's signature and
 * channel are checked here, and that the channel has the money that it speaks of.
 */
export async function addReports(client: ChainClient, candidates: Candidate[], signal?: AbortSignal): Promise<Candidate[]> {
  const strangers = candidates.filter(({ hasDeal }) => !hasDeal).slice(0, REPORTED_MAX);
  const counts = await reportedOf(
    client,
    strangers.map(({ holder }) => holder),
    signal,
  );
  return candidates.map((each) => ({ ...each, reported: counts.get(each.holder.toLowerCase()) ?? each.reported }));
}

/** Public counts of some sellers, by their address in lower case. */
export async function reportedOf(
  client: ChainClient,
  holders: Hex[],
  signal?: AbortSignal,
): Promise<Map<string, { served: number; failed: number; clients: number }>> {
  const counts = new Map<string, { served: number; failed: number; clients: number }>();
  if (holders.length === 0) return counts;
  const codec = createVoucherCodec(client.chainId, client.address('channels'));
  const keepers = sample(await listOperators(client), REPORTERS_MAX);
  await inBatches(holders, async (holder) => {
    const answers = await Promise.all(
      keepers.map((peer) => askPeer(peer, `/v1/retrieval/reports/${holder.toLowerCase()}`, { signal }).catch(() => undefined)),
    );
    counts.set(holder.toLowerCase(), publicCounts(await provenReports(client, codec, answers)));
  });
  return counts;
}

/** Reports from several answers that hold up, the newest of each channel, a bounded number of them. */
async function provenReports(client: ChainClient, codec: VoucherCodec, answers: unknown[]): Promise<SignedReport[]> {
  const newest = new Map<string, SignedReport>();
  for (const answer of answers) {
    const items = (answer as { items?: unknown } | undefined)?.items;
    for (const item of Array.isArray(items) ? items.slice(0, REPORTS_LOOKED_AT) : []) {
      try {
        const signed = readReport(codec, item);
        const known = newest.get(signed.report.channelId);
        if (known === undefined || known.report.sequence < signed.report.sequence) newest.set(signed.report.channelId, signed);
      } catch {
        // not what it says it is
      }
    }
  }
  const checked = await inBatches(sample([...newest.values()], REPORTS_LOOKED_AT), async (signed) => {
    const { balance } = await readChannel(client, signed.report.channelId);
    return balance > 0n && signed.report.paid <= balance ? [signed] : [];
  });
  return checked.flat();
}

/** Tells some nodes how a seller served, signed, with the channel as evidence. Gives how many took it. */
export async function publishReport(client: ChainClient, signed: SignedReport, signal?: AbortSignal): Promise<number> {
  const body = JSON.stringify(reportToJson(signed));
  const peers = sample(await listOperators(client), REPORTERS_MAX);
  const sent = peers.map((peer) => askPeer(peer, '/v1/retrieval/reports', { method: 'POST', body, signal }));
  return (await Promise.allSettled(sent)).filter((result) => result.status === 'fulfilled' && result.value !== undefined).length;
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
