/**
 * Completes package-lock.json: npm drops the optional packages of other platforms when the registry at hand does not
 * carry them, and `npm ci` then refuses the file. Run after `npm install`; `--check` only tells.
 */
import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The part of a lock file's package that matters here. */
export interface LockedPackage {
  version?: string;
  os?: string[];
  cpu?: string[];
  libc?: string[];
  optional?: boolean;
  optionalDependencies?: Record<string, string>;
}

/** package-lock.json, version 3. */
export interface LockFile {
  packages: Record<string, LockedPackage>;
}

const SYSTEMS: Record<string, string> = { windows: 'win32' };
const SYSTEM = /(linux|darwin|win32|windows|android|freebsd|netbsd|openbsd|sunos|aix|openharmony)/;
const PROCESSORS: Record<string, string> = { amd64: 'x64' };
const PROCESSOR = /-(x64|amd64|arm64|arm|ia32|ppc64|riscv64|s390x|loong64|mips64el|wasm32)\b/;
const EXACT = /^\d+\.\d+\.\d+[\w.+-]*$/;

/** The optional packages that some package of the lock asks for by exact version, and that the lock lacks. */
export function missingOptional(lock: LockFile): { name: string; version: string }[] {
  return Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.entries(optionalDependencies)
      .filter(([name, version]) => EXACT.test(version) && !isResolved(lock, path, name))
      .map(([name, version]) => ({ name, version })),
  );
}

/**
 * The lock with an entry for each missing optional package: its version, and the platform that its name tells, so that
 * npm installs it there and nowhere else. There is no checksum: the registry that would tell it does not have it.
 */
export function completeLock(lock: LockFile): LockFile {
  const added = missingOptional(lock).map(({ name, version }): [string, LockedPackage] => {
    return [`node_modules/${name}`, { version, ...platformOf(name), optional: true }];
  });
  const packages = [...Object.entries(lock.packages), ...added].sort(([one], [other]) => one.localeCompare(other, 'en'));
  return { ...lock, packages: Object.fromEntries(packages) };
}

/** The platform in the name of a platform package: `@x/binding-linux-arm64-musl` is linux, arm64, musl. */
export function platformOf(name: string): Pick<LockedPackage, 'os' | 'cpu' | 'libc'> {
  const system = SYSTEM.exec(name)?.[1];
  const processor = PROCESSOR.exec(name)?.[1];
  const libc = /musl/.test(name) ? 'musl' : /gnu/.test(name) ? 'glibc' : undefined;
  return {
    ...(system === undefined ? {} : { os: [SYSTEMS[system] ?? system] }),
    ...(processor === undefined ? {} : { cpu: [PROCESSORS[processor] ?? processor] }),
    ...(libc === undefined ? {} : { libc: [libc] }),
  };
}

/** Node's way: look beside the package, then beside each package around it. */
function isResolved(lock: LockFile, path: string, name: string): boolean {
  for (let folder = path; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('node_modules/') - 1))) {
    if (lock.packages[`${folder === '' ? '' : `${folder}/`}node_modules/${name}`] !== undefined) return true;
    if (folder === '') return false;
  }
}

if (import.meta.main) {
  const file = join(import.meta.dirname, '..', 'package-lock.json');
  const lock = JSON.parse(readFileSync(file, 'utf8')) as LockFile;
  const missing = missingOptional(lock);
  for (const { name, version } of missing) process.stdout.write(`missing: ${name} ${version}\n`);
  if (process.argv.includes('--check')) process.exit(missing.length === 0 ? 0 : 1);
  if (missing.length > 0) {
    const { atime, mtime } = statSync(file);
    writeFileSync(file, `${JSON.stringify(completeLock(lock), null, 2)}\n`);
    utimesSync(file, atime, mtime); // what is installed stays right: the launcher must not install anew
  }
}
