import { join } from 'node:path';
import { createLogger } from '../log.ts';
import { endpointUrl, RETRIEVER_DEFAULTS, type RetrieverSettings, retrieverPolicy, startNode } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { givenSettings, listenAddress, untilStopped } from './running.ts';
import { openWallet } from './secrets.ts';
import { openSession, settingSources } from './session.ts';

/** Flags of `millrace retriever`; the prices and sizes may also be settings in the environment or in `config.json`. */
export type RetrieverRunOptions = { listen: string; endpoint?: string } & RetrieverSettings;

/** Runs a retriever in the foreground until Ctrl-C. */
export async function retrieverRun(context: CommandContext, options: RetrieverRunOptions): Promise<void> {
  const sources = { ...settingSources(context), flags: options };
  const retriever = givenSettings(Object.keys(RETRIEVER_DEFAULTS), sources) as RetrieverSettings;
  retrieverPolicy(retriever);
  const at = listenAddress(options.listen);
  const endpoint = endpointUrl(options.endpoint ?? `https://${options.listen}`);
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const node = await startNode({
    folder: join(session.folder.root, 'retriever'),
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer,
    roles: ['retriever'],
    retriever,
    endpoint,
    ...at,
    quotaBytes: 0n,
    log: createLogger({ role: 'retriever', level: context.flags.logLevel }),
  });
  context.output.result(
    { holder: signer.address, host: node.host, port: node.port, endpoint, transportKey: node.transportKey },
    () => `Retriever ${signer.address} sells on ${node.host}:${node.port}, reached at ${endpoint}. Press Ctrl-C to stop.`,
  );
  await untilStopped(context);
  await node.stop();
}
