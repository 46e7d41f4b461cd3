import { join } from 'node:path';
import type { Hex } from 'viem';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type AnvilProcess, startAnvil } from './anvil.ts';
import { listSnapshots, readSnapshot, removeUnfinishedSnapshots, type SnapshotFile, writeSnapshot } from './snapshot.ts';
import { type BlockRecord, type LoggedBlock, openWal, type Wal } from './wal.ts';

/** The newest complete block. */
export interface Head {
  number: number;
  hash: Hex;
  /** Seconds. */
  timestamp: number;
  /** What the next block will charge, wei per gas (EIP-1559). */
  nextBaseFeePerGas: bigint;
}

/** A chain on disk and the anvil that holds it in memory. One writer: nothing here may run twice at the same time. */
export interface Ledger {
  head(): Head;
  warpOffsetSeconds(): number;
  /** Makes the block durable, then mines it. Gives the transactions that anvil refused, which a sound queue never yields. */
  mine(block: Omit<BlockRecord, 'height'>): Promise<{ head: Head; missing: Hex[] }>;
  /** Sends a call to anvil. Only reads may come from outside. */
  request(method: string, params?: readonly unknown[], timeoutMs?: number): Promise<unknown>;
  /** Starts anvil again from snapshot and log, for example after it was killed. */
  restore(): Promise<void>;
  /** Writes a snapshot of the newest block and drops the log that it makes superfluous. */
  snapshot(): Promise<void>;
  /** True when the log has grown enough for a snapshot; `blocks` overrides after how many. */
  snapshotIsDue(blocks?: number): boolean;
  anvil(): AnvilProcess;
  close(): Promise<void>;
}

/** What a ledger needs. `runtimeFolder` is private to this user and has a short path (sockets). */
export interface LedgerOptions {
  folder: string;
  runtimeFolder: string;
  chainId: number;
  gasLimit: bigint;
  snapshotBlocks: number;
  snapshotBytes: number;
  isolate?: boolean;
  log: Logger;
}

interface MinedBlock {
  number: Hex;
  hash: Hex;
  parentHash: Hex;
  timestamp: Hex;
  miner: Hex;
  baseFeePerGas: Hex;
  gasUsed: Hex;
  gasLimit: Hex;
  transactions: Hex[];
}

/**
 * Of a long chain, the share of blocks behind the newest snapshot. A replayed block costs about 350 times what it adds to a
 * snapshot (20 ms against 58 µs, both measured under load), so this bounds the restart at little cost.
 */
const SNAPSHOT_SHARE = 0.01;

/**
 * Opens the chain in `folder` (which has a `genesis.json`), starts anvil, and brings it to the newest logged block.
 * @throws wal-corrupt, replay-mismatch, no-usable-snapshot, anvil-missing, anvil-start-failed
 */
export async function openLedger(options: LedgerOptions): Promise<Ledger> {
  removeUnfinishedSnapshots(options.folder);
  const wal = openWal(options.folder);
  const blocks = [...wal.recovered];
  const state: LedgerState = { options, wal, blocks, anvil: undefined, head: undefined, warpOffsetSeconds: 0, snapshotHeight: 0 };
  try {
    await restore(state);
  } catch (error) {
    await state.anvil?.kill();
    wal.close();
    throw error;
  }
  return {
    head: () => currentHead(state),
    warpOffsetSeconds: () => state.warpOffsetSeconds,
    mine: (block) => mineDurably(state, block),
    request: (method, params, timeoutMs) => currentAnvil(state).connection.request(method, params, timeoutMs),
    restore: () => restore(state),
    snapshot: () => takeSnapshot(state),
    snapshotIsDue: (blocks) => snapshotIsDue(state, blocks ?? options.snapshotBlocks),
    anvil: () => currentAnvil(state),
    async close() {
      await state.anvil?.kill();
      wal.close();
    },
  };
}

interface LedgerState {
  options: LedgerOptions;
  wal: Wal;
  /** The blocks that the log still holds, so that a restart of anvil need not read the disk. */
  blocks: LoggedBlock[];
  anvil: AnvilProcess | undefined;
  head: Head | undefined;
  warpOffsetSeconds: number;
  snapshotHeight: number;
}

async function mineDurably(state: LedgerState, block: Omit<BlockRecord, 'height'>): Promise<{ head: Head; missing: Hex[] }> {
  const record: LoggedBlock = { height: currentHead(state).number + 1, ...block };
  await state.wal.appendBlock(record);
  state.blocks.push(record);
  return await mineRecord(state, record);
}

/** Mines a durable record; the only place where anvil's chain grows, live and in replay. */
async function mineRecord(state: LedgerState, record: LoggedBlock): Promise<{ head: Head; missing: Hex[] }> {
  const { request } = currentAnvil(state).connection;
  const parent = currentHead(state);
  const sent: Hex[] = [];
  for (const raw of record.transactions) {
    try {
      sent.push((await request('eth_sendRawTransaction', [raw])) as Hex);
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'anvil-refused') throw error;
      state.options.log.error('transaction-not-taken', { height: record.height, reason: error.message });
    }
  }
  await request('evm_setNextBlockTimestamp', [record.timestamp]);
  await request('anvil_setCoinbase', [record.coinbase]);
  await request('anvil_mine', ['0x1']);
  const block = (await request('eth_getBlockByNumber', ['latest', false])) as MinedBlock;
  const included = new Set(block.transactions);
  const missing = sent.filter((hash) => !included.has(hash));
  const inOrder = sent.filter((hash) => included.has(hash)).every((hash, index) => hash === block.transactions[index]);
  const expected = { number: record.height, parentHash: parent.hash, timestamp: record.timestamp, miner: record.coinbase, inOrder: true };
  const got = {
    number: Number(block.number),
    parentHash: block.parentHash,
    timestamp: Number(block.timestamp),
    miner: block.miner,
    inOrder,
  };
  if (JSON.stringify(got) !== JSON.stringify(expected) || block.transactions.length + missing.length !== sent.length) {
    throw mismatch(record.height, JSON.stringify(got), JSON.stringify(expected));
  }
  if (record.hash !== undefined && record.hash !== block.hash) throw mismatch(record.height, block.hash, record.hash);
  // The pool is not part of a snapshot, so nothing may stay in it from one block to the next.
  if (missing.length > 0) await request('anvil_dropAllTransactions');
  if (record.hash === undefined) {
    record.hash = block.hash;
    state.wal.appendHash(record.height, block.hash);
  }
  state.head = headOf(block);
  state.warpOffsetSeconds = record.warpOffsetSeconds;
  return { head: state.head, missing };
}

async function restore(state: LedgerState): Promise<void> {
  const startedMs = performance.now();
  const candidates: (SnapshotFile | undefined)[] = [...listSnapshots(state.options.folder), undefined];
  let failure: unknown;
  for (const snapshot of candidates) {
    try {
      const replayed = await restoreFrom(state, snapshot);
      const tookMs = Math.round(performance.now() - startedMs);
      const { number, hash } = currentHead(state);
      state.options.log.info('chain-restored', { height: number, hash, snapshotHeight: snapshot?.height ?? 0, replayed, tookMs });
      return;
    } catch (error) {
      const isPassable = error instanceof MillraceError && ['snapshot-corrupt', 'replay-mismatch', 'anvil-refused'].includes(error.code);
      if (!isPassable && !(error instanceof MillraceError && error.code === 'no-usable-snapshot')) throw error;
      failure ??= error;
      state.options.log.error('restore-failed', { snapshotHeight: snapshot?.height ?? 0, code: error.code, reason: error.message });
    }
  }
  throw failure;
}

/** Loads a snapshot (or genesis) in a new anvil and replays the log behind it. Gives the number of replayed blocks. */
async function restoreFrom(state: LedgerState, snapshot: SnapshotFile | undefined): Promise<number> {
  const { options } = state;
  const loaded = snapshot === undefined ? undefined : readSnapshot(snapshot);
  const height = loaded?.meta.height ?? 0;
  const first = state.blocks[0];
  if (first !== undefined && first.height > height + 1) {
    throw new MillraceError('no-usable-snapshot', {
      actor: 'host',
      message: `The log starts at block ${first.height}, and no readable snapshot reaches it`,
      values: { firstLoggedHeight: first.height, snapshotHeight: height },
      hint: 'Check the disk, then restore the data folder from a copy, or start a new chain with "millrace reset --yes".',
    });
  }
  await state.anvil?.kill();
  state.anvil = await startAnvil({
    ipcPath: join(options.runtimeFolder, 'anvil.ipc'),
    genesisFile: join(options.folder, 'genesis.json'),
    cacheFolder: join(options.folder, 'anvil'),
    logFile: join(options.folder, 'anvil.log'),
    chainId: options.chainId,
    gasLimit: options.gasLimit,
    isolate: options.isolate,
  });
  const { request } = state.anvil.connection;
  if (loaded !== undefined) await request('anvil_loadState', [loaded.state], 600_000);
  const block = (await request('eth_getBlockByNumber', ['latest', false])) as MinedBlock;
  if (loaded !== undefined && (Number(block.number) !== height || block.hash !== loaded.meta.hash)) {
    throw mismatch(height, block.hash, loaded.meta.hash);
  }
  state.head = headOf(block);
  state.warpOffsetSeconds = loaded?.meta.warpOffsetSeconds ?? 0;
  state.snapshotHeight = height;
  const tail = state.blocks.filter((record) => record.height > height);
  for (const record of tail) await mineRecord(state, record);
  return tail.length;
}

async function takeSnapshot(state: LedgerState): Promise<void> {
  const { number: height, hash } = currentHead(state);
  if (height === state.snapshotHeight) return;
  const startedMs = performance.now();
  const { folder, chainId, log } = state.options;
  // Without historical states: they are 25 times the size, and reads are served at the newest block only.
  const dump = (await currentAnvil(state).connection.request('anvil_dumpState', [false], 600_000)) as string;
  const neededAbove = writeSnapshot(folder, { chainId, height, hash, warpOffsetSeconds: state.warpOffsetSeconds }, dump);
  state.snapshotHeight = height;
  state.wal.rotate(height + 1);
  state.wal.deleteThrough(neededAbove);
  state.blocks = state.blocks.filter((record) => record.height > neededAbove);
  const tookMs = Math.round(performance.now() - startedMs);
  log.info('snapshot-written', { height, hash, sizeBytes: dump.length / 2, tookMs });
}

function snapshotIsDue(state: LedgerState, minimum: number): boolean {
  const { number } = currentHead(state);
  const blocks = number - state.snapshotHeight;
  if (blocks === 0) return false;
  return blocks >= Math.max(minimum, number * SNAPSHOT_SHARE) || state.wal.sizeBytes() >= state.options.snapshotBytes;
}

function headOf(block: MinedBlock): Head {
  return { number: Number(block.number), hash: block.hash, timestamp: Number(block.timestamp), nextBaseFeePerGas: nextBaseFee(block) };
}

/** The base fee of the next block (EIP-1559: elasticity 2, at most an eighth up or down). */
function nextBaseFee(block: MinedBlock): bigint {
  const [base, used, target] = [BigInt(block.baseFeePerGas), BigInt(block.gasUsed), BigInt(block.gasLimit) / 2n];
  if (used > target) {
    const rise = (base * (used - target)) / target / 8n;
    return base + (rise > 0n ? rise : 1n);
  }
  return base - (base * (target - used)) / target / 8n;
}

function currentAnvil(state: LedgerState): AnvilProcess {
  if (state.anvil === undefined) throw new MillraceError('anvil-gone', { actor: 'chain', message: 'anvil is not running' });
  return state.anvil;
}

function currentHead(state: LedgerState): Head {
  if (state.head === undefined) throw new MillraceError('anvil-gone', { actor: 'chain', message: 'the chain is not restored yet' });
  return state.head;
}

function mismatch(height: number, got: string, expected: string): MillraceError {
  return new MillraceError('replay-mismatch', {
    actor: 'chain',
    message: `Block ${height} came out as ${got}, expected ${expected}`,
    values: { height, got, expected },
    hint: 'Was the chain written by another anvil release, or by somebody else than the supervisor? Restore the data folder from a copy, or "millrace reset --yes".',
  });
}
