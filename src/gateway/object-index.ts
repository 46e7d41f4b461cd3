import { MillraceError } from '../errors.ts';
import { decodeRecords, encodeRecords, openRecordJournal, readRecords } from './record-journal.ts';

/** A bucket. Objects of a public one are stored unencrypted: whoever knows their CID can read them. */
export interface Bucket {
  name: string;
  isPublic: boolean;
  createdAtMs: number;
}

/** What a client said about an object, given back with it. */
export interface ObjectHeaders {
  contentType: string;
  /** Cache-Control, Content-Disposition, Content-Encoding, Content-Language, Expires and `x-amz-meta-*`, in lower case. */
  others: Record<string, string>;
}

/** An object by its key. Its bytes are named by `dataId`: copies share them. */
export interface StoredObject extends ObjectHeaders {
  dataId: string;
  sizeBytes: number;
  etag: string;
  modifiedAtMs: number;
}

/** A multipart upload that has begun. */
export interface Upload extends ObjectHeaders {
  uploadId: string;
  bucket: string;
  key: string;
  startedAtMs: number;
}

/** One part of an upload, staged as `dataId`. */
export interface UploadedPart {
  number: number;
  dataId: string;
  sizeBytes: number;
  etag: string;
  modifiedAtMs: number;
}

/**
 * Objects that are stored as one content, so that a thousand small ones need one piece and one deal per copy. `packed`: being
 * stored; `stored`: providers hold and acknowledged it; `proven`: the first proof is on chain, local copies are gone.
 */
export interface Bundle {
  bundleId: string;
  isPublic: boolean;
  /** Name of each datum inside the content. */
  names: Record<string, string>;
  state: 'packed' | 'stored' | 'proven';
  cid?: string;
  dealIds?: string[];
}

/** One change of the index. A list of them is applied wholly or not at all. */
export type IndexChange =
  | { op: 'bucket'; bucket: Bucket }
  | { op: 'bucket-gone'; name: string }
  | { op: 'object'; bucket: string; key: string; object: StoredObject }
  | { op: 'object-gone'; bucket: string; key: string }
  | { op: 'upload'; upload: Upload }
  | { op: 'part'; uploadId: string; part: UploadedPart }
  | { op: 'upload-gone'; uploadId: string }
  | { op: 'bundle'; bundle: Bundle }
  | { op: 'bundle-gone'; bundleId: string }
  | { op: 'exported'; cid: string; atMs: number };

/** Buckets, objects, uploads and where the bytes are: in memory, and durable in one journal. */
export interface ObjectIndex {
  buckets(): Bucket[];
  /** @throws no-such-bucket */
  bucket(name: string): Bucket;
  object(bucket: string, key: string): StoredObject | undefined;
  /** Keys of a bucket in S3's order (bytes of UTF-8), from the first one that is not below `start`. */
  keysFrom(bucket: string, start: string): Generator<string>;
  uploads(): Upload[];
  upload(uploadId: string): Upload | undefined;
  parts(uploadId: string): UploadedPart[];
  bundles(): Bundle[];
  bundleOf(dataId: string): Bundle | undefined;
  /** Data that some object names. */
  isUsed(dataId: string): boolean;
  exported: { cid: string; atMs: number } | undefined;
  /** How many changes there were since the start. */
  readonly changes: number;
  /** Applies changes at once and resolves when they are durable: acknowledge only then. @throws disk-full */
  change(changes: IndexChange[]): Promise<void>;
  /** All that is on the network, as text that `restore` reads: objects that are still staged are left out. */
  exportText(): { text: string; objects: number; left: number };
  close(): Promise<void>;
}

/** What is in an index, for people. */
export interface IndexStatus {
  buckets: { name: string; isPublic: boolean; objects: number; sizeBytes: number; staged: number; stored: number; proven: number }[];
  uploads: number;
  /** The index as it was last stored on the network. */
  exported: { cid: string; atMs: number } | undefined;
}

const COMPACT_MIN = 10_000;

interface Tables {
  buckets: Map<string, { bucket: Bucket; objects: Map<string, StoredObject>; keys: string[] }>;
  uploads: Map<string, { upload: Upload; parts: Map<number, UploadedPart> }>;
  bundles: Map<string, Bundle>;
  bundleOfData: Map<string, string>;
  uses: Map<string, number>;
  exported: { cid: string; atMs: number } | undefined;
}

/** Opens the index at a path. @throws journal-damaged */
export function openObjectIndex(path: string): ObjectIndex {
  const tables = emptyTables();
  const journal = openRecordJournal(path, (record) => applyAll(tables, record as IndexChange[]));
  let changes = 0;
  const compactIfDue = async () => {
    const live = countRecords(tables);
    if (journal.length > COMPACT_MIN && journal.length > 4 * live) await journal.replace(snapshot(tables).map((change) => [change]));
  };
  return {
    buckets: () => [...tables.buckets.values()].map(({ bucket }) => bucket),
    bucket: (name) => tableOf(tables, name).bucket,
    object: (bucket, key) => tableOf(tables, bucket).objects.get(key),
    *keysFrom(bucket, start) {
      const { keys } = tableOf(tables, bucket);
      for (let at = placeOf(keys, start); at < keys.length; at += 1) yield keys[at] as string;
    },
    uploads: () => [...tables.uploads.values()].map(({ upload }) => upload),
    upload: (uploadId) => tables.uploads.get(uploadId)?.upload,
    parts: (uploadId) => [...(tables.uploads.get(uploadId)?.parts.values() ?? [])].sort((one, other) => one.number - other.number),
    bundles: () => [...tables.bundles.values()],
    bundleOf: (dataId) => tables.bundles.get(tables.bundleOfData.get(dataId) ?? ''),
    isUsed: (dataId) => (tables.uses.get(dataId) ?? 0) > 0,
    get exported() {
      return tables.exported;
    },
    get changes() {
      return changes;
    },
    async change(list) {
      // Seen at once, so that checks and changes of one turn of the event loop belong together; acknowledged when durable.
      applyAll(tables, list);
      changes += 1;
      await journal.append(list);
      await compactIfDue();
    },
    exportText: () => exportText(tables),
    close: () => journal.close(),
  };
}

/** What an index holds, by bucket; works while the endpoint runs. @throws journal-damaged */
export function readIndexStatus(path: string): IndexStatus {
  const tables = emptyTables();
  for (const record of readRecords(path)) applyAll(tables, record as IndexChange[]);
  const stateOf = ({ dataId, sizeBytes }: StoredObject) =>
    sizeBytes === 0 ? 'proven' : (tables.bundles.get(tables.bundleOfData.get(dataId) ?? '')?.state ?? 'packed');
  const buckets = [...tables.buckets.values()].map(({ bucket, objects }) => {
    const count = (state: Bundle['state']) => [...objects.values()].filter((object) => stateOf(object) === state).length;
    const sizeBytes = [...objects.values()].reduce((sum, object) => sum + object.sizeBytes, 0);
    const counts = { staged: count('packed'), stored: count('stored'), proven: count('proven') };
    return { name: bucket.name, isPublic: bucket.isPublic, objects: objects.size, sizeBytes, ...counts };
  });
  return { buckets, uploads: tables.uploads.size, exported: tables.exported };
}

/** The changes in an exported index. @throws journal-damaged, bad-index */
export function parseExportedIndex(text: string): IndexChange[] {
  const changes = decodeRecords(text, 'the exported index') as IndexChange[];
  const [first] = changes as unknown as { op?: string; version?: number }[];
  if (first?.op === 'millrace-s3-index' && first.version === 1) return changes.slice(1);
  throw new MillraceError('bad-index', {
    actor: 'caller',
    message: 'The content is no index of the S3 endpoint, or one of a newer version',
    hint: '`millrace s3 status` shows the CID of the latest index.',
  });
}

function exportText(tables: Tables): { text: string; objects: number; left: number } {
  const kept = [...tables.bundles.values()].filter(({ cid, state }) => cid !== undefined && state !== 'packed');
  const onNetwork = new Set(kept.flatMap(({ names }) => Object.keys(names)));
  const changes = snapshot(tables).filter((change) => {
    if (change.op === 'bundle') return change.bundle.cid !== undefined && change.bundle.state !== 'packed';
    if (change.op === 'object') return change.object.sizeBytes === 0 || onNetwork.has(change.object.dataId);
    return change.op === 'bucket';
  });
  const count = (list: IndexChange[]) => list.filter(({ op }) => op === 'object').length;
  const objects = count(changes);
  const text = [{ op: 'millrace-s3-index', version: 1 }, ...changes].map((change) => encodeRecords([change])).join('');
  return { text, objects, left: count(snapshot(tables)) - objects };
}

function emptyTables(): Tables {
  return { buckets: new Map(), uploads: new Map(), bundles: new Map(), bundleOfData: new Map(), uses: new Map(), exported: undefined };
}

function applyAll(tables: Tables, changes: readonly IndexChange[]): void {
  for (const change of changes) applyChange(tables, change);
}

function applyChange(tables: Tables, change: IndexChange): void {
  switch (change.op) {
    case 'bucket':
      return void tables.buckets.set(change.bucket.name, { bucket: change.bucket, objects: new Map(), keys: [] });
    case 'bucket-gone':
      return void tables.buckets.delete(change.name);
    case 'object':
      return setObject(tables, change.bucket, change.key, change.object);
    case 'object-gone':
      return setObject(tables, change.bucket, change.key, undefined);
    case 'upload':
      return void tables.uploads.set(change.upload.uploadId, { upload: change.upload, parts: new Map() });
    case 'part':
      return void tables.uploads.get(change.uploadId)?.parts.set(change.part.number, change.part);
    case 'upload-gone':
      return void tables.uploads.delete(change.uploadId);
    case 'bundle':
      for (const dataId of Object.keys(change.bundle.names)) tables.bundleOfData.set(dataId, change.bundle.bundleId);
      return void tables.bundles.set(change.bundle.bundleId, change.bundle);
    case 'bundle-gone':
      for (const dataId of Object.keys(tables.bundles.get(change.bundleId)?.names ?? {})) tables.bundleOfData.delete(dataId);
      return void tables.bundles.delete(change.bundleId);
    case 'exported':
      tables.exported = { cid: change.cid, atMs: change.atMs };
      return;
    default:
      throw new MillraceError('bad-index', {
        actor: 'caller',
        message: `The index holds a change "${String((change as { op?: unknown }).op).slice(0, 40)}" that this version does not know`,
        hint: 'Use the version of Millrace that wrote it, or a newer one.',
      });
  }
}

function setObject(tables: Tables, bucketName: string, key: string, object: StoredObject | undefined): void {
  const table = tables.buckets.get(bucketName);
  if (table === undefined) return;
  const before = table.objects.get(key);
  if (before !== undefined) tables.uses.set(before.dataId, (tables.uses.get(before.dataId) ?? 1) - 1);
  if (before !== undefined && tables.uses.get(before.dataId) === 0) tables.uses.delete(before.dataId);
  const place = placeOf(table.keys, key);
  if (object === undefined) {
    if (before !== undefined) table.keys.splice(place, 1);
    table.objects.delete(key);
    return;
  }
  if (before === undefined) table.keys.splice(place, 0, key);
  table.objects.set(key, object);
  tables.uses.set(object.dataId, (tables.uses.get(object.dataId) ?? 0) + 1);
}

function snapshot(tables: Tables): IndexChange[] {
  const { exported } = tables;
  return [
    ...[...tables.buckets.values()].flatMap(({ bucket, objects }): IndexChange[] => [
      { op: 'bucket', bucket },
      ...[...objects].map(([key, object]): IndexChange => ({ op: 'object', bucket: bucket.name, key, object })),
    ]),
    ...[...tables.uploads.values()].flatMap(({ upload, parts }): IndexChange[] => [
      { op: 'upload', upload },
      ...[...parts.values()].map((part): IndexChange => ({ op: 'part', uploadId: upload.uploadId, part })),
    ]),
    ...[...tables.bundles.values()].map((bundle): IndexChange => ({ op: 'bundle', bundle })),
    ...(exported === undefined ? [] : [{ op: 'exported', ...exported } as const]),
  ];
}

function countRecords(tables: Tables): number {
  const objects = [...tables.buckets.values()].reduce((sum, each) => sum + each.objects.size, 0);
  return tables.buckets.size + objects + tables.uploads.size + tables.bundles.size;
}

function tableOf(tables: Tables, name: string): { bucket: Bucket; objects: Map<string, StoredObject>; keys: string[] } {
  const table = tables.buckets.get(name);
  if (table !== undefined) return table;
  throw new MillraceError('no-such-bucket', {
    actor: 'caller',
    message: `There is no bucket ${JSON.stringify(name.slice(0, 80))}`,
    values: { bucket: name.slice(0, 80) },
    hint: 'Make it first: `aws s3 mb s3://NAME`.',
  });
}

/** The first place in a sorted list whose key is not below this one. */
function placeOf(keys: readonly string[], key: string): number {
  let [low, high] = [0, keys.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareKeys(keys[middle] as string, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Order of keys by the bytes of their UTF-8. JavaScript compares UTF-16 units, which differs above U+D7FF. */
export function compareKeys(one: string, other: string): number {
  const length = Math.min(one.length, other.length);
  for (let at = 0; at < length; at += 1) {
    const [left, right] = [one.charCodeAt(at), other.charCodeAt(at)];
    if (left !== right) return rankOf(left) - rankOf(right);
  }
  return one.length - other.length;
}

/** Surrogates stand for code points above all others. */
function rankOf(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
