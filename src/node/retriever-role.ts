import type { TransportIdentity } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { parseAmount, parseSize, TOKEN_DECIMALS } from '../units.ts';
import { metricLines } from './relay-role.ts';
import type { Role, RoleContext } from './role.ts';

/** What a retriever's operator may set, as texts; what is absent has its default. */
export type RetrieverSettings = { [name in keyof typeof RETRIEVER_DEFAULTS]?: string };

/** A retriever that sets nothing: money in tokens, sizes with units. Prices are for one GiB. */
export const RETRIEVER_DEFAULTS = {
  retrievalPrice: '0.02',
  retrievalChunk: '8256KiB',
  retrievalCache: '1GiB',
  retrievalOriginPrice: '0.02',
  retrievalOriginBudget: '1',
} as const;

const CHUNK_MAX = 16n << 20n;
const CLAIM_INTERVAL_SECONDS = 300;
const ANNOUNCE_SECONDS = 1800;

/** Starts the role that caches content and sells it by the byte; its key needs no stake. @throws bad-retriever-setting */
export async function startRetrieverRole(
  context: RoleContext & { identity: TransportIdentity; retriever?: RetrieverSettings; endpoint?: string },
): Promise<Role> {
  const { startRetriever } = await import('../storage/index.ts');
  const { client, operatorId } = context;
  const retriever = await startRetriever({
    ...context,
    transportKey: context.identity.transportKey,
    async endpoint() {
      if (operatorId === 0n || context.endpoint !== undefined) return context.endpoint;
      const { endpoint } = await client.read('operators', 'operator', [operatorId]);
      return endpoint === '' ? undefined : endpoint;
    },
    policy: retrieverPolicy(context.retriever),
  });
  return {
    name: 'retriever',
    fetch(request) {
      const { pathname } = new URL(request.url);
      return /^\/(ipfs|routing\/v1|v1\/retrieval)\//.test(pathname) ? retriever.fetch(request) : undefined;
    },
    async metrics() {
      const now = await retriever.status();
      return metricLines(
        {
          millrace_retriever_cached_bytes: now.cachedBytes,
          millrace_retriever_hits_total: now.hits,
          millrace_retriever_misses_total: now.misses,
          millrace_retriever_served_bytes_total: now.servedBytes,
          millrace_retriever_paid_requests_total: now.paidRequests,
          millrace_retriever_credited_bytes_total: now.creditedBytes,
          millrace_retriever_refused_payments_total: now.refusedPayments,
          millrace_retriever_announcers_count: now.announcersKnown,
        },
        operatorId,
      );
    },
    status: async () => ({ ...(await retriever.status()) }),
    drain: () => retriever.drain(),
    resume: () => retriever.resume(),
    async leave() {
      retriever.drain();
      return { ...(await retriever.status()) };
    },
    stop: () => retriever.stop(),
  };
}

/** The policy of a retriever from its settings. @throws bad-retriever-setting, bad-amount, bad-size */
export function retrieverPolicy(settings: RetrieverSettings = {}) {
  const given = { ...RETRIEVER_DEFAULTS, ...settings };
  const chunkBytes = parseSize(given.retrievalChunk);
  if (chunkBytes < 1n || chunkBytes > CHUNK_MAX) {
    throw new MillraceError('bad-retriever-setting', {
      actor: 'caller',
      message: `Got retrievalChunk ${given.retrievalChunk}, expected 1B to 16MiB`,
      values: { got: given.retrievalChunk },
      hint: 'A greater chunk puts more of your buyers’ money at risk at once.',
    });
  }
  return {
    pricePerGib: parseAmount(given.retrievalPrice, TOKEN_DECIMALS),
    chunkBytes: Number(chunkBytes),
    cacheBytes: Number(parseSize(given.retrievalCache)),
    claimIntervalSeconds: CLAIM_INTERVAL_SECONDS,
    originPricePerGibMax: parseAmount(given.retrievalOriginPrice, TOKEN_DECIMALS),
    originBudget: parseAmount(given.retrievalOriginBudget, TOKEN_DECIMALS),
    announceSeconds: ANNOUNCE_SECONDS,
  };
}
