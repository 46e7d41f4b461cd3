import { randomBytes } from 'node:crypto';
import { CID } from 'multiformats/cid';
import { bytesToBigInt, keccak256, toHex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { BLOCK_BYTES_MAX, isBlockOf } from '../content/block.ts';
import type { BuiltContent } from '../content/content.ts';
import { readDeal } from './chain-view.ts';
import { readRules } from './market-rules.ts';
import { acknowledgeDeal, fetchDealProgress, type ProviderPeer, proposeDeal } from './provider-api.ts';
import type { Attempt } from './put-journal.ts';
import type { Candidate } from './select.ts';
import type { StorageDomain } from './signed-messages.ts';
import { activationDigest, type DealTerms, dealTermsDigest } from './terms.ts';
import { uploadPiece } from './transfer.ts';

/** How far one copy is. `offset` and `sizeBytes` come with `uploading`. */
export interface CopyProgress {
  step: 'signed' | 'opened' | 'uploading' | 'stored' | 'checked' | 'acknowledged' | 'active';
  operatorId: bigint;
  dealId?: bigint;
  offset?: bigint;
  sizeBytes?: bigint;
}

/** What placing a copy stands on. */
export interface PlacementOptions {
  client: ChainClient;
  domain: StorageDomain;
  signer: Signer;
  peer: ProviderPeer;
  content: Pick<BuiltContent, 'cid' | 'carPath'>;
  /** Called before each step that others see, after the attempt was changed; returns when that is durable. */
  save(): Promise<void>;
  onProgress(progress: CopyProgress): void;
  /** Blocks of the content to read back from the provider before acknowledging. */
  sampleBlocks(): Promise<CID[]>;
  /** How long a provider may do nothing before it is given up, in milliseconds. */
  stallMs: number;
  /** Whether to wait for the proof on chain that starts the deal. */
  untilActive: boolean;
  chunkBytes?: number;
  signal?: AbortSignal;
}

const OFFER_SECONDS = 1800n;
const POLL_MS = 500;

/** A new attempt at a candidate: terms after its ask, signed by the client. */
export async function signAttempt(options: {
  client: ChainClient;
  domain: StorageDomain;
  signer: Signer;
  candidate: Candidate;
  content: BuiltContent;
  periods: number;
}): Promise<Attempt> {
  const { candidate, content } = options;
  const terms: DealTerms = {
    client: options.signer.address,
    operatorId: candidate.offer.operatorId,
    pieceRoot: content.piece.root,
    pieceHeight: content.piece.height,
    rawSize: BigInt(content.piece.rawSize),
    contentHash: keccak256(CID.parse(content.cid).bytes),
    periods: options.periods,
    pricePerPeriod: candidate.quote.pricePerPeriod,
    collateral: candidate.quote.collateral,
    bond: candidate.quote.bond,
    clientNonce: bytesToBigInt(randomBytes(32)),
    providerNonce: bytesToBigInt(randomBytes(32)),
    expiry: (await options.client.now()) + OFFER_SECONDS,
  };
  const signature = await options.signer.signDigest(dealTermsDigest(options.domain, terms));
  return { operatorId: terms.operatorId, terms, signature };
}

/**
 * Brings one attempt from where it is to an acknowledged or active deal: record, upload, read back, acknowledge, proof.
 * Every step may be repeated after an interruption.
 * @throws whatever makes this provider unusable for the copy, with actor `peer`
 */
export async function placeCopy(options: PlacementOptions, attempt: Attempt): Promise<void> {
  const report = (step: CopyProgress['step']) =>
    options.onProgress({ step, operatorId: attempt.operatorId, dealId: attempt.dealId, sizeBytes: attempt.terms.rawSize });
  report('signed');
  if (attempt.dealId === undefined) {
    attempt.dealId = await openAtProvider(options, attempt);
    await options.save();
  }
  report('opened');
  if (await isActiveOnChain(options, attempt)) return finish(options, attempt, report);
  if (attempt.isStored !== true) {
    await deliver(options, attempt);
    attempt.isStored = true;
    await options.save();
  }
  report('stored');
  if (attempt.isAcknowledged !== true) {
    await readBack(options);
    report('checked');
    const signature = await options.signer.signDigest(activationDigest(options.domain, attempt.dealId));
    await acknowledgeDeal(options.peer, attempt.dealId, signature, { signal: options.signal });
    attempt.isAcknowledged = true;
    await options.save();
  }
  report('acknowledged');
  if (!options.untilActive) return;
  await waitUntilActive(options, attempt);
  await finish(options, attempt, report);
}

async function finish(options: PlacementOptions, attempt: Attempt, report: (step: CopyProgress['step']) => void): Promise<void> {
  attempt.isActive = true;
  await options.save();
  report('active');
}

/** Proposes the deal and checks on chain that what was recorded is what was signed. */
async function openAtProvider(options: PlacementOptions, attempt: Attempt): Promise<bigint> {
  const { terms, signature } = attempt;
  const cid = toHex(CID.parse(options.content.cid).bytes);
  const { dealId } = await proposeDeal(options.peer, { terms, cid, signature }, { signal: options.signal });
  const deal = await readDeal(options.client, dealId).catch((cause: unknown) => {
    if (cause instanceof MillraceError && cause.code === 'unknown-deal') throw notAsAgreed(attempt, dealId, cause);
    throw cause;
  });
  const same =
    deal.client.toLowerCase() === terms.client.toLowerCase() &&
    deal.operatorId === terms.operatorId &&
    deal.pieceRoot === terms.pieceRoot &&
    deal.contentHash === terms.contentHash &&
    deal.pricePerPeriod === terms.pricePerPeriod &&
    deal.collateral === terms.collateral;
  if (!same) throw notAsAgreed(attempt, dealId);
  return dealId;
}

async function deliver(options: PlacementOptions, attempt: Attempt): Promise<void> {
  const { peer, domain, signer, content, signal, stallMs } = options;
  const dealId = attempt.dealId as bigint;
  const sizeBytes = attempt.terms.rawSize;
  const onProgress = (offset: bigint) =>
    options.onProgress({ step: 'uploading', operatorId: attempt.operatorId, dealId, offset, sizeBytes });
  const upload = () =>
    uploadPiece({
      peer,
      domain,
      signer,
      dealId,
      path: content.carPath,
      sizeBytes,
      stallMs,
      onProgress,
      signal,
      chunkBytes: options.chunkBytes,
    });
  // The provider may find, after the last byte, that what arrived is damaged; then it starts from nothing, once.
  for (let round = 0; ; round += 1) {
    await upload();
    const { status, reason } = await waitForCheck(options, dealId, Number(sizeBytes));
    if (status === 'stored' || status === 'acknowledged' || status === 'active') return;
    if (round > 0 || status === 'over') throw gaveUp(attempt, status, reason);
  }
}

/** Waits until the provider has verified what it received; verifying takes about a second per 100 MiB. */
async function waitForCheck(options: PlacementOptions, dealId: bigint, sizeBytes: number): Promise<{ status: string; reason?: string }> {
  const deadline = performance.now() + options.stallMs + sizeBytes / 10_000;
  while (true) {
    const progress = await fetchDealProgress(options.peer, dealId, { signal: options.signal }).catch((error: unknown) => error as Error);
    if (!(progress instanceof Error) && progress.status !== 'checking') return progress;
    if (performance.now() > deadline) throw progress instanceof Error ? progress : silent(options.peer, dealId, 'checking the piece');
    await pause(POLL_MS, options.signal);
  }
}

/** Reads random blocks from the provider, as any client would, and checks each against its CID. */
async function readBack(options: PlacementOptions): Promise<void> {
  for (const cid of await options.sampleBlocks()) {
    const deadline = AbortSignal.timeout(options.stallMs);
    const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
    const response = await peerFetch(options.peer, `/ipfs/${cid}?format=raw`, { headers: { accept: 'application/vnd.ipld.raw' }, signal });
    const block = await readAtMost(response.body, BLOCK_BYTES_MAX);
    if (response.ok && isBlockOf(cid, block)) continue;
    throw new MillraceError('not-retrievable', {
      actor: 'peer',
      message: `Operator ${options.peer.operatorId} does not give back block ${cid} (HTTP ${response.status})`,
      values: { operatorId: options.peer.operatorId, cid: cid.toString(), httpStatus: response.status },
      hint: 'Another provider is taken for this copy.',
    });
  }
}

async function waitUntilActive(options: PlacementOptions, attempt: Attempt): Promise<void> {
  while (!(await isActiveOnChain(options, attempt))) await pause(POLL_MS, options.signal);
}

/** Whether the deal is active; a deal that can never become active any more is the provider's failure. */
async function isActiveOnChain(options: PlacementOptions, attempt: Attempt): Promise<boolean> {
  const dealId = attempt.dealId as bigint;
  const deal = await readDeal(options.client, dealId);
  if (deal.state === 'open') {
    const { activationDeadlineSeconds } = await readRules(options.client);
    if ((await options.client.now()) <= deal.openedAt + activationDeadlineSeconds) return false;
    throw gaveUp(attempt, 'not active', 'it was not proven before its deadline');
  }
  if (deal.state === 'active' || deal.state === 'faulty') return true;
  throw gaveUp(attempt, deal.state);
}

async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise((resolve) => setTimeout(resolve, ms));
  signal?.throwIfAborted();
}

function notAsAgreed(attempt: Attempt, dealId: bigint, cause?: unknown): MillraceError {
  return new MillraceError('deal-not-as-agreed', {
    actor: 'peer',
    message: `Operator ${attempt.operatorId} named deal ${dealId}, which is not the one that was signed`,
    values: { operatorId: attempt.operatorId, dealId },
    hint: 'Another provider is taken for this copy.',
    cause,
  });
}

function gaveUp(attempt: Attempt, status: string, reason?: string): MillraceError {
  return new MillraceError('deal-not-completed', {
    actor: 'peer',
    message: `Deal ${attempt.dealId} with operator ${attempt.operatorId} is ${status}${reason === undefined ? '' : `: ${reason}`}`,
    values: { operatorId: attempt.operatorId, dealId: attempt.dealId, status, reason },
    hint: 'Another provider is taken for this copy. What was escrowed comes back when the deal expires, less the bond.',
  });
}

function silent(peer: ProviderPeer, dealId: bigint, doing: string): MillraceError {
  return new MillraceError('provider-stalled', {
    actor: 'peer',
    message: `Operator ${peer.operatorId} takes too long for ${doing} of deal ${dealId}`,
    values: { operatorId: peer.operatorId, dealId, doing },
    hint: 'Another provider is taken for this copy.',
  });
}

/** Whether the offer of an attempt was taken: its nonce is used up on chain. */
export async function isOfferTaken(client: ChainClient, terms: DealTerms): Promise<boolean> {
  return client.read('dealDesk', 'isNonceUsed', [terms.client, terms.clientNonce]);
}
