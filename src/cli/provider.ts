import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Address } from 'viem';
import { createKeystore, openKeystore } from '../chain/index.ts';
import { openTransportIdentity } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import { type NetworkFolder, provisionOperator, startNode } from '../node/index.ts';
import { formatAmount, formatDuration, parseAmount, parseSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';
import { openSession } from './session.ts';
import { nextProof, providerRows, standingText } from './status.ts';

/** Options of `millrace provider init`. */
export interface ProviderInitOptions {
  endpoint: string;
  beneficiary?: string;
  region?: string;
  stake: string;
}

/** The folder and node key of the provider that is run by hand on this machine. */
function ownNode(folder: NetworkFolder): { folder: string; keystore: string } {
  const path = join(folder.root, 'provider');
  return { folder: path, keystore: join(path, 'node-key.json') };
}

/** Makes a node key and a TLS key, registers the wallet as owner of a new operator, and stakes. Can be repeated. */
export async function providerInit(context: CommandContext, options: ProviderInitOptions): Promise<void> {
  const opened = await openSender(context);
  const own = ownNode(opened.folder);
  try {
    mkdirSync(own.folder, { recursive: true, mode: 0o700 });
    const password = await askPassword('Password of the node key: ');
    const nodeKey = existsSync(own.keystore)
      ? await openKeystore({ path: own.keystore, password })
      : await createKeystore({ path: own.keystore, password });
    const { transportKey } = await openTransportIdentity(own.folder);
    const operatorId = await provisionOperator(opened.client, {
      owner: opened.sender,
      nodeKey,
      beneficiary: (options.beneficiary ?? opened.signer.address) as Address,
      transportKey,
      endpoint: options.endpoint,
      region: options.region ?? '',
      stake: parseAmount(options.stake, 18),
    });
    context.output.result(
      { operatorId, owner: opened.signer.address, nodeKey: nodeKey.address, transportKey, endpoint: options.endpoint },
      () =>
        [
          `Operator ${operatorId}, staked ${options.stake}.`,
          `Send a little gas to the node key ${nodeKey.address}: it pays for proofs.`,
          'Next: millrace provider run',
        ].join('\n'),
    );
  } finally {
    opened.sender.close();
  }
}

/** Runs the provider in the foreground until Ctrl-C. */
export async function providerRun(context: CommandContext, options: { listen: string; quota: string }): Promise<void> {
  const session = await openSession(context);
  const own = ownNode(session.folder);
  if (!existsSync(own.keystore)) {
    throw new MillraceError('no-node-key', {
      actor: 'caller',
      message: `There is no node key in ${own.folder}`,
      values: { folder: own.folder },
      hint: 'Make one with `millrace provider init`.',
    });
  }
  const at = /^(\[[0-9a-f:]+\]|[^:]+):(\d{1,5})$/i.exec(options.listen);
  if (at === null)
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got --listen ${options.listen}, expected host:port`,
      values: { got: options.listen },
    });
  const node = await startNode({
    folder: own.folder,
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer: await openKeystore({ path: own.keystore, password: await askPassword('Password of the node key: ') }),
    roles: ['storage'],
    host: at[1],
    port: Number(at[2]),
    quotaBytes: parseSize(options.quota),
    log: createLogger({ role: 'provider', level: context.flags.logLevel }),
  });
  context.output.result(
    { operatorId: node.operatorId, host: node.host, port: node.port, transportKey: node.transportKey },
    () => `Operator ${node.operatorId} serves on ${node.host}:${node.port}. Press Ctrl-C to stop.`,
  );
  if (!context.signal.aborted) await new Promise((resolve) => context.signal.addEventListener('abort', resolve, { once: true }));
  await node.stop();
}

/** Stake, locks and standing of every operator, and what its beneficiary can withdraw. */
export async function providerShow(context: CommandContext): Promise<void> {
  const { client, manifest } = await openSession(context);
  const token = client.address('networkToken');
  const { period, seedInSeconds } = await nextProof(client, await client.now());
  const items = await Promise.all(
    (await providerRows(client)).map(async (row) => {
      const beneficiary = await client.read('operators', 'beneficiaryOf', [row.operatorId]);
      return { ...row, beneficiary, earned: await client.read('rails', 'balanceOf', [token, beneficiary]) };
    }),
  );
  const unit = manifest.tokens.network?.symbol ?? 'tokens';
  context.output.result(
    { items, unit, period, nextSeedInSeconds: seedInSeconds, next: null },
    () =>
      `Period ${period}, next seed in ${formatDuration(seedInSeconds)}. Money in ${unit}.\n${table(
        ['provider', 'stake', 'locked', 'earned', 'pieces', 'standing', 'endpoint'],
        items.map((row) => [
          String(row.operatorId),
          formatAmount(row.own, 18),
          formatAmount(row.locked, 18),
          formatAmount(row.earned, 18),
          String(row.pieces),
          standingText(row, period),
          row.endpoint,
        ]),
      )}`,
  );
}
