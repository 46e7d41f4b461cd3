import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startTestMarket, type TestMarket, TOKEN } from '../market/market-fixture.ts';
import { fundedKey, startBuyer, startSeller, type TestBuyer, type TestSeller } from './paid-fixture.ts';
import { createReportBook, publicCounts, readReport, reportToJson, type SignedReport, signReport } from './report.ts';

let market: TestMarket;
let seller: TestSeller;
let buyer: TestBuyer;
before(async () => {
  market = await startTestMarket();
  seller = await startSeller(market, []);
  buyer = await startBuyer(market);
  // A payment opens the channel: that is the evidence.
  const offer = { amount: 1000n, resource: { url: '/x' } };
  const required = seller.receiver.demand(offer).headers['PAYMENT-REQUIRED'] as string;
  const payment = await buyer.payer.payment({ required, amountMax: TOKEN });
  const credit = await seller.receiver.accept(payment.header, offer);
  await credit.settle(credit.charged);
  await payment.finish({ status: 200, header: () => credit.header });
});
after(async () => {
  await buyer.stop();
  await seller.stop();
  await market.stop();
});

const codec = () => buyer.payer.codec;
const config = () => (buyer.payer.channels()[0] as { config: SignedReport['config'] }).config;
const seen = { sequence: 1n, served: 9, failed: 1, bytes: 1_000_000n, paid: 1000n };

test('a report by a channel’s payer counts, the newest of each channel, and survives JSON', async () => {
  const book = createReportBook(market.client, codec());
  await book.take(JSON.parse(JSON.stringify(reportToJson(await signReport(codec(), buyer.signer, config(), seen)))));
  await book.take(reportToJson(await signReport(codec(), buyer.signer, config(), { ...seen, sequence: 2n, served: 10 })));
  const [known, ...others] = book.of(seller.signer.address);
  assert.deepEqual([known?.report.served, others.length], [10, 0]);
  await assert.rejects(book.take(reportToJson(await signReport(codec(), buyer.signer, config(), seen))), { code: 'report-stale' });
});

test('a report without a funded channel, about more than was deposited, by another, or changed does not count', async () => {
  const book = createReportBook(market.client, codec());
  const stranger = await fundedKey(market, 0n);
  stranger.sender.close();
  const invented = { ...config(), payer: stranger.signer.address, payerAuthorizer: stranger.signer.address };
  await assert.rejects(book.take(reportToJson(await signReport(codec(), stranger.signer, invented, { ...seen, paid: 0n }))), {
    code: 'bad-report',
  });
  await assert.rejects(book.take(reportToJson(await signReport(codec(), buyer.signer, config(), { ...seen, paid: TOKEN }))), {
    code: 'bad-report',
  });
  await assert.rejects(book.take(reportToJson(await signReport(codec(), stranger.signer, config(), seen))), { code: 'bad-report' });
  const changed = { ...reportToJson(await signReport(codec(), buyer.signer, config(), seen)), failed: '0' };
  assert.throws(() => readReport(codec(), changed), { code: 'bad-report' });
  assert.equal(book.of(seller.signer.address).length, 0);
});

test('one client counts for twenty retrievals at most, however many it claims', () => {
  const by = (client: number, served: number, failed: number) =>
    ({ report: { client: `0x${client}`, served, failed } }) as unknown as SignedReport;
  const counts = publicCounts([by(1, 1_000_000, 0), by(2, 0, 20), by(3, 0, 0)]);
  assert.deepEqual(counts, { served: 20, failed: 20, clients: 3 });
});
