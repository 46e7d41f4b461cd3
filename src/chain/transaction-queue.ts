import type { Hex } from 'viem';
import type { Clock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import type { SignedTransaction } from './raw-transaction.ts';

/** An account at the newest block. */
export interface AccountState {
  nonce: number;
  balance: bigint;
}

/** How much may wait, and how long. */
export interface QueueLimits {
  transactionsMax: number;
  transactionsPerSenderMax: number;
  sizeBytesMax: number;
  /** A transaction that could not be mined for this long is forgotten. */
  expirySeconds: number;
}

/** What a block may hold. */
export interface BlockLimits {
  gasLimit: bigint;
  baseFeePerGas: bigint;
  transactionsMax: number;
  /** Only the first so many that ever arrived; whatever came later waits. */
  arrivalsMax: number;
}

/** Transactions that wait for a block, by sender and nonce. It is memory only: nothing in it was promised to anybody. */
export interface TransactionQueue {
  /** @throws transaction-refused with Ethereum's wording */
  add(transaction: SignedTransaction, account: AccountState): void;
  /** Senders of everything that waits. */
  senders(): Hex[];
  /** How many ever arrived. */
  arrivals(): number;
  /** The nonce after those of the sender's transactions that can be mined in sequence. */
  nextNonce(sender: Hex, accountNonce: number): number;
  /**
   * The transactions of the next block, in the order of arrival and of each sender's nonces. Everything that it gives
   * can be paid for at the given accounts, so that the block includes it. They stay until a later call finds them mined.
   */
  select(accounts: ReadonlyMap<Hex, AccountState>, block: BlockLimits): SignedTransaction[];
  size(): number;
}

interface Waiting {
  transaction: SignedTransaction;
  arrival: number;
  sinceMs: number;
}

/** A replacement must pay this much more, as in Ethereum's nodes. */
const REPLACEMENT_BUMP_PERCENT = 10n;

/** The limits of the embedded chain. */
export const QUEUE_LIMITS: QueueLimits = {
  transactionsMax: 8_192,
  transactionsPerSenderMax: 1_024,
  sizeBytesMax: 64 << 20,
  expirySeconds: 600,
};

/** An empty queue. */
export function createTransactionQueue(clock: Clock, limits: QueueLimits = QUEUE_LIMITS): TransactionQueue {
  const bySender = new Map<Hex, Map<number, Waiting>>();
  let count = 0;
  let sizeBytes = 0;
  let arrivals = 0;
  const forget = (sender: Hex, nonce: number) => {
    const waiting = bySender.get(sender);
    const entry = waiting?.get(nonce);
    if (waiting === undefined || entry === undefined) return;
    waiting.delete(nonce);
    if (waiting.size === 0) bySender.delete(sender);
    count -= 1;
    sizeBytes -= entry.transaction.sizeBytes;
  };
  const forgetExpired = () => {
    const oldest = clock.nowMs() - limits.expirySeconds * 1000;
    for (const [sender, waiting] of bySender) for (const [nonce, entry] of waiting) if (entry.sinceMs < oldest) forget(sender, nonce);
  };
  const makeRoom = (transaction: SignedTransaction) => {
    const isFull = () => count >= limits.transactionsMax || sizeBytes + transaction.sizeBytes > limits.sizeBytesMax;
    if (isFull()) forgetExpired();
    if (isFull()) throw refused('txpool is full', { waiting: count, limit: limits.transactionsMax });
  };
  return {
    add(transaction, account) {
      const { sender, nonce } = transaction;
      if (nonce < account.nonce) throw refused(`nonce too low: next nonce ${account.nonce}, tx nonce ${nonce}`);
      if (nonce - account.nonce >= limits.transactionsPerSenderMax) {
        throw refused(`nonce too high: next nonce ${account.nonce}, tx nonce ${nonce}, window ${limits.transactionsPerSenderMax}`);
      }
      if (transaction.costMax > account.balance) {
        throw refused(`insufficient funds for gas * price + value: balance ${account.balance}, tx cost ${transaction.costMax}`);
      }
      const former = bySender.get(sender)?.get(nonce);
      if (former?.transaction.hash === transaction.hash) throw refused('already known');
      if (former !== undefined && !paysMore(transaction, former.transaction)) throw refused('replacement transaction underpriced');
      if (former === undefined) makeRoom(transaction);
      forget(sender, nonce);
      const waiting = bySender.get(sender) ?? new Map<number, Waiting>();
      bySender.set(sender, waiting);
      waiting.set(nonce, { transaction, arrival: former?.arrival ?? arrivals++, sinceMs: clock.nowMs() });
      count += 1;
      sizeBytes += transaction.sizeBytes;
    },
    senders: () => [...bySender.keys()],
    arrivals: () => arrivals,
    nextNonce(sender, accountNonce) {
      const waiting = bySender.get(sender);
      let nonce = accountNonce;
      while (waiting?.has(nonce)) nonce += 1;
      return nonce;
    },
    select(accounts, block) {
      forgetExpired();
      return fit(inOrder(bySender, accounts, block, forget), block);
    },
    size: () => count,
  };
}

/** What can be mined now: by arrival, but never before the same sender's transaction with the nonce before. */
function inOrder(
  bySender: ReadonlyMap<Hex, ReadonlyMap<number, Waiting>>,
  accounts: ReadonlyMap<Hex, AccountState>,
  block: BlockLimits,
  forget: (sender: Hex, nonce: number) => void,
): SignedTransaction[] {
  const ready: { transaction: SignedTransaction; turn: number }[] = [];
  for (const [sender, waiting] of bySender) {
    const account = accounts.get(sender);
    if (account === undefined) continue;
    for (const nonce of [...waiting.keys()]) if (nonce < account.nonce) forget(sender, nonce);
    let funds = account.balance;
    let turn = -1;
    for (let nonce = account.nonce; ; nonce += 1) {
      const entry = waiting.get(nonce);
      if (entry === undefined || entry.arrival >= block.arrivalsMax) break;
      if (entry.transaction.maxFeePerGas < block.baseFeePerGas || entry.transaction.costMax > funds) break;
      funds -= entry.transaction.costMax;
      turn = Math.max(turn, entry.arrival);
      ready.push({ transaction: entry.transaction, turn });
    }
  }
  return ready
    .sort((left, right) => left.turn - right.turn || left.transaction.nonce - right.transaction.nonce)
    .map(({ transaction }) => transaction);
}

/** The longest prefix that fits in the block; the rest waits for the next one. */
function fit(ready: SignedTransaction[], block: BlockLimits): SignedTransaction[] {
  let gas = 0n;
  const last = ready.findIndex((transaction, index) => {
    gas += transaction.gas;
    return gas > block.gasLimit || index >= block.transactionsMax;
  });
  return last === -1 ? ready : ready.slice(0, last);
}

function paysMore(transaction: SignedTransaction, former: SignedTransaction): boolean {
  const bumped = (fee: bigint) => (fee * (100n + REPLACEMENT_BUMP_PERCENT) + 99n) / 100n;
  return transaction.maxFeePerGas >= bumped(former.maxFeePerGas) && transaction.maxPriorityFeePerGas >= bumped(former.maxPriorityFeePerGas);
}

function refused(reason: string, values: Record<string, number> = {}): MillraceError {
  return new MillraceError('transaction-refused', { actor: 'caller', message: reason, values: { reason, ...values } });
}
