import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createKeystore, createSender, keystoreAddress, openKeystore } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { type StandingGateway, startStandingGateway } from '../gateway/index.ts';
import { createLogger } from '../log.ts';
import { fundFromFaucet, type NetworkFolder, nodeSocket, startControlServer } from '../node/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { answerKeyCommand } from './caller-keys.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { askRunning, listenAddress, untilStopped } from './running.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';
import { folderOf, openSession, settingSources, stakeUnitOf } from './session.ts';

/** Flags of `millrace gateway run`; each but `payments` may also be a setting in the environment or in `config.json`. */
export interface GatewayRunOptions {
  listen?: string;
  fee?: string;
  tabMax?: string;
  tlsCert?: string;
  tlsKey?: string;
  payments: boolean;
}

const FEE_BPS_MAX = 10_000;
const STOP_MS = 10_000;
/** The gateway's settings; the two without a default name files for TLS. */
export const GATEWAY_DEFAULTS = {
  gatewayListen: '127.0.0.1:8090',
  gatewayFee: '0',
  gatewayTabMax: '1',
  gatewayTlsCert: '',
  gatewayTlsKey: '',
};

/** Where the gateway of a data folder keeps its purse, keys, channels and receipts. */
export function gatewayFolder(folder: NetworkFolder): { root: string; purse: string; serving: string; socket: string } {
  const root = join(folder.root, 'gateway');
  return { root, purse: join(root, 'purse.json'), serving: join(root, 'serving'), socket: nodeSocket(root) };
}

/** Makes the gateway's own key, its purse, and fills it from the wallet up to what is asked for. Can be repeated: it tops up. */
export async function gatewayInit(context: CommandContext, options: { tokens: string; gas: string }): Promise<void> {
  const tokens = parseAmount(options.tokens, TOKEN_DECIMALS);
  const wei = parseAmount(options.gas, TOKEN_DECIMALS);
  const { client, sender, folder, manifest } = await openSender(context);
  try {
    const { root, purse: path } = gatewayFolder(folder);
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const address = existsSync(path)
      ? keystoreAddress(path)
      : (await createKeystore({ path, password: await askPassword('Password of the purse: ') })).address;
    await fundFromFaucet(client, sender, address, { tokens, wei });
    const held = await client.read('networkToken', 'balanceOf', [address]);
    const unit = stakeUnitOf(manifest);
    context.output.result({ purse: address, tokens: held, gas: await client.public.getBalance({ address }), unit }, () =>
      [
        `The gateway’s purse is ${address}; it holds ${formatAmount(held, TOKEN_DECIMALS)} ${unit}.`,
        'Next: millrace gateway keys create NAME, millrace gateway run',
      ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

/** Runs the inference gateway in the foreground until Ctrl-C or SIGTERM. */
export async function gatewayRun(context: CommandContext, options: GatewayRunOptions): Promise<void> {
  const sources = {
    ...settingSources(context),
    flags: {
      gatewayListen: options.listen,
      gatewayFee: options.fee,
      gatewayTabMax: options.tabMax,
      gatewayTlsCert: options.tlsCert,
      gatewayTlsKey: options.tlsKey,
    },
    profile: GATEWAY_DEFAULTS,
  };
  const setting = (name: keyof typeof GATEWAY_DEFAULTS) => readSetting(name, sources)?.value as string;
  const { host, port } = listenAddress(setting('gatewayListen'));
  const feeBps = feeOf(setting('gatewayFee'));
  const tabMax = parseAmount(setting('gatewayTabMax'), TOKEN_DECIMALS);
  const tls = tlsFilesOf(readSetting('gatewayTlsCert', sources)?.value, readSetting('gatewayTlsKey', sources)?.value);
  const { client, folder } = await openSession(context);
  const { root, purse: path, socket } = gatewayFolder(folder);
  if (!existsSync(path)) throw noPurse(root);
  const signer = await openKeystore({ path, password: await askPassword('Password of the purse: ') });
  const log = createLogger({ role: 'gateway', level: context.flags.logLevel });
  const sender = createSender({ client, signer, journalFolder: root, log });
  try {
    const takesPayments = options.payments;
    const gateway = await startStandingGateway({
      client,
      signer,
      sender,
      folder: root,
      host,
      port,
      tls,
      feeBps,
      tabMax,
      takesPayments,
      log,
    });
    try {
      const control = await startControlServer(socket, ({ command, arguments: given }) => answer(gateway, command, given));
      try {
        await printRunning(context, gateway, tls === undefined ? 'http' : 'https');
        await untilStopped(context);
      } finally {
        await control.stop();
      }
    } finally {
      await gateway.stop(STOP_MS);
    }
  } finally {
    sender.close();
  }
}

async function printRunning(context: CommandContext, gateway: StandingGateway, scheme: 'http' | 'https'): Promise<void> {
  const { host, port, keys } = gateway;
  const url = `${scheme}://${host}:${port}`;
  const { tokens, inChannels } = await gateway.purse();
  const usable = keys.list().filter(({ isRevoked }) => !isRevoked).length;
  const status = await gateway.status();
  context.output.result({ url, host, port, keys: usable, miners: (status.miners as unknown[]).length, tokens, inChannels }, () =>
    [
      `Base URL for OpenAI clients: ${url}/v1, with one of ${usable} keys (millrace gateway keys create NAME). Pictures: ${url}/recognize`,
      `The purse holds ${formatAmount(tokens + inChannels, TOKEN_DECIMALS)}. Numbers: ${url}/metrics, ${url}/health. Press Ctrl-C to stop.`,
      ...(scheme === 'https' || host === '127.0.0.1' || host === '[::1]'
        ? []
        : ['It speaks plain HTTP: keys travel in the open. Give it --tls-cert and --tls-key, or put a proxy with TLS before it.']),
    ].join('\n'),
  );
}

async function answer(gateway: StandingGateway, command: string, given: Record<string, unknown>): Promise<unknown> {
  if (command === 'status') return gateway.status();
  return answerKeyCommand(gateway.keys, command, given);
}

/** What the running gateway says of itself. @throws gateway-not-running */
export async function gatewayStatus(context: CommandContext): Promise<void> {
  const { socket } = gatewayFolder(folderOf(context));
  const status = (await tellGateway(socket, 'status')) as {
    purse: Record<string, string>;
    keys: number;
    receipts: number;
    miners: { operatorId: string; endpoint: string; rank: number; models: string[] }[];
  };
  context.output.result(status, () =>
    [
      `Purse: ${formatAmount(BigInt(status.purse.tokens ?? 0), TOKEN_DECIMALS)} free, ${formatAmount(BigInt(status.purse.inChannels ?? 0), TOKEN_DECIMALS)} in channels, ${formatAmount(BigInt(status.purse.spent ?? 0), TOKEN_DECIMALS)} spent, ${formatAmount(BigInt(status.purse.earned ?? 0), TOKEN_DECIMALS)} earned. ${status.keys} keys, ${status.receipts} receipts since its start.`,
      table(
        ['operator', 'rank', 'reached at', 'models'],
        status.miners.map((miner) => [miner.operatorId, miner.rank.toFixed(2), miner.endpoint, miner.models.join(' ')]),
      ),
    ].join('\n'),
  );
}

/** Tells the running gateway something. @throws gateway-not-running */
export function tellGateway(socket: string, command: string, given: Record<string, unknown> = {}): Promise<unknown> {
  const notRunning = (cause: MillraceError) =>
    new MillraceError('gateway-not-running', {
      actor: 'caller',
      message: 'No inference gateway of your own runs on this machine',
      hint: 'Start it with `millrace gateway run`.',
      cause,
    });
  return askRunning(socket, command, { arguments: given, notRunning });
}

/** @throws bad-option */
function tlsFilesOf(certPath = '', keyPath = ''): { certPath: string; keyPath: string } | undefined {
  if (certPath === '' && keyPath === '') return undefined;
  if (certPath !== '' && keyPath !== '') return { certPath, keyPath };
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${certPath === '' ? '--tls-key without --tls-cert' : '--tls-cert without --tls-key'}, expected both`,
    values: { certPath, keyPath },
  });
}

function feeOf(text: string): number {
  const bps = parseAmount(text, 2);
  if (bps <= BigInt(FEE_BPS_MAX)) return Number(bps);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got a fee of ${text.slice(0, 40)} percent, expected 0 to 100`,
    values: { got: text.slice(0, 40) },
  });
}

function noPurse(folder: string): MillraceError {
  return new MillraceError('no-gateway-purse', {
    actor: 'caller',
    message: `There is no purse of a gateway in ${folder}`,
    values: { folder },
    hint: 'Make and fill one with `millrace gateway init --tokens 100`.',
  });
}
