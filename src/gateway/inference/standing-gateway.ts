import { join } from 'node:path';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import {
  hasReceiptCourt,
  inferenceReceiptDomain,
  openReceiptReporter,
  type ServingAnswer,
  type ServingRequest,
} from '../../inference/index.ts';
import type { Logger } from '../../log.ts';
import { type Claimer, createPayer, openReceiver, type Payer, type Receiver, startClaimer } from '../../token/index.ts';
import type { TlsFiles } from '../tls-files.ts';
import type { CallerKeys } from './caller-keys.ts';
import { type InferenceServer, startInferenceServer } from './inference-server.ts';
import { minersOfNetwork } from './network-miners.ts';
import { openReplayCourier } from './replay-courier.ts';

/** How a gateway that stands by itself is run. Money in base units of the network's token. */
export interface StandingGatewayOptions {
  client: ChainClient;
  /** The purse: pays miners, and is paid by callers without a key. */
  signer: Signer;
  sender: Sender;
  folder: string;
  host: string;
  port: number;
  /** Serves HTTPS with them; plain HTTP without. */
  tls?: TlsFiles;
  /** On top of miners' prices, hundredths of a percent. */
  feeBps: number;
  /** The most that is paid ahead to one miner. */
  tabMax: bigint;
  /** Callers without a key may pay for each request by x402. */
  takesPayments: boolean;
  refreshMs?: number;
  log: Logger;
}

/** What the purse holds and what is tied up in channels with miners. */
export interface PurseState {
  tokens: bigint;
  /** The chain's own coin, for fees. */
  wei: bigint;
  /** In channels with miners, not yet spent. */
  inChannels: bigint;
  spent: bigint;
  /** From callers who paid by themselves. */
  earned: bigint;
}

/** A running gateway with a purse of its own. */
export interface StandingGateway {
  host: string;
  port: number;
  keys: CallerKeys;
  purse(): Promise<PurseState>;
  /** What it serves and how it stands, for whoever runs it. */
  status(): Promise<Record<string, unknown>>;
  stop(graceMs?: number): Promise<void>;
}

/** A channel with a miner is filled for so many tabs ahead: what is not used can be had back after the channel's delay. */
const DEPOSIT_TABS = 4n;
const CLAIM_SECONDS = 300;
/** Pages that ask for the purse ask the chain at most so often. */
const PURSE_MS = 10_000;

/**
 * Starts a gateway to a network's miners that stays: it pays them by vouchers from a purse of its own, takes callers with keys and, if wanted, with
 * x402 payments, shows validators what callers allow, brings receipts that convict to the court for the reward, and says at `/health` and `/metrics` how
 * it stands. What it must not lose (keys, budgets, channels, vouchers, reports) is in its folder.
 * @throws folder-busy, port-in-use, key-in-use, bad-tls-file, unknown-module, and the chain's errors
 */
export async function startStandingGateway(options: StandingGatewayOptions): Promise<StandingGateway> {
  const { client, signer, sender, folder, log } = options;
  const closing: (() => Promise<unknown>)[] = [];
  const closeAll = async () => {
    for (const close of closing.splice(0).reverse()) await close();
  };
  try {
    const domain = inferenceReceiptDomain(client);
    const payer = await createPayer({ client, signer, sender, folder: join(folder, 'channels'), depositRequests: DEPOSIT_TABS });
    closing.push(() => payer.close());
    const courier = openReplayCourier({ client, payer, signer, folder, log });
    closing.push(() => courier.close());
    const reporter = hasReceiptCourt(client) ? openReceiptReporter({ client, sender, folder: join(folder, 'reports'), log }) : undefined;
    if (reporter !== undefined) closing.push(() => reporter.close());
    const receiver = options.takesPayments ? await openTill(options, closing) : undefined;
    const look = () => readPurse(client, { signer, payer, receiver });
    const purse = cachedFor(PURSE_MS, look);
    let server: InferenceServer | undefined;
    const page = (request: ServingRequest) => (server === undefined ? undefined : pageOf(request, server, purse));
    server = await startInferenceServer({
      folder: join(folder, 'serving'),
      host: options.host,
      port: options.port,
      tls: options.tls,
      domain,
      miners: () => minersOfNetwork(client),
      payer,
      receiver,
      token: client.address('networkToken'),
      now: () => client.now(),
      feeBps: options.feeBps,
      tabMax: options.tabMax,
      refreshMs: options.refreshMs,
      onPaid: courier.onPaid,
      onSample: courier.onSample,
      onReceipt: (seen) => reporter?.see(seen),
      page,
      log,
    });
    const { host, port, keys, directory, receipts } = server;
    const started = server;
    return {
      host,
      port,
      keys,
      purse: look,
      status: async () => ({
        purse: await look(),
        takesPayments: options.takesPayments,
        feeBps: options.feeBps,
        receipts: receipts.count,
        reports: reporter?.status() ?? null,
        keys: keys.list().length,
        miners: [...directory.all()].map(({ entry, signed }) => ({
          operatorId: entry.operatorId,
          endpoint: entry.endpoint,
          rank: entry.rank,
          models: signed.offer.models.map(({ id }) => id),
        })),
      }),
      async stop(graceMs) {
        await started.stop(graceMs);
        await closeAll();
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Takes payments of callers without a key, and turns them into money. */
async function openTill(
  { client, signer, sender, folder, log }: StandingGatewayOptions,
  closing: (() => Promise<unknown>)[],
): Promise<Receiver> {
  const earned = { folder: join(folder, 'earned'), tokens: ['network'] as const, claimIntervalSeconds: CLAIM_SECONDS };
  const receiver = await openReceiver({ client, receiver: signer.address, sender, ...earned });
  closing.push(() => receiver.close());
  const claimer: Claimer = startClaimer({ client, receiver, sender, intervalSeconds: CLAIM_SECONDS, log });
  closing.push(() => claimer.stop());
  return receiver;
}

async function readPurse(
  client: ChainClient,
  { signer, payer, receiver }: { signer: Signer; payer: Payer; receiver: Receiver | undefined },
): Promise<PurseState> {
  const [tokens, wei] = await Promise.all([
    client.read('networkToken', 'balanceOf', [signer.address]),
    client.public.getBalance({ address: signer.address }),
  ]);
  const channels = payer.channels();
  const spent = channels.reduce((sum, { charged }) => sum + charged, 0n);
  const deposited = channels.reduce((sum, { balance }) => sum + balance, 0n);
  const earned = receiver === undefined ? 0n : [...receiver.channels()].reduce((sum, { charged }) => sum + charged, 0n);
  return { tokens, wei, inChannels: deposited > spent ? deposited - spent : 0n, spent, earned };
}

/** `/health` and `/metrics`; everything else is the gateway's. */
function pageOf(request: ServingRequest, server: InferenceServer, purse: () => Promise<PurseState>): Promise<ServingAnswer> | undefined {
  if (request.method !== 'GET' && request.method !== 'HEAD') return undefined;
  if (request.path === '/health') return healthOf(server, purse);
  return request.path === '/metrics' ? metricsOf(server, purse) : undefined;
}

async function healthOf({ directory }: InferenceServer, purse: () => Promise<PurseState>): Promise<ServingAnswer> {
  const miners = [...directory.all()].length;
  const held = await purse().catch(() => undefined);
  const lacks = [
    ...(held === undefined ? ['chain'] : []),
    ...(miners === 0 ? ['miners'] : []),
    ...(held !== undefined && held.tokens + held.inChannels === 0n ? ['tokens'] : []),
    ...(held !== undefined && held.wei === 0n ? ['gas'] : []),
  ];
  const body = JSON.stringify({ status: lacks.length === 0 ? 'ok' : 'degraded', miners, lacks });
  return { status: lacks.length === 0 ? 200 : 503, headers: { 'content-type': 'application/json', 'cache-control': 'no-store' }, body };
}

async function metricsOf(server: InferenceServer, purse: () => Promise<PurseState>): Promise<ServingAnswer> {
  const held = await purse().catch(() => undefined);
  const lines: [string, bigint | number][] = [
    ['millrace_gateway_keys_count', server.keys.list().filter(({ isRevoked }) => !isRevoked).length],
    ...(held === undefined
      ? []
      : ([
          ['millrace_gateway_purse_base_units', held.tokens],
          ['millrace_gateway_purse_gas_wei', held.wei],
          ['millrace_gateway_channels_base_units', held.inChannels],
          ['millrace_gateway_spent_base_units', held.spent],
          ['millrace_gateway_earned_base_units', held.earned],
        ] as [string, bigint][])),
  ];
  const body = `${server.metrics()}${lines.map(([name, value]) => `# TYPE ${name} gauge\n${name} ${value}\n`).join('')}`;
  return { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' }, body };
}

/** Asks again only when the last answer is older than this; a failure is told and not remembered. */
function cachedFor<T>(ageMs: number, read: () => Promise<T>): () => Promise<T> {
  let known: { at: number; value: Promise<T> } | undefined;
  return () => {
    if (known !== undefined && systemClock.nowMs() - known.at < ageMs) return known.value;
    const value = read();
    known = { at: systemClock.nowMs(), value };
    value.catch((error) => {
      if (known?.value === value) known = undefined;
      return toMillraceError(error);
    });
    return value;
  };
}
