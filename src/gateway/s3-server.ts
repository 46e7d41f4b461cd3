import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../lock.ts';
import type { Logger } from '../log.ts';
import { type LocalServer, startLocalServer } from './local-server.ts';
import { type IndexStatus, type ObjectIndex, openObjectIndex, parseExportedIndex, readIndexStatus } from './object-index.ts';
import {
  exportObjectIndex,
  INDEX_NAME,
  type ObjectNetwork,
  type ObjectPublisher,
  PACKING_RULES,
  type PackingRules,
  startObjectPublisher,
} from './object-publisher.ts';
import { type ObjectStaging, openObjectStaging } from './object-staging.ts';
import { createS3Endpoint } from './s3-endpoint.ts';
import { openS3Keys } from './s3-keys.ts';
import type { S3Limits, S3Store } from './s3-request.ts';

/** Where an S3 endpoint keeps its things and how it works. */
export interface S3ServerOptions {
  folder: string;
  port: number;
  network: ObjectNetwork;
  /** Bytes that may wait on this machine for the network. */
  stagingBytes: number;
  acknowledgeStored?: boolean;
  rules?: Partial<PackingRules>;
  limits?: Partial<S3Limits>;
  log: Logger;
}

/** A running S3 endpoint. */
export interface S3Server extends Pick<LocalServer, 'host' | 'port'> {
  accessKey: string;
  secretKey: string;
  /** The keys were made at this start. */
  isNew: boolean;
  index: ObjectIndex;
  publisher: ObjectPublisher;
  stop(): Promise<void>;
}

const LIMITS: S3Limits = { objectBytesMax: 5 * 1024 ** 3, partBytesMin: 5 << 20 };

/** Starts an S3 endpoint on 127.0.0.1. One process at a time works in a folder. @throws folder-busy, journal-damaged, port-in-use */
export async function startS3Server(options: S3ServerOptions): Promise<S3Server> {
  const { folder, network, log } = options;
  const lock = lockFolder(folder);
  try {
    const { accessKey, secretKey, isNew } = openS3Keys(keysPath(folder));
    const index = openObjectIndex(indexPath(folder));
    const staging = await openObjectStaging(join(folder, 'staged'), options.stagingBytes);
    await staging.sweep(dataInUse(index));
    const rules = { ...PACKING_RULES, ...options.rules };
    const publisher = startObjectPublisher({ index, staging, network, folder: join(folder, 'bundles'), rules, log });
    const store: S3Store = {
      index,
      staging,
      read: (dataId, from, to, signal) => readData({ index, staging, network, dataId, from, to, signal }),
      publish: (data, untilStored) => publisher.publish(data, untilStored),
      nowMs: () => Date.now(),
      limits: { ...LIMITS, ...options.limits },
      acknowledgeStored: options.acknowledgeStored === true,
    };
    const answer = createS3Endpoint({ store, credentials: { accessKey, secretKey }, log });
    const server = await startLocalServer({ port: options.port, answer, log }).catch(async (error: unknown) => {
      await publisher.stop();
      await index.close();
      throw error;
    });
    return {
      host: server.host,
      port: server.port,
      accessKey,
      secretKey,
      isNew,
      index,
      publisher,
      async stop() {
        await Promise.all([server.stop(), publisher.stop()]);
        await index.close();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** What the index in a folder holds; works while the endpoint runs. */
export function s3Status(folder: string): IndexStatus {
  return readIndexStatus(indexPath(folder));
}

/** Stores the index of an endpoint that does not run on the network. @throws folder-busy and what `put` throws */
export async function exportS3Index(input: {
  folder: string;
  network: ObjectNetwork;
  log: Logger;
  signal: AbortSignal;
}): Promise<{ cid: string; objects: number; left: number }> {
  const lock = lockFolder(input.folder);
  const index = openObjectIndex(indexPath(input.folder));
  try {
    return await exportObjectIndex({ ...input, index, folder: join(input.folder, 'bundles') });
  } finally {
    await index.close();
    lock.release();
  }
}

/** Where the keys are, below the endpoint's folder. */
export function keysPath(folder: string): string {
  return join(folder, 'keys.json');
}

function indexPath(folder: string): string {
  return join(folder, 'index.journal');
}

/**
 * Makes the index anew from one that was stored on the network. Refused where there is an index with buckets.
 * @throws index-exists, bad-index, journal-damaged, folder-busy and what reading throws
 */
export async function restoreS3Index(input: {
  folder: string;
  cid: string;
  network: ObjectNetwork;
}): Promise<{ buckets: number; objects: number }> {
  const { folder } = input;
  const file = await (await input.network.open(input.cid)).file(INDEX_NAME);
  const parts: Uint8Array[] = [];
  for await (const part of file.read(0, file.sizeBytes)) parts.push(part);
  const text = Buffer.concat(parts).toString('utf8');
  const lock = lockFolder(folder);
  try {
    const isThere = existsSync(indexPath(folder));
    const index = openObjectIndex(indexPath(folder));
    try {
      if (isThere && index.buckets().length > 0) {
        throw new MillraceError('index-exists', {
          actor: 'caller',
          message: `There is an index with ${index.buckets().length} buckets in ${folder}`,
          values: { folder, buckets: index.buckets().length },
          hint: 'Move that folder away first, or restore with another --data.',
        });
      }
      const changes = parseExportedIndex(text);
      await index.change(changes);
      return { buckets: index.buckets().length, objects: changes.filter(({ op }) => op === 'object').length };
    } finally {
      await index.close();
    }
  } finally {
    lock.release();
  }
}

/** Data that an object, a part of an upload, or a content that is being stored names. */
function dataInUse(index: ObjectIndex): (dataId: string) => boolean {
  const parts = new Set(index.uploads().flatMap(({ uploadId }) => index.parts(uploadId).map(({ dataId }) => dataId)));
  const isProven = (dataId: string) => index.bundleOf(dataId)?.state === 'proven';
  const isPacked = (dataId: string) => index.bundleOf(dataId)?.state === 'packed';
  return (dataId) => parts.has(dataId) || isPacked(dataId) || (index.isUsed(dataId) && !isProven(dataId));
}

async function* readData(input: {
  index: ObjectIndex;
  staging: ObjectStaging;
  network: ObjectNetwork;
  dataId: string;
  from: number;
  to: number;
  signal: AbortSignal;
}): AsyncGenerator<Uint8Array> {
  const { index, staging, network, dataId, from, to, signal } = input;
  if (from >= to) return;
  if (staging.has(dataId)) return yield* staging.read(dataId, from, to);
  const bundle = index.bundleOf(dataId);
  if (bundle?.cid === undefined) {
    throw new MillraceError('object-lost', {
      actor: 'host',
      message: 'The object is neither on this machine nor on the network',
      values: { dataId },
      hint: 'Its staged copy was deleted before the network held it.',
    });
  }
  const content = await network.open(bundle.cid);
  const file = await content.file(bundle.names[dataId] ?? '');
  for await (const bytes of file.read(from, to)) {
    signal.throwIfAborted();
    yield bytes;
  }
}
