import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { command, type Engine, engineVersion } from './engine.ts';

/** The database, and the owner of it, that an embedded cluster holds. */
export const DATABASE_NAME = 'millrace';

/** Where the files of a cluster lie below the folder given to `startPostgres`. */
export function clusterFolder(folder: string): string {
  return join(folder, 'cluster');
}

/**
 * Makes the cluster by `initdb` when the folder has none: UTF8, C locale, scram with a generated password. An
 * interrupted creation leaves only `cluster.new`, which the next one removes.
 * @throws database-start-failed, database-engine-version
 */
export async function ensureCluster(folder: string, engine: Engine): Promise<void> {
  const cluster = clusterFolder(folder);
  if (existsSync(cluster)) return refuseOtherVersion(cluster, engine);
  const draft = `${cluster}.new`;
  rmSync(draft, { recursive: true, force: true });
  const identity = ['-U', DATABASE_NAME, '-A', 'scram-sha-256', `--pwfile=${ensurePassword(folder, engine)}`];
  const args = ['-D', draft, ...identity, '-E', 'UTF8', '--no-locale', '--no-instructions'];
  const { code, text } = await runInitdb(engine, args, folder);
  if (code !== 0) throw startFailed(folder, `initdb ended with ${code}: ${text}`);
  renameSync(draft, cluster);
}

/** Connection string of a database in the cluster, with its password: a secret. */
export function clusterUrl(folder: string, port: number, database: string = DATABASE_NAME): string {
  return `postgres://${DATABASE_NAME}:${readFileSync(join(folder, 'password'), 'utf8')}@127.0.0.1:${port}/${database}`;
}

/** The error for a server that did not come up, with the last thing that it said. */
export function startFailed(folder: string, said: string): MillraceError {
  return new MillraceError('database-start-failed', {
    actor: 'host',
    message: `PostgreSQL did not start in ${folder}: ${said.trim().slice(-1_000)}`,
    values: { folder },
    hint: 'Look at postgres.log in that folder: a full disk and too little shared memory are the usual causes.',
  });
}

/** Makes the password once, readable by its owner alone, and durable before the cluster that knows it. */
function ensurePassword(folder: string, engine: Engine): string {
  const path = join(folder, 'password');
  if (existsSync(path)) return path;
  const file = openSync(`${path}.new`, 'w', 0o600);
  writeSync(file, randomBytes(24).toString('hex'));
  fsyncSync(file);
  closeSync(file);
  if (engine.uid !== undefined) chownSync(`${path}.new`, engine.uid, engine.uid);
  renameSync(`${path}.new`, path);
  return path;
}

function refuseOtherVersion(cluster: string, engine: Engine): void {
  const got = readFileSync(join(cluster, 'PG_VERSION'), 'utf8').trim();
  const expected = engineVersion(engine);
  if (got === expected) return;
  throw new MillraceError('database-engine-version', {
    actor: 'caller',
    message: `The database in ${cluster} was written by PostgreSQL ${got}; this Millrace brings PostgreSQL ${expected}`,
    values: { got, expected, cluster },
    hint: 'Run the Millrace that wrote it, or move the data with pg_dump and pg_restore.',
  });
}

function runInitdb(engine: Engine, args: string[], folder: string): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(...command(engine, 'initdb', args, folder));
    let text = '';
    const keep = (bytes: Buffer) => {
      text = (text + bytes.toString()).slice(-4_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, text }));
  });
}
