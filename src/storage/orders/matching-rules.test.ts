import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type Hex, keccak256, toHex } from 'viem';
import { abis, type ChainClient, chainError, developmentSigner, type Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { approveMeter, depositToRails } from '../../token/index.ts';
import { registerOperator, startTestMarket, type TestMarket, TOKEN } from '../market/market-fixture.ts';
import { batchStart, batchTimes, NOBODY, readBookRules } from './book-rules.ts';
import { openBookView } from './book-view.ts';
import { solveMatching } from './matcher.ts';
import { type Book, checkMatching, type Matching, packAssignment, unpackAssignment } from './matching-rules.ts';
import {
  type AskOrder,
  askOrderDigest,
  type BidOrder,
  bidCostParts,
  bidOrderDigest,
  excludedHashOf,
  orderDomainOf,
  shardsHashOf,
} from './orders.ts';

let market: TestMarket;
let client: ChainClient;
let book: Book;
let batch: bigint;
const senders: Sender[] = [];

before(async () => {
  market = await startTestMarket({ idleSeconds: 3600 });
  client = market.client;
  const rules = await readBookRules(client);
  const now = await client.now();
  // A fresh batch, so that all orders are in it; time moves with transactions only, about a second each.
  batch = (now - rules.genesis) / rules.batchSeconds;
  await postAsks();
  await postBids();
  batch = ((await client.now()) - rules.genesis) / rules.batchSeconds;
  await market.warpTo(batchStart(rules, batch + 1n));
  const view = openBookView(client);
  await view.refresh();
  book = view.book();
});
after(async () => {
  for (const sender of senders) sender.close();
  await market.stop();
});

/** Five operators, two of one owner, two in one network; asks that differ in price, capacity and limits. */
async function postAsks(): Promise<void> {
  const prices = [10n, 20n, 30n, 15n, 25n, 12n];
  for (const [index, minPrice] of prices.entries()) {
    // A second deposit of one owner in the same second costs less gas than one a moment later.
    await market.warpTo((await client.now()) + 5n);
    const owner = market.senderOf(developmentSigner(10 + (index === 4 ? 3 : index) * 2, 'dev'));
    const nodeKey = developmentSigner(11 + index * 2, 'dev');
    const operatorId = await registerOperator(market, {
      owner,
      nodeKey,
      endpoint: `https://10.0.0.${index + 1}:9000`,
      transportKey: toHex(index + 1, { size: 32 }),
      index: index < 2 ? 1 : index,
    });
    owner.close();
    const order: AskOrder = {
      operatorId,
      minPrice: minPrice * TOKEN,
      collateralPerGiB: BigInt(1 + (index % 3)) * TOKEN,
      capacityBytes: index === 5 ? 1500n : 1n << 20n,
      minBytes: 1n,
      maxBytes: index === 2 ? 900n : 1n << 20n,
      minPeriods: 2,
      maxPeriods: index === 1 ? 20 : 1000,
      maxDeals: index === 0 ? 2 : 10,
      networkPrefix: toHex(index === 3 ? 0 : 1 + (index % 4), { size: 32 }),
      nonce: BigInt(index),
      expiry: (await client.now()) + 100_000n,
    };
    const signature = await nodeKey.signDigest(askOrderDigest(orderDomainOf(client), order));
    assert.equal(await client.read('orderBook', 'askDigest', [order]), askOrderDigest(orderDomainOf(client), order));
    await market.faucet.send({ contract: 'orderBook', functionName: 'postAsk', args: [order, signature] });
  }
}

async function postBids(): Promise<void> {
  const { sender, signer } = market.user;
  await depositToRails(client, { sender, token: 'network', amount: 100n * TOKEN });
  await approveMeter(client, { sender, meter: 'orderBook', token: 'network', allowance: 100n * TOKEN });
  const wishes = [
    { count: 2, maxPrice: 40n, size: 1000n, periods: 10, distinct: false, regionMax: 0, excluded: [] },
    { count: 3, maxPrice: 22n, size: 800n, periods: 10, distinct: true, regionMax: 0, excluded: [] },
    { count: 2, maxPrice: 60n, size: 500n, periods: 50, distinct: false, regionMax: 1, excluded: [3n] },
    { count: 1, maxPrice: 11n, size: 1000n, periods: 10, distinct: false, regionMax: 0, excluded: [1n] },
  ];
  const rules = await readBookRules(client);
  for (const [index, wish] of wishes.entries()) {
    const cid = toHex(randomBytes(36));
    const shards = Array.from({ length: wish.count }, () => ({
      pieceRoot: toHex(randomBytes(32)) as Hex,
      cid: toHex(randomBytes(36)) as Hex,
    }));
    const order: BidOrder = {
      client: signer.address,
      agent: NOBODY,
      contentHash: keccak256(cid),
      shardsHash: shardsHashOf(shards),
      shardSize: wish.size,
      pieceHeight: 6,
      count: wish.count,
      needed: 1,
      repairBelow: 0,
      periods: wish.periods,
      maxPrice: wish.maxPrice * TOKEN,
      collateralPerGiB: TOKEN + BigInt(index % 2),
      distinctNetworks: wish.distinct,
      regionMax: wish.regionMax,
      excludedHash: excludedHashOf(wish.excluded),
      reserve: 5n,
      bountyMax: 0n,
      challengeBudget: 7n,
      nonce: BigInt(1000 + index),
      expiry: (await client.now()) + 100_000n,
    };
    const digest = bidOrderDigest(orderDomainOf(client), order);
    assert.equal(await client.read('orderBook', 'bidDigest', [order]), digest);
    assert.equal(await client.read('orderBook', 'bidCost', [order]), bidCostParts(order, rules).total);
    const signature = await signer.signDigest(digest);
    await sender.send({ contract: 'orderBook', functionName: 'postBid', args: [order, wish.excluded, shards, cid, signature] });
  }
}

/** What the contract says of a matching: "ok" or the code of its refusal. */
async function verdictOfContract(matching: Matching): Promise<string> {
  try {
    await client.public.simulateContract({
      address: client.address('orderBook'),
      abi: abis.orderBook,
      functionName: 'submit',
      args: [batch, matching as never],
      account: market.user.signer.address,
    });
    return 'ok';
  } catch (error) {
    return chainError(error, 'submit').code;
  }
}

async function verdictOfModel(matching: Matching): Promise<string> {
  const rules = await readBookRules(client);
  try {
    checkMatching({ book, matching, times: batchTimes(rules, batch) });
    return 'ok';
  } catch (error) {
    if (error instanceof MillraceError) return error.code;
    throw error;
  }
}

/** Mostly numbers of orders that there are. */
const ids = (count: number, maxLength: number) =>
  fc.uniqueArray(fc.oneof({ weight: 12, arbitrary: fc.integer({ min: 1, max: count }) }, fc.constant(count + 1)).map(BigInt), {
    maxLength,
  });
const ascending = (left: bigint, right: bigint) => (left < right ? -1 : 1);

test('the model of the rules says of any matching what the contract says', async () => {
  const seen = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(
      ids(4, 2),
      ids(6, 6),
      fc.infiniteStream(fc.nat({ max: 6 })),
      fc.nat({ max: 19 }),
      async (bidIds, askIds, draws, oddity) => {
        const bids = oddity === 0 ? bidIds : bidIds.toSorted(ascending);
        const asks = oddity === 1 ? askIds : askIds.toSorted(ascending);
        const shards = bids.reduce((sum, bidId) => sum + (book.bids.find((bid) => bid.bidId === bidId)?.count ?? 0), 0);
        const indices = Array.from(
          { length: shards + (oddity === 2 ? 1 : 0) },
          () => (draws.next().value ?? 0) % (asks.length + (oddity === 3 ? 1 : 0) || 1),
        );
        const used = [...new Set(indices)].sort((left, right) => left - right);
        // Mostly without unused asks, which would hide everything else.
        const isTight = oddity > 4;
        const matching = isTight
          ? {
              bids,
              asks: used.map((index) => asks[index]).filter((ask) => ask !== undefined),
              assignment: packAssignment(indices.map((index) => used.indexOf(index))),
            }
          : { bids, asks, assignment: packAssignment(indices) };
        const [contract, model] = [await verdictOfContract(matching), await verdictOfModel(matching)];
        seen.set(contract, (seen.get(contract) ?? 0) + 1);
        assert.equal(
          model,
          contract,
          JSON.stringify(matching, (_, value) => (typeof value === 'bigint' ? String(value) : value)),
        );
      },
    ),
    { numRuns: 250 },
  );
  assert.ok(seen.size >= 5, `too few kinds were met: ${[...seen].join(' ')}`);
});

test('what the matcher finds for any part of the book is taken by the contract, and refused for the same reason when one shard is moved', async () => {
  const rules = await readBookRules(client);
  const times = batchTimes(rules, batch);
  await fc.assert(
    fc.asyncProperty(fc.subarray([1n, 2n, 3n, 4n], { minLength: 1 }), fc.nat(), fc.nat({ max: 5 }), async (bidIds, shard, index) => {
      const result = solveMatching({ book: { asks: book.asks, bids: book.bids.filter(({ bidId }) => bidIds.includes(bidId)) }, times });
      if (result === undefined) return;
      assert.equal(await verdictOfContract(result.matching), 'ok');
      const indices = unpackAssignment(result.matching.assignment);
      indices[shard % indices.length] = index;
      const moved = { ...result.matching, assignment: packAssignment(indices) };
      assert.equal(await verdictOfModel(moved), await verdictOfContract(moved));
    }),
    { numRuns: 60 },
  );
});

test('score and price of a submission are those of the model, and nothing worse is taken afterwards', async () => {
  const rules = await readBookRules(client);
  const result = solveMatching({ book, times: batchTimes(rules, batch) });
  assert.ok(result?.isExact);
  const outcome = checkMatching({ book, matching: result.matching, times: batchTimes(rules, batch) });
  await market.user.sender.send({ contract: 'orderBook', functionName: 'submit', args: [batch, result.matching] });
  const best = await client.read('orderBook', 'best', [batch]);
  assert.deepEqual({ score: best.score, price: best.price, sizeBytes: best.sizeBytes }, outcome);
  assert.equal(await verdictOfContract(result.matching), 'not-better');
});
