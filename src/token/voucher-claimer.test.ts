import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Hex } from 'viem';
import { MillraceError } from '../errors.ts';
import { readChannel } from './channels.ts';
import { type ClaimerOptions, startClaimer } from './voucher-claimer.ts';
import { type ChannelsNetwork, startChannelsNetwork, startPaidServer, TEST_INTERVAL } from './voucher-fixture.ts';
import type { Payer } from './voucher-payer.ts';
import type { Receiver } from './voucher-receiver.ts';

const PRICE = 1_000n;
let network: ChannelsNetwork;
let rounds = 0;
before(async () => {
  network = await startChannelsNetwork();
});
after(() => network?.stop());

/** A receiver that sold one request to each payer (accounts 2 to 2 + count - 1), in channels of their own. */
async function soldTo(count: number): Promise<{ receiver: Receiver; payers: Payer[]; ids: Hex[]; close(): Promise<void> }> {
  rounds += 1;
  // Every round has its own withdrawal delay, and so its own channels.
  const withdrawDelaySeconds = 3 * TEST_INTERVAL + rounds;
  const receiver = await network.receiver({ folder: join(network.folder, `receiver-${rounds}`), withdrawDelaySeconds });
  const server = await startPaidServer(receiver, { amount: PRICE });
  const payers: Payer[] = [];
  for (let index = 0; index < count; index += 1) {
    const payer = await network.payer(2 + index, { folder: join(network.folder, `payer-${rounds}-${index}`) });
    assert.equal((await payer.fetch(`${server.url}/x`, { amountMax: PRICE })).status, 200);
    payers.push(payer);
  }
  await server.stop();
  return {
    receiver,
    payers,
    ids: payers.map((payer) => payer.channels()[0]?.key as Hex),
    async close() {
      for (const payer of payers) await payer.close();
      await receiver.close();
    },
  };
}

function claimerOf(receiver: Receiver, more: Partial<ClaimerOptions> = {}) {
  return startClaimer({ client: network.client, receiver, sender: network.sender(1), intervalSeconds: TEST_INTERVAL, ...more });
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 240_000;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new MillraceError('test-timeout', { actor: 'host', message: `Waited for minutes: ${what}` });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const claimedOf = async (channelId: Hex) => (await readChannel(network.client, channelId)).totalClaimed;

test('nothing is claimed before the interval is over, then all channels in one transaction', async () => {
  const { receiver, ids, close } = await soldTo(3);
  const claimer = claimerOf(receiver);
  try {
    await network.warp(TEST_INTERVAL - 60);
    await network.warp(1);
    for (const id of ids) assert.equal(await claimedOf(id), 0n);
    const events = { name: 'channels', event: 'Claimed' } as const;
    const before = (await network.client.events(events)).length;
    await network.warp(60);
    await until('all are claimed', async () => (await claimedOf(ids[2] as Hex)) === PRICE);
    const claims = (await network.client.events(events)).slice(before);
    assert.equal(claims.length, 3);
    assert.equal(new Set(claims.map(({ transactionHash }) => transactionHash)).size, 1);
  } finally {
    await claimer.stop();
    await close();
  }
});

test('after claims were paid out it calls back, and what fails there undoes no claim', async () => {
  const { receiver, ids, close } = await soldTo(2);
  const seen: bigint[] = [];
  const claimer = claimerOf(receiver, {
    batchMax: 1,
    async afterSettlement() {
      seen.push(await claimedOf(ids[0] as Hex), await claimedOf(ids[1] as Hex));
      throw new MillraceError('test-timeout', { actor: 'host', message: 'What comes after is out of order' });
    },
  });
  try {
    assert.equal((await claimer.claimNow()).transactions.length, 2);
    assert.deepEqual(seen, [PRICE, PRICE], 'once for the round, after its claims');
    assert.equal((await claimer.claimNow()).transactions.length, 0);
    assert.equal(seen.length, 2, 'nothing was paid, so nothing is said');
  } finally {
    await claimer.stop();
    await close();
  }
});

test('at the risk threshold it claims at once', async () => {
  const { receiver, ids, close } = await soldTo(2);
  const careless = claimerOf(receiver, { riskThreshold: 2n * PRICE + 1n });
  await network.warp(1);
  await careless.stop();
  assert.equal(await claimedOf(ids[0] as Hex), 0n);
  const claimer = claimerOf(receiver, { riskThreshold: 2n * PRICE });
  try {
    await until('both are claimed', async () => (await claimedOf(ids[1] as Hex)) === PRICE);
  } finally {
    await claimer.stop();
    await close();
  }
});

test('a withdrawal makes it claim that channel at once, also one that began while nobody watched', async () => {
  const { receiver, payers, ids, close } = await soldTo(3);
  const [first, second, third] = ids as [Hex, Hex, Hex];
  await payers[0]?.requestClose(first);
  let claimer = claimerOf(receiver);
  try {
    await until('the first is claimed', async () => (await claimedOf(first)) === PRICE);
    assert.equal(await claimedOf(second), 0n);
    const asked = await payers[1]?.requestClose(second);
    await until('the second is claimed', async () => (await claimedOf(second)) === PRICE);
    assert.equal(await claimedOf(third), 0n);
    // Claimed once: starting again and again claims nothing more, and the payer gets the rest.
    await claimer.stop();
    claimer = claimerOf(receiver);
    assert.ok(asked !== undefined);
    await assert.rejects(payers[1]?.finishClose(second) as Promise<void>, { code: 'withdraw-delay-not-elapsed' });
    await network.warp(3 * TEST_INTERVAL + rounds + 60);
    await payers[1]?.finishClose(second);
    assert.deepEqual(await readChannel(network.client, second), { balance: PRICE, totalClaimed: PRICE, withdrawal: undefined });
    await assert.rejects(payers[1]?.finishClose(second) as Promise<void>, { code: 'no-withdrawal-pending' });
  } finally {
    await claimer.stop();
    await close();
  }
});

test('a receiver that slept through a withdrawal loses that channel, and still claims the others', async () => {
  const { receiver, payers, ids, close } = await soldTo(3);
  const lost = ids[1] as Hex;
  await payers[1]?.requestClose(lost);
  await network.warp(3 * TEST_INTERVAL + rounds + 60);
  await payers[1]?.finishClose(lost);
  const claimer = claimerOf(receiver);
  try {
    const { channels } = await claimer.claimNow();
    assert.equal(channels, 2);
    assert.deepEqual(await Promise.all(ids.map(claimedOf)), [PRICE, 0n, PRICE]);
    assert.equal((await claimer.claimNow()).channels, 0);
  } finally {
    await claimer.stop();
    await close();
  }
});

test('a sender of neither the receiver nor its authorizer is not started', async () => {
  const { receiver, close } = await soldTo(1);
  assert.throws(() => claimerOf(receiver, { sender: network.sender(3) }), { code: 'claimer-not-authorised' });
  await close();
});
