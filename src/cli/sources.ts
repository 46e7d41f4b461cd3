import { join } from 'node:path';
import type { ChainClient } from '../chain/index.ts';
import { peerFetch } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { type ContentSource, type FetchedFile, fetchFile, holdersOf, parseCid } from '../storage/index.ts';
import type { Session } from './session.ts';

/**
 * The providers that hold a content, as the chain knows them: reached over TLS pinned to their keys.
 * @throws bad-cid, no-holders
 */
export async function sourcesOf(client: ChainClient, cid: string): Promise<ContentSource[]> {
  const holders = await holdersOf(client, parseCid(cid).bytes);
  const byOperator = new Map(holders.map(({ operator }) => [operator.operatorId, operator]));
  if (byOperator.size === 0) {
    throw new MillraceError('no-holders', {
      actor: 'peer',
      message: `No provider has a running deal for ${cid}`,
      values: { cid },
      hint: 'Check the CID; `millrace ls` shows what this wallet stored, `millrace deals` how it ended.',
    });
  }
  return [...byOperator.values()].map((operator) => ({
    url: operator.endpoint,
    fetch: (url, { headers, signal }) => {
      const { pathname, search } = new URL(url);
      return peerFetch(operator, pathname + search, { headers, signal });
    },
  }));
}

/**
 * Whoever a content can be read from: its holders, or, when it was cut into shards by the order book, the whole put together
 * from any of them on this disk until `close`.
 * @throws bad-cid, no-holders, too-few-shards, disk-full
 */
export async function openSources(
  { client, folder }: Session,
  cid: string,
  options: { signal?: AbortSignal; onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void },
): Promise<Pick<FetchedFile, 'sources' | 'close'>> {
  try {
    return { sources: await sourcesOf(client, cid), close: async () => {} };
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'no-holders') throw error;
    const fetched = await fetchFile({ client, cid, carPath: join(folder.client, 'gets', `${parseCid(cid)}.car`), ...options });
    if (fetched === undefined) throw error;
    return fetched;
  }
}
