import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { OpenedContent } from '../storage/index.ts';
import type { Bundle, ObjectIndex } from './object-index.ts';
import type { ObjectStaging } from './object-staging.ts';

/** The storage network as the endpoint uses it. */
export interface ObjectNetwork {
  /** Stores a folder as one content; resolves when the providers of all copies acknowledged it. Repeated with the same folder it goes on. */
  put(input: { folder: string; isPublic: boolean; signal: AbortSignal }): Promise<{ cid: string; dealIds: string[] }>;
  /** `proven`: no deal is waiting any more and at least one was proven on chain; `lost`: none was. */
  fateOf(dealIds: readonly string[]): Promise<'waiting' | 'proven' | 'lost'>;
  open(cid: string): Promise<OpenedContent>;
}

/** Data that are new on this machine. */
export interface NewData {
  dataId: string;
  sizeBytes: number;
  isPublic: boolean;
  /** Some key of theirs: its extension is kept in the content, so that links show the right type. */
  key: string;
}

/** When what has been staged is packed into one content. */
export interface PackingRules {
  /** At the latest so long after the oldest arrived. */
  afterMs: number;
  /** Or when so much waits. A larger object makes a content of its own. */
  bytes: number;
  objects: number;
  /** How often, at most, the index is stored on the network when it changed. */
  exportEveryMs: number;
}

/** Five seconds, 256 MiB, 1,000 objects; the index every ten minutes. */
export const PACKING_RULES: PackingRules = { afterMs: 5000, bytes: 256 << 20, objects: 1000, exportEveryMs: 600_000 };

/** Stores staged objects on the network in the background. */
export interface ObjectPublisher {
  /** With `untilStored` resolves when providers hold it. @throws endpoint-stopping */
  publish(data: NewData, untilStored: boolean): Promise<void>;
  /** Stores the index now. @throws what `put` throws */
  exportIndex(): Promise<{ cid: string; objects: number; left: number }>;
  status(): { waitingObjects: number; waitingBytes: number; problem: { code: string; message: string } | undefined };
  stop(): Promise<void>;
}

const WATCH_MS = 2000;
const RETRY_MS_MIN = 2000;
const RETRY_MS_MAX = 300_000;
/** The one file of an exported index. */
export const INDEX_NAME = 'index';

interface Waiting extends NewData {
  sinceMs: number;
}

/** Starts the publisher: it goes on with what the last run left, and ends with `stop`. */
export function startObjectPublisher(options: {
  index: ObjectIndex;
  staging: ObjectStaging;
  network: ObjectNetwork;
  folder: string;
  rules: PackingRules;
  log: Logger;
  clock?: Clock;
}): ObjectPublisher {
  const { index, staging, network, folder, rules, log, clock = systemClock } = options;
  const stopping = new AbortController();
  const { signal } = stopping;
  const waiting = new Map<string, Waiting>(
    dataWithoutBundle(index, staging).map((data) => [data.dataId, { ...data, sinceMs: clock.nowMs() }]),
  );
  const watchers = new Map<string, { done: () => void; fail: (error: unknown) => void }[]>();
  let problem: MillraceError | undefined;
  let nudge = () => {};
  let exportedChanges = -1;
  let exportedAtMs = clock.nowMs();

  const settle = (dataId: string, error?: unknown) => {
    for (const { done, fail } of watchers.get(dataId) ?? []) error === undefined ? done() : fail(error);
    watchers.delete(dataId);
  };

  const storeBundle = async (bundle: Bundle) => {
    const source = join(folder, bundle.bundleId);
    await staging.linkInto(source, bundle.names);
    const { cid, dealIds } = await network.put({ folder: source, isPublic: bundle.isPublic, signal });
    await index.change([{ op: 'bundle', bundle: { ...bundle, state: 'stored', cid, dealIds } }]);
    await rm(source, { recursive: true, force: true });
    for (const dataId of Object.keys(bundle.names)) settle(dataId);
    problem = undefined;
    log.info('objects-stored', { cid, objects: Object.keys(bundle.names).length });
  };

  const storeNext = async (): Promise<boolean> => {
    const left = index.bundles().find(({ state }) => state === 'packed');
    if (left !== undefined) return storeBundle(left).then(() => true);
    const bundle = nextBundle([...waiting.values()], {
      rules,
      nowMs: clock.nowMs(),
      isUrgent: (dataId) => watchers.has(dataId),
      isUsed: index.isUsed,
    });
    if (bundle === undefined) return false;
    await index.change([{ op: 'bundle', bundle }]);
    for (const dataId of Object.keys(bundle.names)) waiting.delete(dataId);
    await storeBundle(bundle);
    return true;
  };

  const watchBundles = async () => {
    for (const bundle of index.bundles()) {
      signal.throwIfAborted();
      if (bundle.state !== 'stored') continue;
      const fate = await network.fateOf(bundle.dealIds ?? []);
      if (fate === 'proven') {
        await index.change([{ op: 'bundle', bundle: { ...bundle, state: 'proven' } }]);
        for (const dataId of Object.keys(bundle.names)) await staging.remove(dataId);
      } else if (fate === 'lost') {
        log.warn('objects-lost-before-proof', { cid: bundle.cid, dealIds: bundle.dealIds?.join(' ') });
        await index.change([{ op: 'bundle-gone', bundleId: bundle.bundleId }]);
        for (const data of dataWithoutBundle(index, staging))
          if (!waiting.has(data.dataId)) waiting.set(data.dataId, { ...data, sinceMs: clock.nowMs() });
      }
    }
    const isDue = index.changes !== exportedChanges && clock.nowMs() - exportedAtMs >= rules.exportEveryMs;
    if (isDue && index.bundles().some(({ cid }) => cid !== undefined)) await exportIndex();
  };

  const exportIndex = async () => {
    exportedAtMs = clock.nowMs();
    const changesBefore = index.changes;
    const result = await exportObjectIndex({ index, network, folder, log, signal });
    exportedChanges = changesBefore === index.changes - 1 ? index.changes : -1;
    return result;
  };

  const loop = async (work: () => Promise<unknown>, restMs: number) => {
    for (let failures = 0; !signal.aborted; ) {
      try {
        const isMore = (await work()) === true;
        failures = 0;
        if (!isMore) await rest(restMs);
      } catch (error) {
        if (signal.aborted) return;
        problem = toMillraceError(error);
        log.warn('storing-failed', { code: problem.code, reason: problem.message });
        failures += 1;
        await clock.sleep(Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** (failures - 1)), signal).catch(() => {});
      }
    }
  };
  const rest = (restMs: number) =>
    Promise.race([clock.sleep(restMs, signal).catch(() => {}), new Promise<void>((resolve) => (nudge = resolve))]);
  const running = Promise.all([loop(storeNext, Math.min(1000, rules.afterMs)), loop(watchBundles, WATCH_MS)]);

  return {
    async publish(data, untilStored) {
      const bundle = index.bundleOf(data.dataId);
      if (bundle?.cid !== undefined) return;
      if (bundle === undefined && !waiting.has(data.dataId)) waiting.set(data.dataId, { ...data, sinceMs: clock.nowMs() });
      if (!untilStored) return;
      await new Promise<void>((done, fail) => {
        watchers.set(data.dataId, [...(watchers.get(data.dataId) ?? []), { done, fail }]);
        nudge();
      });
    },
    exportIndex,
    status: () => ({
      waitingObjects: waiting.size,
      waitingBytes: [...waiting.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      problem: problem && { code: problem.code, message: problem.message },
    }),
    async stop() {
      stopping.abort(new DOMException('the endpoint stops', 'AbortError'));
      nudge();
      await running;
      for (const dataId of [...watchers.keys()]) settle(dataId, stopped());
    },
  };
}

/** Stores the index on the network as sealed content of its own, and notes its CID. @throws what `put` throws */
export async function exportObjectIndex(input: {
  index: ObjectIndex;
  network: ObjectNetwork;
  /** Where the file is made. */
  folder: string;
  log: Logger;
  signal: AbortSignal;
}): Promise<{ cid: string; objects: number; left: number }> {
  const { index, network, log, signal } = input;
  const { text, objects, left } = index.exportText();
  const source = join(input.folder, `index-${randomBytes(8).toString('hex')}`);
  await mkdir(source, { recursive: true, mode: 0o700 });
  try {
    await writeFile(join(source, INDEX_NAME), text, { mode: 0o600 });
    const { cid } = await network.put({ folder: source, isPublic: false, signal });
    await index.change([{ op: 'exported', cid, atMs: Date.now() }]);
    log.info('index-stored', { cid, objects, left });
    return { cid, objects, left };
  } finally {
    await rm(source, { recursive: true, force: true });
  }
}

/** The data to pack next, of one kind, or undefined when nothing is due. */
export function nextBundle(
  waiting: readonly Waiting[],
  input: { rules: PackingRules; nowMs: number; isUrgent: (dataId: string) => boolean; isUsed: (dataId: string) => boolean },
): Bundle | undefined {
  const { rules, nowMs, isUrgent, isUsed } = input;
  for (const isPublic of [false, true]) {
    const data = waiting.filter((each) => each.isPublic === isPublic && isUsed(each.dataId));
    const bytes = data.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const isDue = data.some(({ sinceMs, dataId }) => nowMs - sinceMs >= rules.afterMs || isUrgent(dataId));
    if (data.length === 0 || !(isDue || bytes >= rules.bytes || data.length >= rules.objects)) continue;
    const names: Record<string, string> = {};
    let packedBytes = 0;
    for (const { dataId, sizeBytes, key } of data) {
      if (Object.keys(names).length >= rules.objects || (packedBytes > 0 && packedBytes + sizeBytes > rules.bytes)) break;
      names[dataId] = nameOf(dataId, key);
      packedBytes += sizeBytes;
    }
    return { bundleId: randomBytes(16).toString('hex'), isPublic, names, state: 'packed' };
  }
  return undefined;
}

/** The name of data inside a content: unique, of safe letters only, with the key's extension. */
function nameOf(dataId: string, key: string): string {
  const extension = /\.([A-Za-z0-9]{1,8})$/.exec(key)?.[1];
  return extension === undefined ? dataId : `${dataId}.${extension.toLowerCase()}`;
}

function dataWithoutBundle(index: ObjectIndex, staging: ObjectStaging): NewData[] {
  const found = new Map<string, NewData>();
  for (const { name, isPublic } of index.buckets()) {
    for (const key of index.keysFrom(name, '')) {
      const { dataId, sizeBytes } = index.object(name, key) as { dataId: string; sizeBytes: number };
      if (sizeBytes > 0 && index.bundleOf(dataId) === undefined && staging.has(dataId))
        found.set(dataId, { dataId, sizeBytes, isPublic, key });
    }
  }
  return [...found.values()];
}

function stopped(): MillraceError {
  return new MillraceError('endpoint-stopping', {
    actor: 'host',
    message: 'The endpoint stops; the object is durable on this machine and goes to the network after the next start',
  });
}
