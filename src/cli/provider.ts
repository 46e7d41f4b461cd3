import { existsSync } from 'node:fs';
import { openKeystore } from '../chain/index.ts';
import { readSetting, type SettingSources } from '../config.ts';
import { createLogger } from '../log.ts';
import {
  ASK_DEFAULTS,
  type AskSettings,
  endpointUrl,
  nodeSocket,
  RELAY_DEFAULTS,
  type RelaySettings,
  relayedBy,
  relayTerms,
  startNode,
  storagePolicy,
} from '../node/index.ts';
import { formatAmount, formatDuration, parseAmount, parseSize, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { initOwnOperator, noNodeKey, ownNode } from './operator.ts';
import { table } from './output.ts';
import { givenSettings, listenAddress, untilStopped } from './running.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';
import { openSession, settingSources, stakeUnitOf } from './session.ts';
import { nextProof, providerRows, reachText, standingText } from './status.ts';

/** Options of `millrace provider init`. */
export interface ProviderInitOptions {
  /** Where others reach the node; absent behind a router, where a relay's address is published when the node runs. */
  endpoint?: string;
  beneficiary?: string;
  region?: string;
  stake: string;
  limit?: string;
}

/** Of the stake, what the node key may promise until its owner says otherwise: whoever steals the key can take half of that. */
const DEFAULT_LIMIT_PART = 4n;

/** Makes a node key and a TLS key, registers the wallet as owner of a new operator, and stakes. Can be repeated. */
export async function providerInit(context: CommandContext, options: ProviderInitOptions): Promise<void> {
  const endpoint = options.endpoint === undefined ? '' : endpointUrl(options.endpoint);
  const beneficiary = options.beneficiary === undefined ? undefined : parseAddress('--beneficiary', options.beneficiary);
  const stake = parseAmount(options.stake, TOKEN_DECIMALS);
  const limit = options.limit === undefined ? stake / DEFAULT_LIMIT_PART : parseAmount(options.limit, TOKEN_DECIMALS);
  const opened = await openSender(context);
  try {
    const wanted = { kind: 'provider', endpoint, beneficiary, region: options.region, stake, limit } as const;
    const { operatorId, nodeKey, transportKey } = await initOwnOperator(opened, wanted);
    context.output.result({ operatorId, owner: opened.signer.address, nodeKey: nodeKey.address, transportKey, endpoint, limit }, () =>
      [
        `Operator ${operatorId}, staked ${options.stake}. Its node key may promise ${limit === 0n ? 'all of it' : formatAmount(limit, TOKEN_DECIMALS)} (millrace provider limit).`,
        `Send a little gas to the node key, which pays for proofs: millrace wallet send ${nodeKey.address} 0.1 --gas`,
        endpoint === '' ? 'Next: millrace provider run --relay auto' : 'Next: millrace provider run',
      ].join('\n'),
    );
  } finally {
    opened.sender.close();
  }
}

/** Flags of `millrace provider run`; each may also be a setting in the environment or in `config.json`. */
export type ProviderRunOptions = { listen?: string; quota?: string; roles?: string; relay?: string } & AskSettings & RelaySettings;

const RUN_DEFAULTS = { listen: '127.0.0.1:9000', quota: '10GiB', roles: 'storage', relay: 'none' };

/** Runs the provider in the foreground until Ctrl-C. */
export async function providerRun(context: CommandContext, options: ProviderRunOptions): Promise<void> {
  const sources = { ...settingSources(context), flags: options };
  const { host, port } = listenAddress(readSetting('listen', sources)?.value ?? RUN_DEFAULTS.listen);
  const quotaBytes = parseSize(readSetting('quota', sources)?.value ?? RUN_DEFAULTS.quota);
  const ask = askSettings(sources);
  storagePolicy({ quotaBytes, ask });
  const roles = (readSetting('roles', sources)?.value ?? RUN_DEFAULTS.roles).split(',');
  const through = relayedBy(readSetting('relay', sources)?.value ?? RUN_DEFAULTS.relay);
  const relay = givenSettings(Object.keys(RELAY_DEFAULTS), sources) as RelaySettings;
  relayTerms(0n, relay);
  const session = await openSession(context);
  const own = ownNode(session.folder);
  if (!existsSync(own.keystore)) throw noNodeKey(own.folder);
  const node = await startNode({
    folder: own.folder,
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer: await openKeystore({ path: own.keystore, password: await askPassword('Password of the node key: ') }),
    roles,
    relay,
    relayedBy: through,
    host,
    port,
    quotaBytes,
    ask,
    controlSocket: nodeSocket(own.folder),
    log: createLogger({ role: 'provider', level: context.flags.logLevel }),
  });
  context.output.result(
    { operatorId: node.operatorId, host: node.host, port: node.port, transportKey: node.transportKey },
    () => `Operator ${node.operatorId} serves on ${node.host}:${node.port}. Press Ctrl-C to stop.`,
  );
  await untilStopped(context);
  await node.stop();
}

/** The settings of the ask that any source gives. */
export function askSettings(sources: SettingSources): AskSettings {
  return givenSettings(Object.keys(ASK_DEFAULTS), sources);
}

/** Stake, locks and standing of every operator, and what its beneficiary can withdraw. */
export async function providerShow(context: CommandContext): Promise<void> {
  const { client, manifest } = await openSession(context);
  const token = client.address('networkToken');
  const { period, seedInSeconds } = await nextProof(client, await client.now());
  const items = await Promise.all(
    (await providerRows(client)).map(async (row) => {
      const beneficiary = await client.read('operators', 'beneficiaryOf', [row.operatorId]);
      return { ...row, beneficiary, toWithdraw: await client.read('rails', 'balanceOf', [token, beneficiary]) };
    }),
  );
  const unit = stakeUnitOf(manifest);
  context.output.result(
    { items, unit, period, nextSeedInSeconds: seedInSeconds, next: null },
    () =>
      `Period ${period}, next seed in ${formatDuration(seedInSeconds)}. Money in ${unit}.\n${table(
        ['provider', 'stake', 'locked', 'to withdraw', 'pieces', 'standing', 'endpoint'],
        items.map((row) => [
          String(row.operatorId),
          formatAmount(row.own, TOKEN_DECIMALS),
          formatAmount(row.locked, TOKEN_DECIMALS),
          formatAmount(row.toWithdraw, TOKEN_DECIMALS),
          String(row.pieces),
          standingText(row, period),
          reachText(row),
        ]),
      )}`,
  );
}
