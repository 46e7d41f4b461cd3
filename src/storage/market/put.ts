import { randomBytes } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { CID } from 'multiformats/cid';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type Logger, silentLogger } from '../../log.ts';
import { type BuiltContent, buildContent, type ContentProgress } from '../content/content.ts';
import { sampleOfCar, takeSome } from './block-sample.ts';
import { type OperatorView, storageDomainOf } from './chain-view.ts';
import { reserveFunds } from './funds.ts';
import { surveyOffers } from './market-survey.ts';
import { type CopyProgress, isOfferTaken, placeCopy, signAttempt } from './place-copy.ts';
import type { ProviderPeer } from './provider-api.ts';
import {
  type CopyJournal,
  createJournalWriter,
  type FailedAttempt,
  type PutJournal,
  putFolder,
  putIdOf,
  readPutJournal,
  removePut,
} from './put-journal.ts';
import { type Candidate, type Offer, rankOffers, type Selection, takeCopies } from './select.ts';

/** What happens during a put, for progress bars and logs. */
export type PutEvent =
  | { kind: 'build'; content: number; progress: ContentProgress }
  | { kind: 'built'; content: number; cid: string; sizeBytes: number }
  | { kind: 'priced'; total: bigint; offers: { operatorId: bigint; pricePerPeriod: bigint; collateral: bigint; bond: bigint }[] }
  | ({ kind: 'copy'; copy: number } & CopyProgress)
  | { kind: 'provider-failed'; copy: number; operatorId: bigint; code: string; message: string };

/** What to store and how. */
export interface PutOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  /** The client's data folder: journals and CARs of unfinished puts are kept in `puts` below it. */
  folder: string;
  source: { path: string } | { stream: AsyncIterable<Uint8Array>; name?: string };
  copies: number;
  periods: number;
  /** Not encrypted: whoever knows the CID can read it. */
  public?: boolean;
  /** X25519 public keys that can open the content; the client's own first. */
  recipients?: Uint8Array[];
  /** Seals each copy under its own key, so that no two providers hold the same bytes. */
  distinct?: boolean;
  maxPricePerGibPeriod?: bigint;
  /** Greatest total that is paid without asking back; more is refused. */
  maxTotal?: bigint;
  /** Ends when all copies are acknowledged instead of proven on chain. */
  untilActive?: boolean;
  stallMs?: number;
  chunkBytes?: number;
  onEvent?: (event: PutEvent) => void;
  log?: Logger;
  signal?: AbortSignal;
}

/** A stored content: one root CID (with `distinct` one per copy) and its deals. */
export interface PutResult {
  cid: string;
  pieceCid: string;
  sizeBytes: number;
  isSealed: boolean;
  deals: {
    copy: number;
    cid: string;
    pieceCid: string;
    dealId: bigint;
    operatorId: bigint;
    endpoint: string;
    pricePerPeriod: bigint;
    isActive: boolean;
  }[];
  failed: { copy: number; operatorId: bigint; code: string; message: string }[];
}

const STALL_MS = 60_000;

interface Run {
  options: PutOptions;
  journal: PutJournal;
  contents: BuiltContent[];
  save(): Promise<void>;
  emit(event: PutEvent): void;
  /** Offers as last seen, and who is behind them. */
  offers: Offer[];
  operators: Map<bigint, OperatorView>;
  choiceTurn: Promise<unknown>;
  samplePools: Map<number, Promise<CID[]>>;
}

/**
 * Stores a file, folder or stream: builds it, chooses providers, signs deals, sends the piece, reads back random blocks,
 * acknowledges, and waits for the first proof of each copy. What is done is kept in a journal, so the same call after
 * an interruption goes on where it was. A provider that fails is replaced and not taken again for the piece.
 * @throws source-missing, source-unreadable, empty-content, disk-full, no-provider, no-funds, too-expensive, copies-missing
 */
export async function put(options: PutOptions): Promise<PutResult> {
  if (!Number.isInteger(options.copies) || options.copies < 1 || options.copies > 32) throw badCopies(options.copies);
  const putId = await identify(options);
  const contents = await buildAll(options, putId);
  const journal = (await readPutJournal(options.folder, putId)) ?? newJournal(options, putId, contents.length);
  const run: Run = {
    options,
    journal,
    contents,
    save: createJournalWriter(options.folder, journal),
    emit: options.onEvent ?? (() => {}),
    offers: [],
    operators: new Map(),
    choiceTurn: Promise.resolve(),
    samplePools: new Map(),
  };
  const outcomes = await placeAll(run);
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) throw copiesMissing(run, outcomes, failure.reason);
  const result = resultOf(run);
  await removePut(options.folder, putId);
  return result;
}

async function placeAll(run: Run): Promise<PromiseSettledResult<void>[]> {
  try {
    await chooseProviders(run);
    return await Promise.allSettled(run.journal.copies.map((_, copy) => placeWithReplacement(run, copy)));
  } finally {
    await reserveFunds({ client: run.options.client, sender: run.options.sender, amount: 0n, purpose: run });
  }
}

/** The same account, path and options give the same number; a stream cannot be read again, so it gets a new one. */
async function identify(options: PutOptions): Promise<string> {
  const { source, signer, periods, copies } = options;
  if (!('path' in source)) return putIdOf(['stream', randomBytes(16).toString('hex')]);
  const path = await realpath(source.path).catch(() => resolve(source.path));
  const readers = (options.recipients ?? []).map((key) => Buffer.from(key).toString('hex'));
  const kind = options.public === true ? 'public' : options.distinct === true ? 'distinct' : 'sealed';
  return putIdOf([signer.address, options.client.address('storageMarket'), path, kind, String(periods), String(copies), ...readers]);
}

async function buildAll(options: PutOptions, putId: string): Promise<BuiltContent[]> {
  const count = options.distinct === true && options.public !== true ? options.copies : 1;
  if (count > 1 && !('path' in options.source)) throw distinctStream();
  const contents: BuiltContent[] = [];
  for (let content = 0; content < count; content += 1) {
    const built = await buildContent({
      source: options.source,
      workFolder: join(putFolder(options.folder, putId), `content-${content}`),
      public: options.public,
      recipients: options.recipients,
      signal: options.signal,
      onProgress: (progress) => options.onEvent?.({ kind: 'build', content, progress }),
    });
    options.onEvent?.({ kind: 'built', content, cid: built.cid, sizeBytes: built.carSize });
    contents.push(built);
  }
  return contents;
}

function newJournal(options: PutOptions, putId: string, contents: number): PutJournal {
  const { source } = options;
  return {
    version: 1,
    putId,
    name: 'path' in source ? resolve(source.path) : (source.name ?? 'stdin'),
    account: options.signer.address,
    periods: options.periods,
    copies: Array.from({ length: options.copies }, (_, copy) => ({ content: copy % contents, failed: [] })),
    startedAt: new Date().toISOString(),
  };
}

/** Signs an attempt for every copy that has none, all of them at different owners, after the price was shown and is covered. */
async function chooseProviders(run: Run): Promise<void> {
  const { options, journal } = run;
  const open = journal.copies.filter((copy) => copy.attempt === undefined);
  if (open.length > 0) {
    await survey(run);
    const selection = await selectionFor(run, open[0] as CopyJournal);
    const { candidates, rejected } = takeCopies(run.offers, selection, open.length);
    if (candidates.length < open.length) throw noProvider(open.length, candidates.length, rejected);
    await price(run, candidates);
    for (const [index, copy] of open.entries()) await assign(run, copy, candidates[index] as Candidate);
  } else {
    await survey(run);
  }
  await run.save();
  await secureFunds(run);
  options.signal?.throwIfAborted();
}

async function survey(run: Run): Promise<void> {
  const { client, signal, log } = run.options;
  const seen = await surveyOffers({ client, signal, log: log ?? silentLogger });
  run.offers = seen.offers;
  run.operators = seen.operators;
}

/** What the choice for one copy must keep in mind: who holds or failed this piece, and where the other copies are. */
async function selectionFor(run: Run, copy: CopyJournal): Promise<Selection> {
  const { options, journal, contents } = run;
  const others = journal.copies.filter((other) => other.attempt !== undefined).map((other) => other.attempt?.operatorId as bigint);
  const samePiece = journal.copies.filter((other) => other.content === copy.content);
  const views = others.map((operatorId) => run.operators.get(operatorId)).filter((view) => view !== undefined);
  return {
    sizeBytes: BigInt((contents[copy.content] as BuiltContent).piece.rawSize),
    periods: options.periods,
    maxPricePerGibPeriod: options.maxPricePerGibPeriod,
    now: await options.client.now(),
    excluded: new Set([...others, ...samePiece.flatMap(({ failed }) => failed.map(({ operatorId }) => operatorId))]),
    owners: new Set(views.map(({ owner }) => owner)),
    regions: new Set(views.map(({ region }) => region).filter((region) => region !== '')),
    seed: journal.putId,
  };
}

async function price(run: Run, candidates: readonly Candidate[]): Promise<void> {
  const total = candidates.reduce((sum, { quote }) => sum + quote.total, 0n);
  run.emit({ kind: 'priced', total, offers: candidates.map(({ offer, quote }) => ({ operatorId: offer.operatorId, ...quote })) });
  const { maxTotal } = run.options;
  if (maxTotal === undefined || total <= maxTotal) return;
  throw new MillraceError('too-expensive', {
    actor: 'caller',
    message: `The copies cost ${total} base units in all, the limit is ${maxTotal}`,
    values: { total, limit: maxTotal },
    hint: 'Raise the limit, or take fewer copies or periods.',
  });
}

async function assign(run: Run, copy: CopyJournal, candidate: Candidate): Promise<void> {
  const { client, signer, periods } = run.options;
  const content = run.contents[copy.content] as BuiltContent;
  copy.attempt = await signAttempt({ client, domain: storageDomainOf(client), signer, candidate, content, periods });
}

/** Covers all offers that no provider has taken yet. */
function secureFunds(run: Run): Promise<void> {
  const { client, sender } = run.options;
  const waiting = run.journal.copies.flatMap(({ attempt }) =>
    attempt === undefined || attempt.dealId !== undefined ? [] : [attempt.terms],
  );
  const amount = waiting.reduce((sum, { pricePerPeriod, periods, bond }) => sum + pricePerPeriod * BigInt(periods) + bond, 0n);
  return reserveFunds({ client, sender, amount, purpose: run });
}

/** Places one copy, taking the next provider whenever one fails. */
async function placeWithReplacement(run: Run, index: number): Promise<void> {
  const copy = run.journal.copies[index] as CopyJournal;
  const { options } = run;
  while (true) {
    await renewOffer(run, copy);
    const attempt = copy.attempt as NonNullable<CopyJournal['attempt']>;
    try {
      await placeCopy(
        {
          client: options.client,
          domain: storageDomainOf(options.client),
          signer: options.signer,
          peer: await peerOf(run, attempt.operatorId),
          content: run.contents[copy.content] as BuiltContent,
          save: async () => {
            await run.save();
            await secureFunds(run);
          },
          onProgress: (progress) => run.emit({ kind: 'copy', copy: index, ...progress }),
          sampleBlocks: () => sampleBlocks(run, copy.content),
          stallMs: options.stallMs ?? STALL_MS,
          untilActive: options.untilActive ?? true,
          chunkBytes: options.chunkBytes,
          signal: options.signal,
        },
        attempt,
      );
      return;
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof MillraceError) || error.actor !== 'peer') throw error;
      await replace(run, index, error);
    }
  }
}

/** An offer that ran out before anybody took it is made anew, to whoever is best now. */
async function renewOffer(run: Run, copy: CopyJournal): Promise<void> {
  const { attempt } = copy;
  const { client } = run.options;
  if (attempt === undefined || attempt.dealId !== undefined || attempt.terms.expiry > (await client.now()) + 60n) return;
  if (await isOfferTaken(client, attempt.terms)) return;
  copy.attempt = undefined;
  await takeNext(run, copy);
}

async function replace(run: Run, index: number, error: MillraceError): Promise<void> {
  const { options, journal } = run;
  const copy = journal.copies[index] as CopyJournal;
  const failed = copy.attempt as NonNullable<CopyJournal['attempt']>;
  copy.failed.push({ operatorId: failed.operatorId, dealId: failed.dealId, code: error.code, message: error.message });
  copy.attempt = undefined;
  run.emit({ kind: 'provider-failed', copy: index, operatorId: failed.operatorId, code: error.code, message: error.message });
  options.log?.warn('provider-failed', { operatorId: failed.operatorId, code: error.code, reason: error.message });
  await run.save();
  if (failed.dealId === undefined && error.code !== 'deal-refused' && !(await isOfferTaken(options.client, failed.terms))) {
    // The provider has our signature and may still use it: take it back.
    await options.sender.send({ contract: 'dealDesk', functionName: 'cancelNonce', args: [failed.terms.clientNonce] });
  }
  await takeNext(run, copy);
}

/** Chooses the next provider of a copy; one copy at a time, so that two never take the same provider. */
function takeNext(run: Run, copy: CopyJournal): Promise<void> {
  const turn = run.choiceTurn
    .catch(() => {})
    .then(async () => {
      await survey(run);
      const { candidates, rejected } = rankOffers(run.offers, await selectionFor(run, copy));
      const [candidate] = candidates;
      if (candidate === undefined) throw noProvider(1, 0, rejected, copy.failed);
      await assign(run, copy, candidate);
      await run.save();
      await secureFunds(run);
    });
  run.choiceTurn = turn;
  return turn;
}

async function peerOf(run: Run, operatorId: bigint): Promise<ProviderPeer> {
  const view = run.operators.get(operatorId);
  if (view !== undefined) return view;
  throw new MillraceError('peer-unreachable', {
    actor: 'peer',
    message: `Operator ${operatorId} no longer says where it is reached`,
    values: { operatorId },
  });
}

/** Random blocks of a content, other ones for each copy. */
async function sampleBlocks(run: Run, content: number): Promise<CID[]> {
  let pool = run.samplePools.get(content);
  if (pool === undefined) {
    pool = sampleOfCar((run.contents[content] as BuiltContent).carPath);
    run.samplePools.set(content, pool);
  }
  return takeSome(await pool);
}

function resultOf(run: Run): PutResult {
  const first = run.contents[0] as BuiltContent;
  const deals = run.journal.copies.map((copy, index) => {
    const attempt = copy.attempt as NonNullable<CopyJournal['attempt']>;
    const content = run.contents[copy.content] as BuiltContent;
    return {
      copy: index,
      cid: content.cid,
      pieceCid: content.piece.cidV2,
      dealId: attempt.dealId as bigint,
      operatorId: attempt.operatorId,
      endpoint: run.operators.get(attempt.operatorId)?.endpoint ?? '',
      pricePerPeriod: attempt.terms.pricePerPeriod,
      isActive: attempt.isActive === true,
    };
  });
  const failed = run.journal.copies.flatMap((copy, index) =>
    copy.failed.map(({ operatorId, code, message }) => ({ copy: index, operatorId, code, message })),
  );
  return { cid: first.cid, pieceCid: first.piece.cidV2, sizeBytes: first.plainSize, isSealed: first.isSealed, deals, failed };
}

function noProvider(
  wanted: number,
  found: number,
  rejected: readonly { operatorId: bigint; reason: string }[],
  failed: readonly FailedAttempt[] = [],
): MillraceError {
  const reasons = [...new Set(rejected.map(({ reason }) => reason))];
  return new MillraceError('no-provider', {
    actor: 'peer',
    message: `Got ${found} providers that take this piece, expected ${wanted}${reasons.length === 0 ? '' : `; the others: ${reasons.join(', ')}`}`,
    values: {
      wanted,
      found,
      rejected: rejected.slice(0, 20).map(({ operatorId, reason }) => `${operatorId}: ${reason}`),
      failed: failed.slice(0, 20).map(({ operatorId, code, message }) => `${operatorId}: ${code}: ${message}`),
    },
    hint: 'See `millrace asks`. Take fewer copies, a higher price or other periods, or wait for providers with room.',
  });
}

function copiesMissing(run: Run, outcomes: readonly PromiseSettledResult<void>[], reason: unknown): unknown {
  const placed = outcomes.filter(({ status }) => status === 'fulfilled').length;
  if (!(reason instanceof MillraceError) || outcomes.length === 1 || placed === 0) return reason;
  return new MillraceError('copies-missing', {
    actor: reason.actor,
    message: `${placed} of ${outcomes.length} copies of ${run.contents[0]?.cid} are stored: ${reason.message}`,
    values: { ...reason.values, placed, wanted: outcomes.length, cid: run.contents[0]?.cid },
    hint: 'Run the same command again to place the missing copies.',
    cause: reason,
  });
}

function badCopies(copies: number): MillraceError {
  return new MillraceError('bad-copies', {
    actor: 'caller',
    message: `Got ${copies} copies, expected a whole number from 1 to 32`,
    values: { got: copies, limit: 32 },
  });
}

function distinctStream(): MillraceError {
  return new MillraceError('distinct-needs-a-file', {
    actor: 'caller',
    message: 'Distinct copies are sealed one by one, which needs a source that can be read again',
    hint: 'Save the stream to a file first.',
  });
}
