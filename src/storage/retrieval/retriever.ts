import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Hono } from 'hono';
import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { createPayer, openReceiver, startClaimer } from '../../token/index.ts';
import { DAG_PB, parseCid } from '../content/block.ts';
import { listOperators, storageDomainOf } from '../market/chain-view.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { rewardRetrieval } from '../rewards/rewards.ts';
import { ANNOUNCEMENT_LIMITS, announcementToJson, PROTOCOL, type SignedAnnouncement, signAnnouncement } from './announcement.ts';
import { type BookLimits, createAnnouncementBook } from './announcement-book.ts';
import { openBlockCache } from './block-cache.ts';
import { askPeer, fetchQuote, sample } from './holdings.ts';
import { createOrigin } from './origin.ts';
import { createPaywall } from './paywall.ts';
import { openPeerRecords } from './peer-records.ts';
import { createRoutingRoutes } from './routing-routes.ts';

/** What a retriever stands on. Its key needs neither stake nor registration. */
export interface RetrieverOptions {
  folder: string;
  client: ChainClient;
  /** Signs announcements, is paid, and pays origins. */
  signer: Signer;
  sender: Sender;
  transportKey: Hex;
  /** Where others reach it, `https://host:port`; undefined as long as nobody can. */
  endpoint: () => Promise<string | undefined>;
  policy: RetrieverPolicy;
  log: Logger;
  bookLimits?: Partial<BookLimits>;
}

/** What a retriever asks and risks. Money in base units. */
export interface RetrieverPolicy {
  pricePerGib: bigint;
  chunkBytes: number;
  cacheBytes: number;
  /** Seconds of chain time between claims of what it earned. */
  claimIntervalSeconds: number;
  /** Blocks of others dearer than this are not fetched. */
  originPricePerGibMax: bigint;
  /** What it spends on origins while it runs: most that a flood of requests for what nobody pays can cost. */
  originBudget: bigint;
  /** Chain seconds that an announcement is good for. */
  announceSeconds: number;
}

/** Numbers of a retriever. Money in base units. */
export interface RetrieverStatus {
  holder: Hex;
  pricePerGib: bigint;
  cachedBytes: number;
  cachedBlocks: number;
  hits: number;
  misses: number;
  servedBytes: number;
  paidRequests: number;
  creditedBytes: number;
  refusedPayments: number;
  earned: bigint;
  spentOnOrigins: bigint;
  announcersKnown: number;
  holdings: number;
}

/** A running retriever. */
export interface Retriever {
  /** Answers `/ipfs/…`, `/routing/v1/…` and `/v1/retrieval/…`. */
  fetch(request: Request): Promise<Response>;
  status(): Promise<RetrieverStatus>;
  /** Sells nothing from now on; what was paid for is delivered. */
  drain(): void;
  resume(): void;
  /** Tells others what it holds, now. Gives how many took it. */
  announce(): Promise<number>;
  stop(): Promise<void>;
}

const ANNOUNCED_TO = 8;
const CHECK_MS = 5_000;
const MISSING_MS = 15_000;
const MISSING_MAX = 10_000;

/**
 * Starts a retriever: a cache of verified blocks behind a paid gateway. What it does not have it fetches, and pays, from those who do;
 * what it has it announces, to nodes that route; and it routes itself.
 */
export async function startRetriever(options: RetrieverOptions): Promise<Retriever> {
  const { folder, client, signer, sender, policy, log } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const domain = storageDomainOf(client);
  const cache = await openBlockCache({ folder: join(folder, 'blocks'), bytesMax: policy.cacheBytes, log });
  const receiver = await openReceiver({
    client,
    receiver: signer.address,
    folder: join(folder, 'earned'),
    claimIntervalSeconds: policy.claimIntervalSeconds,
    sender,
  });
  const claimer = startClaimer({
    client,
    receiver,
    sender,
    intervalSeconds: policy.claimIntervalSeconds,
    afterSettlement: () => rewardRetrieval({ client, sender, receiver: signer.address }),
    log,
  });
  const payer = await createPayer({
    client,
    signer,
    sender,
    folder: join(folder, 'spent'),
    depositRequests: 1000n,
    depositMax: policy.originBudget,
  });
  const records = openPeerRecords(join(folder, 'origins.json'));
  const budget = { left: policy.originBudget };
  const origin = createOrigin({
    client,
    payer,
    records,
    pricePerGibMax: policy.originPricePerGibMax,
    budget,
    own: (await options.endpoint()) ?? '',
  });
  const rootsPath = join(folder, 'holdings.json');
  const roots = readRoots(rootsPath);
  const fetching = new Map<string, Promise<Uint8Array>>();
  /** What nobody had a moment ago: asking for it again costs nothing here. */
  const missing = new Map<string, number>();
  let isSelling = true;

  const block = async (cid: CID): Promise<Uint8Array> => {
    const cached = await cache.get(cid);
    if (cached !== undefined) return cached;
    const key = cid.toString();
    const missingUntil = missing.get(key) ?? 0;
    if (missingUntil > systemClock.nowMs()) throw notFound(cid);
    // What it earns it may spend: a retriever whose blocks are bought never runs out of money for more.
    budget.left = policy.originBudget + paywall.counts().earned - origin.paid();
    const running =
      fetching.get(key) ??
      origin
        .block(cid)
        .then(async (bytes) => {
          await cache.put(cid, bytes).catch((error: Error) => log.warn('cache-write-failed', { reason: error.message }));
          return bytes;
        })
        .catch((error) => {
          if (missing.size >= MISSING_MAX) missing.clear();
          missing.set(key, systemClock.nowMs() + MISSING_MS);
          throw error;
        })
        .finally(() => fetching.delete(key));
    fetching.set(key, running);
    return running;
  };
  const gateway = createTrustlessGateway({
    store: { block, pieceOfContent: () => undefined, piece: () => undefined, readPayload: () => emptyBody() },
  });
  const paywall = createPaywall({ gateway, receiver, pricePerGib: policy.pricePerGib, chunkBytes: policy.chunkBytes, log });
  const book = createAnnouncementBook({
    limits: options.bookLimits,
    probe: async ({ announcement }) => (await fetchQuote(client, announcement))?.announcement.holder ?? '0x',
  });

  let own: SignedAnnouncement | undefined;
  const renew = async (): Promise<SignedAnnouncement | undefined> => {
    const endpoint = await options.endpoint();
    if (endpoint === undefined || !isSelling) return undefined;
    const now = await client.now();
    const cids = [...roots.keys()].filter((cid) => cache.has(parseCid(cid))).slice(-ANNOUNCEMENT_LIMITS.cids);
    own = await signAnnouncement(domain, signer, {
      sequence: BigInt(Date.now()),
      issuedAt: now,
      expiry: now + BigInt(policy.announceSeconds),
      endpoint,
      transportKey: options.transportKey,
      pricePerGib: policy.pricePerGib,
      chunkBytes: BigInt(policy.chunkBytes),
      cids,
    });
    return own;
  };
  const current = async (): Promise<SignedAnnouncement | undefined> => {
    const isFresh = own !== undefined && own.announcement.expiry > (await client.now()) + BigInt(policy.announceSeconds) / 4n;
    return isFresh ? own : renew();
  };
  const announce = async (): Promise<number> => {
    const signed = await renew();
    if (signed === undefined) return 0;
    const body = JSON.stringify({ Providers: [{ Schema: 'peer', [PROTOCOL]: announcementToJson(signed) }] });
    const others = (await listOperators(client)).filter(({ endpoint }) => endpoint !== signed.announcement.endpoint);
    const sent = sample(others, ANNOUNCED_TO).map((peer) => askPeer(peer, '/routing/v1/providers', { method: 'PUT', body }));
    return (await Promise.allSettled(sent)).filter((result) => result.status === 'fulfilled' && result.value !== undefined).length;
  };

  const stopping = new AbortController();
  const announcing = (async () => {
    let announcedAt = 0n;
    let announcedRoots = -1;
    while (!stopping.signal.aborted) {
      try {
        const now = await client.now();
        const isDue = now >= announcedAt + BigInt(policy.announceSeconds) / 2n || roots.size !== announcedRoots;
        if (isDue && isSelling) {
          if (roots.size !== announcedRoots) writeFileDurably(rootsPath, `${JSON.stringify([...roots.keys()])}\n`);
          [announcedAt, announcedRoots] = [now, roots.size];
          log.debug('announced', { peers: await announce(), holdings: roots.size });
        }
      } catch (error) {
        log.warn('announce-failed', { reason: (error as Error).message });
      }
      await systemClock.sleep(CHECK_MS, stopping.signal).catch(() => {});
    }
  })();

  const app = new Hono()
    .route(
      '/routing/v1',
      createRoutingRoutes({ domain, book, own: async (cid) => (cache.has(cid) ? current() : undefined), now: () => client.now() }),
    )
    .get('/v1/retrieval/announcement', async (context) => {
      const signed = await current();
      return signed === undefined ? context.json({ error: 'draining' }, 503) : context.json(announcementToJson(signed));
    })
    .get('/v1/retrieval/announcements', async (context) =>
      context.json({
        items: book
          .all(await client.now())
          .slice(0, 200)
          .map(announcementToJson),
      }),
    )
    .all('/ipfs/*', async (context) => {
      if (!isSelling) return context.json({ error: 'draining' }, 503);
      const answer = await paywall.fetch(context.req.raw);
      if (answer.status < 300) noteRoot(roots, new URL(context.req.url).pathname);
      return answer;
    });
  log.info('retriever-started', { holder: signer.address, pricePerGib: policy.pricePerGib, cachedBytes: cache.usage().bytes });
  return {
    fetch: async (request) => app.fetch(request),
    announce,
    drain() {
      isSelling = false;
    },
    resume() {
      isSelling = true;
    },
    async status() {
      const [usage, counts] = [cache.usage(), paywall.counts()];
      return {
        holder: signer.address,
        pricePerGib: policy.pricePerGib,
        cachedBytes: usage.bytes,
        cachedBlocks: usage.blocks,
        hits: usage.hits,
        misses: usage.misses,
        servedBytes: counts.paidBytes,
        paidRequests: counts.paidRequests,
        creditedBytes: counts.creditedBytes,
        refusedPayments: counts.refusedPayments,
        earned: counts.earned,
        spentOnOrigins: origin.paid(),
        announcersKnown: book.all(await client.now()).length,
        holdings: roots.size,
      };
    },
    async stop() {
      stopping.abort();
      await announcing;
      await claimer.stop();
      await receiver.close();
      await payer.close();
    },
  };
}

function notFound(cid: CID): MillraceError {
  return new MillraceError('not-found', {
    actor: 'caller',
    message: `Nobody who is known gave ${cid} a moment ago`,
    values: { cid: cid.toString() },
    hint: 'Ask later or elsewhere.',
  });
}

/** What was asked for by name before the last stop. A file that cannot be read only means that others must ask again. */
function readRoots(path: string): Map<string, true> {
  try {
    const known = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as string[]) : [];
    return new Map(known.slice(-ANNOUNCEMENT_LIMITS.cids).map((cid) => [parseCid(cid).toString(), true]));
  } catch {
    return new Map();
  }
}

/** Remembers what was asked for by name: the likeliest root of what else is in the cache. */
function noteRoot(roots: Map<string, true>, pathname: string): void {
  const text = pathname.split('/')[2] ?? '';
  try {
    const cid = parseCid(text);
    if (cid.code !== DAG_PB && roots.size >= ANNOUNCEMENT_LIMITS.cids / 2) return; // leaves are found through their roots
    roots.delete(cid.toString());
    roots.set(cid.toString(), true);
    if (roots.size > ANNOUNCEMENT_LIMITS.cids) roots.delete(roots.keys().next().value as string);
  } catch {
    // not a CID: the gateway has said so
  }
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}
