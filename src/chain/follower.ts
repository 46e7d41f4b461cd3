import { type Abi, type Hex, type PublicClient, toHex } from 'viem';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ChainClient, ChainEvent, EventName } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { chainError } from './errors.ts';
import { createLogDecoder, eventTopics, type LogDecoder, type RawLog } from './event-decoder.ts';
import type { FollowerSql } from './follower-tables.ts';
import { manifestId } from './manifest.ts';

/** `module.Event`, for example `rails.RailSettled`. */
export type EventKey = { [N in ModuleName]: `${N}.${EventName<N>}` }[ModuleName];

/** A decoded event with its block's timestamp (seconds); `module` and `name` tell which. */
export type FollowedEvent<K extends EventKey = EventKey> = K extends `${infer N extends ModuleName}.${infer E}`
  ? ChainEvent<N, E & EventName<N>> & { timestamp: bigint }
  : never;

/**
 * What becomes of events: a read model. `apply` gets its events in chain order, many at once when they are old, one block's when they are
 * new. It writes through `sql` alone: a throw rolls back, and a conflict runs it again.
 */
export interface EventHandler {
  events: readonly EventKey[];
  apply(sql: FollowerSql, events: readonly FollowedEvent[]): Promise<void>;
}

/** A handler with its events' types. Tables that it writes must be tracked ({@link trackTable}), so that blocks can be undone. */
export function followEvents<const K extends EventKey>(
  events: readonly K[],
  apply: (sql: FollowerSql, events: readonly FollowedEvent<K>[]) => Promise<void>,
): EventHandler {
  return { events, apply: apply as EventHandler['apply'] };
}

/** How far a follower has come: the last block whose events are in the database. */
export interface FollowerPosition {
  number: bigint;
  hash: Hex;
}

/** How a follower works. */
export interface FollowerOptions {
  client: ChainClient;
  /** Runs SQL in one transaction: a `Database.transaction`. */
  transaction<T>(run: (sql: FollowerSql) => Promise<T>): Promise<T>;
  handlers: readonly EventHandler[];
  /** Several followers may share a database under different names. */
  name: string;
  log: Logger;
  clock?: Clock;
  /** Blocks this far below the head are not reorganised any more. Default 128. */
  undoBlocks?: number;
}

/** Writes a chain's events to a database: each block with its checkpoint in one transaction, undone when it is reorganised. */
export interface Follower {
  /** Follows until the chain's present head is in the database, and gives the position. */
  sync(): Promise<FollowerPosition>;
  /** Follows until the signal ends it. Waits out a chain or database that does not answer. @throws wrong-network, reorg-too-deep */
  run(signal: AbortSignal): Promise<void>;
  /** The last known position; `undefined` before the first step. */
  position(): FollowerPosition | undefined;
}

/** The position of a follower as its database has it; `undefined` when it never ran. */
export async function readFollowerPosition(sql: FollowerSql, name: string): Promise<FollowerPosition | undefined> {
  const { rows } = await sql.query<{ block_number: bigint | string; block_hash: Hex }>(
    'select block_number, block_hash from chain_checkpoint where follower = $1',
    [name],
  );
  const row = rows[0];
  return row === undefined ? undefined : { number: BigInt(row.block_number), hash: row.block_hash };
}

const UNDO_BLOCKS = 128;
const PRUNE_EVERY_BLOCKS = 16n;
const RANGE_BLOCKS_MAX = 50_000n;
const RANGE_EVENTS_GOAL = 10_000;
const WAITABLE = ['chain-unreachable', 'chain-refused', 'database-unavailable', 'database-busy', 'database-timeout', 'follower-moved'];
const BACK_OFF_MS_MAX = 5000;

/** Makes a follower; nothing happens before `sync` or `run`. @throws unknown-module */
export function createFollower(options: FollowerOptions): Follower {
  const state = new FollowerState(options);
  const clock = options.clock ?? systemClock;
  return {
    async sync() {
      while (await state.step()) {
        // go on until nothing is left
      }
      return state.position as FollowerPosition;
    },
    async run(signal) {
      for (let backOffMs = 50; !signal.aborted; ) {
        try {
          if (await state.step()) backOffMs = 50;
          else await clock.sleep(options.client.pollIntervalMs(), signal);
        } catch (error) {
          if (signal.aborted) return;
          if (!(error instanceof MillraceError) || !WAITABLE.includes(error.code)) throw error;
          options.log.warn('follower-waits', { name: options.name, code: error.code, reason: error.message });
          state.position = undefined;
          await clock.sleep(backOffMs, signal).catch(() => {});
          backOffMs = Math.min(2 * backOffMs, BACK_OFF_MS_MAX);
        }
      }
    },
    position: () => (state.position === undefined ? undefined : { ...state.position }),
  };
}

interface Header {
  number: Hex;
  hash: Hex;
  parentHash: Hex;
  timestamp: Hex;
}

class FollowerState {
  position: FollowerPosition | undefined;
  readonly #options: FollowerOptions;
  readonly #rpc: PublicClient;
  readonly #undoBlocks: bigint;
  readonly #network: Hex;
  readonly #sources = new Map<string, { module: ModuleName; decode: LogDecoder }>();
  readonly #filter: { address: Hex[]; topics: Hex[][] };
  readonly #firstBlock: bigint;
  #rangeBlocks = 1000n;

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#rpc = options.client.public;
    this.#undoBlocks = BigInt(options.undoBlocks ?? UNDO_BLOCKS);
    const { manifest } = options.client;
    this.#network = manifestId(manifest);
    const wanted = new Map<ModuleName, Set<string>>();
    for (const key of options.handlers.flatMap((handler) => handler.events)) {
      const [module, name] = key.split('.') as [ModuleName, string];
      wanted.set(module, (wanted.get(module) ?? new Set()).add(name));
    }
    const topics = new Set<Hex>();
    for (const [module, names] of wanted) {
      const abi = abis[module] as unknown as Abi;
      this.#sources.set(options.client.address(module).toLowerCase(), { module, decode: createLogDecoder(abi, [...names]) });
      for (const topic of eventTopics(abi, [...names])) topics.add(topic);
    }
    this.#filter = { address: [...this.#sources.keys()] as Hex[], topics: [[...topics]] };
    const blocks = [...wanted.keys()].map((module) => manifest.modules[module]?.deployBlock ?? 0);
    this.#firstBlock = BigInt(Math.max(1, Math.min(...blocks)));
  }

  /** One unit of work: undo a reorganisation, take a range of old blocks, or take one new block. False when there is nothing to do. */
  async step(): Promise<boolean> {
    try {
      const position = await this.#load();
      const head = await this.#header('latest');
      const headNumber = BigInt(head.number);
      if (headNumber <= position.number) {
        const ours = headNumber === position.number ? position.hash : await this.#storedHash(headNumber);
        // A node that lags, or a chain that got shorter: wait, unless the block that it shows is another one than ours.
        if (ours === undefined || ours === head.hash) return false;
        await this.#undo(position);
        return true;
      }
      const settled = headNumber - this.#undoBlocks;
      if (position.number < settled) return await this.#takeRange(position, settled);
      return await this.#takeBlock(position);
    } catch (error) {
      throw chainError(error, 'Following the chain', { follower: this.#options.name });
    }
  }

  async #load(): Promise<FollowerPosition> {
    if (this.position !== undefined) return this.position;
    const { transaction, name } = this.#options;
    const anchor = await this.#header(this.#firstBlock - 1n);
    this.position = await transaction(async (sql) => {
      const { rows } = await sql.query<{ network: Hex }>('select network from chain_checkpoint where follower = $1', [name]);
      if (rows[0] !== undefined && rows[0].network !== this.#network) throw this.#wrongNetwork(rows[0].network);
      if (rows[0] === undefined) {
        await sql.query('insert into chain_checkpoint values ($1, $2, $3, $4)', [name, this.#network, this.#firstBlock - 1n, anchor.hash]);
        await this.#storeBlock(sql, anchor);
      }
      return readFollowerPosition(sql, name);
    });
    return this.position as FollowerPosition;
  }

  /** Old blocks, many at once and without undo. */
  async #takeRange(position: FollowerPosition, settled: bigint): Promise<boolean> {
    if ((await this.#header(position.number)).hash !== position.hash) {
      await this.#undo(position);
      return true;
    }
    const from = position.number + 1n;
    const to = from + this.#rangeBlocks - 1n < settled ? from + this.#rangeBlocks - 1n : settled;
    let logs: RawLog[];
    try {
      logs = await this.#logs({ fromBlock: toHex(from), toBlock: toHex(to) });
    } catch (error) {
      if (this.#rangeBlocks === 1n || chainError(error, '').code !== 'chain-refused') throw error;
      this.#rangeBlocks = this.#rangeBlocks > 4n ? this.#rangeBlocks / 4n : 1n;
      return true;
    }
    const last = await this.#header(to);
    await this.#commit(position, { last, events: await this.#decode(logs), undoable: false });
    const growth = BigInt(Math.max(1, Math.min(4, Math.floor(RANGE_EVENTS_GOAL / (logs.length + 1)))));
    this.#rangeBlocks = logs.length > 2 * RANGE_EVENTS_GOAL ? (this.#rangeBlocks + 1n) / 2n : this.#rangeBlocks * growth;
    if (this.#rangeBlocks > RANGE_BLOCKS_MAX) this.#rangeBlocks = RANGE_BLOCKS_MAX;
    return true;
  }

  /** The next new block, with what it takes to undo it. */
  async #takeBlock(position: FollowerPosition): Promise<boolean> {
    const block = await this.#header(position.number + 1n);
    if (block.parentHash !== position.hash) {
      await this.#undo(position);
      return true;
    }
    // By hash: logs of exactly this block, whatever is canonical by now.
    const logs = await this.#logs({ blockHash: block.hash });
    await this.#commit(position, { last: block, events: await this.#decode(logs), undoable: true });
    return true;
  }

  /** Events, undo records, block and checkpoint in one transaction. */
  async #commit(
    position: FollowerPosition,
    { last, events, undoable }: { last: Header; events: FollowedEvent[]; undoable: boolean },
  ): Promise<void> {
    const { transaction, handlers } = this.#options;
    const number = BigInt(last.number);
    await transaction(async (sql) => {
      await this.#claim(sql, position, undoable ? number : undefined);
      for (const handler of handlers) {
        const wanted =
          handlers.length === 1 ? events : events.filter((event) => handler.events.includes(`${event.module}.${event.name}` as EventKey));
        if (wanted.length > 0) await handler.apply(sql, wanted);
      }
      await this.#storeBlock(sql, last);
      await this.#storePosition(sql, { number, hash: last.hash });
      // Below a range without undo records nothing can be undone: its last block is the anchor.
      if (!undoable) await this.#forget(sql, number);
      else if (number % PRUNE_EVERY_BLOCKS === 0n) await this.#forget(sql, number - this.#undoBlocks);
    });
    this.position = { number, hash: last.hash };
  }

  /** Drops what it takes to undo blocks below `number`. */
  async #forget(sql: FollowerSql, number: bigint): Promise<void> {
    const params = [this.#options.name, number];
    await sql.query('delete from chain_blocks where follower = $1 and number < $2', params);
    await sql.query('delete from chain_undo where follower = $1 and block_number <= $2', params);
  }

  /** Goes back to the last block that is still part of the chain. */
  async #undo(position: FollowerPosition): Promise<void> {
    const { transaction, name, log } = this.#options;
    const { rows: blocks } = await transaction((sql) =>
      sql.query<{ number: bigint | string; hash: Hex }>('select number, hash from chain_blocks where follower = $1 order by number desc', [
        name,
      ]),
    );
    let ancestor: FollowerPosition | undefined;
    for (const block of blocks) {
      const number = BigInt(block.number);
      const canonical = await this.#rpc.request({ method: 'eth_getBlockByNumber', params: [toHex(number), false] });
      if (canonical?.hash !== block.hash) continue;
      ancestor = { number, hash: block.hash };
      break;
    }
    if (ancestor === undefined) throw this.#reorgTooDeep(position);
    const target = ancestor;
    await transaction(async (sql) => {
      await this.#claim(sql, position, undefined);
      await sql.query('select chain_undo_after($1, $2)', [name, target.number]);
      await this.#storePosition(sql, target);
    });
    log.info('reorganisation-undone', { name, from: position.number, to: target.number });
    this.position = target;
  }

  /** Locks the checkpoint and makes sure that no other process has moved it; says which block changes are recorded for. */
  async #claim(sql: FollowerSql, position: FollowerPosition, undoBlock: bigint | undefined): Promise<void> {
    const { name } = this.#options;
    const { rows } = await sql.query<{ block_hash: Hex; block_number: bigint | string }>(
      `select block_number, block_hash, set_config('millrace.undo_block', $2, true), set_config('millrace.undo_follower', $1, true)
       from chain_checkpoint where follower = $1 for update`,
      [name, undoBlock === undefined ? '' : String(undoBlock)],
    );
    if (rows[0]?.block_hash === position.hash && BigInt(rows[0].block_number) === position.number) return;
    this.position = undefined;
    throw new MillraceError('follower-moved', {
      actor: 'host',
      message: `The checkpoint of follower ${name} was moved by another process`,
      values: { name, number: position.number },
      hint: 'Run one follower of a name at a time.',
    });
  }

  async #storeBlock(sql: FollowerSql, block: Header): Promise<void> {
    await sql.query(
      'insert into chain_blocks values ($1, $2, $3, $4) on conflict (follower, number) do update set hash = excluded.hash, parent = excluded.parent',
      [this.#options.name, BigInt(block.number), block.hash, block.parentHash],
    );
  }

  async #storePosition(sql: FollowerSql, { number, hash }: FollowerPosition): Promise<void> {
    await sql.query('update chain_checkpoint set block_number = $2, block_hash = $3 where follower = $1', [
      this.#options.name,
      number,
      hash,
    ]);
  }

  async #storedHash(number: bigint): Promise<Hex | undefined> {
    const { transaction, name } = this.#options;
    const params = [name, number];
    const { rows } = await transaction((sql) =>
      sql.query<{ hash: Hex }>('select hash from chain_blocks where follower = $1 and number = $2', params),
    );
    return rows[0]?.hash;
  }

  async #header(block: bigint | 'latest'): Promise<Header> {
    const tag = block === 'latest' ? block : toHex(block);
    const header = await this.#rpc.request({ method: 'eth_getBlockByNumber', params: [tag, false] } as never);
    if (header !== null) return header as Header;
    throw new MillraceError('chain-refused', {
      actor: 'chain',
      message: `The chain does not show block ${block}`,
      values: { block: String(block) },
      hint: 'It may be reorganising; this is tried again.',
    });
  }

  async #logs(where: { fromBlock: Hex; toBlock: Hex } | { blockHash: Hex }): Promise<RawLog[]> {
    return (await this.#rpc.request({ method: 'eth_getLogs', params: [{ ...this.#filter, ...where }] } as never)) as RawLog[];
  }

  /** Logs as events in chain order. A log whose shape is not that of its event is skipped: its contract is not ours. */
  async #decode(logs: readonly RawLog[]): Promise<FollowedEvent[]> {
    const events: FollowedEvent[] = [];
    let block: { text: Hex; number: bigint; timestamp: bigint } | undefined;
    let isSorted = true;
    for (const log of logs) {
      const source = this.#sources.get(log.address) ?? this.#sources.get(log.address.toLowerCase());
      const decoded = log.removed === true ? undefined : source?.decode(log);
      if (decoded === undefined || source === undefined) continue;
      if (block === undefined || block.text !== log.blockNumber) {
        const number = BigInt(log.blockNumber);
        if (block !== undefined && number < block.number) isSorted = false;
        const timestamp = BigInt(log.blockTimestamp ?? (await this.#header(number)).timestamp);
        block = { text: log.blockNumber, number, timestamp };
      }
      events.push({
        module: source.module,
        name: decoded.name,
        args: decoded.args,
        address: log.address,
        blockNumber: block.number,
        blockHash: log.blockHash,
        transactionHash: log.transactionHash,
        logIndex: Number(log.logIndex),
        timestamp: block.timestamp,
      } as unknown as FollowedEvent);
    }
    if (!isSorted) events.sort((a, b) => Number(a.blockNumber - b.blockNumber) || a.logIndex - b.logIndex);
    return events;
  }

  #wrongNetwork(got: Hex): MillraceError {
    return new MillraceError('wrong-network', {
      actor: 'caller',
      message: `The database follows network ${got}, not ${this.#network}`,
      values: { got, expected: this.#network, follower: this.#options.name },
      hint: 'Use the database of this network, or an empty one.',
    });
  }

  #reorgTooDeep(position: FollowerPosition): MillraceError {
    return new MillraceError('reorg-too-deep', {
      actor: 'chain',
      message: `The chain was reorganised below what follower ${this.#options.name} can undo (${this.#undoBlocks} blocks before ${position.number})`,
      values: { follower: this.#options.name, number: position.number, undoBlocks: this.#undoBlocks },
      hint: 'Empty the database: it is filled again from the chain.',
    });
  }
}
