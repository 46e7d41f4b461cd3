import { bytesToHex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { readDeal } from '../market/chain-view.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import { isLoss, provePiece } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { ensureSeed } from '../possession/seeds.ts';
import type { TableView } from '../possession/table-view.ts';
import type { Duty } from './duty.ts';

/** What activation stands on. */
export interface ActivationOptions {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  records: DealRecords;
  view: TableView;
  log: Logger;
  everyMs?: number;
}

/**
 * The duty to activate acknowledged deals: once the seed of a deal exists, its piece is proven and enters the table.
 * Deals that share a seed time share the transaction that fixes it.
 */
export function activationDuty(options: ActivationOptions): Duty {
  return {
    name: 'activation',
    isLocal: true,
    everyMs: options.everyMs ?? 1_000,
    async run(signal) {
      const waiting = options.records.all().filter(({ status }) => status === 'acknowledged');
      if (waiting.length === 0) return;
      const now = await options.client.now();
      let isSeedMissing = false;
      for (const record of waiting) {
        signal.throwIfAborted();
        const isDone = await activateWhenDue(options, record, now).catch((error: unknown) => {
          // One deal that cannot be activated must not hold up the others; it is tried again until its deadline.
          const { code, message } = error as MillraceError;
          options.log.warn('activation-failed', { dealId: record.dealId, code, reason: message });
          return true;
        });
        if (!isDone) isSeedMissing = true;
      }
      if (isSeedMissing) await nudge(options);
    },
  };
}

/** The embedded chain mines on demand: an empty transaction brings the block with the seed sooner than its idle block would. */
async function nudge({ client, sender }: ActivationOptions): Promise<void> {
  if (client.manifest.randomness.source === 'trusted-operator') await sender.send({ to: sender.address, value: 0n });
}

/** Whether nothing is left to wait for: false while the seed's block, or the one after it, is missing. */
async function activateWhenDue(options: ActivationOptions, record: DealRecord, now: bigint): Promise<boolean> {
  const { client, sender, store, records, view, log } = options;
  const dealId = record.dealId as bigint;
  const time = await client.read('storageMarket', 'activationSeedTime', [dealId]);
  if (now < time) return false;
  const deal = await readDeal(client, dealId);
  if (deal.state === 'open') {
    if (record.activateBy !== undefined && now > record.activateBy) return true;
    const seed = await ensureSeed({ client, sender, time });
    if (seed === undefined) return false;
    const { activationLeaves } = await readRules(client);
    const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves }).catch((error: unknown) => {
      if (isLoss(error)) log.error('piece-lost', { dealId, pieceRoot: deal.pieceRoot, reason: (error as Error).message });
      throw error;
    });
    await view.change(async (table) => {
      const slot = table.freeSlot();
      await sender.send({
        contract: 'storageMarket',
        functionName: 'activate',
        args: [dealId, record.acknowledgement as `0x${string}`, openings, slot, bytesToHex(table.path(slot))],
      });
    });
  } else if (deal.state !== 'active') {
    throw new MillraceError('deal-not-open', {
      actor: 'chain',
      message: `Deal ${dealId} is ${deal.state}`,
      values: { dealId, state: deal.state },
    });
  }
  record.status = 'active';
  await records.save(record);
  log.info('deal-active', { dealId, sizeBytes: deal.rawSize });
  return true;
}
