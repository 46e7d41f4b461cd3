import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Payer } from '../../token/index.ts';
import { LEAF_BYTES, parseCid } from '../content/block.ts';
import type { ContentSource, FetchLimits, SourceReport } from '../content/block-fetcher.ts';
import { type Candidate, CHOICE_LIMITS, chooseSellers } from './choose.ts';
import { addReports, findCandidates, publishReport } from './holdings.ts';
import { PAID_LIMITS, type SellerSource, sellerSource } from './origin.ts';
import type { PeerRecords } from './peer-records.ts';
import { signReport } from './report.ts';

/** Tells others, signed, how the sellers that were paid have served in all. Best effort: nothing depends on it. */
export async function reportSellers(input: {
  client: ChainClient;
  signer: Signer;
  payer: Payer;
  records: PeerRecords;
  cost: RetrievalCost;
  signal?: AbortSignal;
}): Promise<void> {
  const { client, signer, payer, records, cost } = input;
  for (const { holder, paid, lost } of cost.sellers) {
    const record = records.of(holder);
    const channel = payer.channels().find(({ config }) => config.receiver.toLowerCase() === holder.toLowerCase());
    if (record === undefined || channel === undefined || (paid === 0n && lost === 0n)) continue;
    const seen = {
      sequence: BigInt(Date.now()),
      served: record.served,
      failed: record.failed,
      bytes: BigInt(record.bytes),
      paid: channel.charged,
    };
    await publishReport(client, await signReport(payer.codec, signer, channel.config, seen), input.signal).catch(() => 0);
  }
}

/** What a retrieval cost and who earned it; base units of the network's token. */
export interface RetrievalCost {
  paid: bigint;
  /** Charged, or in a seller's hand, without the bytes: at most one chunk for each seller that cheated. */
  lost: bigint;
  sellers: { holder: Hex; endpoint: string; pricePerGib: bigint; bytes: number; paid: bigint; lost: bigint; cheated: boolean }[];
}

/** Sources chosen by price, speed and record, and the account of what they were paid. */
export interface PaidSources {
  sources: ContentSource[];
  limits: FetchLimits;
  /** Notes what was seen of each seller, for the next choice; call it once, however the retrieval ended. */
  finish(reports: SourceReport[] | undefined): RetrievalCost;
}

/**
 * Chooses from whom a content is read: holders of deals and sellers who announced it, a few at once and the others in reserve. Where
 * somebody with a sound record gives it free, whoever wants money is in reserve. Nothing is paid before bytes are asked for, and no
 * more than `budget` in all. Without a payer only those who give it free are asked.
 * @throws bad-cid, no-holders, price-too-low
 */
export async function choosePaidSources(input: {
  client: ChainClient;
  cid: string;
  payer: Payer | undefined;
  records: PeerRecords;
  /** The most that the retrieval may cost, base units; sellers from whom the whole would cost more are not asked. */
  budget: bigint;
  /** The most bytes that one payment may buy, so that may be lost to a seller that cheats; less than a seller's chunk, if wanted. */
  chunkBytesMax?: number;
  signal?: AbortSignal;
}): Promise<PaidSources> {
  const { client, cid, payer, records } = input;
  const { candidates: found, sizeBytes = 0n } = await findCandidates(client, parseCid(cid), { signal: input.signal });
  const candidates = payer === undefined ? found : await addReports(client, found, input.signal);
  const leastBytes = sizeBytes > BigInt(LEAF_BYTES) ? sizeBytes : BigInt(LEAF_BYTES);
  const pricePerGibMax = payer === undefined ? 0n : (input.budget << 30n) / leastBytes;
  const choice = chooseSellers({
    candidates,
    recordOf: records.of,
    limits: { ...CHOICE_LIMITS, pricePerGibMax },
    nowMs: Date.now(),
  });
  if (choice.first.length + choice.reserve.length === 0)
    throw candidates.length === 0 ? noHolders(cid) : priceTooLow(candidates, pricePerGibMax);
  const isSoundAndFree = ({ pricePerGib, holder }: Candidate) => {
    const record = records.of(holder);
    return pricePerGib === 0n && (record === undefined || record.served >= record.failed);
  };
  const isPaidLast = choice.first.some(isSoundAndFree);
  const first = isPaidLast ? choice.first.filter(({ pricePerGib }) => pricePerGib === 0n) : choice.first;
  const reserve = [...choice.first.filter((each) => !first.includes(each)), ...choice.reserve];
  const budget = { left: input.budget };
  const paying = payer === undefined ? undefined : { payer, budget, chunkBytesMax: input.chunkBytesMax };
  const sellers = [...first.map((each) => sellerSource(each, paying)), ...reserve.map((each) => sellerSource(each, paying, true))];
  const startedAt = performance.now();
  return {
    sources: sellers.map(({ source }) => source),
    limits: sellers.some(({ paid }) => paid !== undefined) ? PAID_LIMITS : { ...PAID_LIMITS, headersMs: 10_000 },
    finish: (reports) => account(sellers, reports ?? [], { records, milliseconds: performance.now() - startedAt }),
  };
}

function account(
  sellers: SellerSource[],
  reports: SourceReport[],
  { records, milliseconds }: { records: PeerRecords; milliseconds: number },
): RetrievalCost {
  const rows = sellers.map(({ candidate, paid }, index) => {
    const report = reports[index];
    const record = paid?.record();
    const lied = report?.lied ?? false;
    return {
      holder: candidate.holder,
      endpoint: candidate.endpoint,
      pricePerGib: candidate.pricePerGib,
      bytes: report?.bytes ?? record?.paidBytes ?? 0,
      paid: record?.paid ?? 0n,
      lost: record?.lost ?? 0n,
      failures: (report?.failures ?? 0) + (record?.refusals ?? 0),
      lied,
      milliseconds,
      cheated: lied || (record?.lost ?? 0n) > 0n,
    };
  });
  records.note(rows);
  return {
    paid: rows.reduce((sum, { paid }) => sum + paid, 0n),
    lost: rows.reduce((sum, { lost }) => sum + lost, 0n),
    sellers: rows
      .filter(({ bytes, lost, failures }) => bytes > 0 || lost > 0n || failures > 0)
      .map(({ holder, endpoint, pricePerGib, bytes, paid, lost, cheated }) => ({
        holder,
        endpoint,
        pricePerGib,
        bytes,
        paid,
        lost,
        cheated,
      })),
  };
}

function noHolders(cid: string): MillraceError {
  return new MillraceError('no-holders', {
    actor: 'peer',
    message: `No provider has a running deal for ${cid}`,
    values: { cid },
    hint: 'Check the CID; `millrace ls` shows what this wallet stored, `millrace deals` how it ended.',
  });
}

function priceTooLow(candidates: Candidate[], maxPrice: bigint): MillraceError {
  const [least = 0n] = candidates.map(({ pricePerGib }) => pricePerGib).sort((left, right) => Number(left - right));
  return new MillraceError('price-too-low', {
    actor: 'caller',
    message: `The cheapest of ${candidates.length} holders asks ${least} base units for a GiB, you pay at most ${maxPrice}`,
    values: { least, maxPrice, holders: candidates.length },
    hint: 'Raise --max-price, which is for the whole retrieval.',
  });
}
