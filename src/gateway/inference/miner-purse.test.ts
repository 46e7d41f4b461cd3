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
    (await purse.lease(PRICE)).settle(PRICE);
    for (const tab of tabs.slice(before)) assert.ok(tab <= 8n * PRICE || tab * 100n <= earned, `${tab} ahead, ${earned} earned`);
    earned += PRICE;
  }
  assert.equal(tabs[0], 8n * PRICE);
  assert.ok((tabs.at(-1) as bigint) > 50n * PRICE, 'a miner that serves is paid for many requests at once');
});

test('a miner that broke a tab is paid one request ahead until it has earned again; a caller and a miner together drain nothing', async () => {
  const { tabs, purse } = purseAndTabs();
  for (let request = 0; request < 2_000; request++) (await purse.lease(PRICE)).settle(PRICE);
  for (let lie = 0; lie < 2; lie++) (await purse.lease(PRICE)).broken(); // the open tab, and the one that may be opened ahead
  const opened = tabs.length;
  for (let lie = 0; lie < 5; lie++) (await purse.lease(PRICE)).broken();
  assert.deepEqual(tabs.slice(opened), Array(5).fill(PRICE));
});

test('a tab is worth what the rules allow at most, and one request at least', async () => {
  const { tabs, purse } = purseAndTabs({ requests: 4n, amountMax: 2_500n });
  await purse.lease(PRICE);
  await purse.lease(9_000n);
  assert.deepEqual(tabs, [2_500n, 9_000n]);
});
