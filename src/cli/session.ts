import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Address } from 'viem';
import { type ChainClient, connectChain, type Manifest, readManifest } from '../chain/index.ts';
import { dataFolder, readConfigFile, readSetting, type SettingSources } from '../config.ts';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { createLogger, type Logger } from '../log.ts';
import { askControl, type NetworkFolder, networkFolder, readRunState } from '../node/index.ts';
import { STABLE_DECIMALS, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';

/** A supervisor that has much to do answers all the same. */
const CONTROL_MS = 5_000;

/** The network that a command works on. */
export interface Session {
  folder: NetworkFolder;
  manifest: Manifest;
  rpcUrl: string;
  client: ChainClient;
  log: Logger;
}

/** The folder of the network that the flags name. */
export function folderOf(context: CommandContext): NetworkFolder {
  return networkFolder(dataFolder(context.flags.data), context.flags.network);
}

/** Where settings come from for this command; the network's own `config.json` goes before that of the data folder. */
export function settingSources(context: CommandContext): SettingSources {
  return {
    flags: { rpcUrl: context.flags.rpcUrl },
    env: process.env,
    file: { ...readConfigFile(dataFolder(context.flags.data)), ...readConfigFile(folderOf(context).root) },
  };
}

/** Keeps the address of a network's chain in the network's `config.json`, so that later commands need not be told. */
export function rememberChain(folder: NetworkFolder, rpcUrl: string): void {
  const path = join(folder.root, 'config.json');
  writeFileDurably(path, `${JSON.stringify({ ...readConfigFile(folder.root), rpcUrl }, null, 2)}\n`);
}

/** The log of commands: a file, so that standard error stays for people. */
export function commandLog(context: CommandContext, role = 'cli'): Logger {
  return createLogger({ role, level: context.flags.logLevel, file: join(folderOf(context).logs, 'cli.log') });
}

/** The symbol of a token by its address; of one that the network does not name, the address. */
export function unitOf({ tokens }: Manifest, token: Address): string {
  return Object.values(tokens).find(({ address }) => address.toLowerCase() === token.toLowerCase())?.symbol ?? token;
}

/** What the token is called that a network's stakes, storage and inference are paid in. */
export function stakeUnitOf({ tokens }: Manifest): string {
  return tokens.network?.symbol ?? 'tokens';
}

/** Decimals of the token that computing is paid in. */
export function decimalsOf({ manifest }: Pick<Session, 'manifest'>, token: 'stable' | 'native'): number {
  return token === 'native' ? (manifest.tokens.compute?.decimals ?? TOKEN_DECIMALS) : (manifest.tokens.stable?.decimals ?? STABLE_DECIMALS);
}

/**
 * Connects to the network's chain, checked against its manifest.
 * @throws no-network, not-running, wrong-network, chain-id-mismatch, chain-unreachable
 */
export async function openSession(context: CommandContext): Promise<Session> {
  const folder = folderOf(context);
  if (!existsSync(folder.manifest)) {
    throw new MillraceError('no-network', {
      actor: 'caller',
      message: `There is no network "${context.flags.network}" in ${folder.root}`,
      values: { network: context.flags.network, folder: folder.root },
      hint: 'Start one with `millrace up`, or use another’s with `millrace join network.json`.',
    });
  }
  const manifest = readManifest(folder.manifest);
  const rpcUrl = readSetting('rpcUrl', settingSources(context))?.value ?? readRunState(folder)?.rpcUrl;
  if (rpcUrl === undefined) {
    throw new MillraceError('no-rpc-url', {
      actor: 'caller',
      message: `No chain is known for ${manifest.name}`,
      hint: 'Give --rpc-url or set MILLRACE_RPC_URL.',
    });
  }
  try {
    return { folder, manifest, rpcUrl, client: await connectChain({ rpcUrl, manifest }), log: commandLog(context) };
  } catch (error) {
    const isOwn = error instanceof MillraceError && error.code === 'chain-unreachable' && readRunState(folder)?.rpcUrl === rpcUrl;
    throw isOwn ? await whyOwnIsSilent(folder, manifest.name, error) : error;
  }
}

/** The chain of this machine does not answer: nothing runs, or the chain is being started again. */
async function whyOwnIsSilent(folder: NetworkFolder, network: string, cause: MillraceError): Promise<MillraceError> {
  const isKept = await askControl(folder.controlSocket, 'status', { timeoutMs: CONTROL_MS }).then(
    () => true,
    () => false,
  );
  if (isKept) {
    return new MillraceError('chain-restarting', {
      actor: 'host',
      message: `The chain of the network ${network} does not answer; it is being started again`,
      values: { network },
      hint: 'Try again in a few seconds; `millrace logs chain` says more.',
      cause,
    });
  }
  return new MillraceError('not-running', {
    actor: 'caller',
    message: `The network ${network} is not running on this machine`,
    values: { network },
    hint: 'Start it with `millrace up`.',
    cause,
  });
}
