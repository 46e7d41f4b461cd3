import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

const PROGRAMS = [
  '/bin/sh',
  '/usr/bin/perl',
  '/bin/cat',
  '/bin/head',
  '/bin/ln',
  '/bin/mkdir',
  '/bin/ls',
  '/usr/bin/id',
  '/bin/sleep',
  '/usr/bin/printf',
  '/bin/chmod',
];

/** A small root file system of this machine's own programs as a tar archive: what `debootstrap` would make, in a second and without a network. */
export function makeRootArchive(folder: string): string {
  const root = join(folder, 'root');
  const perl = perlFolder();
  const modules = [
    'POSIX.pm',
    'Socket.pm',
    'Fcntl.pm',
    'XSLoader.pm',
    'auto/POSIX/POSIX.so',
    'auto/Socket/Socket.so',
    'auto/Fcntl/Fcntl.so',
  ];
  const files = [...PROGRAMS, ...modules.map((name) => join(perl, name)).filter((path) => existsSync(path))];
  const libraries = files.flatMap((path) => [...(ldd(path).matchAll(/(\/\S+\.so\S*)/g) ?? [])].map(([, found]) => found as string));
  for (const path of new Set([...files, ...libraries])) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    execFileSync('cp', ['-L', realpathSync(path), join(root, path)]);
  }
  const base = join(dirname(dirname(perl)), 'perl-base');
  for (const from of [base, '/usr/lib/x86_64-linux-gnu/perl-base', '/usr/lib/aarch64-linux-gnu/perl-base'].filter((path) =>
    existsSync(path),
  )) {
    mkdirSync(join(root, dirname(from)), { recursive: true });
    execFileSync('cp', ['-RL', from, join(root, dirname(from))]);
  }
  for (const name of ['proc', 'dev', 'tmp', 'input', 'output', 'etc']) mkdirSync(join(root, name), { recursive: true });
  const archive = join(folder, 'root.tar');
  execFileSync('tar', ['-C', root, '-cf', archive, ...readdirSync(root)]);
  rmSync(root, { recursive: true });
  return archive;
}

const perlFolder = () => execFileSync('/usr/bin/perl', ['-MConfig', '-e', 'print $Config{archlib}'], { encoding: 'utf8' });

function ldd(path: string): string {
  try {
    return execFileSync('ldd', [path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}
