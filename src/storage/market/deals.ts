import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type DealView, dealsOfClient, readDeal, readOperator, storageDomainOf } from './chain-view.ts';
import { reserveFunds } from './funds.ts';
import { readRules } from './market-rules.ts';
import { proposeExtension } from './provider-api.ts';
import { extensionDigest } from './terms.ts';

/** A deal with what has happened to its money so far; base units of the network's token. */
export interface DealAccount extends DealView {
  paid: bigint;
  refunded: bigint;
  escrow: bigint;
  /** Seconds of proven time that are settled. */
  provenSeconds: bigint;
  /** Protocol time up to which money has moved; 0n before the deal is active. */
  settledTo: bigint;
}

const OFFER_SECONDS = 900n;

/** The deals of a client with their money, oldest first. */
export async function listDeals(client: ChainClient, account: Hex): Promise<DealAccount[]> {
  const deals = await dealsOfClient(client, account);
  return Promise.all(deals.map((deal) => withMoney(client, deal)));
}

/** One deal with its money. @throws unknown-deal */
export async function showDeal(client: ChainClient, dealId: bigint): Promise<DealAccount> {
  return withMoney(client, await readDeal(client, dealId));
}

/**
 * Prolongs a running deal at its price; provider and client sign, the provider records it.
 * @throws unknown-deal, no-funds, deal-refused, peer-unreachable
 */
export async function extendDeal(options: {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  dealId: bigint;
  periods: number;
  signal?: AbortSignal;
}): Promise<DealView> {
  const { client, signer, sender, dealId, periods, signal } = options;
  const deal = await readDeal(client, dealId);
  requireClient(deal, signer.address);
  const purpose = {};
  await reserveFunds({ client, sender, amount: deal.pricePerPeriod * BigInt(periods), purpose });
  const extension = { dealId, periods, endPeriod: deal.endPeriod, expiry: (await client.now()) + OFFER_SECONDS };
  const signature = await signer.signDigest(extensionDigest(storageDomainOf(client), extension));
  try {
    await proposeExtension(await readOperator(client, deal.operatorId), extension, signature, { signal });
  } finally {
    await reserveFunds({ client, sender, amount: 0n, purpose });
  }
  const extended = await readDeal(client, dealId);
  if (extended.endPeriod === deal.endPeriod + BigInt(periods)) return extended;
  throw new MillraceError('deal-not-as-agreed', {
    actor: 'peer',
    message: `Deal ${dealId} ends in period ${extended.endPeriod}, agreed was ${deal.endPeriod + BigInt(periods)}`,
    values: { dealId, got: extended.endPeriod, expected: deal.endPeriod + BigInt(periods) },
  });
}

/**
 * Ends a deal before its time: the current period is still paid, the fee is taken from what remains, the rest comes back.
 * @throws not-client, wrong-state, challenge-open
 */
export async function endDeal(options: { client: ChainClient; sender: Sender; dealId: bigint }): Promise<DealView> {
  await options.sender.send({ contract: 'storageMarket', functionName: 'endEarly', args: [options.dealId] });
  return readDeal(options.client, options.dealId);
}

/**
 * Demands a proof of one's own piece, from randomness that does not exist yet. The bond goes to the provider when it
 * answers, and comes back when it does not. Gives the times of seed and deadline.
 * @throws not-client, wrong-state, challenge-open, no-funds
 */
export async function challengeDeal(options: {
  client: ChainClient;
  sender: Sender;
  dealId: bigint;
}): Promise<{ dealId: bigint; bond: bigint; seedTime: bigint; deadline: bigint }> {
  const { client, sender, dealId } = options;
  requireClient(await readDeal(client, dealId), sender.address);
  const { challengeBond, challengeWindowSeconds } = await readRules(client);
  const purpose = {};
  try {
    await reserveFunds({ client, sender, amount: challengeBond, purpose });
    await sender.send({ contract: 'storageMarket', functionName: 'challenge', args: [dealId] });
  } finally {
    await reserveFunds({ client, sender, amount: 0n, purpose });
  }
  const { challengedAt } = await readDeal(client, dealId);
  return { dealId, bond: challengeBond, seedTime: challengedAt, deadline: challengedAt + challengeWindowSeconds };
}

/**
 * Closes a deal that did not become active in time: the escrow comes back, both sides lose their bond.
 * @throws wrong-state, deadline-not-reached
 */
export async function expireDeal(options: { client: ChainClient; sender: Sender; dealId: bigint }): Promise<DealView> {
  await options.sender.send({ contract: 'storageMarket', functionName: 'expire', args: [options.dealId] });
  return readDeal(options.client, options.dealId);
}

/** Makes a deal's ended periods final: pays for the proven ones, returns the money of the others. Anyone may. */
export async function settleDeal(options: { client: ChainClient; sender: Sender; dealId: bigint }): Promise<DealAccount> {
  await options.sender.send({ contract: 'storageMarket', functionName: 'settle', args: [options.dealId] });
  return showDeal(options.client, options.dealId);
}

async function withMoney(client: ChainClient, deal: DealView): Promise<DealAccount> {
  const { paid, refunded, escrow, provenSeconds, settledTo } = await client.read('rails', 'rail', [deal.railId]);
  return { ...deal, paid, refunded, escrow, provenSeconds, settledTo };
}

function requireClient(deal: DealView, account: Hex): void {
  if (deal.client.toLowerCase() === account.toLowerCase()) return;
  throw new MillraceError('not-client', {
    actor: 'caller',
    message: `Deal ${deal.dealId} is of ${deal.client}, this wallet is ${account}`,
    values: { dealId: deal.dealId, client: deal.client, got: account },
    hint: 'Use the wallet that made the deal.',
  });
}
