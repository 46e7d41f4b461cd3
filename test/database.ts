import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Client } from 'pg';
import { startPostgres, stopPostgres } from '../src/data/index.ts';

/** An empty database of a test's own. */
export interface FreshDatabase {
  url: string;
  /** Removes it, also while connections to it are open. */
  drop(): Promise<void>;
}

/** The variable in which the test runner hands its server's address to the test files. */
export const SERVER_VARIABLE = 'MILLRACE_TEST_DATABASE_URL';
/** The database that the runner makes and every fresh one is copied from. */
export const TEMPLATE_NAME = 'millrace_template';

interface Server {
  url: string;
  template: string;
  /** True when the server ends with the test file, and its databases with it. */
  isOwn: boolean;
}

const FOLDER_PREFIX = 'millrace-test-postgres-';
let server: Promise<Server> | undefined;

/**
 * A new empty database on the runner's server (which is `DATABASE_URL` when that is set); a test file that is run by
 * itself gets an embedded server of its own, ended with the file. Dropped after the file's tests at the latest.
 */
export async function freshDatabase(): Promise<FreshDatabase> {
  server ??= findServer();
  const { url, template, isOwn } = await server;
  const name = `test_${process.pid}_${randomBytes(6).toString('hex')}`;
  await administer(url, `create database ${name} template ${template}`);
  const drop = () => administer(url, `drop database if exists ${name} with (force)`);
  if (!isOwn) after(drop);
  const own = new URL(url);
  own.pathname = `/${name}`;
  return { url: own.href, drop };
}

/** A folder in the temporary folder that other users may enter, as a server run as nobody needs it. */
export function openTemporaryFolder(prefix: string): string {
  const folder = mkdtempSync(join(tmpdir(), prefix));
  chmodSync(folder, 0o755);
  return folder;
}

/** Runs statements one by one with the rights of the URL's user. */
export async function administer(url: string, ...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000, query_timeout: 60_000 });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** A server for one process's tests, in a folder that names the process; `stop` removes both. */
export async function startTestPostgres(): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = openTemporaryFolder(`${FOLDER_PREFIX}${process.pid}-`);
  const postgres = await startPostgres({ folder: join(folder, 'database') });
  return {
    url: postgres.url,
    stop: async () => {
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Ends the servers of test processes that were killed before they could. */
export async function sweepTestPostgres(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(name.startsWith(FOLDER_PREFIX) ? name.slice(FOLDER_PREFIX.length).split('-')[0] : Number.NaN);
    if (!Number.isSafeInteger(pid) || isRunning(pid)) continue;
    await stopPostgres({ folder: join(tmpdir(), name, 'database') });
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

async function findServer(): Promise<Server> {
  const fromRunner = process.env[SERVER_VARIABLE];
  if (fromRunner) return { url: fromRunner, template: TEMPLATE_NAME, isOwn: false };
  if (process.env.DATABASE_URL) return { url: process.env.DATABASE_URL, template: 'template1', isOwn: false };
  const postgres = await startTestPostgres();
  after(async () => {
    server = undefined;
    await postgres.stop();
  });
  return { url: postgres.url, template: 'template1', isOwn: true };
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
