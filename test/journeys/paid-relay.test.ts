import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { developmentSigner, recoverAddress } from '../../src/chain/index.ts';
import { openTransportIdentity, peerFetch, type RelayPurse, type RelayTill } from '../../src/connect/index.ts';
import { type RelayWorld, relayWorld, type TestHome } from '../../src/connect/relay-fixture.ts';
import { silentLogger } from '../../src/log.ts';
import { startNode } from '../../src/node/node.ts';
import { createRelayPurse, createRelayTill, RELAY_CLAIM_SECONDS, RELAY_WITHDRAW_SECONDS } from '../../src/node/relay-payments.ts';
import { registerOperator } from '../../src/storage/market/market-fixture.ts';
import { openReceiver, type Payer, type Receiver, readChannel, startClaimer, tokenBalance } from '../../src/token/index.ts';
import { type ChannelsNetwork, startChannelsNetwork } from '../../src/token/voucher-fixture.ts';
import { freePort } from './person.ts';

/** Base units for a GiB; nothing that a power of two divides. */
const PRICE = 10n ** 18n + 7n;
const CHUNK = 1n << 20n;
const priceOf = (bytes: bigint) => (bytes * PRICE) >> 30n;

let network: ChannelsNetwork;
let world: RelayWorld;
let home: TestHome;
let folders = 0;
const open: { payers: Payer[]; receivers: Receiver[] } = { payers: [], receivers: [] };

before(async () => {
  network = await startChannelsNetwork();
  world = relayWorld({ signer: (operatorId) => developmentSigner(Number(operatorId), 'dev'), recover: recoverAddress });
  home = await world.startNode(2n, async (request) => new Response(request.body));
  for (const index of [1, 2]) await register(index, home.identity.transportKey, '');
});
after(async () => {
  await world.stop();
  for (const payer of open.payers) await payer.close();
  for (const receiver of open.receivers) await receiver.close();
  await network.stop();
});

function register(index: number, transportKey: `0x${string}`, endpoint: string): Promise<bigint> {
  const wanted = { owner: network.sender(5), nodeKey: network.signer(index), endpoint, transportKey, index };
  return registerOperator({ client: network.client, faucet: network.sender(0) }, wanted);
}

async function openTill(folder = `till-${++folders}`): Promise<{ till: RelayTill; receiver: Receiver; folder: string }> {
  const receiver = await openReceiver({
    client: network.client,
    receiver: network.signer(1).address,
    folder: join(network.folder, folder),
    tokens: ['network'],
    claimIntervalSeconds: RELAY_CLAIM_SECONDS,
    // Each till of this file has channels of its own, as relays with keys of their own have.
    withdrawDelaySeconds: RELAY_WITHDRAW_SECONDS + Number(folder.split('-')[1]),
  });
  open.receivers.push(receiver);
  return { till: createRelayTill({ client: network.client, relayOperatorId: 1n, receiver }), receiver, folder };
}

async function openPurse(folder = `purse-${++folders}`): Promise<{ purse: RelayPurse; payer: Payer; folder: string }> {
  const payer = await network.payer(2, { folder: join(network.folder, folder), depositRequests: 256n });
  open.payers.push(payer);
  return { purse: createRelayPurse({ client: network.client, payer }), payer, folder };
}

async function shut(what: Payer | Receiver): Promise<void> {
  for (const list of [open.payers, open.receivers] as (Payer | Receiver)[][]) if (list.includes(what)) list.splice(list.indexOf(what), 1);
  await what.close();
}

/** A relay and a tunnel through it. */
async function pair(till: RelayTill, purse: RelayPurse | undefined, nodePrice = PRICE) {
  const { relay, peer } = await world.startRelay(1n, { pricePerGib: PRICE, chunkBytes: Number(CHUNK) }, { till });
  const announcement = { ...peer.announcement, pricePerGib: nodePrice };
  const tunnel = await home.open({ ...peer, announcement }, { purse });
  while (relay.tunnels().length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const carrier = relay.tunnels()[0];
  assert.ok(carrier);
  const at = { endpoint: tunnel.endpoint, transportKey: home.identity.transportKey };
  const send = async (sizeBytes: number) => {
    const body = randomBytes(sizeBytes);
    const answer = await peerFetch(at, '/echo', { method: 'POST', body, headers: { connection: 'close' } });
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), body);
    while (carrier.streams() > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  return { relay, tunnel, carrier, send };
}

const earned = (receiver: Receiver) => [...receiver.channels()].reduce((sum, { charged }) => sum + charged, 0n);
const signed = (payer: Payer) => payer.channels().reduce((sum, channel) => sum + channel.signed, 0n);

test('an honest relay is paid price times bytes, to the unit, and claims it on chain', async (context) => {
  const { till, receiver } = await openTill();
  const { purse, payer } = await openPurse();
  const { relay, tunnel, carrier, send } = await pair(till, purse);
  for (const sizeBytes of [5_000_000, 1, 3_333_333]) await send(sizeBytes);
  await carrier.settle();
  const bytes = relay.bytesCarried();
  assert.equal(tunnel.bytesCarried(), bytes);
  assert.equal(carrier.unacknowledgedBytes(), 0);
  assert.ok(bytes > 2n * 8_333_334n);
  assert.equal(earned(receiver), priceOf(bytes));
  assert.equal(signed(payer), priceOf(bytes));
  const { client } = network;
  const before = await tokenBalance(client, { token: 'network', account: network.signer(1).address });
  const claimer = startClaimer({ client, receiver, sender: network.sender(1), intervalSeconds: RELAY_CLAIM_SECONDS });
  await claimer.claimNow();
  await claimer.stop();
  const channel = payer.channels()[0];
  assert.ok(channel);
  assert.equal((await readChannel(client, channel.key)).totalClaimed, priceOf(bytes));
  assert.ok(channel.config.withdrawDelay >= 3 * RELAY_CLAIM_SECONDS);
  const received = (await tokenBalance(client, { token: 'network', account: network.signer(1).address })) - before;
  const fee = priceOf(bytes) - received;
  assert.ok(fee >= priceOf(bytes) / 100n && fee <= priceOf(bytes) / 100n + 1n, 'all but the network’s fee of 1 %');
  context.diagnostic(`${bytes} bytes at ${PRICE} a GiB: ${priceOf(bytes)} paid and claimed, ${received} received, ${fee} burnt`);
  tunnel.close('test');
});

test('a relay that wants twice the price gets no voucher at all; the node leaves', async () => {
  const { till } = await openTill();
  const { purse, payer } = await openPurse();
  const { relay, tunnel, send } = await pair(till, purse, PRICE / 2n);
  await assert.rejects(send(4 << 20));
  assert.equal(await tunnel.closed, 'relay-overcharges');
  assert.equal(signed(payer), 0n);
  assert.ok(relay.bytesCarried() <= CHUNK);
});

test('a relay that takes each voucher and says that it did not is paid once', async () => {
  const { till, receiver } = await openTill();
  const { purse, payer } = await openPurse();
  let lies = 0;
  const lying: RelayTill = {
    open(guest) {
      const honest = till.open(guest);
      return {
        demand: (amount) => honest.demand(amount * 2n),
        async accept(paid) {
          await honest.accept(paid);
          lies += 1;
          const channelId = payer.channels()[0]?.key;
          const error = Object.assign(new Error('lie'), { code: 'voucher-base-wrong', values: { channelId }, actor: 'peer' });
          return receiver.demand({ amount: paid.amount, resource: { url: 'x:y' } }, error).headers['PAYMENT-REQUIRED'];
        },
      };
    },
  };
  const { relay, carrier, send } = await pair(lying, purse);
  await assert.rejects(send(4 << 20));
  assert.equal(await carrier.closed, 'relay-unpaid');
  assert.ok(lies >= 1);
  assert.ok(signed(payer) > 0n);
  assert.ok(signed(payer) <= priceOf(relay.bytesCarried()), `${signed(payer)} were signed for ${relay.bytesCarried()} bytes`);
  assert.ok(relay.bytesCarried() <= CHUNK);
});

test('a node that stops paying is cut after one chunk', async () => {
  const { till, receiver } = await openTill();
  const { purse } = await openPurse();
  let isPaying = true;
  const stingy: RelayPurse = {
    open(session) {
      const honest = purse.open(session);
      return { pay: async (owed) => (isPaying ? honest.pay(owed) : undefined) };
    },
  };
  const { relay, carrier, send } = await pair(till, stingy);
  await send(2 << 20);
  await carrier.settle();
  const paid = earned(receiver);
  assert.equal(paid, priceOf(relay.bytesCarried()));
  isPaying = false;
  await assert.rejects(send(8 << 20));
  assert.equal(await carrier.closed, 'relay-unpaid');
  assert.equal(earned(receiver), paid);
  assert.ok(priceOf(relay.bytesCarried()) - paid <= priceOf(CHUNK) + 1n);
});

test('a replayed voucher, one of another payer and one to another receiver are refused, and the tunnel is cut', async () => {
  const { till, receiver } = await openTill();
  const { purse } = await openPurse();
  const stranger = await network.payer(3, { folder: join(network.folder, 'stranger') });
  const elsewhere = await network.payer(2, { folder: join(network.folder, 'elsewhere') });
  open.payers.push(stranger, elsewhere);
  const other = await openReceiver({
    client: network.client,
    receiver: network.signer(4).address,
    folder: join(network.folder, 'other'),
    claimIntervalSeconds: RELAY_CLAIM_SECONDS,
  });
  open.receivers.push(other);
  const old: (string | undefined)[] = [];
  const how: Record<string, (demand: string, honest: () => Promise<string | undefined>) => Promise<string | undefined>> = {
    none: async (_demand, honest) => {
      const header = await honest();
      old.push(header);
      return header;
    },
    'payment-for-other-resource': async () => old[0],
    'relay-payment-foreign': async (demand) => (await stranger.payment({ required: demand, amountMax: 10n ** 20n })).header,
    'channel-not-ours': async () => {
      const required = other.demand({ amount: 5n, resource: { url: 'x:y' } }).headers['PAYMENT-REQUIRED'] as string;
      return (await elsewhere.payment({ required, amountMax: 10n })).header;
    },
  };
  for (const [expected, pay] of Object.entries(how)) {
    const before = earned(receiver);
    const tricky: RelayPurse = {
      open(session) {
        const honest = purse.open(session);
        return { pay: (owed) => pay(owed.demand, () => honest.pay(owed)) };
      },
    };
    const { relay, carrier, send, tunnel } = await pair(till, tricky);
    if (expected === 'none') {
      await send(1 << 20);
      tunnel.close('test');
      await carrier.closed;
      assert.ok(earned(receiver) > before);
      continue;
    }
    await assert.rejects(send(4 << 20), expected);
    assert.equal(await carrier.closed, expected);
    assert.equal(earned(receiver), before);
    assert.ok(relay.bytesCarried() <= CHUNK);
  }
});

test('both sides start again, even with a voucher that was signed and never arrived: nothing is lost and nothing is paid twice', async () => {
  let { till, receiver, folder: tillFolder } = await openTill();
  let { purse, payer, folder: purseFolder } = await openPurse();
  let owed = 0n;
  const session = async (isLost: boolean) => {
    let isCut = false;
    const cut: RelayPurse = {
      open(of) {
        const honest = purse.open(of);
        return {
          async pay(wanted) {
            const header = await honest.pay(wanted);
            if (!isCut) return header;
            throw new RangeError('killed after the journal, before the answer');
          },
        };
      },
    };
    const { carrier, tunnel, send } = await pair(till, cut);
    await send(2_000_000);
    await carrier.settle();
    owed += priceOf(carrier.bytesCarried());
    assert.equal(earned(receiver), owed);
    isCut = isLost;
    if (isLost) await assert.rejects(send(3 << 20));
    else tunnel.close('test');
    await carrier.closed;
  };
  await session(true);
  assert.ok(signed(payer) > owed, 'a voucher is signed that the relay does not have');
  await shut(payer);
  await shut(receiver);
  ({ till, receiver, folder: tillFolder } = await openTill(tillFolder));
  ({ purse, payer, folder: purseFolder } = await openPurse(purseFolder));
  assert.equal(earned(receiver), owed);
  await session(false);
  await shut(receiver);
  ({ till, receiver } = await openTill(tillFolder));
  await session(false);
  await shut(payer);
  ({ purse, payer } = await openPurse(purseFolder));
  await session(false);
  assert.equal(earned(receiver), owed);
});

test('whole nodes: one with a price relays another, which opens a channel for it; the relay starts again and claims on chain', async (context) => {
  const { client } = network;
  const ports = [await freePort(), await freePort()];
  const start = async (index: number, changes: Partial<Parameters<typeof startNode>[0]>) => {
    const started = await startNode({
      folder: join(network.folder, `node-${index}`),
      manifest: client.manifest,
      rpcUrl: network.chain.rpcUrl,
      signer: network.signer(index),
      roles: [],
      port: ports[index - 3] as number,
      quotaBytes: 0n,
      log: silentLogger,
      ...changes,
    });
    context.after(() => started.stop()); // what still runs would keep this process
    return started;
  };
  const ids: bigint[] = [];
  for (const index of [3, 4]) {
    const { transportKey } = await openTransportIdentity(join(network.folder, `node-${index}`));
    ids.push(await register(index, transportKey, index === 3 ? `https://127.0.0.1:${ports[0]}` : ''));
  }
  const [relayId, homeId] = ids as [bigint, bigint];
  const relaying = { roles: ['relay'], relay: { relayPrice: '3' } };
  let relay = await start(3, relaying);
  const dear = await start(4, { relayedBy: [relayId], relay: { relayMaxPrice: '2.9' } });
  await new Promise((resolve) => setTimeout(resolve, 4000));
  assert.equal((await client.read('operators', 'operator', [homeId])).endpoint, '', 'a relay dearer than the limit is not used');
  await dear.stop();
  const node = await start(4, { relayedBy: [relayId], relay: { relayMaxPrice: '3' } });
  let endpoint = '';
  for (let waited = 0; endpoint === '' && waited < 300; waited += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    endpoint = (await client.read('operators', 'operator', [homeId])).endpoint;
  }
  const at = { endpoint, transportKey: node.transportKey };
  for (let count = 0; count < 20; count += 1) assert.equal((await peerFetch(at, '/healthz')).status, 200);
  await relay.stop();
  await node.stop();
  const payer = await network.payer(4, { folder: join(network.folder, 'node-4', 'reach', 'spent') });
  open.payers.push(payer);
  const channel = payer.channels()[0];
  assert.ok(channel);
  assert.ok(channel.signed > 0n);
  assert.equal((await readChannel(client, channel.key)).totalClaimed, 0n);
  relay = await start(3, relaying);
  await new Promise((resolve) => setTimeout(resolve, 2500));
  await network.warp(RELAY_CLAIM_SECONDS + 1);
  const claimed = async () => (await readChannel(client, channel.key)).totalClaimed;
  for (let waited = 0; (await claimed()) === 0n && waited < 300; waited += 1) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await claimed(), channel.signed);
  await relay.stop();
});
