import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { zeroAddress } from 'viem';
import { createTabs } from '../../inference/serving/tab.ts';
import type { Credit, Payer, PaymentRequest } from '../../token/index.ts';
import { createMinerPurse, type TabLease } from './miner-purse.ts';
import { createMinerTrust } from './miner-trust.ts';

const PRICE = 1_000n;
/** A miner that has earned nothing is paid a quarter of it ahead: 40 requests. */
const MAX = 160n * PRICE;
const FIRST = MAX / 4n;
const DAY_MS = 86_400_000;
const CHANNEL = `0x${'11'.repeat(32)}` as const;
const never = new AbortController().signal;

/** What a miner says it has charged in all, after a payment for `cumulative`; the truth is `charged`. */
type Claim = (said: { charged: bigint; cumulative: bigint; signedMax: bigint }) => bigint;

/**
 * A purse and its miner: the tabs are a miner's own, the channel between them is kept in numbers. The miner takes a payment that stands on what it
 * says was charged, and shows that number when it stands on another one; as on chain, it holds the highest voucher that it has seen.
 */
function purseAndMiner(options: { max?: bigint; nowMs?: () => number; claim?: Claim } = {}) {
  const { max = MAX, nowMs } = options;
  const tabs = createTabs(nowMs);
  const seen = { charged: 0n, signedMax: 0n, payments: 0, opened: 0 };
  let known = 0n;
  const credit = (amount: bigint, cumulative: bigint): Credit => ({
    channelId: CHANNEL,
    payer: zeroAddress,
    charged: amount,
    chargedCumulative: cumulative,
    isRepeat: false,
    header: '',
    async settle(delivered) {
      seen.charged -= amount - delivered;
      return '';
    },
  });
  const payer = {
    async payment({ amountMax: amount, cumulativeMax }: PaymentRequest) {
      const cumulative = known + amount;
      if (cumulative > (cumulativeMax?.(CHANNEL) ?? cumulative)) throw new RangeError('more than is signed');
      seen.signedMax = cumulative > seen.signedMax ? cumulative : seen.signedMax;
      return {
        channelId: CHANNEL,
        amount,
        cumulative,
        header: String(cumulative),
        abandon() {},
        async finish({ status }: { status: number }) {
          if (status === 201) known = cumulative;
          else known = options.claim?.({ ...seen, cumulative }) ?? seen.charged;
          return { kind: status === 201 ? 'charged' : 'corrected' };
        },
      };
    },
  } as unknown as Payer;
  const send = async (path: string, init: RequestInit = {}) => {
    await new Promise(setImmediate);
    const headers = new Headers(init.headers);
    const token = headers.get('millrace-tab') ?? '';
    if (init.method === 'DELETE') {
      await tabs.end(token).catch(() => {});
      return new Response(null, { status: 204 });
    }
    const amount = BigInt(path.split('=')[1] as string);
    const base = options.claim?.({ ...seen, cumulative: 0n }) ?? seen.charged;
    if (headers.get('payment-signature') !== String(base + amount))
      return new Response('', { status: 402, headers: { 'payment-required': 'x' } });
    seen.charged = base + amount;
    seen.payments += 1;
    const tab = await tabs.open(credit(amount, base + amount), token);
    if (tab.token !== token) seen.opened += 1;
    return Response.json({ tab: tab.token }, { status: 201 });
  };
  const trust = createMinerTrust(max, nowMs);
  return { seen, tabs, trust, purse: createMinerPurse({ payer, send, trust, max, nowMs }) };
}

test('whatever a miner says and takes, what was signed for it and not earned stays below a quarter of the most and a hundredth of its earnings', async () => {
  const step = fc.record({
    kind: fc.constantFrom('lease', 'settle', 'forfeit', 'broken', 'wait'),
    amount: fc.bigInt(1n, 3n * PRICE),
    share: fc.bigInt(0n, 100n),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), fc.infiniteStream(fc.nat(100)), async (steps, lies) => {
      let nowMs = 0;
      // It claims anything that the payer's own signature bears out.
      const claim: Claim = ({ signedMax }) => (signedMax * BigInt(lies.next().value as number)) / 100n;
      const { purse, seen } = purseAndMiner({ nowMs: () => nowMs, claim });
      const leases: { lease: TabLease; amount: bigint }[] = [];
      let earned = 0n;
      for (const { kind, amount, share } of steps) {
        if (kind === 'lease') {
          const gone = new AbortController();
          const asked = purse.lease(amount, gone.signal).then(
            (lease) => leases.push({ lease, amount }),
            () => {},
          );
          for (let turns = 0; turns < 12; turns += 1) await new Promise(setImmediate);
          gone.abort();
          await asked;
        } else if (kind === 'wait') nowMs += Number(share) * 60_000;
        else {
          const taken = leases.splice(Number(share) % (leases.length || 1), 1)[0];
          if (taken === undefined) continue;
          const worth = (taken.amount * share) / 100n;
          if (kind === 'broken') taken.lease.broken();
          else {
            taken.lease[kind](worth);
            earned += worth;
          }
        }
        const forgiven = (FIRST * BigInt(nowMs)) / BigInt(DAY_MS);
        assert.ok(seen.signedMax - earned <= FIRST + earned / 100n + forgiven, `${seen.signedMax} signed, ${earned} earned`);
      }
    }),
    { numRuns: 60 },
  );
});

test('a burst is paid with one voucher for all that wait, as far as is allowed; who waits is served in order', async () => {
  const { purse, seen, tabs } = purseAndMiner();
  const served: number[] = [];
  let [underWay, most] = [0, 0];
  const ask = async (index: number) => {
    const lease = await purse.lease(PRICE, never);
    served.push(index);
    const hold = tabs.find(lease.token).hold(PRICE);
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise(setImmediate);
    underWay -= 1;
    hold.settle(PRICE / 2n);
    lease.settle(PRICE / 2n);
    assert.ok(seen.signedMax <= FIRST + ((BigInt(served.length) * PRICE) / 2n) * 2n);
  };
  await Promise.all(Array.from({ length: 500 }, (_, index) => ask(index)));
  assert.deepEqual(
    served,
    Array.from({ length: 500 }, (_, index) => index),
  );
  assert.ok(most > 30 && most <= 40, `${most} under way`);
  assert.equal(seen.opened, 1, 'one tab, which is filled again and again');
  assert.ok(seen.payments < 60, `${seen.payments} payments`);
});

test('there is room as long as more may be paid ahead, and who waits for it may go away', async () => {
  const { purse } = purseAndMiner();
  assert.ok(purse.hasRoom(PRICE));
  const leases = await Promise.all(Array.from({ length: 40 }, () => purse.lease(PRICE, never)));
  assert.equal(purse.hasRoom(PRICE), false);
  const gone = new AbortController();
  const left = purse.lease(PRICE, gone.signal);
  const waiting = purse.lease(PRICE, never);
  gone.abort(new RangeError('gone'));
  await assert.rejects(left, /gone/);
  leases[0]?.settle(0n);
  (await waiting).settle(PRICE);
  assert.ok(purse.hasRoom(PRICE));
});

test('what is earned lets more be paid ahead, up to the most; a miner that serves is paid for many requests at once', async () => {
  const { purse, trust, seen, tabs } = purseAndMiner();
  for (let request = 0; request < 20_000; request += 1) {
    const lease = await purse.lease(PRICE, never);
    tabs.find(lease.token).hold(PRICE).settle(PRICE);
    lease.settle(PRICE);
  }
  assert.equal(trust.room({ left: trust.ahead, held: 0n }) + trust.ahead, MAX);
  assert.ok(seen.payments < 700, `${seen.payments} payments`);
});

test('a request that costs more than a new miner is trusted with is paid alone; one above the most is not', async () => {
  const { purse } = purseAndMiner();
  const dear = 100n * PRICE;
  const first = await purse.lease(dear, never);
  assert.equal(purse.hasRoom(dear), false, 'not two of them');
  first.settle(90n * PRICE);
  (await purse.lease(dear, never)).forfeit(0n);
  assert.equal(purse.hasRoom(dear), false, 'nor one more after it was taken for nothing');
  assert.equal(purse.hasRoom(MAX + 1n), false);
  await assert.rejects(purse.lease(MAX + 1n, never), { code: 'purse-too-small' });
});

test('what a miner took for nothing is forgiven in days, and no faster', async () => {
  let nowMs = 0;
  const { purse } = purseAndMiner({ nowMs: () => nowMs });
  const taken = await Promise.all(Array.from({ length: 40 }, () => purse.lease(PRICE, never)));
  for (const lease of taken) lease.broken();
  assert.equal(purse.hasRoom(1n), false);
  await assert.rejects(purse.lease(1n, never), { code: 'purse-spent' });
  nowMs = DAY_MS / 40;
  assert.deepEqual([purse.hasRoom(PRICE), purse.hasRoom(PRICE + 1n)], [true, false]);
  (await purse.lease(PRICE, never)).settle(PRICE);
  nowMs += DAY_MS;
  assert.ok(purse.hasRoom(30n * PRICE));
});

test('callers who leave in the middle of their streams do not use up what an honest miner is trusted with', async () => {
  const { purse, tabs, seen } = purseAndMiner();
  for (let request = 0; request < 400; request += 1) {
    const lease = await purse.lease(PRICE, never);
    // It was paid for a tenth of it; the gateway does not know, and counts all of it.
    tabs
      .find(lease.token)
      .hold(PRICE)
      .settle(PRICE / 10n);
    lease.forfeit(PRICE / 10n);
    await new Promise(setImmediate);
  }
  assert.ok(seen.opened > 2, 'a new tab shows what came back of the one before');
  assert.equal(purse.hasRoom(PRICE), true);
});

test('a tab that ended unused, with most of what a miner is trusted with on it, hinders nobody: the miner is asked what it gave back', async () => {
  let nowMs = 0;
  const { purse, tabs } = purseAndMiner({ nowMs: () => nowMs });
  const dear = 39n * PRICE;
  const first = await purse.lease(dear, never);
  tabs.find(first.token).hold(dear).settle(PRICE);
  first.settle(PRICE);
  nowMs += 61_000;
  await tabs.sweep();
  (await purse.lease(dear - PRICE, never)).broken();
  const again = await purse.lease(dear, never);
  tabs.find(again.token).hold(dear).settle(dear);
  again.settle(dear);
});
