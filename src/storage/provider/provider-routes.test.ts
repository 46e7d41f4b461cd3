import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { type Hex, keccak256, toHex } from 'viem';
import { createSigner, type Signer } from '../../chain/index.ts';
import { type PeerRequest, peerFetch, signRequest } from '../../connect/index.ts';
import type { MillraceError } from '../../errors.ts';
import { cidOf } from '../content/block.ts';
import { encodeCarHeader } from '../content/car.ts';
import { createPieceHasher } from '../content/commp.ts';
import { quote } from '../market/ask.ts';
import { readOperator, storageDomainOf } from '../market/chain-view.ts';
import { reserveFunds } from '../market/funds.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode } from '../market/market-fixture.ts';
import { fetchAsk, marketHeader, type ProviderPeer, proposeDeal } from '../market/provider-api.ts';
import { type DealTerms, dealTermsDigest, termsToJson } from '../market/terms.ts';

let market: TestMarket;
let node: TestNode;
let peer: ProviderPeer;
before(async () => {
  market = await startTestMarket({ verbose: process.env.MILLRACE_TEST_LOG === '1' });
  const limits = { idleMs: 500, bytesPerSecondMin: 1, requestBytesMax: 100_000, uploadsMax: 2 };
  node = await market.startNode({ limits, policy: { ...TEST_POLICY, quotaBytes: 1_000_000n } });
  peer = await readOperator(market.client, node.operatorId);
});
after(() => market?.stop());

/** What a provider answers: status and the code of the problem. */
async function answerTo(path: string, request: PeerRequest = {}): Promise<[number, string | undefined]> {
  const response = await peerFetch(peer, path, request);
  const body = await response.text();
  return [response.status, body === '' ? undefined : (JSON.parse(body) as { code?: string }).code];
}

const post = (path: string, body: string | Uint8Array) =>
  answerTo(path, { method: 'POST', body, headers: { 'content-type': 'application/json' } });

async function newTerms(changes: Partial<DealTerms> = {}): Promise<{ terms: DealTerms; cid: Hex; signature: Hex }> {
  const { client, user } = market;
  const hasher = createPieceHasher();
  hasher.write(randomBytes(60_000));
  const { root, height, rawSize } = hasher.finish();
  const cid = cidOf(0x55, randomBytes(32));
  const { signed } = await fetchAsk(peer, storageDomainOf(client));
  const money = quote(signed.ask, { sizeBytes: BigInt(rawSize), periods: 10 });
  const terms: DealTerms = {
    client: user.signer.address,
    operatorId: node.operatorId,
    pieceRoot: toHex(root),
    pieceHeight: height,
    rawSize: BigInt(rawSize),
    contentHash: keccak256(cid.bytes),
    periods: 10,
    pricePerPeriod: money.pricePerPeriod,
    collateral: money.collateral,
    bond: money.bond,
    clientNonce: BigInt(toHex(randomBytes(32))),
    providerNonce: BigInt(toHex(randomBytes(32))),
    expiry: (await client.now()) + 600n,
    ...changes,
  };
  return { terms, cid: toHex(cid.bytes), signature: await user.signer.signDigest(dealTermsDigest(storageDomainOf(client), terms)) };
}

async function openedDeal(): Promise<bigint> {
  const { client, user } = market;
  const proposal = await newTerms();
  const { pricePerPeriod, bond } = proposal.terms;
  const purpose = {};
  await reserveFunds({ client, sender: user.sender, amount: pricePerPeriod * 10n + bond, purpose });
  const { dealId } = await proposeDeal(peer, proposal);
  await reserveFunds({ client, sender: user.sender, amount: 0n, purpose });
  return dealId;
}

async function patch(
  dealId: bigint,
  options: { offset?: string; signer?: Signer; market?: string; body?: AsyncIterable<Uint8Array> | Uint8Array; length?: number } = {},
) {
  const path = `/v1/storage/pieces/${dealId}`;
  const headers: Record<string, string> = {
    'millrace-market': options.market ?? marketHeader(storageDomainOf(market.client)),
    'upload-offset': options.offset ?? '0',
    'content-length': String(options.length ?? 10),
  };
  const covered = Object.keys(headers);
  const signed = await signRequest(
    { method: 'PATCH', url: new URL(path, peer.endpoint).href, headers },
    options.signer ?? market.user.signer,
    { covered },
  );
  return answerTo(path, {
    method: 'PATCH',
    headers: { ...headers, ...signed },
    body: options.body ?? new Uint8Array(options.length ?? 10),
  });
}

test('malformed, huge and slow requests are refused with a code and a status, and the provider goes on', async () => {
  assert.deepEqual(await post('/v1/storage/deals', 'no json'), [400, 'bad-json']);
  assert.deepEqual(await post('/v1/storage/deals', '[]'), [400, 'bad-field']);
  assert.deepEqual(await post('/v1/storage/deals', '{"terms":{"__proto__":{}},"cid":"0x","signature":"0x"}'), [400, 'bad-field']);
  assert.deepEqual(await post('/v1/storage/deals', `"${'x'.repeat(100_000)}"`), [413, 'body-too-big']);
  assert.deepEqual(await answerTo('/v1/storage/nothing'), [404, 'not-found']);
  assert.deepEqual(await answerTo('/v1/storage/deals/..%2f..%2fetc%2fpasswd'), [400, 'bad-field']);
  assert.deepEqual(await answerTo('/v1/storage/deals/-1'), [400, 'bad-field']);
  assert.deepEqual(await answerTo('/v1/storage/deals/18446744073709551616'), [400, 'bad-field']);
  assert.deepEqual(await answerTo('/v1/storage/deals/77'), [404, 'deal-unknown']);
  assert.deepEqual(await post('/v1/storage/deals/77/acknowledgement', JSON.stringify({ signature: `0x${'00'.repeat(65)}` })), [
    404,
    'deal-unknown',
  ]);
  assert.equal((await answerTo('/v1/storage/ask'))[0], 200);
});

test('a connection that sends garbage or nothing is cut without harm', async () => {
  const { port } = new URL(peer.endpoint);
  for (const garbage of [Buffer.alloc(4096, 0x01), Buffer.alloc(4096, 0x16), Buffer.from('GET /ipfs/../../etc/passwd HTTP/9.9\r\n\r\n')]) {
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {}).resume();
    socket.write(garbage);
    await new Promise((resolve) => socket.once('close', resolve));
  }
  assert.equal((await answerTo('/v1/storage/ask'))[0], 200);
});

test('terms that are forged, foreign or against the ask are refused before anything is reserved', async () => {
  const { terms, cid, signature } = await newTerms();
  const propose = (changes: Partial<DealTerms>, own = signature) =>
    post('/v1/storage/deals', JSON.stringify({ terms: termsToJson({ ...terms, ...changes }), cid, signature: own }));
  assert.deepEqual(await propose({ pricePerPeriod: 0n }), [400, 'bad-deal-signature']);
  assert.deepEqual(await propose({}, `0x${'11'.repeat(65)}`), [400, 'bad-deal-signature']);
  for (const changes of [
    { operatorId: 99n },
    { pricePerPeriod: 1n },
    { rawSize: 0n },
    { pieceHeight: 40 },
    { periods: 1 },
    { contentHash: `0x${'44'.repeat(32)}` as Hex },
    { expiry: 1n },
  ]) {
    const proposal = await newTerms(changes);
    const body = JSON.stringify({ terms: termsToJson(proposal.terms), cid: proposal.cid, signature: proposal.signature });
    assert.deepEqual(await post('/v1/storage/deals', body), [409, 'deal-refused'], JSON.stringify(Object.keys(changes)));
  }
  assert.equal((await node.provider.status()).deals.opening, 0);
});

test('a client without funds gets the reason of the contract, and leaves no reservation', async () => {
  const poor = createSigner(toHex(randomBytes(32)));
  const { terms, cid } = await newTerms({ client: poor.address });
  const signature = await poor.signDigest(dealTermsDigest(storageDomainOf(market.client), terms));
  await assert.rejects(proposeDeal(peer, { terms, cid, signature }), (error: MillraceError) => {
    assert.equal(error.code, 'deal-refused');
    assert.equal(error.values.reason, 'insufficient-allowance');
    return true;
  });
});

test("an upload needs the signature of the deal's client for this market, the durable offset, and no more than the agreed size", async () => {
  const dealId = await openedDeal();
  assert.deepEqual(await answerTo(`/v1/storage/pieces/${dealId}`, { method: 'PATCH', body: new Uint8Array(10) }), [
    401,
    'signature-missing',
  ]);
  assert.deepEqual(await patch(dealId, { signer: createSigner(toHex(randomBytes(32))) }), [403, 'not-the-client']);
  assert.deepEqual(await patch(dealId, { market: 'eip155:1:0x0' }), [400, 'wrong-market']);
  assert.deepEqual(await patch(dealId, { offset: '5' }), [409, 'upload-offset-mismatch']);
  assert.deepEqual(await patch(dealId, { offset: '-1' }), [400, 'bad-field']);
  assert.deepEqual(await patch(dealId, { length: 70_000 }), [413, 'upload-too-big']);
  assert.deepEqual(await patch(dealId, { length: 150_000 }), [413, 'upload-too-big']);
  async function* slow() {
    const header = encodeCarHeader(cidOf(0x55, new Uint8Array(1)));
    yield header.subarray(0, 10);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    yield header.subarray(10, 20);
  }
  const [status] = await patch(dealId, { length: 20, body: slow() }).catch(() => [408, undefined] as const);
  assert.equal(status, 408);
  assert.equal((await answerTo('/v1/storage/ask'))[0], 200);
});

test('bytes that are not the piece are refused and forgotten', async () => {
  const dealId = await openedDeal();
  const [status, code] = await patch(dealId, { length: 60_000, body: randomBytes(60_000) });
  assert.ok(status >= 400, `${status}`);
  assert.ok(['bad-car', 'bad-block', 'piece-mismatch'].includes(code as string), code);
  assert.equal((await node.provider.status()).pieces, 0);
});

test('a put says what is wrong: no provider with room, too expensive, too many copies, nothing to store, no funds', async () => {
  const size = { sizeBytes: 2_000_000 };
  await assert.rejects(market.putRandom(size), (error: { code: string; values: { rejected: string[] } }) => {
    assert.equal(error.code, 'no-provider');
    assert.deepEqual(error.values.rejected, [`${node.operatorId}: no-room`]);
    return true;
  });
  await assert.rejects(market.putRandom({ maxTotal: 1n }), { code: 'too-expensive' });
  await assert.rejects(market.putRandom({ maxPricePerGibPeriod: 1n }), { code: 'no-provider' });
  await assert.rejects(market.putRandom({ copies: 0 }), { code: 'bad-copies' });
  await assert.rejects(market.putRandom({ copies: 2 }), { code: 'no-provider' });
  await assert.rejects(market.putRandom({ source: { path: '/nonexistent/file' } }), { code: 'source-missing' });
  await assert.rejects(market.putRandom({ sizeBytes: 0 }), { code: 'empty-content' });
  const tokens = await market.client.read('networkToken', 'balanceOf', [market.user.signer.address]);
  const { user, client, faucet } = market;
  await user.sender.send({ contract: 'networkToken', functionName: 'transfer', args: [faucet.address, tokens] });
  await assert.rejects(market.putRandom({ periods: 10_000 }), { code: 'no-funds', actor: 'caller' });
  await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [user.signer.address, tokens] });
  assert.ok((await client.read('networkToken', 'balanceOf', [user.signer.address])) >= tokens);
});
