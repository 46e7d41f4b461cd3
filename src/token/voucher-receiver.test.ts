import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { type Hex, zeroAddress } from 'viem';
import { createSigner } from '../chain/index.ts';
import { depositIntoChannel, readChannel } from './channels.ts';
import { type ChannelConfig, createVoucherCodec, type VoucherCodec } from './voucher.ts';
import { type ChannelsNetwork, startChannelsNetwork, startPaidServer, TEST_INTERVAL } from './voucher-fixture.ts';
import type { PaymentOffer, Receiver, ReceiverOptions } from './voucher-receiver.ts';
import { decodePaymentRequired, encodePayment } from './x402-wire.ts';

const PRICE = 100n;
const URL = 'http://shop.example/a';
let network: ChannelsNetwork;
let receiver: Receiver;
let codec: VoucherCodec;
let rounds = 0;
before(async () => {
  network = await startChannelsNetwork();
});
after(() => network?.stop());
const open = (more: Partial<ReceiverOptions> = {}) => network.receiver({ folder: join(network.folder, `receiver-${rounds}`), ...more });
beforeEach(async () => {
  rounds += 1;
  receiver = await open();
  codec = receiver.codec;
});
afterEach(() => receiver.close());

const offer: PaymentOffer = { amount: PRICE, resource: { url: URL } };

/** A channel of account 2 that is new in every test, unlike what it says otherwise. */
function configOf(change: Partial<ChannelConfig> = {}): ChannelConfig {
  return {
    payer: network.signer(2).address,
    payerAuthorizer: network.signer(2).address,
    receiver: network.signer(1).address,
    receiverAuthorizer: network.signer(1).address,
    token: network.client.address('networkToken'),
    withdrawDelay: 3 * TEST_INTERVAL,
    salt: `0x${rounds.toString(16).padStart(64, '0')}`,
    ...change,
  };
}

async function fund(config: ChannelConfig, amount: bigint): Promise<Hex> {
  await depositIntoChannel(network.client, { sender: network.sender(2), config, amount });
  return codec.channelId(config);
}

async function pay(
  config: ChannelConfig,
  max: bigint,
  how: { by?: number; with?: VoucherCodec; channelId?: Hex; chainId?: number; url?: string; id?: string; amount?: bigint } = {},
): Promise<string> {
  const made = how.with ?? codec;
  const [terms] = decodePaymentRequired(receiver.demand(offer).headers['PAYMENT-REQUIRED'] as string).terms;
  assert.ok(terms !== undefined);
  const channelId = how.channelId ?? made.channelId(config);
  return encodePayment({
    resource: { url: how.url ?? URL },
    terms: { ...terms, chainId: how.chainId ?? terms.chainId },
    config,
    voucher: await made.sign(network.signer(how.by ?? 2), { channelId, maxClaimableAmount: max }),
    paymentId: how.id ?? `payment_${max}_${how.url ?? ''}`.replaceAll(/[^\w]/g, '_'),
  });
}

test('vouchers that are overdrawn, replayed, foreign or decreasing are refused, each with its code; the honest twin goes on', async () => {
  const config = configOf();
  const channelId = await fund(config, 10n * PRICE);
  const accept = async (header: Promise<string>, wanted = offer) => receiver.accept(await header, wanted);
  assert.equal((await accept(pay(config, PRICE))).chargedCumulative, PRICE);
  const { client } = network;
  const elsewhere = createVoucherCodec(client.chainId, `0x${'44'.repeat(20)}`);
  const otherChain = createVoucherCodec(client.chainId + 1, client.address('channels'));
  const stranger = createSigner(`0x${'05'.repeat(32)}`).address;
  const refusals: [string, Promise<string>][] = [
    ['voucher-exceeds-balance', pay({ ...configOf(), salt: `0x${'ab'.repeat(32)}` }, PRICE)],
    ['voucher-base-wrong', pay(config, PRICE, { id: 'another_one' })],
    ['voucher-base-wrong', pay(config, PRICE - 1n)],
    ['voucher-base-wrong', pay(config, 3n * PRICE)],
    ['voucher-signature-wrong', pay(config, 2n * PRICE, { by: 3 })],
    ['voucher-signature-wrong', pay(config, 2n * PRICE, { with: elsewhere, channelId })],
    ['voucher-signature-wrong', pay(config, 2n * PRICE, { with: otherChain, channelId })],
    ['channel-not-ours', pay(config, 2n * PRICE, { with: elsewhere })],
    ['channel-not-ours', pay(config, 2n * PRICE, { chainId: 1 })],
    ['channel-not-ours', pay(configOf({ receiver: stranger }), PRICE)],
    ['channel-not-ours', pay(configOf({ receiverAuthorizer: stranger }), PRICE)],
    ['channel-not-ours', pay(configOf({ payerAuthorizer: zeroAddress }), PRICE)],
    ['channel-delay-too-short', pay(configOf({ withdrawDelay: 3 * TEST_INTERVAL - 1 }), PRICE)],
    ['payment-token-unknown', pay(configOf({ token: stranger }), PRICE)],
    ['payment-for-other-resource', pay(config, 2n * PRICE, { url: 'http://shop.example/b' })],
    ['payment-malformed', Promise.resolve('!')],
    ['payment-malformed', Promise.resolve(Buffer.from('{"x402Version":1}').toString('base64'))],
    ['payment-malformed', Promise.resolve('A'.repeat(20_000))],
  ];
  for (const [code, header] of refusals) await assert.rejects(accept(header), { code }, code);
  const big: PaymentOffer = { ...offer, amount: 10n * PRICE };
  await assert.rejects(accept(pay(config, 11n * PRICE), big), { code: 'voucher-exceeds-balance' });
  assert.equal((await accept(pay(config, 2n * PRICE))).chargedCumulative, 2n * PRICE);
  assert.deepEqual(receiver.claimable(), [], 'nothing is claimed before the requests are over');
});

test('the same payment is not charged twice, nor served without end, nor for another resource', async () => {
  const config = configOf();
  await fund(config, 10n * PRICE);
  const header = await pay(config, PRICE, { id: 'once_only' });
  const first = await receiver.accept(header, offer);
  await first.settle(PRICE);
  for (let count = 0; count < 3; count += 1) {
    const again = await receiver.accept(header, offer);
    assert.deepEqual([again.isRepeat, again.charged, again.chargedCumulative], [true, 0n, PRICE]);
    await again.settle(0n);
  }
  await assert.rejects(receiver.accept(header, offer), { code: 'payment-repeated-too-often' });
  const other = await pay(config, 2n * PRICE, { id: 'once_only', url: `${URL}2` });
  await assert.rejects(receiver.accept(other, { amount: PRICE, resource: { url: `${URL}2` } }), { code: 'payment-for-other-resource' });
  assert.equal(receiver.claimable()[0]?.total, PRICE);
});

test('of two payments on the same base one is taken, however close they come', async () => {
  const config = configOf();
  await fund(config, 10n * PRICE);
  const headers = await Promise.all(['one_payment', 'two_payment', 'three_payment'].map((id) => pay(config, PRICE, { id })));
  const results = await Promise.allSettled(headers.map((header) => receiver.accept(header, offer)));
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
  for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.code, 'voucher-base-wrong');
});

test('what was taken is there after a restart, and what was not delivered is the payer’s', async () => {
  const config = configOf();
  await fund(config, 10n * PRICE);
  const first = await receiver.accept(await pay(config, PRICE), offer);
  await first.settle(PRICE);
  const second = await receiver.accept(await pay(config, 2n * PRICE), offer);
  await second.settle(30n);
  await second.settle(0n);
  await receiver.close();
  receiver = await open();
  assert.equal(receiver.claimable()[0]?.total, PRICE + 30n);
  await assert.rejects(receiver.accept(await pay(config, 3n * PRICE), offer), (error: { code: string }) => {
    assert.equal(error.code, 'voucher-base-wrong');
    const [terms] = decodePaymentRequired(receiver.demand(offer, error).headers['PAYMENT-REQUIRED'] as string).terms;
    assert.equal(terms?.shown?.charged, PRICE + 30n);
    assert.equal(terms?.shown?.signed, 2n * PRICE);
    return true;
  });
  assert.equal((await receiver.accept(await pay(config, 2n * PRICE + 30n), offer)).chargedCumulative, 2n * PRICE + 30n);
});

test('a receiver whose claims are too far apart for any channel is not opened, and two cannot share a folder', async () => {
  await assert.rejects(open({ claimIntervalSeconds: 1_000_000 }), { code: 'claim-interval-too-long' });
  await assert.rejects(open(), { code: 'folder-busy' });
});

test('a channel whose payer asked for its money takes no more payments', async () => {
  const config = configOf();
  const channelId = await fund(config, 10n * PRICE);
  await (await receiver.accept(await pay(config, PRICE), offer)).settle(PRICE);
  await network.sender(2).send({ contract: 'channels', functionName: 'initiateWithdraw', args: [config, 9n * PRICE] });
  await receiver.refresh(channelId);
  await assert.rejects(receiver.accept(await pay(config, 2n * PRICE), offer), { code: 'channel-closing' });
  assert.equal(receiver.claimable()[0]?.total, PRICE);
});

test('a payer pays although its receiver gives back more each time that it is told what was charged', async () => {
  const server = await startPaidServer(receiver, { amount: PRICE });
  const payer = await network.payer(4, { folder: join(network.folder, `payer-back-${rounds}`) });
  let paid = 0;
  server.delivered = () => undefined;
  const sending = (async (url: string, init?: RequestInit) => {
    const isPaid = new Headers(init?.headers).has('PAYMENT-SIGNATURE');
    // Money of another request comes back between the price and the payment: its voucher stands on the wrong base.
    if (isPaid && paid++ < 3) await server.credits.shift()?.settle(0n);
    return fetch(url, init);
  }) as typeof fetch;
  try {
    for (const path of ['a', 'b', 'c']) assert.equal((await payer.fetch(`${server.url}/${path}`, { amountMax: PRICE })).status, 200);
    const answer = await payer.fetch(`${server.url}/d`, { amountMax: PRICE, fetch: sending });
    assert.deepEqual([answer.status, paid], [200, 4]);
    assert.equal(payer.channels()[0]?.charged, PRICE);
  } finally {
    await payer.close();
    await server.stop();
  }
});

test('a payer that is killed or loses its journal goes on where it was, and never signs more than it owes', async () => {
  const server = await startPaidServer(receiver, { amount: PRICE });
  const folder = join(network.folder, `payer-lost-${rounds}`);
  let payer = await network.payer(4, { folder });
  try {
    assert.equal((await payer.fetch(`${server.url}/1`, { amountMax: PRICE })).status, 200);
    // Signed, and the process ends before there is an answer: the server has never seen it …
    const demand = (await fetch(`${server.url}/2`)).headers.get('PAYMENT-REQUIRED') as string;
    const lost = await payer.payment({ required: demand, amountMax: PRICE, idempotencyKey: 'second_payment' });
    await payer.close();
    payer = await network.payer(4, { folder });
    // … with the same key the same voucher is sent again …
    const repeated = await payer.payment({ required: demand, amountMax: PRICE, idempotencyKey: 'second_payment' });
    assert.equal(repeated.header, lost.header);
    repeated.abandon();
    // … and without, it counts as charged until the server says otherwise.
    assert.equal((await payer.fetch(`${server.url}/3`, { amountMax: PRICE })).status, 200);
    assert.equal(payer.channels()[0]?.charged, 2n * PRICE);
    await payer.close();
    payer = await network.payer(4, { folder: `${folder}-new` });
    assert.equal((await payer.fetch(`${server.url}/4`, { amountMax: PRICE })).status, 200);
    assert.equal(payer.channels()[0]?.charged, 3n * PRICE);
    const [channel] = payer.channels();
    assert.ok(channel !== undefined);
    assert.equal([...receiver.channels()].find(({ key }) => key === channel.key)?.charged, 3n * PRICE);
    assert.equal((await readChannel(network.client, channel.key)).balance, 20n * PRICE, 'the money of before is used');
    // A server that gives back what it did not deliver is believed too.
    server.delivered = () => 40n;
    assert.equal((await payer.fetch(`${server.url}/5`, { amountMax: PRICE })).status, 200);
    server.delivered = (credit) => credit.charged;
    assert.equal((await payer.fetch(`${server.url}/6`, { amountMax: PRICE })).status, 200);
    assert.equal(payer.channels()[0]?.charged, 4n * PRICE + 40n);
  } finally {
    await payer.close();
    await server.stop();
  }
});

test('nobody makes a payer believe more than it signed', async () => {
  const payer = await network.payer(5);
  try {
    const demand = receiver.demand(offer).headers['PAYMENT-REQUIRED'] as string;
    const payment = await payer.payment({ required: demand, amountMax: PRICE });
    const forged = JSON.parse(Buffer.from(demand, 'base64').toString());
    forged.error = 'invalid_batch_settlement_evm_cumulative_amount_mismatch';
    forged.accepts[0].extra.channelState = { chargedCumulativeAmount: '100000' };
    forged.accepts[0].extra.voucherState = { signedMaxClaimable: '100000', signature: `0x${'11'.repeat(65)}` };
    const header = (name: string) => (name === 'PAYMENT-REQUIRED' ? Buffer.from(JSON.stringify(forged)).toString('base64') : null);
    assert.equal((await payment.finish({ status: 402, header })).kind, 'refused');
    assert.equal(payer.channels()[0]?.charged, 0n);
    const next = await payer.payment({ required: demand, amountMax: PRICE });
    const result = { success: true, extra: { chargedAmount: '999999', channelState: { chargedCumulativeAmount: '999999' } } };
    const paid = (name: string) => (name === 'PAYMENT-RESPONSE' ? Buffer.from(JSON.stringify(result)).toString('base64') : null);
    assert.deepEqual(await next.finish({ status: 200, header: paid }), { kind: 'charged', amount: 999_999n, chargedCumulative: PRICE });
  } finally {
    await payer.close();
  }
});
