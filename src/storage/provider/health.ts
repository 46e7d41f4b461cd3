import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { bytesToHex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type DealView, readDeal } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { isLoss, openPieceLeaf, provePiece } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { freezeTime, periodAt, seedTime } from '../possession/periods.ts';
import { ensureSeed } from '../possession/seeds.ts';
import type { TableLeaf } from '../possession/table.ts';
import type { TableView } from '../possession/table-view.ts';
import type { Duty } from './duty.ts';

/** What looking after stored pieces stands on. */
export interface HealthOptions {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  view: TableView;
  operatorId: bigint;
  log: Logger;
  /** A file that is there whenever the data is: when it is missing, a disk is not mounted, and nothing is given up. */
  markerPath: string;
  everyMs?: number;
}

/** Deals whose pieces cannot be opened, and the duty that looks for them and mends what can be mended. */
export interface Health {
  duty: Duty;
  /** Told by the prover: these pieces could not be opened. */
  report(dealIds: readonly bigint[]): void;
  lost(): bigint[];
}

/** Pieces looked at in one period, each by one random leaf. */
const CHECKS_PER_PERIOD = 2_000;

/**
 * Looks at every piece before each freeze by one random leaf. A piece that cannot be opened is declared faulty, which
 * takes it out of the table before the seed exists, so that the others can be proven. When the piece is back, the fault
 * is recovered. When an open miss asks for a piece that is still lost, its deal is surrendered: it would hold up all others.
 */
export function openHealth(options: HealthOptions): Health {
  const lost = new Set<bigint>();
  let checkedIn = -1n;
  let next = 0;
  return {
    lost: () => [...lost],
    report: (dealIds) => {
      for (const dealId of dealIds) lost.add(dealId);
    },
    duty: {
      name: 'health',
      everyMs: options.everyMs ?? 2_000,
      async run(signal) {
        const { client, log } = options;
        if (!existsSync(options.markerPath)) {
          log.error('data-folder-missing', {
            path: options.markerPath,
            hint: 'Mount the disk. Nothing is declared or surrendered before.',
          });
          return;
        }
        const now = await client.now();
        const period = periodAt((await readRules(client)).clock, now);
        const table = await options.view.live();
        if (period !== checkedIn) {
          const leaves = Array.from({ length: table.slots }, (_, slot) => table.leafAt(slot)).filter((leaf) => leaf !== undefined);
          next = await checkSome(options, leaves, { from: next, lost, signal });
          checkedIn = period;
        }
        for (const dealId of lost) {
          signal.throwIfAborted();
          await mend(options, { dealId, now, period, lost });
        }
      },
    },
  };
}

async function checkSome(
  { store, log }: HealthOptions,
  leaves: readonly TableLeaf[],
  { from, lost, signal }: { from: number; lost: Set<bigint>; signal: AbortSignal },
): Promise<number> {
  const count = Math.min(CHECKS_PER_PERIOD, leaves.length);
  for (let offset = 0; offset < count; offset += 1) {
    signal.throwIfAborted();
    const leaf = leaves[(from + offset) % leaves.length] as TableLeaf;
    const leafIndex = BigInt(randomInt(Number(leaf.leaves)));
    try {
      await openPieceLeaf(store, leaf.pieceRoot, leafIndex);
    } catch (error) {
      if (!isLoss(error)) throw error;
      if (!lost.has(leaf.dealId)) log.error('piece-lost', { dealId: leaf.dealId, pieceRoot: leaf.pieceRoot, leafIndex });
      lost.add(leaf.dealId);
    }
  }
  return leaves.length === 0 ? 0 : (from + count) % leaves.length;
}

/** One step for one lost deal: recover, declare or surrender, whichever is due. */
async function mend(options: HealthOptions, state: { dealId: bigint; now: bigint; period: bigint; lost: Set<bigint> }): Promise<void> {
  const { client, operatorId, log, sender } = options;
  const { dealId, now, period, lost } = state;
  const deal = await readDeal(client, dealId);
  if (deal.state !== 'active' && deal.state !== 'faulty') return void lost.delete(dealId);
  if (await isReadable(options.store, deal)) {
    if (deal.state === 'active') return void lost.delete(dealId);
    return recover(options, deal, lost);
  }
  const standing = await client.read('possession', 'standing', [operatorId]);
  const { clock } = await readRules(client);
  const inWindow = now >= seedTime(clock, period);
  if (standing.openMiss !== 0n && standing.openMiss - 1n < period && inWindow) {
    log.error('deal-surrendered', { dealId, pieceRoot: deal.pieceRoot, collateral: deal.locked });
    await sender.send({ contract: 'storageMarket', functionName: 'surrender', args: [dealId] });
    lost.delete(dealId);
  } else if (deal.state === 'active' && now < freezeTime(clock, period)) {
    await declare(options, deal);
  }
}

async function declare({ view, sender, log }: HealthOptions, deal: DealView): Promise<void> {
  await view.change(async (table) => {
    const slot = table.slotOf(deal.dealId);
    if (slot === undefined) return;
    await sender.send({ contract: 'storageMarket', functionName: 'declareFault', args: [deal.dealId, bytesToHex(table.path(slot))] });
    log.error('fault-declared', { dealId: deal.dealId, pieceRoot: deal.pieceRoot });
  });
}

/** Proves a piece that is back, from the newest seed, and puts it into the table again. */
async function recover({ client, sender, store, view, log }: HealthOptions, deal: DealView, lost: Set<bigint>): Promise<void> {
  const time = await client.read('storageMarket', 'recentSeedTime');
  const seed = await ensureSeed({ client, sender, time });
  if (seed === undefined) return;
  const { activationLeaves } = await readRules(client);
  const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves });
  try {
    await view.change(async (table) => {
      const slot = table.freeSlot();
      const path = bytesToHex(table.path(slot));
      await sender.send({ contract: 'storageMarket', functionName: 'recoverFault', args: [deal.dealId, openings, slot, path] });
    });
    lost.delete(deal.dealId);
    log.info('fault-recovered', { dealId: deal.dealId });
  } catch (error) {
    // The seed must be later than the fault; the next period's will be.
    if (!(error instanceof MillraceError) || error.code !== 'seed-too-old') throw error;
  }
}

async function isReadable(store: PieceStore, deal: DealView): Promise<boolean> {
  try {
    await openPieceLeaf(store, deal.pieceRoot, BigInt(randomInt(Number(deal.leaves))));
    return true;
  } catch (error) {
    if (isLoss(error)) return false;
    throw error;
  }
}
