import { bytesToHex, type Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type DealView, readDeals } from '../market/chain-view.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { freezeTime, periodAt } from '../possession/periods.ts';
import type { PieceTable } from '../possession/table.ts';
import type { TableView } from '../possession/table-view.ts';
import { openHandover } from '../repair/handover.ts';
import type { DealDesk } from './deal-desk.ts';
import type { Duty } from './duty.ts';
import type { Reception } from './reception.ts';

/** What keeping a provider's deals in order stands on. */
export interface HousekeepingOptions {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  records: DealRecords;
  reception: Reception;
  desk: DealDesk;
  view: TableView;
  operatorId: bigint;
  log: Logger;
  /** Periods between two settlements of a running deal. */
  settleEveryPeriods: bigint;
  /** Called for deals in declared fault, which are in no table: their pieces may be back. */
  onFaulty(dealId: bigint): void;
  everyMs?: number;
}

/** Contract answers that say that somebody else did it, or that it is not yet time. */
const HARMLESS = new Set(['wrong-state', 'table-frozen', 'nothing-to-terminate', 'unknown-deal']);

/**
 * The duty to bring the provider's own records, table and disk in line with the chain: it finishes interrupted
 * recordings, settles running deals now and then, takes deals that are over out of the table, and frees their bytes; those of a shard
 * that was left only when its next holder has proven it.
 */
export function housekeepingDuty(options: HousekeepingOptions): Duty {
  const settledIn = new Map<bigint, bigint>();
  const seen = new Set<bigint>();
  const again = new Set<bigint>();
  let lastPeriod = -1n;
  return {
    name: 'housekeeping',
    everyMs: options.everyMs ?? 3_000,
    async run(signal) {
      const { client, records, desk, view } = options;
      for (const record of records.all()) if (record.status === 'opening') await desk.resume(record).catch(() => {});
      const period = periodAt((await readRules(client)).clock, await client.now());
      // All deals once in a period; besides, those that are new or that something was left to do for.
      const dealIds = knownDeals(records, await view.live());
      const due = period === lastPeriod ? dealIds.filter((dealId) => again.has(dealId) || !seen.has(dealId)) : dealIds;
      for (const deal of await readDeals(client, due)) {
        signal.throwIfAborted();
        const isDone = await keepInOrder(options, deal, { period, settledIn });
        seen.add(deal.dealId);
        if (isDone) again.delete(deal.dealId);
        else again.add(deal.dealId);
      }
      if (due.length > 0 || records.all().some(({ status }) => status === 'over')) await freeDisk(options);
      lastPeriod = period;
    },
  };
}

function knownDeals(records: DealRecords, table: PieceTable): bigint[] {
  const inTable = Array.from({ length: table.slots }, (_, slot) => table.leafAt(slot)?.dealId);
  const onRecord = records.all().map(({ dealId }) => dealId);
  return [...new Set([...inTable, ...onRecord])].filter((dealId) => dealId !== undefined);
}

/** What is due for one deal; false when it must be looked at again in this period. */
async function keepInOrder(
  options: HousekeepingOptions,
  deal: DealView,
  { period, settledIn }: { period: bigint; settledIn: Map<bigint, bigint> },
): Promise<boolean> {
  const { sender, records, log } = options;
  const { dealId, state } = deal;
  const record = records.byId(dealId);
  try {
    if (state === 'active' || state === 'faulty') {
      if (record !== undefined && record.status !== 'active') await setStatus(records, record, 'active');
      if (state === 'faulty') options.onFaulty(dealId);
      const last = settledIn.get(dealId) ?? deal.feesTo;
      if (period < deal.endPeriod && period - last < options.settleEveryPeriods) return true;
      await sender.send({ contract: 'storageMarket', functionName: 'settle', args: [dealId] });
      settledIn.set(dealId, period);
      return period < deal.endPeriod;
    }
    if (state === 'ended' || (state === 'terminated' && (deal.locked > 0n || (await isInTable(options, dealId))))) {
      await drop(options, deal);
      log.info('deal-dropped', { dealId, state });
      return false;
    }
    if (state !== 'open' && record !== undefined && record.status !== 'over') await setStatus(records, record, 'over', state);
    return true;
  } catch (error) {
    if (!(error instanceof MillraceError) || !HARMLESS.has(error.code)) throw error;
    return false;
  }
}

async function isInTable({ view }: HousekeepingOptions, dealId: bigint): Promise<boolean> {
  return (await view.live()).slotOf(dealId) !== undefined;
}

/** Takes a deal that is over out of the table and frees its collateral. Not while the table is frozen. */
async function drop({ client, view, sender, operatorId }: HousekeepingOptions, deal: DealView): Promise<void> {
  const now = await client.now();
  const { clock } = await readRules(client);
  const period = periodAt(clock, now);
  const frozen = now >= freezeTime(clock, period) && (await client.read('possession', 'stands', [operatorId]));
  await view.change(async (table) => {
    const slot = table.slotOf(deal.dealId);
    if (slot !== undefined && frozen)
      throw new MillraceError('table-frozen', { actor: 'caller', message: 'The table is frozen', values: { period } });
    const path = slot === undefined ? '0x' : bytesToHex(table.path(slot));
    await sender.send({ contract: 'storageMarket', functionName: 'drop', args: [deal.dealId, path] });
  });
}

async function setStatus(records: DealRecords, record: DealRecord, status: DealRecord['status'], reason?: string): Promise<void> {
  record.status = status;
  record.reason = reason;
  await records.save(record);
}

/** Deletes the bytes of deals that are over, unless another deal still needs the piece, and forgets their records. */
async function freeDisk({ client, records, reception, store, view, log }: HousekeepingOptions): Promise<void> {
  const table = await view.live();
  const inTable = new Set<Hex>();
  for (let slot = 0; slot < table.slots; slot += 1) inTable.add(table.leafAt(slot)?.pieceRoot ?? '0x');
  const isNeeded = (pieceRoot: Hex) =>
    inTable.has(pieceRoot) || records.all().some(({ status, terms }) => status !== 'over' && terms.pieceRoot === pieceRoot);
  for (const record of records.all()) {
    if (record.status !== 'over') continue;
    if (record.dealId !== undefined && (await openHandover(client, record.dealId)) !== undefined) continue;
    const { pieceRoot } = record.terms;
    // Looked at anew each time: a deal for the same piece may have come meanwhile.
    if (!isNeeded(pieceRoot)) {
      if (store.piece(pieceRoot) === undefined) await reception.discard(record);
      else await store.delete(pieceRoot);
      log.info('bytes-freed', { dealId: record.dealId, pieceRoot, sizeBytes: record.terms.rawSize });
    }
    await records.remove(record);
  }
}
