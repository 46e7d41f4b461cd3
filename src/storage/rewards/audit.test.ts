import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { zeroHash } from 'viem';
import { developmentSigner, type Sender } from '../../chain/index.ts';
import { allowTokens, backOperator, createVoucherCodec, depositToRails, withdrawFromRails } from '../../token/index.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode, TOKEN, until } from '../market/market-fixture.ts';
import { putFile } from '../orders/file-put.ts';
import { type AuditReport, auditEvents, auditNetwork, openReplays, requireSame } from './audit.ts';
import { streamEvents } from './audit-events.ts';
import type { ReplayEvent } from './replay.ts';
import { claimRewards, rewardEvents, rewardRecordOf, rewardRetrieval, rewardsOf } from './rewards.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
};

let market: TestMarket;
const nodes: TestNode[] = [];
let operatorIds: bigint[];
let retriever: Sender;

before(async () => {
  market = await startTestMarket();
  for (let index = 0; index < 3; index += 1) nodes.push(await market.startNode({ policy: POLICY }));
  operatorIds = nodes.map(({ operatorId }) => operatorId);
  retriever = market.senderOf(developmentSigner(35, 'dev'));
});
after(async () => {
  retriever.close();
  await market.stop();
});

async function putOne(): Promise<void> {
  const path = join(market.folder, `${randomBytes(6).toString('hex')}.bin`);
  await writeFile(path, randomBytes(200_000));
  const { signer, sender, folder } = market.user;
  const options = { client: market.client, signer, sender, folder, source: { path }, public: true };
  await market.hurry(putFile({ ...options, shape: { needed: 2, count: 3 }, periods: 20 }));
}

async function provePeriods(count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    await market.provePeriod(await market.nextPeriod(), operatorIds);
  }
}

/** Pays a retriever by a channel in the network's token, and settles: a part of it is burnt. */
async function payRetriever(): Promise<void> {
  const { client, user } = market;
  const channels = client.address('channels');
  const token = client.address('networkToken');
  const config = {
    payer: user.signer.address,
    payerAuthorizer: user.signer.address,
    receiver: retriever.address,
    receiverAuthorizer: retriever.address,
    token,
    withdrawDelay: 1000,
    salt: zeroHash,
  };
  await allowTokens(client, { sender: user.sender, token, spender: channels, amount: 3n * TOKEN });
  await user.sender.send({ contract: 'channels', functionName: 'deposit', args: [config, 3n * TOKEN, channels, '0x'] });
  const codec = createVoucherCodec(client.chainId, channels);
  for (const total of [TOKEN + 7n, 2n * TOKEN + 11n]) {
    const voucher = { channelId: codec.channelId(config), maxClaimableAmount: total };
    const { signature } = await codec.sign(user.signer, voucher);
    const claim = { voucher: { channel: config, maxClaimableAmount: total }, signature, totalClaimed: total };
    await retriever.send({ contract: 'channels', functionName: 'claimAndSettle', args: [[claim]] });
    await rewardRetrieval({ client, sender: retriever, receiver: retriever.address });
  }
  await retriever.send({ contract: 'channels', functionName: 'refund', args: [config, TOKEN / 3n] });
}

/** Whatever else moves money: deposits, withdrawals, backers, slashes, deals of their own, misses. */
async function moveMoney(): Promise<void> {
  const { client, user } = market;
  await depositToRails(client, { sender: user.sender, token: 'network', amount: 3n * TOKEN + 1n });
  await withdrawFromRails(client, { sender: user.sender, token: 'network', amount: TOKEN - 1n });
  await backOperator(client, { sender: user.sender, operatorId: operatorIds[0] as bigint, amount: TOKEN + 3n });
  const owner = nodes[1] as TestNode;
  await owner.owner.send({ contract: 'stakeVault', functionName: 'requestExit', args: [owner.operatorId, TOKEN] });
  await owner.owner.send({ contract: 'stakeVault', functionName: 'setLockLimit', args: [owner.operatorId, 9_000n * TOKEN] });
  await market.putRandom({ copies: 2 });
}

function differing({ groups }: AuditReport): string[] {
  return groups.filter(({ differences }) => differences > 0).map(({ group }) => group);
}

test('an honest network is what its events make it, in every group; and rewards are paid as they are shown', async () => {
  const { client } = market;
  await until('all asks are posted', async () => (await client.read('orderBook', 'askCount')) >= 3n);
  await putOne();
  await provePeriods(4);
  await payRetriever();
  await moveMoney();
  // One provider misses a period: its row of proofs begins anew.
  await nodes[2]?.stop();
  const missed = await market.nextPeriod();
  await market.provePeriod(missed, operatorIds.slice(0, 2));
  await nodes[2]?.restart({ policy: POLICY });
  await provePeriods(3);
  const record = await rewardRecordOf(client, operatorIds[0] as bigint);
  assert.ok(record.earned > 0n);
  const shown = await rewardsOf(client, record.beneficiary);
  const events = await rewardEvents(client, record.beneficiary, 1000);
  assert.equal(
    events.reduce((sum, { amount }) => sum + amount, 0n),
    shown.earned,
    'what is shown is the sum of its events',
  );
  await market.warpTo((await client.now()) + 1200n);
  const owner = nodes[0]?.owner as Sender;
  const paid = await claimRewards(owner);
  assert.ok(paid.amount > 0n && paid.amount < shown.earned);
  const report = await auditNetwork({ client });
  assert.deepEqual(
    report.groups.map(({ group, first }) => [group, first]),
    ['token', 'rails', 'stake', 'files', 'channels', 'rewards'].map((group) => [group, undefined]),
  );
  assert.ok(report.groups.every(({ events: seen, checks }) => seen > 0 && checks > 0));
  requireSame(report);
  assert.deepEqual(differing(await auditNetwork({ client, fromBlock: report.block / 2n })), []);
});

/** What of each event counts, by group. `drop`: the event itself does. */
const COUNTS: Record<string, Record<string, string[]>> = {
  token: { 'networkToken.Transfer': ['value'], 'emission.Minted': ['amount'] },
  rails: {
    'rails.Deposited': ['amount'],
    'rails.Withdrawn': ['amount'],
    'rails.Transferred': ['amount'],
    'rails.RailOpened': ['amount', 'interval', 'escrow'],
    'rails.RailSettled': ['paid', 'refunded', 'provenSeconds', 'settledTo'],
    'rails.RailClosed': ['fee', 'refunded'],
  },
  stake: {
    'stakeVault.StakeDeposited': ['amount'],
    'stakeVault.Backed': ['amount'],
    'stakeVault.Locked': ['amount'],
    'stakeVault.Unlocked': ['amount'],
  },
  files: { 'rails.Transferred': ['amount'], 'orderBook.BidPosted': ['bidId'] },
  channels: {
    'channels.Deposited': ['amount', 'newBalance'],
    'channels.Claimed': ['claimAmount', 'newTotalClaimed'],
    'channels.Settled': ['amount'],
    'channels.FeeBurnt': ['amount'],
    'channels.Refunded': ['amount'],
  },
  rewards: {
    'rewards.PointsAdded': ['fees', 'reliabilityBps', 'reward', 'period'],
    'rewards.RetrievalRewarded': ['fees', 'reward'],
    'rewards.RewardClaimed': ['amount'],
    'possession.Proven': [],
    'possession.Missed': [],
    'storageMarket.DealActivated': ['firstPeriod'],
    'storageMarket.DealOpened': ['pricePerPeriod'],
    'channels.FeeBurnt': ['amount'],
  },
};

test('one forged number or one event that was left out is found, in every group', async () => {
  const { client } = market;
  const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
  const names = (await openReplays(client)).flatMap(({ handlers }) => Object.keys(handlers));
  const events: ReplayEvent[] = [];
  for await (const event of streamEvents(client, { names, fromBlock: 0n, toBlock })) events.push(event);
  const auditOf = async (list: readonly ReplayEvent[], group: string) => {
    const replays = (await openReplays(client)).filter((replay) => replay.group === group);
    return differing(await auditEvents(list, { replays, client, toBlock }));
  };
  let forged = 0;
  for (const [group, kinds] of Object.entries(COUNTS)) {
    assert.deepEqual(await auditOf(events, group), []);
    for (const [kind, fields] of Object.entries(kinds)) {
      const places = events.flatMap(({ module, name }, index) => (`${module}.${name}` === kind ? [index] : []));
      // One in the middle of those that matter to the group.
      const relevant = placesThatMatter(events, places, { group, kind });
      const place = relevant[Math.floor(relevant.length / 2)];
      assert.ok(place !== undefined, `no ${kind} in this history`);
      const event = events[place] as ReplayEvent;
      const without = events.filter((_, index) => index !== place);
      assert.deepEqual(await auditOf(without, group), [group], `${kind} left out of ${group}`);
      for (const field of fields) {
        const value = BigInt(event.args[field] as bigint | number);
        for (const changed of [value + 1n, value - 1n]) {
          if (changed < (field === 'interval' ? 1n : 0n)) continue;
          const list = events.with(place, { ...event, args: { ...event.args, [field]: changed } });
          assert.deepEqual(await auditOf(list, group), [group], `${kind}.${field} ${value} as ${changed} in ${group}`);
          forged += 1;
        }
      }
    }
  }
  assert.ok(forged > 50, `${forged} forgeries`);
});

/** Transfers of other accounts are no matter of files, deals without a burnt fee none of rewards. */
function placesThatMatter(events: readonly ReplayEvent[], places: number[], { group, kind }: { group: string; kind: string }): number[] {
  const files = new Set(events.filter(({ name }) => name === 'BidPosted').map(({ args }) => String(args.file).toLowerCase()));
  const isFile = (account: unknown) => files.has(String(account).toLowerCase());
  const opened = events.filter(({ name, args }) => name === 'DealOpened' && isFile(args.client));
  const deals = new Set(opened.map(({ args }) => args.dealId));
  return places.filter((place) => {
    const { args } = events[place] as ReplayEvent;
    if (group === 'files' && kind === 'rails.Transferred') return isFile(args.to) || isFile(args.from);
    return !kind.startsWith('storageMarket.Deal') || deals.has(args.dealId);
  });
}

test('a difference is an error of the chain with its numbers', () => {
  const first = { group: 'stake', what: 'stake of operator 1', expected: '5', got: '6', blockNumber: 9n };
  const groups = [{ group: 'stake', events: 3, checks: 2, differences: 1, first }];
  assert.throws(() => requireSame({ block: 9n, groups }), { code: 'audit-difference', actor: 'chain' });
});

test('a proof is given the gas that its listener may take, whatever it takes when it is estimated', async () => {
  const { client } = market;
  const proofs = await client.events({ name: 'possession', event: 'Proven' });
  assert.ok(proofs.length > 8);
  for (const { transactionHash } of proofs) {
    const [{ gas }, { gasUsed }] = await Promise.all([
      client.public.getTransaction({ hash: transactionHash }),
      client.public.getTransactionReceipt({ hash: transactionHash }),
    ]);
    // The listener takes 70,000 as usual, 410,000 at its worst, and is always given 500,000 (ProofHooks).
    assert.ok(gas - gasUsed > 410_000n, `${transactionHash}: ${gas} given, ${gasUsed} used`);
  }
});
