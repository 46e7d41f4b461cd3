import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { root } from './suite.ts';

/**
 * A clone in miniature with the real launcher: its `npm ci` writes a log and a command line that prints its arguments.
 * The real installation is made by `npm cit` itself and by `.ci/run`.
 */
const folder = mkdtempSync(join(tmpdir(), 'millrace-launcher-'));
chmodSync(folder, 0o755);
after(() => rmSync(folder, { recursive: true, force: true }));

const NPM = `#!/bin/sh
echo "$*" >>"$PWD/npm.log"
rm -rf node_modules && mkdir node_modules
[ -z "\${SLOW:-}" ] || { touch installing; sleep "$SLOW"; }
[ -z "\${BROKEN:-}" ] || exit 1
echo {} >node_modules/.package-lock.json
`;
const PATH = `${join(folder, 'tools')}:${process.execPath.replace(/\/node$/, '')}:${process.env.PATH}`;

mkdirSync(join(folder, 'tools'));
executable(join(folder, 'tools', 'npm'), NPM);

function clone(name: string): string {
  const place = join(folder, name);
  mkdirSync(join(place, 'src/cli'), { recursive: true });
  mkdirSync(join(place, 'tools'));
  cpSync(join(root, 'millrace'), join(place, 'millrace'));
  cpSync(join(root, 'tools/node.sh'), join(place, 'tools/node.sh'));
  writeFileSync(join(place, 'package-lock.json'), '{}');
  writeFileSync(join(place, 'src/cli/main.ts'), 'const words: string[] = process.argv.slice(2);\nconsole.log(JSON.stringify(words));');
  return place;
}

function launch(path: string, args: string[] = [], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
  const seen = spawnSync(path, args, { cwd: options.cwd ?? folder, env: { PATH, HOME: folder, ...options.env }, encoding: 'utf8' });
  return { status: seen.status, said: seen.stdout.trim(), told: seen.stderr };
}

function begin(place: string, env: NodeJS.ProcessEnv = {}): ChildProcess {
  return spawn(join(place, 'millrace'), [], { cwd: folder, env: { PATH, HOME: folder, ...env }, stdio: 'ignore', detached: true });
}

function installations(place: string): number {
  const log = join(place, 'npm.log');
  return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').length : 0;
}

function executable(path: string, text: string): void {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

async function appears(path: string): Promise<void> {
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 10));
}

test('the first use installs, says how much, and leaves standard output to the command', () => {
  const place = clone('first');
  const first = launch(join(place, 'millrace'), ['put', 'a b', '--json']);
  assert.deepEqual([first.status, first.said], [0, '["put","a b","--json"]']);
  assert.match(first.told, /1,200 MB on disk, 470 MB to download/);
  const second = launch(join(place, 'millrace'), []);
  assert.deepEqual([second.status, second.told, installations(place)], [0, '', 1]);
});

test('it runs from any folder, through links of links, and from a path with spaces', () => {
  const place = clone('with space');
  mkdirSync(join(folder, 'bin'));
  symlinkSync(join(place, 'millrace'), join(folder, 'bin', 'first-link'));
  symlinkSync('first-link', join(folder, 'bin', 'millrace'));
  for (const cwd of ['/', place, join(place, 'src')]) assert.equal(launch(join(folder, 'bin', 'millrace'), ['x'], { cwd }).said, '["x"]');
  assert.equal(launch('./millrace', ['x'], { cwd: place }).said, '["x"]');
  assert.equal(launch('sh', [join(place, 'millrace'), 'x']).said, '["x"]');
  assert.equal(installations(place), 1);
});

test('a changed lock file installs again; an installation that the user made by npm is taken as it is', () => {
  const place = clone('changed');
  launch(join(place, 'millrace'));
  writeFileSync(join(place, 'package-lock.json'), '{"changed":true}');
  utimesSync(join(place, 'package-lock.json'), new Date(), new Date(Date.now() + 60_000));
  launch(join(place, 'millrace'));
  assert.equal(installations(place), 2);
  rmSync(join(place, 'node_modules'), { recursive: true });
  utimesSync(join(place, 'package-lock.json'), new Date(0), new Date(0));
  spawnSync('npm', ['ci'], { cwd: place, env: { PATH } });
  assert.equal(installations(place), 3);
  assert.equal(launch(join(place, 'millrace')).status, 0);
  assert.equal(installations(place), 3);
});

test('an installation that failed or was killed is made again by the next use', async () => {
  const place = clone('interrupted');
  const broken = launch(join(place, 'millrace'), [], { env: { BROKEN: '1' } });
  assert.equal(broken.status, 5);
  assert.match(broken.told, /did not finish[\s\S]*run the same command again/);
  const killed = begin(place, { SLOW: '60' });
  await appears(join(place, 'installing'));
  process.kill(-(killed.pid as number), 'SIGKILL');
  await once(killed, 'close');
  assert.equal(existsSync(join(place, '.millrace-installing')), true);
  assert.equal(launch(join(place, 'millrace'), ['x']).said, '["x"]');
  assert.deepEqual([installations(place), existsSync(join(place, '.millrace-installing'))], [3, false]);
});

test('two first uses at once make one installation', async () => {
  const place = clone('twice');
  const children = [begin(place, { SLOW: '1' }), begin(place, { SLOW: '1' }), begin(place, { SLOW: '1' })];
  const codes = await Promise.all(children.map(async (child) => (await once(child, 'close'))[0]));
  assert.deepEqual([codes, installations(place)], [[0, 0, 0], 1]);
});

test('missing node, missing npm and a full disk are told with what to do', () => {
  const place = clone('bare');
  const tools = join(folder, 'posix');
  mkdirSync(tools);
  for (const tool of [
    'dirname',
    'cksum',
    'uname',
    'cat',
    'mkdir',
    'rm',
    'mv',
    'find',
    'awk',
    'ln',
    'rmdir',
    'sh',
    'readlink',
    'df',
    'sleep',
    'ps',
  ]) {
    symlinkSync(String(spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout).trim(), join(tools, tool));
  }
  const withoutNode = launch(join(place, 'millrace'), [], { env: { PATH: tools } });
  assert.deepEqual([withoutNode.status, /node is missing[\s\S]*nodejs\.org/.test(withoutNode.told)], [5, true]);
  symlinkSync(process.execPath, join(tools, 'node'));
  const withoutNpm = launch(join(place, 'millrace'), [], { env: { PATH: tools } });
  assert.deepEqual([withoutNpm.status, /npm is missing/.test(withoutNpm.told)], [5, true]);
  symlinkSync(join(folder, 'tools', 'npm'), join(tools, 'npm'));
  rmSync(join(tools, 'df'));
  executable(
    join(tools, 'df'),
    '#!/bin/sh\necho "Filesystem 1024-blocks Used Available Capacity Mounted on"\necho "/dev/x 100 90 10240 90% /"\n',
  );
  const full = launch(join(place, 'millrace'), [], { env: { PATH: tools } });
  assert.deepEqual([full.status, /10 MiB are free .* are needed/.test(full.told), installations(place)], [5, true, 0]);
});

test('a user who may not write runs what is installed, and is told when nothing is', () => {
  const place = clone('users');
  // Root's files are closed to nobody; an ordinary user closes the folder to himself.
  const isRoot = process.getuid?.() === 0;
  const user = isRoot ? { uid: 65534, gid: 65534 } : {};
  const reader = { cwd: '/', env: { PATH, HOME: '/nonexistent' }, encoding: 'utf8', ...user } as const;
  if (!isRoot) chmodSync(place, 0o555);
  const before = spawnSync(join(place, 'millrace'), ['x'], reader);
  assert.deepEqual([before.status, /cannot write to/.test(before.stderr)], [5, true]);
  chmodSync(place, 0o755);
  launch(join(place, 'millrace'));
  if (!isRoot) chmodSync(place, 0o555);
  const afterwards = spawnSync(join(place, 'millrace'), ['x'], reader);
  assert.deepEqual([afterwards.status, afterwards.stdout.trim()], [0, '["x"]']);
  chmodSync(place, 0o755);
});

test('this clone, installed by npm, prints its version without a word on standard error', () => {
  // Where the lock file is newer than the installation, nothing may be installed in the middle of a test run.
  mkdirSync(join(folder, 'refuses'));
  executable(join(folder, 'refuses', 'npm'), '#!/bin/sh\nexit 9\n');
  const seen = launch(join(root, 'millrace'), ['--version'], { env: { PATH: `${join(folder, 'refuses')}:${process.env.PATH}` } });
  assert.deepEqual([seen.status, seen.told], [0, '']);
  assert.match(seen.said, /^\d+\.\d+\.\d+/);
});
