import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSigner, type Sender, type Signer } from '../../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { createPayer, openReceiver, type Payer, type PayerOptions, type Receiver } from '../../token/index.ts';
import type { ContentSource } from '../content/block-fetcher.ts';
import { type BuiltContent, buildContent } from '../content/content.ts';
import { type TestMarket, TOKEN } from '../market/market-fixture.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore, type PieceStore } from '../pieces/piece-store.ts';
import { type Budget, createPaidFetch, EXPECTED_BYTES, type PaidFetch } from './paid-fetch.ts';
import { CHUNK_BYTES, createPaywall, type Paywall } from './paywall.ts';

/** A price that does not divide evenly, so that roundings show: base units for 2^30 bytes. */
export const TEST_PRICE: bigint = TOKEN / 7n;

/** A seller of content on a real chain, with a real server. */
export interface TestSeller {
  signer: Signer;
  sender: Sender;
  receiver: Receiver;
  store: PieceStore;
  paywall: Paywall;
  server: PeerServer;
  /** Plain HTTP, for foreign tools. */
  url: string;
  stop(): Promise<void>;
}

/** A buyer with 1,000 tokens. */
export interface TestBuyer {
  signer: Signer;
  payer: Payer;
  stop(): Promise<void>;
}

let count = 0;

/** Random bytes as a public content. */
export async function buildRandom(folder: string, sizeBytes: number): Promise<{ content: BuiltContent; bytes: Buffer }> {
  count += 1;
  const bytes = randomBytes(sizeBytes);
  const path = join(folder, `content-${count}`);
  await writeFile(path, bytes);
  return {
    content: await buildContent({ source: { path }, workFolder: join(folder, `work-${count}`), public: true, recipients: [] }),
    bytes,
  };
}

/** Stores a built content as a provider would. */
export async function storeContent(store: PieceStore, content: BuiltContent): Promise<void> {
  const { root, rawSize } = content.piece;
  const receiver = await store.receive({ root, rawSize, cid: content.cid });
  await receiver.append(createReadStream(content.carPath), { offset: 0 });
  await receiver.commit();
}

/** A key with gas and tokens of its own. */
export async function fundedKey(market: TestMarket, tokens = 1000n): Promise<{ signer: Signer; sender: Sender }> {
  const signer = createSigner(`0x${randomBytes(32).toString('hex')}`);
  await market.faucet.send({ to: signer.address, value: TOKEN });
  await market.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [signer.address, tokens * TOKEN] });
  return { signer, sender: market.senderOf(signer) };
}

/** Starts a seller of contents; `intercept` may answer instead, to be a bad one. */
export async function startSeller(
  market: TestMarket,
  contents: BuiltContent[],
  options: { pricePerGib?: bigint; chunkBytes?: number; intercept?: (request: Request, paywall: Paywall) => Promise<Response> } = {},
): Promise<TestSeller> {
  count += 1;
  const folder = join(market.folder, `seller-${count}`);
  await mkdir(folder, { recursive: true });
  const { signer, sender } = await fundedKey(market, 0n);
  const store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1 << 30, log: market.log });
  for (const content of contents) await storeContent(store, content);
  const receiver = await openReceiver({
    client: market.client,
    receiver: signer.address,
    folder: join(folder, 'vouchers'),
    claimIntervalSeconds: 300,
    sender,
  });
  const gateway = createTrustlessGateway({ store });
  const { pricePerGib = TEST_PRICE, chunkBytes } = options;
  const paywall = createPaywall({ gateway, receiver, pricePerGib, chunkBytes, log: market.log });
  const server = await startPeerServer({
    port: 0,
    identity: await openTransportIdentity(folder),
    fetch: (request) => (options.intercept === undefined ? paywall.fetch(request) : options.intercept(request, paywall)),
  });
  return {
    signer,
    sender,
    receiver,
    store,
    paywall,
    server,
    url: `http://127.0.0.1:${server.port}`,
    async stop() {
      await server.stop(100);
      await receiver.close();
      await store.close();
      sender.close();
    },
  };
}

/** Starts a buyer. */
export async function startBuyer(market: TestMarket, options: Partial<PayerOptions> = {}): Promise<TestBuyer> {
  count += 1;
  const { signer, sender } = await fundedKey(market);
  const payer = await createPayer({ client: market.client, signer, sender, folder: join(market.folder, `buyer-${count}`), ...options });
  return {
    signer,
    payer,
    async stop() {
      await payer.close();
      sender.close();
    },
  };
}

/** What a buyer reads from a seller: a source that pays. */
export function paidSource(
  buyer: TestBuyer,
  seller: TestSeller,
  options: { budget?: Budget; pricePerGib?: bigint; chunkBytesMax?: number } = {},
): { source: ContentSource; paid: PaidFetch } {
  const bytesMax = options.chunkBytesMax ?? CHUNK_BYTES;
  const paid = createPaidFetch({
    payer: buyer.payer,
    fetch: (url, init) => fetch(url, init),
    terms: {
      holder: seller.signer.address,
      pricePerGib: options.pricePerGib ?? TEST_PRICE,
      chunkBytes: BigInt(bytesMax),
      budget: options.budget ?? { left: 100n * TOKEN },
    },
  });
  return { source: { url: seller.url, fetch: paid.fetch, chunked: { expectedBytesHeader: EXPECTED_BYTES, bytesMax } }, paid };
}
