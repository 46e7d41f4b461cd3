import { existsSync } from 'node:fs';
import { openKeystore } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { hasReceiptCourt, type ReceiptBond, readReceiptBond, uidsOfOperator } from '../inference/index.ts';
import { createLogger } from '../log.ts';
import {
  INFERENCE_DEFAULTS,
  type InferenceSettings,
  nodeSocket,
  RELAY_DEFAULTS,
  type RelaySettings,
  relayedBy,
  relayTerms,
  startNode,
} from '../node/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import type { ModelNodeKind } from './model-node.ts';
import { noNodeKey, ownNode } from './operator.ts';
import { givenSettings, listenAddress, untilStopped } from './running.ts';
import { askPassword } from './secrets.ts';
import { openSession, type Session, settingSources } from './session.ts';

/** Flags of `millrace miner run` and `millrace validator run`; each may also be a setting in the environment or in `config.json`. */
export type ModelNodeRunOptions = { listen?: string; relay?: string } & RelaySettings & ShortFlags;

/** The settings of a node by the short names that its flags have. */
const FLAGS = {
  model: 'inferenceModels',
  backend: 'inferenceBackend',
  backendModel: 'inferenceBackendModels',
  backendKeyFile: 'inferenceBackendKeyFile',
  backendKeyEnv: 'inferenceBackendKeyEnv',
  priceIn: 'inferencePriceIn',
  priceOut: 'inferencePriceOut',
  priceRequest: 'inferencePriceRequest',
  concurrency: 'inferenceConcurrency',
  queue: 'inferenceQueue',
  perPayer: 'inferencePerPayer',
  outputMax: 'inferenceOutputMax',
  modelMemory: 'inferenceModelMemory',
  timeLimit: 'inferenceTimeLimit',
  bodies: 'inferenceBodies',
  bodyMax: 'inferenceBodyMax',
  gateway: 'validatorGateways',
  gatewaysFile: 'validatorGatewaysFile',
  pulses: 'validatorPulses',
  probes: 'validatorProbes',
  emissionPrice: 'validatorEmissionPrice',
  tabMax: 'validatorTabMax',
  images: 'validatorImages',
  cases: 'validatorCases',
} as const satisfies Record<string, keyof typeof INFERENCE_DEFAULTS>;

type ShortFlags = { [name in keyof typeof FLAGS]?: string | string[] };

const LISTEN: Record<ModelNodeKind, string> = { miner: '127.0.0.1:9200', validator: '127.0.0.1:9300' };

/** Runs a miner or a validator of one's own in the foreground until Ctrl-C or SIGTERM. */
export async function modelNodeRun(context: CommandContext, kind: ModelNodeKind, options: ModelNodeRunOptions): Promise<void> {
  const inference = inferenceSettingsOf(context, kind, options);
  const listen = `${kind}Listen`;
  const sources = { ...settingSources(context), flags: { [listen]: options.listen, relay: options.relay } };
  const { host, port } = listenAddress(readSetting(listen, sources)?.value ?? LISTEN[kind]);
  const through = relayedBy(readSetting('relay', sources)?.value ?? 'none');
  const relay = givenSettings(Object.keys(RELAY_DEFAULTS), { ...sources, flags: options as Record<string, string> }) as RelaySettings;
  relayTerms(0n, relay);
  const session = await openSession(context);
  const own = ownNode(session.folder, kind);
  if (!existsSync(own.keystore)) throw noNodeKey(own.folder, kind);
  const signer = await openKeystore({ path: own.keystore, password: await askPassword('Password of the node key: ') });
  const progress = context.output.progress('starting');
  progress.update(0, undefined, 'asking the backend, locking the bond');
  const node = await startNode({
    folder: own.folder,
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer,
    roles: [kind],
    inference,
    dataFolder: session.folder.root,
    relay,
    relayedBy: through,
    host,
    port,
    quotaBytes: 0n,
    controlSocket: nodeSocket(own.folder),
    log: createLogger({ role: kind, level: context.flags.logLevel }),
  }).finally(() => progress.end());
  try {
    await printRunning(context, session, { kind, node, key: signer.address });
    await untilStopped(context);
  } finally {
    await node.stop();
  }
}

async function printRunning(
  context: CommandContext,
  { client }: Session,
  { kind, node, key }: { kind: ModelNodeKind; node: Awaited<ReturnType<typeof startNode>>; key: `0x${string}` },
): Promise<void> {
  const { operatorId, host, port, transportKey } = node;
  const [uids, bond] = await Promise.all([
    uidsOfOperator(client, operatorId),
    kind === 'miner' && hasReceiptCourt(client) ? readReceiptBond(client, { operatorId, key }) : undefined,
  ]);
  context.output.result({ operatorId, host, port, transportKey, uids, bond: bond ?? null }, () =>
    [
      `Operator ${operatorId} ${kind === 'miner' ? 'serves' : 'judges'} on ${host}:${port}${uids.map(({ subnetId, uid }) => `, uid ${uid} of subnet ${subnetId}`).join('')}. Press Ctrl-C to stop.`,
      ...(uids.length === 0 ? [`It holds no uid: nobody finds it. millrace ${kind} init --subnet NUMBER`] : []),
      ...(bond === undefined || bond.isBonded ? [] : [unbondedText(bond)]),
    ].join('\n'),
  );
}

/** Why gateways pass a miner over, and what mends it. */
export function unbondedText({ needed, locked }: ReceiptBond): string {
  return `Its receipts are not bonded, so gateways pass it over: ${formatAmount(needed - locked, TOKEN_DECIMALS)} more of free stake (millrace miner stake) and gas at the node key are needed.`;
}

/** The settings of a node by its flags, the environment and `config.json`; a gateway's key and a backend's never come by a flag. */
function inferenceSettingsOf(context: CommandContext, kind: ModelNodeKind, options: ShortFlags): InferenceSettings {
  const flags: Record<string, string | undefined> = {};
  for (const [short, name] of Object.entries(FLAGS)) flags[name] = text(options[short as keyof ShortFlags]);
  if (/:\/\/[^/,]*@/.test(flags.validatorGateways ?? '')) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: 'A key was given in --gateway, where every user of this machine can read it',
      hint: 'Put https://key@host:port into a file, one a line, and name it with --gateways-file.',
    });
  }
  const given = givenSettings(Object.keys(INFERENCE_DEFAULTS), { ...settingSources(context), flags }) as InferenceSettings;
  // Whoever names a backend and no embedded model serves the backend's alone.
  const isBackendAlone = kind === 'miner' && given.inferenceBackend !== undefined && given.inferenceModels === undefined;
  return isBackendAlone ? { ...given, inferenceModels: '' } : given;
}

function text(given: string | string[] | undefined): string | undefined {
  return Array.isArray(given) ? given.join(',') : given;
}
