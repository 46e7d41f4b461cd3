import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Signer } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { createStorageNetwork, exportS3Index, keysPath, openS3Keys, restoreS3Index, s3Status, startS3Server } from '../gateway/index.ts';
import { shareKeyOfWallet, sourcesOf } from '../storage/index.ts';
import { formatSize, parseAmount, parseDuration, parseSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { wholeNumber } from './put.ts';
import { untilStopped } from './running.ts';
import { openWallet } from './secrets.ts';
import { withSender } from './sending.ts';
import { folderOf, openSession, type Session } from './session.ts';

/** Options of `millrace s3`. */
export interface S3CommandOptions {
  port: string;
  copies: string;
  periods: string;
  maxPrice?: string;
  staging: string;
  acknowledge: string;
  packEvery: string;
  indexEvery: string;
}

/** How contents of the endpoint are stored when nothing else is said. */
type Durability = Pick<S3CommandOptions, 'copies' | 'periods' | 'maxPrice'>;

const DEFAULT_DURABILITY: Durability = { copies: '2', periods: '288' };

/** Serves S3 on this machine until Ctrl-C. */
export async function s3(context: CommandContext, options: S3CommandOptions): Promise<void> {
  const port = Number(options.port);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw badOption('--port', options.port, 'a port');
  if (options.acknowledge !== 'staged' && options.acknowledge !== 'stored')
    throw badOption('--acknowledge', options.acknowledge, 'staged or stored');
  const session = await openSession(context);
  const network = await networkOf(context, session, options);
  const server = await startS3Server({
    folder: s3Folder(context),
    port,
    network,
    stagingBytes: Number(parseSize(options.staging)),
    acknowledgeStored: options.acknowledge === 'stored',
    rules: { afterMs: parseDuration(options.packEvery) * 1000, exportEveryMs: parseDuration(options.indexEvery) * 1000 },
    log: session.log,
  });
  const endpoint = `http://${server.host}:${server.port}`;
  const { accessKey, secretKey, isNew } = server;
  // The secret is shown when it is made; afterwards `millrace s3 keys` shows it on demand.
  context.output.result({ endpoint, accessKey, ...(isNew ? { secretKey } : {}), region: 'us-east-1' }, () =>
    [
      `S3 endpoint ${endpoint}, path style, any region. Press Ctrl-C to stop.`,
      `access key  ${accessKey}`,
      isNew ? `secret key  ${secretKey}` : 'secret key  as before: millrace s3 keys',
      `Next: aws --endpoint-url ${endpoint} s3 mb s3://first`,
    ].join('\n'),
  );
  await untilStopped(context);
  await server.stop();
}

/** The keys with which tools sign. */
export async function s3Keys(context: CommandContext): Promise<void> {
  const { accessKey, secretKey } = openS3Keys(keysPath(s3Folder(context)));
  context.output.result({ accessKey, secretKey }, () => `export AWS_ACCESS_KEY_ID=${accessKey}\nexport AWS_SECRET_ACCESS_KEY=${secretKey}`);
}

/** Buckets, and how far their objects have come. */
export async function s3StatusShow(context: CommandContext): Promise<void> {
  const { buckets, uploads, exported } = s3Status(s3Folder(context));
  context.output.result({ items: buckets, uploads, index: exported ?? null, next: null }, () =>
    [
      buckets.length === 0
        ? 'No buckets yet. Next: millrace s3'
        : table(
            ['bucket', 'objects', 'size', 'staged', 'stored', 'proven', ''],
            buckets.map((row) => [
              row.name,
              ...[row.objects, formatSize(row.sizeBytes), row.staged, row.stored, row.proven].map(String),
              row.isPublic ? 'public' : '',
            ]),
          ),
      exported === undefined ? 'The index is not on the network yet.' : `Index ${exported.cid} of ${new Date(exported.atMs).toISOString()}`,
    ].join('\n'),
  );
}

/** Stores the index on the network; the endpoint must not run (while it runs, it does so by itself). */
export async function s3Export(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const network = await networkOf(context, session, DEFAULT_DURABILITY);
  const result = await exportS3Index({ folder: s3Folder(context), network, log: session.log, signal: context.signal });
  context.output.result(
    result,
    () =>
      `Index of ${result.objects} objects: ${result.cid}${result.left > 0 ? `\n${result.left} objects are still on this machine only.` : ''}`,
  );
}

/** Brings the index back on another machine. */
export async function s3Restore(context: CommandContext, cid: string): Promise<void> {
  const session = await openSession(context);
  const network = await networkOf(context, session, DEFAULT_DURABILITY);
  const result = await restoreS3Index({ folder: s3Folder(context), cid, network });
  context.output.result(result, () => `${result.buckets} buckets with ${result.objects} objects are back. Next: millrace s3`);
}

async function networkOf(context: CommandContext, session: Session, { copies, periods, maxPrice }: Durability) {
  const signer: Signer = await openWallet(context, session);
  return createStorageNetwork({
    client: session.client,
    signer,
    withSender: (work) => withSender(context, session, signer, work),
    folder: session.folder.client,
    shareKey: await shareKeyOfWallet(signer),
    sourcesOf: (cid) => sourcesOf(session.client, cid),
    copies: wholeNumber('--copies', copies),
    periods: wholeNumber('--periods', periods),
    maxTotal: maxPrice === undefined ? undefined : parseAmount(maxPrice, TOKEN_DECIMALS),
    log: session.log,
  });
}

function s3Folder(context: CommandContext): string {
  const { root, manifest } = folderOf(context);
  if (existsSync(manifest)) return join(root, 's3');
  throw new MillraceError('no-network', {
    actor: 'caller',
    message: `There is no network "${context.flags.network}" in ${root}`,
    values: { network: context.flags.network, folder: root },
    hint: 'Start one with `millrace up`, or use another’s with `millrace join network.json`.',
  });
}

function badOption(flag: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', { actor: 'caller', message: `Got ${flag} ${got}, expected ${expected}`, values: { flag, got } });
}
