import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Payer } from '../../token/index.ts';
import { createMinerPurse } from './miner-purse.ts';

const PRICE = 1_000n;

/** A purse at a miner that opens every tab, and what the tabs were worth. */
function purseAndTabs(rules = { requests: 256n, amountMax: 10n ** 18n }) {
  const tabs: bigint[] = [];
  const fetchTab = async (path: string) => {
    tabs.push(BigInt(path.split('=')[1] as string));
    return Response.json({ tab: `tab ${tabs.length}` }, { status: 201 });
  };
  const payer = { fetch: fetchTab } as unknown as Payer;
  return { tabs, purse: createMinerPurse({ payer, send: async () => new Response('{}'), rules }) };
}

test('a tab is never more than eight requests, or a hundredth of what the miner has earned, which is what channels burn of it', async () => {
  const { tabs, purse } = purseAndTabs();
  let earned = 0n;
  for (let request = 0; request < 6_000; request++) {
    const before = tabs.length;
    (await purse.lease(PRICE, 0)).settle(PRICE);
    for (const tab of tabs.slice(before)) assert.ok(tab <= 8n * PRICE || tab * 100n <= earned, `${tab} ahead, ${earned} earned`);
    earned += PRICE;
  }
  assert.equal(tabs[0], 8n * PRICE);
  assert.ok((tabs.at(-1) as bigint) > 50n * PRICE, 'a miner that serves is paid for many requests at once');
});

test('a miner that broke a tab is paid one request ahead until it has earned again; a caller and a miner together drain nothing', async () => {
  const { tabs, purse } = purseAndTabs();
  for (let request = 0; request < 2_000; request++) (await purse.lease(PRICE, 0)).settle(PRICE);
  for (let lie = 0; lie < 2; lie++) (await purse.lease(PRICE, 0)).broken(); // the open tab, and the one that may be opened ahead
  const opened = tabs.length;
  for (let lie = 0; lie < 5; lie++) (await purse.lease(PRICE, 0)).broken();
  assert.deepEqual(tabs.slice(opened), Array(5).fill(PRICE));
});

test('a tab is worth what the rules allow at most, and one request at least', async () => {
  const { tabs, purse } = purseAndTabs({ requests: 4n, amountMax: 2_500n });
  await purse.lease(PRICE, 0);
  await purse.lease(9_000n, 0);
  assert.deepEqual(tabs, [2_500n, 9_000n]);
});

test('more requests at once than may be paid ahead wait for one another; a miner never has more tabs open than it keeps', async () => {
  const tabs = new Map<string, { left: bigint; holds: number; isEnding: boolean }>();
  let [opened, mostOpen] = [0, 0];
  const payer = {
    async fetch(path: string) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      assert.ok(tabs.size < 4, 'a fifth tab is refused');
      tabs.set(`tab ${++opened}`, { left: BigInt(path.split('=')[1] as string), holds: 0, isEnding: false });
      mostOpen = Math.max(mostOpen, tabs.size);
      return Response.json({ tab: `tab ${opened}` }, { status: 201 });
    },
  } as unknown as Payer;
  const end = (token: string) => {
    const tab = tabs.get(token);
    if (tab?.isEnding && tab.holds === 0) tabs.delete(token);
  };
  const send = async (_path: string, init: RequestInit = {}) => {
    await new Promise((resolve) => setTimeout(resolve, 3));
    const token = new Headers(init.headers).get('millrace-tab') as string;
    const tab = tabs.get(token);
    if (tab !== undefined) tab.isEnding = true;
    end(token);
    return new Response('{}');
  };
  const purse = createMinerPurse({ payer, send, rules: { requests: 256n, amountMax: 10n ** 18n } });
  let [underWay, most] = [0, 0];
  const ask = async () => {
    const lease = await purse.lease(PRICE, 20_000);
    const tab = tabs.get(lease.token) as { left: bigint; holds: number; isEnding: boolean };
    assert.ok(tab.left >= PRICE && !tab.isEnding, 'the miner takes it');
    tab.left -= PRICE;
    tab.holds += 1;
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise((resolve) => setTimeout(resolve, 2));
    underWay -= 1;
    tab.left += PRICE / 2n;
    tab.holds -= 1;
    end(lease.token);
    lease.settle(PRICE / 2n);
  };
  await Promise.all(Array.from({ length: 500 }, ask));
  assert.ok(mostOpen > 1 && most > 8, `${most} under way, ${mostOpen} tabs`);
});

test('who may not wait is told at once that the purse is full, and the next one finds room when a request has ended', async () => {
  const { purse } = purseAndTabs();
  const leases = await Promise.all(Array.from({ length: 32 }, () => purse.lease(PRICE, 0)));
  await assert.rejects(purse.lease(PRICE, 0), { code: 'purse-full' });
  leases.at(-1)?.settle(0n);
  (await purse.lease(PRICE, 0)).settle(PRICE);
});
