import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Hono } from 'hono';
import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { createPayer, openReceiver, startClaimer } from '../../token/index.ts';
import { storageDomainOf } from '../market/chain-view.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { problemResponse, readJsonBody } from '../pieces/problem.ts';
import { rewardRetrieval } from '../rewards/rewards.ts';
import { announcementToJson } from './announcement.ts';
import { type AnnouncementBook, type BookLimits, createAnnouncementBook } from './announcement-book.ts';
import { type Announcer, startAnnouncer } from './announcer.ts';
import { type BlockCache, openBlockCache } from './block-cache.ts';
import { fetchQuote } from './holdings.ts';
import { createOrigin } from './origin.ts';
import { createPaywall, type Paywall } from './paywall.ts';
import { openPeerRecords } from './peer-records.ts';
import { createReportBook, type ReportBook, reportToJson } from './report.ts';
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

const MISSING_MS = 15_000;
const MISSING_MAX = 10_000;

/**
 * Starts a retriever: a cache of verified blocks behind a paid gateway. What it does not have it fetches, and pays, from those who do;
 * what it has it announces, to nodes that route; and it routes itself.
 */
export async function startRetriever(options: RetrieverOptions): Promise<Retriever> {
  const { folder, client, signer, policy, log } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const cache = await openBlockCache({ folder: join(folder, 'blocks'), bytesMax: policy.cacheBytes, log });
  const { receiver, claimer, payer } = await openMoney(options);
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
  const hasBlock = async (cid: CID): Promise<boolean> => cache.has(cid) || (await block(cid)).length >= 0;
  const gateway = createTrustlessGateway({
    store: { block, hasBlock, pieceOfContent: () => undefined, piece: () => undefined, readPayload: () => emptyBody() },
  });
  const paywall = createPaywall({ gateway, receiver, pricePerGib: policy.pricePerGib, chunkBytes: policy.chunkBytes, log });
  const reports = createReportBook(client, receiver.codec);
  const book = createAnnouncementBook({
    limits: options.bookLimits,
    probe: async ({ announcement }) => (await fetchQuote(client, announcement))?.announcement.holder ?? '0x',
  });

  const announcer = startAnnouncer({ ...options, cache, rootsPath: join(folder, 'holdings.json'), isSelling: () => isSelling });
  const app = createRetrieverApp({ client, cache, book, reports, paywall, announcer, isSelling: () => isSelling });
  log.info('retriever-started', { holder: signer.address, pricePerGib: policy.pricePerGib, cachedBytes: cache.usage().bytes });
  return {
    fetch: async (request) => app.fetch(request),
    announce: announcer.announce,
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
        holdings: announcer.holdings(),
      };
    },
    async stop() {
      await announcer.stop();
      await claimer.stop();
      await receiver.close();
      await payer.close();
    },
  };
}

function createRetrieverApp(options: {
  client: ChainClient;
  cache: BlockCache;
  reports: ReportBook;
  book: AnnouncementBook;
  paywall: Paywall;
  announcer: Announcer;
  isSelling: () => boolean;
}): Hono {
  const { client, cache, book, reports, paywall, announcer, isSelling } = options;
  return new Hono()
    .route(
      '/routing/v1',
      createRoutingRoutes({
        domain: storageDomainOf(client),
        book,
        own: async (cid) => (cache.has(cid) ? announcer.current() : undefined),
        now: () => client.now(),
      }),
    )
    .get('/v1/retrieval/announcement', async (context) => {
      const signed = await announcer.current();
      return signed === undefined ? context.json({ error: 'draining' }, 503) : context.json(announcementToJson(signed));
    })
    .post('/v1/retrieval/reports', async (context) => {
      try {
        await reports.take(await readJsonBody(context.req.raw, { bytesMax: 4096, timeoutMs: 5000 }));
        return context.json({ taken: true }, 201);
      } catch (error) {
        return problemResponse(error);
      }
    })
    .get('/v1/retrieval/reports/:holder', (context) =>
      context.json({ items: reports.of(context.req.param('holder') as Hex).map(reportToJson) }),
    )
    .get('/v1/retrieval/announcements', async (context) =>
      context.json({
        items: book
          .all(await client.now())
          .slice(0, 200)
          .map(announcementToJson),
      }),
    )
    .all('/ipfs/*', async (context) => {
      if (!isSelling()) return context.json({ error: 'draining' }, 503);
      const answer = await paywall.fetch(context.req.raw);
      if (answer.status < 300) announcer.note(new URL(context.req.url).pathname);
      return answer;
    });
}

/** What it earns and claims, and what it pays origins with. */
async function openMoney({ folder, client, signer, sender, policy, log }: RetrieverOptions) {
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
  return { receiver, claimer, payer };
}

function notFound(cid: CID): MillraceError {
  return new MillraceError('not-found', {
    actor: 'caller',
    message: `Nobody who is known gave ${cid} a moment ago`,
    values: { cid: cid.toString() },
    hint: 'Ask later or elsewhere.',
  });
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}
