import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { ReceiptDomain } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { listenerOf, type SeenReceipt, type ServingAnswer, type ServingRequest, TOKEN_COUNTERS } from '../../inference/index.ts';
import { lockFolder } from '../../lock.ts';
import type { Logger } from '../../log.ts';
import type { Payer, Receiver } from '../../token/index.ts';
import { followTlsFiles, readTlsPair, type TlsFiles } from '../tls-files.ts';
import { type CallerKeys, keysPath, openCallerKeys } from './caller-keys.ts';
import { createInferenceGateway, type PaidRequest, type ReplaySample } from './inference-gateway.ts';
import { type MinerDirectory, type MinerEntry, openMinerDirectory } from './miner-directory.ts';
import { openReceiptBook, type ReceiptBook } from './receipt-book.ts';
import type { Tokenizers } from './recount.ts';
import type { RoutingRules } from './routing.ts';

/** How a gateway for inference is started. Money in base units of the token. */
export interface InferenceServerOptions {
  /** Keys and receipts are kept here. Locked while it runs. */
  folder: string;
  host?: string;
  port: number;
  /** Serves HTTPS with them, and with what they are replaced by; plain HTTP without. */
  tls?: TlsFiles;
  domain: ReceiptDomain;
  /** Who there is: from the chain. */
  miners: () => Promise<readonly MinerEntry[]>;
  /** Pays miners; without it only miners that cost nothing are used. */
  payer?: Payer;
  /** Takes x402 payments of callers without a key. */
  receiver?: Receiver;
  token?: string;
  /** Protocol time, seconds. */
  now: () => bigint | Promise<bigint>;
  /** On top of miners' prices, hundredths of a percent. Default 0. */
  feeBps?: number;
  /** No key and no payment is asked for. For 127.0.0.1 only. */
  isOpen?: boolean;
  /** The most that is paid ahead to one miner; a quarter of it to one that has earned nothing yet. Default 10^18. */
  tabMax?: bigint;
  /** Count tokens again, by model root. Default: those of embedded models. */
  tokenizers?: Tokenizers;
  /** Both are what an open replay courier gives (`openReplayCourier`): spread it into the options. */
  onSample?: (sample: ReplaySample) => void;
  onPaid?: (paid: PaidRequest) => void;
  /** Gets every receipt that a miner sent, also those that are no good (`openReceiptReporter`). */
  onReceipt?: (seen: SeenReceipt) => void;
  rules?: Partial<RoutingRules>;
  /** Asked first for every request: pages of whoever runs the gateway. Undefined leaves it to the gateway. */
  page?: (request: ServingRequest) => Promise<ServingAnswer> | undefined;
  refreshMs?: number;
  log: Logger;
}

/** A running gateway. */
export interface InferenceServer {
  host: string;
  port: number;
  keys: CallerKeys;
  receipts: ReceiptBook;
  directory: MinerDirectory;
  metrics(): string;
  stop(graceMs?: number): Promise<void>;
}

const HTTP_LIMITS = {
  headersTimeout: 15_000,
  requestTimeout: 120_000,
  keepAliveTimeout: 30_000,
  maxHeaderSize: 32_768,
  connectionsCheckingInterval: 5_000,
};
const CONNECTIONS_MAX = 4096;
const SILENCE_MS = 120_000;
const TAB_MAX = 10n ** 18n;
const REFRESH_MS = 15_000;

/** Starts a gateway in front of the network's miners. @throws folder-busy, journal-damaged, port-in-use, open-gateway-exposed, bad-tls-file */
export async function startInferenceServer(options: InferenceServerOptions): Promise<InferenceServer> {
  const host = options.host ?? '127.0.0.1';
  if (options.isOpen === true && host !== '127.0.0.1' && host !== '::1') throw exposed(host);
  const lock = lockFolder(options.folder);
  const opened: (() => Promise<void> | void)[] = [() => lock.release()];
  try {
    const keys = openCallerKeys(keysPath(options.folder));
    opened.push(() => keys.close());
    const receipts = await openReceiptBook(join(options.folder, 'receipts'), options.log);
    opened.push(() => receipts.close());
    const directory = await openMinerDirectory({
      ...options,
      tabMax: options.tabMax ?? TAB_MAX,
      refreshMs: options.refreshMs ?? REFRESH_MS,
      socketsMax: 1024,
    });
    opened.push(() => directory.stop());
    const gateway = createInferenceGateway({
      tokenizers: TOKEN_COUNTERS,
      ...options,
      directory,
      keys,
      receipts,
      feeBps: options.feeBps ?? 0,
    });
    opened.push(() => gateway.stop());
    const listener = listenerOf((request) => options.page?.(request) ?? gateway.answer(request));
    const server = options.tls === undefined ? http.createServer(HTTP_LIMITS, listener) : secureServer(options.tls, listener, options.log);
    server.maxConnections = CONNECTIONS_MAX;
    server.timeout = SILENCE_MS;
    await listen(server, options.port, host);
    return {
      host,
      port: (server.address() as AddressInfo).port,
      keys,
      receipts,
      directory,
      metrics: () => gateway.metrics(),
      async stop(graceMs = 5000) {
        const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
        server.closeIdleConnections();
        const cut = setTimeout(() => server.closeAllConnections(), graceMs);
        await closed;
        clearTimeout(cut);
        for (const close of opened.reverse()) await close();
      },
    };
  } catch (error) {
    for (const close of opened.reverse()) await close();
    throw error;
  }
}

function secureServer(files: TlsFiles, listener: http.RequestListener, log: Logger): https.Server {
  const pair = readTlsPair(files);
  const server = https.createServer({ ...HTTP_LIMITS, ...pair, handshakeTimeout: HTTP_LIMITS.headersTimeout }, listener);
  const stopFollowing = followTlsFiles(server, pair, { files, log });
  server.once('close', stopFollowing);
  return server;
}

function listen(server: http.Server | https.Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `Cannot listen on ${host}:${port}: ${cause.message}`;
      reject(
        new MillraceError('port-in-use', {
          actor: 'caller',
          message,
          values: { host, port },
          hint: 'Choose another port, or 0 for any.',
          cause,
        }),
      );
    });
    server.listen(port, host, resolve);
  });
}

function exposed(host: string): MillraceError {
  return new MillraceError('open-gateway-exposed', {
    actor: 'caller',
    message: `A gateway that asks for neither key nor payment would listen on ${host}: anybody could spend your money`,
    values: { host },
    hint: 'Let it ask for keys, or listen on 127.0.0.1.',
  });
}
