import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { type FetchedFile, fetchFile, parseCid, sourcesOf } from '../storage/index.ts';
import type { Session } from './session.ts';

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
