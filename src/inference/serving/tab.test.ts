import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, type Hex, zeroAddress } from 'viem';
import type { Credit } from '../../token/index.ts';
import { lesser } from '../../units.ts';
import { createTabs, TAB_LIMITS } from './tab.ts';

const CHANNEL: Hex = `0x${'11'.repeat(32)}`;

/** The payments of one channel, as a receiver gives them, and what stayed of each once it was settled. */
function payments(channelId: Hex = CHANNEL) {
  const kept: (bigint | undefined)[] = [];
  let total = 0n;
  const pay = (amount: bigint): Credit => {
    const index = kept.push(undefined) - 1;
    total += amount;
    const settle = async (delivered: bigint) => {
      kept[index] ??= delivered;
      return '';
    };
    return { channelId, payer: zeroAddress as Address, charged: amount, chargedCumulative: total, isRepeat: false, header: '', settle };
  };
  return { kept, pay };
}

test('a payment adds to an open tab of its channel; what is used up can be claimed while the tab is open, the rest comes back at its end', async () => {
  const tabs = createTabs();
  const { kept, pay } = payments();
  const tab = await tabs.open(pay(100n));
  assert.equal(await tabs.open(pay(50n), tab.token), tab);
  assert.deepEqual([tab.left, tab.voucher, tabs.size], [150n, 150n, 1]);
  tab.hold(120n).settle(110n);
  assert.deepEqual(kept, [100n, undefined], 'the first payment is used up');
  assert.throws(() => tab.hold(41n), { code: 'tab-exhausted' });
  const last = tab.hold(40n);
  await tabs.end(tab.token);
  assert.throws(() => tab.hold(1n), { code: 'tab-exhausted' });
  last.settle(25n);
  await new Promise(setImmediate);
  assert.deepEqual(kept, [100n, 35n]);
  await assert.rejects(async () => tabs.find(tab.token), { code: 'tab-unknown' });
});

test('a payment never lands on a tab of another channel, and a repeated one adds nothing', async () => {
  const tabs = createTabs();
  const own = payments();
  const tab = await tabs.open(own.pay(100n));
  const foreign = await tabs.open(payments(`0x${'22'.repeat(32)}`).pay(70n), tab.token);
  assert.deepEqual([foreign === tab, tab.left, foreign.left], [false, 100n, 70n]);
  const again = own.pay(30n);
  await tabs.open(again, tab.token);
  assert.equal(await tabs.open({ ...again, charged: 0n, isRepeat: true }, tab.token), tab);
  assert.equal(tab.left, 130n);
});

test('tabs and payments that nobody has used up are bounded, and what is refused is given back', async () => {
  const tabs = createTabs();
  const { kept, pay } = payments();
  const first = await tabs.open(pay(1n));
  for (let open = 1; open < TAB_LIMITS.tabsPerChannelMax; open += 1) await tabs.open(pay(1n));
  await assert.rejects(tabs.open(pay(1n)), { code: 'serving-busy' });
  assert.equal(kept.at(-1), 0n);
  for (let more = 1; more < TAB_LIMITS.creditsMax; more += 1) await tabs.open(pay(1n), first.token);
  await assert.rejects(tabs.open(pay(1n), first.token), { code: 'serving-busy' });
  assert.equal(first.left, BigInt(TAB_LIMITS.creditsMax));
});

test('an idle tab ends by itself, one with a request under way does not', async () => {
  let nowMs = 0;
  const tabs = createTabs(() => nowMs);
  const { kept, pay } = payments();
  const idle = await tabs.open(pay(10n));
  const busy = await tabs.open(pay(20n));
  idle.hold(3n).settle(2n);
  const hold = busy.hold(5n);
  nowMs = TAB_LIMITS.idleMs + 1;
  await tabs.sweep();
  assert.deepEqual([tabs.size, kept], [1, [2n, undefined]]);
  hold.settle(5n);
  await tabs.close();
  assert.deepEqual(kept, [2n, 5n]);
});

test('whatever is paid, held and spent in any order: what stays of all payments is what was spent', async () => {
  const step = fc.record({ pay: fc.boolean(), amount: fc.bigInt(1n, 50n), actual: fc.bigInt(0n, 60n), isLate: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const tabs = createTabs();
      const { kept, pay } = payments();
      const tab = await tabs.open(pay(10n));
      const late: (() => void)[] = [];
      let [paid, spent] = [10n, 0n];
      for (const { pay: isPayment, amount, actual, isLate } of steps) {
        if (isPayment) {
          await tabs.open(pay(amount), tab.token);
          paid += amount;
        } else if (amount <= tab.left) {
          const hold = tab.hold(amount);
          spent += lesser(actual, amount);
          if (isLate) late.push(() => hold.settle(actual));
          else hold.settle(actual);
        } else assert.throws(() => tab.hold(amount), { code: 'tab-exhausted' });
        assert.ok(tab.left >= 0n && tab.left <= paid);
      }
      await tabs.end(tab.token);
      for (const settle of late) settle();
      await new Promise(setImmediate);
      assert.equal(
        kept.reduce((sum: bigint, one) => sum + (one as bigint), 0n),
        spent,
      );
    }),
  );
});
