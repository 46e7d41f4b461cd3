import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTransportIdentity, startPeerServer } from '../../connect/index.ts';
import { PAYMENT_SIGNATURE } from '../../token/index.ts';
import { LEAF_BYTES } from '../content/block.ts';
import type { BuiltContent } from '../content/content.ts';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, type TestMarket, TOKEN } from '../market/market-fixture.ts';
import { priceOfBytes } from './announcement.ts';
import { CHOICE_LIMITS, chooseSellers } from './choose.ts';
import { sellerSource } from './origin.ts';
import { buildRandom, paidSource, startBuyer, startSeller, TEST_PRICE, type TestBuyer, type TestSeller } from './paid-fixture.ts';
import { CHUNK_BYTES, CONTINUE_FROM, type Paywall } from './paywall.ts';
import { openPeerRecords } from './peer-records.ts';

const CHUNK_PRICE = priceOfBytes(TEST_PRICE, BigInt(CHUNK_BYTES));
let market: TestMarket;
let content: BuiltContent;
let bytes: Buffer;
let buyer: TestBuyer;
const sellers: TestSeller[] = [];

before(async () => {
  market = await startTestMarket();
  ({ content, bytes } = await buildRandom(market.folder, 5_300_000));
  buyer = await startBuyer(market);
});
after(async () => {
  await buyer.stop();
  for (const seller of sellers) await seller.stop();
  await market.stop();
});
async function seller(intercept?: (request: Request, paywall: Paywall) => Promise<Response>, chunkBytes?: number): Promise<TestSeller> {
  const started = await startSeller(market, [content], { intercept, chunkBytes });
  sellers.push(started);
  return started;
}
/** Takes the money and sends nothing. */
const stealing = async (request: Request, paywall: Paywall): Promise<Response> => {
  const answer = await paywall.fetch(request);
  if (!isPaid(request) || answer.status !== 200) return answer;
  await answer.arrayBuffer(); // it books the charge
  return new Response(new ReadableStream({ start: (stream) => stream.error(new Error('cut')) }), {
    status: 200,
    headers: answer.headers,
  });
};
const isCar = (answer: Response) => answer.headers.get('content-type')?.includes('ipld.car') === true;
const isPaid = (request: Request) => request.headers.has(PAYMENT_SIGNATURE);
const outputPath = () => join(market.folder, randomBytes(6).toString('hex'));
const chargedBy = ({ receiver }: TestSeller) => [...receiver.channels()].reduce((sum, channel) => sum + channel.charged, 0n);
const signedFor = ({ signer }: TestSeller, { payer }: TestBuyer) =>
  payer
    .channels()
    .filter(({ config }) => config.receiver === signer.address)
    .reduce((sum, channel) => sum + channel.signed, 0n);

test('a paid retrieval costs its bytes and no more, and both sides agree on the sum', async () => {
  const honest = await seller();
  const { source, paid } = paidSource(buyer, honest);
  const path = outputPath();
  await retrieve({ cid: content.cid, sources: [source], output: { path } });
  assert.deepEqual(await readFile(path), bytes);
  const { paid: sum, paidBytes, lost } = paid.record();
  assert.equal(lost, 0n);
  assert.equal(sum, chargedBy(honest));
  assert.ok(paidBytes >= bytes.length && paidBytes < bytes.length * 1.01, `${paidBytes} of ${bytes.length}`);
  // Each answer is rounded up to a base unit: at most one unit per request more than the whole.
  const { paidRequests, creditedBytes } = honest.paywall.counts();
  assert.ok(sum - priceOfBytes(TEST_PRICE, BigInt(paidBytes)) <= BigInt(paidRequests));
  assert.equal(creditedBytes, 0);
  // The root, the leaf in which a sealed content would have its header, and the other leaves by one answer.
  assert.equal(paidRequests, 3);
});

test('who insists on less, buyer or seller, makes the loss smaller: a payment buys a block', async () => {
  for (const [ofSeller, ofBuyer] of [
    [LEAF_BYTES, CHUNK_BYTES],
    [CHUNK_BYTES, LEAF_BYTES],
  ] as const) {
    const honest = await seller(undefined, ofSeller);
    const thief = await seller(stealing, ofSeller);
    const chunkBytesMax = Math.min(ofSeller, ofBuyer);
    const [bad, good] = [paidSource(buyer, thief, { chunkBytesMax }), paidSource(buyer, honest, { chunkBytesMax })];
    const path = outputPath();
    await retrieve({ cid: content.cid, sources: [bad.source, good.source], output: { path } });
    assert.deepEqual(await readFile(path), bytes);
    assert.ok(bad.paid.record().lost <= priceOfBytes(TEST_PRICE, BigInt(LEAF_BYTES)));
    assert.equal(good.paid.record().lost, 0n);
    assert.ok(honest.paywall.counts().paidRequests >= 6, 'one for each leaf');
  }
});

test('whatever a seller announces, no more than the buyer’s own chunk is paid at once', async () => {
  const candidate = { hasDeal: false, reported: { served: 0, failed: 0 }, pricePerGib: TEST_PRICE, transportKey: '0x' } as const;
  const seen = [1n, BigInt(LEAF_BYTES), 1n << 60n].map((chunkBytes) => {
    const holder = `0x${'11'.repeat(20)}` as const;
    const paying = { payer: buyer.payer, budget: { left: 1n } };
    return sellerSource({ ...candidate, holder, endpoint: 'https://192.0.2.1:9000', chunkBytes }, paying).source.chunked?.bytesMax;
  });
  assert.deepEqual(seen, [1, LEAF_BYTES, CHUNK_BYTES]);
});

test('a seller that takes money and sends nothing gets one chunk, and the retrieval succeeds elsewhere', async () => {
  const thief = await seller(stealing);
  const honest = await seller();
  const [bad, good] = [paidSource(buyer, thief), paidSource(buyer, honest)];
  const path = outputPath();
  await retrieve({ cid: content.cid, sources: [bad.source, good.source], output: { path } });
  assert.deepEqual(await readFile(path), bytes);
  assert.ok(bad.paid.record().lost > 0n && bad.paid.record().lost <= CHUNK_PRICE);
  assert.equal(bad.paid.record().paid, 0n);
  assert.ok(signedFor(thief, buyer) <= CHUNK_PRICE, 'all that it can ever claim');
  assert.ok(chargedBy(thief) <= CHUNK_PRICE);
  assert.equal(good.paid.record().lost, 0n);
});

test('a seller that sends garbage for money gets one chunk and is not asked again', async () => {
  let asked = 0;
  const liar = await seller(async (request, paywall) => {
    const answer = await paywall.fetch(request);
    if (!isPaid(request) || answer.status !== 200) return answer;
    asked += 1;
    const { length } = Buffer.from(await answer.arrayBuffer());
    return new Response(randomBytes(length), { status: 200, headers: answer.headers });
  });
  const honest = await seller();
  const [bad, good] = [paidSource(buyer, liar), paidSource(buyer, honest)];
  const path = outputPath();
  const { sources } = await retrieve({ cid: content.cid, sources: [bad.source, good.source], output: { path } });
  assert.deepEqual(await readFile(path), bytes);
  assert.equal(sources[0]?.lied, true);
  assert.equal(asked, 1);
  assert.ok(signedFor(liar, buyer) <= CHUNK_PRICE);
});

test('a seller that turns to garbage in the middle of a chunk gets that chunk, and the blocks before are not bought again', async () => {
  let spoilt = 0;
  const liar = await seller(async (request, paywall) => {
    const answer = await paywall.fetch(request);
    if (!isPaid(request) || answer.status !== 200 || !isCar(answer)) return answer;
    spoilt += 1;
    const sold = Buffer.from(await answer.arrayBuffer());
    sold.fill(0, 2_500_000);
    return new Response(sold, { status: 200, headers: answer.headers });
  });
  const honest = await seller();
  const [bad, good] = [paidSource(buyer, liar), paidSource(buyer, honest)];
  const path = outputPath();
  const { sources } = await retrieve({
    cid: content.cid,
    sources: [bad.source, { ...good.source, isReserve: true }],
    output: { path },
  });
  assert.deepEqual(await readFile(path), bytes);
  assert.equal(sources[0]?.lied, true);
  assert.equal(spoilt, 1);
  assert.ok(bad.paid.record().lost <= CHUNK_PRICE);
  // The liar's first leaf and two more were sound.
  assert.ok(good.paid.record().paidBytes < bytes.length - 3 * LEAF_BYTES + 2000, `${good.paid.record().paidBytes}`);
});

test('a seller that asks more than its quote, or charges more than was sent, is paid at most one chunk', async () => {
  const dear = await startSeller(market, [content], { pricePerGib: TEST_PRICE * 2n });
  sellers.push(dear);
  const { source, paid } = paidSource(buyer, dear);
  await assert.rejects(retrieve({ cid: content.cid, sources: [source], output: { path: outputPath() } }), (error: Error) =>
    error.message.startsWith('None of 1 holders gave'),
  );
  assert.ok(paid.record().lost <= CHUNK_PRICE);
  assert.ok(signedFor(dear, buyer) <= CHUNK_PRICE * 2n);
});

test('a connection that is cut once is asked again with the same voucher, and nothing is paid twice', async () => {
  let cuts = 0;
  let cutBytes = 0;
  const continued: (string | null)[] = [];
  const flaky = await seller(async (request, paywall) => {
    const answer = await paywall.fetch(request);
    if (!isPaid(request) || answer.status !== 200 || !isCar(answer)) return answer;
    continued.push(answer.headers.get(CONTINUE_FROM));
    if (cuts > 0) return answer;
    cuts += 1;
    cutBytes = Number(answer.headers.get('content-length'));
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      async pull(stream) {
        const { value } = await reader.read();
        if (value !== undefined && sent < 1_500_000) {
          sent += value.length;
          stream.enqueue(value);
          return;
        }
        await reader.cancel();
        stream.error(new Error('cut'));
      },
    });
    return new Response(body, { status: 200, headers: answer.headers });
  });
  const other = await startBuyer(market);
  const { source, paid } = paidSource(other, flaky);
  const path = outputPath();
  await retrieve({ cid: content.cid, sources: [source], output: { path } });
  assert.deepEqual(await readFile(path), bytes);
  assert.equal(cuts, 1);
  assert.equal(paid.record().lost, 0n);
  assert.equal(chargedBy(flaky), paid.record().paid);
  assert.ok(cutBytes > 4_000_000 && cutBytes <= CHUNK_BYTES);
  assert.equal(flaky.paywall.counts().creditedBytes, cutBytes);
  const [atFirst, then, ...more] = continued;
  assert.deepEqual([atFirst, more], [null, []]);
  assert.ok(Number(then) >= 256 << 10, `continued where it was, at ${then}`);
  const { paidBytes } = paid.record();
  assert.ok(paidBytes >= bytes.length && paidBytes < bytes.length * 1.01, 'every byte was paid once');
  await other.stop();
});

test('a buyer that cuts every answer pays for what it took, but for one', async () => {
  const honest = await seller(undefined, LEAF_BYTES);
  const cutter = await startBuyer(market);
  const leaves = [0, 1, 2].map((part) => `bytes=${part * LEAF_BYTES}-${(part + 1) * LEAF_BYTES - 1}`);
  const url = `${honest.url}/piece/${content.piece.cidV2}`;
  for (const range of leaves) {
    const buy = async (asked: Response) => {
      await asked.body?.cancel();
      const payment = await cutter.payer.payment({ required: asked.headers.get('payment-required') ?? '', amountMax: CHUNK_PRICE });
      return { payment, answer: await fetch(url, { headers: { range, [PAYMENT_SIGNATURE]: payment.header } }) };
    };
    let { payment, answer } = await buy(await fetch(url, { headers: { range } }));
    if (answer.status === 402) {
      // What was given back of the answer before is told now.
      const { status, headers } = answer;
      assert.equal((await payment.finish({ status, header: (name) => headers.get(name) })).kind, 'corrected');
      ({ payment, answer } = await buy(answer));
    }
    assert.equal(answer.status, 206);
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    for (let got = 0; got < 700_000; ) got += (await reader.read()).value?.length ?? 700_000;
    await reader.cancel();
    await payment.finish({ status: 402, header: () => null });
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  // A connection that the cut before closed makes `fetch` ask again: more answers than leaves, but one free among them.
  const { paidRequests, paidBytes } = honest.paywall.counts();
  assert.ok(paidRequests >= 3 && paidBytes >= (paidRequests - 1) * 700_000, `${paidBytes} bytes paid of ${paidRequests} answers`);
  await cutter.stop();
});

test('overdrawn, replayed, foreign and malformed vouchers get a 402 with a code, and no bytes', async () => {
  const honest = await seller();
  const url = `${honest.url}/ipfs/${content.cid}?format=raw`;
  const first = await fetch(url);
  assert.equal(first.status, 402);
  const required = first.headers.get('payment-required') ?? '';
  assert.equal(((await first.json()) as { code: string }).code, 'payment-required');
  const ask = async (header: string, at = url) => {
    const answer = await fetch(at, { headers: { [PAYMENT_SIGNATURE]: header } });
    return { status: answer.status, code: ((await answer.json()) as { code: string }).code };
  };
  const payment = await buyer.payer.payment({ required, amountMax: CHUNK_PRICE });
  const paid = await fetch(url, { headers: { [PAYMENT_SIGNATURE]: payment.header } });
  assert.equal(paid.status, 200);
  await paid.arrayBuffer();
  await payment.finish({ status: 200, header: (name) => paid.headers.get(name) });

  const leaf = `${honest.url}/piece/${content.piece.cidV2}`;
  const other = await fetch(leaf, { headers: { range: 'bytes=0-999' } });
  assert.equal(other.status, 402);
  const replayed = await fetch(leaf, { headers: { range: 'bytes=0-999', [PAYMENT_SIGNATURE]: payment.header } });
  assert.equal(replayed.status, 402);
  assert.equal(((await replayed.json()) as { code: string }).code, 'payment-for-other-resource');
  assert.deepEqual(await ask('bm9uc2Vuc2U='), { status: 402, code: 'payment-malformed' });

  const change = (
    edit: (value: { payload: { voucher: { maxClaimableAmount: string; signature: string }; channelConfig: { receiver: string } } }) => void,
  ) => {
    const value = JSON.parse(Buffer.from(payment.header, 'base64').toString());
    value.extensions = undefined;
    edit(value);
    return Buffer.from(JSON.stringify(value)).toString('base64');
  };
  const raised = change((value) => {
    value.payload.voucher.maxClaimableAmount = (10n ** 30n).toString();
  });
  assert.deepEqual(await ask(raised), { status: 402, code: 'voucher-signature-wrong' });
  const foreign = change((value) => {
    value.payload.channelConfig.receiver = market.user.signer.address;
  });
  assert.deepEqual(await ask(foreign), { status: 402, code: 'channel-not-ours' });

  const codec = buyer.payer.codec;
  const overdrawn = await codec.sign(buyer.signer, { channelId: payment.channelId, maxClaimableAmount: 10n ** 30n });
  const over = change((value) => {
    Object.assign(value.payload.voucher, { maxClaimableAmount: overdrawn.maxClaimableAmount.toString(), signature: overdrawn.signature });
  });
  assert.equal((await ask(over)).status, 402);
  const { length } = Buffer.from(await (await fetch(url, { headers: { [PAYMENT_SIGNATURE]: over } })).arrayBuffer());
  assert.ok(length < 2000, 'a refusal, not the block');
});

test('nothing is bought beyond the budget, and what came is kept', async () => {
  const honest = await seller();
  const budget = { left: CHUNK_PRICE / 2n };
  const { source, paid } = paidSource(buyer, honest, { budget });
  await assert.rejects(retrieve({ cid: content.cid, sources: [source], output: { path: outputPath() } }), { code: 'content-unavailable' });
  assert.ok(paid.record().paid > 0n && paid.record().paid <= CHUNK_PRICE / 2n);
  assert.ok(budget.left >= 0n);
});

test('a hundred sellers that promise all for nothing and send garbage cost an honest client neither the content nor money', async () => {
  const honest = await seller();
  let asked = 0;
  const identity = await openTransportIdentity(join(market.folder, 'sybil'));
  const server = await startPeerServer({
    port: 0,
    host: '0.0.0.0',
    identity,
    fetch: () => {
      asked += 1;
      return new Response(randomBytes(1000));
    },
  });
  sellers.push({ stop: () => server.stop(100) } as TestSeller);
  const address = (index: number) => `0x${(index + 1).toString(16).padStart(40, '0')}` as const;
  const base = { chunkBytes: BigInt(CHUNK_BYTES), hasDeal: false, reported: { served: 1000, failed: 0 } };
  const sybils = Array.from({ length: 100 }, (_, index) => ({
    ...base,
    holder: address(index),
    endpoint: `https://127.${index}.0.1:${server.port}`, // each from a network of its own
    transportKey: identity.transportKey,
    pricePerGib: 0n,
  }));
  const true1 = { ...base, holder: honest.signer.address, transportKey: identity.transportKey, pricePerGib: TEST_PRICE, hasDeal: true };
  const candidates = [...sybils, { ...true1, endpoint: 'https://192.0.2.1:9000' }];
  const records = openPeerRecords(join(market.folder, 'sybil-records.json'));
  let spent = 0n;
  for (let round = 0; round < 5; round += 1) {
    const limits = { ...CHOICE_LIMITS, pricePerGibMax: TOKEN };
    const { first, reserve } = chooseSellers({ candidates, recordOf: records.of, limits, nowMs: Date.now() });
    const own = paidSource(buyer, honest);
    // The worst order: whoever promises most is asked first.
    const chosen = [...first.filter(({ hasDeal }) => !hasDeal), ...first.filter(({ hasDeal }) => hasDeal), ...reserve];
    const sources = chosen.map((each, index) =>
      each.holder === honest.signer.address ? own.source : sellerSource(each, undefined, index >= first.length).source,
    );
    const path = outputPath();
    const result = await retrieve({ cid: content.cid, sources, output: { path } });
    assert.deepEqual(await readFile(path), bytes);
    spent = own.paid.record().paid;
    assert.equal(own.paid.record().lost, 0n);
    records.note(
      chosen.map((each, index) => {
        const { bytes: got, failures, lied } = result.sources[index] as (typeof result.sources)[number];
        return { ...each, bytes: got, failures, lied, milliseconds: 1, paid: 0n, lost: 0n };
      }),
    );
  }
  assert.ok(asked > 0 && asked <= 5 * CHOICE_LIMITS.strangers, `${asked} requests went to them`);
  assert.ok(spent > 0n && spent < (priceOfBytes(TEST_PRICE, BigInt(bytes.length)) * 101n) / 100n, `${spent}`);
});

test('whole CARs are more than one payment buys; ranges of a piece and single blocks are not', async () => {
  const honest = await seller(undefined, 4 << 20);
  const whole = await fetch(`${honest.url}/ipfs/${content.cid}?format=car`);
  assert.equal(whole.status, 413);
  assert.equal(((await whole.json()) as { code: string }).code, 'answer-too-big');
  const { url } = honest;
  const range = await buyer.payer.fetch(`${url}/piece/${content.piece.cidV2}`, {
    amountMax: TOKEN,
    init: { headers: { range: 'bytes=0-65535' } },
  });
  assert.equal(range.status, 206);
  assert.equal((await range.arrayBuffer()).byteLength, 65_536);
});
