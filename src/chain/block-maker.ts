import { randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import type { Clock } from '../clock.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Head, Ledger } from './ledger.ts';
import type { SignedTransaction } from './raw-transaction.ts';
import { hex } from './rpc-policy.ts';
import { type AccountState, createTransactionQueue, type TransactionQueue } from './transaction-queue.ts';

/** The one that decides order, time and randomness of every block, and the only road to the ledger. */
export interface BlockMaker {
  /** The newest complete block: durable, mined and checked. */
  head(): Head;
  /** Wall clock + this = protocol time, seconds. */
  warpOffsetSeconds(): number;
  /** Takes a transaction for one of the next blocks. @throws transaction-refused, disk-full */
  submit(transaction: SignedTransaction): Promise<void>;
  /** The nonce that the sender's next transaction should have, counting what waits. */
  nextNonce(sender: Hex): Promise<number>;
  /** A read; waits while anvil is being restored. @throws anvil-refused, anvil-timeout, chain-stopped */
  read(method: string, params: readonly unknown[]): Promise<unknown>;
  /** Moves protocol time forward by whole seconds, in one block. */
  warp(seconds: number): Promise<Head>;
  snapshot(): Promise<Head>;
  /** Resolves at the first complete block with at least this number. */
  headReached(number: number): Promise<Head>;
  /** Ends after the block in the making. */
  stop(): Promise<void>;
  /** Resolves when it has ended: with nothing after `stop`, with the error that it could not go on from otherwise. */
  ended: Promise<MillraceError | undefined>;
}

/** What a block maker needs. */
export interface BlockMakerOptions {
  ledger: Ledger;
  clock: Clock;
  log: Logger;
  /** Unix time in milliseconds. */
  wallClockMs?: () => number;
  gasLimit: bigint;
  idleSeconds: number;
  /** What the process starts with; the ledger's own unless the clock stood still while the chain was down. */
  warpOffsetSeconds: number;
}

/** Transactions that arrive within this time of the first one share its block. */
const GATHER_MS = 2;
const TRANSACTIONS_PER_BLOCK_MAX = 2_000;
const RESTORE_ATTEMPTS = 5;
const RESTORE_BACKOFF_MS = 200;
const DISK_RETRY_MS = 1_000;
const SNAPSHOT_AT_STOP_BLOCKS = 50;
const SNAPSHOT_RETRY_MS = 60_000;
const COINBASE_BYTES = 20;

interface MakerState extends BlockMakerOptions {
  queue: TransactionQueue;
  /** What clients see. The ledger's own head runs ahead of it within a block and falls behind it within a restore. */
  published: Head;
  warps: { seconds: number; resolve: (head: Head) => void }[];
  snapshots: { resolve: (head: Head) => void; reject: (error: Error) => void }[];
  snapshotsPausedUntilMs: number;
  headWaiters: Set<{ number: number; resolve: (head: Head) => void }>;
  blocked: MillraceError | undefined;
  stopping: boolean;
  wake: () => void;
  woken: Promise<void>;
  lastBlockMs: number;
  /** Pending while anvil is away. */
  available: Promise<void>;
  makeAvailable: () => void;
  anvilLost: boolean;
  /** Resolves when the loop has ended. */
  closed: Promise<void>;
  close: () => void;
}

/** Starts making blocks on an open ledger. */
export function startBlockMaker(options: BlockMakerOptions): BlockMaker {
  const state: MakerState = {
    ...options,
    queue: createTransactionQueue(options.clock),
    published: options.ledger.head(),
    warps: [],
    snapshots: [],
    snapshotsPausedUntilMs: 0,
    headWaiters: new Set(),
    blocked: undefined,
    stopping: false,
    wake: () => {},
    woken: Promise.resolve(),
    lastBlockMs: options.clock.nowMs(),
    available: Promise.resolve(),
    makeAvailable: () => {},
    anvilLost: false,
    closed: Promise.resolve(),
    close: () => {},
  };
  state.closed = new Promise((resolve) => {
    state.close = resolve;
  });
  renewWake(state);
  watchAnvil(state);
  const ended = run(state);
  return {
    head: () => state.published,
    warpOffsetSeconds: () => state.warpOffsetSeconds,
    submit: (transaction) => submit(state, transaction),
    async nextNonce(sender) {
      const { nonce } = await accountAt(state.published, sender, (method, params) => read(state, method, params));
      return state.queue.nextNonce(sender, nonce);
    },
    read: (method, params) => read(state, method, params),
    warp: (seconds) => asked(state, (resolve) => state.warps.push({ seconds, resolve })),
    snapshot: () => asked(state, (resolve, reject) => state.snapshots.push({ resolve, reject })),
    headReached: (number) => headReached(state, number),
    async stop() {
      state.stopping = true;
      state.wake();
      await ended;
    },
    ended,
  };
}

async function run(state: MakerState): Promise<MillraceError | undefined> {
  let failure: MillraceError | undefined;
  try {
    while (!state.stopping) {
      if (state.anvilLost) await restoreAnvil(state);
      try {
        if (!(await makeBlockIfDue(state))) await waitForWork(state);
      } catch (error) {
        await overcome(state, toMillraceError(error));
      }
    }
  } catch (error) {
    failure = toMillraceError(error);
    state.log.error('chain-failed', { code: failure.code, reason: failure.message });
  }
  state.stopping = true;
  state.makeAvailable();
  state.close();
  if (failure === undefined && !state.anvilLost && state.ledger.snapshotIsDue(SNAPSHOT_AT_STOP_BLOCKS)) {
    // Only so that the next start is quick; being killed here loses nothing.
    await takeSnapshot(state).catch((error) => state.log.warn('snapshot-failed', { reason: String(error) }));
  }
  return failure;
}

/** Errors after which the chain can go on: anvil went away, or the disk is full. */
async function overcome(state: MakerState, error: MillraceError): Promise<void> {
  if (error.code === 'anvil-gone' || error.code === 'anvil-timeout') {
    loseAnvil(state);
  } else if (error.code === 'disk-full') {
    if (state.blocked === undefined) state.log.error('disk-full', { reason: error.message });
    state.blocked = error;
    await state.clock.sleep(DISK_RETRY_MS);
  } else {
    throw error;
  }
}

/** Mines one block if somebody waits for it or the chain was idle long enough; gives whether it did anything. */
async function makeBlockIfDue(state: MakerState): Promise<boolean> {
  const { ledger, clock } = state;
  let transactions: SignedTransaction[] = [];
  if (state.queue.size() > 0) {
    await clock.sleep(GATHER_MS);
    transactions = await selectTransactions(state);
  }
  const isIdle = clock.nowMs() - state.lastBlockMs >= state.idleSeconds * 1000;
  const isDue = transactions.length > 0 || state.warps.length > 0 || isIdle;
  if (isDue) await makeBlock(state, transactions);
  const isAsked = state.snapshots.length > 0;
  if (isAsked || (ledger.snapshotIsDue() && clock.nowMs() >= state.snapshotsPausedUntilMs)) await takeSnapshot(state);
  return isDue || isAsked;
}

async function makeBlock(state: MakerState, transactions: SignedTransaction[]): Promise<void> {
  const warps = state.warps.splice(0);
  const { timestamp, warpOffsetSeconds } = nextTime(state, warps);
  const coinbase: Hex = `0x${randomBytes(COINBASE_BYTES).toString('hex')}`;
  const settle = () => {
    const number = state.published.number + 1;
    for (const { resolve } of warps) state.headWaiters.add({ number, resolve });
    state.warpOffsetSeconds = warpOffsetSeconds;
    state.blocked = undefined;
  };
  try {
    await state.ledger.mine({ timestamp, coinbase, warpOffsetSeconds, transactions: transactions.map(({ raw }) => raw) });
  } catch (error) {
    // In the log it is a block, whatever happens to anvil; before that it is nothing, and is tried again.
    if (error instanceof MillraceError && error.code === 'disk-full') state.warps.unshift(...warps);
    else settle();
    throw error;
  }
  settle();
  publish(state, state.ledger.head());
}

/** A snapshot that cannot be written costs nothing but a longer replay: the log has everything. */
async function takeSnapshot(state: MakerState): Promise<void> {
  const waiting = state.snapshots.splice(0);
  try {
    await state.ledger.snapshot();
    for (const { resolve } of waiting) resolve(state.published);
  } catch (error) {
    for (const { reject } of waiting) reject(error as Error);
    if (!(error instanceof MillraceError) || error.code !== 'snapshot-failed') throw error;
    state.log.error('snapshot-failed', { reason: error.message });
    state.snapshotsPausedUntilMs = state.clock.nowMs() + SNAPSHOT_RETRY_MS;
  }
}

/** Protocol time of the next block: wall clock + offset, never below the block before. Equal times are allowed. */
function nextTime(state: MakerState, warps: MakerState['warps']): { timestamp: number; warpOffsetSeconds: number } {
  const wallSeconds = Math.floor((state.wallClockMs ?? Date.now)() / 1000);
  const seconds = warps.reduce((sum, warp) => sum + warp.seconds, 0);
  const now = Math.max(state.published.timestamp, wallSeconds + state.warpOffsetSeconds);
  // A wall clock that was set back must not swallow a warp.
  const warpOffsetSeconds = seconds === 0 ? state.warpOffsetSeconds : now + seconds - wallSeconds;
  return { timestamp: now + seconds, warpOffsetSeconds };
}

async function selectTransactions(state: MakerState): Promise<SignedTransaction[]> {
  const senders = state.queue.senders();
  const arrivals = state.queue.arrivals();
  // Straight to anvil: a read that waits for a lost anvil would wait for this loop.
  const accounts = await Promise.all(senders.map((sender) => accountAt(state.published, sender, state.ledger.request)));
  return state.queue.select(new Map(senders.map((sender, index) => [sender, accounts[index] as AccountState])), {
    // What came while the accounts were read waits with those of its senders that are not known here.
    arrivalsMax: arrivals,
    gasLimit: state.gasLimit,
    baseFeePerGas: state.published.nextBaseFeePerGas,
    transactionsMax: TRANSACTIONS_PER_BLOCK_MAX,
  });
}

async function submit(state: MakerState, transaction: SignedTransaction): Promise<void> {
  if (state.blocked !== undefined) throw state.blocked;
  const account = await accountAt(state.published, transaction.sender, (method, params) => read(state, method, params));
  state.queue.add(transaction, account);
  state.wake();
}

async function accountAt(head: Head, address: Hex, request: Ledger['request']): Promise<AccountState> {
  const at = hex(head.number);
  const [nonce, balance] = await Promise.all([request('eth_getTransactionCount', [address, at]), request('eth_getBalance', [address, at])]);
  return { nonce: Number(nonce), balance: BigInt(balance as Hex) };
}

async function read(state: MakerState, method: string, params: readonly unknown[] = []): Promise<unknown> {
  for (let attempt = 1; ; attempt += 1) {
    await state.available;
    if (state.stopping) throw new MillraceError('chain-stopped', { actor: 'chain', message: 'The chain is shutting down' });
    try {
      return await state.ledger.request(method, params);
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'anvil-gone' || attempt === RESTORE_ATTEMPTS) throw error;
      loseAnvil(state);
    }
  }
}

function headReached(state: MakerState, number: number): Promise<Head> {
  if (state.published.number >= number) return Promise.resolve(state.published);
  return asked(state, (resolve) => state.headWaiters.add({ number, resolve }));
}

/** A promise that the loop settles, or that fails when the loop ends first. */
async function asked(state: MakerState, ask: (resolve: (head: Head) => void, reject: (error: Error) => void) => void): Promise<Head> {
  if (!state.stopping) {
    const answer = new Promise<Head>(ask);
    state.wake();
    const head = await Promise.race([answer, state.closed]);
    if (head !== undefined) return head;
  }
  throw new MillraceError('chain-stopped', { actor: 'chain', message: 'The chain is shutting down' });
}

function publish(state: MakerState, head: Head): void {
  state.published = head;
  state.lastBlockMs = state.clock.nowMs();
  for (const waiter of state.headWaiters) {
    if (waiter.number > head.number) continue;
    state.headWaiters.delete(waiter);
    waiter.resolve(head);
  }
}

async function waitForWork(state: MakerState): Promise<void> {
  const sleeping = new AbortController();
  const idleMs = Math.max(0, state.lastBlockMs + state.idleSeconds * 1000 - state.clock.nowMs());
  const idle = state.clock.sleep(idleMs, sleeping.signal).catch(() => {});
  await Promise.race([state.woken, idle]);
  sleeping.abort();
  renewWake(state);
}

function renewWake(state: MakerState): void {
  state.woken = new Promise((resolve) => {
    state.wake = resolve;
  });
}

function watchAnvil(state: MakerState): void {
  const anvil = state.ledger.anvil();
  void anvil.exited.then(() => {
    if (!state.stopping && state.ledger.anvil() === anvil) loseAnvil(state);
  });
}

function loseAnvil(state: MakerState): void {
  if (state.anvilLost) return;
  state.anvilLost = true;
  state.available = new Promise((resolve) => {
    state.makeAvailable = resolve;
  });
  state.log.warn('anvil-lost', { height: state.published.number });
  state.wake();
}

async function restoreAnvil(state: MakerState): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await state.ledger.restore();
      break;
    } catch (error) {
      const failure = toMillraceError(error);
      if (attempt === RESTORE_ATTEMPTS || !['anvil-gone', 'anvil-timeout', 'anvil-start-failed'].includes(failure.code)) throw failure;
      await state.clock.sleep(RESTORE_BACKOFF_MS * 2 ** attempt);
    }
  }
  state.anvilLost = false;
  watchAnvil(state);
  publish(state, state.ledger.head());
  state.makeAvailable();
}
