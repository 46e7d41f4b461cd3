import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import { toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type ContentSource, type OpenedContent, openContent, put, readDeal, type ShareKeyPair } from '../storage/index.ts';
import type { ObjectNetwork } from './object-publisher.ts';

/** What the endpoint needs to store and read on a network, and how durable objects shall be. */
export interface StorageNetworkOptions {
  client: ChainClient;
  signer: Signer;
  /** Lends the wallet's sender for one put: between puts other commands may use the wallet. */
  withSender<Result>(work: (sender: Sender) => Promise<Result>): Promise<Result>;
  /** The client's data folder. */
  folder: string;
  shareKey: ShareKeyPair;
  sourcesOf(cid: string): Promise<ContentSource[]>;
  copies: number;
  periods: number;
  /** Greatest price of one content. */
  maxTotal?: bigint;
  log: Logger;
}

const OPENED_MAX = 16;
const OPENED_MS = 300_000;

/** The storage network of a wallet, as the S3 endpoint uses it. */
export function createStorageNetwork(options: StorageNetworkOptions): ObjectNetwork {
  const { client, signer, folder, shareKey, copies, periods, maxTotal, log } = options;
  const opened = new Map<string, { content: Promise<OpenedContent>; atMs: number }>();
  return {
    put: (input) =>
      options.withSender(async (sender) => {
        const recipients = input.isPublic ? [] : [shareKey.publicKey];
        const source = { path: input.folder };
        const { cid, deals } = await put({
          client,
          signer,
          sender,
          folder,
          source,
          copies,
          periods,
          public: input.isPublic,
          recipients,
          maxTotal,
          untilActive: false,
          log,
          signal: input.signal,
        });
        return { cid, dealIds: deals.map(({ dealId }) => String(dealId)) };
      }),
    async fateOf(dealIds) {
      const states = await Promise.all(dealIds.map(async (dealId) => (await readDeal(client, BigInt(dealId))).state));
      if (states.includes('open')) return 'waiting';
      return states.some((state) => state === 'active' || state === 'faulty') ? 'proven' : 'lost';
    },
    open(cid) {
      const known = opened.get(cid);
      if (known !== undefined && performance.now() - known.atMs < OPENED_MS) return known.content;
      const content = options
        .sourcesOf(cid)
        .then((sources) => openContent({ cid, sources, keys: { shareKeys: [shareKey] } }))
        .catch((error: unknown) => {
          opened.delete(cid);
          throw toMillraceError(error);
        });
      opened.delete(cid);
      opened.set(cid, { content, atMs: performance.now() });
      if (opened.size > OPENED_MAX) opened.delete(opened.keys().next().value as string);
      return content;
    },
  };
}
