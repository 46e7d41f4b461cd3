import type { CID } from 'multiformats/cid';
import type { ChainClient } from '../../chain/index.ts';
import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Payer } from '../../token/index.ts';
import { BLOCK_BYTES_MAX } from '../content/block.ts';
import { type ContentSource, createBlockFetcher, type FetchLimits } from '../content/block-fetcher.ts';
import { listOperators } from '../market/chain-view.ts';
import { type Candidate, CHOICE_LIMITS, chooseSellers } from './choose.ts';
import { findCandidates, sample } from './holdings.ts';
import { type Budget, createPaidFetch, EXPECTED_BYTES, type PaidFetch } from './paid-fetch.ts';
import { CHUNK_BYTES } from './paywall.ts';
import type { PeerRecords } from './peer-records.ts';

/** A retriever may have to fetch the blocks of a chunk first. */
const HEADERS_MS = 20_000;

/** A seller as a source, and what was paid to it. */
export interface SellerSource {
  candidate: Candidate;
  source: ContentSource;
  paid: PaidFetch | undefined;
}

/** Time-outs for sources whose answers are paid one after the other: each waits for those before it. */
export const PAID_LIMITS: FetchLimits = { headersMs: 120_000, idleMs: 15_000, bytesPerSecondMin: 16 << 10, failuresMax: 4 };

/** Whose money is spent, and how much of it one payment may put at risk: sellers with a greater chunk are asked for less at once. */
export interface Paying {
  payer: Payer;
  budget: Budget;
  /** Default: that of a seller of ours. A single block is bought whatever this is. */
  chunkBytesMax?: number;
}

/** A seller as a source over TLS pinned to its key; one that costs something is paid by `payer`. */
export function sellerSource(candidate: Candidate, paying: Paying | undefined, isReserve = false): SellerSource {
  const peer: PeerAddress = { endpoint: candidate.endpoint, transportKey: candidate.transportKey };
  const plain: NonNullable<ContentSource['fetch']> = (url, { headers, signal }) => {
    const { pathname, search } = new URL(url);
    return peerFetch(peer, pathname + search, { headers, signal, headersTimeoutMs: HEADERS_MS, idleTimeoutMs: 10_000 });
  };
  if (candidate.pricePerGib === 0n || paying === undefined) {
    return { candidate, source: { url: candidate.endpoint, fetch: plain, isReserve }, paid: undefined };
  }
  const { holder, pricePerGib } = candidate;
  const bytesMax = Math.min(Number(candidate.chunkBytes), paying.chunkBytesMax ?? CHUNK_BYTES);
  // Nothing smaller than a block can be verified.
  const chunkBytes = BigInt(Math.max(bytesMax, BLOCK_BYTES_MAX));
  const paid = createPaidFetch({ payer: paying.payer, fetch: plain, terms: { holder, pricePerGib, chunkBytes, budget: paying.budget } });
  const chunked = { expectedBytesHeader: EXPECTED_BYTES, bytesMax };
  return { candidate, source: { url: candidate.endpoint, fetch: paid.fetch, chunked, isReserve }, paid };
}

/** Where a retriever gets what it does not have. */
export interface Origin {
  /** A verified block, from whoever holds it. @throws content-unavailable */
  block(cid: CID): Promise<Uint8Array>;
  /** What was paid for such blocks, base units, since the start. */
  paid(): bigint;
}

const RECENT_MAX = 8;
const OPERATORS_TRIED = 16;

/**
 * Fetches missing blocks from the holders of deals and from others who announced them, paying them where they ask for it. Blocks of
 * one file have one holder, so those who delivered last are asked first.
 */
export function createOrigin(options: {
  client: ChainClient;
  payer: Payer | undefined;
  records: PeerRecords;
  /** Dearer ones are not asked. */
  pricePerGibMax: bigint;
  /** What may be spent; taken from as bytes come. */
  budget: Budget;
  /** Itself: not asked. */
  own: string;
}): Origin {
  const { client, payer, records, pricePerGibMax, budget } = options;
  const paying = payer === undefined ? undefined : { payer, budget };
  let recent: SellerSource[] = [];
  const sources = new Map<string, SellerSource>();

  const sourceOf = (candidate: Candidate): SellerSource => {
    const key = `${candidate.holder.toLowerCase()} ${candidate.endpoint} ${candidate.pricePerGib}`;
    const known = sources.get(key);
    if (known !== undefined && (known.paid?.record().lost ?? 0n) === 0n) return known;
    const made = sellerSource(candidate, paying);
    sources.set(key, made);
    return made;
  };
  const fetchFrom = async (cid: CID, from: SellerSource[]): Promise<Uint8Array | undefined> => {
    if (from.length === 0) return undefined;
    const fetcher = createBlockFetcher({ sources: from.map(({ source }) => source), limits: PAID_LIMITS });
    const startedAt = performance.now();
    const before = from.map(({ paid }) => paid?.record().lost ?? 0n);
    try {
      return await fetcher.block(cid);
    } catch (error) {
      if ((error as MillraceError).code === 'content-unavailable') return undefined;
      throw error;
    } finally {
      const report = fetcher.report();
      const cheats = from.filter(
        ({ paid }, index) => report[index]?.lied === true || (paid?.record().lost ?? 0n) > (before[index] as bigint),
      );
      recent = [...from.filter((_, index) => (report[index]?.bytes ?? 0) > 0), ...recent]
        .filter((each, index, all) => all.indexOf(each) === index && !cheats.includes(each))
        .slice(0, RECENT_MAX);
      if (cheats.length > 0) {
        const milliseconds = performance.now() - startedAt;
        records.note(
          cheats.map(({ candidate }) => ({ ...candidate, bytes: 0, milliseconds, paid: 0n, lost: 1n, failures: 1, lied: true })),
        );
      }
    }
  };

  return {
    paid: () => [...sources.values()].reduce((sum, { paid }) => sum + (paid?.record().paid ?? 0n), 0n),
    async block(cid) {
      const quick = await fetchFrom(cid, recent);
      if (quick !== undefined) return quick;
      const found = await findCandidates(client, cid);
      const candidates = found.candidates.filter(({ endpoint }) => endpoint !== options.own);
      const limits = { ...CHOICE_LIMITS, pricePerGibMax };
      const { first, reserve } = chooseSellers({ candidates, recordOf: records.of, limits, nowMs: Date.now() });
      const bought = await fetchFrom(cid, [...first, ...reserve].map(sourceOf));
      if (bought !== undefined) return bought;
      const others = sample(await listOperators(client), OPERATORS_TRIED).filter(({ endpoint }) => endpoint !== options.own);
      const free = others.map(({ nodeKey: holder, endpoint, transportKey }) =>
        sourceOf({
          holder,
          endpoint,
          transportKey: transportKey as `0x${string}`,
          pricePerGib: 0n,
          chunkBytes: BigInt(CHUNK_BYTES),
          hasDeal: false,
          reported: { served: 0, failed: 0 },
        }),
      );
      const last = await fetchFrom(cid, free);
      if (last !== undefined) return last;
      throw new MillraceError('not-found', {
        actor: 'caller',
        message: `Nobody who is known gave ${cid}`,
        values: { cid: cid.toString() },
        hint: 'Ask later or elsewhere.',
      });
    },
  };
}
