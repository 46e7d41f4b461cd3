import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Address, concat, encodeFunctionData, type Hex, pad, zeroHash } from 'viem';
import {
  abis,
  type ChainClient,
  type ChainSupervisor,
  connectChain,
  createSender,
  deployNetwork,
  developmentSigner,
  nodeKeyConsent,
  type Sender,
  startChainSupervisor,
} from '../chain/index.ts';
import { silentLogger } from '../log.ts';
import {
  approveMeter,
  backerPositions,
  backingOf,
  backOperator,
  claim,
  claimable,
  depositStake,
  depositToRails,
  distributeIncome,
  fetchBackerIncome,
  finishExit,
  meterAllowance,
  pendingExits,
  railOf,
  railsBalance,
  railsBooks,
  readIncome,
  reduceRail,
  requestBackerExit,
  requestExit,
  settleRail,
  stakeOf,
  syncVotes,
  tokenAddress,
  tokenBalance,
  topUpRail,
  vaultBooks,
  withdrawEarnings,
  withdrawFromRails,
} from './index.ts';

const ONE = 10n ** 18n;
/** Proves all time to whoever asks (`measure`), and forwards any other call: word 0 is the address, the rest is the call. */
const METER = '0x3660641460255760203603806020' + '5f375f5f825f5f5f355af16023573d5f5f3e3d5ffd5b005b6044358060205260243590035f5260405ff3';

const folder = mkdtempSync(join(tmpdir(), 'millrace-token-'));
let chain: ChainSupervisor;
let client: ChainClient;
let owner: Sender;
let backer: Sender;
let operatorId: bigint;

before(async () => {
  const accounts = [0, 1, 2].map((index) => ({ address: developmentSigner(index, 'dev').address, balance: 10n ** 24n }));
  chain = await startChainSupervisor({ folder: join(folder, 'chain'), accounts });
  const manifest = await deployNetwork({
    rpcUrl: chain.rpcUrl,
    name: 'token-test',
    profile: 'dev',
    signer: developmentSigner(0, 'dev'),
    folder,
    manifestPath: join(folder, 'network.json'),
    embedded: true,
  });
  client = await connectChain({ rpcUrl: chain.rpcUrl, manifest });
  const faucet = openSender(0);
  owner = openSender(1);
  backer = openSender(2);
  for (const to of [owner.address, backer.address]) {
    await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [to, 1_000n * ONE] });
  }
  operatorId = await registerOperator();
});

after(async () => {
  for (const sender of senders) sender.close();
  await chain?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const senders: Sender[] = [];
function openSender(index: number): Sender {
  const sender = createSender({ client, signer: developmentSigner(index, 'dev'), journalFolder: join(folder, 'keys'), log: silentLogger });
  senders.push(sender);
  return sender;
}

/** The owner's key is its node key and its beneficiary too. */
async function registerOperator(): Promise<bigint> {
  const signer = developmentSigner(1, 'dev');
  const signature = await nodeKeyConsent(client, signer, owner.address);
  const args = [owner.address, owner.address, zeroHash, 'https://127.0.0.1:1', zeroHash, signature] as const;
  await owner.send({ contract: 'operators', functionName: 'register', args });
  return client.read('operators', 'operatorOfNodeKey', [owner.address]);
}

const refusedWith = (code: string) => (error: { code?: string }) => error.code === code;

test('stake comes in, votes, and leaves after the delay', async () => {
  await depositStake(client, { sender: owner, operatorId, amount: 100n * ONE, key: 'stake-1' });
  await depositStake(client, { sender: owner, operatorId, amount: 100n * ONE, key: 'stake-1' }); // the same effect, once
  assert.equal(await backOperator(client, { sender: backer, operatorId, amount: 60n * ONE }), 60n * ONE);
  await syncVotes({ sender: backer, operatorId });
  assert.deepEqual(await stakeOf(client, { operatorId }), {
    operatorId,
    own: { active: 100n * ONE, exiting: 0n },
    backers: { active: 60n * ONE, exiting: 0n, activeShares: 60n * ONE, generation: 0n },
    locked: 0n,
    slashable: 130n * ONE,
    available: 130n * ONE,
    disputes: 0n,
    votes: { holder: owner.address, units: 160n * ONE },
  });
  assert.deepEqual(await backingOf(client, { operatorId, backer: backer.address }), { shares: 60n * ONE, amount: 60n * ONE });

  await distributeIncome(client, { sender: owner, operatorId, token: 'network', amount: 16n * ONE });
  const { backer: amount, takeBps } = await readIncome(client, { operatorId, token: 'network', backer: backer.address });
  // By shares, rounded down twice.
  const exact = (16n * ONE * BigInt(10_000 - takeBps) * 60n) / (10_000n * 160n);
  assert.ok(amount <= exact && exact - amount <= 2n, `${amount} of ${exact}`);
  const income = [{ token: tokenAddress(client, 'network'), amount }];
  const position = { operatorId, shares: 60n * ONE, amount: 60n * ONE, ownStake: 100n * ONE, takeBps };
  assert.deepEqual(await backerPositions(client, { backer: backer.address }), [{ ...position, income }]);
  assert.deepEqual(await fetchBackerIncome(client, { sender: backer, operatorId }), income);
  assert.deepEqual(await backerPositions(client, { backer: backer.address }), [{ ...position, income: [] }]);

  const own = await requestExit({ sender: owner, operatorId, amount: 40n * ONE });
  const backers = await requestBackerExit({ sender: backer, operatorId, shares: 60n * ONE });
  const pending = await pendingExits(client, { operatorId });
  assert.deepEqual(
    pending.map(({ exitId, who, amount }) => ({ exitId, who, amount })),
    [
      { exitId: own.exitId, who: owner.address, amount: 40n * ONE },
      { exitId: backers.exitId, who: backer.address, amount: 60n * ONE },
    ],
  );
  assert.deepEqual(await pendingExits(client, { requester: backer.address }), [pending[1]]);
  await assert.rejects(finishExit({ sender: owner, exitId: own.exitId }), refusedWith('exit-too-early'));
  await chain.warp(Number(own.withdrawableFrom - (await client.now())) + 60);
  assert.equal(await finishExit({ sender: backer, exitId: own.exitId }), 40n * ONE);
  assert.equal(await finishExit({ sender: backer, exitId: backers.exitId }), 60n * ONE);
  assert.deepEqual(await pendingExits(client), []);
  assert.equal(await tokenBalance(client, { token: 'network', account: backer.address }), 1_000n * ONE + amount);
  assert.deepEqual(await vaultBooks(client), { held: 60n * ONE, owed: 60n * ONE });
});

test('what the vault refuses says why', async () => {
  await assert.rejects(requestExit({ sender: backer, operatorId, amount: 1n }), refusedWith('not-operator-owner'));
  await assert.rejects(requestExit({ sender: owner, operatorId, amount: 61n * ONE }), refusedWith('insufficient-unlocked'));
  await assert.rejects(stakeOf(client, { operatorId: 99n }), refusedWith('unknown-operator'));
  await assert.rejects(finishExit({ sender: owner, exitId: 99n }), refusedWith('unknown-exit'));
  assert.equal(await claimable(client, { account: owner.address }), 0n);
  await assert.rejects(claim({ sender: owner }), refusedWith('zero-amount'));
});

test('a rail pays for proven time, is topped up and reduced, and its earnings are withdrawn', async () => {
  const payer = backer;
  const meter = (await payer.send({ to: null, data: `0x60${((METER.length - 2) / 2).toString(16)}8060095f395ff3${METER.slice(2)}` }))
    .contractAddress as Address;
  const token = 'network';
  await depositToRails(client, { sender: payer, token, amount: 500n, key: 'deposit' });
  await approveMeter(client, { sender: payer, meter, token, allowance: 400n });
  const open = encodeFunctionData({
    abi: abis.rails,
    functionName: 'open',
    args: [payer.address, operatorId, tokenAddress(client, token), 1n, 1, 10, 400n],
  });
  await callThrough(meter, open);
  assert.equal(await meterAllowance(client, { payer: payer.address, meter, token }), 0n);
  const railId = await client.read('rails', 'railCount');
  const start = await client.now();
  await callThrough(meter, encodeFunctionData({ abi: abis.rails, functionName: 'begin', args: [railId, start, 0n] }));
  await topUpRail({ sender: payer, railId, amount: 100n });
  await reduceRail({ sender: payer, railId, amount: 50n });
  assert.equal((await railOf(client, { railId })).end, start + 450n);
  await chain.warp(1_000);
  assert.deepEqual(await settleRail({ sender: owner, railId }), { paid: 450n, refunded: 0n });
  assert.deepEqual(await settleRail({ sender: owner, railId }), { paid: 0n, refunded: 0n });
  const rail = await railOf(client, { railId });
  assert.deepEqual(
    [rail.operatorId, rail.payer, rail.paid, rail.refunded, rail.escrow, rail.provenSeconds, rail.closed],
    [operatorId, payer.address, 450n, 50n, 0n, 450n, false],
  );
  assert.deepEqual(await railsBooks(client, { token }), { held: 500n, owed: 500n });
  assert.equal(await withdrawEarnings(client, { sender: owner, token }), 450n);
  assert.equal(await withdrawEarnings(client, { sender: owner, token }), 0n);
  await withdrawFromRails(client, { sender: payer, token, amount: 20n, to: owner.address });
  assert.equal(await railsBalance(client, { token, account: payer.address }), 30n);
  assert.deepEqual(await railsBooks(client, { token }), { held: 30n, owed: 30n });

  async function callThrough(through: Address, call: Hex): Promise<void> {
    await payer.send({ to: through, data: concat([pad(client.address('rails')), call]) });
  }
});

test('the stable token is found by name, an unknown one is refused', async () => {
  await owner.send({ contract: 'stableToken', functionName: 'mint', args: [owner.address, 5n] });
  await depositToRails(client, { sender: owner, token: 'stable', amount: 5n, account: backer.address });
  assert.equal(await railsBalance(client, { token: 'stable', account: backer.address }), 5n);
  assert.throws(() => tokenAddress(client, 'gold' as never), refusedWith('unknown-token'));
  await assert.rejects(withdrawFromRails(client, { sender: owner, token: 'stable', amount: 5n }), refusedWith('insufficient-balance'));
});
