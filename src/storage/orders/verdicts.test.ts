import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { developmentSigner } from '../../chain/index.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode, TOKEN, until } from '../market/market-fixture.ts';
import { type Checker, openChecker } from './checker.ts';
import { putFile } from './file-put.ts';

const orders = { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 };

let market: TestMarket;
let provider: TestNode;
const checkers: TestNode[] = [];
/** What the provider answers to those who read content. */
let content: (request: Request) => Response | undefined = () => undefined;

before(async () => {
  market = await startTestMarket();
  const { client, faucet } = market;
  for (let index = 0; index < 3; index += 1) {
    let checker: Checker | undefined;
    const intercept = (request: Request) => (new URL(request.url).pathname.startsWith('/v1/checks/') ? checker?.fetch(request) : undefined);
    const node = await market.startNode({ intercept, duties: ['matcher'] });
    const { sender, operatorId } = node;
    const signer = developmentSigner(11 + node.index * 2, 'dev');
    checker = await openChecker({ client, signer, sender, operatorId, log: market.log });
    checkers.push(node);
  }
  const intercept = (request: Request) => (new URL(request.url).pathname.startsWith('/ipfs/') ? content(request) : undefined);
  provider = await market.startNode({ policy: { ...TEST_POLICY, orders }, intercept });
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [provider.sender.address, TOKEN] });
  await until('the ask is posted', async () => (await client.read('orderBook', 'askCount')) === 1n);
});
after(() => market.stop());

/** Stores a file as one copy; its client falls silent as soon as the provider has all bytes. Gives the deal. */
async function putAndFallSilent(): Promise<bigint> {
  const path = join(market.folder, `${randomBytes(6).toString('hex')}.bin`);
  await writeFile(path, randomBytes(400_000));
  const { signer, sender, folder } = market.user;
  const silence = new AbortController();
  let dealId = 0n;
  const put = putFile({
    client: market.client,
    signer,
    sender,
    folder,
    source: { path },
    shape: { needed: 1, count: 1 },
    periods: 20,
    public: true,
    signal: silence.signal,
    onEvent(event) {
      if (event.kind !== 'shard' || event.step !== 'stored') return;
      dealId = event.dealId as bigint;
      silence.abort();
    },
  });
  await assert.rejects(market.hurry(put));
  return dealId;
}

test('a deal whose client is silent is acknowledged by drawn checkers, who are paid, and becomes active', async () => {
  const { client } = market;
  const dealId = await putAndFallSilent();
  await market.hurry(market.untilState(dealId, 'active'));
  assert.ok(await client.read('checkers', 'hasVerdict', [dealId]));
  const paid = await client.events({ name: 'checkers', event: 'CheckerPaid', args: { dealId } });
  assert.ok(paid.length >= 2);
  for (const { args } of paid) assert.ok(checkers.some(({ operatorId }) => operatorId === args.operatorId));
});

test('checkers do not sign for a provider that serves garbage: the deal expires', async () => {
  content = () => new Response(randomBytes(1000), { headers: { 'content-type': 'application/vnd.ipld.raw' } });
  const { client } = market;
  const dealId = await putAndFallSilent();
  const requests = () => client.events({ name: 'checkers', event: 'VerdictRequested', args: { dealId } });
  await market.hurry(until('a verdict is asked for', async () => (await requests()).length === 1));
  await market.warpTo((await client.now()) + 950n);
  await market.hurry(market.untilState(dealId, 'expired'));
  assert.equal(await client.read('checkers', 'hasVerdict', [dealId]), false);
});
