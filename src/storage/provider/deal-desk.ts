import { statfs } from 'node:fs/promises';
import { type Hex, keccak256 } from 'viem';
import { type ChainClient, isSignedBy, type Sender, type Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { pieceHeight } from '../content/commp.ts';
import { type Ask, askDigest, askRefusal, type SignedAsk } from '../market/ask.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import type { StorageDomain } from '../market/signed-messages.ts';
import {
  activationDigest,
  type DealTerms,
  dealTermsDigest,
  type Extension,
  extensionDigest,
  requireTermsSignature,
} from '../market/terms.ts';
import { type DealRefusal, dealRefusal, type ProviderLoad, type ProviderPolicy, roomOf } from './intake.ts';

/** What a desk stands on. */
export interface DealDeskOptions {
  client: ChainClient;
  domain: StorageDomain;
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  policy: ProviderPolicy;
  records: DealRecords;
  /** Folder of the data, to see how much the disk can take. */
  folder: string;
  log: Logger;
  /** Whether the piece is here already, so that nothing needs to be sent. */
  holds(pieceRoot: Hex): boolean;
  /** Bytes promised by asks on the order book, which are not free for direct deals. */
  promisedBytes?(): bigint;
  /** Called when all bytes of a deal have arrived. */
  onReceived(record: DealRecord): void;
}

/** Where a provider's deals are signed, recorded and acknowledged. Answers of the chain decide; the desk only proposes. */
export interface DealDesk {
  currentAsk(): Promise<{ signed: SignedAsk; freeBytes: bigint; accepting: boolean }>;
  /**
   * Signs a client's proposal and records it on chain; the provider pays the gas. Repeating a proposal gives its deal.
   * @throws deal-refused, bad-deal-signature
   */
  propose(proposal: { terms: DealTerms; cid: Hex; signature: Hex }): Promise<DealRecord>;
  /** Finishes the recording of a deal that a crash interrupted. */
  resume(record: DealRecord): Promise<DealRecord>;
  /** @throws deal-unknown */
  find(dealId: bigint): DealRecord;
  received(record: DealRecord): void;
  /** @throws deal-unknown, deal-not-stored, bad-deal-signature */
  acknowledge(dealId: bigint, signature: Hex): Promise<DealRecord>;
  /** @throws deal-unknown, deal-refused, bad-deal-signature */
  extend(extension: Extension, clientSignature: Hex): Promise<void>;
  /** Takes no new deals from now on; those under way go on. */
  close(): void;
  /** Takes deals again. */
  reopen(): void;
}

/** Deals that are being recorded at the same time. */
const OPENINGS_MAX = 64;
/** How old what is known of stake and table may be. */
const CHAIN_STATE_MS = 500;

/** Opens the desk of one provider. */
export function openDealDesk(options: DealDeskOptions): DealDesk {
  const { client, domain, records, operatorId, policy } = options;
  let closed = false;
  let cached: SignedAsk | undefined;
  const opening = new Map<DealRecord, Promise<DealRecord>>();

  const askAt = async (now: bigint): Promise<SignedAsk> => {
    if (cached === undefined || cached.ask.expiry - now < BigInt(policy.askLifetimeSeconds) / 2n) {
      const ask: Ask = { operatorId, ...policy.ask, expiry: now + BigInt(policy.askLifetimeSeconds) };
      cached = { ask, signature: await options.signer.signDigest(askDigest(domain, ask)) };
    }
    return cached;
  };

  let chainState: { at: number; read: Promise<[bigint, boolean]> } | undefined;
  const readChain = () => {
    // Anybody may ask for the ask: the chain is not asked each time.
    if (chainState === undefined || performance.now() - chainState.at > CHAIN_STATE_MS) {
      const stake = client.read('stakeVault', 'availableOf', [operatorId]);
      const read = Promise.all([stake, client.read('possession', 'stands', [operatorId])]);
      chainState = { at: performance.now(), read };
      read.catch(() => {
        chainState = undefined;
      });
    }
    return chainState.read;
  };
  const loadNow = async (): Promise<(client?: Hex) => ProviderLoad> => {
    const disk = await statfs(options.folder, { bigint: true });
    const [onChain, stands] = await readChain();
    const promisedBytes = options.promisedBytes?.() ?? 0n;
    return (of) => loadOf({ records, of, promisedBytes, freeDiskBytes: disk.bavail * disk.bsize, onChain, closed: closed || !stands });
  };

  const openOnChain = (record: DealRecord): Promise<DealRecord> => {
    let running = opening.get(record);
    if (running === undefined) {
      running = recordOnChain(options, record).finally(() => opening.delete(record));
      opening.set(record, running);
    }
    return running;
  };

  const find = (dealId: bigint): DealRecord => {
    const record = records.byId(dealId);
    if (record !== undefined) return record;
    throw new MillraceError('deal-unknown', {
      actor: 'caller',
      message: `There is no deal ${dealId} here`,
      values: { dealId, operatorId },
    });
  };

  return {
    find,
    received: options.onReceived,
    close() {
      closed = true;
    },
    reopen() {
      closed = false;
    },
    async currentAsk() {
      const load = (await loadNow())();
      return {
        signed: await askAt(await client.now()),
        freeBytes: roomOf(policy, load),
        accepting: !load.closed && load.openDeals < policy.openDealsMax,
      };
    },
    async propose({ terms, cid, signature }) {
      requireTermsSignature({ domain, terms, signer: terms.client, signature });
      const known = records.byNonce(terms.client, terms.clientNonce);
      if (known !== undefined) return sameProposal(domain, known, terms) ? openOnChain(known) : refuse('nonce-used', 0n, 0n);
      requireGeometry(operatorId, terms, cid);
      const now = await client.now();
      const { ask } = await askAt(now);
      const load = await loadNow();
      if (opening.size >= OPENINGS_MAX) return refuse('busy', BigInt(opening.size), BigInt(OPENINGS_MAX));
      // From here to the record nothing waits, so two proposals cannot both take the last room.
      const refusal = dealRefusal({ terms, ask, policy, load: load(terms.client), now });
      if (refusal !== undefined) return refuse(refusal.reason, refusal.got, refusal.limit);
      const record: DealRecord = { terms, cid, clientSignature: signature, status: 'opening' };
      await records.save(record);
      return openOnChain(record);
    },
    resume: openOnChain,
    async acknowledge(dealId, signature) {
      const record = find(dealId);
      const digest = activationDigest(domain, dealId);
      const speakers = [record.terms.client, ...(record.uploaders ?? [])];
      if (!speakers.some((speaker) => isSignedBy(speaker, digest, signature)))
        throw badSignature(record.uploaders?.[0] ?? record.terms.client);
      if (record.status !== 'stored') {
        if (record.status === 'acknowledged' || record.status === 'active') return record;
        throw new MillraceError('deal-not-stored', {
          actor: 'caller',
          message: `Deal ${dealId} cannot be acknowledged, it is ${record.status}`,
          values: { dealId, status: record.status },
        });
      }
      record.acknowledgement = signature;
      record.status = 'acknowledged';
      await records.save(record);
      return record;
    },
    async extend(extension, clientSignature) {
      const record = find(extension.dealId);
      const digest = extensionDigest(domain, extension);
      if (!isSignedBy(record.terms.client, digest, clientSignature)) throw badSignature(record.terms.client);
      const now = await client.now();
      const { ask } = await askAt(now);
      const refusal = extensionRefusal({ record, extension, ask, policy, now, closed });
      if (refusal !== undefined) refuse(refusal.reason, refusal.got, refusal.limit);
      const own = await options.signer.signDigest(digest);
      const { dealId, periods, expiry, endPeriod } = extension;
      await options.sender.send({
        contract: 'dealDesk',
        functionName: 'extend',
        args: [dealId, periods, expiry, clientSignature, own],
        key: `extend:${dealId}:${endPeriod}`,
      });
    },
  };
}

function loadOf(options: {
  records: DealRecords;
  of?: Hex;
  promisedBytes: bigint;
  freeDiskBytes: bigint;
  onChain: bigint;
  closed: boolean;
}): ProviderLoad {
  const load: ProviderLoad = {
    reservedBytes: options.promisedBytes,
    freeDiskBytes: options.freeDiskBytes - options.promisedBytes,
    openDeals: 0,
    openDealsOfClient: 0,
    availableStake: options.onChain,
    closed: options.closed,
  };
  for (const { terms, status } of options.records.all()) {
    if (status !== 'over') load.reservedBytes += terms.rawSize;
    if (status === 'opening') load.availableStake -= terms.collateral + terms.bond;
    if (status === 'opening' || status === 'receiving') load.freeDiskBytes -= terms.rawSize;
    if (status === 'over' || status === 'active' || status === 'lost') continue;
    load.openDeals += 1;
    if (terms.client.toLowerCase() === options.of?.toLowerCase()) load.openDealsOfClient += 1;
  }
  return load;
}

/** Sends `openDeal`, once however often it is called: the sender knows the key. */
async function recordOnChain(options: DealDeskOptions, record: DealRecord): Promise<DealRecord> {
  if (record.status !== 'opening') return record;
  const { terms, cid } = record;
  const own = await options.signer.signDigest(dealTermsDigest(options.domain, terms));
  try {
    const receipt = await options.sender.send({
      contract: 'dealDesk',
      functionName: 'openDeal',
      args: [terms, cid, record.clientSignature, own],
      key: `open:${terms.client.toLowerCase()}:${terms.clientNonce}`,
    });
    const opened = receipt.events.find((event) => event.module === 'storageMarket' && event.name === 'DealOpened');
    if (opened?.name !== 'DealOpened')
      throw new MillraceError('deal-not-recorded', { actor: 'bug', message: 'openDeal left no DealOpened event' });
    record.dealId = opened.args.dealId;
  } catch (error) {
    if (isWorthRepeating(error)) throw error;
    // The contract said no: nothing is on chain and nothing will be.
    await options.records.remove(record);
    const code = error instanceof MillraceError ? error.code : 'unexpected';
    throw refusal(code, 0n, 0n, error);
  }
  const { activationDeadlineSeconds } = await readRules(options.client);
  const { openedAt } = await options.client.read('storageMarket', 'deal', [record.dealId]);
  record.activateBy = openedAt + activationDeadlineSeconds;
  record.status = options.holds(terms.pieceRoot) ? 'stored' : 'receiving';
  await options.records.save(record);
  options.log.info('deal-opened', { dealId: record.dealId, client: terms.client, sizeBytes: terms.rawSize });
  return record;
}

/** Whether the transaction may still succeed: the chain or this machine was in the way, not the contract. */
function isWorthRepeating(error: unknown): boolean {
  if (!(error instanceof MillraceError)) return false;
  return error.actor === 'host' || (error.actor === 'chain' && error.code !== 'transaction-reverted') || error.code === 'sender-closed';
}

function extensionRefusal(options: {
  record: DealRecord;
  extension: Extension;
  ask: Ask;
  policy: ProviderPolicy;
  now: bigint;
  closed: boolean;
}): DealRefusal | undefined {
  const { record, extension, ask, now } = options;
  if (options.closed || record.status !== 'active') return { reason: 'not-accepting', got: 0n, limit: 0n };
  if (extension.expiry <= now) return { reason: 'offer-too-short', got: extension.expiry - now, limit: 1n };
  const asked = askRefusal(ask, { sizeBytes: record.terms.rawSize, periods: extension.periods }, now);
  if (asked !== undefined) return asked;
  const price = (ask.pricePerGibPeriod * record.terms.rawSize) >> 30n;
  if (record.terms.pricePerPeriod < price) return { reason: 'price-too-low', got: record.terms.pricePerPeriod, limit: price };
  return undefined;
}

/** Terms must be for this operator, name the CID that came with them, and describe a piece that can exist. */
function requireGeometry(operatorId: bigint, terms: DealTerms, cid: Hex): void {
  if (terms.operatorId !== operatorId) refuse('wrong-operator', terms.operatorId, operatorId);
  if (terms.contentHash !== keccak256(cid)) refuse('wrong-cid', 0n, 0n);
  if (terms.rawSize === 0n) refuse('piece-too-small', 0n, 1n);
  if (terms.rawSize > BigInt(Number.MAX_SAFE_INTEGER)) refuse('piece-too-big', terms.rawSize, BigInt(Number.MAX_SAFE_INTEGER));
  const height = pieceHeight(Number(terms.rawSize));
  if (terms.pieceHeight !== height) refuse('wrong-piece-height', BigInt(terms.pieceHeight), BigInt(height));
}

function sameProposal(domain: StorageDomain, record: DealRecord, terms: DealTerms): boolean {
  return dealTermsDigest(domain, record.terms) === dealTermsDigest(domain, terms);
}

function refuse(reason: string, got: bigint, limit: bigint): never {
  throw refusal(reason, got, limit);
}

function refusal(reason: string, got: bigint, limit: bigint, cause?: unknown): MillraceError {
  const why = cause instanceof Error ? cause.message : `got ${got}, limit ${limit}`;
  return new MillraceError('deal-refused', {
    actor: 'caller',
    message: `The deal is refused: ${reason} (${why})`,
    values: { reason, got, limit },
    hint: 'Mend the terms after the current ask, or take another provider.',
    cause,
  });
}

function badSignature(expected: Hex): MillraceError {
  return new MillraceError('bad-deal-signature', {
    actor: 'caller',
    message: `The signature is not by ${expected}`,
    values: { expectedSigner: expected },
    hint: 'Sign with the client key, for this chain and this storage market.',
  });
}
