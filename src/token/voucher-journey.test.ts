import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { X402_CHANNELS } from '../chain/index.ts';
import { readChannel } from './channels.ts';
import { startClaimer } from './voucher-claimer.ts';
import { type ChannelsNetwork, startChannelsNetwork, startPaidServer, TEST_INTERVAL } from './voucher-fixture.ts';

let network: ChannelsNetwork;
before(async () => {
  network = await startChannelsNetwork();
});
after(() => network?.stop());

test('a client pays for requests, the receiver claims them in one transaction, and a hundredth of the network token is burnt', async () => {
  const { client } = network;
  assert.equal(client.address('channels'), X402_CHANNELS);
  const receiver = await network.receiver();
  const server = await startPaidServer(receiver, { amount: 1_000n });
  const payer = await network.payer(2);
  try {
    for (let count = 1; count <= 5; count += 1) {
      const answer = await payer.fetch(`${server.url}/${count}`, { amountMax: 1_000n });
      assert.equal(answer.status, 200);
      assert.equal((await answer.arrayBuffer()).byteLength, 1000);
    }
    const [channel] = payer.channels();
    assert.ok(channel !== undefined);
    assert.equal(channel.charged, 5_000n);
    assert.equal(channel.balance, 20_000n);
    await assert.rejects(payer.fetch(`${server.url}/6`, { amountMax: 999n }), { code: 'payment-too-expensive' });
    const before = await client.read('networkToken', 'balanceOf', [receiver.receiver]);
    const supply = await client.read('networkToken', 'totalSupply');
    const claimer = startClaimer({ client, receiver, sender: network.sender(1), intervalSeconds: TEST_INTERVAL });
    const report = await claimer.claimNow();
    assert.equal(report.channels, 1);
    assert.equal(report.transactions.length, 1);
    assert.deepEqual(await readChannel(client, channel.key), { balance: 20_000n, totalClaimed: 5_000n, withdrawal: undefined });
    assert.equal(await client.read('networkToken', 'balanceOf', [receiver.receiver]), before + 4_950n);
    assert.equal(await client.read('networkToken', 'totalSupply'), supply - 50n);
    assert.equal(await client.read('channels', 'feesBurntOf', [receiver.receiver]), 50n);
    assert.equal((await claimer.claimNow()).channels, 0);
    await claimer.stop();
  } finally {
    await server.stop();
    await payer.close();
    await receiver.close();
  }
});

test('a payer that meets several receivers at once opens a channel with each of them', async () => {
  const receivers = await Promise.all(
    [1, 4, 5].map((index) =>
      network.receiver({
        folder: join(network.folder, `met-${index}`),
        receiver: network.signer(index).address,
        sender: network.sender(index),
      }),
    ),
  );
  const servers = await Promise.all(receivers.map((receiver) => startPaidServer(receiver, { amount: 10n })));
  const payer = await network.payer(3);
  try {
    const answers = await Promise.all(servers.map(({ url }) => payer.fetch(`${url}/first`, { amountMax: 10n })));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200],
    );
    await Promise.all(answers.map((answer) => answer.arrayBuffer()));
    assert.equal([...payer.channels()].length, 3);
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await payer.close();
    await Promise.all(receivers.map((receiver) => receiver.close()));
  }
});

test('on a chain without channels in its genesis block the contract stands at its own address, and everything is the same', async () => {
  const elsewhere = await startChannelsNetwork({ inGenesis: false });
  try {
    const { client } = elsewhere;
    assert.notEqual(client.address('channels'), X402_CHANNELS);
    const receiver = await elsewhere.receiver();
    const server = await startPaidServer(receiver, { amount: 7n, token: client.address('stableToken') });
    const payer = await elsewhere.payer(2);
    for (const path of ['a', 'b']) assert.equal((await payer.fetch(`${server.url}/${path}`, { amountMax: 7n })).status, 200);
    const claimer = startClaimer({ client, receiver, sender: elsewhere.sender(1), intervalSeconds: TEST_INTERVAL });
    await claimer.claimNow();
    await claimer.stop();
    assert.equal(await client.read('stableToken', 'balanceOf', [receiver.receiver]), 14n);
    await server.stop();
    await payer.close();
    await receiver.close();
  } finally {
    await elsewhere.stop();
  }
});
