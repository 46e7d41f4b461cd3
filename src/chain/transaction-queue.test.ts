import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toHex } from 'viem';
import type { Clock } from '../clock.ts';
import type { SignedTransaction } from './raw-transaction.ts';
import { type AccountState, createTransactionQueue, QUEUE_LIMITS } from './transaction-queue.ts';

const BLOCK = { gasLimit: 60_000_000n, baseFeePerGas: 10n, transactionsMax: 100, arrivalsMax: Number.POSITIVE_INFINITY };
const RICH = { nonce: 0, balance: 10n ** 18n };
let nowMs = 0;
const clock: Clock = { nowMs: () => nowMs, sleep: () => Promise.resolve() };

function transaction(sender: number, nonce: number, change: Partial<SignedTransaction> = {}): SignedTransaction {
  const fees = { maxFeePerGas: 100n, maxPriorityFeePerGas: 0n };
  const hash = toHex(`${sender} ${nonce} ${JSON.stringify(change, (_, value) => (typeof value === 'bigint' ? `${value}` : value))}`);
  return {
    raw: '0x',
    hash,
    sender: toHex(sender, { size: 20 }),
    nonce,
    gas: 21_000n,
    costMax: 2_100_000n,
    sizeBytes: 110,
    ...fees,
    ...change,
  };
}

const accounts = (...states: AccountState[]) => new Map(states.map((state, index) => [toHex(index, { size: 20 }), state] as const));

test('whatever the order of arrival, a block has every sender’s nonces in sequence and nothing twice', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(fc.nat(2), fc.nat(8)), { selector: ([sender, nonce]) => `${sender} ${nonce}` }), (pairs) => {
      const queue = createTransactionQueue(clock);
      for (const [sender, nonce] of pairs) queue.add(transaction(sender, nonce), RICH);
      const selected = queue.select(accounts(RICH, RICH, RICH), BLOCK);
      for (const sender of [0, 1, 2]) {
        const nonces = selected.filter((entry) => entry.sender === toHex(sender, { size: 20 })).map(({ nonce }) => nonce);
        assert.deepEqual(
          nonces,
          nonces.map((_, index) => index),
        );
        assert.equal(queue.nextNonce(toHex(sender, { size: 20 }), 0), nonces.length);
        assert.ok(!pairs.some(([other, nonce]) => other === sender && nonce === nonces.length));
      }
    }),
  );
});

test('what can be mined at once keeps its order of arrival across senders', () => {
  const queue = createTransactionQueue(clock);
  const order = [transaction(1, 0), transaction(0, 0), transaction(1, 1), transaction(2, 0), transaction(0, 1)];
  for (const entry of order) queue.add(entry, RICH);
  assert.deepEqual(queue.select(accounts(RICH, RICH, RICH), BLOCK), order);
});

test('what arrives while a block is being chosen waits, so that nobody who came before is passed', () => {
  const queue = createTransactionQueue(clock);
  const early = [transaction(0, 0), transaction(1, 0)];
  for (const entry of early) queue.add(entry, RICH);
  const arrivalsMax = queue.arrivals();
  const known = accounts(RICH, RICH);
  const late = [transaction(2, 0), transaction(0, 1)];
  for (const entry of late) queue.add(entry, RICH);
  assert.deepEqual(queue.select(known, { ...BLOCK, arrivalsMax }), early);
  const mined = { ...RICH, nonce: 1 };
  assert.deepEqual(queue.select(accounts(mined, mined, RICH), { ...BLOCK, arrivalsMax: queue.arrivals() }), late);
});

test('a block takes no more than its gas and count, and the rest waits', () => {
  const queue = createTransactionQueue(clock);
  for (let nonce = 0; nonce < 5; nonce += 1) queue.add(transaction(0, nonce), RICH);
  assert.equal(queue.select(accounts(RICH), { ...BLOCK, gasLimit: 63_000n }).length, 3);
  assert.equal(queue.select(accounts(RICH), { ...BLOCK, transactionsMax: 2 }).length, 2);
  assert.equal(queue.select(accounts({ ...RICH, nonce: 3 }), BLOCK).length, 2);
  assert.equal(queue.size(), 2);
});

test('a sender’s waiting transactions are never more than it can pay for', () => {
  const queue = createTransactionQueue(clock);
  for (let nonce = 0; nonce < 5; nonce += 1) queue.add(transaction(0, nonce), RICH);
  assert.equal(queue.select(accounts({ nonce: 0, balance: 2_100_000n * 3n }), BLOCK).length, 3);
  assert.equal(queue.select(accounts(RICH), { ...BLOCK, baseFeePerGas: 101n }).length, 0);
});

test('Ethereum’s refusals have Ethereum’s words', () => {
  const queue = createTransactionQueue(clock);
  const refuses = (entry: SignedTransaction, state: AccountState, message: RegExp) =>
    assert.throws(() => queue.add(entry, state), { code: 'transaction-refused', message });
  queue.add(transaction(0, 3), RICH);
  refuses(transaction(0, 3), RICH, /^already known/);
  refuses(transaction(0, 3, { maxFeePerGas: 105n }), RICH, /^replacement transaction underpriced/);
  refuses(transaction(0, 2), { ...RICH, nonce: 3 }, /^nonce too low: next nonce 3, tx nonce 2/);
  refuses(transaction(0, 5_000), RICH, /^nonce too high/);
  refuses(transaction(0, 0), { nonce: 0, balance: 1n }, /^insufficient funds for gas \* price \+ value/);
  queue.add(transaction(0, 3, { maxFeePerGas: 110n }), RICH);
  assert.equal(queue.size(), 1);
});

test('a full queue refuses, and forgets what has waited too long', () => {
  const queue = createTransactionQueue(clock, { ...QUEUE_LIMITS, transactionsMax: 2, expirySeconds: 60 });
  queue.add(transaction(0, 1), RICH);
  queue.add(transaction(1, 1), RICH);
  assert.throws(() => queue.add(transaction(2, 0), RICH), { code: 'transaction-refused', message: 'txpool is full' });
  nowMs += 61_000;
  queue.add(transaction(2, 0), RICH);
  assert.equal(queue.size(), 1);
});
