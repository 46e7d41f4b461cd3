import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { syncFolder } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** What a snapshot says of itself. */
export interface SnapshotMeta {
  version: 1;
  chainId: number;
  height: number;
  hash: `0x${string}`;
  warpOffsetSeconds: number;
  /** SHA-256 of the state bytes, hex. */
  sha256: string;
}

/** A snapshot file in the chain's folder; its contents are checked only when it is read. */
export interface SnapshotFile {
  path: string;
  height: number;
}

const SNAPSHOT_NAME = /^snapshot-(\d{12})\.bin$/;
const SNAPSHOTS_KEPT = 2;

/** The snapshots in `folder`, newest first. */
export function listSnapshots(folder: string): SnapshotFile[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const match = SNAPSHOT_NAME.exec(name);
      return match === null ? [] : [{ path: join(folder, name), height: Number(match[1]) }];
    })
    .sort((left, right) => right.height - left.height);
}

/**
 * Writes a snapshot so that it is either whole under its name or absent, keeps the last two, and gives the height of
 * the oldest one kept: the log is needed only above it. `state` is the hex text that `anvil_dumpState` gave.
 * @throws snapshot-failed
 */
export function writeSnapshot(folder: string, meta: Omit<SnapshotMeta, 'version' | 'sha256'>, state: string): number {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const bytes = Buffer.from(state.slice(2), 'hex');
  const full: SnapshotMeta = { version: 1, ...meta, sha256: createHash('sha256').update(bytes).digest('hex') };
  const path = join(folder, `snapshot-${String(meta.height).padStart(12, '0')}.bin`);
  const temporary = `${path}.tmp`;
  try {
    writeAndSync(temporary, [Buffer.from(`${JSON.stringify(full)}\n`), bytes]);
    renameSync(temporary, path);
    syncFolder(folder);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new MillraceError('snapshot-failed', {
      actor: 'host',
      message: `Cannot write the snapshot ${path}: ${(cause as Error).message}`,
      values: { path, sizeBytes: bytes.length },
      hint: 'Nothing is lost: the log has everything. Free some space.',
      cause,
    });
  }
  const snapshots = listSnapshots(folder);
  for (const old of snapshots.slice(SNAPSHOTS_KEPT)) rmSync(old.path, { force: true });
  // With a single snapshot the log from genesis on is its fallback.
  return snapshots.length < SNAPSHOTS_KEPT ? 0 : (snapshots[SNAPSHOTS_KEPT - 1] as SnapshotFile).height;
}

function writeAndSync(path: string, parts: Buffer[]): void {
  const file = openSync(path, 'w', 0o600);
  try {
    for (const part of parts) for (let done = 0; done < part.length; ) done += writeSync(file, part, done);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/**
 * The contents of a snapshot, checked against its own digest. `state` is hex for `anvil_loadState`.
 * @throws snapshot-corrupt
 */
export function readSnapshot(snapshot: SnapshotFile): { meta: SnapshotMeta; state: string } {
  const bytes = readFileSync(snapshot.path);
  const end = bytes.indexOf(10);
  try {
    const meta = JSON.parse(bytes.subarray(0, end).toString('utf8')) as SnapshotMeta;
    const state = bytes.subarray(end + 1);
    const sha256 = createHash('sha256').update(state).digest('hex');
    if (meta.version === 1 && meta.height === snapshot.height && meta.sha256 === sha256) {
      return { meta, state: `0x${state.toString('hex')}` };
    }
  } catch {
    // Not even its first line can be read: the same answer as a wrong digest.
  }
  throw new MillraceError('snapshot-corrupt', {
    actor: 'host',
    message: `The snapshot ${snapshot.path} is damaged`,
    values: { path: snapshot.path },
    hint: 'The older snapshot and the log are used instead. Check the disk.',
  });
}

/** Removes what an interrupted write left behind. */
export function removeUnfinishedSnapshots(folder: string): void {
  for (const name of readdirSync(folder)) if (name.startsWith('snapshot-') && name.endsWith('.tmp')) rmSync(join(folder, name));
}
