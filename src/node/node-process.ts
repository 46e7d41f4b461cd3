/**
 * One node as a process of its own. One argument: its options as JSON. Prints one ready line on standard output, errors
 * as JSON on standard error. SIGTERM and SIGINT stop it cleanly.
 */
import { readFileSync } from 'node:fs';
import { developmentSigner, openKeystore, readManifest, type Signer } from '../chain/index.ts';
import { exitCodeOf, MillraceError, toMillraceError } from '../errors.ts';
import { createLogger, type LogLevel } from '../log.ts';
import { countExternalMemory } from '../memory.ts';
import type { ComputeSettings } from './compute-settings.ts';
import type { InferenceSettings } from './inference-settings.ts';
import { nodeSocket } from './network-folder.ts';
import { startNode } from './node.ts';
import { type RelaySettings, relayedBy } from './relay-settings.ts';
import type { AskSettings } from './storage-policy.ts';

/** The options of a node process. `key` names where the node key comes from; it is never passed itself. */
export interface NodeProcessOptions {
  name: string;
  folder: string;
  manifestPath: string;
  rpcUrl: string;
  roles: string[];
  host?: string;
  port: number;
  quotaBytes: string;
  ask?: AskSettings;
  relay?: RelaySettings;
  inference?: InferenceSettings;
  compute?: ComputeSettings;
  /** The network's folder on this machine. */
  dataFolder?: string;
  /** `none`, `auto` or numbers of operators. */
  relayedBy?: string;
  key: { developmentIndex: number } | { keystore: string; passwordFile: string };
  logFile?: string;
  logLevel?: LogLevel;
}

countExternalMemory();

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] === '-' ? readFileSync(0, 'utf8') : (process.argv[2] ?? 'null')) as NodeProcessOptions | null;
  if (options === null) {
    throw new MillraceError('bad-arguments', { actor: 'caller', message: 'Expected one argument: the options of the node as JSON' });
  }
  const manifest = readManifest(options.manifestPath);
  const node = await startNode({
    ...options,
    controlSocket: nodeSocket(options.folder),
    manifest,
    signer: await signerOf(options.key, manifest.profile),
    quotaBytes: BigInt(options.quotaBytes),
    relayedBy: relayedBy(options.relayedBy ?? 'none'),
    log: createLogger({ role: options.name, file: options.logFile, level: options.logLevel }),
  });
  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    node.stop().finally(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.stdout.write(
    `${JSON.stringify({ ready: true, pid: process.pid, operatorId: node.operatorId.toString(), port: node.port, transportKey: node.transportKey })}\n`,
  );
}

async function signerOf(key: NodeProcessOptions['key'], profile: string): Promise<Signer> {
  if ('developmentIndex' in key) return developmentSigner(key.developmentIndex, profile);
  return openKeystore({ path: key.keystore, password: readFileSync(key.passwordFile, 'utf8').replace(/\r?\n$/, '') });
}

main().catch((error) => {
  process.stderr.write(`${JSON.stringify(toMillraceError(error))}\n`);
  process.exit(exitCodeOf(error));
});
