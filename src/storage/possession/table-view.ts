import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { PieceTable, type TableLeaf } from './table.ts';

interface Change {
  blockNumber: bigint;
  logIndex: number;
  slot: number;
  /** Undefined: the slot was emptied. */
  leaf: TableLeaf | undefined;
}

/** An operator's piece table as the chain has it, followed by events and checked against the root on chain. */
export interface TableView {
  /** Brings the view to the latest block and gives the live table. Do not change it. */
  live(): Promise<PieceTable>;
  /** The table that a proof of `period` is checked against. */
  tableOf(period: bigint): Promise<PieceTable>;
  /**
   * Runs work that changes the table, one at a time: a path is only right as long as nobody else changes the table.
   * The work gets the live table.
   */
  change<Result>(work: (table: PieceTable) => Promise<Result>): Promise<Result>;
}

/** Opens the view of one operator's table; nothing is read before the first use. */
export function openTableView(client: ChainClient, operatorId: bigint): TableView {
  let changes: Change[] = [];
  let table = new PieceTable();
  let readTo: bigint | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  let reading: Promise<PieceTable> | undefined;

  const read = async (fromBlock: bigint | undefined, toBlock: bigint): Promise<void> => {
    for (const change of await readChanges(client, { operatorId, fromBlock, toBlock })) {
      applyChange(table, change);
      changes.push(change);
    }
    readTo = toBlock;
  };

  const refresh = async (): Promise<PieceTable> => {
    const head = await client.public.getBlockNumber({ cacheTime: 0 });
    if (readTo !== head) {
      const expected = await client.read('possession', 'table', [operatorId], { blockNumber: head });
      if (readTo === undefined || readTo < head) await read(readTo === undefined ? undefined : readTo + 1n, head).catch(() => {});
      if (!matches(table, expected)) {
        // A reorganisation changed what was read, or this view missed something: read all again.
        changes = [];
        table = new PieceTable();
        await read(undefined, head);
      }
      if (!matches(table, expected)) throw diverged(operatorId, table.root, expected.root);
    }
    return table;
  };

  const live = (): Promise<PieceTable> => {
    reading ??= refresh().finally(() => {
      reading = undefined;
    });
    return reading;
  };

  return {
    live,
    async tableOf(period) {
      const expected = await client.read('possession', 'tableOf', [operatorId, period]);
      const current = await live();
      if (matches(current, expected)) return current.copy();
      const past = new PieceTable();
      for (const change of changes) {
        if (matches(past, expected)) break;
        applyChange(past, change);
      }
      if (matches(past, expected)) return past;
      throw diverged(operatorId, past.root, expected.root);
    },
    change(work) {
      const next = turn.catch(() => {}).then(async () => work(await live()));
      turn = next;
      return next;
    },
  };
}

async function readChanges(
  client: ChainClient,
  range: { operatorId: bigint; fromBlock: bigint | undefined; toBlock: bigint },
): Promise<Change[]> {
  const { fromBlock, toBlock } = range;
  const query = { name: 'possession', args: { operatorId: range.operatorId }, fromBlock, toBlock } as const;
  const [inserted, removed] = await Promise.all([
    client.events({ ...query, event: 'LeafInserted' }),
    client.events({ ...query, event: 'LeafRemoved' }),
  ]);
  const changes: Change[] = [
    ...inserted.map(({ blockNumber, logIndex, args }) => {
      const { pieceRoot, pieceHeight, leaves, weight, dealId } = args;
      return { blockNumber, logIndex, slot: args.slot, leaf: { pieceRoot, pieceHeight, leaves, weight, dealId } };
    }),
    ...removed.map(({ blockNumber, logIndex, args }) => ({ blockNumber, logIndex, slot: args.slot, leaf: undefined })),
  ];
  return changes.sort((left, right) => Number(left.blockNumber - right.blockNumber) || left.logIndex - right.logIndex);
}

function applyChange(table: PieceTable, change: Change): void {
  if (change.leaf === undefined) table.remove(change.slot);
  else table.insert(change.slot, change.leaf);
}

/** Root and number of slots: an appended and removed leaf leaves the root but not the slots. */
function matches(table: PieceTable, expected: { root: string; slots: number }): boolean {
  return table.slots === expected.slots && table.root === expected.root;
}

function diverged(operatorId: bigint, got: string, expected: string): MillraceError {
  return new MillraceError('table-diverged', {
    actor: 'chain',
    message: `The events of operator ${operatorId} give table root ${got}, the chain says ${expected}`,
    values: { operatorId, got, expected },
    hint: 'The RPC node may be behind or miss old events; it is tried again.',
  });
}
