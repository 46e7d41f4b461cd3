import { CID } from 'multiformats/cid';
import { type Hex, hexToBytes } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import type { DealAccount } from '../storage/index.ts';
import { greater } from '../units.ts';

const EVENTS_AT_ONCE = 100;

/** A deal with its root CID as text. */
export type DealRow = DealAccount & { cid: string };

/** How far the proofs of a deal are. */
export interface DealProofs {
  /** Periods that are proven, settled or not; the running one counts from its proof. */
  provenPeriods: bigint;
  /** Those of them that are settled, which is when they are paid. */
  settledPeriods: bigint;
  /** The next period that the provider has to prove, and the protocol times between which; null when nothing is due. */
  nextProof: { period: bigint; from: bigint; until: bigint } | null;
}

/** Adds the root CID, which only the event of a deal's record holds. */
export async function dealRows(client: ChainClient, deals: readonly DealAccount[]): Promise<DealRow[]> {
  const cids = new Map<bigint, Hex>();
  for (let index = 0; index < deals.length; index += EVENTS_AT_ONCE) {
    const dealId = deals.slice(index, index + EVENTS_AT_ONCE).map((deal) => deal.dealId);
    for (const { args } of await client.events({ name: 'storageMarket', event: 'DealOpened', args: { dealId } }))
      cids.set(args.dealId, args.cid);
  }
  return deals.map((deal) => ({ ...deal, cid: CID.decode(hexToBytes(cids.get(deal.dealId) as Hex)).toString() }));
}

/** Adds what is proven and what comes next, by the same rule by which the contract pays (`StorageMarket.measure`). */
export async function withProofs<Deal extends DealAccount>(client: ChainClient, deals: readonly Deal[]): Promise<(Deal & DealProofs)[]> {
  const { period: periodSeconds } = await client.read('possession', 'config');
  const current = await client.read('possession', 'periodAt', [await client.now()]);
  const operatorIds = [...new Set(deals.map(({ operatorId }) => operatorId))];
  const standings = await Promise.all(operatorIds.map((operatorId) => client.read('possession', 'standing', [operatorId])));
  const standingOf = new Map(operatorIds.map((operatorId, index) => [operatorId, standings[index] as (typeof standings)[number]]));
  return Promise.all(
    deals.map(async (deal) => {
      const { syncedTo, provenThrough } = standingOf.get(deal.operatorId) as (typeof standings)[number];
      const period = [current, provenThrough, deal.firstPeriod].reduce(greater);
      const [unsettled, nextProof] = await Promise.all([unsettledSeconds(client, deal, syncedTo), nextProofOf(client, deal, period)]);
      const settledPeriods = deal.provenSeconds / BigInt(periodSeconds);
      return { ...deal, provenPeriods: settledPeriods + unsettled / BigInt(periodSeconds), settledPeriods, nextProof };
    }),
  );
}

/** Proven seconds that no settlement has counted yet. */
async function unsettledSeconds(client: ChainClient, { state, railId, settledTo }: DealAccount, syncedTo: bigint): Promise<bigint> {
  if ((state !== 'active' && state !== 'faulty') || settledTo === 0n) return 0n;
  const finalTo = await client.read('possession', 'periodStart', [syncedTo]);
  const [seconds] = await client.read('storageMarket', 'measure', [railId, settledTo, finalTo]);
  return seconds;
}

async function nextProofOf(client: ChainClient, { state, endPeriod }: DealAccount, period: bigint): Promise<DealProofs['nextProof']> {
  if (state !== 'active' || period >= endPeriod) return null;
  const [from, until] = await Promise.all([
    client.read('possession', 'seedTime', [period]),
    client.read('possession', 'periodStart', [period + 1n]),
  ]);
  return { period, from, until };
}
