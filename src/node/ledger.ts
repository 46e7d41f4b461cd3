import {
  type AnyChainEvent,
  type ColumnType,
  type EventHandler,
  type EventKey,
  type FollowedEvent,
  followEvents,
  insertRows,
  trackTable,
} from '../chain/index.ts';
import type { ModuleMigrations, Queryable } from '../data/index.ts';

/**
 * The one ledger: a row for every event that moves money or stake, or changes how a provider or a deal stands. Every number
 * that a person sees can be followed to the rows here, and each row to its transaction.
 */
export const ledgerMigrations: ModuleMigrations = {
  module: 'node',
  migrations: [
    {
      number: 1,
      sql: `
create table ledger (
  block_number bigint not null,
  log_index integer not null,
  time bigint not null,
  transaction_hash text not null,
  kind text not null,
  operator_id bigint,
  deal_id bigint,
  rail_id bigint,
  account text,
  amount numeric not null,
  details text not null,
  primary key (block_number, log_index)
);
create index ledger_operator on ledger (operator_id, block_number);
create index ledger_deal on ledger (deal_id, block_number);
create index ledger_rail on ledger (rail_id, block_number);
${trackTable('ledger', ['block_number', 'log_index'])}`,
    },
  ],
};

/** A row of the ledger; amounts in base units. */
export interface LedgerRow {
  blockNumber: bigint;
  logIndex: number;
  time: bigint;
  transactionHash: string;
  kind: string;
  operatorId: bigint | null;
  dealId: bigint | null;
  railId: bigint | null;
  account: string | null;
  amount: bigint;
  details: string;
}

const COLUMNS: Record<string, ColumnType> = {
  block_number: 'bigint',
  log_index: 'integer',
  time: 'bigint',
  transaction_hash: 'text',
  kind: 'text',
  operator_id: 'bigint',
  deal_id: 'bigint',
  rail_id: 'bigint',
  account: 'text',
  amount: 'numeric',
  details: 'text',
};

/** Which argument of an event is the row's amount and account; events that are not here move nothing that the ledger shows. */
const SHOWN = {
  'operators.OperatorRegistered': { kind: 'operator-registered', account: 'owner' },
  'operators.EndpointChanged': { kind: 'endpoint-changed' },
  'stakeVault.StakeDeposited': { kind: 'stake-deposited', amount: 'amount', account: 'from' },
  'stakeVault.Backed': { kind: 'stake-backed', amount: 'amount', account: 'backer' },
  'stakeVault.ExitRequested': { kind: 'exit-requested', amount: 'amount', account: 'who' },
  'stakeVault.ExitFinished': { kind: 'exit-finished', amount: 'amount', account: 'who' },
  'stakeVault.Locked': { kind: 'stake-locked', amount: 'amount' },
  'stakeVault.Unlocked': { kind: 'stake-unlocked', amount: 'amount' },
  'stakeVault.Slashed': { kind: 'stake-slashed', amount: 'amount' },
  'rails.Deposited': { kind: 'rails-deposited', amount: 'amount', account: 'account' },
  'rails.Withdrawn': { kind: 'rails-withdrawn', amount: 'amount', account: 'account' },
  'rails.RailOpened': { kind: 'rail-opened', amount: 'escrow', account: 'payer', operator: 'payee' },
  'rails.RailSettled': { kind: 'rail-settled', amount: 'paid' },
  'rails.RailClosed': { kind: 'rail-closed', amount: 'refunded' },
  'possession.Proven': { kind: 'period-proven' },
  'possession.Missed': { kind: 'period-missed' },
  'possession.TableFailed': { kind: 'table-failed' },
  'storageMarket.DealOpened': { kind: 'deal-opened', amount: 'collateral', account: 'client' },
  'storageMarket.DealActivated': { kind: 'deal-activated' },
  'storageMarket.DealExpired': { kind: 'deal-expired', amount: 'bondLost' },
  'storageMarket.DealEnded': { kind: 'deal-ended', amount: 'fee' },
  'storageMarket.DealTerminated': { kind: 'deal-terminated', amount: 'slashed' },
  'storageMarket.FaultFee': { kind: 'fault-fee', amount: 'slashed' },
} as const satisfies Partial<Record<EventKey, { kind: string; amount?: string; account?: string; operator?: string }>>;

/** Turns chain events into ledger rows. */
export const ledgerHandler: EventHandler = followEvents(Object.keys(SHOWN) as (keyof typeof SHOWN)[], async (sql, events) => {
  await insertRows(sql, { table: 'ledger', columns: COLUMNS }, (events as readonly FollowedEvent[]).map(rowOf));
});

function rowOf(event: AnyChainEvent & { timestamp: bigint }): unknown[] {
  const shown: { kind: string; amount?: string; account?: string; operator?: string } =
    SHOWN[`${event.module}.${event.name}` as keyof typeof SHOWN];
  const args = event.args as Record<string, unknown>;
  const pick = (name: string | undefined) => (name === undefined ? null : (args[name] ?? null));
  const details = JSON.stringify(args, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
  return [
    event.blockNumber,
    event.logIndex,
    event.timestamp,
    event.transactionHash,
    shown.kind,
    pick(shown.operator ?? 'operatorId'),
    pick('dealId'),
    pick('railId'),
    pick(shown.account),
    pick(shown.amount) ?? 0n,
    details,
  ];
}

/** Rows of the ledger, newest first; settlements of a rail are also found by its operator. */
export async function readLedger(
  database: Queryable,
  filter: { operatorId?: bigint; dealId?: bigint; limit: number },
): Promise<LedgerRow[]> {
  const { rows } = await database.query<LedgerRow>(
    `select l.block_number as "blockNumber", l.log_index as "logIndex", l.time, l.transaction_hash as "transactionHash", l.kind,
       coalesce(l.operator_id, opened.operator_id) as "operatorId", l.deal_id as "dealId", l.rail_id as "railId", l.account, l.amount, l.details
     from ledger l left join ledger opened on opened.rail_id = l.rail_id and opened.kind = 'rail-opened'
     where ($1::bigint is null or coalesce(l.operator_id, opened.operator_id) = $1)
       and ($2::bigint is null or l.deal_id = $2)
     order by l.block_number desc, l.log_index desc limit $3`,
    [filter.operatorId ?? null, filter.dealId ?? null, filter.limit],
  );
  return rows;
}
