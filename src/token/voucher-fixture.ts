import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Address } from 'viem';
import {
  type ChainClient,
  type ChainSupervisor,
  connectChain,
  controlChain,
  createSender,
  deployNetwork,
  developmentSigner,
  type Sender,
  type Signer,
  startChainSupervisor,
} from '../chain/index.ts';
import { silentLogger } from '../log.ts';
import { createPayer, type Payer, type PayerOptions } from './voucher-payer.ts';
import { type Credit, openReceiver, type PaymentOffer, type Receiver, type ReceiverOptions } from './voucher-receiver.ts';
import { PAYMENT_RESPONSE, PAYMENT_SIGNATURE } from './x402-wire.ts';

/** A real embedded chain with channels in its genesis block; account 1 receives, accounts 2 to 5 pay. For tests. */
export interface ChannelsNetwork {
  folder: string;
  chain: ChainSupervisor;
  client: ChainClient;
  signer(index: number): Signer;
  sender(index: number): Sender;
  payer(index: number, more?: Partial<PayerOptions>): Promise<Payer>;
  receiver(more?: Partial<ReceiverOptions>): Promise<Receiver>;
  /** Moves protocol time. */
  warp(seconds: number): Promise<void>;
  stop(): Promise<void>;
}

/** Claim interval of the test receivers, seconds. */
export const TEST_INTERVAL = 300;

/** Starts a chain, deploys a network, gives every payer both tokens. */
export async function startChannelsNetwork(options: { inGenesis?: boolean } = {}): Promise<ChannelsNetwork> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-channels-'));
  const signer = (index: number) => developmentSigner(index, 'dev');
  const deployer = signer(0).address;
  const accounts = [0, 1, 2, 3, 4, 5].map((index) => ({ address: signer(index).address, balance: 10n ** 24n }));
  const channels = (options.inGenesis ?? true) ? { deployer, feeBps: 100 } : undefined;
  const chain = await startChainSupervisor({ folder: join(folder, 'chain'), accounts, channels, idleSeconds: 1 });
  const manifest = await deployNetwork({
    rpcUrl: chain.rpcUrl,
    name: 'channels-test',
    profile: 'dev',
    signer: signer(0),
    folder,
    manifestPath: join(folder, 'network.json'),
    embedded: true,
  });
  const client = await connectChain({ rpcUrl: chain.rpcUrl, manifest });
  const senders = new Map<number, Sender>();
  const sender = (index: number): Sender => {
    const known = senders.get(index);
    if (known !== undefined) return known;
    const made = createSender({ client, signer: signer(index), journalFolder: join(folder, 'keys'), log: silentLogger });
    senders.set(index, made);
    return made;
  };
  for (const index of [2, 3, 4, 5]) {
    await sender(0).send({ contract: 'networkToken', functionName: 'transfer', args: [signer(index).address, 10n ** 24n] });
    await sender(0).send({ contract: 'stableToken', functionName: 'mint', args: [signer(index).address, 10n ** 11n] });
  }
  return {
    folder,
    chain,
    client,
    signer,
    sender,
    payer: (index, more) =>
      createPayer({ client, signer: signer(index), sender: sender(index), folder: join(folder, `payer-${index}`), ...more }),
    receiver: (more) =>
      openReceiver({
        client,
        receiver: signer(1).address,
        folder: join(folder, 'receiver'),
        claimIntervalSeconds: TEST_INTERVAL,
        sender: sender(1),
        ...more,
      }),
    async warp(seconds) {
      await controlChain(chain.controlPath, { command: 'warp', seconds });
    },
    async stop() {
      for (const open of senders.values()) open.close();
      await chain.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A server that sells its paths: any path is 1 kB for `amount`. */
export interface PaidServer {
  url: string;
  credits: Credit[];
  /** What stays of a request's charge; all of it by default, undefined: that is said later. */
  delivered: (credit: Credit) => bigint | undefined;
  stop(): Promise<void>;
}

/** Serves over plain HTTP with the headers of x402 v2. */
export async function startPaidServer(receiver: Receiver, price: { amount: bigint; token?: Address }): Promise<PaidServer> {
  const server: Server = createServer((request, response) => {
    const url = `http://${request.headers.host}${request.url}`;
    const offer: PaymentOffer = { ...price, resource: { url } };
    const header = request.headers[PAYMENT_SIGNATURE.toLowerCase()];
    const refuse = (error?: unknown) => {
      const { status, headers, body } = receiver.demand(offer, error);
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
    };
    if (typeof header !== 'string') return refuse();
    receiver
      .accept(header, offer)
      .then(async (credit) => {
        paid.credits.push(credit);
        response.writeHead(200, { [PAYMENT_RESPONSE]: credit.header }).end(Buffer.alloc(1000, request.url));
        const kept = paid.delivered(credit);
        if (kept !== undefined) await credit.settle(kept);
      })
      .catch(refuse);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const paid: PaidServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credits: [],
    delivered: (credit) => credit.charged,
    stop: () => new Promise((resolve) => void server.close(() => resolve())),
  };
  return paid;
}
