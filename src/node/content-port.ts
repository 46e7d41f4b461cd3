import { rm } from 'node:fs/promises';
import type { ChainClient } from '../chain/index.ts';
import type { FetchContent } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';

/** How the other networks get content of the storage network: public content, by its CID, from whoever holds it, every block verified. */
export function contentPort(client: ChainClient): FetchContent {
  return async (cid, path, { bytesMax, signal }) => {
    const { retrieve, sourcesOf } = await import('../storage/index.ts');
    const over = new AbortController();
    const onProgress = ({ doneBytes, totalBytes }: { doneBytes: number; totalBytes: number | undefined }) => {
      if (Math.max(doneBytes, totalBytes ?? 0) > bytesMax) over.abort(tooLarge(cid, bytesMax));
    };
    const given = { cid, output: { path }, raw: true, onProgress, signal: AbortSignal.any([signal, over.signal]) };
    try {
      const { bytes } = await retrieve({ ...given, sources: await sourcesOf(client, cid) });
      if (bytes > bytesMax) throw tooLarge(cid, bytesMax);
      return bytes;
    } catch (error) {
      await rm(path, { recursive: true, force: true });
      throw error;
    }
  };
}

function tooLarge(cid: string, bytesMax: number): MillraceError {
  return new MillraceError('content-too-large', {
    actor: 'caller',
    message: `The content ${cid} has more than ${bytesMax} bytes, which the job may keep`,
    values: { source: cid, bytesMax },
    hint: 'Give the job more disk or memory, or a smaller content.',
  });
}
