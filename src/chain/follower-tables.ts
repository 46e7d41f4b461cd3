/** What the follower needs of a database transaction. */
export interface FollowerSql {
  query<Row = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<{ rows: Row[] }>;
}

/**
 * The follower's own tables, as migrations of module `chain`. `chain_undo` holds, per block that may still be reorganised, what each changed
 * row of a tracked table was before; triggers write it, so handlers need not think of it.
 */
export const followerMigrations = {
  module: 'chain',
  migrations: [
    {
      number: 1,
      sql: `
create table chain_checkpoint (
  follower text primary key,
  network text not null,
  block_number bigint not null,
  block_hash text not null
);
create table chain_blocks (
  follower text not null,
  number bigint not null,
  hash text not null,
  parent text not null,
  primary key (follower, number)
);
create table chain_undo (
  id bigint generated always as identity primary key,
  follower text not null,
  block_number bigint not null,
  relation text not null,
  inserted jsonb,
  removed jsonb
);
create index chain_undo_block on chain_undo (follower, block_number);

create function chain_record_change() returns trigger language plpgsql as $body$
#variable_conflict use_variable
declare
  millrace_block text := coalesce(current_setting('millrace.undo_block', true), '');
  millrace_follower text := current_setting('millrace.undo_follower', true);
  millrace_relation text := format('%I.%I', tg_table_schema, tg_table_name);
begin
  if millrace_block = '' then return null; end if;
  if tg_op <> 'INSERT' then
    insert into chain_undo (follower, block_number, relation, removed)
    select millrace_follower, millrace_block::bigint, millrace_relation, to_jsonb(changed) from old_rows changed;
  end if;
  if tg_op <> 'DELETE' then
    insert into chain_undo (follower, block_number, relation, inserted)
    select millrace_follower, millrace_block::bigint, millrace_relation,
      (select jsonb_object_agg(millrace_key, to_jsonb(changed) -> millrace_key) from unnest(tg_argv) millrace_key)
    from new_rows changed;
  end if;
  return null;
end $body$;

create function chain_undo_after(of_follower text, last_block bigint) returns bigint language plpgsql as $body$
declare
  step record;
  condition text;
  steps bigint := 0;
begin
  perform set_config('millrace.undo_block', '', true);
  for step in select * from chain_undo where follower = of_follower and block_number > last_block order by id desc loop
    if step.inserted is not null then
      select string_agg(format('t.%I = k.%I', name, name), ' and ') into condition from jsonb_object_keys(step.inserted) name;
      execute format('delete from %s t using jsonb_populate_record(null::%s, $1) k where %s', step.relation, step.relation, condition)
        using step.inserted;
    else
      execute format('insert into %s overriding system value select * from jsonb_populate_record(null::%s, $1)', step.relation, step.relation)
        using step.removed;
    end if;
    steps := steps + 1;
  end loop;
  delete from chain_undo where follower = of_follower and block_number > last_block;
  delete from chain_blocks where follower = of_follower and number > last_block;
  return steps;
end $body$;`,
    },
  ],
} as const;

/**
 * SQL for a module's migration: changes of this table by a follower's handlers are undone with the block that made them. The table needs
 * the given primary key, and may have neither generated columns (identities may be) nor foreign keys to other tracked tables.
 */
export function trackTable(table: string, primaryKey: readonly string[]): string {
  const keys = primaryKey.map((key) => `'${key.replaceAll("'", "''")}'`).join(', ');
  const trigger = (action: string, rows: string) =>
    `create trigger chain_undo_${action} after ${action} on ${table} referencing ${rows} for each statement execute function chain_record_change(${keys});\n`;
  return (
    trigger('insert', 'new table as new_rows') +
    trigger('update', 'old table as old_rows new table as new_rows') +
    trigger('delete', 'old table as old_rows')
  );
}

/** How a value becomes one of a column's type. */
export type ColumnType = 'bigint' | 'integer' | 'numeric' | 'text' | 'boolean' | 'bytea';

/**
 * Inserts many rows by one statement: one array parameter per column, so that neither the number of rows nor of parameters is a limit.
 * Hex strings (`0x…`) become bytes in `bytea` columns; bigints fit `bigint` and `numeric`.
 * @param suffix for example `on conflict do nothing`
 */
export async function insertRows(
  sql: FollowerSql,
  into: { table: string; columns: Readonly<Record<string, ColumnType>>; suffix?: string },
  rows: readonly (readonly unknown[])[],
): Promise<void> {
  if (rows.length === 0) return;
  const names = Object.keys(into.columns);
  const types = Object.values(into.columns);
  const columns = types.map((type, index) => arrayLiteral(rows, index, type));
  const arrays = types.map((type, index) => `$${index + 1}::${type}[]`).join(', ');
  await sql.query(`insert into ${into.table} (${names.join(', ')}) select * from unnest(${arrays}) ${into.suffix ?? ''}`, columns);
}

/** A PostgreSQL array literal of one column, several times faster than the driver's general one. */
function arrayLiteral(rows: readonly (readonly unknown[])[], index: number, type: ColumnType): string {
  let literal = '{';
  for (let row = 0; row < rows.length; row += 1) {
    const value = (rows[row] as readonly unknown[])[index];
    if (row > 0) literal += ',';
    if (value === null || value === undefined) literal += 'NULL';
    else if (type === 'text') literal += quoted(String(value));
    else if (type === 'bytea') literal += `"\\\\x${String(value).slice(2)}"`;
    else literal += String(value);
  }
  return `${literal}}`;
}

function quoted(text: string): string {
  // PostgreSQL's text cannot hold NUL; chain data can
  const plain = text.includes('\0') ? text.replaceAll('\0', '') : text;
  return /["\\]/.test(plain) ? `"${plain.replace(/["\\]/g, '\\$&')}"` : `"${plain}"`;
}
