import { MillraceError } from '../errors.ts';
import { contentOfGrant, openGrant, type Retrieval, retrieve, shareKeyOfWallet } from '../storage/index.ts';
import { formatAmount, formatSize, parseAmount, parseSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { openPaidSources } from './paid-sources.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';
import { openSources } from './sources.ts';

/** Options of `millrace get`. */
export interface GetCommandOptions {
  output?: string;
  path?: string;
  grant?: string;
  maxPrice?: string;
  maxChunk?: string;
}

/** Reads a content back from all its holders at once, verified block by block, and opens it with the wallet's key or a grant. */
export async function get(context: CommandContext, cid: string, options: GetCommandOptions): Promise<void> {
  const session = await openSession(context);
  const { output } = context;
  const signer = await openWallet(context, session);
  const shareKey = await shareKeyOfWallet(signer);
  if (options.grant !== undefined && contentOfGrant(options.grant) !== cid) {
    throw new MillraceError('grant-for-other-content', {
      actor: 'caller',
      message: `The grant is for ${contentOfGrant(options.grant)}, not for ${cid}`,
      values: { got: contentOfGrant(options.grant), expected: cid },
    });
  }
  const granted = options.grant === undefined ? undefined : await openGrant(options.grant, [shareKey]);
  const target = options.output ?? (options.path?.split('/').at(-1) || cid);
  const progress = output.progress('Reading');
  const startedAt = performance.now();
  const budget = parseAmount(options.maxPrice ?? '0', TOKEN_DECIMALS);
  const chunkBytesMax = options.maxChunk === undefined ? undefined : Number(parseSize(options.maxChunk));
  const paid = budget === 0n ? undefined : await openPaidSources(context, session, { cid, signer, budget, chunkBytesMax });
  const shards =
    paid === undefined
      ? await openSources(session, cid, {
          signal: context.signal,
          onProgress: ({ doneBytes, totalBytes }) => progress.update(doneBytes, totalBytes, 'shards'),
        })
      : undefined;
  const result: Retrieval = await retrieve({
    cid,
    path: options.path,
    sources: (paid ?? shards)?.sources ?? [],
    keys: { shareKeys: [shareKey], fileKey: granted?.fileKey },
    output: target === '-' ? { stream: process.stdout } : { path: target },
    onProgress: ({ doneBytes, totalBytes }) => progress.update(doneBytes, totalBytes, formatSize(doneBytes)),
    signal: context.signal,
    limits: paid?.limits,
  })
    .finally(async () => {
      progress.end();
      await shards?.close();
    })
    .catch(async (error) => {
      await paid?.close(undefined);
      throw error;
    });
  const cost = await paid?.close(result.sources);
  const seconds = Number(((performance.now() - startedAt) / 1000).toFixed(2));
  const text = `${result.kind === 'folder' ? `${result.files} files, ` : ''}${formatSize(result.bytes)} in ${seconds} s, every block verified${result.wasSealed ? ', decrypted' : ''}${cost === undefined ? '' : `, for ${formatAmount(cost.paid, TOKEN_DECIMALS)}`}: ${target}`;
  if (target === '-') output.note(text);
  else output.result({ ...result, output: target, seconds, ...(cost === undefined ? {} : { cost }) }, () => text);
}
