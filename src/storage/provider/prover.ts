import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { inBatches } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { isLoss, openPieceLeaf } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { type Draw, drawLeaves } from '../possession/draws.ts';
import { periodAt, seedTime } from '../possession/periods.ts';
import { answerDraws, packOpenings, type TableOpening } from '../possession/proof.ts';
import { ensureSeed, type Seed, seedForProof } from '../possession/seeds.ts';
import type { PieceTable } from '../possession/table.ts';
import type { TableView } from '../possession/table-view.ts';
import type { Duty } from './duty.ts';

/** What the proving of one operator stands on. */
export interface ProverOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  store: PieceStore;
  view: TableView;
  log: Logger;
  /** Called when a drawn piece cannot be opened: the period cannot be proven. */
  onLost(dealIds: bigint[]): void;
  onProven(period: bigint, openings: number, gasUsed: bigint): void;
  everyMs?: number;
}

/** What a proof of a period must answer. */
interface ProofTask {
  period: bigint;
  seed: Seed;
  table: PieceTable;
  /** The oldest open miss, which this proof also answers. */
  miss?: { period: bigint; seed: Hex; table: PieceTable };
}

/**
 * The duty to prove possession, once per period: when the seed of the current period exists, it draws, opens the leaves
 * and sends one transaction. What the chain says decides whether a period is proven, so it may stop and start anywhere.
 */
export function proverDuty(options: ProverOptions): Duty {
  let doneWith = -1n;
  return {
    name: 'prover',
    everyMs: options.everyMs ?? 1_000,
    async run() {
      const { client } = options;
      const now = await client.now();
      const { clock } = await readRules(client);
      const period = periodAt(clock, now);
      if (period === doneWith || now < seedTime(clock, period)) return;
      const task = await prepare(options, period);
      if (task === 'later') return;
      if (task !== 'nothing') await prove(options, task);
      doneWith = period;
    },
  };
}

/** Everything that a proof needs; `nothing` when there is nothing to prove in this period, `later` while the seed is missing. */
async function prepare(options: ProverOptions, period: bigint): Promise<ProofTask | 'nothing' | 'later'> {
  const { client, sender, operatorId, view } = options;
  if (!(await client.read('possession', 'stands', [operatorId]))) return 'nothing';
  let standing = await client.read('possession', 'standing', [operatorId]);
  if (standing.provenThrough > period) return 'nothing';
  if (await hasUnrecordedMiss(options, standing.syncedTo, period)) {
    // The misses must be on record before it is known what the proof must answer.
    await sender.send({ contract: 'possession', functionName: 'sync', args: [operatorId] });
    standing = await client.read('possession', 'standing', [operatorId]);
    if (!(await client.read('possession', 'stands', [operatorId]))) return 'nothing';
  }
  const table = await view.tableOf(period);
  if (table.leaves === 0n) return 'nothing';
  const { clock } = await readRules(client);
  const seed = await seedForProof({ client, sender, time: seedTime(clock, period) });
  if (seed === undefined) return 'later';
  if (standing.openMiss === 0n) return { period, seed, table };
  const missed = standing.openMiss - 1n;
  const missedSeed = await ensureSeed({ client, sender, time: seedTime(clock, missed) });
  if (missedSeed === undefined) return 'later';
  return { period, seed, table, miss: { period: missed, seed: missedSeed, table: await view.tableOf(missed) } };
}

/** Whether an ended period that nobody has made final had a table that was not proven: only the first can have a kept copy. */
async function hasUnrecordedMiss({ client, operatorId }: ProverOptions, syncedTo: bigint, period: bigint): Promise<boolean> {
  if (syncedTo >= period) return false;
  const first = await client.read('possession', 'tableOf', [operatorId, syncedTo]);
  if (first.leaves !== 0n) return true;
  return syncedTo + 1n < period && (await client.read('possession', 'table', [operatorId])).leaves !== 0n;
}

/** Answers all draws and sends the proof. @throws pieces-lost */
async function prove(options: ProverOptions, task: ProofTask): Promise<void> {
  const { client, sender, operatorId, log } = options;
  const { period, seed, miss } = task;
  const { draws: counts } = await readRules(client);
  const draws = drawLeaves({ table: task.table, counts, seed: seed.value, operatorId, period, times: miss === undefined ? 1 : 2 });
  const openings = await answer(options, { table: task.table, draws, over: new Set() });
  if (miss !== undefined) {
    const missed = drawLeaves({ table: miss.table, counts, seed: miss.seed, operatorId, period: miss.period, times: 1 });
    openings.push(...(await answer(options, { table: miss.table, draws: missed, over: await overDeals(client, missed) })));
  }
  try {
    const receipt = await sender.send({
      contract: 'possession',
      functionName: 'prove',
      args: [operatorId, period, packOpenings(openings), seed.header, seed.parent, seed.oldest],
      key: `prove:${operatorId}:${period}`,
    });
    log.info('period-proven', { period, openings: openings.length, recovery: miss !== undefined, gasUsed: receipt.gasUsed });
    options.onProven(period, openings.length, receipt.gasUsed);
  } catch (error) {
    // An earlier attempt may have come through, or the period ended while we were proving; the next look decides anew.
    const { provenThrough } = await client.read('possession', 'standing', [operatorId]);
    if (provenThrough <= period) throw error;
  }
}

/** Opens all drawn leaves of one table. @throws pieces-lost, after reporting all deals whose piece cannot be opened */
async function answer(
  options: ProverOptions,
  { table, draws, over }: { table: PieceTable; draws: Draw[]; over: ReadonlySet<bigint> },
): Promise<TableOpening[]> {
  const lost = new Set<bigint>();
  let reason: unknown;
  const openings = await answerDraws({
    table,
    draws,
    isOver: (dealId) => over.has(dealId),
    async openPiece(leaf, leafIndex) {
      try {
        return await openPieceLeaf(options.store, leaf.pieceRoot, leafIndex);
      } catch (error) {
        if (!isLoss(error)) throw error;
        lost.add(leaf.dealId);
        reason = error;
        return { value: new Uint8Array(32), path: new Uint8Array(32 * leaf.pieceHeight) };
      }
    },
  });
  if (lost.size === 0) return openings;
  options.onLost([...lost]);
  throw new MillraceError('pieces-lost', {
    actor: 'host',
    message: `The period cannot be proven: the pieces of deals ${[...lost].join(', ')} cannot be opened`,
    values: { operatorId: options.operatorId, dealIds: [...lost].map(String) },
    hint: 'Restore the pieces before the period ends, else their faults are declared and the deals surrendered.',
    cause: reason,
  });
}

/** Deals of drawn leaves that are over: an open miss needs no answer for them. */
async function overDeals(client: ChainClient, draws: readonly Draw[]): Promise<Set<bigint>> {
  const dealIds = [...new Set(draws.flatMap(({ leaf }) => (leaf === undefined ? [] : [leaf.dealId])))];
  const over = await inBatches(dealIds, (dealId) => client.read('storageMarket', 'isOver', [dealId]));
  return new Set(dealIds.filter((_, index) => over[index]));
}
