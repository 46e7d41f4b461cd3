import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { writeAll } from '../../durable-file.ts';

/** One thing that a validator has seen or decided. Values are printable; no request and no answer of a user is in it, only hashes. */
export interface EvidenceEntry {
  /** Protocol time, seconds. */
  at: number;
  kind: 'probe' | 'replay' | 'copies' | 'score' | 'weights';
  uid?: number;
  [field: string]: unknown;
}

/** What lies behind a validator's weights, by epoch: appended, never changed, bounded in size and number of epochs. */
export interface EvidenceBook {
  /** Durable when it returns. Entries beyond the bound of an epoch are left out and counted. */
  append(epoch: bigint, entries: readonly EvidenceEntry[]): void;
}

/** Which entries are wanted. */
export interface EvidenceQuery {
  epoch: bigint;
  uid?: number;
  kind?: EvidenceEntry['kind'];
}

const EPOCH_BYTES_MAX = 8 << 20;
const EPOCHS_MAX = 64;

/** Opens the evidence of one subnet in a folder. */
export function openEvidence(folder: string, bounds = { epochBytesMax: EPOCH_BYTES_MAX, epochsMax: EPOCHS_MAX }): EvidenceBook {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return {
    append(epoch, entries) {
      if (entries.length === 0) return;
      const path = fileOf(folder, epoch);
      const isNew = sizeOf(path) === 0;
      const kept: string[] = [];
      let sizeBytes = sizeOf(path);
      for (const entry of entries) {
        const line = `${JSON.stringify(entry, (_, value) => (typeof value === 'bigint' ? value.toString() : value))}\n`;
        // A score always has room: the bound is for what anybody can cause.
        const isBounded = entry.kind === 'probe' || entry.kind === 'replay';
        if (isBounded && sizeBytes + line.length > bounds.epochBytesMax) continue;
        sizeBytes += Buffer.byteLength(line);
        kept.push(line);
      }
      const file = openSync(path, 'a', 0o600);
      try {
        writeAll(file, kept.join(''));
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      if (isNew) removeOld(folder, bounds.epochsMax);
    },
  };
}

/** The epochs that there is evidence of, ascending. */
export function evidenceEpochs(folder: string): bigint[] {
  const names = readNames(folder);
  return names.map((name) => BigInt(name.slice(0, -'.ndjson'.length))).sort((one, other) => (one < other ? -1 : 1));
}

/** Reads an epoch's evidence, in the order in which it was written; a line that a crash has torn is left out. */
export function readEvidence(folder: string, { epoch, uid, kind }: EvidenceQuery): EvidenceEntry[] {
  const path = fileOf(folder, epoch);
  if (sizeOf(path) === 0) return [];
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as EvidenceEntry];
      } catch {
        return [];
      }
    })
    .filter((entry) => (uid === undefined || entry.uid === uid) && (kind === undefined || entry.kind === kind));
}

function fileOf(folder: string, epoch: bigint): string {
  return join(folder, `${epoch}.ndjson`);
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function readNames(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => /^\d{1,20}\.ndjson$/.test(name));
  } catch {
    return []; // nothing was written yet
  }
}

function removeOld(folder: string, epochsMax: number): void {
  for (const epoch of evidenceEpochs(folder).slice(0, -epochsMax)) rmSync(fileOf(folder, epoch), { force: true });
}
