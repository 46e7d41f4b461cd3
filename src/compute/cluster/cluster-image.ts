import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { FetchContent } from '../part.ts';

/** Where images of clusters come from on a machine. */
export interface ImageSources {
  /** With archives `<64 hex digits>.tar`; those that were fetched lie there too, and `<cid>.digest` says which they are. */
  folder: string;
  executor: Executor;
  fetchContent: FetchContent;
}

const ARCHIVE_BYTES_MAX = 8 * 2 ** 30;
/** Less than a coordinator waits for a machine to join. */
const FETCH_TIMEOUT_MS = 9 * 60_000;

/**
 * Sees that the engine has an image: a digest's archive lies in the folder, a CID's is fetched from the storage network, once.
 * @returns its digest
 * @throws image-unknown
 */
export async function provideImage(image: string, sources: ImageSources): Promise<string> {
  const digest = image.startsWith('sha256:') ? image : knownDigest(image, sources);
  if (digest === undefined) return await fetchImage(image, sources);
  const { folder, executor } = sources;
  if (await executor.hasImage?.(digest)) return digest;
  const path = join(folder, `${digest.replace('sha256:', '')}.tar`);
  const imported = await executor.importImage(path).catch((cause: unknown) => {
    throw unknown(image, (cause as Error).message, cause);
  });
  if (imported === digest) return digest;
  throw unknown(image, `${path} has the digest ${imported}`);
}

/** Of a CID that was fetched before. */
function knownDigest(cid: string, { folder }: ImageSources): string | undefined {
  const path = noteOf(folder, cid);
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
}

async function fetchImage(cid: string, { folder, executor, fetchContent }: ImageSources): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const fetched = join(folder, `${cid}-${randomBytes(4).toString('hex')}.part`);
  try {
    await fetchContent(cid, fetched, { bytesMax: ARCHIVE_BYTES_MAX, signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
    const digest = await executor.importImage(fetched);
    renameSync(fetched, join(folder, `${digest.replace('sha256:', '')}.tar`));
    writeFileDurably(noteOf(folder, cid), `${digest}\n`);
    return digest;
  } catch (cause) {
    throw unknown(cid, (cause as Error).message, cause);
  } finally {
    rmSync(fetched, { recursive: true, force: true });
  }
}

const noteOf = (folder: string, cid: string) => join(folder, `${cid}.digest`);

function unknown(image: string, reason: string, cause?: unknown): MillraceError {
  return new MillraceError('image-unknown', {
    actor: 'caller',
    message: `This machine cannot have the image ${image}: ${reason}`,
    values: { image },
    hint: 'A digest’s archive must lie in the machine’s folder of images, a CID’s be a public file of the storage network (millrace put --public image.tar).',
    cause,
  });
}
